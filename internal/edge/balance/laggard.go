package balance

import (
	"math"
	"math/rand/v2"
	"slices"

	v1 "github.com/relais-edge/relais/api/v1"
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
	sum, past, squared uint64  // at the last look
	took, due, squares float64 // ns lately, what is usual, and the squares of that
	n                  float64 // answers in them: those that are usually long are more
}

// times is by how much the origin's answers take longer than what was asked for usually does.
func (p *pace) times() float64 { return p.took / p.due }

// usual is what answers usually take, of those that make most of the time.
func (p *pace) usual() float64 { return p.squares / p.due }

// look takes the answers since the last look.
func (o *origin) look() {
	p := &o.pace
	sum, past, squared := o.took.Load(), o.due.Load(), o.squares.Load()
	took, due, squares := float64(sum-p.sum), float64(past-p.past), math.Ldexp(float64(squared-p.squared), 2*weightUnit)
	p.sum, p.past, p.squared = sum, past, squared
	if due <= 0 || squares <= 0 {
		return
	}
	keep := 0.0
	if p.n > 0 {
		keep = min(1, max(0, latest-due*due/squares)/p.n)
	}
	p.took, p.due, p.squares = p.took*keep+took, p.due*keep+due, p.squares*keep+squares
	p.n = min(p.due*p.due/p.squares, latest*4)
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
			sure := p.times() * (1 - 1.5/math.Sqrt(p.n))
			if factor := sure / (slowFactor * peers); factor > 1 && (sure-peers)*p.usual() > leastLag {
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
			list = append(list, o.pace.times())
		}
	}
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)/4]
}

// instead finds another origin in place of a slow one that is at its bound, or that a visitor with a basket should
// not meet: the least busy one of those that are quick. A place is held at o, and at the one that is returned, which is o
// when those that were looked at have no room.
func (v *tierView) instead(o *origin, who *Visitor, tried *Tried) *origin {
	if who.Class != protectedClass && o.inFlight.Load() <= o.most.Load() {
		return o
	}
	if len(v.near.members) > 0 && (v.stay == math.MaxUint32 || rand.Uint32() < v.stay) {
		if m := v.quick(&v.near, who, tried); m != nil && v.hasRoom(m) && swap(o, m) {
			return m.o
		}
	}
	for range takeTries {
		m := v.quick(&v.group, who, tried)
		if m == nil {
			return o
		}
		if swap(o, m) {
			return m.o
		}
	}
	return o
}

// quick chooses among the origins of a group that are not slow and have room: the less busy of some, of all when
// there are few. By hash it is the next one, so that a key stays where it went.
func (c *chooser) quick(g *group, who *Visitor, tried *Tried) *member {
	n := len(g.members)
	if c.algorithm == v1.ConsistentHash || c.algorithm == v1.First {
		at := 0
		if c.algorithm == v1.ConsistentHash {
			at = int(mix(who.Hash) >> 32 * uint64(n) >> 32)
		}
		return c.quickest(g, at, 1, who.Now, tried)
	}
	at := int(rand.Uint64() >> 32 * uint64(n) >> 32)
	if n <= smallTier {
		return c.quickest(g, at, n, who.Now, tried)
	}
	return c.quickest(g, at, insteadOf, who.Now, tried)
}

// quickest is the least busy of the first members from a place on, in a ring, that are quick and have room.
func (c *chooser) quickest(g *group, at, of int, now int64, tried *Tried) (best *member) {
	for range min(len(g.members), insteadLooked) {
		if m := &g.members[at]; !m.o.slow.Load() && m.usable(tried) {
			if best == nil || c.busier(best, m, now) {
				best = m
			}
			if of--; of <= 0 {
				break
			}
		}
		if at++; at == len(g.members) {
			at = 0
		}
	}
	return best
}

// swap gives the place at o back for one at m, if m has room.
func swap(o *origin, m *member) bool {
	if n := m.o.inFlight.Add(1); m.limit > 0 && n > m.limit {
		m.o.inFlight.Add(-1)
		return false
	}
	o.inFlight.Add(-1)
	return true
}

const (
	insteadOf     = 4  // origins of a large group are compared
	insteadLooked = 64 // bounds how many are looked at for that
)
