package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/relais-edge/relais/internal/edge/proxyproto"
	"github.com/relais-edge/relais/internal/http/message"
)

// facts are what is known of a new connection.
func (a *Active) facts(peer, local netip.AddrPort) *message.Conn {
	return &message.Conn{ID: a.m.ids.Add(1), Listener: a.Key, Peer: peer, Local: local, Client: peer.Addr().WithZone("")}
}

// serve serves a connection until it has ended, and closes it. Quiet ends before ctx, when
// connections that have not said anything yet shall go.
func (a *Active) serve(ctx, quiet context.Context, nc *net.TCPConn) {
	defer nc.Close()
	facts := a.facts(addrPortOf(nc.RemoteAddr()), addrPortOf(nc.LocalAddr()))
	conn := net.Conn(nc)
	if a.proxy == proxyOptional || a.proxy == proxyRequired {
		var ok bool
		if conn, ok = a.readProxy(ctx, nc, facts); !ok {
			return
		}
	}
	give, refused := a.admit(facts.Client)
	if refused != "" {
		a.refuse(nc, refused)
		return
	}
	defer give()
	a.series.open.Add(1)
	defer a.series.open.Add(-1)
	if a.tls != nil {
		a.serveTLS(ctx, nc, conn, facts)
		return
	}
	a.serveClear(ctx, quiet, nc, conn, facts)
}

// readProxy takes a PROXY protocol header from a trusted peer. False means that the
// connection was refused.
func (a *Active) readProxy(ctx context.Context, nc *net.TCPConn, facts *message.Conn) (net.Conn, bool) {
	if !a.trusted.contains(facts.Client) {
		if a.proxy == proxyRequired {
			a.refuse(nc, refuseUntrusted)
			return nil, false
		}
		return nc, true
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	defer stop()
	if d := a.Spec.Timeouts.Handshake.Std(); d > 0 {
		_ = nc.SetReadDeadline(time.Now().Add(d))
	}
	h, conn, err := readProxy(nc)
	_ = nc.SetReadDeadline(time.Time{})
	switch {
	case errors.Is(err, proxyproto.ErrNone) && a.proxy == proxyOptional:
		return conn, true
	case err != nil:
		a.refuse(nc, refuseProxy)
		return nil, false
	}
	if h.Source.IsValid() {
		facts.Client, facts.Local = h.Source.Addr(), h.Destination
	}
	return conn, true
}

// hushGrace is how long a connection that has not said anything is heard when its listener
// leaves: its first request may be on its way.
const hushGrace = 500 * time.Millisecond

func (a *Active) serveClear(ctx, quiet context.Context, nc *net.TCPConn, conn net.Conn, facts *message.Conn) {
	if !a.h2c {
		a.serveHTTP1(ctx, conn, facts)
		return
	}
	http2 := true
	if a.http1 {
		var err error
		if http2, conn, err = a.sniff(ctx, quiet, nc, conn); err != nil {
			return
		}
	}
	if !http2 {
		a.serveHTTP1(ctx, conn, facts)
		return
	}
	a.serveHTTP2(ctx, conn, facts)
}

// sniff waits for the first bytes as an HTTP/1 server would and says whether they are the
// preface of HTTP/2.
func (a *Active) sniff(ctx, quiet context.Context, nc *net.TCPConn, conn net.Conn) (http2 bool, rest net.Conn, err error) {
	deadline := func(d time.Duration) {
		if d > 0 {
			_ = nc.SetReadDeadline(time.Now().Add(d))
		}
	}
	cut := context.AfterFunc(ctx, func() { _ = nc.Close() })
	defer cut()
	deadline(a.Spec.Timeouts.Header.Std())
	stop := context.AfterFunc(quiet, func() { deadline(hushGrace) })
	http2, rest, err = peekPreface(conn, func() { deadline(a.Spec.Timeouts.Header.Std()) })
	stop()
	_ = nc.SetReadDeadline(time.Time{})
	return http2, rest, err
}

func (a *Active) serveTLS(ctx context.Context, nc *net.TCPConn, conn net.Conn, facts *message.Conn) {
	if p := a.m.cfg.Passthrough; p != nil {
		var taken bool
		if conn, taken = p.Forward(ctx, a.Spec.Address, conn, facts, a.Spec.Timeouts.Handshake.Std()); taken {
			return
		}
	}
	if a.m.handshakes.Add(1) > maxHandshakes {
		a.m.handshakes.Add(-1)
		a.refuse(nc, refuseHandshakes)
		return
	}
	tc, err := a.m.handshake(ctx, conn, a.tls, a.Spec.Timeouts.Handshake.Std())
	a.m.handshakes.Add(-1)
	if err != nil {
		a.series.failed[handshakeFailure(err)].Inc()
		if errors.Is(err, errHandshakePanic) {
			a.m.cfg.Logger.Error("a handshake panicked", "listener", a.Key, "err", err)
		}
		return
	}
	state := tc.ConnectionState()
	protocol := state.NegotiatedProtocol
	facts.TLS = message.NewTLS(&state)
	switch {
	case protocol == acmeProtocol: // the authority has seen what it came for
		_ = tc.Close()
	case protocol == "h2":
		a.serveHTTP2(ctx, tc, facts)
	case a.http1:
		a.serveHTTP1(ctx, tc, facts)
	default: // a client without ALPN speaks HTTP/1, which is not offered
		a.series.refused[refuseProtocol].Inc()
		_ = tc.Close()
	}
}

func (m *Manager) handshake(ctx context.Context, nc net.Conn, c *tls.Config, limit time.Duration) (*tls.Conn, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	tc := tls.Server(nc, c)
	return tc, m.shakers.do(ctx, tc)
}

func (a *Active) serveHTTP1(ctx context.Context, nc net.Conn, facts *message.Conn) {
	a.series.total[speakHTTP1].Inc()
	if a.own != nil {
		a.own.ServeConn(ctx, nc, facts)
		return
	}
	a.std.ServeHTTP1(ctx, nc, facts)
}

func (a *Active) serveHTTP2(ctx context.Context, nc net.Conn, facts *message.Conn) {
	a.series.total[speakHTTP2].Inc()
	if a.own2 != nil {
		a.own2.ServeConn(ctx, nc, facts)
		return
	}
	a.std.ServeHTTP2(ctx, nc, facts)
}
