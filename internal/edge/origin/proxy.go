package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/relais-edge/relais/internal/edge/proxyproto"
	"github.com/relais-edge/relais/internal/stage"
)

// proxies says whether the origin wants the PROXY protocol.
func (e *endpoint) proxies() bool {
	return e.spec.ProxyProtocol == "v1" || e.spec.ProxyProtocol == "v2"
}

// visitorOf says who asks. The port is known when no trusted proxy stands in between; without it
// all connections of one address count as one visitor.
func visitorOf(x *stage.Exchange) *proxyproto.Header {
	h := &proxyproto.Header{}
	if !x.Client.IsValid() || x.In.Conn == nil {
		return h
	}
	c := x.In.Conn
	port := uint16(0)
	if c.Peer.Addr() == x.Client {
		port = c.Peer.Port()
	}
	h.Source, h.Destination = netip.AddrPortFrom(x.Client, port), c.Local
	if c.TLS != nil {
		h.Authority = c.TLS.ServerName
	}
	return h
}

// introduce sends the PROXY protocol header where the pool wants one. On failure it closes nc.
func (e *endpoint) introduce(ctx context.Context, nc net.Conn, from *proxyproto.Header) error {
	if !e.proxies() || from == nil {
		return nil
	}
	var b []byte
	if e.spec.ProxyProtocol == "v1" {
		b = from.AppendV1(nil)
	} else {
		b = from.AppendV2(nil)
	}
	if d, ok := ctx.Deadline(); ok {
		_ = nc.SetWriteDeadline(d)
	}
	_, err := nc.Write(b)
	_ = nc.SetWriteDeadline(time.Time{})
	if err != nil {
		_ = nc.Close()
	}
	return err
}

// Dial opens a connection to a target for something else than HTTP, over tcp or udp: with the pool's
// guard, source addresses, PROXY protocol header (over tcp), TLS and time to connect. The connection
// is the caller's. The error is a *stage.Error.
func (h *Handler) Dial(ctx context.Context, t stage.Target, network string, from *proxyproto.Header) (net.Conn, error) {
	e, ok := t.(*endpoint)
	if !ok {
		return nil, errNoTarget
	}
	e.stats.dials.Inc()
	nc, err := e.dialRaw(ctx, network, from)
	if err != nil {
		fault := connectFault(ctx, err)
		e.stats.failed(fault.Code)
		return nil, fault
	}
	return nc, nil
}

func (e *endpoint) dialRaw(ctx context.Context, network string, from *proxyproto.Header) (net.Conn, error) {
	dctx, cancel := context.WithTimeout(ctx, e.spec.Connect.Std())
	defer cancel()
	var nc net.Conn
	var err error
	if network == "tcp" {
		nc, err = e.dialTCP(dctx)
	} else {
		nc, err = e.dialer.DialContext(dctx, network, e.address)
	}
	if err != nil || network == "udp" {
		return nc, err
	}
	if err := e.introduce(dctx, nc, from); err != nil || e.tls == nil {
		return nc, err
	}
	cfg := e.tls.Clone()
	cfg.NextProtos = nil
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = net.SplitHostPort(e.address)
	}
	tc := tls.Client(nc, cfg)
	if err := tc.HandshakeContext(dctx); err != nil {
		_ = nc.Close()
		return nil, handshakeError{err}
	}
	return tc, nil
}

var errNoSource = errors.New("connection.sourceAddresses has no address of the origin's family; add one")
