package std

import (
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// Server serves single connections through net/http. Each connection has an http.Server of
// its own, so that the facts of a connection need no place in a context.
type Server struct {
	cfg     Config
	adapter *Adapter
	log     *log.Logger

	mu       sync.Mutex
	conns    map[*serving]struct{}
	draining bool
}

// serving is one connection.
type serving struct {
	srv   *http.Server
	nc    net.Conn
	http2 bool
	idle  atomic.Bool // HTTP/1: between two requests
}

// drainGrace is how long an idle HTTP/1 connection is still heard when the server drains: a
// request that is on its way then is answered and not cut off.
const drainGrace = 500 * time.Millisecond

// NewServer returns a Server. It starts nothing.
func NewServer(cfg Config, h Handler) *Server {
	a := NewAdapter(cfg, h)
	return &Server{
		cfg: a.cfg, adapter: a, conns: map[*serving]struct{}{},
		// What net/http logs are faults of clients, and many.
		log: slog.NewLogLogger(a.cfg.Logger.Handler(), slog.LevelDebug),
	}
}

// Conns is the number of connections being served.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Drain ends connections in good order: HTTP/2 by GOAWAY, busy HTTP/1 after their answer,
// idle HTTP/1 after a moment. It does not wait.
func (s *Server) Drain() {
	s.adapter.Drain()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	for c := range s.conns {
		if c.http2 {
			c.goAway()
		}
	}
	time.AfterFunc(drainGrace, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			if !c.http2 && c.idle.Load() {
				_ = c.nc.Close()
			}
		}
	})
}

// goAway is http.Server.Shutdown without the wait: it sends GOAWAY.
func (c *serving) goAway() {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_ = c.srv.Shutdown(over)
}

// ServeHTTP1 serves nc as HTTP/1 until it is done, and closes it. When ctx ends the
// connection is closed at once. Facts is kept by reference and must not change.
func (s *Server) ServeHTTP1(ctx context.Context, nc net.Conn, facts *message.Conn) {
	s.serve(ctx, nc, facts, false)
}

// ServeHTTP2 is ServeHTTP1 for HTTP/2: over TLS nc is a *tls.Conn that has agreed on h2, in
// clear the client begins with the preface.
func (s *Server) ServeHTTP2(ctx context.Context, nc net.Conn, facts *message.Conn) {
	s.serve(ctx, nc, facts, true)
}

func (s *Server) serve(ctx context.Context, nc net.Conn, facts *message.Conn, http2 bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	finish := sync.OnceFunc(func() { close(done) })
	c := &serving{nc: nc, http2: http2}
	var lifetime context.Context
	if !http2 {
		lifetime = ctx
	}
	h := s.adapter.For(lifetime, facts).(*connHandler)
	h.unhook = finish
	if !http2 {
		h.reset = func() { reset(nc) }
	}
	c.srv = s.server(ctx, h, http2)
	c.srv.ConnState = func(_ net.Conn, state http.ConnState) {
		c.idle.Store(state == http.StateIdle)
		if state == http.StateClosed {
			finish()
		}
	}
	s.mu.Lock()
	s.conns[c] = struct{}{}
	draining := s.draining
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	defer stop()
	_ = c.srv.Serve(&oneConn{nc: nc, addr: nc.LocalAddr()}) // returns at once; the connection goes on
	if draining && http2 {
		c.goAway()
	}
	<-done
	_ = nc.Close()
}

// reset closes nc so that the client sees an error, and no TLS close_notify: an answer that the
// end of the connection would end must not look whole (RFC 9112 section 8).
func reset(nc net.Conn) {
	under := nc
	for range 4 {
		if t, ok := under.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
			_ = t.Close()
			break
		}
		u, ok := under.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		under = u.NetConn()
	}
	_ = nc.Close()
}

func (s *Server) server(ctx context.Context, h http.Handler, http2 bool) *http.Server {
	t := s.cfg.Timeouts
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: t.Header,
		IdleTimeout:       t.Idle,
		MaxHeaderBytes:    s.cfg.Limits.HeadBytes,
		ErrorLog:          s.log,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		Protocols:         new(http.Protocols),
		// OPTIONS * is the Handler's to answer, as in our own core.
		DisableGeneralOptionsHandler: true,
	}
	if !http2 {
		srv.Protocols.SetHTTP1(true)
		return srv
	}
	srv.Protocols.SetHTTP2(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	srv.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: s.cfg.Limits.Streams,
		WriteByteTimeout:     t.Write,
		SendPingTimeout:      t.Idle, // a peer that is gone is found out although streams are open
		PingTimeout:          15 * time.Second,
	}
	return srv
}

// oneConn is a listener that has one connection to give.
type oneConn struct {
	nc   net.Conn
	addr net.Addr
}

// Accept implements net.Listener.
func (l *oneConn) Accept() (net.Conn, error) {
	if l.nc == nil {
		return nil, io.EOF
	}
	nc := l.nc
	l.nc = nil
	return nc, nil
}

// Close implements net.Listener.
func (l *oneConn) Close() error { return nil }

// Addr implements net.Listener.
func (l *oneConn) Addr() net.Addr { return l.addr }
