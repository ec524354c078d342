package forecast

import (
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/balance"
)

// WhatIf is what is asked.
type WhatIf struct {
	// Fail names tiers (home, shop/home, demo/shop/home), origins (10.0.1.10:8080) and zones (fra, zone:fra).
	Fail []string
	Rate Rate
	// Capacity is how many requests at once a tier's servers work on, as far as this edge is concerned.
	Capacity []Slots
}

// Rate is what becomes of the load: a multiple of what was recorded, or requests a second of all pools
// together. The zero Rate is as recorded.
type Rate struct {
	Factor    float64
	PerSecond float64
}

// Slots of a tier, which is named as in WhatIf.Fail.
type Slots struct {
	Tier  string
	Count int
}

// The most that may be asked for.
const (
	maxFactor    = 1000
	maxPerSecond = 10_000_000
	maxSlots     = 10_000_000
)

// ParseRate reads x1.5, or 1200/s.
func ParseRate(s string) (Rate, error) {
	bad := fmt.Errorf("rate %q: write a multiple of the recorded load such as x1.5 (up to x%d), or requests a second such as 1200/s", s, maxFactor)
	number := func(t string, most float64) (float64, bool) {
		f, err := strconv.ParseFloat(t, 64)
		return f, err == nil && f > 0 && f <= most && !math.IsInf(f, 0)
	}
	if t, ok := strings.CutPrefix(s, "x"); ok {
		if f, ok := number(t, maxFactor); ok {
			return Rate{Factor: f}, nil
		}
		return Rate{}, bad
	}
	if t, ok := strings.CutSuffix(s, "/s"); ok {
		if f, ok := number(t, maxPerSecond); ok {
			return Rate{PerSecond: f}, nil
		}
	}
	return Rate{}, bad
}

// ParseSlots reads home=200.
func ParseSlots(s string) (Slots, error) {
	tier, n, ok := strings.Cut(s, "=")
	c, err := strconv.Atoi(n)
	if !ok || tier == "" || err != nil || c < 1 || c > maxSlots {
		return Slots{}, fmt.Errorf("capacity %q: write the tier and how many requests at once it works on, such as home=200 (1 to %d)", s, maxSlots)
	}
	return Slots{tier, c}, nil
}

// aims is what of a pool is meant.
type aims struct {
	down  map[string]bool // origins by address
	slots map[string]int  // of tiers by name
}

// resolve finds what the question names in the pools. An error says what there is.
func (q *WhatIf) resolve(pools map[bundle.Key]*v1.OriginPoolSpec) (map[bundle.Key]*aims, error) {
	out := map[bundle.Key]*aims{}
	for key := range pools {
		out[key] = &aims{down: map[string]bool{}, slots: map[string]int{}}
	}
	for _, name := range q.Fail {
		found := false
		for key, spec := range pools {
			for _, a := range failing(key, spec, name) {
				out[key].down[a] = true
				found = true
			}
		}
		if !found {
			return nil, fmt.Errorf("--fail %s: no tier, origin or zone of this name in the documents; %s", name, exist(pools, true))
		}
	}
	for _, c := range q.Capacity {
		found := false
		for key, spec := range pools {
			for i := range spec.Tiers {
				if meansTier(key, balance.TierName(spec, i), c.Tier) {
					out[key].slots[balance.TierName(spec, i)] = c.Count
					found = true
				}
			}
		}
		if !found {
			return nil, fmt.Errorf("--capacity %s: no tier of this name in the documents; %s", c.Tier, exist(pools, false))
		}
	}
	return out, nil
}

// meansTier says whether a name is that of a tier: alone, with its pool's, or with the whole key.
func meansTier(key bundle.Key, tier, name string) bool {
	_, pool := key.Split()
	return name == tier || name == pool+"/"+tier || name == string(key)+"/"+tier
}

// failing lists the addresses in a pool that a name means: those of a tier, else an origin, else a zone.
func failing(key bundle.Key, spec *v1.OriginPoolSpec, name string) (list []string) {
	zone, zoned := strings.CutPrefix(name, "zone:")
	for i := range spec.Tiers {
		if t := &spec.Tiers[i]; !zoned && meansTier(key, balance.TierName(spec, i), name) {
			for j := range t.Origins {
				list = append(list, address(&t.Origins[j]))
			}
		}
	}
	if len(list) > 0 {
		return list
	}
	for i := range spec.Tiers {
		t := &spec.Tiers[i]
		for j := range t.Origins {
			o := &t.Origins[j]
			a := address(o)
			host, _, _ := net.SplitHostPort(a)
			if !zoned && (a == name || host == name) || zone != "" && (o.Zone == zone || o.Zone == "" && t.Zone == zone) {
				list = append(list, a)
			}
		}
	}
	return list
}

// address is what an origin is known by in a forecast.
func address(o *v1.Origin) string {
	if o.SRV != "" {
		return o.SRV
	}
	return o.Address
}

// listed bounds each list of what exists.
const listed = 12

// exist says which tiers, and zones and origins, there are.
func exist(pools map[bundle.Key]*v1.OriginPoolSpec, all bool) string {
	tiers, zones, origins := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for key, spec := range pools {
		_, pool := key.Split()
		for i := range spec.Tiers {
			t := &spec.Tiers[i]
			tiers[pool+"/"+balance.TierName(spec, i)] = true
			zones[t.Zone] = true
			for j := range t.Origins {
				origins[address(&t.Origins[j])], zones[t.Origins[j].Zone] = true, true
			}
		}
	}
	delete(zones, "")
	s := "there are tiers " + some(tiers)
	if all {
		if len(zones) > 0 {
			s += "; zones " + some(zones)
		}
		s += "; origins " + some(origins)
	}
	return s
}

func some(set map[string]bool) string {
	list := slices.Sorted(maps.Keys(set))
	if n := len(list); n > listed {
		return strings.Join(list[:listed], ", ") + fmt.Sprintf(" and %d more", n-listed)
	}
	return strings.Join(list, ", ")
}
