package replay

import (
	"container/heap"
	"sync"
	"time"
)

// tick is how often an edge looks after its pools.
const tick = 25 * time.Millisecond

// quiet is how many ticks follow a request when nothing more comes for long: after them nothing changes.
const quiet = 400

// clock is the virtual time of one edge, and the places at origins that come free in it.
type clock struct {
	mu    sync.Mutex
	now   time.Time
	end   time.Time // of the request under way
	held  places
	seq   uint64
	ticks uint64
	next  time.Time // tick
}

type place struct {
	at      time.Time
	seq     uint64 // those of the same time come free in the order in which they were taken
	release func()
}

type places []place

func (p places) Len() int { return len(p) }
func (p places) Less(i, j int) bool {
	if c := p[i].at.Compare(p[j].at); c != 0 {
		return c < 0
	}
	return p[i].seq < p[j].seq
}
func (p places) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *places) Push(v any)   { *p = append(*p, v.(place)) }
func (p *places) Pop() any {
	old := *p
	v := old[len(old)-1]
	old[len(old)-1] = place{}
	*p = old[:len(old)-1]
	return v
}

func (c *clock) begin(at time.Time) { c.now, c.next = at, at.Add(tick) }

func (c *clock) setEnd(at time.Time) {
	c.mu.Lock()
	c.end = at
	c.mu.Unlock()
}

// Now implements balance.Replay.
func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Hold implements balance.Replay.
func (c *clock) Hold(release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	at := c.end
	if at.Before(c.now) {
		at = c.now
	}
	heap.Push(&c.held, place{at, c.seq, release})
}

// Skip implements balance.Replay.
func (c *clock) Skip(until time.Time) bool {
	c.mu.Lock()
	if len(c.held) == 0 || c.held[0].at.After(until) {
		c.mu.Unlock()
		return false
	}
	p := heap.Pop(&c.held).(place)
	if p.at.After(c.now) {
		c.now = p.at
	}
	c.mu.Unlock()
	p.release()
	return true
}

// advance goes on to a time: what comes free and what is due on the way happens in order.
func (c *clock) advance(to time.Time, due func(second bool)) {
	for {
		c.mu.Lock()
		idle := len(c.held) == 0
		next := c.next
		c.mu.Unlock()
		if next.After(to) {
			break
		}
		if idle && to.Sub(next) > quiet*tick { // a gap: what is usual after the last request, and then the end of it
			for range quiet {
				next = c.tickAt(next, due)
			}
			if skip := to.Sub(next) / tick; skip > 0 {
				c.ticks += uint64(skip)
				next = next.Add(skip * tick)
			}
			c.next = next
			continue
		}
		for c.Skip(next) {
		}
		c.next = c.tickAt(next, due)
	}
	for c.Skip(to) {
	}
	c.set(to)
}

// tickAt does what is due at a tick and gives the time of the next.
func (c *clock) tickAt(at time.Time, due func(bool)) time.Time {
	c.set(at)
	c.ticks++
	due(c.ticks%uint64(time.Second/tick) == 0)
	return at.Add(tick)
}

func (c *clock) set(at time.Time) {
	c.mu.Lock()
	if at.After(c.now) {
		c.now = at
	}
	c.mu.Unlock()
}
