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

// line is those with a basket who wait for a place, while every tier is full: orders first, else in the
// order of their coming. As long as somebody waits nobody else is let in.
type line struct {
	waiting atomic.Int64

	mu    sync.Mutex
	lanes [2]lane // orders, others
}

// lane is a list, first come first.
type lane struct {
	first, last *waiter
	n           int
}

// push puts w at the end.
func (a *lane) push(w *waiter) {
	if w.prev = a.last; w.prev == nil {
		a.first = w
	} else {
		w.prev.next = w
	}
	a.last = w
	a.n++
}

// remove takes w out.
func (a *lane) remove(w *waiter) {
	if w.prev == nil {
		a.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		a.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil
	a.n--
}

// waiter is one who waits.
type waiter struct {
	turn       chan struct{} // has room for one sign that it may be its turn
	lane       int
	prev, next *waiter
	called     bool // with patience: it is out, and
	granted    bool // has a place
}

// join puts w at the end of its lane; false when most are there already.
func (l *line) join(w *waiter, most int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := &l.lanes[w.lane]
	if a.n >= most {
		return false
	}
	a.push(w)
	l.waiting.Add(1)
	return true
}

// leave takes w out, and tells the one who is first then: there may be a place for that one too.
func (l *line) leave(w *waiter) {
	l.mu.Lock()
	l.lanes[w.lane].remove(w)
	l.waiting.Add(-1)
	l.mu.Unlock()
	l.next()
}

// head is who is first. The lock is held.
func (l *line) head() *waiter {
	for i := range l.lanes {
		if w := l.lanes[i].first; w != nil {
			return w
		}
	}
	return nil
}

// first says whether w is next.
func (l *line) first(w *waiter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head() == w
}

// next tells the one who is first that there may be a place.
func (l *line) next() {
	l.mu.Lock()
	w := l.head()
	l.mu.Unlock()
	if w != nil {
		select {
		case w.turn <- struct{}{}:
		default:
		}
	}
}

// queue has a visitor with a basket wait for a place that comes free. The error is ErrFull, or another one
// of Pick's.
func (a *attempt) queue(ctx context.Context, x *stage.Exchange, v *Visitor) (Slot, error) {
	p, spec := a.pool, &a.pool.view.Load().spec.WhenFull
	patience := v1.Value(spec.Wait).Std()
	if v.Class != protectedClass || x.StandIn || patience <= 0 {
		return Slot{}, ErrFull
	}
	if x.Replayed() {
		return a.queueReplayed(x, v, patience)
	}
	w := &waiter{turn: make(chan struct{}, 1), lane: 1}
	if x.Visitor.Step == stage.StepOrder {
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
	defer p.line.leave(w)
	p.wake()
	x.MayBlock()
	x.Mark(name, "queued")
	defer x.Lap()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		if p.line.first(w) {
			v.Now, v.turn = a.stage.clock(), true
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
			p.counters.queueExpired.Inc()
			return Slot{}, ErrFull
		case <-ctx.Done():
			p.counters.queueLeft.Inc()
			return Slot{}, ErrFull
		}
	}
}
