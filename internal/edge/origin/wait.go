package origin

import (
	"context"
	"time"
)

// waiter is a request that waits for a connection. Got holds one value at most.
type waiter struct {
	got        chan grant
	shared     *wish // what it asks of a connection of HTTP/2; nil when it waits for one of HTTP/1
	prev, next *waiter
	queued     bool
}

// grant is what a waiter gets: a connection (of HTTP/2 with a place on it), the leave to open one
// when all is empty, the failure of the one it waited for, or that it must look again.
type grant struct {
	conn  *conn
	err   error
	again bool
}

// waitList is a queue of waiters. It is guarded by the endpoint's lock.
type waitList struct {
	first, last *waiter
	n           int
}

func (l *waitList) push(shared *wish) *waiter {
	w := &waiter{got: make(chan grant, 1), shared: shared, prev: l.last, queued: true}
	if l.last != nil {
		l.last.next = w
	} else {
		l.first = w
	}
	l.last = w
	l.n++
	return w
}

// find returns the first waiter that fits; nil when none does.
func (l *waitList) find(fits func(*waiter) bool) *waiter {
	for w := l.first; w != nil; w = w.next {
		if fits(w) {
			return w
		}
	}
	return nil
}

// pop takes the first waiter that fits.
func (l *waitList) pop(fits func(*waiter) bool) *waiter {
	w := l.find(fits)
	if w != nil {
		l.remove(w)
	}
	return w
}

func anyWaiter(*waiter) bool  { return true }
func forHTTP1(w *waiter) bool { return w.shared == nil }
func forHTTP2(w *waiter) bool { return w.shared != nil }

func (l *waitList) remove(w *waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.last = w.prev
	}
	w.prev, w.next, w.queued = nil, nil, false
	l.n--
}

// wait returns what the waiter got, within the time for a connection.
func (e *endpoint) wait(ctx context.Context, w *waiter, deadline time.Time) (grant, error) {
	d := e.spec.Connect.Std()
	if !deadline.IsZero() {
		d = min(d, time.Until(deadline))
	}
	t := time.NewTimer(d)
	defer t.Stop()
	err := errLimit
	select {
	case g := <-w.got:
		return g, g.err
	case <-t.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	e.mu.Lock()
	if w.queued {
		e.waiting.remove(w)
		e.mu.Unlock()
		return grant{}, err
	}
	e.mu.Unlock()
	g := <-w.got // it came in the last moment
	return g, g.err
}
