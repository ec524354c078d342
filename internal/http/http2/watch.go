package http2

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// swept is a connection that the sweeper looks at.
type swept interface {
	// sweep acts on limits that are over at now, milliseconds since the sweeper's epoch.
	sweep(now int64)
	// place is where the sweeper keeps the connection's index.
	place() *int
}

// sweeper is a coarse clock and the watch over the connections' limits of time. Nobody arms
// timers: a limit is a number that the next sweep compares.
type sweeper struct {
	tick  time.Duration
	epoch time.Time
	now   atomic.Int64 // milliseconds since epoch, at most one tick old; 1 at the epoch
	date  atomic.Pointer[[dateLen]byte]
	sec   int64

	mu   sync.Mutex
	list []swept
}

// batch is how many connections are looked at under one lock.
const batch = 256

func (w *sweeper) init(tick time.Duration) {
	w.tick, w.epoch = tick, time.Now()
	w.now.Store(1)
	w.setDate(w.epoch)
}

func (w *sweeper) run(ctx context.Context) error {
	t := time.NewTicker(w.tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		now := time.Now()
		ms := now.Sub(w.epoch).Milliseconds() + 1
		w.now.Store(ms)
		if now.Unix() != w.sec {
			w.setDate(now)
		}
		w.each(func(s swept) { s.sweep(ms) })
	}
}

// each calls do for every connection. One that comes or goes meanwhile may be missed.
func (w *sweeper) each(do func(swept)) {
	for i := 0; ; {
		w.mu.Lock()
		end := min(i+batch, len(w.list))
		for ; i < end; i++ {
			do(w.list[i])
		}
		done := i >= len(w.list)
		w.mu.Unlock()
		if done {
			return
		}
	}
}

func (w *sweeper) add(s swept) {
	w.mu.Lock()
	*s.place() = len(w.list)
	w.list = append(w.list, s)
	w.mu.Unlock()
}

func (w *sweeper) remove(s swept) {
	w.mu.Lock()
	i, last := *s.place(), len(w.list)-1
	w.list[i] = w.list[last]
	*w.list[i].place() = i
	w.list[last] = nil
	w.list = w.list[:last]
	w.mu.Unlock()
}

func (w *sweeper) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.list)
}

// over says whether d has passed since the time at, which is 0 where nothing waits.
func (w *sweeper) over(now, at int64, d time.Duration) bool {
	return at != 0 && now-at > (d+w.tick).Milliseconds()
}

// dateLen is the length of a Date field's value.
const dateLen = len("Mon, 02 Jan 2006 15:04:05 GMT")

func (w *sweeper) setDate(t time.Time) {
	var d [dateLen]byte
	t.UTC().AppendFormat(d[:0], "Mon, 02 Jan 2006 15:04:05 GMT")
	w.date.Store(&d)
	w.sec = t.Unix()
}
