package compile

import (
	"cmp"
	"slices"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// Incremental compiles one organization again and again: what a change of documents does not reach is
// not compiled anew, and stands in the next bundle by the same pointers. Its bundles are those of
// Tenant. It keeps every document, so it is made for the organizations that change, and forgotten with
// them. It is not safe for concurrent use.
type Incremental struct {
	organization string
	platform     Platform
	documents    map[named]kept
	index        index // of documents; listeners and services are the organization's own
	strays       int   // documents that the organization may not have

	sites   []*compiledSite // by key
	certs   []bundle.Certificate
	changed map[named]bool // since the last Compile
	// What was good at the last Compile need not be looked at again.
	hostsGood, poolsGood bool
}

// named is a document of the organization.
type named struct {
	kind v1.Kind
	name string
}

// kept is a document and its revision.
type kept struct {
	doc      v1.Document
	revision int64
}

type compiledSite struct {
	doc   *v1.Site
	names []named // documents that it needs, also those that there are not
	site  *bundle.Site
	hosts bundle.CertificateHosts
	bad   bool
}

// NewIncremental makes one without documents.
func NewIncremental(organization string, p Platform) *Incremental {
	return &Incremental{organization: organization, platform: p, documents: map[named]kept{}, index: newIndex(nil), changed: map[named]bool{}}
}

// Revision is that of a document which was put; 0 when it is not there. Who finds the revision that he
// would put need not decode the document.
func (c *Incremental) Revision(kind v1.Kind, name string) int64 {
	return c.documents[named{kind, name}].revision
}

// Put adds or replaces a document, which is as for Compile and belongs to Incremental from now on. The
// revision is not 0.
func (c *Incremental) Put(d v1.Document, revision int64) {
	kind, m := d.Meta()
	n := named{kind, m.Name}
	c.take(n)
	c.documents[n], c.changed[n] = kept{d, revision}, true
	if c.stray(d) {
		c.strays++
		return
	}
	c.index.put(d)
	switch d := d.(type) {
	case *v1.Site:
		i, there := c.site(keyOf(d))
		if !there {
			c.sites = slices.Insert(c.sites, i, &compiledSite{doc: d, bad: true})
			c.hostsGood = false
			return
		}
		c.hostsGood = c.hostsGood && slices.Equal(c.sites[i].doc.Spec.Hostnames, d.Spec.Hostnames) && slices.Equal(c.sites[i].doc.Spec.Listeners, d.Spec.Listeners)
		c.sites[i] = &compiledSite{doc: d, bad: true}
	case *v1.Certificate:
		i, there := c.certificate(keyOf(d))
		if !there {
			c.certs = slices.Insert(c.certs, i, bundle.Certificate{})
		}
		c.certs[i] = bundle.Certificate{Key: keyOf(d), Spec: d.Spec}
		c.poolsGood = false
	case *v1.OriginPool:
		c.poolsGood = c.poolsGood && !showsCertificate(d)
	}
}

// Delete removes a document, which need not be there.
func (c *Incremental) Delete(kind v1.Kind, name string) {
	n := named{kind, name}
	if _, there := c.documents[n]; !there {
		return
	}
	c.take(n)
	delete(c.documents, n)
	c.changed[n] = true
	key := bundle.NewKey(c.organization, name)
	switch kind {
	case v1.KindSite:
		if i, there := c.site(key); there {
			c.sites = slices.Delete(c.sites, i, i+1)
		}
	case v1.KindCertificate:
		if i, there := c.certificate(key); there {
			c.certs = slices.Delete(c.certs, i, i+1)
		}
		c.poolsGood = false
	}
}

// take removes a document from the index.
func (c *Incremental) take(n named) {
	switch d := c.documents[n].doc; {
	case d == nil:
	case c.stray(d):
		c.strays--
	default:
		c.index.remove(d)
	}
}

// stray says whether a document may not be in the organization; Tenant says why.
func (c *Incremental) stray(d v1.Document) bool {
	_, m := d.Meta()
	return m.Organization != c.organization || c.organization != c.platform.Organization && opens(d)
}

func showsCertificate(d *v1.OriginPool) bool {
	t := d.Spec.Connection.TLS
	return t != nil && t.ClientCertificate != ""
}

func (c *Incremental) site(key bundle.Key) (int, bool) {
	return slices.BinarySearchFunc(c.sites, key, func(s *compiledSite, k bundle.Key) int { return cmp.Compare(keyOf(s.doc), k) })
}

func (c *Incremental) certificate(key bundle.Key) (int, bool) {
	return slices.BinarySearchFunc(c.certs, key, func(s bundle.Certificate, k bundle.Key) int { return cmp.Compare(s.Key, k) })
}

// SetListeners has the documents held against other listeners of the platform.
func (c *Incremental) SetListeners(listeners []*v1.Listener) {
	if slices.Equal(listeners, c.platform.Listeners) {
		return
	}
	c.platform.Listeners, c.hostsGood = listeners, false
	for _, s := range c.sites {
		s.bad = true
	}
}

// Compile gives the bundle of the documents, or their problems, as Tenant does.
func (c *Incremental) Compile() (*bundle.Bundle, []Problem) {
	b, good := c.compile()
	if !good {
		return Tenant(c.organization, c.list(), c.platform) // it knows all problems, in their order
	}
	return b, nil
}

func (c *Incremental) compile() (b *bundle.Bundle, good bool) {
	if c.strays > 0 {
		return nil, false
	}
	k := &compiler{index: c.index, shared: c.platform.Organization, open: true}
	k.borrow(c.organization, c.platform)
	if c.organization == c.platform.Organization {
		c.portsChanged()
	}
	c.compileSites(k)
	clear(c.changed)
	b = &bundle.Bundle{Format: bundle.Format, Organization: c.organization}
	k.ports(b)
	if !c.poolsGood {
		for _, d := range c.index.pools {
			k.clientCertificate(d)
		}
		c.poolsGood = len(k.problems) == 0
	}
	c.fill(b)
	if len(k.problems) > 0 {
		return nil, false
	}
	if !c.hostsGood {
		docs := make([]*v1.Site, len(c.sites))
		for i, s := range c.sites {
			docs[i] = s.doc
		}
		k.hostConflicts(docs, b.Sites)
		c.hostsGood = len(k.problems) == 0
	}
	return b, len(k.problems) == 0
}

// portsChanged has the sites of the platform compiled when its listeners changed: they say where a
// pool leads in a circle.
func (c *Incremental) portsChanged() {
	for n := range c.changed {
		if n.kind == v1.KindListener {
			c.hostsGood = false
			for _, s := range c.sites {
				s.bad = true
			}
			return
		}
	}
}

// compileSites compiles the sites that changes reach. One with problems is bad, and compiled at each call.
func (c *Incremental) compileSites(k *compiler) {
	policies := 0
	for n := range c.changed {
		if n.kind != v1.KindSite {
			policies++
		}
	}
	for _, s := range c.sites {
		if !s.bad && (policies == 0 || !slices.ContainsFunc(s.names, func(n named) bool { return c.changed[n] })) {
			continue
		}
		before := len(k.problems)
		var names []named
		k.named = func(kind v1.Kind, name string) {
			if n := (named{kind, name}); !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
		s.site, s.hosts = k.siteWithHosts(s.doc)
		s.names, s.bad = slices.Clip(names), len(k.problems) > before
	}
	k.named = nil
}

func (c *Incremental) fill(b *bundle.Bundle) {
	b.Certificates = append(b.Certificates, c.certs...)
	for _, s := range c.sites {
		b.Sites = append(b.Sites, s.site)
		if s.hosts.Site != "" {
			b.Hosts = append(b.Hosts, s.hosts)
		}
	}
}

// list gives the documents in an order of their own: of two problems, Tenant tells the same one first.
func (c *Incremental) list() []v1.Document {
	docs := make([]v1.Document, 0, len(c.documents))
	for _, d := range c.documents {
		docs = append(docs, d.doc)
	}
	slices.SortFunc(docs, func(a, b v1.Document) int {
		ka, ma := a.Meta()
		kb, mb := b.Meta()
		return cmp.Or(cmp.Compare(ka, kb), cmp.Compare(ma.Name, mb.Name))
	})
	return docs
}
