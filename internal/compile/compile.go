// Package compile joins documents into a bundle: it resolves every reference, hands a site's policies
// down to its routes and finds what cannot stand side by side. It is pure: the same documents give
// the same bundle, byte for byte, and nothing is read but them.
package compile

import (
	"maps"
	"slices"
	"strconv"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// Problem is something wrong between documents.
type Problem struct {
	// Document is the one to mend.
	Document v1.Document
	v1.Problem
}

// maxProblems are told; who has more mends these first.
const maxProblems = 200

// Compile makes a bundle of documents to which Default was applied and in which Validate found nothing.
// It does not change them; the bundle shares their specs. When there are problems the bundle is nil.
// Documents with problems of their own may be among them: they are found when others name them, and
// what is wrong between documents is told all the same.
func Compile(docs []v1.Document) (*bundle.Bundle, []Problem) {
	c := &compiler{index: newIndex(docs), shared: defaultOrganization}
	b := &bundle.Bundle{Format: bundle.Format}
	c.listeners(b)
	for _, d := range c.certificates.sorted() {
		b.Certificates = append(b.Certificates, bundle.Certificate{Key: keyOf(d), Spec: d.Spec})
	}
	sites := c.sites.sorted()
	b.Sites = make([]*bundle.Site, 0, len(sites))
	for _, d := range sites {
		b.Sites = append(b.Sites, c.site(d))
	}
	c.siteCertificates(b, sites)
	c.hostConflicts(sites, b.Sites)
	for _, d := range c.services.sorted() {
		b.Services = append(b.Services, c.service(d))
	}
	for _, d := range c.pools.sorted() {
		c.clientCertificate(d)
	}
	c.addressConflicts()
	if len(c.problems) > 0 {
		return nil, c.problems
	}
	if len(b.Sites) == 0 {
		b.Sites = nil
	}
	return b, nil
}

func keyOf(d v1.Document) bundle.Key {
	_, m := d.Meta()
	return bundle.NewKey(m.Organization, m.Name)
}

// table holds the documents of one kind. Of two with one key, the first counts.
type table[T v1.Document] map[bundle.Key]T

func (t table[T]) put(d T) {
	k := keyOf(d)
	if _, there := t[k]; !there {
		t[k] = d
	}
}

func (t table[T]) sorted() []T {
	keys := slices.Sorted(maps.Keys(t))
	list := make([]T, len(keys))
	for i, k := range keys {
		list[i] = t[k]
	}
	return list
}

type index struct {
	listenerDocs table[*v1.Listener]
	certificates table[*v1.Certificate]
	sites        table[*v1.Site]
	services     table[*v1.Service]
	pools        table[*v1.OriginPool]
	caches       table[*v1.CachePolicy]
	images       table[*v1.ImagePolicy]
	wafs         table[*v1.WafPolicy]
	access       table[*v1.AccessPolicy]
	jwts         table[*v1.JwtPolicy]
	apis         table[*v1.ApiPolicy]
	rateLimits   table[*v1.RateLimit]
	visitors     table[*v1.VisitorPolicy]
	rooms        table[*v1.WaitingRoom]
	bots         table[*v1.BotPolicy]
	floods       table[*v1.FloodPolicy]
}

func newIndex(docs []v1.Document) index {
	x := index{
		table[*v1.Listener]{},
		table[*v1.Certificate]{},
		make(table[*v1.Site], len(docs)),
		table[*v1.Service]{},
		table[*v1.OriginPool]{},
		table[*v1.CachePolicy]{},
		table[*v1.ImagePolicy]{},
		table[*v1.WafPolicy]{},
		table[*v1.AccessPolicy]{},
		table[*v1.JwtPolicy]{},
		table[*v1.ApiPolicy]{},
		table[*v1.RateLimit]{},
		table[*v1.VisitorPolicy]{},
		table[*v1.WaitingRoom]{},
		table[*v1.BotPolicy]{},
		table[*v1.FloodPolicy]{},
	}
	for _, d := range docs {
		x.put(d)
	}
	return x
}

func (x *index) put(d v1.Document) {
	switch d := d.(type) {
	case *v1.Listener:
		x.listenerDocs.put(d)
	case *v1.Certificate:
		x.certificates.put(d)
	case *v1.Site:
		x.sites.put(d)
	case *v1.Service:
		x.services.put(d)
	case *v1.OriginPool:
		x.pools.put(d)
	case *v1.CachePolicy:
		x.caches.put(d)
	case *v1.ImagePolicy:
		x.images.put(d)
	case *v1.WafPolicy:
		x.wafs.put(d)
	case *v1.AccessPolicy:
		x.access.put(d)
	case *v1.JwtPolicy:
		x.jwts.put(d)
	case *v1.ApiPolicy:
		x.apis.put(d)
	case *v1.RateLimit:
		x.rateLimits.put(d)
	case *v1.VisitorPolicy:
		x.visitors.put(d)
	case *v1.WaitingRoom:
		x.rooms.put(d)
	case *v1.BotPolicy:
		x.bots.put(d)
	case *v1.FloodPolicy:
		x.floods.put(d)
	}
}

func (x *index) remove(d v1.Document) {
	k := keyOf(d)
	switch d.(type) {
	case *v1.Listener:
		delete(x.listenerDocs, k)
	case *v1.Certificate:
		delete(x.certificates, k)
	case *v1.Site:
		delete(x.sites, k)
	case *v1.Service:
		delete(x.services, k)
	case *v1.OriginPool:
		delete(x.pools, k)
	case *v1.CachePolicy:
		delete(x.caches, k)
	case *v1.ImagePolicy:
		delete(x.images, k)
	case *v1.WafPolicy:
		delete(x.wafs, k)
	case *v1.AccessPolicy:
		delete(x.access, k)
	case *v1.JwtPolicy:
		delete(x.jwts, k)
	case *v1.ApiPolicy:
		delete(x.apis, k)
	case *v1.RateLimit:
		delete(x.rateLimits, k)
	case *v1.VisitorPolicy:
		delete(x.visitors, k)
	case *v1.WaitingRoom:
		delete(x.rooms, k)
	case *v1.BotPolicy:
		delete(x.bots, k)
	case *v1.FloodPolicy:
		delete(x.floods, k)
	}
}

type compiler struct {
	index
	// shared is the organization whose listeners every other may name.
	shared string
	// open says that the ports of https come when bundles are merged.
	open     bool
	problems []Problem
	// named, when not nil, gathers what the documents name.
	named  func(v1.Kind, string)
	looped map[*v1.OriginPoolSpec][]loop
}

func (c *compiler) problem(d v1.Document, field, what, fix string) {
	if len(c.problems) < maxProblems {
		c.problems = append(c.problems, Problem{Document: d, Problem: v1.Problem{Field: field, What: what, Fix: fix}})
	}
}

// listeners compiles the listeners, each with the keys of its certificates.
func (c *compiler) listeners(b *bundle.Bundle) {
	for _, d := range c.listenerDocs.sorted() {
		l := bundle.Listener{Key: keyOf(d), Spec: d.Spec}
		if d.Spec.TLS != nil {
			for i, name := range d.Spec.TLS.Certificates {
				if _, key, ok := resolve(c, c.certificates, d, name, ref{whole, "tls.certificates", i, ""}); ok {
					l.Certificates = append(l.Certificates, key)
				}
			}
		}
		b.Listeners = append(b.Listeners, l)
	}
}

func (c *compiler) service(d *v1.Service) bundle.Service {
	s := bundle.Service{Key: keyOf(d), Spec: d.Spec}
	if pool, _, ok := resolve(c, c.pools, d, d.Spec.Pool, ref{whole, "pool", alone, ""}); ok {
		s.Pool = &pool.Spec
		c.servicePool(d, &pool.Spec.Connection)
		if pool.Spec.Retries.Hedge != nil {
			c.problem(d, "spec.pool", "OriginPool "+strconv.Quote(d.Spec.Pool)+" hedges requests, and a service knows no requests", "name a pool without retries.hedge")
		}
	}
	return s
}

// servicePool finds what of a pool's connection a service cannot do.
func (c *compiler) servicePool(d *v1.Service, conn *v1.ConnectionSpec) {
	pool := strconv.Quote(d.Spec.Pool)
	switch {
	case conn.TLS != nil && d.Spec.Protocol == "tls-passthrough":
		c.problem(d, "spec.pool", "OriginPool "+pool+" speaks TLS itself, but the TLS of a tls-passthrough service is the client's", "name a pool without connection.tls")
	case conn.TLS != nil && d.Spec.Protocol == "udp":
		c.problem(d, "spec.pool", "OriginPool "+pool+" speaks TLS, which a udp service cannot", "name a pool without connection.tls")
	}
	if d.Spec.Protocol == "udp" && conn.ProxyProtocol == "v1" {
		c.problem(d, "spec.pool", "OriginPool "+pool+" speaks version 1 of the PROXY protocol, which has no form for UDP", "write connection.proxyProtocol: v2 in the pool")
	}
	if conn.Signature != nil {
		c.problem(d, "spec.pool", "OriginPool "+pool+" signs requests, and a service knows no requests", "name a pool without connection.signature")
	}
}

// clientCertificate resolves the certificate that a pool shows to origins.
func (c *compiler) clientCertificate(d *v1.OriginPool) {
	t := d.Spec.Connection.TLS
	if t == nil || t.ClientCertificate == "" {
		return
	}
	cert, _, ok := resolve(c, c.certificates, d, t.ClientCertificate, ref{whole, "connection.tls.clientCertificate", alone, ""})
	if ok && cert.Spec.Internal != nil && len(cert.Spec.Internal.Hostnames) == 0 {
		c.problem(d, "spec.connection.tls.clientCertificate", "Certificate "+strconv.Quote(t.ClientCertificate)+" has no name", "give internal.hostnames in the Certificate")
	}
}
