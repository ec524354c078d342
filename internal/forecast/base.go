package forecast

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/balance"
)

// Window is the part of the recorded load that counts.
type Window struct {
	// From and To bound it; zero is no bound. Last is its length when From is zero, back from the newest
	// minute; zero is an hour.
	From, To time.Time
	Last     time.Duration
	// Mean takes the mean of the window, in place of its busiest minute.
	Mean bool
}

// DefaultWindow is how far back the load counts unless it is said.
const DefaultWindow = time.Hour

// bounds are the first and the last second of the window, for a load that ends at last.
func (w Window) bounds(last float64) (from, to float64) {
	to = last
	if !w.To.IsZero() {
		to = min(to, float64(w.To.Unix()))
	}
	if !w.From.IsZero() {
		return float64(w.From.Unix()), to
	}
	back := w.Last
	if back <= 0 {
		back = DefaultWindow
	}
	return to - back.Seconds(), to
}

// base is the load of a pool that a forecast begins with: rates a second.
type base struct {
	key      bundle.Key
	from, to float64 // Unix time in seconds
	late     float64 // seconds of the window before the record begins
	rate     balance.ByClass
	refused  balance.ByClass
	tiers    map[string]*baseTier
}

// baseTier is what was recorded of a tier. Times are in ms, 0 when they are not known.
type baseTier struct {
	rate           balance.ByClass
	spills         balance.Spills
	inFlight, most float64
	hold           float64 // how long a request is in flight
	p50, p95       float64
	ease           float64 // how long a request is in flight at ease
	found          float64 // the limit, as far as the time of answers showed one
	// Of minutes in which the tier was full: what it answered a second, and had in flight. 0 when it never was.
	full, fullFlight float64
	reported         float64
	others           float64
}

// leastSeen is how many seconds of a minute must have been seen for it to be the busiest.
const leastSeen = 10

// newBase takes what counts of a load; order is that of the waterfall. It is false when there was no request.
func newBase(l *balance.PoolLoad, w Window, order []string) (*base, bool) {
	from, to := w.bounds(l.Until)
	late := l.Since - from
	from = max(from, l.Since)
	var list []balance.Minute
	for _, m := range l.Minutes {
		if s := float64(m.Start); s+m.Seconds > from && s < to && m.Seconds > 0 {
			m.Tiers = slices.Clone(m.Tiers)
			slices.SortStableFunc(m.Tiers, func(a, b balance.TierMinute) int {
				return slices.Index(order, a.Name) - slices.Index(order, b.Name)
			})
			list = append(list, m)
		}
	}
	if len(list) == 0 {
		return nil, false
	}
	b := &base{key: l.Key, from: from, to: to, late: max(0, late-60), tiers: map[string]*baseTier{}}
	seconds := max(to-from, 1)
	chosen := list
	if !w.Mean {
		seen := slices.Collect(func(yield func(balance.Minute) bool) {
			for _, m := range list {
				if m.Seconds >= leastSeen && !yield(m) {
					return
				}
			}
		})
		if len(seen) == 0 {
			seen = list
		}
		chosen = []balance.Minute{slices.MaxFunc(seen, func(x, y balance.Minute) int { return cmp.Compare(rateOf(&x), rateOf(&y)) })}
		seconds = chosen[0].Seconds
		b.from = float64(chosen[0].Start)
		b.to = b.from + seconds
	}
	for i := range chosen {
		b.add(&chosen[i], seconds)
	}
	for name, t := range b.tiers {
		t.learn(name, chosen, list)
	}
	for i := range list { // a tier that only other minutes know
		for _, tm := range list[i].Tiers {
			if b.tiers[tm.Name] == nil {
				t := &baseTier{}
				t.learn(tm.Name, nil, list)
				b.tiers[tm.Name] = t
			}
		}
	}
	return b, b.rate.All() > 0
}

func rateOf(m *balance.Minute) float64 {
	n := m.Refused.All()
	for i := range m.Tiers {
		n += m.Tiers[i].Requests.All()
	}
	return n / m.Seconds
}

// add adds a minute, as rates over so many seconds.
func (b *base) add(m *balance.Minute, seconds float64) {
	plus := func(to *balance.ByClass, n balance.ByClass) {
		to.Anonymous += n.Anonymous / seconds
		to.Known += n.Known / seconds
		to.Basket += n.Basket / seconds
	}
	plus(&b.refused, m.Refused)
	plus(&b.rate, m.Refused)
	for i := range m.Tiers {
		tm := &m.Tiers[i]
		t := b.tiers[tm.Name]
		if t == nil {
			t = &baseTier{}
			b.tiers[tm.Name] = t
		}
		plus(&t.rate, tm.Requests)
		plus(&b.rate, tm.Requests)
		s := &t.spills
		s.Soft, s.Hard, s.Unhealthy = s.Soft+tm.Spills.Soft/seconds, s.Hard+tm.Spills.Hard/seconds, s.Unhealthy+tm.Spills.Unhealthy/seconds
		s.Tried, s.Stayed, s.Sticky = s.Tried+tm.Spills.Tried/seconds, s.Stayed+tm.Spills.Stayed/seconds, s.Sticky+tm.Spills.Sticky/seconds
		t.inFlight += tm.InFlight * m.Seconds / seconds
		t.others += tm.Others * m.Seconds / seconds
	}
}

// enoughTimes is how many answers of the chosen minutes make their times those of the tier.
const enoughTimes = 200

// learn takes times from the chosen minutes, or from all when those say too little, and limits from all.
func (t *baseTier) learn(name string, chosen, all []balance.Minute) {
	n := t.times(name, chosen)
	if n < enoughTimes {
		t.times(name, all)
	}
	var limits, limited, full, seconds, flight float64
	for i := range all {
		for j := range all[i].Tiers {
			tm := &all[i].Tiers[j]
			if tm.Name != name {
				continue
			}
			t.most = max(t.most, tm.Most)
			if tm.Reported > 0 {
				t.reported = tm.Reported
			}
			if tm.Ease > 0 {
				t.ease = tm.Ease
			}
			if tm.Found > 0 {
				limits, limited = limits+tm.Found, limited+1
			}
			if sentOn(&all[i], j) > fullShare*tm.Requests.All() && tm.InFlight >= steadyShare*tm.Most {
				full, seconds, flight = full+tm.Requests.All(), seconds+all[i].Seconds, flight+tm.InFlight*all[i].Seconds
			}
		}
	}
	t.found = limits / max(limited, 1)
	if seconds > 0 {
		t.full, t.fullFlight = full/seconds, flight/seconds
	}
}

// steadyShare is which share of the most in flight must have been there in the mean: what was full at moments only does
// not say how much a tier can do.
const steadyShare = 0.5

// fullShare is which share of a tier's requests must have been sent on for it to have been full all the time.
const fullShare = 0.02

// sentOn is how many requests other tiers of the minute had, or nobody, because this one was full.
func sentOn(m *balance.Minute, tier int) float64 {
	n := m.Refused.All()
	for k := tier + 1; k < len(m.Tiers); k++ {
		n += m.Tiers[k].Spills.Soft + m.Tiers[k].Spills.Hard
	}
	return n
}

// times are the means by requests, of minutes that know them.
func (t *baseTier) times(name string, list []balance.Minute) float64 {
	n, timed, held, p50, p95 := 0.0, 0.0, 0.0, 0.0, 0.0
	for i := range list {
		for j := range list[i].Tiers {
			tm := &list[i].Tiers[j]
			if tm.Name != name {
				continue
			}
			c := tm.Requests.All()
			n, held = n+c, held+tm.InFlight*list[i].Seconds
			if tm.P50 > 0 {
				timed, p50, p95 = timed+c, p50+c*tm.P50, p95+c*tm.P95
			}
		}
	}
	if n > 0 {
		t.hold = held / n * 1000
	}
	if timed > 0 {
		t.p50, t.p95 = p50/timed, p95/timed
	}
	return n
}

// sigma is the spread of a lognormal distribution with these percentiles.
func sigma(p50, p95 float64) float64 {
	const z95 = 1.6449
	if p50 <= 0 || p95 <= p50 {
		return 0.1
	}
	return min(math.Log(p95/p50)/z95, 2)
}

// say names the time that a base stands for.
func (b *base) say(mean bool) string {
	from, to := time.Unix(int64(b.from), 0).UTC(), time.Unix(int64(b.to), 0).UTC()
	if mean {
		return fmt.Sprintf("mean from %s to %s UTC", from.Format("2006-01-02 15:04"), to.Format("15:04"))
	}
	return "busiest minute, " + from.Format("2006-01-02 15:04") + " UTC"
}
