package balance

import (
	"math"

	v1 "github.com/relais-edge/relais/api/v1"
)

// prefer makes the edge's own zone the first choice of the tier's view.
func (v *tierView) prefer(spec *v1.OriginPoolSpec, zone string, t *plannedTier) {
	if spec.Zones.Prefer != "own" || zone == "" {
		return
	}
	var near []member
	var all, well int
	for _, m := range t.members {
		if m.o.zone == zone {
			all++
		}
	}
	for _, m := range v.members {
		if m.o.zone == zone {
			near = append(near, m)
			well++
		}
	}
	if len(near) == 0 {
		return
	}
	share := float64(well) / float64(all)
	if least := v1.Value(spec.Zones.Least).Fraction(); least > 0 {
		share = min(1, share/least)
	} else {
		share = 1
	}
	v.near, v.stay = newGroup(spec.Algorithm, near), uint32(share*math.MaxUint32)
}

// hasRoom says whether a member of the own zone is below its part of the tier's limit.
func (v *tierView) hasRoom(m *member) bool {
	limit := v.state.marks.Load().limit
	return limit == math.MaxInt64 || m.o.inFlight.Load() < max(1, limit*m.weight/v.weight)
}

// limited is the tier's capacity, no more than what the limits of its members come to when each has one.
func (t *plannedTier) limited(members []member) v1.Capacity {
	c, sum := t.capacity, int64(0)
	for _, m := range t.members {
		if m.limit == 0 {
			return c
		}
		sum += m.limit
	}
	if told := int64(v1.Value(c.InFlight)); len(members) > 0 && (told == 0 || sum < told) {
		c.InFlight = new(int(sum))
	}
	return c
}
