// Package http3 serves HTTP/3 (RFC 9114) on a UDP socket with quic-go, whose requests go to
// an http.Handler of their connection.
//
// Early data is not accepted: a replayed request could be a second order.
package http3

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// Settings are what holds for the connections that are accepted from now on.
type Settings struct {
	TLS         *tls.Config
	HeaderBytes int // of a request head
	Streams     int // requests at once on a connection
	Requests    int // on one connection, before it is closed in good order; 0 is no limit
	Handshake   time.Duration
	Idle        time.Duration
}

// Acceptor decides about connections, at the time that each comes.
type Acceptor interface {
	// Settings are the current ones.
	Settings() *Settings
	// Accept is told of a connection whose handshake is done. It returns the handler of its
	// requests and what is called when the connection has ended; nil refuses it.
	Accept(peer, local netip.AddrPort, state *tls.ConnectionState) (http.Handler, func())
}

// unverifiedConns is the number of connections from which on a new client must prove its
// address with one more round trip (RFC 9000 section 8.1.2).
const unverifiedConns = 1000

// Server serves one UDP socket.
type Server struct {
	accept    Acceptor
	transport quic.Transport
	socket    *socket // transport's
	listener  *quic.Listener
	n         atomic.Int64

	mu      sync.Mutex
	conns   map[*conn]struct{}
	leaving atomic.Bool        // written with mu held
	halt    context.CancelFunc // ends Serve's wait for connections; nil before Serve
}

var errDraining = errors.New("http3: the server is draining")

// conn is one connection: an http3.Server has no other place for what differs between
// connections than the handler.
type conn struct {
	srv     *http3.Server
	qc      *quic.Conn
	begun   atomic.Int64 // requests
	busy    atomic.Int64 // requests under way
	leaving atomic.Bool
}

// New returns a server for pc, which it closes in the end. Serve starts it. Before are
// the processes that had the socket before; none when it is new.
func New(pc *net.UDPConn, before []Past, a Acceptor) *Server {
	s := &Server{accept: a, socket: newSocket(pc, before), conns: map[*conn]struct{}{}}
	s.transport.Conn, s.transport.ConnectionIDGenerator = s.socket, s.socket.mark
	s.transport.VerifySourceAddress = func(net.Addr) bool { return s.n.Load() >= unverifiedConns }
	return s
}

// listen has quic-go begin with the socket.
func (s *Server) listen() (*quic.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving.Load() {
		return nil, quic.ErrServerClosed
	}
	var key quic.StatelessResetKey
	if _, err := rand.Read(key[:]); err != nil {
		return nil, err
	}
	s.transport.StatelessResetKey = &key
	base := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{http3.NextProtoH3},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return s.accept.Settings().TLS, nil
		},
	}
	ln, err := s.transport.Listen(base, &quic.Config{
		GetConfigForClient: func(*quic.ClientInfo) (*quic.Config, error) {
			if s.leaving.Load() {
				return nil, errDraining // the client is told, and uses TCP without a wait
			}
			return quicConfig(s.accept.Settings()), nil
		},
	})
	s.listener = ln
	return ln, err
}

func quicConfig(set *Settings) *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:  set.Handshake,
		MaxIdleTimeout:        set.Idle,
		MaxIncomingStreams:    int64(set.Streams),
		MaxIncomingUniStreams: 8, // control, two of QPACK, and some to ignore
		// Windows begin small and grow with what is read; the most is what one visitor's
		// uploads can hold of our memory.
		InitialStreamReceiveWindow:     256 << 10,
		MaxStreamReceiveWindow:         2 << 20,
		InitialConnectionReceiveWindow: 512 << 10,
		MaxConnectionReceiveWindow:     4 << 20,
	}
}

// TLSConfig makes of a listener's TLS configuration the one for Settings.
func TLSConfig(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.MinVersion = tls.VersionTLS13
	c.NextProtos = []string{http3.NextProtoH3}
	return c
}

// AltSvc is the Alt-Svc field value that tells clients of HTTP/3 on the same host and this
// port (RFC 7838), for a day.
func AltSvc(port uint16) string { return fmt.Sprintf(`h3=":%d"; ma=86400`, port) }

// Serve accepts connections until ctx ends, Close is called, or a drain is over, and then
// waits until all have ended.
func (s *Server) Serve(ctx context.Context) error {
	ctx, halt := context.WithCancel(ctx)
	defer halt()
	s.mu.Lock()
	s.halt = halt
	s.mu.Unlock()
	ln, err := s.listen()
	if errors.Is(err, quic.ErrServerClosed) {
		return nil
	}
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		qc, err := ln.Accept(ctx)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, quic.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		s.n.Add(1)
		wg.Go(func() {
			defer s.left()
			s.serve(qc)
		})
	}
}

// left counts a connection out; the last one of a drain ends Serve.
func (s *Server) left() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n.Add(-1) == 0 && s.leaving.Load() {
		s.halt()
	}
}

func (s *Server) serve(qc *quic.Conn) {
	set := s.accept.Settings()
	state := qc.ConnectionState().TLS
	h, done := s.accept.Accept(addrPort(qc.RemoteAddr()), addrPort(qc.LocalAddr()), &state)
	if h == nil {
		_ = qc.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad), "")
		return
	}
	defer done()
	c := &conn{qc: qc}
	h = c.count(h, set.Requests, func() { go s.goAway(c) })
	c.srv = &http3.Server{
		Handler: h, MaxHeaderBytes: set.HeaderBytes, IdleTimeout: set.Idle,
		Logger: slog.New(slog.DiscardHandler), // its messages are faults of clients
	}
	s.mu.Lock()
	draining := s.leaving.Load()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	if draining {
		go s.goAway(c)
	}
	_ = c.srv.ServeQUICConn(qc)
	_ = qc.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// count wraps h to know how many requests are under way, and calls full when most have begun.
func (c *conn) count(h http.Handler, most int, full func()) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.busy.Add(1)
		defer c.busy.Add(-1)
		if c.begun.Add(1) == int64(most) {
			full()
		}
		h.ServeHTTP(w, r)
	})
}

// linger is how long a connection without requests stays open after GOAWAY, so that the
// last answer arrives.
const linger = time.Second

// goAway sends GOAWAY (RFC 9114 section 5.2): requests under way go on, new ones are for
// another connection. It returns when the connection has ended, which it sees to.
func (s *Server) goAway(c *conn) {
	if c.leaving.Swap(true) {
		return
	}
	ctx := c.qc.Context()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _ = c.srv.Shutdown(ctx) })
	tick := time.NewTicker(linger / 4)
	defer tick.Stop()
	for quiet := 0; quiet < 4; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if quiet++; c.busy.Load() > 0 {
			quiet = 0
		}
	}
	_ = c.qc.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
}

// Mark tells the next process which datagrams are this one's.
func (s *Server) Mark() string { return hex.EncodeToString(s.socket.mark[:]) }

// Past are the processes that had the socket before and may still have connections.
func (s *Server) Past() []Past { return s.socket.alive() }

// Follow leaves the socket to the next process: from now on this one reads what that passes
// back on c. Drain comes after it.
func (s *Server) Follow(c *net.UnixConn) { s.socket.follow(c) }

// Conns is the number of connections being served.
func (s *Server) Conns() int { return int(s.n.Load()) }

// Drain refuses new connections and sends GOAWAY on the others. It does not wait.
func (s *Server) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving.Store(true)
	if s.n.Load() == 0 && s.halt != nil {
		s.halt()
	}
	for c := range s.conns {
		go s.goAway(c)
	}
}

// Close ends all connections at once and closes the socket.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving.Store(true)
	for c := range s.conns {
		_ = c.qc.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	}
	if s.listener == nil {
		return s.transport.Conn.Close()
	}
	_ = s.listener.Close()
	return errors.Join(s.transport.Close(), s.transport.Conn.Close())
}

func addrPort(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := u.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
