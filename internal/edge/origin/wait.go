package origin

import (
	"context"
	"time"
)

// waiter is a request that waits for a connection. Got holds one value at most: a connection,
// or nil for the leave to open one.
type waiter struct {
	got        chan *conn
	prev, next *waiter
	queued     bool
}

// waitList is a queue of waiters. It is guarded by the endpoint's lock.
type waitList struct {
	first, last *waiter
	n           int
}

func (l *waitList) push() *waiter {
	w := &waiter{got: make(chan *conn, 1), prev: l.last, queued: true}
	if l.last != nil {
		l.last.next = w
	} else {
		l.first = w
	}
	l.last = w
	l.n++
	return w
}

func (l *waitList) pop() *waiter {
	w := l.first
	if w != nil {
		l.remove(w)
	}
	return w
}

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

// wait returns what the waiter got, within the time for a connection. A nil connection is the
// leave to open one.
func (e *endpoint) wait(ctx context.Context, w *waiter, deadline time.Time) (*conn, error) {
	d := e.spec.Connect.Std()
	if !deadline.IsZero() {
		d = min(d, time.Until(deadline))
	}
	t := time.NewTimer(d)
	defer t.Stop()
	err := errLimit
	select {
	case c := <-w.got:
		return c, nil
	case <-t.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	e.mu.Lock()
	if w.queued {
		e.waiting.remove(w)
		e.mu.Unlock()
		return nil, err
	}
	e.mu.Unlock()
	return <-w.got, nil // it came in the last moment
}
