package balance

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
)

// An origin that is much slower than its peers gets few requests, and never that of a visitor
// with a basket while another one has room. It is compared with its peers and not with
// what it did before, so that a tier that is slow as a whole is not emptied.
const (
	slowFactor  = 2.0  // times the peers' time, where bounds begin
	lameFactor  = 1.5  // times slowFactor, where an origin is only probed
	laggardLook = 8    // ticks between two comparisons
	latest      = 32   // answers that an origin's average reaches back
	leastLatest = 6    // answers without which nothing is said of an origin
	leastLag    = 20e6 // ns more than its peers, below which nobody cares
	peersLooked = 64   // origins that the peers' time is taken from
	// Of this many requests of a tier one may go to an origin that is only probed: with one in a hundred everybody's 99th
	// percentile would be its time. One each probePause may, too, so that a tier with few visitors sees it recover.
	probeEvery = 400
	probePause = 30 * time.Second
	// So many prompt answers in a row, of probes that follow at once upon each other, end it.
	probePrompt = 8
)

// asked is how many requests wait for an origin's answer, and since when: the count in the lower bits, above it the sum of
// the clocks at their beginnings in ms. What falls off its upper end falls off the difference to the clock as well.
type asked struct{ word atomic.Uint64 }

const askedBits = 20

func askedOne(began int64) uint64 { return uint64(began/1e6)<<askedBits | 1 }

func (a *asked) add(began int64)    { a.word.Add(askedOne(began)) }
func (a *asked) remove(began int64) { a.word.Add(-askedOne(began)) }

// count gives how many wait.
func (a *asked) count() uint64 { return a.word.Load() & (1<<askedBits - 1) }

// since gives how many wait, and for how many ns together.
func (a *asked) since(now int64) (n, age float64) {
	w := a.word.Load()
	count := w & (1<<askedBits - 1)
	ms := int64(uint64(now/1e6)*count<<askedBits-w&^(1<<askedBits-1)) >> askedBits
	return float64(count), float64(max(0, ms)) * 1e6
}

// pace is what is known of an origin's answers, guarded by Pool.mu.
type pace struct {
	sum, past, squared uint64  // at the last look
	took, due, squares float64 // lately: what answers took times what is usual, that in ns, and its squares
	n                  float64 // answers in them: those that are usually long are more
	waiting, age       float64 // requests that have no answer yet, and ns for which they wait together
	mean, sure         float64 // usual, and by how much it is surely slower, when that was known
}

// times is by how much the origin's answers take longer than what was asked for usually does.
func (p *pace) times() float64 { return p.took / p.squares }

// usual is what answers usually take, of those that make most of the time.
func (p *pace) usual() float64 { return p.squares / p.due }

// surely is the least by which answers take longer than usual, by those that came, and overdue the same by requests that wait for
// one: n of exponential times are together beyond (√n + 1)² once in hundreds of times. A request that is stuck says little of
// an origin, so that those that wait make it no slower than one that is only probed.
func (p *pace) surely(was bool) float64 {
	root := math.Sqrt(p.n)
	switch {
	case root == 0:
		return 0
	case was:
		return p.times() * root * root / ((root + 1) * (root + 1))
	}
	return p.times() * max(0, 1-1.5/root) // of other times than exponential ones, too
}

func (p *pace) overdue(peers norm) float64 {
	root := math.Sqrt(p.waiting) + 1
	if sure := p.age / p.mean / (root * root); sure > slowFactor*peers.age {
		return min(sure, lameFactor*slowFactor*peers.times)
	}
	return 0
}

// norm is what an origin is held against, of its tier: how much longer than usual answers take, and how long requests wait for
// one. Both are lower quartiles, of some of the origins when there are many; 0 when nothing is known.
type norm struct{ times, age float64 }

// look takes the answers since the last look.
func (o *origin) look(now int64) {
	p := &o.pace
	p.waiting, p.age = o.asked.since(now)
	if o.prompt.Load() >= probePrompt { // it has recovered
		o.prompt.Store(0)
		o.slow.Store(false)
		p.took, p.due, p.squares, p.n = 0, 0, 0, 0
	}
	sum, past, squared := o.took.Load(), o.due.Load(), o.squares.Load()
	took, due, squares := math.Ldexp(float64(sum-p.sum), 2*weightUnit), float64(past-p.past), math.Ldexp(float64(squared-p.squared), 2*weightUnit)
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
// them a share of what its peers have in flight that falls with the square of its slowness, and to one that is
// slower still only probes: hardly any visitor meets it, but some do, and that is how its recovery is seen. Lost is
// the weight of what they cannot do.
func (t *plannedTier) laggards(w *tierView, scratch []float64) (lost float64) {
	var peers norm
	if len(w.members) > 1 {
		peers = w.norm(scratch)
	}
	fair := float64(t.state.inFlight.Load()) / float64(len(w.members))
	for _, m := range w.members {
		lost += float64(m.weight) * m.o.bound(peers, fair)
	}
	return lost
}

// bound decides whether the origin is slow, and how many it may have at once; lost is the share of its work that goes
// elsewhere. What came before it was slow is forgotten then, and it stays so until enough of what came after says that it is not.
func (o *origin) bound(peers norm, fair float64) (lost float64) {
	p, was, limit := &o.pace, o.slow.Load(), slowFactor*peers.times
	slow := was && limit > 0
	switch {
	case limit > 0 && p.n >= leastLatest:
		p.mean = p.usual()
		p.sure = max(p.surely(was), p.overdue(peers))
		slow = p.sure > limit || was && p.times() > limit
	case slow:
		p.sure = max(p.sure, p.surely(was), p.overdue(peers))
	}
	slow = slow && (p.sure-peers.times)*p.mean > leastLag
	if slow && !was {
		p.took, p.due, p.squares, p.n = 0, 0, 0, 0
	}
	if slow != was {
		o.prompt.Store(0)
		o.telling.Store(int64(p.mean / 2))
		o.slow.Store(slow)
	}
	if !slow {
		o.most.Store(math.MaxInt64)
		return 0
	}
	factor := max(1, p.sure/limit)
	most := max(1, int64(fair/(factor*factor)))
	if factor >= lameFactor {
		most = 0
	}
	o.most.Store(most)
	return 1 - 1/(factor*factor)
}

// probe says when the next request of a tier may go to an origin that is only probed.
type probe struct {
	sent atomic.Uint64 // requests of the tier when the last one did
	at   atomic.Int64  // the clock then
}

// due says whether it is time, and takes the turn.
func (p *probe) due(sent uint64, now int64) bool {
	last, at := p.sent.Load(), p.at.Load()
	if sent-last < probeEvery && now-at < int64(probePause) || !p.sent.CompareAndSwap(last, sent) {
		return false
	}
	p.at.Store(now)
	return true
}

// probed notes how long a slow origin took for what usually takes so long. Only what takes long says anything: a file may come at once
// from who takes seconds for a page. After a prompt answer the next probe may follow at once.
func (t *tier) probed(o *origin, took, usual int64) {
	switch {
	case usual < o.telling.Load():
	case float64(took) > slowFactor*float64(usual):
		o.prompt.Store(0)
	default:
		o.prompt.Add(1)
		if o.most.Load() == 0 {
			t.probe.sent.Store(t.sent.Load() - probeEvery)
		}
	}
}

// norm looks at the tier's origins.
func (v *tierView) norm(scratch []float64) norm {
	return norm{
		v.quartile(scratch, func(p *pace) (float64, bool) { return p.times(), p.n >= leastLatest }),
		v.quartile(scratch, func(p *pace) (float64, bool) { return p.age / p.mean / max(p.waiting, 1), p.mean > 0 }),
	}
}

// quartile is the lower one of what is known of some of the origins.
func (v *tierView) quartile(scratch []float64, of func(*pace) (value float64, known bool)) float64 {
	list := scratch[:0]
	step := max(1, len(v.members)/peersLooked)
	for i := 0; i < len(v.members); i += step {
		if value, known := of(&v.members[i].o.pace); known {
			list = append(list, value)
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
	if who.Class != protectedClass {
		if most := o.most.Load(); most > 0 && o.inFlight.Load() <= most || most == 0 && v.state.probe.due(v.state.sent.Load(), who.Now) {
			return o
		}
	}
	if len(v.near.members) > 0 && (v.stay == math.MaxUint32 || uint32(who.chance()) < v.stay) {
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
	at := int(who.chance() >> 32 * uint64(n) >> 32)
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
