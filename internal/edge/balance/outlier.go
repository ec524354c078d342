package balance

import (
	"slices"

	v1 "github.com/relais-edge/relais/api/v1"
)

// judge counts failures in a row and ejects an origin that has too many.
func (p *Pool) judge(t *tier, o *origin, out Outcome) {
	switch out {
	case Succeeded:
		if o.fails.Load() != 0 {
			o.fails.Store(0)
		}
		if p.view.Load().counts {
			o.good.Add(1)
		}
	case Failed:
		n, w := int64(o.fails.Add(1)), p.view.Load()
		o.failed.Add(1)
		if w.counts {
			o.bad.Add(1)
		}
		if w.timed {
			now := p.clock()
			o.latency.observe(max(failedLatency, int64(2*o.latency.read(now))), now)
		}
		limit := int64(v1.Value(w.spec.Health.Passive.ConsecutiveFailures))
		// Beyond the limit the count goes on, so that an origin that comes back from an
		// ejection and fails at once is ejected again at once.
		if limit <= 0 || n < limit {
			return
		}
		if !w.large {
			p.eject(t, o)
		} else if o.ejecting.CompareAndSwap(false, true) {
			go func() {
				defer o.ejecting.Store(false)
				p.eject(t, o)
			}()
		}
	case Abandoned:
	}
}

// sample is what an origin did in an interval.
type sample struct {
	o         *origin
	n         int     // answers
	rate      float64 // of good ones
	mean      float64 // time to a head, nanoseconds
	timed     bool    // mean is of enough answers
	countable bool    // rate is
}

// minPeers is how many origins a median of latencies is made of at least.
const minPeers = 3

// outliers ejects, at the end of an interval, the origins that did worse in it than the rest of their tier.
func (p *Pool) outliers(now int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now < p.weighAt {
		return
	}
	spec := &p.spec.Health.Passive
	first := p.weighAt == 0
	p.weighAt = now + int64(spec.Interval)
	changed := false
	for i := range p.plan {
		samples := p.plan[i].samples(spec.MinRequests)
		if first {
			continue // it was no whole interval
		}
		for _, o := range worst(samples, spec) {
			changed = p.takeOut(p.plan[i].state, o, now) || changed
		}
	}
	if changed {
		p.look(now)
	}
}

// samples takes what the origins of a tier did, and begins to count anew.
func (t *plannedTier) samples(enough int) []sample {
	list := make([]sample, 0, len(t.members))
	for _, m := range t.members {
		good, bad := int(m.o.good.Swap(0)), int(m.o.bad.Swap(0))
		answers, took := int(m.o.heads.Swap(0)), m.o.headTime.Swap(0)
		s := sample{o: m.o, n: good + bad, countable: good+bad >= enough, timed: answers >= enough}
		if s.n > 0 {
			s.rate = float64(good) / float64(s.n)
		}
		if answers > 0 {
			s.mean = float64(took) / float64(answers)
		}
		list = append(list, s)
	}
	return list
}

// worst returns the origins that are outliers, the worst first: those with too small a share of good
// answers while the median has not, and those that take so many times the median's time.
func worst(samples []sample, spec *v1.PassiveHealth) (out []*origin) {
	slices.SortFunc(samples, func(a, b sample) int {
		switch {
		case a.rate != b.rate && a.rate < b.rate:
			return -1
		case a.rate != b.rate:
			return 1
		case a.mean > b.mean:
			return -1
		case a.mean < b.mean:
			return 1
		}
		return 0
	})
	var rates, means []float64
	for _, s := range samples {
		if s.countable {
			rates = append(rates, s.rate)
		}
		if s.timed {
			means = append(means, s.mean)
		}
	}
	least, factor := spec.SuccessRate.Fraction(), float64(spec.LatencyFactor)
	byRate := least > 0 && len(rates) > 1 && median(rates) >= least
	byTime := factor > 0 && len(means) >= minPeers
	mid := median(means)
	for _, s := range samples {
		if byRate && s.countable && s.rate < least || byTime && s.timed && s.mean > factor*mid {
			out = append(out, s.o)
		}
	}
	return out
}

// median is the upper one of the two in the middle; 0 of none.
func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)/2]
}
