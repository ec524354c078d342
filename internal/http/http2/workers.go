package http2

import (
	"context"
	"sync"
	"time"
)

// worker is a goroutine that does one duty after another, of one connection or of several. Its
// stack has grown to what a request takes; a new goroutine would grow it anew each time, which
// costs a twentieth of a proxied request.
type worker struct{ jobs chan job }

// job is what a worker is to do next; without a connection it ends.
type job struct {
	c   *serverConn
	ctx context.Context // of the connection
	d   duty
}

// maxIdleWorkers is how many workers of a Server may wait for work, besides those of its
// connections, and workerTick how long those wait at least that nobody needs.
const (
	maxIdleWorkers = 256
	workerTick     = 2 * time.Second
)

// workers are those that no connection has, the one that worked last at the end. None is kept
// while nobody runs the server.
type workers struct {
	mu    sync.Mutex
	idle  []*worker
	least int // the fewest that waited since the last tick: so many are too many
	open  bool
}

// run ends the workers that nobody needs until ctx ends, and then all.
func (w *workers) run(ctx context.Context) {
	t := time.NewTicker(workerTick)
	defer t.Stop()
	w.mu.Lock()
	w.open = true
	w.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			w.mu.Lock()
			w.open = false
			w.end(len(w.idle))
			w.mu.Unlock()
			return
		case <-t.C:
		}
		w.mu.Lock()
		w.end(w.least)
		w.least = len(w.idle)
		w.mu.Unlock()
	}
}

// end ends the n that have waited for longest; w.mu is held.
func (w *workers) end(n int) {
	for _, i := range w.idle[:n] {
		i.jobs <- job{}
	}
	kept := copy(w.idle, w.idle[n:])
	clear(w.idle[kept:])
	w.idle = w.idle[:kept]
}

// give has a worker do j.
func (w *workers) give(j job) {
	w.mu.Lock()
	n := len(w.idle) - 1
	if n < 0 {
		w.mu.Unlock()
		go w.work(&worker{make(chan job, 1)}, j)
		return
	}
	i := w.idle[n]
	w.idle[n], w.idle = nil, w.idle[:n]
	w.least = min(w.least, n)
	w.mu.Unlock()
	i.jobs <- j
}

// work does j and what comes after it until nobody needs the worker.
func (w *workers) work(i *worker, j job) {
	for j.c != nil {
		j.c.work(j.ctx, j.d, i)
		j = job{}
		w.mu.Lock()
		keep := w.open && len(w.idle) < maxIdleWorkers
		if keep {
			w.idle = append(w.idle, i)
		}
		w.mu.Unlock()
		if !keep {
			return
		}
		j = <-i.jobs
	}
}
