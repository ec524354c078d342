package cache

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
	"github.com/relais-edge/relais/internal/stage"
)

// detour is a rule of a policy's bypass: requests that it matches are neither looked up nor stored.
type detour struct {
	cookies, parameters, headers []named
	suffixes, except             []string // in lower case
	// part is what Cache-Status tells, and words what the trail does.
	part, words string
}

// named is a name, how one begins, or a name with a value.
type named struct {
	parameter
	exact bool
	value string
}

func newNamed(list []string) []named {
	var out []named
	for _, s := range list {
		name, value, exact := strings.Cut(s, "=")
		name, prefix := strings.CutSuffix(name, "*")
		out = append(out, named{parameter{name, prefix}, exact, value})
	}
	return out
}

func newDetours(specs []v1.CacheBypass) []detour {
	var out []detour
	for i := range specs {
		b := &specs[i]
		d := detour{
			cookies: newNamed(b.Cookies), parameters: newNamed(b.Parameters), headers: newNamed(b.Headers),
			suffixes: lowered(b.Suffixes), except: lowered(b.ExceptSuffixes),
		}
		list := b.ExceptSuffixes
		switch {
		case len(d.cookies) > 0:
			d.part, list = "cookie", b.Cookies
		case len(d.parameters) > 0:
			d.part, list = "parameter", b.Parameters
		case len(d.headers) > 0:
			d.part, list = "header", b.Headers
		case len(d.suffixes) > 0:
			d.part, list = "path", b.Suffixes
		default:
			d.part = "path"
		}
		d.words = fmt.Sprintf("bypass[%d], %s %s", i, d.part, strings.Join(list, ", "))
		out = append(out, d)
	}
	return out
}

func lowered(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strings.ToLower(s)
	}
	return out
}

// detourOf is the first rule that matches x, or nil.
func (r *rule) detourOf(x *stage.Exchange) *detour {
	for i := range r.detours {
		if d := &r.detours[i]; d.matches(x) {
			return d
		}
	}
	return nil
}

func (d *detour) matches(x *stage.Exchange) bool {
	return (len(d.suffixes) == 0 || hasSuffix(x.Path, d.suffixes)) && !hasSuffix(x.Path, d.except) &&
		(len(d.cookies) == 0 || hasCookie(&x.In.Fields, d.cookies)) &&
		(len(d.parameters) == 0 || hasParameter(x.Query(), d.parameters)) &&
		(len(d.headers) == 0 || hasHeader(&x.In.Fields, d.headers))
}

// hasSuffix says whether a path ends with one of list, in any case.
func hasSuffix(path []byte, list []string) bool {
	for _, s := range list {
		if s == v1.StaticSuffixes {
			if fileLike(path) {
				return true
			}
		} else if len(path) >= len(s) && message.EqualFold(path[len(path)-len(s):], s) {
			return true
		}
	}
	return false
}

// hasCookie says whether a request has one of the cookies (RFC 6265 section 4.2.1).
func hasCookie(f *message.Fields, list []named) bool {
	for i := f.Next(message.Cookie, 0); i >= 0; i = f.Next(message.Cookie, i+1) {
		_, _, v := f.At(i)
		for len(v) > 0 {
			pair, rest, _ := bytes.Cut(v, semicolon)
			v = rest
			name, value, _ := bytes.Cut(bytes.TrimSpace(pair), equals)
			name = bytes.TrimSpace(name)
			for j := range list {
				n := &list[j]
				if (n.prefix && len(name) >= len(n.name) && string(name[:len(n.name)]) == n.name || string(name) == n.name) &&
					(!n.exact || string(unquoted(value)) == n.value) {
					return true
				}
			}
		}
	}
	return false
}

var semicolon, equals = []byte{';'}, []byte{'='}

// unquoted is a cookie's value without the quotation marks that may stand around it.
func unquoted(v []byte) []byte {
	v = bytes.TrimSpace(v)
	if n := len(v); n >= 2 && v[0] == '"' && v[n-1] == '"' {
		return v[1 : n-1]
	}
	return v
}

// hasParameter says whether a query has one of the parameters, as some origin may read it.
func hasParameter(query []byte, list []named) bool {
	for len(query) > 0 {
		end := bytes.IndexAny(query, "&;")
		p := query
		if end >= 0 {
			p, query = query[:end], query[end+1:]
		} else {
			query = nil
		}
		for j := range list {
			if n := &list[j]; n.is(p) && (!n.exact || sameValue(p, n.value)) {
				return true
			}
		}
	}
	return false
}

// sameValue says whether the value of p, which is name=value, is want once it is decoded.
func sameValue(p []byte, want string) bool {
	_, v, _ := bytes.Cut(p, equals)
	for len(v) > 0 && len(want) > 0 {
		c, n := v[0], 1
		if c == '+' {
			c = ' '
		} else if c == '%' && len(v) > 2 {
			if d, ok := syntax.UnhexPair(v[1], v[2]); ok {
				c, n = d, 3
			}
		}
		if c != want[0] {
			return false
		}
		v, want = v[n:], want[1:]
	}
	return len(v) == 0 && len(want) == 0
}

// hasHeader says whether a request has one of the fields.
func hasHeader(f *message.Fields, list []named) bool {
	for i := range f.Len() {
		_, name, value := f.At(i)
		for j := range list {
			n := &list[j]
			if (n.prefix && len(name) >= len(n.name) && message.EqualFold(name[:len(n.name)], n.name) || message.EqualFold(name, n.name)) &&
				(!n.exact || string(value) == n.value) {
				return true
			}
		}
	}
	return false
}

// goAround forwards a request that a rule of the policy matches.
func (s *Stage) goAround(ctx context.Context, x *stage.Exchange, next stage.Handler, r *rule, d *detour) (*message.Response, error) {
	s.done(x, resultBypass, d.words)
	resp, err := next.Serve(ctx, x)
	if err == nil {
		r.hideTags(&resp.Fields)
		s.addStatus(&resp.Fields, &status{fwd: fwdBypass, detail: d.part})
	}
	return resp, err
}

// notForUs says why a request is not looked up, or nothing.
func notForUs(in *message.Request) string {
	switch {
	case in.Method != message.GET && in.Method != message.HEAD:
		return "method"
	case in.Body != nil || in.ContentLength > 0:
		return "body"
	case in.Has(message.Upgrade):
		return "upgrade"
	case semantics.ForOrigin(&in.Fields):
		return "precondition"
	}
	return ""
}
