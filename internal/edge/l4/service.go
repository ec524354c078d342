package l4

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/proxyproto"
)

// settings are a service's document as it holds for new connections.
type settings struct {
	spec            v1.ServiceSpec
	pool            Pool
	poolName        string
	trusted         []netip.Prefix
	perAddress      int
	prefixDatagrams bool // each datagram to the origin begins with a PROXY protocol header
}

// trusts says whether a peer may speak the PROXY protocol.
func (s *settings) trusts(peer netip.Addr) bool {
	for _, p := range s.trusted {
		if p.Contains(peer) {
			return true
		}
	}
	return false
}

// service is a Service as it runs. Its counts outlive changes of its document.
type service struct {
	m        *Manager
	key      bundle.Key
	settings atomic.Pointer[settings]
	series   *series
	gone     chan struct{} // closed when the drain is over
	changed  chan struct{} // one token: a connection ended while the service drains

	mu    sync.Mutex
	open  map[*connection]struct{}
	from  map[netip.Prefix]int // bounded by open
	ended bool                 // nothing more may come
}

func newService(m *Manager, key bundle.Key) *service {
	return &service{
		m: m, key: key, gone: make(chan struct{}), changed: make(chan struct{}, 1),
		open: map[*connection]struct{}{}, from: map[netip.Prefix]int{},
	}
}

// connection is what a service knows of a connection or session under way.
type connection struct {
	Ended
	s      *service
	set    *settings
	header proxyproto.Header
	link   Link

	mu     sync.Mutex
	closed bool
	client net.Conn // nil for UDP
	code   string   // why it was closed, when we closed it
}

// clientNetwork is what counts as one address: an IPv4 address or an IPv6 /64.
func clientNetwork(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.WithZone("").Prefix(bits)
	return p
}

// enter takes a place for c; the reason says why there is none, and is empty when there is.
func (s *service) enter(c *connection) (reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch limit := &c.set.spec.Limits; {
	case s.ended:
		return refuseDrain
	case len(s.open) >= limit.Connections:
		return refuseConnections
	}
	// Trusted proxies bring many clients on one address, so they are not counted.
	if n := clientNetwork(c.Client); c.set.perAddress > 0 && !c.set.trusts(c.Client) {
		if s.from[n] >= c.set.perAddress {
			return refuseAddress
		}
	}
	s.from[clientNetwork(c.Client)]++
	s.open[c] = struct{}{}
	s.series.open.Add(1)
	return ""
}

// exit gives the place back and writes the connection down.
func (s *service) exit(c *connection) {
	s.mu.Lock()
	delete(s.open, c)
	n := clientNetwork(c.Client)
	if s.from[n]--; s.from[n] <= 0 {
		delete(s.from, n)
	}
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
	s.series.open.Add(-1)
	s.series.received.Add(float64(c.Received))
	s.series.sent.Add(float64(c.Sent))
	c.mu.Lock()
	if c.code != "" {
		c.Code = c.code
	}
	c.mu.Unlock()
	c.Took = time.Since(c.Start)
	c.Tier, c.Origin, c.Tries, c.Spilled, c.Spill = c.link.Tier, c.link.Origin, c.link.Tries, c.link.Spilled, c.link.Spill
	s.m.cfg.Record(&c.Ended)
}

// end closes both sides of c, for a reason of ours.
func (c *connection) end(code string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed, c.code = true, code
	if c.client != nil {
		_ = c.client.Close()
	}
	if c.link.Conn != nil {
		_ = c.link.Conn.Close()
	}
}

// attach makes the link c's own, unless c was ended while it was opened.
func (c *connection) attach(l Link) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link = l
	return !c.closed
}

// cut ends everything at once.
func (s *service) cut() {
	s.mu.Lock()
	s.ended = true
	all := make([]*connection, 0, len(s.open))
	for c := range s.open {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		c.end("drain")
	}
}

// drain waits until nothing is open, at most for the service's drain time, and then cuts off the rest.
func (s *service) drain() {
	defer close(s.gone)
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	limit := time.NewTimer(v1.Value(s.settings.Load().spec.Drain).Std())
	defer limit.Stop()
	timeout := limit.C
	for {
		s.mu.Lock()
		n := len(s.open)
		s.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-s.changed:
		case <-timeout:
			timeout = nil
			s.m.cfg.Logger.Warn("the drain time is over; connections are cut off", "service", s.key, "connections", n)
			s.cut()
		}
	}
}
