package l4

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/edge/proxyproto"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// maxHellos bounds the connections of the process whose first bytes are waited for.
const maxHellos = 16384

// alertName tells a TLS client that its server name is not known here (RFC 6066 section 3).
var alertName = [...]byte{21, 3, 1, 0, 2, 2, 112}

// alertInternal tells a TLS client that the fault is on our side.
var alertInternal = [...]byte{21, 3, 1, 0, 2, 2, 80}

func newID() (id stage.RequestID) {
	binary.LittleEndian.PutUint64(id[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(id[8:], rand.Uint64())
	return id
}

// addrPortOf takes a net.Addr as what it is, unmapped and without zone.
func addrPortOf(a net.Addr) netip.AddrPort {
	var p netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		p = a.AddrPort()
	case *net.UDPAddr:
		p = a.AddrPort()
	}
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

// opening is a connection before its service is known.
type opening struct {
	nc     net.Conn
	first  []byte // what was read of it
	start  time.Time
	header proxyproto.Header
	hello  hello
}

// refuse closes a connection without a word, and without leaving anything in the system.
func refuse(nc net.Conn, s *service, reason string) {
	s.series.refused[reason].Inc()
	if tc, ok := nc.(*net.TCPConn); ok {
		_ = tc.SetLinger(0)
	}
	_ = nc.Close()
}

// serve serves a connection of an endpoint to its end.
func (m *Manager) serve(ctx context.Context, r *router, nc *net.TCPConn) {
	defer nc.Close()
	defer m.recover(r.first)
	o := &opening{nc: nc, start: time.Now()}
	o.header.Source, o.header.Destination = addrPortOf(nc.RemoteAddr()), addrPortOf(nc.LocalAddr())
	set := r.first.settings.Load()
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	defer stop()
	if reason := m.begin(o, r, set); reason != "" {
		refuse(nc, r.first, reason)
		return
	}
	s := r.plain
	if s == nil {
		if s = r.find(o.hello.serverName); s == nil {
			_, _ = nc.Write(alertName[:])
			r.first.series.refused[refuseName].Inc()
			return
		}
	}
	s.forward(ctx, o)
}

func (m *Manager) recover(s *service) {
	if p := recover(); p != nil {
		m.cfg.Logger.Error("a connection panicked", "service", s.key, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	}
}

// begin reads the PROXY protocol header and the ClientHello, where there shall be such.
func (m *Manager) begin(o *opening, r *router, set *settings) (refused string) {
	proxy := set.spec.ClientAddress.ProxyProtocol
	reads := proxy == "optional" || proxy == "required"
	if reads && !set.trusts(o.header.Source.Addr()) {
		if proxy == "required" {
			return refuseUntrusted
		}
		reads = false
	}
	if !reads && r.plain != nil {
		return ""
	}
	if m.hellos.Add(1) > maxHellos {
		m.hellos.Add(-1)
		return refuseHellos
	}
	defer m.hellos.Add(-1)
	_ = o.nc.SetReadDeadline(time.Now().Add(set.spec.Hello.Std()))
	if reads {
		if err := o.readProxy(proxy == "required", r.plain != nil); err != nil {
			return refuseProxy
		}
	}
	if r.plain == nil {
		if err := o.readHello(); err != nil {
			return refuseHello
		}
	}
	_ = o.nc.SetReadDeadline(time.Time{})
	return ""
}

// readMore appends what the connection brings to first, which grows to at most limit.
func (o *opening) readMore(limit int) error {
	if len(o.first) >= limit {
		return errHelloLong
	}
	if len(o.first) == cap(o.first) {
		grown := make([]byte, len(o.first), min(limit, max(2048, 2*cap(o.first))))
		copy(grown, o.first)
		o.first = grown
	}
	n, err := o.nc.Read(o.first[len(o.first):cap(o.first)])
	o.first = o.first[:len(o.first)+n]
	if n > 0 {
		return nil
	}
	return err
}

// readProxy takes a PROXY protocol header off the connection. Of a protocol in which the server speaks
// first nothing comes until the client was answered, so that an optional header can only be told from
// its absence by a byte or by the end of the time for it.
func (o *opening) readProxy(required, silence bool) error {
	for {
		n, match := proxyproto.Measure(o.first)
		switch {
		case match == proxyproto.Yes && n <= len(o.first):
			h, err := proxyproto.Parse(o.first[:n])
			if err != nil {
				return err
			}
			o.first = o.first[n:]
			if h.Source.IsValid() {
				o.header.Source, o.header.Destination = h.Source, h.Destination
			}
			return nil
		case match == proxyproto.No && !required && len(o.first) > 0:
			return nil
		case match == proxyproto.No && len(o.first) > 0, match == proxyproto.Bad:
			return proxyproto.ErrMalformed
		}
		if err := o.readMore(proxyproto.MaxV2 + maxHello); err != nil {
			var ne net.Error
			if silence && !required && len(o.first) == 0 && errors.As(err, &ne) && ne.Timeout() {
				return nil
			}
			return err
		}
	}
}

// readHello reads until the ClientHello is whole; its bytes stay in first.
func (o *opening) readHello() error {
	var p helloParser
	for {
		var err error
		if o.hello, err = p.feed(o.first); !errors.Is(err, errHelloMore) {
			return err
		}
		if err := o.readMore(maxHello + 256); err != nil {
			return err
		}
	}
}

// Forward looks at a TLS connection that a Listener accepted on address, and, when a service takes the
// name that it asks for, forwards it to its end. Else it returns the connection for the Listener to go
// on with; nothing of it is lost. Facts says whose it is; limit is the time for the ClientHello.
func (m *Manager) Forward(ctx context.Context, address string, nc net.Conn, facts *message.Conn, limit time.Duration) (rest net.Conn, taken bool) {
	r := (*m.shared.Load())[address]
	if r == nil {
		return nc, false
	}
	o := &opening{nc: nc, start: time.Now()}
	o.header.Source = netip.AddrPortFrom(facts.Client, 0)
	if facts.Peer.Addr() == facts.Client {
		o.header.Source = facts.Peer
	}
	o.header.Destination = facts.Local
	if m.hellos.Add(1) > maxHellos {
		m.hellos.Add(-1)
		return nc, false // the Listener has a limit of its own
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	defer stop()
	_ = nc.SetReadDeadline(time.Now().Add(limit))
	err := o.readHello()
	_ = nc.SetReadDeadline(time.Time{})
	m.hellos.Add(-1)
	rest = &begun{Conn: nc, first: o.first}
	if err != nil {
		return rest, false // the Listener's TLS says what is wrong
	}
	s := r.find(o.hello.serverName)
	if s == nil {
		return rest, false
	}
	defer nc.Close()
	defer m.recover(s)
	s.forward(ctx, o)
	return nil, true
}

// begun is a connection of which some bytes were read already.
type begun struct {
	net.Conn
	first []byte
}

// Read implements net.Conn.
func (c *begun) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	c.first = nil
	return c.Conn.Read(b)
}

// NetConn returns the connection under it, as that of package crypto/tls does: what serves it asks
// the socket how much of an answer the client has taken.
func (c *begun) NetConn() net.Conn { return c.Conn }

// CloseWrite closes the sending side, where the connection can.
func (c *begun) CloseWrite() error { return closeWrite(c.Conn) }

// forward gives a connection an origin and copies both ways until the end.
func (s *service) forward(ctx context.Context, o *opening) {
	c := &connection{s: s, set: s.settings.Load(), header: o.header, client: o.nc}
	c.Ended = Ended{
		ID: newID(), Start: o.start, Client: o.header.Source.Addr(), Service: string(s.key), Proto: "tcp",
		Host: o.hello.serverName, Pool: c.set.poolName,
	}
	passthrough := c.set.spec.Protocol == "tls-passthrough"
	if passthrough {
		c.Proto = "tls"
		c.header.Authority, c.header.ALPN = o.hello.serverName, strings.Join(o.hello.protocols, ",")
		if len(o.hello.protocols) != 1 {
			c.header.ALPN = "" // the TLV is for the one in use, which is not known
		}
	}
	c.header.UniqueID = c.ID.String()
	if reason := s.enter(c); reason != "" {
		refuse(o.nc, s, reason)
		return
	}
	defer s.exit(c)
	var l Link
	if err := c.set.pool.Connect(ctx, "tcp", &c.header, &l); err != nil {
		c.attach(l)
		c.fail(err)
		s.series.refused[refuseOrigin].Inc()
		if passthrough {
			_, _ = o.nc.Write(alertInternal[:])
		}
		return
	}
	s.series.total.Inc()
	if c.attach(l) {
		c.pipe(ctx, o.first)
	}
	_ = l.Conn.Close()
	l.Place.Release(false)
}

// fail notes why no origin could be had.
func (c *connection) fail(err error) {
	e := stage.AsError(err)
	c.Code = e.Code
	if e.Err != nil {
		c.Cause = e.Err.Error()
	}
}
