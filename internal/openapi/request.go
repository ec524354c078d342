package openapi

import (
	"bytes"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
)

// Violation is how a request differs from the document.
type Violation struct {
	// Part of the request: path, query, header, cookie, body.
	Part string
	// Name of the parameter, or where in the body, as a JSON pointer.
	Name string
	// What is wrong, without anything of what the visitor sent.
	What string
	// Status that says so best: 400, 413, 415.
	Status int
}

// String joins the parts.
func (v *Violation) String() string {
	if v.Name == "" {
		return v.Part + " " + v.What
	}
	return v.Part + " " + v.Name + " " + v.What
}

// What a Checker keeps for the next request.
const (
	keptNodes = 4 << 10
	keptBytes = 64 << 10
)

// Trim gives up memory that a large request has taken, and what it was lent of that.
func (c *Checker) Trim() {
	c.tree, c.plain.text = nil, nil
	if cap(c.plain.nodes) > keptNodes {
		c.plain.nodes = nil
	}
	for _, b := range [...]*[]byte{&c.buf, &c.text, &c.decoded} {
		if cap(*b) > keptBytes {
			*b = nil
		}
	}
	if cap(c.seen) > keptNodes {
		c.seen = nil
	}
}

// Checker holds requests against operations. Keep it for the next one, trimmed: it keeps its memory.
type Checker struct {
	checker
	plain   tree   // of a parameter
	text    []byte // of it
	decoded []byte
}

// Head holds a request's parameters and its media type against an operation. It is nil when all is well, and
// allocates nothing then, but for lists.
func (c *Checker) Head(m *Match, in *message.Request) *Violation {
	o := m.Operation
	c.steps, c.quiet, c.why, c.seen, c.decoded = maxSteps, 0, "", c.seen[:0], c.decoded[:0]
	for i := range o.path {
		if p := &o.path[i]; p.schema != nil {
			if v := c.values(p, "path", oneOf(c.unescape(m.values[i], false))); v != nil {
				return v
			}
		}
	}
	for i := range o.query {
		if v := c.query(&o.query[i], in.Query()); v != nil {
			return v
		}
	}
	for i := range o.header {
		if v := c.header(&o.header[i], in); v != nil {
			return v
		}
	}
	for i := range o.cookie {
		if v := c.cookie(&o.cookie[i], in); v != nil {
			return v
		}
	}
	return c.media(o, in)
}

// header holds each line of a field against its parameter: the origin may take any of them.
func (c *Checker) header(p *parameter, in *message.Request) *Violation {
	there := false
	for i := range in.Len() {
		_, name, value := in.At(i)
		if len(name) != len(p.name) || !message.EqualFold(name, p.name) {
			continue
		}
		there = true
		if v := c.values(p, "header", oneOf(value)); v != nil {
			return v
		}
	}
	if p.required && !there {
		return &Violation{"header", p.name, "is missing", 400}
	}
	return nil
}

// found are the values of a parameter: most have one.
type found struct {
	one  []byte
	more [][]byte
	n    int
}

func oneOf(b []byte) found { return found{one: b, n: 1} }

func (f *found) add(b []byte) {
	switch f.n++; f.n {
	case 1:
		f.one = b
	case 2:
		f.more = append(f.more, f.one, b)
	default:
		f.more = append(f.more, b)
	}
}

// query finds the values of a parameter in a query.
func (c *Checker) query(p *parameter, query []byte) *Violation {
	var f found
	c.decoded = c.decoded[:0]
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, []byte{'&'})
		name, v, _ := bytes.Cut(pair, []byte{'='})
		if !c.named(name, p.name) {
			continue
		}
		if f.n >= maxValues {
			return &Violation{"query", p.name, "stands too often", 400}
		}
		f.add(c.unescape(v, true))
	}
	if f.n == 0 {
		if p.required {
			return &Violation{"query", p.name, "is missing", 400}
		}
		return nil
	}
	if f.n == 1 && p.empty && len(f.one) == 0 {
		return nil // allowEmptyValue
	}
	if f.n > 1 && !p.list && p.schema != nil {
		return &Violation{"query", p.name, "stands twice", 400}
	}
	return c.values(p, "query", f)
}

// maxValues bounds the items of a list in a query.
const maxValues = 1000

// named says whether an encoded name is the one.
func (c *Checker) named(name []byte, want string) bool {
	if string(name) == want {
		return true
	}
	if bytes.IndexByte(name, '%') < 0 && bytes.IndexByte(name, '+') < 0 {
		return false
	}
	from := len(c.decoded)
	ok := string(c.unescape(name, true)) == want
	c.decoded = c.decoded[:from]
	return ok
}

// cookie holds each cookie of a name against its parameter: the origin may take any of them.
func (c *Checker) cookie(p *parameter, in *message.Request) *Violation {
	there := false
	for i := in.Next(message.Cookie, 0); i >= 0; i = in.Next(message.Cookie, i+1) {
		_, _, line := in.At(i)
		for len(line) > 0 {
			var pair []byte
			pair, line, _ = bytes.Cut(line, []byte{';'})
			name, v, ok := bytes.Cut(bytes.Trim(pair, " \t"), []byte{'='})
			if !ok || string(name) != p.name {
				continue
			}
			there = true
			if v := c.values(p, "cookie", oneOf(v)); v != nil {
				return v
			}
		}
	}
	if p.required && !there {
		return &Violation{"cookie", p.name, "is missing", 400}
	}
	return nil
}

// unescape takes percent-encoding off. What it gives is good until the next parameter.
func (c *Checker) unescape(s []byte, plus bool) []byte {
	if bytes.IndexByte(s, '%') < 0 && (!plus || bytes.IndexByte(s, '+') < 0) {
		return s
	}
	from := len(c.decoded)
	for i := 0; i < len(s); i++ {
		b := s[i]
		if b == '%' && i+2 < len(s) {
			if v, ok := syntax.UnhexPair(s[i+1], s[i+2]); ok {
				c.decoded = append(c.decoded, v)
				i += 2
				continue
			}
		}
		if b == '+' && plus {
			b = ' '
		}
		c.decoded = append(c.decoded, b)
	}
	return c.decoded[from:len(c.decoded):len(c.decoded)]
}

// values holds the values of a parameter against its schema.
func (c *Checker) values(p *parameter, part string, f found) *Violation {
	if p.schema == nil {
		return nil
	}
	t := &c.plain
	if p.json {
		t.nodes = t.nodes[:0]
		if err := t.parse(f.one, bodyDepth); err != nil {
			return &Violation{part, p.name, err.Error(), 400}
		}
		return c.verdict(p, part, 0)
	}
	t.nodes, c.text = t.nodes[:0], c.text[:0]
	if !p.list {
		t.text = f.one
		t.nodes = append(t.nodes, node{kind: kindString, end: int32(len(f.one)), next: 1})
		return c.scalar(p, part, 0, lexical(f.one))
	}
	t.nodes = append(t.nodes, node{kind: kindArray})
	if f.n > 1 {
		for _, v := range f.more {
			c.item(v)
		}
	} else if p.explode && part == "query" {
		c.item(f.one)
	} else if rest := f.one; len(rest) > 0 {
		for more := true; more; {
			var v []byte
			if v, rest, more = bytes.Cut(rest, []byte{p.between}); t.nodes[0].size >= maxValues {
				return &Violation{part, p.name, "has too many items", 400}
			}
			c.item(v)
		}
	}
	t.text = c.text
	t.nodes[0].end, t.nodes[0].next = int32(len(c.text)), int32(len(t.nodes))
	// What is written without quotes may be a text or a number: it is what the schema takes.
	for i := 1; i < len(t.nodes); i++ {
		if k := lexical(t.raw(i)); k != kindString && !c.tryAs(p.schema, i, kindString) {
			t.nodes[i].kind = k
		}
	}
	return c.verdict(p, part, 0)
}

// item adds a text to the list that is held against a schema.
func (c *Checker) item(v []byte) {
	from := len(c.text)
	c.text = append(c.text, v...)
	c.plain.nodes = append(c.plain.nodes, node{kind: kindString, start: int32(from), end: int32(len(c.text)), next: int32(len(c.plain.nodes) + 1)})
	c.plain.nodes[0].size++
}

// tryAs says whether an item holds as one of a kind.
func (c *Checker) tryAs(s *schema, i int, k kind) bool {
	left := maxSearch
	of := s.itemsOf(&left)
	if of == nil {
		return true
	}
	c.plain.nodes[i].kind = k
	c.tree = &c.plain
	return c.trial(of, i)
}

// maxSearch bounds the schemas that are looked at for those of an item or a member.
const maxSearch = 64

// itemsOf finds the schema of a list's items; left is how many schemas may still be looked at.
func (s *schema) itemsOf(left *int) *schema {
	if *left--; s.items != nil || *left < 0 {
		return s.items
	}
	for _, l := range [...][]*schema{s.all, s.any, s.one} {
		for _, o := range l {
			if i := o.itemsOf(left); i != nil {
				return i
			}
		}
	}
	return nil
}

// scalar holds one text against a schema: as text, or as the number or word that it looks like.
func (c *Checker) scalar(p *parameter, part string, i int, k kind) *Violation {
	c.tree = &c.plain
	if k != kindString {
		if c.trial(p.schema, i) {
			return nil
		}
		c.plain.nodes[i].kind = k
	}
	return c.verdict(p, part, i)
}

// verdict holds a node of the parameter against its schema.
func (c *Checker) verdict(p *parameter, part string, i int) *Violation {
	c.tree = &c.plain
	if c.check(p.schema, i) {
		return nil
	}
	return &Violation{part, p.name, c.why, 400}
}

// lexical is what a text may stand for beside a text.
func lexical(b []byte) kind {
	switch {
	case len(b) > 0 && numberLen(b) == len(b):
		return kindNumber
	case string(b) == "true", string(b) == "false":
		return kindBool
	case string(b) == "null":
		return kindNull
	}
	return kindString
}
