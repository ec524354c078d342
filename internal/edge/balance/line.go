package balance

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/stage"
)

// orderPatience is how many times as long as others an order waits.
const orderPatience = 3

// line is those with a basket who wait for a place, while every tier is full: by rank, orders before others, and else in
// the order of their coming. As long as somebody waits nobody else is let in.
type line struct {
	waiting atomic.Int64

	mu    sync.Mutex
	lanes [2]lane // orders, others; each has a bound of its own
}

// join lets w wait in its lane; false when most are there already, and none of them is after it.
func (l *line) join(w *waiter, most int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := &l.lanes[w.lane]
	if len(a.list) >= most {
		last := a.last(w.rank)
		if last == nil {
			return false
		}
		a.remove(last)
		l.waiting.Add(-1)
		last.out = true
		tell(last)
	}
	a.push(w)
	l.waiting.Add(1)
	return true
}

// leave takes w out.
func (l *line) leave(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !w.out {
		l.lanes[w.lane].remove(w)
		l.waiting.Add(-1)
	}
}

// head is who is next, of those for whom there is room; nil when there is nobody. The lock is held.
func (l *line) head(room int64) *waiter {
	order, other := l.lanes[0].first(room), l.lanes[1].first(room)
	if order == nil || other != nil && other.rank < order.rank {
		return other
	}
	return order
}

// look says whether w is next, and whether it is out.
func (l *line) look(w *waiter, room int64) (next, out bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head(room) == w, w.out
}

// next tells who is next that there may be a place.
func (l *line) next(room int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.head(room); w != nil {
		tell(w)
	}
}

// tell has w look.
func tell(w *waiter) {
	select {
	case w.turn <- struct{}{}:
	default:
	}
}

// queue has a visitor with a basket wait for a place that comes free. The error is ErrFull, or another one
// of Pick's.
func (a *attempt) queue(ctx context.Context, x *stage.Exchange, v *Visitor) (Slot, error) {
	p, spec := a.pool, &a.pool.view.Load().spec.WhenFull
	patience := v1.Value(spec.Wait).Std()
	switch {
	case v.Class != protectedClass || x.StandIn:
		return Slot{}, ErrFull
	case patience <= 0:
		return a.lone(v)
	}
	if x.Replayed() {
		return a.queueReplayed(x, v, patience)
	}
	w := &waiter{turn: make(chan struct{}, 1), lane: 1, held: p.holds(v)}
	if w.rank = p.rank(x, w.held); x.Visitor.Near() == stage.StepOrder {
		w.lane, patience = 0, orderPatience*patience
	}
	if a.deadline != 0 {
		patience = min(patience, time.Duration(a.deadline-a.stage.clock()))
	}
	if !p.line.join(w, v1.Value(spec.Waiting)) {
		p.counters.queueFull.Inc()
		x.Mark(name, "queue-full")
		return Slot{}, ErrFull
	}
	from := p.count(v, true)
	defer func() {
		p.line.leave(w)
		p.uncount(from)
		p.line.next(p.room()) // there may be a place for another one too
	}()
	p.wake()
	x.MayBlock()
	x.Mark(name, "queued")
	defer x.Lap()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		next, out := p.line.look(w, p.room())
		if out {
			p.counters.queueYielded.Inc()
			x.Mark(name, "queue-yielded")
			return Slot{}, ErrFull
		}
		if next {
			v.Now, v.turn, v.held = a.stage.clock(), true, w.held
			slot, err := p.Pick(*v, &a.tried)
			v.turn = false
			if err == nil {
				p.counters.queueServed.Inc()
			}
			if err != ErrFull {
				return slot, err
			}
		}
		select {
		case <-w.turn:
		case <-timer.C:
			if slot, err := a.lone(v); err == nil {
				p.counters.queueServed.Inc()
				return slot, nil
			}
			p.counters.queueExpired.Inc()
			return Slot{}, ErrFull
		case <-ctx.Done():
			p.counters.queueLeft.Inc()
			return Slot{}, ErrFull
		}
	}
}

// lone takes one of the places that are kept for others, where there are no others.
func (a *attempt) lone(v *Visitor) (Slot, error) {
	p := a.pool
	if v.Now = a.stage.clock(); p.holds(v) == 0 || !p.rivals.none(v.Now) {
		return Slot{}, ErrFull
	}
	v.turn, v.held = true, 0
	slot, err := p.Pick(*v, &a.tried)
	v.turn = false
	return slot, err
}
