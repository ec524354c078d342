package cache

import (
	"bytes"
	"slices"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/http/message"
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
	sort       bool
	selector   []byte // the policy's fields and cookies
	headers    []string
}

// parameter is the name of one, or how it begins.
type parameter struct {
	name   string
	prefix bool
}

func newKeyer(k *v1.CacheKey) *keyer {
	out := &keyer{query: k.Query, headers: k.Headers, sort: k.Sort}
	for _, p := range k.Parameters {
		if p == v1.MarketingParameters {
			out.parameters = append(out.parameters, marketing[:]...)
			continue
		}
		name, prefix := strings.CutSuffix(p, "*")
		out.parameters = append(out.parameters, parameter{name, prefix})
	}
	for _, h := range k.Headers {
		out.selector = semantics.AppendField(out.selector, h)
	}
	if len(k.Languages) > 0 {
		out.selector = semantics.AppendField(out.selector, message.AcceptLanguage.String())
	}
	if k.Device {
		out.selector = semantics.AppendField(out.selector, deviceField)
	}
	for _, c := range k.Cookies {
		out.selector = semantics.AppendCookie(out.selector, c)
	}
	return out
}

// sameKeys says whether both make the same keys of URIs.
func (k *keyer) sameKeys(o *keyer) bool {
	return k.query == o.query && k.sort == o.sort && slices.Equal(k.parameters, o.parameters)
}

// append appends the key of x's own target.
func (k *keyer) append(dst []byte, x *stage.Exchange) []byte {
	dst = appendOrigin(dst, x)
	return appendVariant(k.appendTarget(dst, x.In.Path(), x.Query()), x)
}

// appendVariant appends which form of the resource is wanted. No target has a space.
func appendVariant(dst []byte, x *stage.Exchange) []byte {
	if len(x.Variant) == 0 {
		return dst
	}
	dst = append(dst, ' ')
	return append(dst, x.Variant...)
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
	switch {
	case len(query) == 0 || k.query == "none":
		return dst
	case k.sort || k.query == "listed" || k.query == "except":
		return k.appendParameters(dst, query)
	}
	dst = append(dst, '?')
	return append(dst, query...)
}

// maxSorted bounds the parameters of a query that are sorted.
const maxSorted = 64

// appendParameters appends the parameters that count, as they came; sorted where the policy wants it.
func (k *keyer) appendParameters(dst, query []byte) []byte {
	base, sep := len(dst), byte('?')
	var spans [maxSorted]span
	n := 0
	sortable := k.sort
	for len(query) > 0 {
		p, rest, _ := bytes.Cut(query, amp)
		query = rest
		if len(p) == 0 || !k.counts(p) {
			continue
		}
		dst = append(dst, sep)
		if n < maxSorted {
			spans[n] = span{len(dst), len(dst) + len(p)}
		}
		n++
		// Who splits at semicolons too sees parameters of several names in one.
		sortable = sortable && bytes.IndexByte(p, ';') < 0
		dst = append(dst, p...)
		sep = '&'
	}
	if !sortable || n < 2 || n > maxSorted {
		return dst
	}
	for i := 1; i < n; i++ {
		for j := i; j > 0 && byName(dst[spans[j].from:spans[j].to], dst[spans[j-1].from:spans[j-1].to]) < 0; j-- {
			spans[j], spans[j-1] = spans[j-1], spans[j]
		}
	}
	// The sorted ones are written behind, then over the others.
	end := len(dst)
	sep = '?'
	for _, s := range spans[:n] {
		dst = append(dst, sep)
		dst = append(dst, dst[s.from:s.to]...)
		sep = '&'
	}
	return dst[:base+copy(dst[base:], dst[end:])]
}

var amp = []byte{'&'}

// counts says whether what stands between two ampersands counts. Some origins split at semicolons too:
// it counts as soon as one reading of it does, and then as a whole, so that nothing hides behind a semicolon.
func (k *keyer) counts(p []byte) bool {
	switch k.query {
	case "listed", "except":
	default:
		return true
	}
	for len(p) > 0 {
		one, rest := p, []byte(nil)
		if i := bytes.IndexByte(p, ';'); i >= 0 {
			one, rest = p[:i], p[i+1:]
		}
		if p = rest; len(one) > 0 && k.names(one) == (k.query == "listed") {
			return true
		}
	}
	return false
}

// names says whether one of the policy's parameters is that of p, which is name=value.
func (k *keyer) names(p []byte) bool {
	return slices.ContainsFunc(k.parameters, func(q parameter) bool { return q.is(p) })
}

// is compares with percent-encoding undone, and with an index such as [0] left off: an origin
// reads the name so, and what it reads must be in the key.
func (q parameter) is(p []byte) bool {
	n := 0
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch {
		case c == '=' || c == '[':
			return n == len(q.name)
		case c == '%' && i+2 < len(p):
			if v, ok := syntax.UnhexPair(p[i+1], p[i+2]); ok {
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

// byName compares the names of two parameters, which are name=value. Names that some origin reads as one are
// equal, so that their order stays: in another case, encoded, with an index, or with a dot or a space for the
// underscore that PHP makes of them.
func byName(a, b []byte) int {
	for {
		x, xn := nameByte(a)
		y, yn := nameByte(b)
		if x != y || xn == 0 {
			return int(x) - int(y)
		}
		a, b = a[xn:], b[yn:]
	}
}

// nameByte is the first byte of a parameter's name as byName reads it, and how many it came as; 0 at its end.
func nameByte(p []byte) (c byte, n int) {
	if len(p) == 0 {
		return 0, 0
	}
	c, n = p[0], 1
	if c == '=' {
		return 0, 0
	}
	if c == '%' && len(p) > 2 {
		if v, ok := syntax.UnhexPair(p[1], p[2]); ok {
			c, n = v, 3
		}
	}
	switch {
	case c == '[' || c == 0:
		return 0, 0
	case c == '.' || c == ' ' || c == '+':
		return '_', n
	case 'A' <= c && c <= 'Z':
		return c | 0x20, n
	}
	return c, n
}
