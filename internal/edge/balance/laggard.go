package balance

import (
	"math"
	"slices"
)

// An origin that is much slower than its peers gets few requests, and never that of a visitor
// with a basket while another one has room. It is compared with its peers and not with
// what it did before, so that a tier that is slow as a whole is not emptied.
const (
	slowFactor  = 2.0  // times the peers' time, where bounds begin
	laggardLook = 8    // ticks between two comparisons
	latest      = 32   // answers that an origin's average reaches back
	leastLatest = 6    // answers without which nothing is said of an origin
	leastLag    = 20e6 // ns more than its peers, below which nobody cares
	peersLooked = 64   // origins that the peers' time is taken from
)

// pace is what is known of an origin's answers, guarded by Pool.mu.
type pace struct {
	count, sum uint64  // at the last look
	n          float64 // answers in took
	took       float64 // ns, lately
}

// look takes the answers since the last look.
func (o *origin) look() {
	p := &o.pace
	count, sum := o.answers.Load(), o.took.Load()
	n, s := float64(count-p.count), float64(sum-p.sum)
	p.count, p.sum = count, sum
	if n <= 0 {
		return
	}
	keep := min(p.n, max(0, latest-n))
	p.took = (p.took*keep + s) / (keep + n)
	p.n = min(keep+n, latest*4)
}

// laggards bounds the origins of a tier that are much slower than their peers. It gives each of
// them a share of what its peers have in flight that falls with the square of its slowness, so
// that hardly any visitor meets it, but some do: that is how its recovery is seen.
func (t *plannedTier) laggards(w *tierView, scratch []float64) {
	if len(w.members) < 2 {
		for _, m := range w.members {
			m.o.most.Store(math.MaxInt64)
			m.o.slow.Store(false)
		}
		return
	}
	peers := t.peers(w, scratch)
	fair := float64(t.state.inFlight.Load()) / float64(len(w.members))
	for _, m := range w.members {
		o, most := m.o, int64(math.MaxInt64)
		p := &o.pace
		slow := false
		if peers > 0 && p.n >= leastLatest {
			sure := p.took * (1 - 1.5/math.Sqrt(p.n))
			if factor := sure / (slowFactor * peers); factor > 1 && sure-peers > leastLag {
				slow = true
				most = max(1, int64(fair/(factor*factor)))
			}
		}
		o.most.Store(most)
		o.slow.Store(slow)
	}
}

// peers is the lower quartile of the origins' times, of some of them when there are many.
func (t *plannedTier) peers(w *tierView, scratch []float64) float64 {
	list := scratch[:0]
	step := max(1, len(w.members)/peersLooked)
	for i := 0; i < len(w.members); i += step {
		if o := w.members[i].o; o.pace.n >= leastLatest {
			list = append(list, o.pace.took)
		}
	}
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)/4]
}

// instead finds another origin in place of a slow one that is at its bound, or that a visitor with a basket should
// not meet: a few by chance, then in a row. A place is held at o, and at the one that is returned, which is o
// when those that were looked at have no room.
func (v *tierView) instead(o *origin, who *Visitor, tried *Tried) *origin {
	if who.Class != protectedClass && o.inFlight.Load() <= o.most.Load() {
		return o
	}
	for range 4 {
		m := v.choose(v, who, tried)
		if m == nil {
			return o
		}
		if v.swap(o, m, tried) {
			return m.o
		}
	}
	n := len(v.members)
	i := int(v.state.turns.Add(1) % uint64(n))
	for range min(n, insteadLooked) {
		if m := &v.members[i]; v.swap(o, m, tried) {
			return m.o
		}
		if i++; i == n {
			i = 0
		}
	}
	return o
}

// swap gives the place at o back for one at m, if m is quick and has room.
func (v *tierView) swap(o *origin, m *member, tried *Tried) bool {
	if m.o.slow.Load() || tried.has(m.o) {
		return false
	}
	if n := m.o.inFlight.Add(1); m.limit > 0 && n > m.limit {
		m.o.inFlight.Add(-1)
		return false
	}
	o.inFlight.Add(-1)
	return true
}

// insteadLooked bounds how many origins are looked at for one with room.
const insteadLooked = 64
