package http3

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Server speaks HTTP/3 on connections.
type Server struct {
	cfg      ServerConfig
	handler  Handler
	watch    sweeper
	crew     crew
	spare    sync.Pool // of *exchange
	bodies   sync.Pool // of *[]byte, bodyRead long
	draining atomic.Bool

	requests, refused, panics, aborted, slow, gone, tunnels, early, faults, floods atomic.Uint64
}

// NewServer returns a server. Nothing is started: a Listener accepts connections, and the caller
// runs Run.
func NewServer(cfg ServerConfig, h Handler) *Server {
	cfg.fill()
	s := &Server{cfg: cfg, handler: h}
	s.watch.init()
	s.spare.New = func() any { return new(exchange) }
	s.bodies.New = func() any { b := make([]byte, bodyRead); return &b }
	return s
}

// Run keeps the limits of time and the clock behind Date until ctx ends. It blocks.
func (s *Server) Run(ctx context.Context) error {
	s.crew.begin()
	defer s.crew.end()
	return s.watch.run(ctx, s.crew.trim)
}

// Drain ends all connections in good order: GOAWAY, then what is under way, then the end. It does
// not wait. Connections that come later are told to go at once.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.watch.each(func(c *serverConn) { c.goAway() })
}

// Conns is the number of connections being served.
func (s *Server) Conns() int { return s.watch.len() }

// Stats returns the counters.
func (s *Server) Stats() Stats {
	return Stats{
		Requests: s.requests.Load(), Refused: s.refused.Load(), Panics: s.panics.Load(), Aborted: s.aborted.Load(),
		Slow: s.slow.Load(), Gone: s.gone.Load(), Tunnels: s.tunnels.Load(), Early: s.early.Load(),
		Faults: s.faults.Load(), Floods: s.floods.Load(),
	}
}

// past is a time at which every wait is over.
func past() time.Time { return time.Unix(1, 0) }

// tick is how often limits of time are looked at.
const tick = 100 * time.Millisecond

// sweeper is a coarse clock and the watch over the connections' limits of time. A limit is
// a store for the stream and a load for the sweeper; nobody arms timers.
type sweeper struct {
	epoch time.Time
	now   atomic.Int64 // milliseconds since epoch, at most one tick old; never 0
	date  atomic.Pointer[[29]byte]
	sec   int64

	mu     sync.Mutex
	list   []*serverConn
	cursor int // where Shed goes on
}

func (w *sweeper) init() {
	w.epoch = time.Now()
	w.now.Store(1)
	w.setDate(w.epoch)
}

// run calls each second when it begins.
func (w *sweeper) run(ctx context.Context, second func()) error {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		t := time.Now()
		now := t.Sub(w.epoch).Milliseconds() + 1
		w.now.Store(now)
		if t.Unix() != w.sec {
			w.setDate(t)
			second()
		}
		w.each(func(c *serverConn) { c.sweep(now) })
	}
}

func (w *sweeper) setDate(t time.Time) {
	var d [29]byte
	t.UTC().AppendFormat(d[:0], "Mon, 02 Jan 2006 15:04:05 GMT")
	w.date.Store(&d)
	w.sec = t.Unix()
}

// limit is the time after d.
func (w *sweeper) limit(d time.Duration) int64 { return w.now.Load() + (d + tick).Milliseconds() }

// batch is how many connections are looked at under one lock.
const batch = 256

// each calls do for every connection. One that comes or goes meanwhile may be missed.
func (w *sweeper) each(do func(*serverConn)) {
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

func (w *sweeper) add(c *serverConn) {
	w.mu.Lock()
	c.index = len(w.list)
	w.list = append(w.list, c)
	w.mu.Unlock()
}

func (w *sweeper) remove(c *serverConn) {
	w.mu.Lock()
	last := len(w.list) - 1
	w.list[c.index] = w.list[last]
	w.list[c.index].index = c.index
	w.list[last] = nil
	w.list = w.list[:last]
	w.mu.Unlock()
}

func (w *sweeper) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.list)
}
