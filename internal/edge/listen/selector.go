package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
)

// ACME gets certificates from ACME authorities.
type ACME interface {
	// Manage makes the documents, and the names wanted of them, those given.
	Manage(all []bundle.ACME)
	// Certificate gives what there is for a host; nil while there is none.
	Certificate(key bundle.Key, host string) *tls.Certificate
	// Demand gets one for a host that a visitor asks for and waits until ctx ends; nil when there
	// is none by then. Sure says that a site has the host by name, not by *.
	Demand(ctx context.Context, key bundle.Key, host string, sure bool) *tls.Certificate
	// ChallengeCertificate answers an authority that checks a host by TLS-ALPN-01; nil when none does.
	ChallengeCertificate(host string) *tls.Certificate
}

// Sites knows the sites, to guard certificates on demand.
type Sites interface {
	// Serves says whether a site of a listener has the host: by its name or a wildcard above it
	// (sure), or by * only.
	Serves(host, listener string) (sure, any bool)
}

// selector chooses the certificate of a handshake.
type selector struct {
	m        *Manager
	listener string
	refuse   bool           // names that no site has
	certs    []*certificate // in the order of the document
	acme     []*certificate // those of an ACME authority
	ca       Authority      // not nil when certificates are made for the name asked for
	hosts    atomic.Pointer[hostTable]
	table    atomic.Pointer[certTable]
}

// hostTable finds the certificates that sites name; wildcards are under what follows their star.
// It is made of documents alone: no certificate is read for it.
type hostTable struct {
	exact, wildcard map[string][]*certificate
}

func newHostTable(hosts []bundle.CertificateHosts, certs map[bundle.Key]*certificate) *hostTable {
	n := 0
	for i := range hosts {
		n += len(hosts[i].Hostnames)
	}
	t := &hostTable{exact: make(map[string][]*certificate, n), wildcard: map[string][]*certificate{}}
	for i := range hosts {
		h := &hosts[i]
		list := make([]*certificate, 0, len(h.Certificates))
		for _, key := range h.Certificates {
			if c := certs[key]; c != nil {
				list = append(list, c)
			}
		}
		for _, name := range h.Hostnames {
			if rest, ok := strings.CutPrefix(name, "*."); ok {
				t.wildcard[rest] = list
			} else {
				t.exact[name] = list
			}
		}
	}
	return t
}

// find finds the certificates of a host: its own, or those of the longest wildcard above it.
func (t *hostTable) find(host string) []*certificate {
	if t == nil {
		return nil
	}
	if c := t.exact[host]; c != nil {
		return c
	}
	for len(t.wildcard) > 0 {
		_, parent, ok := strings.Cut(host, ".")
		if !ok {
			return nil
		}
		if c := t.wildcard[parent]; c != nil {
			return c
		}
		host = parent
	}
	return nil
}

// certTable finds the listener's own certificates by the names in them.
type certTable struct {
	exact, wildcard map[string][]*tls.Certificate
	first           []*tls.Certificate
}

// rebuild follows a change of the certificates.
func (s *selector) rebuild() {
	t := &certTable{exact: map[string][]*tls.Certificate{}, wildcard: map[string][]*tls.Certificate{}}
	for _, c := range s.certs {
		cert := c.current.Load()
		if cert == nil {
			continue
		}
		if t.first == nil {
			t.first = []*tls.Certificate{cert}
		}
		names := cert.Leaf.DNSNames
		if len(names) == 0 && len(cert.Leaf.IPAddresses) == 0 {
			names = []string{cert.Leaf.Subject.CommonName}
		}
		for _, n := range names {
			n = strings.ToLower(n)
			if rest, ok := strings.CutPrefix(n, "*."); ok {
				t.wildcard[rest] = append(t.wildcard[rest], cert)
			} else {
				t.exact[n] = append(t.exact[n], cert)
			}
		}
	}
	s.table.Store(t)
}

var errNoCertificate = errors.New("no certificate")

// get implements tls.Config.GetCertificate, with a staple where there is one.
func (s *selector) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c := s.choose(hello)
	if c == nil {
		return nil, errNoCertificate
	}
	if c.Leaf == nil || len(c.Leaf.OCSPServer) == 0 {
		return c, nil
	}
	pause(hello.Conn, func() { c = s.m.staples.with(hello.Context(), c) })
	return c, nil
}

// choose looks at the site's certificates, then at the listener's by exact name and by wildcard,
// then at what ACME has, then has the internal CA make one, else takes the first.
func (s *selector) choose(hello *tls.ClientHelloInfo) *tls.Certificate {
	t := s.table.Load()
	name := message.ServerName(hello.ServerName)
	wanted := false
	if name != "" {
		if own := s.hosts.Load().find(name); own != nil {
			c, acme := s.ofSite(own, name, hello)
			if c != nil {
				return c
			}
			wanted = acme
		}
		if c := supported(t.exact[name], hello); c != nil {
			return c
		}
		if _, parent, ok := strings.Cut(name, "."); ok {
			if c := supported(t.wildcard[parent], hello); c != nil {
				return c
			}
		}
		c, acme := s.ofACME(name, hello)
		if c != nil {
			return c
		}
		wanted = wanted || acme
	}
	if c := s.internal(name, wanted, hello); c != nil {
		return c
	}
	return supported(t.first, hello)
}

// ofSite gives the first that the client can use of those that a site names. Waiting says that one
// of them is still to be got.
func (s *selector) ofSite(own []*certificate, name string, hello *tls.ClientHelloInfo) (found *tls.Certificate, waiting bool) {
	for _, c := range own {
		var cert *tls.Certificate
		if c.spec.Spec.ACME != nil {
			if s.m.cfg.ACME == nil {
				continue
			}
			if cert = s.m.cfg.ACME.Certificate(c.spec.Key, name); cert == nil {
				waiting = true
			}
		} else {
			cert = c.get(s.m)
		}
		switch {
		case cert == nil:
		case len(own) == 1 || hello.SupportsCertificate(cert) == nil:
			return cert, false
		case found == nil:
			found = cert
		}
	}
	return found, waiting
}

// ofACME asks the listener's own ACME documents, last those that may get a certificate on demand.
func (s *selector) ofACME(name string, hello *tls.ClientHelloInfo) (found *tls.Certificate, waiting bool) {
	demand := false
	for _, c := range s.acme {
		if cert := s.m.cfg.ACME.Certificate(c.spec.Key, name); cert != nil {
			return cert, false
		}
		demand = demand || c.spec.Spec.ACME.OnDemand != nil
		waiting = waiting || c.names(name)
	}
	if !demand || waiting || s.m.cfg.Sites == nil {
		return nil, waiting
	}
	sure, any := s.m.cfg.Sites.Serves(name, s.listener)
	if !sure && !any {
		return nil, false
	}
	ctx := hello.Context()
	for _, c := range s.acme {
		if c.spec.Spec.ACME.OnDemand == nil {
			continue
		}
		pause(hello.Conn, func() { found = s.m.cfg.ACME.Demand(ctx, c.spec.Key, name, sure) })
		if found != nil {
			return found, false
		}
	}
	return nil, sure
}

// internal has the internal CA make a certificate: for every name where the listener says so, for
// names that ACME is still to bring, and for clients that name none where there is nothing else.
func (s *selector) internal(name string, wanted bool, hello *tls.ClientHelloInfo) *tls.Certificate {
	ca, bare := s.ca, len(s.table.Load().first) == 0
	if ca == nil {
		if ca = s.m.cfg.Authority; ca == nil {
			return nil
		}
		if !wanted {
			name = ""
		}
	}
	if name == "" && !bare {
		return nil
	}
	return issue(ca, name, hello.Conn)
}

// supported is the first that the client can use, else the first: it may take it anyhow.
func supported(certs []*tls.Certificate, hello *tls.ClientHelloInfo) *tls.Certificate {
	if len(certs) == 0 {
		return nil
	}
	if len(certs) > 1 {
		for _, c := range certs {
			if hello.SupportsCertificate(c) == nil {
				return c
			}
		}
	}
	return certs[0]
}

// issue makes a certificate for a name, or, without one, for this machine as it was reached.
func issue(ca Authority, name string, nc net.Conn) *tls.Certificate {
	if name != "" {
		if c, err := ca.Issue([]string{name}); err == nil {
			return c
		}
	}
	names := []string{"localhost", "127.0.0.1", "::1"}
	if nc != nil {
		if local := addrPortOf(nc.LocalAddr()).Addr(); local.IsValid() && !local.IsLoopback() && !local.IsUnspecified() {
			names = append(names, local.WithZone("").String())
		}
	}
	c, err := ca.Issue(names)
	if err != nil {
		return nil
	}
	return c
}

// addrPortOf takes a net.Addr as what it is, unmapped.
func addrPortOf(a net.Addr) netip.AddrPort {
	var p netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		p = a.AddrPort()
	case *net.UDPAddr:
		p = a.AddrPort()
	}
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
