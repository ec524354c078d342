package main

import "container/list"

// policy is a cache of a number of bytes; request says whether it was a hit, and stores the
// object if the policy wants to.
type policy interface {
	request(r request) bool
}

// lru is a list of objects by last use: also what W-TinyLFU is made of.
type lru struct {
	capacity, used int64
	order          *list.List // of request; the front is the newest
	at             map[uint32]*list.Element
}

func newLRU(capacity int64) *lru {
	return &lru{capacity: capacity, order: list.New(), at: map[uint32]*list.Element{}}
}

func (c *lru) hit(id uint32) bool {
	e, ok := c.at[id]
	if ok {
		c.order.MoveToFront(e)
	}
	return ok
}

func (c *lru) push(r request) {
	c.at[r.id] = c.order.PushFront(r)
	c.used += int64(r.size)
}

func (c *lru) remove(e *list.Element) request {
	r := c.order.Remove(e).(request)
	delete(c.at, r.id)
	c.used -= int64(r.size)
	return r
}

func (c *lru) request(r request) bool {
	if c.hit(r.id) {
		return true
	}
	for c.used+int64(r.size) > c.capacity && c.order.Len() > 0 {
		c.remove(c.order.Back())
	}
	c.push(r)
	return false
}

// s3fifo is S3-FIFO (Yang et al., FIFO queues are all you need for cache eviction, SOSP 2023)
// over bytes: a small queue of a tenth, a main queue, and the ghosts of nine tenths.
type s3fifo struct {
	capacity           int64
	small, main, ghost *lru
	uses               map[uint32]uint8 // of stored objects since they were last looked at, at most 3
}

func newS3FIFO(capacity int64) *s3fifo {
	return &s3fifo{capacity, newLRU(0), newLRU(0), newLRU(0), map[uint32]uint8{}}
}

func (c *s3fifo) request(r request) bool {
	if n, ok := c.uses[r.id]; ok {
		c.uses[r.id] = min(n+1, 3)
		return true
	}
	for c.small.used+c.main.used+int64(r.size) > c.capacity {
		if c.small.used >= c.capacity/10 || c.main.order.Len() == 0 {
			c.leaveSmall()
		} else {
			c.leaveMain()
		}
	}
	c.uses[r.id] = 0
	if e, ok := c.ghost.at[r.id]; ok {
		c.ghost.remove(e)
		c.main.push(r)
	} else {
		c.small.push(r)
	}
	return false
}

func (c *s3fifo) leaveSmall() {
	r := c.small.remove(c.small.order.Back())
	if c.uses[r.id] > 0 {
		c.uses[r.id] = 0
		c.main.push(r)
		return
	}
	delete(c.uses, r.id)
	c.ghost.push(r)
	for c.ghost.used > c.capacity/10*9 {
		c.ghost.remove(c.ghost.order.Back())
	}
}

func (c *s3fifo) leaveMain() {
	for {
		e := c.main.order.Back()
		r := e.Value.(request)
		if c.uses[r.id] == 0 {
			c.main.remove(e)
			delete(c.uses, r.id)
			return
		}
		c.uses[r.id]--
		c.main.order.MoveToFront(e)
	}
}

// tinyLFU is W-TinyLFU (Einziger, Friedman, Manes, 2017) with a window of a hundredth and one
// LRU behind it. A candidate takes the place of as many victims as it needs room of, if it is
// asked for more often than all of them together: frequency per byte, after AdaptSize's and
// Caffeine's aggregated victims.
type tinyLFU struct {
	window, main *lru
	counts       []uint8 // one byte a counter: the peer is not to lose by a small sketch
	adds         int
	victims      []*list.Element
}

func newTinyLFU(capacity int64) *tinyLFU {
	return &tinyLFU{window: newLRU(capacity / 100), main: newLRU(capacity - capacity/100), counts: make([]uint8, 1<<20)}
}

func (c *tinyLFU) counter(id uint32, row uint64) *uint8 {
	return &c.counts[mix(uint64(id)+row<<32)%uint64(len(c.counts))]
}

func (c *tinyLFU) count(id uint32) int {
	low := uint8(15)
	for row := range uint64(4) {
		low = min(low, *c.counter(id, row))
	}
	return int(low)
}

func (c *tinyLFU) touch(id uint32) {
	for row := range uint64(4) {
		if n := c.counter(id, row); *n < 15 {
			*n++
		}
	}
	c.adds++
	if c.adds > len(c.counts) {
		c.adds = 0
		for i := range c.counts {
			c.counts[i] /= 2
		}
	}
}

func (c *tinyLFU) request(r request) bool {
	c.touch(r.id)
	if c.window.hit(r.id) || c.main.hit(r.id) {
		return true
	}
	c.window.push(r)
	for c.window.used > c.window.capacity {
		c.contend(c.window.remove(c.window.order.Back()))
	}
	return false
}

// contend lets a candidate into the main part, or not.
func (c *tinyLFU) contend(r request) {
	need := c.main.used + int64(r.size) - c.main.capacity
	together, room := 0, int64(0)
	c.victims = c.victims[:0]
	for e := c.main.order.Back(); e != nil && room < need; e = e.Prev() {
		v := e.Value.(request)
		together += c.count(v.id)
		room += int64(v.size)
		c.victims = append(c.victims, e)
	}
	if need > 0 && c.count(r.id) <= together {
		return
	}
	for _, e := range c.victims {
		c.main.remove(e)
	}
	c.main.push(r)
}

// mix spreads an object's number over 64 bits (the finalizer of MurmurHash3).
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
