package http1

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

// sweeper is a coarse clock and the watch over the connections' limits of time. A limit is
// a store for the connection and a load for the sweeper; nobody arms timers.
type sweeper struct {
	tick  time.Duration
	epoch time.Time
	now   atomic.Int64 // milliseconds since epoch, at most one tick old
	date  atomic.Pointer[[dateLen]byte]
	sec   int64

	mu     sync.Mutex
	list   []swept
	cursor int // where Shed goes on
}

// batch is how many connections are looked at under one lock.
const batch = 256

func (w *sweeper) init(tick time.Duration) {
	w.tick, w.epoch = tick, time.Now()
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
		w.step(time.Now())
	}
}

func (w *sweeper) step(t time.Time) {
	now := t.Sub(w.epoch).Milliseconds()
	w.now.Store(now)
	if t.Unix() != w.sec {
		w.setDate(t)
	}
	w.each(func(s swept) { s.sweep(now) })
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

// dateLen is the length of a Date line with its end.
const dateLen = len("Date: Mon, 02 Jan 2006 15:04:05 GMT\r\n")

func (w *sweeper) setDate(t time.Time) {
	var d [dateLen]byte
	t.UTC().AppendFormat(d[:0], "Date: Mon, 02 Jan 2006 15:04:05 GMT\r\n")
	w.date.Store(&d)
	w.sec = t.Unix()
}

// phase is what a connection does in one direction.
type phase uint8

const (
	phaseNone   phase = iota // no limit
	phaseFresh               // nothing came yet
	phaseIdle                // between requests
	phaseHead                // part of a head is there
	phaseBody                // waiting for more of a body
	phaseBusy                // a request is being answered; the time is when that began
	phaseWrite               // waiting for room to write
	phaseTunnel              // no byte moved in a tunnel
	phaseLinger              // waiting for the other side to close
)

// guard is a phase and its limit of time in one word: bit 63 says that the limit was over,
// then come 8 bits of phase and 48 bits of milliseconds.
type guard struct {
	v atomic.Uint64
	// mu is held by the sweeper from finding the limit over until its kick has been done, so that
	// who finds it over can wait for the kick and undo it.
	mu sync.Mutex
}

const (
	guardOver = 1 << 63
	guardTime = 1<<48 - 1
)

// set enters a phase that may last until the time at; false when the limit of the phase
// before was over.
func (g *guard) set(p phase, at int64) bool {
	return g.v.Swap(uint64(p)<<48|uint64(at)&guardTime)&guardOver == 0
}

// look returns the phase and its time.
func (g *guard) look() (p phase, at int64, over bool) {
	v := g.v.Load()
	return phase(v >> 48 & 0x7f), int64(v & guardTime), v&guardOver != 0
}

// expire calls kick if the limit of the phase p, which looked at before, still stands at the same time.
func (g *guard) expire(p phase, at int64, kick func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := uint64(p)<<48 | uint64(at)
	if !g.v.CompareAndSwap(v, v|guardOver) {
		return false
	}
	kick()
	return true
}

// limit is the time after d.
func (w *sweeper) limit(d time.Duration) int64 {
	return w.now.Load() + (d + w.tick).Milliseconds()
}
