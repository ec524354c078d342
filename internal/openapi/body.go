package openapi

import (
	"bytes"
	"strings"

	"github.com/relais-edge/relais/internal/http/message"
)

// media finds the media type of a request's body in the document.
func (c *Checker) media(o *Operation, in *message.Request) *Violation {
	empty := in.Body == nil || in.ContentLength == 0
	switch {
	case o.body == nil:
		return nil
	case empty && o.body.required:
		return &Violation{"body", "", "is missing", 400}
	case empty || len(o.body.types) == 0:
		return nil
	}
	if i := in.Next(message.ContentType, 0); i >= 0 && in.Next(message.ContentType, i+1) >= 0 {
		return &Violation{"header", "Content-Type", "stands twice", 400}
	}
	if o.mediaOf(in.Get(message.ContentType)) == nil {
		return &Violation{"header", "Content-Type", "is none that the document lists for the operation", 415}
	}
	return nil
}

// mediaOf finds what the document says of a media type; the most exact wins.
func (o *Operation) mediaOf(contentType []byte) *media {
	kind, _, _ := bytes.Cut(contentType, []byte{';'})
	main, sub, _ := bytes.Cut(bytes.Trim(kind, " \t"), []byte{'/'})
	var best *media
	rank := 0
	for i := range o.body.types {
		m := &o.body.types[i]
		r := 0
		switch {
		case m.main == "*" && m.sub == "*":
			r = 1
		case m.sub == "*" && message.EqualFold(main, m.main):
			r = 2
		case message.EqualFold(main, m.main) && message.EqualFold(sub, m.sub):
			r = 3
		}
		if r > rank {
			best, rank = m, r
		}
	}
	return best
}

// WantsBody says whether the body of a request is held against a schema. One with a Content-Encoding cannot be: it
// is a violation unless a parameter of the document says which codings there are, since most origins read a body
// whatever that field says.
func (o *Operation) WantsBody(in *message.Request) (bool, *Violation) {
	if o.body == nil || in.Body == nil || in.ContentLength == 0 {
		return false, nil
	}
	if m := o.mediaOf(in.Get(message.ContentType)); m == nil || m.schema == nil {
		return false, nil
	}
	for i := in.Next(message.ContentEncoding, 0); i >= 0; i = in.Next(message.ContentEncoding, i+1) {
		if _, _, v := in.At(i); message.EqualFold(v, "identity") || len(v) == 0 {
			continue
		}
		if o.coded {
			return false, nil
		}
		return false, &Violation{"header", "Content-Encoding", "is not in the document, and what is encoded cannot be checked", 415}
	}
	return true, nil
}

// Body holds a whole body against the operation that wants it.
func (c *Checker) Body(o *Operation, contentType, text []byte) *Violation {
	m := o.mediaOf(contentType)
	if m == nil || m.schema == nil {
		return nil
	}
	c.steps, c.quiet, c.why, c.seen = maxSteps, 0, "", c.seen[:0]
	if m.form {
		return c.formBody(m, text)
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if len(text) == 0 { // chunked, and nothing came
		if o.body.required {
			return &Violation{"body", "", "is missing", 400}
		}
		return nil
	}
	if err := c.plain.parse(text, bodyDepth); err != nil {
		return &Violation{"body", "", err.Error(), 400}
	}
	c.tree = &c.plain
	if c.check(m.schema, 0) {
		return nil
	}
	return &Violation{"body", c.pointer(c.where), c.why, 400}
}

// formBody holds a form against its schema: an object whose members are texts, or what the schema takes of them.
func (c *Checker) formBody(m *media, text []byte) *Violation {
	t := &c.plain
	t.nodes, c.text, c.decoded = t.nodes[:0], c.text[:0], c.decoded[:0]
	t.nodes = append(t.nodes, node{kind: kindObject})
	listed := false
	for len(text) > 0 {
		var pair []byte
		pair, text, _ = bytes.Cut(text, []byte{'&'})
		if len(pair) == 0 {
			continue
		}
		name, v, _ := bytes.Cut(pair, []byte{'='})
		if t.nodes[0].size >= maxValues {
			return &Violation{"body", "", "has too many fields", 400}
		}
		name = c.unescape(name, true)
		left := maxSearch
		if p := m.schema.propertyOf(string(name), &left); p != nil && p.itemsOf(&left) != nil {
			listed = true // lists and objects in forms are written in several ways
		}
		c.item(name)
		c.item(c.unescape(v, true))
		t.nodes[0].size--
	}
	if listed {
		return nil
	}
	t.text = c.text
	t.nodes[0].end, t.nodes[0].next = int32(len(c.text)), int32(len(t.nodes))
	c.tree = t
	for i := 1; i < len(t.nodes); i += 2 {
		if k := lexical(t.raw(i + 1)); k != kindString {
			left := maxSearch
			if p := m.schema.propertyOf(string(t.raw(i)), &left); p != nil && !c.trial(p, i+1) {
				t.nodes[i+1].kind = k
			}
		}
	}
	if c.check(m.schema, 0) {
		return nil
	}
	return &Violation{"body", c.pointer(c.where), c.why, 400}
}

// propertyOf finds the schema of a member; left is how many schemas may still be looked at.
func (s *schema) propertyOf(name string, left *int) *schema {
	if p := s.properties[name]; p != nil && p.schema != nil {
		return p.schema
	}
	if *left--; *left < 0 {
		return nil
	}
	for _, l := range [...][]*schema{s.all, s.any, s.one} {
		for _, o := range l {
			if p := o.propertyOf(name, left); p != nil {
				return p
			}
		}
	}
	return nil
}

// Shorten makes the text of a violation fit for a trail.
func Shorten(s string) string {
	const most = 300
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
