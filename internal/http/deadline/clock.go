// Package deadline keeps limits of time without timers: a coarse clock, a list of connections that
// is looked through at each of its ticks, and a guard that holds a limit in one atomic word. To set
// a limit is a store; whoever is late is found by the next sweep. Without Run no limit is kept and
// the clock stands still.
package deadline

import (
	"context"
	"sync/atomic"
	"time"
)

// Clock is a coarse clock: reading it is a load. The zero Clock is not ready; call Init.
type Clock struct {
	tick  time.Duration
	epoch time.Time
	now   atomic.Int64 // milliseconds since epoch, at most one tick old; 1 at the epoch
	date  atomic.Pointer[[len(dateLine)]byte]
	sec   int64
}

const (
	dateLine = "Date: Mon, 02 Jan 2006 15:04:05 GMT\r\n"
	dateFrom = len("Date: ")
	dateTo   = len(dateLine) - len("\r\n")
)

// Init makes a clock ready that ticks each tick.
func (k *Clock) Init(tick time.Duration) {
	k.tick, k.epoch = tick, time.Now()
	k.now.Store(1)
	k.setDate(k.epoch)
}

// Now is the time in milliseconds since Init, at most one tick old. It is never 0, which may stand
// for "no time".
func (k *Clock) Now() int64 { return k.now.Load() }

// At is t on this clock; 1 for what was before Init.
func (k *Clock) At(t time.Time) int64 { return max(0, t.Sub(k.epoch).Milliseconds()) + 1 }

// Limit is the time after d; a tick later, so that a limit is never early.
func (k *Clock) Limit(d time.Duration) int64 { return k.now.Load() + (d + k.tick).Milliseconds() }

// Over says whether d has passed at now since the time at, which is 0 where nothing waits.
func (k *Clock) Over(now, at int64, d time.Duration) bool {
	return at != 0 && now-at > (d+k.tick).Milliseconds()
}

// Date is the value of a Date field for now (RFC 9110 sections 5.6.7 and 6.6.1). It must not be changed.
func (k *Clock) Date() []byte { return k.date.Load()[dateFrom:dateTo:dateTo] }

// DateLine is a Date field line of HTTP/1 with its end. It must not be changed.
func (k *Clock) DateLine() []byte { return k.date.Load()[:] }

func (k *Clock) setDate(t time.Time) {
	var d [len(dateLine)]byte
	t.UTC().AppendFormat(d[:0], dateLine)
	k.date.Store(&d)
	k.sec = t.Unix()
}

// Run keeps the clock and calls ticked after each tick until ctx ends. It blocks.
func (k *Clock) Run(ctx context.Context, ticked func(now int64)) error {
	t := time.NewTicker(k.tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		at := time.Now()
		now := k.At(at)
		k.now.Store(now)
		if at.Unix() != k.sec {
			k.setDate(at)
		}
		ticked(now)
	}
}
