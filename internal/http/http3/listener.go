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

	"github.com/relais-edge/relais/internal/http/message"
)

// Settings are what holds for the connections that are accepted from now on.
type Settings struct {
	TLS         *tls.Config
	HeaderBytes int // of a request head
	Streams     int // requests at once on a connection
	Requests    int // on one connection, before it is closed in good order; 0 is no limit
	Handshake   time.Duration
	Idle        time.Duration
	EarlyData   bool // safe requests may come with the first packets (RFC 8470)
}

// Acceptor decides about connections, at the time that each comes.
type Acceptor interface {
	// Settings are the current ones.
	Settings() *Settings
	// Admit is told of a client that asks for a connection, before anything is computed for it;
	// peer may be forged unless a token has verified it. False refuses; for a second after that,
	// clients must prove their addresses, so that Admit can tell who is real. Left is called when the
	// connection has ended: failed says why its handshake did, or is empty.
	Admit(peer netip.AddrPort, verified bool) (left func(failed Failure), ok bool)
	// Accept is told of a connection whose peer is proved: by its handshake, or by a token when
	// early data is served. It returns who speaks, and what is called when the connection has
	// ended; nil refuses it.
	Accept(peer, local netip.AddrPort, state *tls.ConnectionState) (*Service, func())
}

// Service is who speaks HTTP/3 on a connection: a Server with the facts of the connection, or
// quic-go with a handler of net/http.
type Service struct {
	Own   *Server
	Facts *message.Conn
	Std   http.Handler // when Own is nil
}

// Failure is why a handshake failed.
type Failure string

// The reasons.
const (
	FailTimeout  Failure = "timeout"
	FailClosed   Failure = "closed"   // by the client
	FailProtocol Failure = "protocol" // no common ALPN protocol
	FailTLS      Failure = "tls"      // everything else
)

// From so many connections of a socket on, or handshakes under way, and for so long after one was
// refused, a new client must prove its address with one more round trip (RFC 9000 section 8.1.2).
const (
	unverifiedConns      = 1000
	unverifiedHandshakes = 128
	unverifiedFull       = time.Second
)

// Listener serves one UDP socket.
type Listener struct {
	accept    Acceptor
	transport quic.Transport
	socket    *socket // transport's
	listener  *quic.EarlyListener
	n         atomic.Int64 // connections
	begun     atomic.Int64 // handshakes under way
	full      atomic.Int64 // when one was refused for the last time, in Unix nanoseconds

	mu      sync.Mutex
	conns   map[*conn]struct{}
	leaving atomic.Bool        // written with mu held
	halt    context.CancelFunc // ends Serve's wait for connections; nil before Serve
}

var (
	errDraining = errors.New("http3: the server is draining")
	errFull     = errors.New("http3: no more connections")
)

// conn is one connection.
type conn struct {
	qc *quic.Conn
	// Of quic-go's own HTTP/3: an http3.Server has no other place for what differs between
	// connections than the handler.
	srv     *http3.Server
	begun   atomic.Int64 // requests
	busy    atomic.Int64 // requests under way
	leaving atomic.Bool
	own     *serverConn // nil when quic-go speaks
}

// attempt is what is known of a connection from its first packet on.
type attempt struct {
	verified bool        // a token has proved the peer's address
	done     atomic.Bool // the handshake is over
}

type attemptKey struct{}

// NewListener returns a listener on pc, which it closes in the end. Serve starts it. Before are
// the processes that had the socket before; none when it is new.
func NewListener(pc *net.UDPConn, before []Past, a Acceptor) *Listener {
	s := &Listener{accept: a, socket: newSocket(pc, before), conns: map[*conn]struct{}{}}
	s.transport.Conn, s.transport.ConnectionIDGenerator = s.socket, s.socket.mark
	s.transport.VerifySourceAddress = func(net.Addr) bool {
		return s.n.Load() >= unverifiedConns || s.begun.Load() >= unverifiedHandshakes ||
			s.full.Load() > 0 && time.Since(time.Unix(0, s.full.Load())) < unverifiedFull
	}
	s.transport.ConnContext = s.admit
	return s
}

// admit asks whether a connection may begin. What belongs to it goes with its context, because
// quic-go has no other tie between a first packet and a connection.
func (s *Listener) admit(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	left, ok := s.accept.Admit(addrPort(info.RemoteAddr), info.AddrVerified)
	if !ok {
		s.full.Store(time.Now().UnixNano())
		return nil, errFull
	}
	s.begun.Add(1)
	a := &attempt{verified: info.AddrVerified}
	ctx = context.WithValue(ctx, attemptKey{}, a)
	context.AfterFunc(ctx, func() {
		failed := Failure("")
		if !a.done.Swap(true) {
			s.begun.Add(-1)
			failed = failureOf(context.Cause(ctx))
		}
		left(failed)
	})
	return ctx, nil
}

// failureOf names why a handshake failed.
func failureOf(err error) Failure {
	var te *quic.TransportError
	var ne net.Error
	switch {
	case errors.As(err, &te) && te.ErrorCode == 0x100+120: // no_application_protocol (RFC 9001 section 4.8)
		return FailProtocol
	case errors.As(err, &te) && te.ErrorCode.IsCryptoError():
		return FailTLS
	case errors.As(err, &te) && te.Remote, errors.As(err, new(*quic.ApplicationError)):
		return FailClosed
	case errors.As(err, &ne) && ne.Timeout():
		return FailTimeout
	}
	return FailTLS
}

// listen has quic-go begin with the socket.
func (s *Listener) listen() (*quic.EarlyListener, error) {
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
	ln, err := s.transport.ListenEarly(base, &quic.Config{
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
		// A stream counts until we are done with it, not until the client is: who opens streams
		// and resets them at once gets no more of them than others.
		RequireStreamCreditRelease: true,
		Allow0RTT:                  set.EarlyData,
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
func (s *Listener) Serve(ctx context.Context) error {
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
			s.serve(ctx, qc)
		})
	}
}

// left counts a connection out; the last one of a drain ends Serve.
func (s *Listener) left() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n.Add(-1) == 0 && s.leaving.Load() {
		s.halt()
	}
}

// serve serves a connection, once it is known whose it is.
func (s *Listener) serve(ctx context.Context, qc *quic.Conn) {
	set := s.accept.Settings()
	a, _ := qc.Context().Value(attemptKey{}).(*attempt)
	shaken := func() {
		select {
		case <-qc.HandshakeComplete():
			if !a.done.Swap(true) {
				s.begun.Add(-1)
			}
		case <-qc.Context().Done():
		}
	}
	early := set.EarlyData && a.verified
	if early {
		go shaken()
	} else if shaken(); qc.Context().Err() != nil {
		return
	}
	state := qc.ConnectionState().TLS
	v, done := s.accept.Accept(addrPort(qc.RemoteAddr()), addrPort(qc.LocalAddr()), &state)
	if v == nil {
		_ = qc.CloseWithError(codeExcessiveLoad, "")
		return
	}
	defer done()
	c := &conn{qc: qc}
	if v.Own != nil {
		c.own = v.Own.newConn(qc, v.Facts)
	} else {
		h := c.count(v.Std, set.Requests, func() { go s.goAway(c) })
		c.srv = &http3.Server{
			Handler: h, MaxHeaderBytes: set.HeaderBytes, IdleTimeout: set.Idle,
			Logger: slog.New(slog.DiscardHandler), // its messages are faults of clients
		}
	}
	s.mu.Lock()
	draining := s.leaving.Load()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	if draining {
		s.sendAway(c)
	}
	if c.own != nil {
		c.own.serve(ctx)
	} else {
		_ = c.srv.ServeQUICConn(qc)
	}
	_ = qc.CloseWithError(codeNone, "")
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// sendAway ends a connection in good order, without a wait.
func (s *Listener) sendAway(c *conn) {
	if c.own != nil {
		c.own.goAway()
		return
	}
	go s.goAway(c)
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

// goAway sends GOAWAY (RFC 9114 section 5.2): requests under way go on, new ones are for
// another connection. It returns when the connection has ended, which it sees to.
func (s *Listener) goAway(c *conn) {
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
	_ = c.qc.CloseWithError(codeNone, "")
}

// Mark tells the next process which datagrams are this one's.
func (s *Listener) Mark() string { return hex.EncodeToString(s.socket.mark[:]) }

// Past are the processes that had the socket before and may still have connections.
func (s *Listener) Past() []Past { return s.socket.alive() }

// Follow leaves the socket to the next process: from now on this one reads what that passes
// back on c. Drain comes after it.
func (s *Listener) Follow(c *net.UnixConn) { s.socket.follow(c) }

// Conns is the number of connections being served.
func (s *Listener) Conns() int { return int(s.n.Load()) }

// Drain refuses new connections and sends GOAWAY on the others. It does not wait.
func (s *Listener) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving.Store(true)
	if s.n.Load() == 0 && s.halt != nil {
		s.halt()
	}
	for c := range s.conns {
		s.sendAway(c)
	}
}

// Close ends all connections at once and closes the socket.
func (s *Listener) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving.Store(true)
	for c := range s.conns {
		_ = c.qc.CloseWithError(codeNone, "")
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
