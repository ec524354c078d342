package http3

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/http/deadline"
)

// Server speaks HTTP/3 on connections.
type Server struct {
	cfg      ServerConfig
	handler  Handler
	watch    deadline.Sweeper[*serverConn]
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
	s.watch.Init(tick, (*serverConn).sweep, (*serverConn).place)
	s.spare.New = func() any { return new(exchange) }
	s.bodies.New = func() any { b := make([]byte, bodyRead); return &b }
	return s
}

// Run keeps the limits of time and the clock behind Date until ctx ends. It blocks.
func (s *Server) Run(ctx context.Context) error { return s.watch.Run(ctx) }

// Drain ends all connections in good order: GOAWAY, then what is under way, then the end. It does
// not wait. Connections that come later are told to go at once.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.watch.Each((*serverConn).goAway)
}

// Conns is the number of connections being served.
func (s *Server) Conns() int { return s.watch.Len() }

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
