package http2

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/http/deadline"
	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/message"
)

// Server serves HTTP/2 connections.
type Server struct {
	cfg      ServerConfig
	handler  Handler
	watch    deadline.Sweeper[*serverConn]
	pool     buffers
	spare    sync.Pool // of *stream
	sheaves  sync.Pool // of *sheaf
	workers  workers
	calm     [numAbuse]int32
	draining atomic.Bool

	requests, refused, panics, aborted, slow, gone, tunnels atomic.Uint64

	abuse [numAbuse]atomic.Uint64
}

// serverTick is how often limits of time are looked at.
const serverTick = 100 * time.Millisecond

// NewServer returns a server. Nothing is started: the caller accepts connections and runs Run.
func NewServer(cfg ServerConfig, h Handler) *Server {
	cfg.fill()
	s := &Server{cfg: cfg, handler: h, calm: cfg.Abuse.table()}
	s.watch.Init(serverTick, (*serverConn).sweep, (*serverConn).place)
	s.pool.init()
	s.sheaves.New = func() any { return new(sheaf) }
	s.spare.New = func() any {
		return &stream{wake: make(chan struct{}, 1), body: requestBody{wake: make(chan struct{}, 1)}}
	}
	return s
}

// Run keeps the limits of time, the clock behind Date and the goroutines that wait for work until
// ctx ends. It blocks.
func (s *Server) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.workers.run(ctx) })
	return s.watch.Run(ctx)
}

// ServeConn serves nc until it is done, and closes it: over TLS nc has agreed on h2, in clear
// the client begins with the preface. When ctx ends the connection is closed at once. Facts
// is kept by reference and must not change.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn, facts *message.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &serverConn{
		s: s, nc: nc, tcp: tcpOf(nc), facts: facts, peer: defaultSettings(),
		dec: hpack.NewDecoder(hpack.DefaultTableSize), enc: hpack.NewEncoder(hpack.DefaultTableSize, true),
		room: make(chan struct{}, 1), over: make(chan struct{}),
	}
	if c.tcp != nil {
		c.peek, _ = c.tcp.SyscallConn()
	}
	c.window = initialWindow
	c.recv.init(s.cfg.ConnWindow)
	c.born = s.watch.Now()
	c.since, c.heard = c.born, c.born
	s.watch.Add(c)
	defer s.watch.Remove(c)
	stop := context.AfterFunc(ctx, func() { reset(nc, c.tcp) })
	defer stop()
	c.workers = 1
	c.hello()
	c.work(ctx, dutyLead, &worker{make(chan job, 1)})
	<-c.over
	_ = nc.Close()
}

// Drain ends connections in good order: GOAWAY, and once the client knows, another that says
// which request is the last. They end after their last answer. Connections that come later are
// told the same at once.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.watch.Each(func(c *serverConn) {
		c.mu.Lock()
		c.kick()
		c.mu.Unlock()
	})
}

// Conns is the number of connections being served.
func (s *Server) Conns() int { return s.watch.Len() }

// Stats returns the counters.
func (s *Server) Stats() Stats {
	st := Stats{
		Requests: s.requests.Load(), Refused: s.refused.Load(), Panics: s.panics.Load(),
		Aborted: s.aborted.Load(), Slow: s.slow.Load(), Gone: s.gone.Load(), Tunnels: s.tunnels.Load(),
	}
	for i := range st.Abuse {
		st.Abuse[i] = s.abuse[i].Load()
	}
	return st
}

// reset closes nc so that the other side sees an error, and no TLS close_notify: in the middle of
// a record that would be a broken record.
func reset(nc net.Conn, tcp *net.TCPConn) {
	if tcp != nil {
		_ = tcp.SetLinger(0)
		_ = tcp.Close()
	} else if u, ok := nc.(interface{ NetConn() net.Conn }); ok {
		_ = u.NetConn().Close()
	}
	_ = nc.Close()
}

func closeWrite(nc net.Conn, tcp *net.TCPConn) {
	if w, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
	}
	if tcp != nil {
		_ = tcp.CloseWrite()
	}
}

// tcpOf finds the TCP connection under nc; nil when there is none.
func tcpOf(nc net.Conn) *net.TCPConn {
	for range 4 {
		if t, ok := nc.(*net.TCPConn); ok {
			return t
		}
		u, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		nc = u.NetConn()
	}
	return nil
}
