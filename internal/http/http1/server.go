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
	gears    sync.Pool   // of *gear
	retiring atomic.Bool // answers end their connections
	draining atomic.Bool // idle connections end too
	ebb      ebb         // they end one after another
	parking  parking
	unsent   atomic.Bool // the kernel does not send files

	requests, refused, panics, aborted, slow, gone, tunnels, files atomic.Uint64
}

// serverTick is how often limits of time are looked at.
const serverTick = 100 * time.Millisecond

// NewServer returns a server. Nothing is started: the caller accepts connections and runs Run.
func NewServer(cfg ServerConfig, h Handler) *Server {
	cfg.fill()
	s := &Server{cfg: cfg, handler: h}
	s.parking.need = make(chan struct{}, 1)
	s.watch.Init(serverTick, (*serverConn).sweep, (*serverConn).place)
	s.pool.init()
	s.spare.New = func() any { return new(exchange) }
	s.gears.New = func() any { return newGear() }
	return s
}

// Run keeps the limits of time and the clock behind Date, and watches parked connections,
// until ctx ends. It blocks.
func (s *Server) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.watchParked(ctx) })
	return s.watch.Run(ctx)
}

// ServeConn serves nc until it is done, and closes it. When ctx ends the connection is
// closed at once. Facts is kept by reference and must not change.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn, facts *message.Conn) {
	s.newConn(nc, facts).run(ctx)
}

// Serve is ServeConn, but it may return before the connection has ended: one that is quiet needs
// no goroutine until its next request. K is told what becomes of it. When ctx ends, such a
// connection is closed within a tenth of a second.
func (s *Server) Serve(ctx context.Context, nc net.Conn, facts *message.Conn, k Keeper) {
	c := s.newConn(nc, facts)
	c.over = ctx.Done()
	c.mayPark(k)
	c.run(ctx)
}

func (s *Server) newConn(nc net.Conn, facts *message.Conn) *serverConn {
	c := &serverConn{s: s, nc: nc, facts: facts, fd: -1}
	if c.plain, _ = nc.(*net.TCPConn); c.plain != nil {
		c.tcp, c.raw = c.plain, rawOf(nc)
		c.peek = c.raw
	} else {
		c.tcp, c.peek = socketOf(nc)
	}
	s.watch.Add(c)
	return c
}

// run serves the connection until it has ended or is parked.
func (c *serverConn) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	c.cancel, c.done = cancel, ctx.Done()
	c.gearUp()
	nc, tcp, parked := c.nc, c.tcp, false
	stop := context.AfterFunc(ctx, func() { reset(nc, tcp) })
	defer func() {
		stop()
		cancel()
		if parked {
			return // it is somebody else's
		}
		c.s.watch.Remove(c)
		if c.keeper != nil {
			c.keeper.Closed()
		}
	}()
	if parked = c.serve(ctx); !parked {
		c.close()
	}
}

// Retire has every answer from now on end its connection. Idle connections stay open for their
// next request, so that none is on its way while its connection is closed; Ebb and Drain end them.
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
		Parked: s.parking.total.Load(), Files: s.files.Load(),
	}
}

// past is a time at which every wait is over.
func past() time.Time { return time.Unix(1, 0) }

func (c *serverConn) place() *int { return &c.index }

// late counts a client that was too slow.
func (s *Server) late(conn *message.Conn) {
	if s.slow.Add(1); s.cfg.OnSlow != nil {
		s.cfg.OnSlow(conn)
	}
}

// sweep ends what lasts too long and finds clients that are gone.
func (c *serverConn) sweep(now int64) {
	if c.parked.Load() && c.ended() {
		c.wake()
		return
	}
	if p, at, over := c.rg.Look(); p != phaseNone && !over {
		switch {
		case p == phaseBusy:
			if now-at >= 4*serverTick.Milliseconds() {
				c.findGone(now)
			}
		case at < now:
			if c.rg.Expire(p, at, c.kickRead) && p != phaseIdle && p != phaseFresh && p != phaseLinger {
				c.s.late(c.facts)
			}
		case p != phaseIdle && p != phaseFresh:
		case c.ebbs(p, at, now): // or Drain has missed it, as others went meanwhile
			c.rg.Expire(p, at, c.kickRead)
		case !c.parked.Load():
			c.quiet(p, at, now)
		}
	}
	if p, at, over := c.wg.Look(); p != phaseNone && !over && c.lateWrite(p, at, now) {
		if c.wg.Expire(p, at, c.kickWrite) {
			c.s.late(c.facts)
		}
	}
}

// kickRead ends a wait for the client.
func (c *serverConn) kickRead() {
	if !c.wake() {
		_ = c.nc.SetReadDeadline(past())
	}
}

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
	c.peeked = now
	gone := false
	if err := c.peek.Control(func(fd uintptr) { gone = socketError(fd) }); err == nil && gone {
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
