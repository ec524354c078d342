package origin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/proxyproto"
	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/http2"
	"github.com/relais-edge/relais/internal/stage"
)

const (
	// young is the longest idle time of a connection for a request that may not be repeated:
	// origins close idle connections after some seconds, and a request that crosses with that is
	// lost. Longer idle connections are for requests that can be sent again.
	young = int64(2 * time.Second)
	// look is the idle time from which a connection is looked at before it is used.
	look = int64(time.Second)
	// warm is the idle time up to which a connection is used again without asking the system
	// whether its origin has said something meanwhile, which costs a fortieth of a proxied
	// request. Only a safe request of one visitor is sent so: never what the cache will keep.
	warm = int64(time.Millisecond)
)

type counter = atomic.Int64

// endpoint is an origin's address and the connections to it. It implements stage.Target.
type endpoint struct {
	h       *Handler
	address string
	spec    v1.ConnectionSpec
	guard   guard
	source  sources
	dialer  net.Dialer
	signer  *signer     // nil without connection.signature
	tls     *tls.Config // nil in clear; without ServerName when the request's host is sent
	stats   *poolStats
	// spoken is what the origin chose when it had the choice; empty until it is known.
	spoken    atomic.Pointer[v1.OriginProtocol]
	noConnect atomic.Bool // the origin takes no extended CONNECT

	mu      sync.Mutex
	idle    []*conn  // HTTP/1: the last used is at the end and is used first
	shared  []*conn  // HTTP/2: those that take requests
	dialing []string // the server names of those of HTTP/2 that are being opened
	open    int      // idle, shared, busy and being opened
	waiting waitList
	closed  bool
}

// conn is a connection to an endpoint: either hc or h2.
type conn struct {
	e          *endpoint
	hc         *http1.ClientConn
	h2         *http2.ClientConn
	serverName string         // of the request it was opened for, when that is sent as SNI
	visitor    netip.AddrPort // that the origin was told by the PROXY protocol
	dies       int64          // the handler's clock
	idleSince  int64
	used       atomic.Bool
	left, gone bool // of HTTP/2: not in shared any more; its place was given back
	settled    bool // of HTTP/2: its settings were taken notice of
}

func newEndpoint(h *Handler, pool bundle.Key, address string, spec *v1.ConnectionSpec) (*endpoint, error) {
	e := &endpoint{h: h, address: address, spec: *spec}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, fmt.Errorf("origin %q is not host:port: %w", address, err)
	}
	var err error
	if e.guard, err = newGuard(spec.Public, spec.Allow); err != nil {
		return nil, err
	}
	if e.source, err = newSources(spec.SourceAddresses); err != nil {
		return nil, err
	}
	if spec.Signature != nil {
		e.signer = newSigner(spec.Signature)
	}
	e.dialer.ControlContext, e.dialer.Resolver = e.control, resolverOf(spec.Resolvers)
	if t := spec.TLS; t != nil {
		e.tls = &tls.Config{
			MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify,
			ClientSessionCache: tls.NewLRUClientSessionCache(32),
		}
		if t.ClientCertificate != "" {
			organization, _ := pool.Split()
			e.tls.GetClientCertificate = h.certificates.show(bundle.NewKey(organization, t.ClientCertificate))
		}
		if t.CA != "" {
			e.tls.RootCAs = x509.NewCertPool()
			if !e.tls.RootCAs.AppendCertsFromPEM([]byte(t.CA)) {
				return nil, errors.New("connection.tls.ca holds no certificate; it must be PEM, with BEGIN CERTIFICATE lines")
			}
		}
	}
	return e, nil
}

// Address implements stage.Target.
func (e *endpoint) Address() string { return e.address }

// hostOf lends the host to send as SNI, when it is the request's.
func (e *endpoint) hostOf(x *stage.Exchange) []byte {
	if e.tls == nil || e.tls.ServerName != "" {
		return nil
	}
	return hostPart(x.Out.Authority())
}

// hostPart cuts the port, and the brackets of an IPv6 address.
func hostPart(authority []byte) []byte {
	if i := bytes.LastIndexByte(authority, ':'); i >= 0 && bytes.IndexByte(authority[i:], ']') < 0 {
		authority = authority[:i]
	}
	if n := len(authority); n > 1 && authority[0] == '[' && authority[n-1] == ']' {
		authority = authority[1 : n-1]
	}
	return authority
}

// wish is what a request asks of a connection.
type wish struct {
	host     []byte             // to be sent as SNI; nil when all connections are alike
	proxy    *proxyproto.Header // to be sent first, so that the connection is one visitor's; nil without
	maxIdle  int64
	deadline time.Time // zero is none
	now      int64     // on the handler's clock
	sure     bool      // look at the connection, however short it was idle
	fresh    bool      // no idle one
	http1    bool      // whatever the pool says: the request can go no other way
}

// get takes an idle connection, opens one, or waits for one, in this order.
func (e *endpoint) get(ctx context.Context, w wish) (*conn, error) {
	if e.shares(w) {
		return e.getShared(ctx, w)
	}
	for {
		c, how := e.take(w)
		switch how {
		case takeIdle:
			if (w.sure || w.now-c.idleSince >= look) && c.hc.Stale() {
				e.stats.stale.Inc()
				c.drop()
				continue
			}
			return c, nil
		case takePlace:
			if c != nil {
				_ = c.hc.Close()
			}
			return e.dial(ctx, w)
		}
		return e.queue(ctx, w)
	}
}

// maxWaiting is how many requests may wait for a connection.
func (e *endpoint) maxWaiting() int {
	if e.spec.MaxWaiting != nil {
		return *e.spec.MaxWaiting
	}
	return e.h.cfg.MaxWaiting
}

// queue waits for a connection, or for the place to open one.
func (e *endpoint) queue(ctx context.Context, w wish) (*conn, error) {
	e.mu.Lock()
	if e.waiting.n >= e.maxWaiting() {
		e.mu.Unlock()
		return nil, errQueue
	}
	if len(e.idle) > 0 || e.open < e.spec.MaxPerOrigin { // by now
		e.mu.Unlock()
		return e.get(ctx, w)
	}
	waiter := e.waiting.push(nil)
	e.mu.Unlock()
	e.stats.wait.Inc()
	g, err := e.wait(ctx, waiter, w.deadline)
	if err != nil {
		return nil, err
	}
	c := g.conn
	if c != nil && w.fits(c) {
		return c, nil
	}
	if c != nil {
		_ = c.hc.Close() // it is for another host or visitor: its place is used for one that fits
	}
	return e.dial(ctx, w)
}

// fits says whether a connection may be used for the request.
func (w *wish) fits(c *conn) bool {
	return (w.host == nil || string(w.host) == c.serverName) && (w.proxy == nil || w.proxy.Source == c.visitor)
}

// taken says what take found.
type taken uint8

const (
	takeNothing taken = iota
	takeIdle          // an idle connection that fits
	takePlace         // the leave to open one, counted; a connection that comes with it must be closed
)

// take takes what can be had at once.
func (e *endpoint) take(w wish) (*conn, taken) {
	now := w.now
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := len(e.idle) - 1; i >= 0 && !w.fresh; i-- {
		c := e.idle[i]
		if now-c.idleSince >= w.maxIdle {
			break // those below are older
		}
		if now >= c.dies || !w.fits(c) {
			continue
		}
		e.removeIdle(i)
		return c, takeIdle
	}
	if e.open < e.spec.MaxPerOrigin {
		e.open++
		e.stats.open.Add(1)
		return nil, takePlace
	}
	if len(e.idle) == 0 {
		e.drainIdle()
		return nil, takeNothing
	}
	// None of the idle ones fits, so the oldest gives its place.
	c := e.idle[0]
	e.removeIdle(0)
	return c, takePlace
}

func (e *endpoint) removeIdle(i int) {
	last := len(e.idle) - 1
	copy(e.idle[i:], e.idle[i+1:])
	e.idle[last] = nil
	e.idle = e.idle[:last]
	e.stats.idle.Add(-1)
}

// dial opens a connection. Its place is counted already and is given back on failure.
func (e *endpoint) dial(ctx context.Context, w wish) (*conn, error) {
	e.stats.dials.Inc()
	p := v1.OriginHTTP1
	if e.spec.Protocol == v1.OriginAuto && !w.http1 {
		p = v1.OriginAuto // it may have changed its mind
	}
	nc, p, err := e.connect(ctx, w, p)
	if err != nil {
		e.lost()
		return nil, err
	}
	c := e.newConn(w)
	if p == v1.OriginH2 {
		e.spoken.Store(&p)
		return e.share(c, nc)
	}
	c.hc = e.h.client.NewConn(nc, c)
	return c, nil
}

func (e *endpoint) newConn(w wish) *conn {
	age := e.h.cfg.MaxAge
	if e.spec.MaxAge > 0 {
		age = e.spec.MaxAge.Std()
	}
	c := &conn{e: e, serverName: string(w.host), dies: e.h.clock() + int64(age-rand.N(age/10+1))}
	if w.proxy != nil {
		c.visitor = w.proxy.Source
	}
	return c
}

// connect resolves, connects, says by the PROXY protocol for whom where the pool wants that, and
// speaks TLS, within the time for it. With p of auto the origin chooses the protocol; it is
// returned.
func (e *endpoint) connect(ctx context.Context, w wish, p v1.OriginProtocol) (net.Conn, v1.OriginProtocol, error) {
	ctx, cancel := context.WithTimeout(ctx, e.spec.Connect.Std())
	defer cancel()
	if !w.deadline.IsZero() {
		var cancel2 context.CancelFunc
		ctx, cancel2 = context.WithDeadline(ctx, w.deadline)
		defer cancel2()
	}
	nc, err := e.dialTCP(ctx)
	if err == nil {
		err = e.introduce(ctx, nc, w.proxy)
	}
	if err != nil || e.tls == nil {
		return nc, p, err
	}
	cfg := e.tls.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName = string(w.host)
	}
	cfg.NextProtos = alpn(p)
	tc := tls.Client(nc, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, p, handshakeError{err}
	}
	switch chosen := tc.ConnectionState().NegotiatedProtocol; {
	case p == v1.OriginHTTP1:
	case chosen == "h2":
		p = v1.OriginH2
	case p == v1.OriginAuto:
		p = v1.OriginHTTP1
	default:
		_ = tc.Close()
		return nil, p, handshakeError{errNoH2}
	}
	return tc, p, nil
}

// alpn is what is offered in a TLS handshake (RFC 7301).
func alpn(p v1.OriginProtocol) []string {
	switch p {
	case v1.OriginH2:
		return []string{"h2"}
	case v1.OriginAuto:
		return []string{"h2", "http/1.1"}
	}
	return []string{"http/1.1"}
}

// Release implements http1.Releaser.
func (c *conn) Release(_ *http1.ClientConn, reusable bool) {
	if !reusable {
		c.e.lost()
		return
	}
	c.idleSince = c.e.h.clock()
	if !c.e.put(c) {
		c.drop()
	}
}

// drop closes a connection that is not among the idle ones. One of HTTP/2 first ends what it has
// begun.
func (c *conn) drop() {
	if c.h2 != nil {
		c.h2.Drain()
		return
	}
	_ = c.hc.Close()
	c.e.lost()
}

// put keeps a connection for the next request, or hands it to the one that waits longest.
func (e *endpoint) put(c *conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || c.idleSince >= c.dies {
		return false
	}
	if w := e.waiting.pop(forHTTP1); w != nil {
		w.got <- grant{conn: c}
		return true
	}
	if len(e.idle) >= v1.Value(e.spec.MaxIdlePerOrigin) {
		return false
	}
	e.idle = append(e.idle, c)
	e.stats.idle.Add(1)
	return true
}

// lost gives a place back, to the request that waits longest if there is one.
func (e *endpoint) lost() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lostLocked()
}

func (e *endpoint) lostLocked() {
	if w := e.waiting.pop(anyWaiter); w != nil {
		if w.shared != nil {
			e.dialing = append(e.dialing, string(w.shared.host))
		}
		w.got <- grant{}
		return
	}
	e.open--
	e.stats.open.Add(-1)
}

// expire closes connections that were idle for too long or are too old.
func (e *endpoint) expire(now int64) {
	e.mu.Lock()
	var old []*conn
	for i := 0; i < len(e.idle); {
		if c := e.idle[i]; now-c.idleSince >= int64(e.spec.Idle) || now >= c.dies {
			old = append(old, c)
			e.removeIdle(i)
		} else {
			i++
		}
	}
	for _, c := range e.shared {
		if now >= c.dies || c.h2.Busy() == 0 && now-c.idleSince >= int64(e.spec.Idle) {
			old = append(old, c)
		}
	}
	e.mu.Unlock()
	for _, c := range old {
		c.drop()
	}
}

// close closes the idle connections and keeps none from now on.
func (e *endpoint) close() {
	e.mu.Lock()
	e.closed = true
	idle := e.idle
	e.idle = nil
	e.stats.idle.Add(-int64(len(idle)))
	idle = append(idle, e.shared...)
	e.mu.Unlock()
	for _, c := range idle {
		c.drop()
	}
}
