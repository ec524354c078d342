package access

import (
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/stage"
)

// certificate is what a rule asks of a visitor's certificate. Of each kind that is given one has to match.
type certificate struct {
	kinds []certificateKind
}

// certificateKind is one kind of name in a certificate.
type certificateKind struct {
	which    int
	fold     bool
	patterns []pattern
}

const (
	dnsNames = iota
	uris
	emails
	subjects
	issuers
	fingerprints
)

// pattern is a text with at most one *, which stands for any text.
type pattern struct {
	before, after string
	star          bool
}

func newCertificate(m *v1.ClientCertificateMatch) *certificate {
	c := &certificate{}
	for _, k := range [...]struct {
		which int
		fold  bool
		list  []string
	}{
		{dnsNames, true, m.DNSNames},
		{uris, false, m.URIs},
		{emails, true, m.Emails},
		{subjects, false, m.Subjects},
		{issuers, false, m.Issuers},
		{fingerprints, true, m.Fingerprints},
	} {
		if len(k.list) == 0 {
			continue
		}
		kind := certificateKind{which: k.which, fold: k.fold}
		for _, text := range k.list {
			var p pattern
			p.before, p.after, p.star = strings.Cut(text, "*")
			kind.patterns = append(kind.patterns, p)
		}
		c.kinds = append(c.kinds, kind)
	}
	return c
}

// holds says whether the visitor's verified certificate matches. It allocates nothing.
func (c *certificate) holds(x *stage.Exchange) bool {
	if x.In.Conn == nil || x.In.Conn.TLS == nil || x.In.Conn.TLS.Identity == nil {
		return false
	}
	id := x.In.Conn.TLS.Identity
	for i := range c.kinds {
		k := &c.kinds[i]
		ok := false
		switch k.which {
		case dnsNames:
			ok = k.any(id.DNSNames)
		case uris:
			ok = k.any(id.URIs)
		case emails:
			ok = k.any(id.Emails)
		case subjects:
			ok = k.one(id.Subject)
		case issuers:
			ok = k.one(id.Issuer)
		case fingerprints:
			ok = k.one(id.Fingerprint)
		}
		if !ok {
			return false
		}
	}
	return true
}

func (k *certificateKind) any(names []string) bool {
	for _, n := range names {
		if k.one(n) {
			return true
		}
	}
	return false
}

func (k *certificateKind) one(name string) bool {
	same := func(a, b string) bool { return a == b || k.fold && strings.EqualFold(a, b) }
	for i := range k.patterns {
		p := &k.patterns[i]
		if !p.star {
			if same(name, p.before) {
				return true
			}
			continue
		}
		n := len(name) - len(p.after)
		if n >= len(p.before) && same(name[:len(p.before)], p.before) && same(name[n:], p.after) {
			return true
		}
	}
	return false
}
