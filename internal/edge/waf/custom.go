package waf

import (
	"bytes"
	"fmt"
	"math"
	"regexp"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/waf/screen"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"

	"github.com/tidwall/gjson"
)

// ownRule is a rule of the tenant's own. It does not change.
type ownRule struct {
	name    string
	log     bool
	scope   stage.Scope
	expires int64 // Unix time in nanoseconds
	when    []condition
}

// kind is a part of a request that a condition looks at.
type kind uint8

const (
	ofPath kind = iota
	ofQuery
	ofHost
	ofHeader
	ofCookie
	ofArgument
	ofJSON
	ofBody
)

var kinds = map[string]kind{
	"path": ofPath, "query": ofQuery, "host": ofHost, "header": ofHeader, "cookie": ofCookie, "argument": ofArgument, "json": ofJSON, "body": ofBody,
}

// condition is a v1.WafCondition as it runs.
type condition struct {
	target  string // as it was written
	kind    kind
	name    string // empty: all of the kind
	equals  map[string]struct{}
	prefix  [][]byte
	suffix  [][]byte
	inside  [][]byte
	matches *regexp.Regexp
	longer  int // -1: no matter
	any     bool
	fold    bool
	not     bool
}

func newRule(spec *v1.WafRule) (r ownRule, err error) {
	r = ownRule{name: spec.Name, log: spec.Action == "log", scope: stage.NewScope(spec.Path, spec.Methods), expires: math.MaxInt64}
	if spec.Expires != nil {
		r.expires = spec.Expires.UnixNano()
	}
	for i := range spec.When {
		c, err := newCondition(&spec.When[i])
		if err != nil {
			return r, fmt.Errorf("rule %s: when[%d]: %w", spec.Name, i, err)
		}
		r.when = append(r.when, c)
	}
	return r, nil
}

func newCondition(spec *v1.WafCondition) (c condition, err error) {
	which, name, named := strings.Cut(spec.Target, ":")
	k, ok := kinds[which]
	if !ok || named && k < ofHeader || !named && k >= ofHeader && k != ofArgument && k != ofBody || named && k == ofBody {
		return c, fmt.Errorf("target %q: write path, query, host, header:NAME, cookie:NAME, argument, argument:NAME, json:PATH or body", spec.Target)
	}
	c = condition{target: spec.Target, kind: k, name: name, longer: -1, fold: spec.IgnoreCase, not: spec.Not}
	texts := func(list []string) (out [][]byte) {
		for _, s := range list {
			b := []byte(s)
			if c.fold {
				lower(b)
			}
			out = append(out, b)
		}
		return out
	}
	c.prefix, c.suffix, c.inside = texts(spec.Prefix), texts(spec.Suffix), texts(spec.Contains)
	if len(spec.Equals) > 0 {
		c.equals = map[string]struct{}{}
		for _, b := range texts(spec.Equals) {
			c.equals[string(b)] = struct{}{}
		}
	}
	if spec.Matches != "" {
		text := spec.Matches
		if c.fold {
			text = "(?i)" + text
		}
		if c.matches, err = regexp.Compile(text); err != nil {
			return c, fmt.Errorf("matches: %w", err)
		}
	}
	if spec.Longer != nil {
		c.longer = *spec.Longer
	}
	c.any = c.equals == nil && c.prefix == nil && c.suffix == nil && c.inside == nil && c.matches == nil && c.longer < 0
	return c, nil
}

// asked asks the tenant's rules. A panic is an error. Quiet marks nothing.
func (p *policy) asked(x *stage.Exchange, s *sheet, quiet bool) (refused *ownRule, err error) {
	defer func() {
		if r := recover(); r != nil {
			refused, err = nil, fmt.Errorf("the policy's own rules panicked: %v", r)
		}
	}()
	return p.own(x, s, quiet), nil
}

// own asks the tenant's rules in their order. Refused is the rule that denies the request, nil when none does; those
// that only log are marked.
func (p *policy) own(x *stage.Exchange, s *sheet, quiet bool) (refused *ownRule) {
	for i := range p.rules {
		r := &p.rules[i]
		if r.expires != math.MaxInt64 && x.Start.UnixNano() >= r.expires || !r.scope.Holds(x) || !r.holds(x, s) {
			continue
		}
		if !r.log {
			return r
		}
		if !quiet {
			x.MarkDetail("waf", "rule", r.name)
		}
	}
	return nil
}

func (r *ownRule) holds(x *stage.Exchange, s *sheet) bool {
	for i := range r.when {
		if c := &r.when[i]; c.found(x, s) == c.not {
			return false
		}
	}
	return true
}

// inPath says whether the path is one that c looks for. An origin may read runs of slashes as one, so either reading is
// enough; for a condition that spares, by not, both are needed.
func (c *condition) inPath(x *stage.Exchange, s *sheet) bool {
	found := c.is(x.Path, s)
	if m := x.Merged(); m != nil && found == c.not {
		return c.is(m, s)
	}
	return found
}

// found says whether a value of the target is one that c looks for.
func (c *condition) found(x *stage.Exchange, s *sheet) bool {
	switch c.kind {
	case ofPath:
		return c.inPath(x, s)
	case ofQuery:
		return x.In.HasQuery() && c.is(x.In.Query(), s)
	case ofHost:
		return c.is(x.Host, s)
	case ofHeader:
		for i := range s.Fields {
			if f := &s.Fields[i]; message.EqualFold(f.Name, c.name) && c.is(f.Value, s) {
				return true
			}
		}
		return false
	case ofCookie:
		return c.inCookies(s)
	case ofArgument:
		return c.inPairs(x.In.Query(), s) || isForm(s.Fields) && c.inPairs(s.Body, s) || c.inParts(s)
	case ofJSON:
		return c.inJSON(s)
	}
	return len(s.Body) > 0 && c.is(s.Body, s)
}

// is asks about one value.
func (c *condition) is(v []byte, s *sheet) bool {
	if c.any || c.longer >= 0 && len(v) > c.longer || c.matches != nil && c.matches.Match(v) {
		return true
	}
	if c.fold {
		s.folded = append(s.folded[:0], v...)
		v = s.folded
		lower(v)
	}
	if _, ok := c.equals[string(v)]; ok {
		return true
	}
	return one(c.prefix, v, bytes.HasPrefix) || one(c.suffix, v, bytes.HasSuffix) || one(c.inside, v, bytes.Contains)
}

func one(list [][]byte, v []byte, holds func(v, text []byte) bool) bool {
	for _, t := range list {
		if holds(v, t) {
			return true
		}
	}
	return false
}

func (c *condition) inCookies(s *sheet) bool {
	for i := range s.Fields {
		if !message.EqualFold(s.Fields[i].Name, "cookie") {
			continue
		}
		for rest := s.Fields[i].Value; len(rest) > 0; {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, []byte(";"))
			name, value, _ := bytes.Cut(bytes.TrimSpace(pair), []byte("="))
			if string(name) == c.name && c.is(value, s) {
				return true
			}
		}
	}
	return false
}

// inPairs looks at the arguments of a query or a form, decoded.
func (c *condition) inPairs(text []byte, s *sheet) bool {
	for len(text) > 0 {
		var pair []byte
		pair, text, _ = bytes.Cut(text, []byte("&"))
		if len(pair) == 0 {
			continue
		}
		name, value, _ := bytes.Cut(pair, []byte("="))
		if c.name != "" {
			if s.plain = screen.AppendUnescaped(s.plain[:0], name, true); string(s.plain) != c.name {
				continue
			}
		}
		if s.plain = screen.AppendUnescaped(s.plain[:0], value, true); c.is(s.plain, s) {
			return true
		}
	}
	return false
}

func isForm(fields []screen.Field) bool { return hasType(fields, "application/x-www-form-urlencoded") }

func hasType(fields []screen.Field, want string) bool {
	for i := range fields {
		if message.EqualFold(fields[i].Name, "content-type") {
			t, _, _ := bytes.Cut(fields[i].Value, []byte(";"))
			t = bytes.TrimSpace(t)
			return message.EqualFold(t, want) || want == "application/json" && len(t) > 5 && message.EqualFold(t[len(t)-5:], "+json")
		}
	}
	return false
}

// inJSON looks at the values that a path of members leads to.
func (c *condition) inJSON(s *sheet) bool {
	if len(s.Body) == 0 || !hasType(s.Fields, "application/json") {
		return false
	}
	v := gjson.GetBytes(s.Body, c.name)
	if !v.Exists() {
		return false
	}
	if !v.IsArray() {
		return c.is([]byte(v.String()), s)
	}
	found := false
	v.ForEach(func(_, item gjson.Result) bool {
		found = c.is([]byte(item.String()), s)
		return !found
	})
	return found
}

// lower makes the letters of ASCII small.
func lower(b []byte) {
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
}
