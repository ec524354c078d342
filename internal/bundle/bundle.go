// Package bundle is the compiled form of documents: what the control plane sends and a PoP
// serves. It is plain data that can be written and read again as JSON. Every reference is
// resolved, every default is filled in, and a Site holds all that it needs.
package bundle

import (
	"iter"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
)

// Format is the number of this form. A reader refuses a bundle of another format.
const Format = 1

// Key names a document: organization/name.
type Key string

// NewKey makes a Key.
func NewKey(organization, name string) Key { return Key(organization + "/" + name) }

// Split gives the organization and the name.
func (k Key) Split() (organization, name string) {
	organization, name, _ = strings.Cut(string(k), "/")
	return organization, name
}

// Bundle is a set of compiled documents: those of all organizations, or of one.
type Bundle struct {
	Format int `json:"format"`
	// Organization owns everything in the bundle; empty in one of several organizations.
	Organization string        `json:"organization,omitempty"`
	Listeners    []Listener    `json:"listeners,omitempty"`
	Sites        []*Site       `json:"sites,omitempty"`
	Services     []Service     `json:"services,omitempty"`
	Certificates []Certificate `json:"certificates,omitempty"`
	// Hosts are the certificates that sites name, in a bundle of one organization, whose listeners are
	// another's. In a bundle of several they stand in the listeners.
	Hosts []CertificateHosts `json:"hosts,omitempty"`
}

// Listener is a compiled Listener. TLS names certificates by Key.
type Listener struct {
	Key  Key             `json:"key"`
	Spec v1.ListenerSpec `json:"spec"`
	// Certificates are the keys of Spec.TLS.Certificates, in their order.
	Certificates []Key `json:"certificates,omitempty"`
	// Hosts are the certificates that sites name, by their host names.
	Hosts []CertificateHosts `json:"hosts,omitempty"`
}

// CertificateHosts says for which host names a listener shows certificates.
type CertificateHosts struct {
	// Site and Listeners are given in Bundle.Hosts only: who names the certificates, and the listeners they
	// are for; empty means all.
	Site      Key   `json:"site,omitempty"`
	Listeners []Key `json:"listeners,omitempty"`
	// Hostnames are lower-case A-labels or *.name.
	Hostnames    []string `json:"hostnames"`
	Certificates []Key    `json:"certificates"`
}

// OwnHostnames are host names without *, which no certificate can be for. It shares the list where it can.
func OwnHostnames(names []string) []string {
	i := slices.Index(names, "*")
	if i < 0 {
		return names
	}
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "*" })
}

// ACME is a Certificate of an ACME authority with all names that are wanted of it.
type ACME struct {
	Key  Key
	Spec *v1.ACMECertificate
	// NoStaple says that OCSP is off.
	NoStaple bool
	// Hostnames are lower-case A-labels or *.name, each once.
	Hostnames []string
}

// Certificate is a compiled Certificate.
type Certificate struct {
	Key  Key                `json:"key"`
	Spec v1.CertificateSpec `json:"spec"`
}

// Service is a compiled Service.
type Service struct {
	Key  Key                `json:"key"`
	Spec v1.ServiceSpec     `json:"spec"`
	Pool *v1.OriginPoolSpec `json:"pool"`
}

// Site is a compiled Site, whole in itself: the maps hold every policy and pool that its
// routes name. Sites of one process may share the specs by pointer; nobody changes them.
type Site struct {
	Key Key `json:"key"`
	// Hostnames are lower-case A-labels, *.name or *.
	Hostnames []string `json:"hostnames"`
	// Listeners that serve the site; empty means all.
	Listeners []Key `json:"listeners,omitempty"`
	// Routes have a name, and in Policies what holds for them: their own or the site's.
	// Their Listeners are keys.
	Routes     []v1.Route                       `json:"routes"`
	Pools      map[string]*v1.OriginPoolSpec    `json:"pools,omitempty"`
	Access     map[string]*v1.AccessPolicySpec  `json:"access,omitempty"`
	JWT        map[string]*v1.JwtPolicySpec     `json:"jwt,omitempty"`
	API        map[string]*v1.ApiPolicySpec     `json:"api,omitempty"`
	RateLimits map[string]*v1.RateLimitSpec     `json:"rateLimits,omitempty"`
	WAF        map[string]*v1.WafPolicySpec     `json:"waf,omitempty"`
	Visitors   map[string]*v1.VisitorPolicySpec `json:"visitors,omitempty"`
	Rooms      map[string]*v1.WaitingRoomSpec   `json:"rooms,omitempty"`
	Bots       map[string]*v1.BotPolicySpec     `json:"bots,omitempty"`
	Caches     map[string]*v1.CachePolicySpec   `json:"caches,omitempty"`
	Images     map[string]*v1.ImagePolicySpec   `json:"images,omitempty"`
	Flood      *v1.FloodPolicySpec              `json:"flood,omitempty"`
	// HTTPS has the port of https where it redirects.
	HTTPS       v1.HTTPS        `json:"https,omitzero"`
	Maintenance *v1.Maintenance `json:"maintenance,omitempty"`
	Challenge   *v1.Challenge   `json:"challenge,omitempty"`
	ErrorPages  []v1.ErrorPage  `json:"errorPages,omitempty"`
}

// HTTPSPort finds the port to which requests in clear are sent: that of a listener with TLS and a fixed
// port among those named, 443 before others and then the lowest. An empty list means all; 0 that there is none.
func HTTPSPort(listeners iter.Seq2[Key, *v1.ListenerSpec], on []Key) int {
	found := 0
	for key, spec := range listeners {
		if spec.TLS == nil || len(on) > 0 && !slices.Contains(on, key) {
			continue
		}
		_, text, _ := strings.Cut(spec.Address[strings.LastIndexByte(spec.Address, ']')+1:], ":")
		port, err := strconv.Atoi(text)
		if err == nil && port > 0 && (found == 0 || port == 443 || found != 443 && port < found) {
			found = port
		}
	}
	return found
}
