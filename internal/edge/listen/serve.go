package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/relais-edge/relais/internal/edge/proxyproto"
	"github.com/relais-edge/relais/internal/http/message"
)

// visit is a connection from when it was accepted until it has ended. It is what the listener
// keeps of each.
type visit struct {
	e       *endpoint
	a       *Active
	nc      *net.TCPConn
	facts   message.Conn
	counted bool // among those of the client's address
	shown   bool // in the metrics
}

// facts are what is known of a new connection.
func (a *Active) facts(peer, local netip.AddrPort) message.Conn {
	return message.Conn{ID: a.m.ids.Add(1), Listener: a.Key, Peer: peer, Local: local, Client: peer.Addr().WithZone("")}
}

// serve serves the connection until it has ended, or the HTTP/1 server keeps it and will tell.
// Quiet ends before ctx, when connections that have not said anything yet shall go.
func (v *visit) serve(ctx, quiet context.Context) {
	kept := false
	defer v.rescue()
	defer func() {
		if !kept {
			_ = v.nc.Close()
			v.Closed()
		}
	}()
	a, nc := v.a, v.nc
	v.facts = a.facts(addrPortOf(nc.RemoteAddr()), addrPortOf(nc.LocalAddr()))
	conn := net.Conn(nc)
	if a.proxy == proxyOptional || a.proxy == proxyRequired {
		var ok bool
		if conn, ok = a.readProxy(ctx, nc, &v.facts); !ok {
			return
		}
	}
	var refused string
	if v.counted, refused = a.admit(v.facts.Client); refused != "" {
		a.refuse(nc, refused)
		return
	}
	v.shown = true
	a.series.open.Add(1)
	if a.tls != nil {
		a.serveTLS(ctx, nc, conn, &v.facts)
		return
	}
	http2, conn, err := a.clear(ctx, quiet, nc, conn)
	switch {
	case err != nil:
	case http2:
		a.serveHTTP2(ctx, conn, &v.facts)
	case a.own != nil:
		kept = true
		a.series.total[speakHTTP1].Inc()
		a.own.Serve(ctx, conn, &v.facts, v)
	default:
		a.serveHTTP1(ctx, conn, &v.facts)
	}
}

// Resume implements http1.Keeper.
func (v *visit) Resume(serve func(context.Context)) { v.e.resume(v, serve) }

// Closed implements http1.Keeper.
func (v *visit) Closed() {
	a := v.a
	if v.shown {
		a.series.open.Add(-1)
	}
	if v.counted {
		a.state.giveFrom(v.facts.Client)
	}
	a.leaveTCP()
	a.exit()
	v.e.conns.Done()
}

// rescue keeps a panic to its connection.
func (v *visit) rescue() {
	if p := recover(); p != nil {
		_ = v.nc.Close()
		v.e.m.cfg.Logger.Error("a connection panicked", "listener", v.a.Key, "panic", p, "stack", string(debug.Stack()))
	}
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

// clear says what a connection in clear speaks, and returns what to go on with.
func (a *Active) clear(ctx, quiet context.Context, nc *net.TCPConn, conn net.Conn) (http2 bool, rest net.Conn, err error) {
	if !a.h2c || !a.http1 {
		return a.h2c, conn, nil
	}
	return a.sniff(ctx, quiet, nc, conn)
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
	tc, print, err := a.m.handshake(ctx, conn, facts.Client, a.tls, a.Spec.Timeouts.Handshake.Std())
	a.m.handshakes.Add(-1)
	if err != nil {
		why := handshakeFailure(err)
		a.series.failed[why].Inc()
		if why == failTimeout || why == failTLS || why == failProtocol {
			a.blame(facts)
		}
		if errors.Is(err, errHandshakePanic) {
			a.m.cfg.Logger.Error("a handshake panicked", "listener", a.Key, "err", err)
		}
		return
	}
	state := tc.ConnectionState()
	protocol := state.NegotiatedProtocol
	facts.TLS = message.NewTLS(&state)
	facts.TLS.JA4 = print
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

// handshake does a handshake, and says what the client's first words told of its program.
func (m *Manager) handshake(ctx context.Context, nc net.Conn, client netip.Addr, c *tls.Config, limit time.Duration) (*tls.Conn, string, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	t := m.turns.begin(nc, client, ctx.Done())
	defer t.end()
	tc := tls.Server(t, c)
	err := m.shakers.do(ctx, tc)
	return tc, t.print, err
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
