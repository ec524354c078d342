package http1

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/http/deadline"
	"github.com/relais-edge/relais/internal/http/message"
)

// Server serves HTTP/1 connections.
type Server struct {
	cfg      ServerConfig
	handler  Handler
	watch    deadline.Sweeper[*serverConn]
	pool     buffers
	spare    sync.Pool   // of *exchange
	retiring atomic.Bool // answers end their connections
	draining atomic.Bool // idle connections end too

	requests, refused, panics, aborted, slow, gone, tunnels atomic.Uint64
}

// serverTick is how often limits of time are looked at.
const serverTick = 100 * time.Millisecond

// NewServer returns a server. Nothing is started: the caller accepts connections and runs Run.
func NewServer(cfg ServerConfig, h Handler) *Server {
	cfg.fill()
	s := &Server{cfg: cfg, handler: h}
	s.watch.Init(serverTick, (*serverConn).sweep, (*serverConn).place)
	s.pool.init()
	s.spare.New = func() any { return new(exchange) }
	return s
}

// Run keeps the limits of time and the clock behind Date until ctx ends. It blocks.
func (s *Server) Run(ctx context.Context) error { return s.watch.Run(ctx) }

// ServeConn serves nc until it is done, and closes it. When ctx ends the connection is
// closed at once. Facts is kept by reference and must not change.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn, facts *message.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &serverConn{s: s, nc: nc, facts: facts, cancel: cancel, done: ctx.Done()}
	c.src.init(nc, &s.pool)
	c.tcp, c.peek = socketOf(nc)
	c.plain, _ = nc.(*net.TCPConn)
	c.sendStep = c.sendOnce
	c.peekStep = func(fd uintptr) { c.reset = socketError(fd) }
	s.watch.Add(c)
	defer s.watch.Remove(c)
	stop := context.AfterFunc(ctx, func() { reset(nc, c.tcp) })
	defer stop()
	c.serve(ctx)
	c.close()
}

// Retire has every answer from now on end its connection. Idle connections stay open for their
// next request, so that none is on its way while its connection is closed; Drain ends them.
func (s *Server) Retire() { s.retiring.Store(true) }

// Drain closes idle connections now; busy ones end after their answer, which says so.
// Connections that come later are served one request.
func (s *Server) Drain() {
	s.retiring.Store(true)
	s.draining.Store(true)
	s.watch.Each((*serverConn).drain)
}

// Conns is the number of connections being served.
func (s *Server) Conns() int { return s.watch.Len() }

// Stats returns the counters.
func (s *Server) Stats() Stats {
	return Stats{
		Requests: s.requests.Load(), Refused: s.refused.Load(), Panics: s.panics.Load(),
		Aborted: s.aborted.Load(), Slow: s.slow.Load(), Gone: s.gone.Load(), Tunnels: s.tunnels.Load(),
	}
}

// past is a time at which every wait is over.
func past() time.Time { return time.Unix(1, 0) }

func (c *serverConn) place() *int { return &c.index }

// sweep ends what lasts too long and finds clients that are gone.
func (c *serverConn) sweep(now int64) {
	if p, at, over := c.rg.Look(); p != phaseNone && !over {
		switch {
		case p == phaseBusy:
			if now-at >= 4*serverTick.Milliseconds() {
				c.findGone(now)
			}
		case at < now:
			if c.rg.Expire(p, at, c.kickRead) && p != phaseIdle && p != phaseFresh && p != phaseLinger {
				c.s.slow.Add(1)
			}
		}
	}
	if p, at, over := c.wg.Look(); p != phaseNone && !over && c.lateWrite(p, at, now) {
		if c.wg.Expire(p, at, c.kickWrite) {
			c.s.slow.Add(1)
		}
	}
}

func (c *serverConn) kickRead() { _ = c.nc.SetReadDeadline(past()) }

func (c *serverConn) kickWrite() {
	p, _, _ := c.wg.Look()
	if p == phaseTunnel {
		_ = c.nc.SetReadDeadline(past())
	}
	_ = c.nc.SetWriteDeadline(past())
}

// findGone ends the request's context when the client has reset the connection. The end of
// its sending side alone is no reason: it may wait for its answer.
func (c *serverConn) findGone(now int64) {
	if c.peek == nil || now-c.peeked < 4*serverTick.Milliseconds() {
		return
	}
	c.peeked, c.reset = now, false
	if err := c.peek.Control(c.peekStep); err == nil && c.reset {
		c.s.gone.Add(1)
		c.peek = nil
		c.cancel()
	}
}

func (c *serverConn) drain() {
	p, at, over := c.rg.Look()
	if !over && (p == phaseIdle || p == phaseFresh) {
		c.rg.Expire(p, at, c.kickRead)
	}
}
