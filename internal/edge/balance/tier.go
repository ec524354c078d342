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
	well     bool // guarded by Pool.mu
	begun    bool // well has been set once

	_        [64]byte
	inFlight atomic.Int64
	turns    atomic.Uint64 // round-robin
	near     atomic.Uint64 // the same, within the edge's own zone
	// ramp bounds anonymous visitors while they return: base in the upper 24 bits, and the
	// clock in milliseconds below. 0 means that nobody is away.
	ramp atomic.Uint64
	_    [32]byte
}

const rampTimeBits = 40

// turn notes that the tier became well or ill. A tier that comes back gets its anonymous
// visitors back slowly, from none. The pool's lock is held.
func (t *tier) turn(well bool, now, limit int64) {
	if well && !t.well && t.begun && limit != math.MaxInt64 {
		t.startRamp(0, 0, now)
	}
	t.well, t.begun = well, true
}

// startRamp puts the bound for anonymous visitors to base, unless somebody was quicker.
func (t *tier) startRamp(old uint64, base, now int64) {
	t.ramp.CompareAndSwap(old, uint64(base)<<rampTimeBits|uint64(now/1e6)&(1<<rampTimeBits-1))
}

// tierView is a tier at one moment: its bounds, and who is well. It does not change.
//
// Bounds are for the origins that are well: a tier with half of its weight out takes half.
type tierView struct {
	state   *tier
	limit   int64 // for visitors with a basket
	general int64 // for the others: limit less the reserve
	soft    int64 // for new anonymous visitors, as long as another tier has room
	chooser
}

func (t *plannedTier) view(spec *v1.OriginPoolSpec, zone string, now int64, panicked bool) tierView {
	v := tierView{state: t.state}
	members, part, all := t.inUse(spec, now, panicked)
	v.limit, v.general, v.soft = bounds(t.limited(members), part, all)
	v.chooser = newChooser(spec, members, t, panicked, now)
	v.prefer(spec, zone, t)
	return v
}

// bounds turns a capacity into numbers of requests, when part of all weight is well.
func bounds(c v1.Capacity, part, all int64) (limit, general, soft int64) {
	if c.InFlight <= 0 {
		return math.MaxInt64, math.MaxInt64, math.MaxInt64
	}
	limit = int64(c.InFlight)
	if all > 0 {
		limit = (limit*part + all - 1) / all
	}
	if limit == 0 {
		return 0, 0, 0
	}
	reserve := ceil(float64(limit) * c.Reserve.Fraction())
	general = limit - reserve
	if general == 0 && c.Reserve < 100 {
		general = 1
	}
	soft = min(general, max(1, ceil(float64(limit)*v1.Value(c.SoftMark).Fraction())))
	return limit, general, soft
}

// ceil rounds up, but not for what binary fractions add to a product such as 400 × 0.2.
func ceil(f float64) int64 { return int64(math.Ceil(f - 1e-6)) }

// softBound is the bound for new anonymous visitors: the soft mark, or less while they
// return after a spill, a tenth of the tier a second.
func (v *tierView) softBound(now int64) int64 {
	r := v.state.ramp.Load()
	if r == 0 {
		return v.soft
	}
	since := now/1e6 - int64(r&(1<<rampTimeBits-1))
	b := int64(r>>rampTimeBits) + max(0, since)*v.limit/10_000
	if b >= v.soft {
		v.state.ramp.CompareAndSwap(r, 0)
		return v.soft
	}
	return b
}

// spilled starts the slow return: a first visitor was sent on at the soft mark. Until the
// bound has grown back the tier keeps a tenth free, so that it does not flap.
func (v *tierView) spilled(now int64) {
	if v.limit != math.MaxInt64 && v.state.ramp.Load() == 0 {
		v.state.startRamp(0, max(1, v.soft-max(1, v.limit/10)), now)
	}
}

// admit takes one place if fewer than bound are taken. Taken is how many were.
func (t *tier) admit(bound int64) (taken int64, ok bool) {
	for {
		n := t.inFlight.Load()
		if n >= bound {
			return n, false
		}
		if t.inFlight.CompareAndSwap(n, n+1) {
			return n, true
		}
	}
}
