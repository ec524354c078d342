package cache

import (
	"bytes"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/http/syntax"
	"github.com/relais-edge/relais/internal/stage"
)

// keyer makes the key of a request: the site, so that tenants never share, the scheme, the
// host with its port, the path as it came, and what counts of the query. The fields and
// cookies of the policy choose among the answers under one key, so that one invalidation
// reaches them all.
type keyer struct {
	query      string // all, none, listed or except
	parameters []parameter
	selector   []byte // the policy's fields and cookies
}

type parameter struct {
	name   string
	prefix bool
}

func newKeyer(k *v1.CacheKey) *keyer {
	out := &keyer{query: k.Query}
	for _, p := range k.Parameters {
		name, prefix := strings.CutSuffix(p, "*")
		out.parameters = append(out.parameters, parameter{name, prefix})
	}
	for _, h := range k.Headers {
		out.selector = semantics.AppendField(out.selector, h)
	}
	for _, c := range k.Cookies {
		out.selector = semantics.AppendCookie(out.selector, c)
	}
	return out
}

// sameKeys says whether both make the same keys of URIs.
func (k *keyer) sameKeys(o *keyer) bool {
	if k.query != o.query || len(k.parameters) != len(o.parameters) {
		return false
	}
	for i := range k.parameters {
		if k.parameters[i] != o.parameters[i] {
			return false
		}
	}
	return true
}

// append appends the key of x's own target.
func (k *keyer) append(dst []byte, x *stage.Exchange) []byte {
	dst = appendOrigin(dst, x)
	return k.appendTarget(dst, x.In.Path(), x.In.Query())
}

// appendOrigin appends the part of the key before the path.
func appendOrigin(dst []byte, x *stage.Exchange) []byte {
	dst = append(dst, x.Site.Key...)
	if x.In.Secure {
		dst = append(dst, " https://"...)
	} else {
		dst = append(dst, " http://"...)
	}
	dst = append(dst, x.Host...)
	return append(dst, port(x.In.Authority(), x.In.Secure)...)
}

// port is the port of an authority with its colon; empty when it is the scheme's own.
func port(authority []byte, secure bool) []byte {
	i := bytes.LastIndexByte(authority, ':')
	if i < 0 || bytes.IndexByte(authority[i:], ']') >= 0 {
		return nil
	}
	p := authority[i:]
	if len(p) == 1 || secure && string(p) == ":443" || !secure && string(p) == ":80" {
		return nil
	}
	return p
}

func (k *keyer) appendTarget(dst, path, query []byte) []byte {
	dst = append(dst, path...)
	switch k.query {
	case "none":
		return dst
	case "listed", "except":
		return k.appendParameters(dst, query)
	}
	if len(query) > 0 {
		dst = append(dst, '?')
		dst = append(dst, query...)
	}
	return dst
}

// appendParameters appends the parameters that count, as they came and in their order.
func (k *keyer) appendParameters(dst, query []byte) []byte {
	sep := byte('?')
	for len(query) > 0 {
		// Some origins split at semicolons too; a parameter must not hide behind one.
		end := bytes.IndexAny(query, "&;")
		p := query
		if end >= 0 {
			p, query = query[:end], query[end+1:]
		} else {
			query = nil
		}
		if len(p) == 0 || k.names(p) != (k.query == "listed") {
			continue
		}
		dst = append(dst, sep)
		dst = append(dst, p...)
		sep = '&'
	}
	return dst
}

// names says whether one of the policy's parameters is that of p, which is name=value.
func (k *keyer) names(p []byte) bool {
	for i := range k.parameters {
		if k.parameters[i].is(p) {
			return true
		}
	}
	return false
}

// is compares with percent-encoding undone, and with an index such as [0] left off: an origin
// reads the name so, and what it reads must be in the key.
func (q *parameter) is(p []byte) bool {
	n := 0
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch {
		case c == '=' || c == '[':
			return n == len(q.name)
		case c == '%' && i+2 < len(p):
			if v, ok := unhex(p[i+1], p[i+2]); ok {
				c = v
				i += 2
			}
			if c == '[' {
				return n == len(q.name)
			}
		}
		if n == len(q.name) {
			return q.prefix
		}
		if c != q.name[n] {
			return false
		}
		n++
	}
	return n == len(q.name)
}

func unhex(a, b byte) (byte, bool) {
	h, ok1 := syntax.Unhex(a)
	l, ok2 := syntax.Unhex(b)
	return h<<4 | l, ok1 && ok2
}
