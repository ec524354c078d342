package l4

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"syscall"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// place is what a socket is bound to. Services with port 0 do not share it: key is theirs then.
type place struct{ network, address, key string }

func placeOf(s *bundle.Service) place {
	p := place{network: "tcp", address: s.Spec.Address}
	if s.Spec.Protocol == "udp" {
		p.network = "udp"
	}
	if _, port, err := net.SplitHostPort(p.address); err == nil && port == "0" {
		p.key = string(s.Key)
	}
	return p
}

// router chooses the service of a connection.
type router struct {
	plain *service // takes every connection; the others are nil then
	// For TLS: by name, by what follows *., and for the rest.
	exact, wildcard map[string]*service
	rest            *service
	// first decides about the PROXY protocol, on which all services of an address agree.
	first *service
}

func (r *router) add(s *service, spec *v1.ServiceSpec) {
	if r.first == nil {
		r.first = s
	}
	if spec.Protocol != "tls-passthrough" {
		r.plain = s
		return
	}
	for _, h := range spec.Hostnames {
		if rest, ok := strings.CutPrefix(h, "*."); ok {
			r.wildcard[rest] = s
		} else if h == "*" {
			r.rest = s
		} else {
			r.exact[h] = s
		}
	}
}

// find returns the service of a TLS server name in lower case: the exact one, the longest wildcard,
// the one for all; nil when there is none.
func (r *router) find(name string) *service {
	if s := r.exact[name]; s != nil {
		return s
	}
	for rest := name; len(r.wildcard) > 0; {
		i := strings.IndexByte(rest, '.')
		if i < 0 {
			break
		}
		if rest = rest[i+1:]; r.wildcard[rest] != nil {
			return r.wildcard[rest]
		}
	}
	return r.rest
}

// change is what Apply is about to do; until commit nothing has happened that close cannot undo.
type change struct {
	services map[bundle.Key]*service
	settings map[*service]*settings
	routers  map[place]*router
	shared   map[string]*router
	bound    map[place]*endpoint
}

// Apply makes the services those given. Listening says on which addresses a Listener ends TLS: there
// it receives, and asks Forward. An error says which service cannot be had and how to mend it, and
// leaves all as it was.
func (m *Manager) Apply(services []bundle.Service, listening map[string]bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.draining {
		return errDraining
	}
	c := &change{
		map[bundle.Key]*service{}, map[*service]*settings{}, map[place]*router{}, map[string]*router{}, map[place]*endpoint{},
	}
	if err := m.prepare(c, services, listening); err != nil {
		for _, e := range c.bound {
			e.close()
		}
		return err
	}
	m.commit(c)
	m.notify()
	return nil
}

// prepare does all that can fail; m.mu is held.
func (m *Manager) prepare(c *change, services []bundle.Service, listening map[string]bool) error {
	for i := range services {
		b := &services[i]
		set, err := m.settings(b)
		if err != nil {
			return fmt.Errorf("service %s: %w", b.Key, err)
		}
		s := m.services[b.Key]
		if s == nil || s.settings.Load().spec.Protocol != b.Spec.Protocol {
			s = newService(m, b.Key)
		}
		c.services[b.Key], c.settings[s] = s, set
		p := placeOf(b)
		var r *router
		if b.Spec.Protocol == "tls-passthrough" && listening[p.address] {
			r = c.shared[p.address]
		} else {
			r = c.routers[p]
		}
		if r == nil {
			r = &router{exact: map[string]*service{}, wildcard: map[string]*service{}}
		} else if r.plain != nil || b.Spec.Protocol != "tls-passthrough" {
			return fmt.Errorf("service %s: address %s is also that of service %s; give one of them another address", b.Key, p.address, r.first.key)
		}
		r.add(s, &set.spec)
		if listening[p.address] && p.network == "tcp" {
			c.shared[p.address] = r
			continue
		}
		c.routers[p] = r
		if m.endpoints[p] == nil && m.resting[p] == nil && c.bound[p] == nil {
			e, err := m.bind(p)
			if err != nil {
				return m.explain(b, p.network, err)
			}
			c.bound[p] = e
		}
	}
	return nil
}

// settings reads a service's document.
func (m *Manager) settings(b *bundle.Service) (*settings, error) {
	org, _ := b.Key.Split()
	set := &settings{spec: b.Spec, poolName: b.Spec.Pool}
	var err error
	if set.pool, err = m.cfg.Pools.Pool(bundle.NewKey(org, b.Spec.Pool), b.Pool); err != nil {
		return nil, fmt.Errorf("pool %s: %w", b.Spec.Pool, err)
	}
	set.prefixDatagrams = b.Spec.Protocol == "udp" && b.Pool.Connection.ProxyProtocol == "v2"
	set.perAddress = b.Spec.Limits.ConnectionsPerAddress
	if set.perAddress == 0 && b.Spec.Protocol == "udp" {
		set.perAddress = udpPerAddress
	}
	for _, text := range b.Spec.ClientAddress.TrustedProxies {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			a, aerr := netip.ParseAddr(text)
			if aerr != nil {
				return nil, fmt.Errorf("clientAddress.trustedProxies: %q is not a network", text)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		set.trusted = append(set.trusted, p.Masked())
	}
	return set, nil
}

// commit swaps everything; nothing can fail any more. m.mu is held.
func (m *Manager) commit(c *change) {
	for s, set := range c.settings {
		s.settings.Store(set)
		if m.services[s.key] != s {
			s.series = m.metrics.series(string(s.key))
		}
	}
	for p, e := range c.bound {
		m.endpoints[p] = e
	}
	for p, e := range m.resting {
		if c.routers[p] != nil {
			delete(m.resting, p)
			e.leaving.Store(false)
			m.endpoints[p] = e
		}
	}
	for p, e := range m.endpoints {
		if r := c.routers[p]; r != nil {
			e.router.Store(r)
		} else {
			m.retire(e)
		}
	}
	for key, s := range m.services {
		if c.services[key] != s {
			m.leave(s)
		}
	}
	m.services = c.services
	m.shared.Store(&c.shared)
}

// Yield gives up the TCP addresses that Listeners are about to take. What is under way goes on. Apply,
// with the old services or the new ones, comes next.
func (m *Manager) Yield(listening map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p, e := range m.endpoints {
		if p.network == "tcp" && listening[p.address] {
			m.retire(e)
		}
	}
}

// retire stops receiving on an endpoint; m.mu is held.
func (m *Manager) retire(e *endpoint) {
	delete(m.endpoints, e.place)
	if e.tcp != nil {
		e.shut()
		return
	}
	e.leaving.Store(true)
	m.resting[e.place] = e
	m.wg.Go(e.leave)
}

func (m *Manager) bind(p place) (*endpoint, error) {
	e := &endpoint{m: m, place: p, over: make(chan struct{})}
	if inherited, err := e.inherit(); err != nil {
		return nil, err
	} else if inherited {
		return e, nil
	}
	ctx := context.Background() // both calls resolve and bind, which does not take long
	if p.network == "udp" {
		pc, err := new(net.ListenConfig).ListenPacket(ctx, "udp", p.address)
		if err != nil {
			return nil, err
		}
		e.receiveOn(pc.(*net.UDPConn))
		return e, nil
	}
	lc := net.ListenConfig{KeepAliveConfig: keepAlive()}
	ln, err := lc.Listen(ctx, "tcp", p.address)
	if err != nil {
		return nil, err
	}
	e.tcp = ln.(*net.TCPListener)
	return e, nil
}

// explain says why a socket cannot be had, and how to mend it.
func (m *Manager) explain(b *bundle.Service, network string, err error) error {
	host, port, _ := net.SplitHostPort(b.Spec.Address)
	mend := "check spec.address"
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		mend = fmt.Sprintf("stop the program that holds the port (ss -ln%cp 'sport = :%s' shows it) or choose another in spec.address", network[0], port)
	case errors.Is(err, fs.ErrPermission):
		mend = "ports below 1024 are for root; give the program CAP_NET_BIND_SERVICE or choose a port above 1023"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		mend = fmt.Sprintf("this machine has no address %s (ip addr shows those it has); leave the host empty to receive on all", host)
	}
	return fmt.Errorf("service %s: cannot receive on %s (%s): %w; %s", b.Key, b.Spec.Address, network, err, mend)
}
