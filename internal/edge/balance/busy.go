package balance

import (
	"math"

	"github.com/relais-edge/relais/internal/snapshot"
)

// Busy says how full the pools of a site are, by the fullest: of each, the first tier with an origin that is well
// counts, and 1 is where it begins to send new visitors on, or away. A tier without a limit is never busy.
func (s *Stage) Busy(site *snapshot.Site) float64 {
	pt, _ := site.Parts[s.cfg.Slot].(*part)
	if pt == nil {
		return 0
	}
	most := 0.0
	for i := range pt.pools {
		most = max(most, pt.pools[i].pool.busy())
	}
	return most
}

func (p *Pool) busy() float64 {
	v := p.view.Load()
	for i := range v.tiers {
		t := &v.tiers[i]
		if len(t.members) == 0 {
			continue
		}
		m := t.state.marks.Load()
		if m.soft == math.MaxInt64 || m.soft <= 0 {
			return 0
		}
		return float64(t.state.inFlight.Load()+t.state.others.Load()) / float64(m.soft)
	}
	return 0
}
