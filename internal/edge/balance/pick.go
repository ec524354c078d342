package balance

import (
	"errors"

	"github.com/relais-edge/relais/internal/stage"
)

// Visitor is what Pick must know of who asks.
type Visitor struct {
	Class stage.Class
	Key   uint64 // tells visitors apart; 0 when it is not known
	Tier  string // holds the visitor's basket; empty when none does
	// Source and Network tell where a visitor with a basket comes from; 0 where that says nothing.
	Source, Network uint64
	Hash            uint64 // for consistent-hash
	Kind            uint8  // of the request: those of one kind take about as long as each other
	Now             int64  // the pool's clock, nanoseconds
	seed            uint64 // of chances, in a replay; else 0
	turn            bool   // it has waited for a place, and is the next one
	held            int64  // by others of its source
	wait            waiting
	// Background says that nobody waits for the answer.
	Background bool
}

// Reason says why a request went where it went, or why it did not go to a tier.
type Reason uint8

// The reasons.
const (
	ReasonNone      Reason = iota
	ReasonSticky           // the visitor's basket is in this tier
	ReasonReserve          // a place kept for visitors with a basket
	ReasonStayed           // an anonymous visitor stays where it was sent lately
	ReasonSoft             // the tier is at its soft mark, or its visitors are still returning
	ReasonHard             // the tier is full for such a visitor
	ReasonUnhealthy        // no origin of the tier is well
	ReasonTried            // every origin of the tier that is well was tried
	ReasonWaited           // the tier was full, and a place came free in a moment
)

var reasonCodes = [...]string{
	"tier", "sticky", "reserve", "stayed", "spill:soft", "spill:hard", "spill:unhealthy", "spill:tried", "waited",
}

// String returns the reason as a trail shows it.
func (r Reason) String() string { return reasonCodes[r] }

// Why Pick found nothing.
var (
	ErrFull  = stage.ErrFull
	ErrTried = errors.New("every origin that has room was tried")
	ErrNone  = errors.New("the pool has no origin with a weight above 0")
)

// maxTried bounds what is remembered of one request's tries.
const maxTried = 16

// Tried is the set of origins that failed for one request. The zero Tried is empty.
type Tried struct {
	list [maxTried]*origin
	n    int
}

func (t *Tried) add(o *origin) {
	if t.n < maxTried && !t.has(o) {
		t.list[t.n] = o
		t.n++
	}
}

func (t *Tried) has(o *origin) bool {
	for i := range t.n {
		if t.list[i] == o {
			return true
		}
	}
	return false
}

func (t *Tried) reset() {
	clear(t.list[:t.n])
	t.n = 0
}

// Slot is a place in a tier and at an origin, held by one try. Release gives it back.
type Slot struct {
	pool     *Pool
	tier     *tier
	origin   *origin
	Reason   Reason
	Spilled  bool // the tier is not the first choice
	Panicked bool // nobody in the pool is well, and the origin was chosen all the same
	// skipped says why the tiers before this one, or the one with the basket, were not chosen.
	skipped [maxTiers]Reason
	at      int    // index of the tier
	began   int64  // the pool's clock
	basket  bool   // of a visitor with a basket, and
	from    source // where it comes from
	wanted  Reason // why the tier of first choice was not chosen
	timed   bool   // the pool wants to know how long answers take
	counts  bool   // and looks for outliers
	checked bool   // and has active checks
	hedged  bool
	kind    uint8
	begun   bool // the answer has begun
	waits   bool // Pick asks its visitor to wait, in
	lane    uint8
}

// Spill is why the slot is not in the pool's first tier, or not in the one with the visitor's basket: soft, hard,
// unhealthy, tried, stayed or sticky. It is empty when it is.
func (s *Slot) Spill() string { return spillCodes[s.why()] }

// why is the reason of Spill.
func (s *Slot) why() Reason {
	switch {
	case s.at == 0 && !s.Spilled:
		return ReasonNone
	case s.wanted == ReasonNone:
		return s.Reason
	}
	return s.wanted
}

// spillCodes are the reasons without the way they are written in a trail.
var spillCodes = [...]string{"", "sticky", "", "stayed", "soft", "hard", "unhealthy", "tried", ""}

// Tier is the name of the tier.
func (s *Slot) Tier() string { return s.tier.name }

// Address is the origin's.
func (s *Slot) Address() string { return s.origin.address }

// Outcome says how a try ended.
type Outcome uint8

// The outcomes.
const (
	Succeeded Outcome = iota // the origin answered, and did not say that it cannot
	Failed                   // connection error, timeout, broken answer, 502, 503, 504
	Abandoned                // the visitor went away, or the fault was not the origin's
)

// Release gives the places back and lets the outcome count for the origin's health. It must be
// called exactly once for each Slot that Pick gave.
func (s *Slot) Release(o Outcome) {
	if s.basket {
		s.tier.baskets.Add(-1)
		s.pool.uncount(s.from)
	}
	s.begin()
	s.origin.inFlight.Add(-1)
	s.pool.free(s.tier)
	s.pool.judge(s.tier, s.origin, o)
}

// paced notes that the origin's answer began at the time now of the pool's clock. It is what
// limits are found from; a try without it (a connection of a Service) does not count for them.
func (s *Slot) paced(now int64) {
	o, k, took := s.origin, &s.tier.kinds.of[s.kind], max(0, now-s.began)
	usual := k.usual.Load()
	s.begin()
	o.weigh(took, usual)
	if o.slow.Load() {
		s.tier.probed(o, took, usual)
	} else {
		k.answered(took)
		if usual > 0 {
			s.tier.limiter.hist.add(s.began, took+k.shift.Load())
		}
	}
	if !s.pool.awake.Load() {
		s.pool.wake()
	}
}

// served notes that the origin did what it was asked for, which an active check that comes too late is held against.
func (s *Slot) served() {
	if s.checked {
		s.origin.served.Add(1)
	}
}

// begin notes that nobody waits for an answer of the origin any more.
func (s *Slot) begin() {
	if !s.begun {
		s.begun = true
		s.origin.asked.remove(s.began)
	}
}

// Pick chooses a tier and an origin for one try and takes a place at both. It neither blocks
// nor allocates. The error is ErrFull, ErrTried or ErrNone.
func (p *Pool) Pick(v Visitor, tried *Tried) (Slot, error) {
	w := p.view.Load()
	if v.Now >= w.changeAt {
		w = p.remake(w, v.Now)
	}
	s := p.slot(w, &v)
	p.rivals.note(v.Source, v.Now)
	if !v.turn && p.line.waiting.Load() > 0 {
		if !v.Background {
			w.sentAway()
		}
		return Slot{}, ErrFull // places that come free are for those who wait
	}
	if v.Background {
		return s.pickSpare(w, &v, tried)
	}
	if !v.turn {
		v.held = p.holds(&v)
	}
	basket := -1
	if w.sticky && v.Tier != "" {
		basket = w.find(v.Tier)
	}
	if basket >= 0 {
		m := w.tiers[basket].state.marks.Load()
		if s.enter(w, basket, m, m.forKnown(&v), &v, tried) {
			if s.Reason == ReasonNone {
				s.Reason = ReasonSticky
			}
			return s, nil
		}
		if s.lingers(w, basket, &v, true) {
			return s, errWait
		}
	}
	ok := false
	if v.Class == stage.Anonymous && basket < 0 {
		ok = p.pickAnonymous(&s, w, &v, tried)
	} else {
		ok = s.waterfall(w, basket, &v, tried)
	}
	if s.waits {
		return s, errWait
	}
	if !ok {
		if !v.turn { // who waits is counted once
			w.sentOn(&s, len(w.tiers))
		}
		return Slot{}, w.whyNot(&s)
	}
	if s.at > 0 {
		w.sentOn(&s, s.at)
	}
	if s.Spilled = s.at != max(basket, 0); s.Spilled {
		s.wanted = s.skipped[max(basket, 0)]
	}
	if basket < s.at {
		clear(s.skipped[s.at+1:]) // of a first round
	}
	return s, nil
}

// slot is what every slot for v begins as.
func (p *Pool) slot(w *view, v *Visitor) Slot {
	return Slot{
		pool: p, Panicked: w.panicked, began: v.Now, basket: v.Class == protectedClass,
		timed: w.timed, counts: w.counts, checked: w.checked, hedged: w.hedged, kind: v.Kind % kindCount,
	}
}

// sentOn counts the visitor in the tiers before the one at an index that had no room for it.
func (w *view) sentOn(s *Slot, before int) {
	for i := range before {
		if r := s.skipped[i]; r == ReasonSoft || r == ReasonHard {
			w.tiers[i].state.refused.Add(1)
		}
	}
}

// sentAway counts a visitor for whom the whole pool is full.
func (w *view) sentAway() {
	for i := range w.tiers {
		w.tiers[i].state.refused.Add(1)
	}
}

// forKnown is the bound for a visitor who is not anonymous.
func (m *marks) forKnown(v *Visitor) int64 {
	if v.Class == protectedClass {
		return m.forBasket(v.held)
	}
	return m.general
}

// pickSpare is for work that nobody waits for: a place in the first tier that is well, while less than half
// of what makes new visitors go on to the next tier is taken. It is never sent on itself, and counts as nobody
// that was refused.
func (s Slot) pickSpare(w *view, v *Visitor, tried *Tried) (Slot, error) {
	for i := range w.tiers {
		m := w.tiers[i].state.marks.Load()
		if s.enter(w, i, m, m.spare, v, tried) {
			return s, nil
		}
		if s.skipped[i] == ReasonHard {
			return Slot{}, ErrFull
		}
	}
	return Slot{}, w.whyNot(&s)
}

// waterfall is for visitors that are known: the first tier that is not full for them.
func (s *Slot) waterfall(w *view, except int, v *Visitor, tried *Tried) bool {
	for i := range w.tiers {
		if i == except {
			continue
		}
		m := w.tiers[i].state.marks.Load()
		if s.enter(w, i, m, m.forKnown(v), v, tried) {
			return true
		}
		if i == 0 && s.lingers(w, i, v, false) {
			return false
		}
	}
	return false
}

// pickAnonymous is for visitors of whom nothing is known. One that came lately stays where it
// was. A new one goes to the first tier below its soft mark, and only when there is none to the
// first that is not full.
func (p *Pool) pickAnonymous(s *Slot, w *view, v *Visitor, tried *Tried) bool {
	mem, before := p.mem.Load(), -1
	if mem != nil && w.remember {
		before = mem.find(v.Key, v.Now)
		if before >= len(w.tiers) {
			before = -1
		}
	}
	if s.comeBack(w, before, v, tried) {
		mem.put(v.Key, s.at, v.Now)
		return true
	}
	if before >= 0 {
		m := w.tiers[before].state.marks.Load()
		if s.enter(w, before, m, m.general, v, tried) {
			if before > 0 {
				s.Reason = ReasonStayed
			} else {
				mem.keep(v.Key, before, v.Now)
			}
			return true
		}
		if before == 0 && s.lingers(w, 0, v, true) {
			return false
		}
	}
	if before >= 0 && s.skipped[before] == ReasonUnhealthy {
		before = -1 // it moves for good
	}
	for i := range w.tiers {
		t := w.tiers[i].state
		m := t.marks.Load()
		bound := t.newBound(m, v)
		if s.enter(w, i, m, bound, v, tried) {
			if before < 0 && w.remember {
				p.remember(w, v, i, mem)
			}
			return true
		}
		if i == 0 && before <= 0 && bound == m.wide && s.lingers(w, i, v, false) {
			return false
		}
		if n := t.inFlight.Load() + t.others.Load(); s.skipped[i] == ReasonHard {
			if n < m.general {
				s.skipped[i] = ReasonSoft
			}
			if n >= m.soft && t.patience.wait.Load() == 0 {
				t.spilled(m, v.Now)
			}
		}
	}
	return s.waterfall(w, -1, v, tried)
}

// comeBack is for a visitor that was sent on to the tier before: it stays there, but not while an earlier
// one has room to spare.
func (s *Slot) comeBack(w *view, before int, v *Visitor, tried *Tried) bool {
	for i := range max(before, 0) {
		t := w.tiers[i].state
		m := t.marks.Load()
		if s.enter(w, i, m, t.backBound(m, v), v, tried) {
			return true
		}
		if s.skipped[i] == ReasonHard {
			s.skipped[i] = ReasonNone // it stays because it was sent on
		}
	}
	return false
}

// remember notes where a new anonymous visitor went, once the first tier is half full: below
// that there is no choice to remember.
func (p *Pool) remember(w *view, v *Visitor, i int, mem *residents) {
	t := w.tiers[0].state
	if i == 0 && t.inFlight.Load() < t.marks.Load().soft/2 {
		return
	}
	if mem == nil {
		p.mem.CompareAndSwap(nil, newResidents())
		mem = p.mem.Load()
	}
	mem.put(v.Key, i, v.Now)
}

// enter takes a place in tier i if fewer than bound are taken and an origin is left to try.
// It notes why not.
func (s *Slot) enter(w *view, i int, m *marks, bound int64, v *Visitor, tried *Tried) bool {
	t := &w.tiers[i]
	if len(t.members) == 0 {
		s.skipped[i] = ReasonUnhealthy
		return false
	}
	if tried.n > 0 && !t.leaves(tried) {
		s.skipped[i] = ReasonTried
		return false
	}
	taken, ok := t.state.admit(bound)
	if !ok {
		if s.basket && !v.turn && v.wait != mayWait && taken >= m.basket { // who yields is no want of places
			t.state.reserve.away.Add(1)
		}
		s.skipped[i] = ReasonHard
		return false
	}
	if !s.sit(w, i, v, tried) {
		s.pool.free(t.state)
		s.skipped[i] = ReasonHard
		return false
	}
	if taken >= m.general {
		s.Reason = ReasonReserve
	}
	return true
}

// sit takes an origin of tier i, in which there is a place for v; false when those that are left are at limits of their own.
func (s *Slot) sit(w *view, i int, v *Visitor, tried *Tried) bool {
	t := &w.tiers[i]
	o := t.take(t, v, tried)
	if o == nil {
		return false
	}
	if o.slow.Load() {
		o = t.instead(o, v, tried)
	}
	if s.basket {
		s.from = s.pool.count(v, t.state.half())
		t.state.baskets.Add(1)
		t.state.tally.basket.Add(1)
	} else if v.Class == stage.Known {
		t.state.tally.known.Add(1)
	}
	s.tier, s.origin, s.at = t.state, o, i
	o.asked.add(s.began)
	s.skipped[i] = ReasonNone
	return true
}

// protectedClass is that of visitors with a basket.
const protectedClass = stage.Protected

// leaves says whether the tier has an origin that was not tried.
func (v *tierView) leaves(tried *Tried) bool {
	for i := range v.members {
		if !tried.has(v.members[i].o) {
			return true
		}
	}
	return false
}

func (w *view) find(tier string) int {
	for i := range w.tiers {
		if w.tiers[i].state.name == tier {
			return i
		}
	}
	return -1
}

// whyNot makes an error of what Pick noted.
func (w *view) whyNot(s *Slot) error {
	err := ErrNone
	for i := range w.tiers {
		switch s.skipped[i] {
		case ReasonTried:
			return ErrTried
		case ReasonHard, ReasonSoft:
			err = ErrFull
		}
	}
	return err
}
