package learn

import (
	"math"
	"time"
)

// Demotion is a rule that only logs at a place, for one target.
type Demotion struct {
	Key
	Until time.Time `json:"until"`
}

// consider demotes the rule of f when enough buyers were refused because of it.
func (s *Site) consider(now time.Time, f *finding, order uint64, t Terms) {
	if order == 0 || t.Most <= 0 || t.Buyers < 2 || f.key.Target == "" {
		return
	}
	if !f.demoted.IsZero() && now.Before(f.demoted) {
		return
	}
	s.settle(now, f, t)
	if !f.demoted.IsZero() {
		return
	}
	if _, refused := f.behind(f.since); refused < t.Buyers || f.share() < t.Share {
		return
	}
	if int(s.active.Load()) >= t.Most {
		s.settleAll(now, t)
		if int(s.active.Load()) >= t.Most {
			s.book.counters[evNoRoom].Inc()
			return
		}
	}
	f.demoted, f.since = now.Add(t.Lifetime), now
	s.active.Add(1)
	s.book.demoted.Add(1)
	s.book.counters[evDemoted].Inc()
}

// settle ends a demotion whose time is over, or renews it when half as many buyers as it needs to
// begin ordered after a hit while it was in force. After an end all begins anew.
func (s *Site) settle(now time.Time, f *finding, t Terms) {
	for !f.demoted.IsZero() && !now.Before(f.demoted) {
		_, refused := f.behind(f.since)
		if t.Most > 0 && refused >= (t.Buyers+1)/2 && now.Before(f.demoted.Add(t.Lifetime)) {
			f.since, f.demoted = f.demoted, f.demoted.Add(t.Lifetime)
			s.book.counters[evRenewed].Inc()
			continue
		}
		s.end(now, f)
	}
}

func (s *Site) end(now time.Time, f *finding) {
	f.demoted, f.since = time.Time{}, now
	s.active.Add(-1)
	s.book.demoted.Add(-1)
	s.book.counters[evEnded].Inc()
}

func (s *Site) settleAll(now time.Time, t Terms) {
	for _, f := range s.findings {
		s.settle(now, f, t)
	}
}

// Demoted lists the demotions in force at a place that concern one of the hits. With t.Most 0,
// and where a policy allows fewer than there are, the others do not hold: they end.
func (s *Site) Demoted(now time.Time, at Place, hits []Hit, t Terms) (out []Demotion) {
	if s.active.Load() == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(hits) > MaxHits {
		hits = hits[:MaxHits]
	}
	for _, h := range hits {
		f := s.findings[at.key(&h)]
		if f == nil || f.demoted.IsZero() {
			continue
		}
		if s.settle(now, f, t); f.demoted.IsZero() {
			continue
		}
		if int(s.active.Load()) > t.Most {
			s.end(now, f)
			continue
		}
		out = append(out, Demotion{f.key, f.demoted})
	}
	return out
}

// makeLinearCount fills the table of a sketch.
func makeLinearCount() (t [257]int) {
	for i := range 256 {
		t[i] = int(math.Round(-256 * math.Log(1-float64(i)/256)))
	}
	t[256] = 1420
	return t
}
