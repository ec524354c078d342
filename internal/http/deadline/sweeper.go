package deadline

import (
	"context"
	"sync"
	"time"
)

// Sweeper is a clock and the watch over connections C, pointers, that looks at each at each tick.
type Sweeper[C any] struct {
	Clock
	look  func(c C, now int64)
	place func(c C) *int

	mu     sync.Mutex
	list   []C
	cursor int // where Some goes on
}

// batch is how many connections are looked at under one lock.
const batch = 256

// Init makes the sweeper ready. Look acts on limits that are over at now; it may not add to the
// sweeper or remove from it. Place is where the sweeper keeps a connection's index.
func (w *Sweeper[C]) Init(tick time.Duration, look func(c C, now int64), place func(c C) *int) {
	w.Clock.Init(tick)
	w.look, w.place = look, place
}

// Run keeps the clock and sweeps until ctx ends. It blocks.
func (w *Sweeper[C]) Run(ctx context.Context) error {
	return w.Clock.Run(ctx, func(now int64) {
		w.Each(func(c C) { w.look(c, now) })
	})
}

// Each calls do for every connection, which can not be removed meanwhile. One that comes or goes
// between two batches may be missed.
func (w *Sweeper[C]) Each(do func(C)) {
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

// Some calls do for up to n connections, each once, from where the last call stopped, until do
// returns false.
func (w *Sweeper[C]) Some(n int, do func(C) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range min(n, len(w.list)) {
		w.cursor++
		if !do(w.list[w.cursor%len(w.list)]) {
			return
		}
	}
}

// Add begins the watch over c.
func (w *Sweeper[C]) Add(c C) {
	w.mu.Lock()
	*w.place(c) = len(w.list)
	w.list = append(w.list, c)
	w.mu.Unlock()
}

// Remove ends it. When it returns no look at c is under way.
func (w *Sweeper[C]) Remove(c C) {
	var none C
	w.mu.Lock()
	i, last := *w.place(c), len(w.list)-1
	w.list[i] = w.list[last]
	*w.place(w.list[i]) = i
	w.list[last] = none
	w.list = w.list[:last]
	w.mu.Unlock()
}

// Len is the number of connections.
func (w *Sweeper[C]) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.list)
}
