package compile

import (
	"strconv"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// Platform is what a tenant's documents are held against: the operator's own organization, which alone
// opens ports. Sites of every organization may name its listeners, and those that name none are served
// by all of them.
type Platform struct {
	Organization string
	// Listeners of the organization, with defaults. They decide whether a tenant's documents are good, but
	// what is compiled holds no more of them than the keys that a document names. They are not looked at
	// for the platform itself, whose own documents say it.
	Listeners []*v1.Listener
}

// Tenant makes the bundle of one organization of its documents alone, which are as for Compile. It is
// the same whatever the platform's listeners are, as long as they bear the names that the documents
// name: ports of https and the listeners that show the certificates in Hosts come when bundles are
// merged. What only documents of several organizations can have between them, two sites with one
// host name, is found there too.
func Tenant(organization string, docs []v1.Document, p Platform) (*bundle.Bundle, []Problem) {
	c := &compiler{index: newIndex(docs), shared: p.Organization, open: true}
	for _, d := range docs {
		c.belongs(organization, d)
	}
	c.borrow(organization, p)
	b := &bundle.Bundle{Format: bundle.Format, Organization: organization}
	c.ports(b)
	for _, d := range c.certificates.sorted() {
		b.Certificates = append(b.Certificates, bundle.Certificate{Key: keyOf(d), Spec: d.Spec})
	}
	sites := c.sites.sorted()
	for _, d := range sites {
		s, h := c.siteWithHosts(d)
		b.Sites = append(b.Sites, s)
		if h.Site != "" {
			b.Hosts = append(b.Hosts, h)
		}
	}
	c.hostConflicts(sites, b.Sites)
	for _, d := range c.pools.sorted() {
		c.clientCertificate(d)
	}
	if len(c.problems) > 0 {
		return nil, c.problems
	}
	return b, nil
}

// belongs reports a document that an organization may not have.
func (c *compiler) belongs(organization string, d v1.Document) {
	kind, m := d.Meta()
	if m.Organization != organization {
		c.problem(d, "metadata.organization", "is "+strconv.Quote(m.Organization)+" among the documents of "+strconv.Quote(organization), "compile the document with those of its own organization")
		return
	}
	if organization != c.shared && opens(d) {
		c.problem(d, "kind", "is "+string(kind)+", which opens ports, and ports belong to the organization "+strconv.Quote(c.shared),
			"remove the document; a Site is served by the listeners of "+strconv.Quote(c.shared)+" without naming one")
	}
}

// opens says whether a document opens ports.
func opens(d v1.Document) bool {
	switch d.(type) {
	case *v1.Listener, *v1.Service:
		return true
	}
	return false
}

// borrow puts the platform's listeners in the place of those of any other organization.
func (c *compiler) borrow(organization string, p Platform) {
	if organization == p.Organization {
		return
	}
	c.listenerDocs, c.services = table[*v1.Listener]{}, nil
	for _, d := range p.Listeners {
		c.listenerDocs.put(d)
	}
}

// ports compiles what opens ports; of an organization that borrows there is nothing.
func (c *compiler) ports(b *bundle.Bundle) {
	if b.Organization != c.shared {
		return
	}
	c.listeners(b)
	for _, d := range c.services.sorted() {
		b.Services = append(b.Services, c.service(d))
	}
	c.addressConflicts()
}

// siteWithHosts compiles a site and the certificates that it names; without any, hosts.Site is empty.
func (c *compiler) siteWithHosts(d *v1.Site) (s *bundle.Site, hosts bundle.CertificateHosts) {
	s = c.site(d)
	if h, ok := c.certificatesOf(d); ok {
		hosts = h
		hosts.Site, hosts.Listeners = s.Key, s.Listeners
	}
	return s, hosts
}
