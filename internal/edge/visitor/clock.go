package visitor

import (
	"sync/atomic"
	"time"
)

// How the wall clock's jumps are taken.
const (
	jump     = 60        // seconds beside the monotonic clock from which a step counts as a jump
	forgiven = 24 * 3600 // for how many seconds what was signed before a jump forward is still good
)

// clock is the wall clock as tokens see it. When it jumps forward, baskets would end at once that their
// owners filled a moment ago; so what a jump skipped counts as not passed, for a day in which all that are
// used are signed anew. A jump back only lets tokens live longer. Time that the machine slept is a jump too.
type clock struct {
	epoch  time.Time
	offset atomic.Int64 // of the wall from the monotonic clock, in seconds, when it was last looked at
	skip   atomic.Int64 // seconds that count as not passed
	until  atomic.Int64 // the monotonic second in which that ends
}

func newClock() *clock {
	c := &clock{epoch: time.Now()}
	c.offset.Store(c.epoch.Unix())
	return c
}

// expiry is the time by which tokens are judged, in Unix seconds.
func (c *clock) expiry(at time.Time) int64 {
	wall, mono := at.Unix(), int64(at.Sub(c.epoch)/time.Second)
	old := c.offset.Load()
	if d := wall - mono - old; d > jump || d < -jump {
		if c.offset.CompareAndSwap(old, wall-mono) {
			if mono >= c.until.Load() {
				c.skip.Store(0)
			}
			c.skip.Store(max(0, c.skip.Load()+d))
			c.until.Store(mono + forgiven)
		}
	}
	if s := c.skip.Load(); s > 0 && mono < c.until.Load() {
		return wall - s
	}
	return wall
}
