package v1

// APIVersion is the only value of a document's apiVersion.
const APIVersion = "relais/v1"

// Kind names what a document is.
type Kind string

// The kinds of this version.
const (
	KindListener      Kind = "Listener"
	KindSite          Kind = "Site"
	KindService       Kind = "Service"
	KindOriginPool    Kind = "OriginPool"
	KindCachePolicy   Kind = "CachePolicy"
	KindImagePolicy   Kind = "ImagePolicy"
	KindWafPolicy     Kind = "WafPolicy"
	KindAccessPolicy  Kind = "AccessPolicy"
	KindRateLimit     Kind = "RateLimit"
	KindVisitorPolicy Kind = "VisitorPolicy"
	KindWaitingRoom   Kind = "WaitingRoom"
	KindBotPolicy     Kind = "BotPolicy"
	KindFloodPolicy   Kind = "FloodPolicy"
	KindCertificate   Kind = "Certificate"
	KindJwtPolicy     Kind = "JwtPolicy"
	KindApiPolicy     Kind = "ApiPolicy"
	KindPop           Kind = "Pop"
	KindPlacement     Kind = "Placement"
	KindKillSwitch    Kind = "KillSwitch"
	KindRolloutPolicy Kind = "RolloutPolicy"
)

// TypeMeta says which kind and version a document has.
type TypeMeta struct {
	APIVersion string `json:"apiVersion" schema:"required,enum=relais/v1"`
	Kind       Kind   `json:"kind" schema:"required"`
}

// Metadata names a document. Name and organization together are unique within a kind.
type Metadata struct {
	// Name is unique within the organization and the kind.
	Name string `json:"name" schema:"required,format=name,maxLength=253"`
	// Organization owns the document; documents refer only to documents of their own organization.
	Organization string `json:"organization,omitempty" schema:"default=default,format=name,maxLength=63"`
	// Project groups documents within the organization, for who may change them. One edge by itself does not look at it.
	Project string `json:"project,omitempty" schema:"format=name,maxLength=63"`
	// Labels are free pairs for selection.
	Labels map[string]string `json:"labels,omitempty" schema:"maxItems=64"`
	// Revision at which the document was read from a control plane: given back, a change is refused when somebody
	// else changed the document meanwhile. It is not kept.
	Revision int `json:"revision,omitempty" schema:"min=1"`
}

// Mode says whether a protection acts.
type Mode string

const (
	// ModeEnforce acts on a match.
	ModeEnforce Mode = "enforce"
	// ModeShadow records what would have been done and lets pass.
	ModeShadow Mode = "shadow"
	// ModeOff does not look at all.
	ModeOff Mode = "off"
)

// Protection is what every protective kind has in common.
type Protection struct {
	// Mode is enforce, shadow or off.
	Mode Mode `json:"mode,omitempty" schema:"enum=enforce|shadow|off,default=enforce"`
	// Expires is the instant (RFC 3339) from which the document acts as if its mode were off.
	Expires *Time `json:"expires,omitempty"`
}

// Document is one of the kinds below, by pointer.
type Document interface {
	// Meta gives the document's kind and name.
	Meta() (Kind, *Metadata)
}

// Meta implements Document.
func (d *Listener) Meta() (Kind, *Metadata) { return KindListener, &d.Metadata }

// Meta implements Document.
func (d *Site) Meta() (Kind, *Metadata) { return KindSite, &d.Metadata }

// Meta implements Document.
func (d *Service) Meta() (Kind, *Metadata) { return KindService, &d.Metadata }

// Meta implements Document.
func (d *OriginPool) Meta() (Kind, *Metadata) { return KindOriginPool, &d.Metadata }

// Meta implements Document.
func (d *CachePolicy) Meta() (Kind, *Metadata) { return KindCachePolicy, &d.Metadata }

// Meta implements Document.
func (d *ImagePolicy) Meta() (Kind, *Metadata) { return KindImagePolicy, &d.Metadata }

// Meta implements Document.
func (d *WafPolicy) Meta() (Kind, *Metadata) { return KindWafPolicy, &d.Metadata }

// Meta implements Document.
func (d *AccessPolicy) Meta() (Kind, *Metadata) { return KindAccessPolicy, &d.Metadata }

// Meta implements Document.
func (d *RateLimit) Meta() (Kind, *Metadata) { return KindRateLimit, &d.Metadata }

// Meta implements Document.
func (d *VisitorPolicy) Meta() (Kind, *Metadata) { return KindVisitorPolicy, &d.Metadata }

// Meta implements Document.
func (d *WaitingRoom) Meta() (Kind, *Metadata) { return KindWaitingRoom, &d.Metadata }

// Meta implements Document.
func (d *BotPolicy) Meta() (Kind, *Metadata) { return KindBotPolicy, &d.Metadata }

// Meta implements Document.
func (d *FloodPolicy) Meta() (Kind, *Metadata) { return KindFloodPolicy, &d.Metadata }

// Meta implements Document.
func (d *Certificate) Meta() (Kind, *Metadata) { return KindCertificate, &d.Metadata }

// Meta implements Document.
func (d *JwtPolicy) Meta() (Kind, *Metadata) { return KindJwtPolicy, &d.Metadata }

// Meta implements Document.
func (d *ApiPolicy) Meta() (Kind, *Metadata) { return KindApiPolicy, &d.Metadata }
