package balance

import (
	"math"
	"slices"
)

// An origin that is much slower than its peers gets few requests, and never that of a visitor
// with a basket while another one has room. It is compared with its peers and not with
// what it did before, so that a tier that is slow as a whole is not emptied.
const (
	slowFactor  = 2.0 // times the peers' time, where bounds begin
	laggardLook = 8   // ticks between two comparisons
	latest      = 32  // answers that an origin's average reaches back
	leastLatest = 6   // answers without which nothing is said of an origin
	peersLooked = 64  // origins that the peers' time is taken from
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
			if factor := sure / (slowFactor * peers); factor > 1 {
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

// hasRoom says whether one more request may go to the origin.
func (o *origin) hasRoom(v *Visitor) bool {
	return o.inFlight.Load() < o.most.Load() && (v.Class < protectedClass || !o.slow.Load())
}

// instead finds an origin with room in place of one that has none: a few by chance, then in a row. It is
// nil when those that were looked at have none.
func (v *tierView) instead(o *origin, who *Visitor, tried *Tried) *origin {
	for range 4 {
		if c := v.choose(v, who.Hash, tried); c != o && c.hasRoom(who) && !tried.has(c) {
			return c
		}
	}
	n := len(v.members)
	i := int(v.state.turns.Add(1) % uint64(n))
	for range min(n, insteadLooked) {
		if c := v.members[i].o; c.hasRoom(who) && !tried.has(c) {
			return c
		}
		if i++; i == n {
			i = 0
		}
	}
	return nil
}

// insteadLooked bounds how many origins are looked at for one with room.
const insteadLooked = 64
