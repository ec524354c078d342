package balance

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/stage"
)

// The bounds of the brief wait. It is for tiers that are told their limit: what is told leaves no request waiting
// at the origins, so that a place stands empty from the end of one request until the next one comes by chance.
const (
	// waitShare is the wait of a visitor without a basket as a share of what the slowest usual kind of requests takes.
	waitShare = 0.08
	longWait  = 20 * time.Millisecond // and its bounds
	leastWait = 200 * time.Microsecond
	// basketWaits is how many times as long visitors with a basket wait: another tier may not know the basket.
	basketWaits = 3
	mostWaiting = 1024 // in a tier
	// leastChance is how many places must come free in a wait, for one who would be the first to wait.
	leastChance = 0.1
	rateTime    = time.Second // how far back the rate of places that come free reaches
)

// The lanes, in the order in which they are served.
const (
	laneBasket = iota
	laneStaying
	laneNew
	laneCount
)

// waiting says whether a Pick may be told to wait.
type waiting uint8

const (
	neverWaits waiting = iota
	mayWait
	hasWaited // or found that it cannot
)

var (
	// errWait is what Pick says to a visitor that mayWait, with a Slot of which only the tier is set.
	errWait = errors.New("a place may come free in a moment")
	errGone = &stage.Error{Code: "client_gone", Side: stage.SideClient, Status: 499, Close: true, Err: context.Canceled}
)

// patience is those who wait briefly for a place of a tier before they are sent on. A place that comes free is
// handed to the first of them, so it never stands empty while somebody waits.
type patience struct {
	waiting atomic.Int64
	wait    atomic.Int64 // ns; 0 is that nobody waits
	depth   atomic.Int64 // places that come free in that time, one at least

	mu    sync.Mutex
	lanes [laneCount]lane

	joined atomic.Uint64 // since ever
	// The rest is guarded by Pool.mu.
	rate float64 // places that come free in a ns
	last load
	at   int64
	used uint64 // joined at the last look that saw it grow, and
	when int64  // the time of that
}

// lasts is how long those of a lane wait.
func (q *patience) lasts(lane int) time.Duration {
	d := time.Duration(q.wait.Load())
	if lane == laneBasket {
		d *= basketWaits
	}
	return d
}

// takes says, without certainty, whether one more of a lane could expect a place.
func (q *patience) takes(lane int) bool {
	return lane == laneBasket || q.waiting.Load() < q.depth.Load()
}

// joins has w wait for a place of t, unless one is free (granted), or too many are before it (neither).
func (t *tier) joins(w *waiter) (granted, waits bool) {
	q := &t.patience
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting.Add(1) // before the look: who gives a place back looks here afterwards
	if _, ok := t.admit(t.marks.Load().forLane(w.lane, w.held)); ok {
		q.waiting.Add(-1)
		return true, false
	}
	ahead, most := 0, int(q.depth.Load())
	for i := range w.lane + 1 {
		ahead += len(q.lanes[i].list)
	}
	if w.lane == laneBasket {
		most *= basketWaits
	}
	if q.joined.Add(1); ahead >= min(most, mostWaiting) {
		last := q.lanes[w.lane].last(w.rank)
		if last == nil {
			q.waiting.Add(-1)
			return false, false
		}
		q.call(last)
	}
	w.granted, w.called = false, false
	q.lanes[w.lane].push(w)
	return false, true
}

// hand gives places that are free to those who wait.
func (t *tier) hand() {
	q := &t.patience
	q.mu.Lock()
	defer q.mu.Unlock()
	m := t.marks.Load()
	for i := range q.lanes {
		for k := 0; k < len(q.lanes[i].list); {
			w := q.lanes[i].list[k]
			if _, ok := t.admit(m.forLane(i, w.held)); ok {
				w.granted = true
				q.call(w)
				continue
			}
			if w.held == 0 {
				return // the bounds of those after it are no higher
			}
			k++
		}
	}
}

// dismiss has everybody stop waiting.
func (t *tier) dismiss() {
	q := &t.patience
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.lanes {
		for len(q.lanes[i].list) > 0 {
			q.call(q.lanes[i].list[0])
		}
	}
}

// call takes w out and tells it. The lock is held.
func (q *patience) call(w *waiter) {
	q.lanes[w.lane].remove(w)
	q.waiting.Add(-1)
	w.called = true
	w.turn <- struct{}{} // there is room for it
}

// leaves takes w out and says whether it was handed a place.
func (t *tier) leaves(w *waiter) (granted bool) {
	q := &t.patience
	q.mu.Lock()
	defer q.mu.Unlock()
	if !w.called {
		q.lanes[w.lane].remove(w)
		q.waiting.Add(-1)
		return false
	}
	select {
	case <-w.turn: // it was called at the last moment
	default:
	}
	return w.granted
}

// forLane is the bound for those who wait, of whose source others have so much.
func (m *marks) forLane(lane int, held int64) int64 {
	switch lane {
	case laneBasket:
		return m.forBasket(held)
	case laneNew:
		return m.wide
	}
	return m.general
}

// free notes that a place of t came free.
func (p *Pool) free(t *tier) {
	t.inFlight.Add(-1)
	if p.line.waiting.Load() > 0 {
		p.line.next(p.room()) // they have waited for longer, and in every tier
	} else if t.patience.waiting.Load() > 0 {
		t.hand()
	}
}

// look finds how long a wait is worth while. Longest is what the slowest usual kind of requests takes, in ns; 0 for a tier
// where nobody waits.
func (q *patience) look(now int64, longest float64, c load) {
	if took := float64(now - q.at); q.at > 0 && took > 0 {
		freed := max(0, float64(c.sent-q.last.sent)-float64(c.inFlight-q.last.inFlight))
		keep := math.Exp(-took / float64(rateTime))
		q.rate = keep*q.rate + (1-keep)*freed/took
	}
	q.at, q.last = now, c
	wait := min(waitShare*longest, float64(longWait))
	if wait < float64(leastWait) || q.rate*wait < leastChance {
		wait = 0
	}
	q.wait.Store(int64(wait))
	q.depth.Store(max(1, int64(q.rate*wait)))
	if n := q.joined.Load(); n != q.used {
		q.used, q.when = n, now
	}
}

// missed is the share of those with a basket who find no place while they wait, where others are kept away as long: that no place
// comes free in that time. It is 1 for a tier where nobody had to wait lately. Pool.mu is held.
func (q *patience) missed() float64 {
	if q.when == 0 || q.at-q.when > int64(reserveTime) {
		return 1
	}
	return math.Exp(-q.rate * float64(q.lasts(laneBasket)))
}

// longest is what the slowest kind of requests that is no rarity takes, in ns; 0 when it is not known, or the limit of the tier is not one that
// was told. Pool.mu is held.
func (t *tier) longest() float64 {
	if m := t.marks.Load(); m.found || m.limit == math.MaxInt64 || !t.well || !t.kinds.begun {
		return 0
	}
	return t.kinds.past[t.kinds.to].usual
}

// laneOf is where a visitor waits, when it may.
func laneOf(v *Visitor, stays bool) int {
	switch {
	case v.Class == protectedClass:
		return laneBasket
	case stays || v.Class != stage.Anonymous:
		return laneStaying
	}
	return laneNew
}

// lingers notes that v may wait for a place of tier i that it found full.
func (s *Slot) lingers(w *view, i int, v *Visitor, stays bool) bool {
	t := w.tiers[i].state
	if v.wait != mayWait || s.skipped[i] != ReasonHard || t.patience.wait.Load() == 0 {
		return false
	}
	lane := laneOf(v, stays)
	if !t.patience.takes(lane) {
		t.counters.tooMany.Inc()
		return false
	}
	s.tier, s.at, s.lane, s.waits = t, i, uint8(lane), true
	return true
}

// seat makes a slot of a place of t that a visitor holds already; false when it has no origin, and the
// place is given back.
func (p *Pool) seat(t *tier, v *Visitor, tried *Tried) (Slot, bool) {
	w := p.view.Load()
	s := p.slot(w, v)
	for i := range w.tiers {
		if w.tiers[i].state != t {
			continue
		}
		if len(w.tiers[i].members) == 0 || tried.n > 0 && !w.tiers[i].leaves(tried) || !s.sit(w, i, v, tried) {
			break
		}
		s.Reason = ReasonWaited
		if i > 0 {
			s.Reason = ReasonSticky // nobody waits for a later tier but for the sake of a basket
		} else if v.Class == stage.Anonymous && w.remember {
			p.remember(w, v, i, p.mem.Load())
		}
		return s, true
	}
	p.free(t)
	return Slot{}, false
}

// linger waits for a place of the tier of s, and takes any other one after that.
func (a *attempt) linger(ctx context.Context, x *stage.Exchange, v *Visitor, s *Slot) (Slot, error) {
	if x.Replayed() {
		return a.lingerReplayed(x, v, s)
	}
	t, w := s.tier, &a.waiter
	if w.lane = int(s.lane); w.turn == nil {
		w.turn = make(chan struct{}, 1)
	}
	if w.held, w.rank = a.pool.holds(v), 0; w.lane == laneBasket {
		w.rank = a.pool.rank(x, w.held)
	}
	d := t.patience.lasts(w.lane)
	if a.deadline != 0 {
		d = min(d, time.Duration(a.deadline-v.Now))
	}
	granted, waits := t.joins(w)
	switch {
	case waits:
		x.MayBlock()
		granted = a.await(ctx, t, d)
		x.Lap()
		v.Now = a.stage.now(x)
	case !granted:
		t.counters.tooMany.Inc()
	}
	if granted {
		if slot, ok := a.pool.seat(t, v, &a.tried); ok {
			if waits {
				t.counters.waited.Inc()
			}
			return slot, nil
		}
	}
	if waits {
		if ctx.Err() != nil {
			t.counters.left.Inc()
			return Slot{}, errGone
		}
		t.counters.inVain.Inc()
		x.MarkDetail(name, "waited-in-vain", t.name)
	}
	v.wait = hasWaited
	slot, err := a.pool.Pick(*v, &a.tried)
	return slot, err
}

// await blocks until the place is there, or the wait is over.
func (a *attempt) await(ctx context.Context, t *tier, d time.Duration) (granted bool) {
	if a.timer == nil {
		a.timer = time.NewTimer(d)
	} else {
		a.timer.Reset(d)
	}
	select {
	case <-a.waiter.turn:
	case <-a.timer.C:
	case <-ctx.Done():
	}
	a.timer.Stop()
	return t.leaves(&a.waiter)
}
