package http3

import "sync"

// crew are the goroutines of a server that accept and serve streams, for whichever connection needs
// one. Who has served goes on with the next: its stack has grown to what a request takes, and a new
// goroutine's would have to be copied again and again to grow as far.
type crew struct {
	mu   sync.Mutex
	idle []*hand
	low  int  // the fewest that were idle since the last trim
	open bool // Run is under way: hands may stay idle
}

// hand is a goroutine of the crew that waits for a connection; nil ends it.
type hand struct{ next chan *serverConn }

const (
	// maxIdle bounds the hands that wait.
	maxIdle = 512
	// trimTicks is how many ticks of the server's clock are between two trims: a second.
	trimTicks = 10
)

// lead has a goroutine accept and serve the streams of c; c.work counts it.
func (k *crew) lead(c *serverConn) {
	c.work.Add(1)
	k.mu.Lock()
	n := len(k.idle) - 1
	if n < 0 {
		k.mu.Unlock()
		go k.work(c)
		return
	}
	h := k.idle[n] // the one that waits for the shortest time: it is still in the caches
	k.idle[n] = nil
	k.idle = k.idle[:n]
	k.low = min(k.low, n)
	k.mu.Unlock()
	h.next <- c // has room
}

// work leads connections until no more is needed.
func (k *crew) work(c *serverConn) {
	h := &hand{next: make(chan *serverConn, 1)}
	for c != nil {
		c.lead()
		c.work.Done()
		if !k.wait(h) {
			return
		}
		c = <-h.next
	}
}

// wait has h wait for the next connection, if there is room for it.
func (k *crew) wait(h *hand) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.open || len(k.idle) == maxIdle {
		return false
	}
	k.idle = append(k.idle, h)
	return true
}

// begin lets hands wait.
func (k *crew) begin() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open = true
}

// trim ends a fourth of those that nobody has needed since the last trim.
func (k *crew) trim() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dismiss((k.low + 3) / 4)
	k.low = len(k.idle)
}

// end ends all that wait, and lets none wait any more.
func (k *crew) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open = false
	k.dismiss(len(k.idle))
}

// dismiss ends the n that wait for the longest time; k.mu is held.
func (k *crew) dismiss(n int) {
	for _, h := range k.idle[:n] {
		h.next <- nil // has room
	}
	rest := copy(k.idle, k.idle[n:])
	clear(k.idle[rest:])
	k.idle = k.idle[:rest]
}
