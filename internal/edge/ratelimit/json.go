package ratelimit

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"slices"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// maxJSON bounds how much of a body is read for a key; a field behind it is not found.
const maxJSON = 16 << 10

// peeked is a body that gives what was read of it before, then the rest.
type peeked struct {
	src   message.Body
	first []byte
	whole bool
	lent  bool
}

// Next implements message.Body.
func (p *peeked) Next(ctx context.Context) ([]byte, error) {
	if !p.lent {
		p.lent = true
		if p.whole {
			return p.first, io.EOF
		}
		if len(p.first) > 0 {
			return p.first, nil
		}
	}
	if p.whole {
		return nil, io.EOF
	}
	return p.src.Next(ctx)
}

// Close implements message.Body.
func (p *peeked) Close(cause error) {
	p.lent = true
	p.src.Close(cause)
}

// peek reads the beginning of a JSON body into m and puts it back in front of what is left.
func (m *local) peek(ctx context.Context, x *stage.Exchange) ([]byte, error) {
	if x.In.Body == nil || !isJSON(x.In.Get(message.ContentType)) {
		return nil, nil
	}
	if m.body.src != nil && x.In.Body == message.Body(&m.body) {
		return m.body.first, nil
	}
	x.MayBlock()
	m.body = peeked{src: x.In.Body, first: m.body.first[:0]}
	for len(m.body.first) < maxJSON {
		chunk, err := m.body.src.Next(ctx)
		m.body.first = append(m.body.first, chunk...)
		if err == io.EOF {
			m.body.whole = true
			break
		}
		if err != nil {
			return nil, err
		}
	}
	x.In.Body = &m.body
	return m.body.first, nil
}

// isJSON says whether a media type is JSON, or ends in +json (RFC 6839 section 3.1).
func isJSON(v []byte) bool {
	v, _, _ = bytes.Cut(v, []byte{';'})
	v = bytes.TrimSpace(v)
	return message.EqualFold(v, "application/json") || len(v) > 5 && message.EqualFold(v[len(v)-5:], "+json")
}

// maxDepth bounds how deep a field may lie, and how deep values that are passed over may be.
const maxDepth = 32

// jsonField lends the value of a field of a JSON object (RFC 8259): the inside of a string, or a number or literal as
// it is written. Path is names joined by dots. It is nil when there is none, when the text is cut before it or is
// no JSON up to it. Of a name that stands twice the last one is found, as most programs read it.
func jsonField(text []byte, path string) []byte {
	p := scanner{text: text}
	name := path
	rest := ""
	for i := range path {
		if path[i] == '.' {
			name, rest = path[:i], path[i+1:]
			break
		}
	}
	var found []byte
	p.space()
	if !p.take('{') {
		return nil
	}
	for {
		p.space()
		key, ok := p.str()
		if !ok {
			return found
		}
		p.space()
		if !p.take(':') {
			return found
		}
		p.space()
		from := p.at
		if !p.value(0) {
			return found
		}
		if string(unescaped(key)) == name {
			v := text[from:p.at]
			switch {
			case rest != "":
				found = jsonField(v, rest)
			case v[0] == '"':
				found = unescaped(v[1 : len(v)-1])
			case v[0] == '{' || v[0] == '[':
				found = nil
			default:
				found = v
			}
		}
		p.space()
		if !p.take(',') {
			return found
		}
	}
}

// unescaped is the inside of a string without its escapes, so that no other way to write it is another key.
func unescaped(v []byte) []byte {
	if bytes.IndexByte(v, '\\') < 0 {
		return v
	}
	var s string
	if json.Unmarshal(slices.Concat([]byte{'"'}, v, []byte{'"'}), &s) != nil {
		return v
	}
	return []byte(s)
}

// scanner reads JSON without building anything.
type scanner struct {
	text []byte
	at   int
}

func (p *scanner) space() {
	for p.at < len(p.text) && (p.text[p.at] == ' ' || p.text[p.at] == '\n' || p.text[p.at] == '\t' || p.text[p.at] == '\r') {
		p.at++
	}
}

func (p *scanner) take(c byte) bool {
	if p.at < len(p.text) && p.text[p.at] == c {
		p.at++
		return true
	}
	return false
}

// str reads a string and lends its inside.
func (p *scanner) str() ([]byte, bool) {
	if !p.take('"') {
		return nil, false
	}
	for from := p.at; p.at < len(p.text); p.at++ {
		switch p.text[p.at] {
		case '\\':
			p.at++
		case '"':
			p.at++
			return p.text[from : p.at-1], true
		}
	}
	return nil, false
}

// value passes over a value.
func (p *scanner) value(depth int) bool {
	if depth == maxDepth || p.at >= len(p.text) {
		return false
	}
	switch c := p.text[p.at]; c {
	case '"':
		_, ok := p.str()
		return ok
	case '{', '[':
		p.at++
		return p.list(depth, c == '{')
	}
	from := p.at
	for p.at < len(p.text) && bytes.IndexByte([]byte(",]} \n\t\r:\"{["), p.text[p.at]) < 0 {
		p.at++
	}
	return p.at > from && p.at < len(p.text)
}

// list passes over what follows the bracket of an object or an array.
func (p *scanner) list(depth int, object bool) bool {
	end := byte(']')
	if object {
		end = '}'
	}
	if p.space(); p.take(end) {
		return true
	}
	for {
		p.space()
		if object {
			if _, ok := p.str(); !ok {
				return false
			}
			if p.space(); !p.take(':') {
				return false
			}
			p.space()
		}
		if !p.value(depth + 1) {
			return false
		}
		if p.space(); p.take(end) {
			return true
		}
		if !p.take(',') {
			return false
		}
	}
}
