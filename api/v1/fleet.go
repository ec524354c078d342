package v1

// Pop is a point of presence: a place where edges run.
type Pop struct {
	TypeMeta `json:",inline"`
	Metadata Metadata `json:"metadata" schema:"required"`
	Spec     PopSpec  `json:"spec" schema:"required"`
}

// PopSpec is what is known of a Pop. Placements and rings choose it by its metadata.labels.
type PopSpec struct {
	// Region groups places that are near one another, such as eu-central.
	Region string `json:"region" schema:"required,format=name,maxLength=63"`
	// Addresses at which visitors reach it.
	Addresses []string `json:"addresses,omitempty" schema:"maxItems=64,format=address"`
	// Draining takes it out of service: names are no longer answered with its addresses, and it finishes what it has.
	Draining bool `json:"draining,omitempty"`
}

// Placement says which organizations are served at which Pops. Of several that choose an organization the one with the
// highest priority holds; one that none chooses is served everywhere.
type Placement struct {
	TypeMeta `json:",inline"`
	Metadata Metadata      `json:"metadata" schema:"required"`
	Spec     PlacementSpec `json:"spec" schema:"required"`
}

// PlacementSpec is what a Placement does.
type PlacementSpec struct {
	// Priority among Placements that choose the same organization; of equal ones the first by name holds.
	Priority int `json:"priority,omitempty" schema:"min=0,max=1000"`
	// Organizations that it is for, and all below them; absent means all but the operator's own, which has the listeners.
	Organizations []string `json:"organizations,omitempty" schema:"maxItems=1000,format=name"`
	// PopLabels are labels that a Pop has, all of them; absent chooses every Pop.
	PopLabels map[string]string `json:"popLabels,omitempty" schema:"maxItems=64"`
	// ExceptPopLabels keep away from Pops that have one of these labels.
	ExceptPopLabels map[string]string `json:"exceptPopLabels,omitempty" schema:"maxItems=64"`
}

// KillSwitch turns features off at once, when one of them does harm: it goes the way of an emergency, past rings and
// freeze windows.
type KillSwitch struct {
	TypeMeta `json:",inline"`
	Metadata Metadata       `json:"metadata" schema:"required"`
	Spec     KillSwitchSpec `json:"spec" schema:"required"`
}

// KillSwitchSpec is what a KillSwitch does. What decides who may come (AccessPolicy, JwtPolicy) cannot be turned off.
type KillSwitchSpec struct {
	// Features that are turned off.
	Features []string `json:"features" schema:"required,minItems=1,maxItems=16,enum=waf|bots|challenge|rate-limits|waiting-room|flood|cache|images|compression|hints|mirror|http3"`
	// Sites of its organization; absent means all of them.
	Sites []string `json:"sites,omitempty" schema:"maxItems=1000,ref=Site"`
	// Everywhere means the sites of all organizations; only the operator's switches may.
	Everywhere bool `json:"everywhere,omitempty"`
	// Reason is read by who wonders later.
	Reason string `json:"reason" schema:"required,maxLength=1024"`
	// Expires is the instant (RFC 3339) from which the switch does nothing.
	Expires *Time `json:"expires" schema:"required"`
}

// RolloutPolicy says how changes go out: ring by ring, with a look at health after each, and not while it is frozen.
type RolloutPolicy struct {
	TypeMeta `json:",inline"`
	Metadata Metadata          `json:"metadata" schema:"required"`
	Spec     RolloutPolicySpec `json:"spec" schema:"required"`
}

// RolloutPolicySpec is what a RolloutPolicy does.
type RolloutPolicySpec struct {
	// Organizations whose changes it is for; absent means those that no other policy names.
	Organizations []string `json:"organizations,omitempty" schema:"maxItems=1000,format=name"`
	// Rings in their order; after the last one the change is everywhere. Absent means one Pop, 1 %, 10 %.
	Rings []RolloutRing `json:"rings,omitempty" schema:"maxItems=16"`
	// Gates that a ring passes before the next one begins.
	Gates RolloutGates `json:"gates,omitempty"`
	// Undo takes a change back from where it went, when a gate is not passed.
	Undo *bool `json:"undo,omitempty" schema:"default=true"`
	// Freeze lists times at which no change goes out.
	Freeze []FreezeWindow `json:"freeze,omitempty" schema:"maxItems=64"`
	// Emergency is how a change goes out that cannot wait.
	Emergency RolloutEmergency `json:"emergency,omitempty"`
}

// RolloutRing is one step. Exactly one of Pops, Share and Labels is given.
type RolloutRing struct {
	// Name for people; absent means ring-N.
	Name string `json:"name,omitempty" schema:"format=name,maxLength=63"`
	// Pops is how many have the change after this ring.
	Pops int `json:"pops,omitempty" schema:"min=1,max=100000"`
	// Share of the Pops that have the change after this ring, at least one.
	Share *Percent `json:"share,omitempty"`
	// Labels of the Pops of this ring, all of them.
	Labels map[string]string `json:"labels,omitempty" schema:"maxItems=64"`
	// Wait is how long the ring is watched before the next one begins.
	Wait *Duration `json:"wait,omitempty" schema:"default=5m,min=0s,max=168h"`
}

// RolloutGates compare what has a change with what has not, over the ring's wait.
type RolloutGates struct {
	// MinRequests that both sides have served before shares and latencies are compared; with fewer a ring passes by its
	// wait alone.
	MinRequests *int `json:"minRequests,omitempty" schema:"default=1000,min=0,max=1000000000"`
	// ErrorRatio is by how much the share of answers with 5xx may be higher.
	ErrorRatio *Percent `json:"errorRatio,omitempty" schema:"default=0.5%"`
	// LatencyP99 is how many per cent of its former value the 99th percentile may be.
	LatencyP99 int `json:"latencyP99,omitempty" schema:"default=150,min=100,max=10000"`
	// HitRatioDrop is by how much the share of hits may be lower.
	HitRatioDrop *Percent `json:"hitRatioDrop,omitempty" schema:"default=10%"`
	// BlockedGood is the share of visitors with a basket, or known to be good, that may be blocked.
	BlockedGood *Percent `json:"blockedGood,omitempty" schema:"default=0.1%"`
	// CPU is the share of the processors that may be in use.
	CPU *Percent `json:"cpu,omitempty" schema:"default=85%"`
	// Memory is the share of the memory that may be in use.
	Memory *Percent `json:"memory,omitempty" schema:"default=90%"`
}

// FreezeWindow is a time at which nothing goes out: from Start to End once, or on Weekdays from From to To.
type FreezeWindow struct {
	// Name for people.
	Name string `json:"name" schema:"required,format=name,maxLength=63"`
	// Start of a window that is once.
	Start *Time `json:"start,omitempty"`
	// End of a window that is once.
	End *Time `json:"end,omitempty"`
	// Weekdays of a window that comes again; absent means every day.
	Weekdays []string `json:"weekdays,omitempty" schema:"maxItems=7,enum=mon|tue|wed|thu|fri|sat|sun"`
	// From is the time of day at which it begins, as 17:00.
	From string `json:"from,omitempty" schema:"maxLength=5"`
	// To is the time of day at which it ends; one that is not later than From is of the next day.
	To string `json:"to,omitempty" schema:"maxLength=5"`
	// TimeZone in which From and To are, as Europe/Berlin.
	TimeZone string `json:"timeZone,omitempty" schema:"default=UTC,maxLength=64"`
}

// RolloutEmergency is how a change goes out that cannot wait: a KillSwitch, a rollback, or who says so.
type RolloutEmergency struct {
	// Wait between the rings.
	Wait *Duration `json:"wait,omitempty" schema:"default=10s,min=0s,max=1h"`
	// Frozen says whether it goes out in a freeze window too.
	Frozen *bool `json:"frozen,omitempty" schema:"default=true"`
}

// Meta implements Document.
func (d *Pop) Meta() (Kind, *Metadata) { return KindPop, &d.Metadata }

// Meta implements Document.
func (d *Placement) Meta() (Kind, *Metadata) { return KindPlacement, &d.Metadata }

// Meta implements Document.
func (d *KillSwitch) Meta() (Kind, *Metadata) { return KindKillSwitch, &d.Metadata }

// Meta implements Document.
func (d *RolloutPolicy) Meta() (Kind, *Metadata) { return KindRolloutPolicy, &d.Metadata }

// OfFleet says whether documents of a kind are for a control plane with many places: one edge by itself has no use for them.
func OfFleet(k Kind) bool {
	return k == KindPop || k == KindPlacement || k == KindKillSwitch || k == KindRolloutPolicy
}

// Reserved says whether a name that is no kind is kept for one to come.
func Reserved(k Kind) bool { return k == "Peer" || k == "Offer" || k == "Lease" || k == "Receipt" }
