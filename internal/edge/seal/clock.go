package seal

import (
	"sync"
	"sync/atomic"
	"time"
)

// How the wall clock's jumps are taken.
const (
	jump     = 60        // seconds beside the monotonic clock from which a step counts as a jump
	forgiven = 24 * 3600 // for how many seconds what was signed before a jump forward is still good
)

// Clock is the wall clock as what visitors carry sees it. When the machine's jumps forward, baskets, places and
// proofs would end at once whose owners had them a moment ago; so what a jump skipped counts as not passed, for a
// day in which all that are used are signed anew. A jump back only lets them live longer. Time that the machine
// slept is a jump too.
type Clock struct {
	wall   func(time.Time) int64
	epoch  time.Time
	first  int64        // the wall's second at the epoch
	offset atomic.Int64 // of the wall from the monotonic clock, in seconds, when it was last looked at
	skip   atomic.Int64 // seconds that count as not passed
	until  atomic.Int64 // the monotonic second in which that ends
	mu     sync.Mutex   // of who notes a jump
}

// NewClock returns a clock that begins now. Wall reads the second of the wall clock in a reading of both clocks;
// nil means time.Time.Unix. It is for tests, as Go has no way to set one clock apart from the other.
func NewClock(wall func(at time.Time) int64) *Clock {
	if wall == nil {
		wall = time.Time.Unix
	}
	c := &Clock{wall: wall, epoch: time.Now()}
	c.first = wall(c.epoch)
	c.offset.Store(c.first)
	return c
}

// Unix is the wall clock's second, which goes into what is signed.
func (c *Clock) Unix(at time.Time) int64 { return c.wall(at) }

// Steady is a second that never jumps while the process runs: the wall clock as it would be without a jump since
// the start. It is for what lives some minutes and is remembered by the process alone.
func (c *Clock) Steady(at time.Time) int64 { return c.first + c.mono(at) }

func (c *Clock) mono(at time.Time) int64 { return int64(at.Sub(c.epoch) / time.Second) }

// Expiry is the time by which what was signed is judged, in Unix seconds.
func (c *Clock) Expiry(at time.Time) int64 {
	wall, mono := c.wall(at), c.mono(at)
	if d := wall - mono - c.offset.Load(); d > jump || d < -jump {
		c.note(wall-mono, mono)
	}
	if s := c.skip.Load(); s > 0 && mono < c.until.Load() {
		return wall - s
	}
	return wall
}

// note takes in a jump. Who meets the same jump meanwhile waits, so that nobody is judged by the new time before
// what was skipped is known.
func (c *Clock) note(offset, mono int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := offset - c.offset.Load()
	if d <= jump && d >= -jump {
		return
	}
	if mono >= c.until.Load() {
		c.skip.Store(0)
	}
	c.skip.Store(max(0, c.skip.Load()+d))
	c.until.Store(mono + forgiven)
	c.offset.Store(offset)
}
