// Package virtual is what a world in virtual time is made of: events in order of their time, and
// servers with slots and a queue. The balancer's trials and the forecast of traffic are run in it.
package virtual

// Event is something that happens at a time. What Kind, Gen and ID are is its world's matter.
type Event struct {
	At   int64 // ns
	Kind int16
	Gen  int16
	ID   int32
}

// Events is a queue of events, the earliest first. The zero Events is empty.
type Events []Event

// Push adds an event.
func (q *Events) Push(e Event) {
	*q = append(*q, e)
	h, i := *q, len(*q)-1
	for i > 0 {
		p := (i - 1) / 4
		if h[p].At <= e.At {
			break
		}
		h[i], i = h[p], p
	}
	h[i] = e
}

// Pop takes the earliest event out. The queue must not be empty.
func (q *Events) Pop() Event {
	h := *q
	top, last := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	*q = h
	if len(h) == 0 {
		return top
	}
	i := 0
	for {
		c := 4*i + 1
		if c >= len(h) {
			break
		}
		best := c
		for k := c + 1; k < min(c+4, len(h)); k++ {
			if h[k].At < h[best].At {
				best = k
			}
		}
		if h[best].At >= last.At {
			break
		}
		h[i], i = h[best], best
	}
	h[i] = last
	return top
}

// Line is the work of a server: so many requests at once, the others wait in the order in which they came.
type Line struct {
	Busy  int // slots in use
	queue []int32
	head  int
}

// Enter brings a request to a server of so many slots. It says whether its work begins now; otherwise
// it waits, and a Leave returns it.
func (l *Line) Enter(id int32, slots int) bool {
	if l.Busy < slots {
		l.Busy++
		return true
	}
	l.queue = append(l.queue, id)
	return false
}

// Leave ends the work of a request. When another one waited, its work begins now, and ok is true.
func (l *Line) Leave() (next int32, ok bool) {
	if l.head == len(l.queue) {
		l.Busy--
		return 0, false
	}
	next = l.queue[l.head]
	if l.head++; l.head > 1024 && l.head*2 > len(l.queue) {
		l.queue = append(l.queue[:0], l.queue[l.head:]...)
		l.head = 0
	}
	return next, true
}

// Len is the number of requests there, those that wait included.
func (l *Line) Len() int { return l.Busy + len(l.queue) - l.head }

// Clear is a crash: nothing is there any more.
func (l *Line) Clear() { l.Busy, l.queue, l.head = 0, l.queue[:0], 0 }
