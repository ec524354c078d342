package listen

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/http2"
	"github.com/relais-edge/relais/internal/http/http3"
	"github.com/relais-edge/relais/internal/http/std"
)

// Active is a listener's settings as they hold for the connections that are accepted now.
// It does not change; a reload makes another.
type Active struct {
	Key  string // of the Listener document
	Spec *v1.ListenerSpec
	// AltSvc is the Alt-Svc field value for answers on HTTP/1 and HTTP/2; empty without HTTP/3.
	AltSvc string

	m        *Manager
	source   source
	trusted  ranges
	document bundle.Listener
	state    *state
	series   *series

	http1, h2c, h2, h3 bool
	proxy              string // off, optional or required

	own  *http1.Server // these three are nil with engine std
	own2 *http2.Server
	own3 *http3.Server
	std  *std.Server
	quic *std.Adapter

	selector *selector // nil in clear
	tls      *tls.Config
	settings *http3.Settings

	conns   atomic.Int64
	current atomic.Bool
	ending  sync.Once
	mu      sync.Mutex
	cancel  context.CancelFunc // of Run of own and mux; nil before start
}

// newActive makes settings of a listener, and starts nothing.
func (m *Manager) newActive(l *bundle.Listener, certs map[bundle.Key]*certificate) (*Active, error) {
	a := &Active{Key: string(l.Key), Spec: &l.Spec, m: m, document: bare(l), source: sourceOf(l.Spec.ClientAddress.Field)}
	var err error
	if a.trusted, err = newRanges(l.Spec.ClientAddress.TrustedProxies); err != nil {
		return nil, fmt.Errorf("listener %s: clientAddress.trustedProxies: %w", l.Key, err)
	}
	if err := a.protocols(); err != nil {
		return nil, fmt.Errorf("listener %s: %w", l.Key, err)
	}
	a.engines()
	if l.Spec.TLS == nil {
		return a, nil
	}
	if err := a.secure(l, certs); err != nil {
		return nil, fmt.Errorf("listener %s: %w", l.Key, err)
	}
	return a, nil
}

// bare is a listener without what changes with the sites, and not the connections.
func bare(l *bundle.Listener) bundle.Listener {
	b := *l
	b.Hosts = nil
	return b
}

// protocols reads spec.protocols; absent means all that fit.
func (a *Active) protocols() error {
	list, secure := a.Spec.Protocols, a.Spec.TLS != nil
	a.proxy = a.Spec.ClientAddress.ProxyProtocol
	if len(list) == 0 {
		list = []v1.Protocol{v1.ProtocolHTTP1, v1.ProtocolH2C}
		if secure {
			list = []v1.Protocol{v1.ProtocolHTTP1, v1.ProtocolH2, v1.ProtocolH3}
		}
	}
	a.http1 = slices.Contains(list, v1.ProtocolHTTP1)
	a.h2c = slices.Contains(list, v1.ProtocolH2C)
	a.h2 = slices.Contains(list, v1.ProtocolH2)
	a.h3 = slices.Contains(list, v1.ProtocolH3)
	switch {
	case a.h2c && secure:
		return fmt.Errorf("h2c is HTTP/2 in clear, but the listener has tls; write h2")
	case (a.h2 || a.h3) && !secure:
		return fmt.Errorf("h2 and h3 need tls; add tls, or write h2c for HTTP/2 in clear")
	case !a.http1 && !a.h2c && !a.h2 && !a.h3:
		return fmt.Errorf("no protocol is known; write http1, h2c, h2 or h3")
	}
	if a.h3 && a.proxy == proxyRequired {
		// The PROXY protocol has no form for QUIC that load balancers speak.
		a.h3 = false
		a.m.cfg.Logger.Warn("HTTP/3 is off: the listener requires the PROXY protocol, which QUIC does not carry", "listener", a.Key)
	}
	return nil
}

// The values of clientAddress.proxyProtocol.
const (
	proxyOptional = "optional"
	proxyRequired = "required"
)

// secure sets up TLS.
func (a *Active) secure(l *bundle.Listener, certs map[bundle.Key]*certificate) error {
	a.selector = &selector{m: a.m, listener: string(l.Key), refuse: a.Spec.TLS.UnknownNames == "refuse" && a.m.cfg.Sites != nil}
	for _, key := range l.Certificates {
		c := certs[key]
		if c == nil {
			return fmt.Errorf("certificate %s: there is no such Certificate", key)
		}
		switch {
		case c.issued():
			a.selector.ca = a.m.cfg.Authority
			continue
		case c.spec.Spec.ACME != nil:
			if a.m.cfg.ACME == nil {
				return fmt.Errorf("certificate %s: this process does not speak ACME", key)
			}
			a.selector.acme = append(a.selector.acme, c)
			continue
		}
		a.selector.certs = append(a.selector.certs, c)
	}
	if len(l.Certificates) == 0 {
		if a.m.cfg.Authority == nil && len(l.Hosts) == 0 {
			return fmt.Errorf("tls names no certificate and this process has no internal CA; write tls.certificates")
		}
		a.selector.ca = a.m.cfg.Authority
	}
	a.selector.rebuild()
	var protos []string
	if a.h2 {
		protos = append(protos, "h2")
	}
	if a.http1 {
		protos = append(protos, "http/1.1")
	}
	a.tls = tlsConfig(l.Spec.TLS, protos, a.selector)
	if a.h3 {
		b := boundsOf(&l.Spec)
		a.settings = &http3.Settings{
			TLS: http3.TLSConfig(a.tls), HeaderBytes: b.head, Streams: b.streams, Requests: b.requests,
			Handshake: b.handshake, Idle: b.idle,
			EarlyData: l.Spec.TLS.EarlyData,
		}
	}
	return nil
}

// commit makes a current: it follows the settings before, if any.
func (a *Active) commit(s *state) {
	a.state = s
	s.join(a.shedders()...)
	a.series = a.m.metrics.open(a.Key)
	a.current.Store(true)
	if a.tls != nil {
		s.tickets.turn(time.Now(), a.Spec.TLS.TicketKeys, a.m.cfg.Logger)
		a.seal()
	}
}

// seal hands the ticket keys to TLS.
func (a *Active) seal() {
	a.state.tickets.apply(a.tls, a.Key, a.Spec.TLS.ClientAuth)
	if a.settings != nil {
		a.state.tickets.apply(a.settings.TLS, a.Key, a.Spec.TLS.ClientAuth)
	}
}

// start runs the clocks of our own servers until the settings are retired.
func (a *Active) start(ctx context.Context, wg *sync.WaitGroup) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cancel != nil {
		return
	}
	ctx, a.cancel = context.WithCancel(ctx)
	if a.own != nil {
		wg.Go(func() { _ = a.own.Run(ctx) })
		wg.Go(func() { _ = a.own2.Run(ctx) })
	}
	if a.own3 != nil && a.h3 {
		wg.Go(func() { _ = a.own3.Run(ctx) })
	}
}

// enter counts a connection in; false when the settings are not current any more.
func (a *Active) enter() bool {
	a.conns.Add(1)
	if a.current.Load() {
		return true
	}
	a.conns.Add(-1)
	return false
}

func (a *Active) exit() { a.conns.Add(-1) }

// retired says whether nobody needs a any more.
func (a *Active) retired() bool { return !a.current.Load() && a.conns.Load() == 0 }

// forget gives back what commit and start took.
func (a *Active) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cancel != nil {
		a.cancel()
	}
	a.state.part(a.shedders()...)
	a.m.metrics.close(a.Key)
}

// retire ends the TCP connections of a in good order, but lets idle ones of HTTP/1 wait for
// their next request.
func (a *Active) retire() {
	a.std.Drain() // as own2: HTTP/2 says GOAWAY first, and so loses nothing
	if a.own != nil {
		a.own.Retire()
		a.own2.Drain()
	}
}

// ebb is how long after the first the last idle connection of HTTP/1 is closed, at most.
const ebb = 5 * time.Second

// drain ends the TCP connections of a in good order: idle ones of HTTP/1 one after another.
func (a *Active) drain() {
	a.ending.Do(func() {
		a.std.Drain()
		if a.own != nil {
			a.own.Ebb(min(ebb, v1.Value(a.Spec.Timeouts.Drain).Std()/4))
			a.own2.Drain()
		}
	})
}

// drainOld ends all connections of settings that are no longer current.
func (a *Active) drainOld() {
	a.drain()
	if a.own3 != nil {
		a.own3.Drain()
	}
}

// shedders are the servers whose idle connections can go.
func (a *Active) shedders() []shedder {
	if a.own == nil {
		return nil
	}
	if !a.h3 {
		return []shedder{a.own, a.own2}
	}
	return []shedder{a.own, a.own2, a.own3}
}

// state is what of a listener outlives its settings: the count of its connections and the
// keys of its session tickets.
type state struct {
	tickets tickets

	open atomic.Int64
	mu   sync.Mutex
	from map[netip.Prefix]int
	own  []shedder // of all settings that still have connections
}

// engines are those whose connections are counted in s.
func (s *state) engines() []shedder {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.own)
}

func (s *state) join(own ...shedder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own = append(s.own, own...)
}

func (s *state) part(own ...shedder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own = slices.DeleteFunc(s.own, func(o shedder) bool { return slices.Contains(own, o) })
}

// take takes a place of the listener's connections.
func (s *state) take(limit int) bool {
	if n := s.open.Add(1); limit > 0 && n > int64(limit) {
		s.open.Add(-1)
		return false
	}
	return true
}

func (s *state) give() { s.open.Add(-1) }

// network is what counts as one address: an IPv4 address or an IPv6 /64.
func network(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.WithZone("").Prefix(bits)
	return p
}

// takeFrom takes a place of those of one address, which has at most limit. The map is bounded
// by the connections.
func (s *state) takeFrom(a netip.Addr, limit int) bool {
	p := network(a)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.from == nil {
		s.from = map[netip.Prefix]int{}
	}
	if limit > 0 && s.from[p] >= limit {
		return false
	}
	s.from[p]++
	return true
}

func (s *state) giveFrom(a netip.Addr) {
	p := network(a)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.from[p]--; s.from[p] <= 0 {
		delete(s.from, p)
	}
}
