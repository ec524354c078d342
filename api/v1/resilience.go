package v1

import "net/netip"

// ZoneSpec prefers the origins that are near. The edge's own zone is that of relais serve --zone.
type ZoneSpec struct {
	// Prefer says which origins of a tier are taken first: those of the edge's own zone, or none.
	Prefer string `json:"prefer,omitempty" schema:"enum=none|own,default=none"`
	// Least is the share of the own zone's origins that must be well for all requests to stay there. With
	// fewer, requests go to all of the tier in the measure in which origins are missing. They also do while
	// the zone's part of the tier's capacity is used.
	Least *Percent `json:"least,omitempty" schema:"default=70%"`
}

// DiscoverySpec finds the addresses of origins by DNS.
type DiscoverySpec struct {
	// Interval between two looks at a name of an origin with expand or srv, a tenth more or less. What was
	// found last stays when a name cannot be resolved, or resolves to nothing.
	Interval Duration `json:"interval,omitempty" schema:"default=30s,min=1s,max=1h"`
}

// GRPCCheck is a check by grpc.health.v1.Health/Check: SERVING is good.
type GRPCCheck struct {
	// Service that is asked for; absent means the whole server.
	Service string `json:"service,omitempty" schema:"maxLength=256"`
}

// CheckHeader is a field of a check.
type CheckHeader struct {
	// Name of the field.
	Name string `json:"name" schema:"required,format=field-name"`
	// Value of the field.
	Value string `json:"value" schema:"required,maxLength=4096"`
}

// HedgeSpec sends a second try, to another origin, of a request with a safe method and no body whose
// answer's head takes longer than most. The first good answer is taken, and the other try is ended. Each takes
// from the retries' budget.
type HedgeSpec struct {
	// Percentile of the pool's lately measured times after which the second try is sent.
	Percentile *Percent `json:"percentile,omitempty" schema:"default=95%"`
	// AtLeast is waited in any case, and as long as fewer than a hundred times were measured ten times that.
	AtLeast Duration `json:"atLeast,omitempty" schema:"default=10ms,min=1ms,max=1h"`
}

// WhenFullSpec has visitors with a basket wait for a place while no tier has room. Others are let in again when
// nobody waits.
type WhenFullSpec struct {
	// Wait is the longest time to wait; an order waits up to three times as long. At 0 nobody waits.
	Wait *Duration `json:"wait,omitempty" schema:"default=3s,min=0s,max=1m"`
	// Waiting is how many wait at once in each edge, and how many orders beside them; one more is refused.
	Waiting *int `json:"waiting,omitempty" schema:"default=1000,min=0,max=100000"`
}

// metadataAddresses are those at which clouds tell their machines who they are, with keys.
var metadataAddresses = [...]netip.Addr{
	netip.AddrFrom4([4]byte{169, 254, 169, 254}), netip.AddrFrom4([4]byte{169, 254, 170, 2}), netip.AddrFrom4([4]byte{169, 254, 170, 23}),
	netip.AddrFrom4([4]byte{100, 100, 100, 200}), netip.AddrFrom4([4]byte{168, 63, 129, 16}), netip.AddrFrom4([4]byte{192, 0, 0, 192}),
	netip.AddrFrom16([16]byte{0: 0xfd, 2: 0x0e, 3: 0xc2, 14: 0x02, 15: 0x54}), // fd00:ec2::254
	netip.AddrFrom16([16]byte{0: 0xfd, 2: 0x0e, 3: 0xc2, 15: 0x23}),           // fd00:ec2::23
	netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x20, 3: 0xce, 14: 0x02, 15: 0x54}), // fd20:ce::254
}

// IsMetadata says whether a cloud tells its machines their secrets at the address. No connection is opened
// to one that a pool's connection.allow does not list.
func IsMetadata(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, m := range metadataAddresses {
		if a == m {
			return true
		}
	}
	return false
}
