package route

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
	"github.com/relais-edge/relais/internal/stage"
)

// matcher is a compiled v1.RouteMatch.
type matcher struct {
	exact     string
	prefix    string // without its last slash; empty matches every path
	hasPrefix bool
	path      *regexp.Regexp
	methods   uint16 // a bit for each known method; 0 for any
	others    []string
	headers   []valueMatcher
	query     []valueMatcher
}

type valueMatcher struct {
	name    string
	exact   []byte
	regex   *regexp.Regexp
	present bool // wanted when neither exact nor regex is given
}

func compileMatch(m *v1.RouteMatch) (matcher, error) {
	var c matcher
	if p := m.Path; p != nil {
		c.exact = p.Exact
		c.prefix, c.hasPrefix = strings.TrimSuffix(p.Prefix, "/"), p.Prefix != ""
		var err error
		if c.path, err = whole(p.Regex); err != nil {
			return c, err
		}
	}
	for _, name := range m.Methods {
		if k := message.KnownMethod([]byte(name)); k != message.MethodOther {
			c.methods |= 1 << k
		} else {
			c.others = append(c.others, name)
		}
	}
	var err error
	if c.headers, err = compileValues(m.Headers); err != nil {
		return c, err
	}
	c.query, err = compileValues(m.Query)
	return c, err
}

func compileValues(list []v1.ValueMatch) ([]valueMatcher, error) {
	var out []valueMatcher
	for _, m := range list {
		re, err := whole(m.Regex)
		if err != nil {
			return nil, err
		}
		v := valueMatcher{name: m.Name, regex: re, present: m.Present == nil || *m.Present}
		if m.Exact != nil {
			v.exact = append([]byte{}, *m.Exact...)
		}
		out = append(out, v)
	}
	return out, nil
}

// whole compiles an expression that must match all of its input.
func whole(expr string) (*regexp.Regexp, error) {
	if expr == "" {
		return nil, nil
	}
	re, err := regexp.Compile(`^(?:` + expr + `)$`)
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w", expr, err)
	}
	return re, nil
}

func (m *matcher) matches(x *stage.Exchange) bool {
	_, ok := m.pathOf(x)
	return ok && m.matchesMethod(x.In) && m.matchesHeaders(x.In) && m.matchesQuery(x.In)
}

// pathOf lends the path of x that m matches: as it was sent or, where that is another, with runs of slashes merged, as
// the origin may read it; false when it matches neither. A route brings protections with it, which two slashes are not to
// shed.
func (m *matcher) pathOf(x *stage.Exchange) ([]byte, bool) {
	if m.matchesPath(x.Path) {
		return x.Path, true
	}
	p := x.Merged()
	return p, p != nil && m.matchesPath(p)
}

func (m *matcher) matchesPath(p []byte) bool {
	switch {
	case m.exact != "":
		return string(p) == m.exact
	case m.path != nil:
		return m.path.Match(p)
	case m.hasPrefix:
		return underPrefix(p, m.prefix)
	}
	return true
}

// underPrefix compares by path elements: /img holds /img and /img/a, not /images.
func underPrefix(p []byte, prefix string) bool {
	n := len(prefix)
	return len(p) >= n && string(p[:n]) == prefix && (len(p) == n || p[n] == '/')
}

func (m *matcher) matchesMethod(r *message.Request) bool {
	if m.methods == 0 && m.others == nil || m.methods&(1<<r.Method) != 0 && r.Method != message.MethodOther {
		return true
	}
	return r.Method == message.MethodOther && slices.Contains(m.others, string(r.MethodName()))
}

func (m *matcher) matchesHeaders(r *message.Request) bool {
	for i := range m.headers {
		h := &m.headers[i]
		if !h.matches(r.Lookup(h.name)) {
			return false
		}
	}
	return true
}

func (m *matcher) matchesQuery(r *message.Request) bool {
	for i := range m.query {
		q := &m.query[i]
		if !q.matches(parameter(r.Query(), q.name)) {
			return false
		}
	}
	return true
}

// matches compares a value; nil means that there is none.
func (v *valueMatcher) matches(value []byte) bool {
	switch {
	case v.exact != nil:
		return value != nil && bytes.Equal(value, v.exact)
	case v.regex != nil:
		return value != nil && v.regex.Match(value)
	}
	return (value != nil) == v.present
}

// parameter returns the decoded value of the first parameter of that name; nil when there is none.
func parameter(query []byte, name string) []byte {
	for len(query) > 0 {
		var pair []byte
		if i := bytes.IndexByte(query, '&'); i >= 0 {
			pair, query = query[:i], query[i+1:]
		} else {
			pair, query = query, nil
		}
		k, v, _ := bytes.Cut(pair, []byte{'='})
		if string(decodeForm(k)) == name {
			return decodeForm(v)
		}
	}
	return nil
}

// decodeForm decodes %XX and +; it returns b itself when there is nothing to decode, and
// leaves a broken encoding as it is. The result is not nil.
func decodeForm(b []byte) []byte {
	if bytes.IndexByte(b, '%') < 0 && bytes.IndexByte(b, '+') < 0 {
		if b == nil {
			return []byte{}
		}
		return b
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == '+':
			out = append(out, ' ')
		case b[i] == '%' && i+2 < len(b) && syntax.Is(b[i+1], syntax.Hex) && syntax.Is(b[i+2], syntax.Hex):
			hi, _ := syntax.Unhex(b[i+1])
			lo, _ := syntax.Unhex(b[i+2])
			out = append(out, hi<<4|lo)
			i += 2
		default:
			out = append(out, b[i])
		}
	}
	return out
}
