package route

import (
	"bytes"
	"regexp"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// maxRewritten bounds a path or a query that a rule makes, in bytes.
const maxRewritten = 16 << 10

var errRewritten = &stage.Error{Code: "http_request_error", Side: stage.SideTenant, Status: 414}

// pattern is a compiled v1.RegexRewrite.
type pattern struct {
	re    *regexp.Regexp
	parts []piece
}

// piece is a text, or a group of the pattern when group is not negative.
type piece struct {
	text  string
	group int
}

func compilePattern(r *v1.RegexRewrite) (*pattern, error) {
	re, err := regexp.Compile(r.Pattern)
	if err != nil {
		return nil, err
	}
	p := &pattern{re: re}
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			p.parts = append(p.parts, piece{text.String(), -1})
			text.Reset()
		}
	}
	for i := 0; i < len(r.Replacement); i++ {
		c := r.Replacement[i]
		if c == '$' && i+1 < len(r.Replacement) {
			i++
			if c = r.Replacement[i]; c >= '0' && c <= '9' {
				flush()
				p.parts = append(p.parts, piece{"", int(c - '0')})
				continue
			}
		}
		text.WriteByte(c)
	}
	flush()
	return p, nil
}

// append appends path with every match replaced; false when that is too long.
func (p *pattern) append(dst, path []byte) ([]byte, bool) {
	base, last := len(dst), 0
	for _, m := range p.re.FindAllSubmatchIndex(path, -1) {
		dst = append(dst, path[last:m[0]]...)
		for _, part := range p.parts {
			if part.group < 0 {
				dst = append(dst, part.text...)
			} else if g := 2 * part.group; g+1 < len(m) && m[g] >= 0 {
				dst = append(dst, path[m[g]:m[g+1]]...)
			}
			if len(dst)-base > maxRewritten {
				return dst, false
			}
		}
		last = m[1]
	}
	return append(dst, path[last:]...), true
}

// rewritePath lends the path that a pattern makes of x's. It is put into normal form like that
// of a request. Where that takes segments away it is refused: the groups of a pattern can be
// chosen so that dots come together that were apart when the path was judged.
func (p *pattern) rewritePath(l *local, path []byte) ([]byte, error) {
	made, ok := p.append(append(l.value[:0], '/'), path)
	l.value = made
	if !ok {
		return nil, errRewritten
	}
	if len(made) > 1 && made[1] == '/' {
		made = made[1:]
	}
	n, ok := NormalizePath(l.path[:0], made)
	l.path = n
	if !ok || bytes.Count(n, []byte{'/'}) != bytes.Count(made, []byte{'/'}) {
		return nil, errPath
	}
	return n, nil
}

// queryRewrite is a compiled v1.QueryRewrite.
type queryRewrite struct {
	strip    bool
	remove   []string
	prefixes []string
	set      []byte // name=value&name=value, encoded
	names    []string
}

func compileQuery(q *v1.QueryRewrite) *queryRewrite {
	if q == nil {
		return nil
	}
	c := &queryRewrite{strip: q.Strip}
	for _, name := range q.Remove {
		if p, ok := strings.CutSuffix(name, "*"); ok {
			c.prefixes = append(c.prefixes, p)
		} else {
			c.remove = append(c.remove, name)
		}
	}
	for i, p := range q.Set {
		if i > 0 {
			c.set = append(c.set, '&')
		}
		c.set = appendForm(append(appendForm(c.set, p.Name), '='), p.Value)
		c.names = append(c.names, p.Name)
	}
	return c
}

// appendForm percent-encodes all but unreserved characters.
func appendForm(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; class[c] == unreserved {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return dst
}

// apply changes the query that is sent.
func (q *queryRewrite) apply(l *local, out *message.Request) {
	made := l.query[:0]
	for rest := out.Query(); len(rest) > 0 && !q.strip; {
		var p []byte
		p, rest, _ = bytes.Cut(rest, []byte{'&'})
		if len(p) == 0 || q.drops(p) {
			continue
		}
		if len(made) > 0 {
			made = append(made, '&')
		}
		made = append(made, p...)
	}
	if len(q.set) > 0 {
		if len(made) > 0 {
			made = append(made, '&')
		}
		made = append(made, q.set...)
	}
	l.query = made
	if len(made) == 0 {
		out.ClearQuery()
		return
	}
	out.SetQuery(made)
}

// drops says whether a parameter goes: by its decoded name, as the origin reads it.
func (q *queryRewrite) drops(p []byte) bool {
	name, _, _ := bytes.Cut(p, []byte{'='})
	name = decodeForm(name)
	for _, n := range q.remove {
		if string(name) == n {
			return true
		}
	}
	for _, n := range q.names {
		if string(name) == n {
			return true
		}
	}
	for _, n := range q.prefixes {
		if len(name) >= len(n) && string(name[:len(n)]) == n {
			return true
		}
	}
	return false
}
