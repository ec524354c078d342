package balance

import (
	"math"

	"github.com/relais-edge/relais/internal/bundle"
)

// Space says how many places the pool has free for visitors without a basket, of how many (0 when it has no
// bound), and how many requests a second it takes now. Found is false for a pool that does not run.
func (s *Stage) Space(key bundle.Key) (free, limit int64, perSecond float64, found bool) {
	s.mu.Lock()
	p := s.pools[key]
	s.mu.Unlock()
	if p == nil {
		return 0, 0, 0, false
	}
	perSecond = math.Float64frombits(p.drain.all.Load())
	v := p.view.Load()
	for i := range v.tiers {
		t := &v.tiers[i]
		if len(t.members) == 0 {
			continue // it takes nothing
		}
		m := t.state.marks.Load()
		if m.limit == math.MaxInt64 {
			return 0, 0, perSecond, true
		}
		limit += m.general
		free += max(0, m.general-t.state.inFlight.Load()-t.state.others.Load())
	}
	return free, limit, perSecond, true
}
