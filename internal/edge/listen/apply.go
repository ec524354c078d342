package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"reflect"
	"slices"
	"strconv"
	"syscall"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/http3"
)

// change is what Apply is about to do. Until commit nothing has happened that cannot be
// undone by close.
type change struct {
	certs   map[bundle.Key]*certificate
	actives []*Active
	wanted  map[place]*Active
	bound   []*endpoint
	hosts   []*hostTable // beside actives; nil in clear
	acme    []bundle.ACME
}

// Apply makes the listeners those given: it binds what is new, drains what is gone, and has
// everything else go on. An error says which listener cannot be had and how to mend it, and
// leaves all as it was.
func (m *Manager) Apply(listeners []bundle.Listener, certs []bundle.Certificate) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.draining {
		return errDraining
	}
	c := &change{certs: map[bundle.Key]*certificate{}, wanted: map[place]*Active{}}
	if err := m.prepare(c, listeners, certs); err != nil {
		for _, e := range c.bound {
			e.close()
		}
		return err
	}
	m.commit(c)
	m.notify()
	return nil
}

// prepare does all that can fail.
func (m *Manager) prepare(c *change, listeners []bundle.Listener, certs []bundle.Certificate) error {
	if err := m.loadCertificates(c, listeners, certs); err != nil {
		return err
	}
	seen := map[bundle.Key]bool{}
	for i := range listeners {
		l := &listeners[i]
		if seen[l.Key] {
			return fmt.Errorf("listener %s: it is there twice; give each its own name", l.Key)
		}
		seen[l.Key] = true
		a := m.unchanged(c, l)
		if a == nil {
			var err error
			if a, err = m.newActive(l, c.certs); err != nil {
				return err
			}
		}
		c.actives = append(c.actives, a)
		var hosts *hostTable
		if a.selector != nil && len(l.Hosts) > 0 {
			hosts = newHostTable(l.Hosts, c.certs)
		}
		c.hosts = append(c.hosts, hosts)
		for _, network := range a.networks() {
			p := a.place(network)
			if other := c.wanted[p]; other != nil {
				return fmt.Errorf("listener %s: address %s is also that of listener %s; give one of them another address", l.Key, l.Spec.Address, other.Key)
			}
			c.wanted[p] = a
		}
	}
	for _, a := range c.actives {
		if err := m.bind(c, a); err != nil {
			return err
		}
	}
	return nil
}

// loadCertificates loads those that listeners name. What is in use already is kept.
func (m *Manager) loadCertificates(c *change, listeners []bundle.Listener, certs []bundle.Certificate) error {
	given := map[bundle.Key]*bundle.Certificate{}
	for i := range certs {
		given[certs[i].Key] = &certs[i]
	}
	for i := range listeners {
		for _, key := range listeners[i].Certificates {
			spec := given[key]
			if c.certs[key] != nil || spec == nil {
				continue // newActive reports what is missing
			}
			if old := m.certs[key]; old != nil && !old.lazy && reflect.DeepEqual(old.spec, *spec) {
				c.certs[key] = old
				continue
			}
			cert := &certificate{spec: *spec}
			if err := cert.load(m.cfg.Authority, m.cfg.Logger); err != nil {
				return fmt.Errorf("listener %s on %s: certificate %s: %w", listeners[i].Key, listeners[i].Spec.Address, key, err)
			}
			c.certs[key] = cert
		}
	}
	for i := range listeners {
		for j := range listeners[i].Hosts {
			for _, key := range listeners[i].Hosts[j].Certificates {
				if spec := given[key]; c.certs[key] == nil && spec != nil {
					c.certs[key] = m.later(spec)
				}
			}
		}
	}
	c.acme = ordersOf(listeners, c.certs)
	return nil
}

// later takes up a certificate that a site names: it is read at its first use.
func (m *Manager) later(spec *bundle.Certificate) *certificate {
	if old := m.certs[spec.Key]; old != nil && sameCertificate(&old.spec.Spec, &spec.Spec) {
		return old
	}
	return &certificate{spec: *spec, lazy: true}
}

// sameCertificate is reflect.DeepEqual for what there may be very many of.
func sameCertificate(a, b *v1.CertificateSpec) bool {
	if a.Inline != nil && b.Inline != nil && *a.Inline != *b.Inline || a.Files != nil && b.Files != nil && *a.Files != *b.Files {
		return false
	}
	return reflect.DeepEqual(a, b)
}

// ordersOf gathers the names that are wanted of ACME documents.
func ordersOf(listeners []bundle.Listener, certs map[bundle.Key]*certificate) []bundle.ACME {
	var all []bundle.ACME
	index, seen := map[bundle.Key]int{}, map[string]struct{}{}
	add := func(key bundle.Key, names []string) {
		c := certs[key]
		if c == nil || c.spec.Spec.ACME == nil {
			return
		}
		i, ok := index[key]
		if !ok {
			i = len(all)
			index[key] = i
			all = append(all, bundle.ACME{Key: key, Spec: c.spec.Spec.ACME, NoStaple: c.spec.Spec.OCSP == "off"})
			names = append(slices.Clip(c.spec.Spec.ACME.Hostnames), names...)
		}
		for _, n := range names {
			id := string(key) + " " + n
			if _, twice := seen[id]; !twice {
				seen[id] = struct{}{}
				all[i].Hostnames = append(all[i].Hostnames, n)
			}
		}
	}
	for i := range listeners {
		for _, key := range listeners[i].Certificates {
			add(key, nil)
		}
		for j := range listeners[i].Hosts {
			for _, key := range listeners[i].Hosts[j].Certificates {
				add(key, listeners[i].Hosts[j].Hostnames)
			}
		}
	}
	return all
}

// unchanged finds the current settings of a listener, if they are what l asks for.
func (m *Manager) unchanged(c *change, l *bundle.Listener) *Active {
	for _, a := range m.actives {
		if !a.current.Load() || a.Key != string(l.Key) || !reflect.DeepEqual(a.document, bare(l)) {
			continue
		}
		for _, key := range l.Certificates {
			if m.certs[key] != c.certs[key] {
				return nil
			}
		}
		return a
	}
	return nil
}

// networks are those that the protocols need.
func (a *Active) networks() []string {
	var n []string
	if a.http1 || a.h2c || a.h2 {
		n = append(n, "tcp")
	}
	if a.h3 {
		n = append(n, "udp")
	}
	return n
}

// place is where the listener is on a network.
func (a *Active) place(network string) place {
	p := place{network: network, address: a.Spec.Address}
	if _, port, err := net.SplitHostPort(p.address); err == nil && port == "0" {
		p.key = a.Key
	}
	return p
}

// bind opens the sockets of a that are not open yet. With port 0 HTTP/3 gets the port that
// the system chose for TCP.
func (m *Manager) bind(c *change, a *Active) error {
	before := len(c.bound)
	address, network, err := m.bindAll(c, a)
	for range anyPortTries {
		if !errors.Is(err, syscall.EADDRINUSE) || a.place(network).key == "" || len(c.bound) == before {
			break
		}
		// The port that TCP was given belongs to another program over UDP: take another one.
		for _, e := range c.bound[before:] {
			e.close()
		}
		c.bound = c.bound[:before]
		address, network, err = m.bindAll(c, a)
	}
	if err != nil {
		return m.explain(a, network, err)
	}
	if a.h3 && !a.current.Load() {
		if _, port, err := net.SplitHostPort(address); err == nil {
			if n, err := strconv.ParseUint(port, 10, 16); err == nil {
				a.AltSvc = http3.AltSvc(uint16(n))
			}
		}
	}
	return nil
}

// anyPortTries is how often another port is tried where any will do.
const anyPortTries = 16

// bindAll binds the sockets of a that are not bound yet. It returns the address of the last one, or
// the network for which there was none.
func (m *Manager) bindAll(c *change, a *Active) (address, network string, err error) {
	address = a.Spec.Address
	for _, network := range a.networks() {
		p := a.place(network)
		if e := m.endpoints[p]; e != nil {
			address = e.addr().String()
			continue
		}
		e := &endpoint{m: m, place: p, over: make(chan struct{}), gone: make(chan struct{}), aborted: make(chan struct{})}
		if err := e.bind(address); err != nil {
			return "", network, err
		}
		if p.key != "" {
			address = e.addr().String()
		}
		e.current.Store(a)
		c.bound = append(c.bound, e)
	}
	return address, "", nil
}

func (e *endpoint) bind(address string) error {
	// Both calls resolve and bind, which does not take long.
	ctx := context.Background()
	if inherited, err := e.inherit(); inherited || err != nil {
		return err
	}
	if e.place.network == "udp" {
		pc, err := new(net.ListenConfig).ListenPacket(ctx, "udp", address)
		if err != nil {
			return err
		}
		e.udp = pc.(*net.UDPConn)
		e.quic = http3.NewListener(e.udp, nil, e)
		return nil
	}
	lc := net.ListenConfig{
		KeepAliveConfig: keepAlive(),
		Control:         func(_, _ string, c syscall.RawConn) error { return boundUnsent(c) },
	}
	lc.SetMultipathTCP(false) // its connections do not inherit what Control sets
	ln, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	e.tcp = ln.(*net.TCPListener)
	return nil
}

// keepAlive finds out after a minute and a half that a client is gone without a word.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 15 * time.Second, Count: 4}
}

// explain says why a socket cannot be had, and how to mend it; m.mu is held.
func (m *Manager) explain(a *Active, network string, err error) error {
	address := a.Spec.Address
	host, port, _ := net.SplitHostPort(address)
	var dns *net.DNSError
	mend := "check spec.address"
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		flag := map[string]string{"tcp": "t", "udp": "u"}[network]
		mend = fmt.Sprintf("stop the program that holds the port (ss -ln%sp 'sport = :%s' shows it) or choose another in spec.address", flag, port)
		for p, e := range m.endpoints {
			if _, held, _ := net.SplitHostPort(p.address); p.network == network && held == port {
				mend = fmt.Sprintf("listener %s of this process holds the port on %s; remove that one first, then add this one", e.current.Load().Key, p.address)
			}
		}
		for e := range m.leaving {
			if _, held, _ := net.SplitHostPort(e.place.address); e.place.network == network && held == port {
				mend = fmt.Sprintf("a listener on %s was removed a moment ago and its HTTP/3 connections still need the port; apply again when its drain timeout is over", e.place.address)
			}
		}
	case errors.Is(err, fs.ErrPermission):
		mend = "ports below 1024 are for root; give the program CAP_NET_BIND_SERVICE (setcap cap_net_bind_service=+ep, or AmbientCapabilities= in its systemd unit) or choose a port above 1023"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		mend = fmt.Sprintf("this machine has no address %s (ip addr shows those it has); leave the host empty to listen on all", host)
	case errors.As(err, &dns):
		mend = "write an IP address, or a name that this machine can resolve"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		mend = "raise the limit of open files (ulimit -n, LimitNOFILE)"
	}
	return fmt.Errorf("listener %s: cannot listen on %s (%s): %w; %s", a.Key, address, network, err, mend)
}

// commit swaps everything; nothing can fail any more. m.mu is held.
func (m *Manager) commit(c *change) {
	for i, a := range c.actives {
		if a.selector != nil {
			a.selector.hosts.Store(c.hosts[i])
		}
		if a.current.Load() {
			continue
		}
		if m.states[a.Key] == nil {
			m.states[a.Key] = &state{}
		}
		a.commit(m.states[a.Key])
		m.actives = append(m.actives, a)
	}
	for _, e := range c.bound {
		m.endpoints[e.place] = e
	}
	var gone []*endpoint
	for p, e := range m.endpoints {
		if a := c.wanted[p]; a != nil {
			e.current.Store(a)
		} else {
			gone = append(gone, e)
		}
	}
	m.leave(gone)
	for key, cert := range c.certs {
		if !cert.lazy && m.certs[key] != cert {
			m.loaded.add(cert)
			m.expires(cert)
		}
	}
	m.certs = c.certs
	if m.cfg.ACME != nil {
		m.cfg.ACME.Manage(c.acme)
	}
	m.retire()
}
