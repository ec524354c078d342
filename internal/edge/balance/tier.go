package balance

import (
	"math"
	"sync/atomic"

	v1 "github.com/relais-edge/relais/api/v1"
)

// tier is the state of a tier. It outlives a change of the spec.
type tier struct {
	name     string
	counters tierCounters
	well     bool // guarded by Pool.mu, like what follows
	begun    bool // well has been set once
	limiter  limiter
	kinds    kinds
	reserve  reserve
	told     told
	use      useLimit
	// Of the origins that were well when the marks were made: their weight, that of all, what is told for
	// them, and how many they amount to.
	part, all int64
	lost      float64 // of part, what slow origins cannot do
	capacity  v1.Capacity
	share     float64
	seen      seen

	marks atomic.Pointer[marks]

	_        [64]byte
	inFlight atomic.Int64
	others   atomic.Int64  // what others have in flight there, as far as the origins say
	sent     atomic.Uint64 // requests, since ever
	refused  atomic.Uint64 // requests that would have come and had to go on
	baskets  atomic.Int64  // of inFlight, visitors with a basket
	turns    atomic.Uint64 // round-robin
	near     atomic.Uint64 // the same, within the edge's own zone
	probe    probe
	// ramp bounds anonymous visitors while they return: base in the upper 24 bits, and the
	// clock in milliseconds below. 0 means that nobody is away.
	ramp  atomic.Uint64
	tally tally

	patience patience
}

// marks are the bounds of a tier's requests in flight, those of others included. They do not
// change.
type marks struct {
	limit   int64 // what the tier takes; the return after a spill is measured by it
	basket  int64 // for visitors with a basket; more than limit when that is only an estimate
	general int64 // for the others: limit less the reserve
	wide    int64 // for new anonymous visitors that may wait: general, unless the operator wants more kept
	soft    int64 // for new anonymous visitors, as long as another tier has room
	back    int64 // for those that were sent on a moment ago
	spare   int64 // for work that nobody waits for
	found   bool  // limit is not what was told
}

// boundless are the marks of a tier without a limit.
func boundless() marks {
	const most = math.MaxInt64
	return marks{limit: most, basket: most, general: most, wide: most, soft: most, back: most, spare: most}
}

const rampTimeBits = 40

func newTier(name string, c tierCounters) *tier {
	t := &tier{name: name, counters: c, limiter: newLimiter(), told: told{math.Inf(1), -1}, use: useLimit{size: math.Inf(1)}}
	m := boundless()
	t.marks.Store(&m)
	return t
}

// turn notes that the tier became well or ill. A tier that comes back gets its anonymous
// visitors back slowly, from none. The pool's lock is held.
func (t *tier) turn(well bool, now int64) {
	if well && !t.well && t.begun && t.marks.Load().limit != math.MaxInt64 {
		t.startRamp(0, 0, now)
	}
	if !well {
		t.dismiss()
	}
	t.well, t.begun = well, true
}

// startRamp puts the bound for anonymous visitors to base, unless somebody was quicker.
func (t *tier) startRamp(old uint64, base, now int64) {
	t.ramp.CompareAndSwap(old, uint64(base)<<rampTimeBits|uint64(now/1e6)&(1<<rampTimeBits-1))
}

// tierView is a tier at one moment: who is well. It does not change.
type tierView struct {
	state *tier
	chooser
}

func (t *plannedTier) view(spec *v1.OriginPoolSpec, zone string, now int64, panicked bool) tierView {
	v := tierView{state: t.state}
	members, part, all := t.inUse(spec, now, panicked)
	s := t.state
	if share := float64(len(t.members)) * float64(part) / float64(max(all, 1)); share > 0 {
		if s.share > 0 && s.share != share {
			s.limiter.scale(share / s.share)
		}
		s.share = share
	}
	s.part, s.all, s.capacity = part, all, t.limited(members)
	t.mark()
	v.chooser = newChooser(spec, members, t, panicked, now)
	v.prefer(spec, zone, t)
	return v
}

// mark makes the marks from what is told, what was found and what origins report. The pool's
// lock is held.
func (t *plannedTier) mark() {
	s := t.state
	m := bounds(&s.capacity, s.able(), s.found(t), func(limit int64) float64 {
		return s.reserve.places(float64(limit), min(1, t.rare/s.patience.missed()))
	})
	if m != *s.marks.Load() {
		s.marks.Store(&m)
	}
}

// able is the part of the tier's weight that is well and quick.
func (t *tier) able() float64 {
	if t.all == 0 {
		return 1
	}
	part := float64(t.part)
	return max(part-t.lost, part/100) / float64(t.all)
}

// found is the limit that the operator did not tell, +Inf when there is none: from the time of
// answers and from utilization for what is in flight from here, and what the origins say for all.
func (t *tier) found(p *plannedTier) float64 {
	switch {
	case !p.reported:
		return math.Inf(1)
	case !p.adaptive:
		return t.told.limit
	}
	own := min(t.limiter.limit(), t.use.size)
	return min(own+float64(t.others.Load()), t.told.limit)
}

// bounds turns a capacity into numbers of requests: of what is told for the whole tier, the
// part of the weight that is well and quick; and what was found for that part already.
//
// What was found is where waiting begins, so it is the soft mark; the limit is above it. As it is an estimate, visitors with a basket
// may go half beyond: others are kept away then, and the estimate follows.
func bounds(c *v1.Capacity, part, found float64, reserve func(limit int64) float64) marks {
	limit := int64(math.MaxInt64)
	if told := v1.Value(c.InFlight); told > 0 {
		limit = ceil(float64(told) * part)
		if limit == 0 {
			return marks{}
		}
	}
	share, basket := v1.Value(c.SoftMark).Fraction(), limit
	if found < 1e12 {
		if l := max(1, ceil(found/foundShare)); l < limit {
			basket = min(limit, l+(l+1)/2)
			limit = l
		}
	}
	if limit == math.MaxInt64 {
		return boundless()
	}
	kept := ceil(float64(limit) * c.Reserve.Fraction())
	if basket == limit {
		kept = max(kept, min(ceil(reserve(limit)), limit/4))
	}
	general := limit - kept
	if general == 0 && c.Reserve < 100 {
		general = 1
	}
	soft := min(general, max(1, ceil(float64(limit)*share)))
	if basket > limit {
		soft = min(general, max(1, int64(found)))
	}
	gap := limit / 30
	if basket > limit {
		gap = limit / 10
	}
	back := max(1, soft-max(1, gap))
	wide := soft
	if share >= plainSoft {
		wide = general
	}
	return marks{limit, basket, general, wide, soft, back, soft / 2, basket > limit}
}

// plainSoft is the soft mark of those who told none. What it keeps for visitors that are known, the order of those who
// wait gives them as well.
const plainSoft = 0.95

// foundShare is what is found, where waiting begins, as a share of the limit that is made of it.
const foundShare = 0.85

// ceil rounds up, but not for what binary fractions add to a product such as 400 × 0.2.
func ceil(f float64) int64 { return int64(math.Ceil(f - 1e-6)) }

// softBound is the bound for new anonymous visitors: the soft mark, or less while they
// return after a spill, a tenth of the tier a second.
func (t *tier) softBound(m *marks, now int64) int64 {
	r := t.ramp.Load()
	if r == 0 {
		return m.soft
	}
	since := now/1e6 - int64(r&(1<<rampTimeBits-1))
	b := int64(r>>rampTimeBits) + max(0, since)*min(m.limit, math.MaxInt32)/10_000
	if b >= m.soft {
		t.ramp.CompareAndSwap(r, 0)
		return m.soft
	}
	return b
}

// newBound is the bound for a new anonymous visitor.
func (t *tier) newBound(m *marks, v *Visitor) int64 {
	b := t.softBound(m, v.Now)
	if b == m.soft && v.wait != neverWaits && t.patience.wait.Load() > 0 {
		return m.wide
	}
	return b
}

// backBound is that for one who was sent on to a later tier.
func (t *tier) backBound(m *marks, v *Visitor) int64 {
	b := t.newBound(m, v)
	if b == m.wide && m.wide > m.soft {
		return max(1, b-max(1, m.limit/60))
	}
	return min(m.back, b)
}

// spilled starts the slow return: a first visitor was sent on at the soft mark. Until the
// bound has grown back the tier keeps a twentieth free, so that it does not flap. A limit that was
// found needs none of this: it stays while there is any waiting, and grows back as slowly.
func (t *tier) spilled(m *marks, now int64) {
	if m.limit != math.MaxInt64 && !m.found && t.ramp.Load() == 0 {
		t.startRamp(0, max(1, m.soft-max(1, m.limit/20)), now)
	}
}

// admit takes one place if fewer than bound are taken. Taken is how many were.
func (t *tier) admit(bound int64) (taken int64, ok bool) {
	others := t.others.Load()
	for {
		n := t.inFlight.Load()
		if n+others >= bound {
			return n + others, false
		}
		if t.inFlight.CompareAndSwap(n, n+1) {
			t.sent.Add(1)
			return n + others, true
		}
	}
}
