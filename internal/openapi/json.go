package openapi

import (
	"errors"
	"math"
	"strconv"
	"unicode/utf8"
)

// kind is what a JSON value is.
type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
)

var kindNames = [...]string{"null", "boolean", "number", "string", "array", "object"}

// Limits of a JSON text.
const (
	bodyDepth     = 64
	documentDepth = 128
	maxNodes      = 1 << 20
)

// node is one value. The nodes of a text stand in the order of the text; those of an object are a name and a value
// in turn.
type node struct {
	kind    kind
	escaped bool  // a string with backslashes
	start   int32 // of its text; of a string without the quotes
	end     int32
	next    int32 // the node after it and all that is in it
	size    int32 // elements of an array, members of an object
}

// tree is a parsed text. It is used again for the next one.
type tree struct {
	text  []byte
	nodes []node
	deep  int // the deepest that was allowed
}

// The errors of a text.
var (
	errSyntax = errors.New("is not valid JSON")
	errDeep   = errors.New("is nested too deep")
	errMany   = errors.New("has more than a million values")
	errUTF8   = errors.New("is not UTF-8")
)

// parse reads a JSON text (RFC 8259). The tree keeps text.
func (t *tree) parse(text []byte, deep int) error {
	t.text, t.nodes, t.deep = text, t.nodes[:0], deep
	if len(text) > math.MaxInt32 {
		return errMany
	}
	p := parser{tree: t}
	p.space()
	if err := p.value(0); err != nil {
		return err
	}
	if p.space(); p.at != len(text) {
		return errSyntax
	}
	return nil
}

type parser struct {
	*tree
	at int
}

func (p *parser) space() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

func (p *parser) add(k kind) (int, error) {
	if len(p.nodes) >= maxNodes {
		return 0, errMany
	}
	p.nodes = append(p.nodes, node{kind: k, start: int32(p.at)})
	return len(p.nodes) - 1, nil
}

func (p *parser) close(i int) {
	p.nodes[i].end, p.nodes[i].next = int32(p.at), int32(len(p.nodes))
}

func (p *parser) value(depth int) error {
	if depth > p.deep {
		return errDeep
	}
	if p.at >= len(p.text) {
		return errSyntax
	}
	switch c := p.text[p.at]; c {
	case '{':
		return p.container(kindObject, '}', depth)
	case '[':
		return p.container(kindArray, ']', depth)
	case '"':
		return p.str()
	case 't':
		return p.word(kindBool, "true")
	case 'f':
		return p.word(kindBool, "false")
	case 'n':
		return p.word(kindNull, "null")
	}
	return p.number()
}

func (p *parser) word(k kind, w string) error {
	if len(p.text)-p.at < len(w) || string(p.text[p.at:p.at+len(w)]) != w {
		return errSyntax
	}
	i, err := p.add(k)
	if err != nil {
		return err
	}
	p.at += len(w)
	p.close(i)
	return nil
}

func (p *parser) number() error {
	n := numberLen(p.text[p.at:])
	if n == 0 {
		return errSyntax
	}
	i, err := p.add(kindNumber)
	if err != nil {
		return err
	}
	p.at += n
	p.close(i)
	return nil
}

// numberLen is the length of the number that b begins with (RFC 8259 section 6); 0 when there is none.
func numberLen(b []byte) int {
	i := 0
	digits := func() bool {
		from := i
		for i < len(b) && b[i] >= '0' && b[i] <= '9' {
			i++
		}
		return i > from
	}
	if i < len(b) && b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if !digits() {
		return 0
	}
	if i < len(b) && b[i] == '.' {
		if i++; !digits() {
			return 0
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if !digits() {
			return 0
		}
	}
	return i
}

func (p *parser) str() error {
	i, err := p.add(kindString)
	if err != nil {
		return err
	}
	p.at++
	from := p.at
	ascii := true
	for ; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; {
		case c == '"':
			if !ascii && !utf8.Valid(p.text[from:p.at]) {
				return errUTF8
			}
			p.close(i)
			p.nodes[i].start = int32(from)
			p.at++
			return nil
		case c == '\\':
			n := escapeLen(p.text[p.at:])
			if n == 0 {
				return errSyntax
			}
			p.nodes[i].escaped = true
			p.at += n - 1
		case c < ' ':
			return errSyntax
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return errSyntax
}

// escapeLen is the length of the escape that b begins with; 0 when it is none.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) >= 6 && hex4(b[2:6]) >= 0 {
			return 6
		}
	}
	return 0
}

// hex4 reads four hexadecimal digits; -1 when they are none.
func hex4(b []byte) rune {
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

func (p *parser) container(k kind, end byte, depth int) error {
	i, err := p.add(k)
	if err != nil {
		return err
	}
	p.at++
	p.space()
	if p.at < len(p.text) && p.text[p.at] == end {
		p.at++
		p.close(i)
		return nil
	}
	for {
		if k == kindObject {
			if p.at >= len(p.text) || p.text[p.at] != '"' {
				return errSyntax
			}
			if err := p.str(); err != nil {
				return err
			}
			if p.space(); p.at >= len(p.text) || p.text[p.at] != ':' {
				return errSyntax
			}
			p.at++
			p.space()
		}
		if err := p.value(depth + 1); err != nil {
			return err
		}
		p.nodes[i].size++
		if p.space(); p.at >= len(p.text) {
			return errSyntax
		}
		switch p.text[p.at] {
		case ',':
			p.at++
			p.space()
		case end:
			p.at++
			p.close(i)
			return nil
		default:
			return errSyntax
		}
	}
}

// raw is the text of a node.
func (t *tree) raw(i int) []byte { return t.text[t.nodes[i].start:t.nodes[i].end] }

// str lends what a string stands for; buf is used where that is not its text.
func (t *tree) str(i int, buf []byte) []byte {
	raw := t.raw(i)
	if !t.nodes[i].escaped {
		return raw
	}
	return unescape(buf[:0], raw)
}

func unescape(dst, s []byte) []byte {
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			dst = append(dst, s[i])
			continue
		}
		i++
		switch c := s[i]; c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := hex4(s[i+1:])
			i += 4
			if r >= 0xd800 && r < 0xdc00 && i+6 < len(s) && s[i+1] == '\\' && s[i+2] == 'u' {
				if low := hex4(s[i+3:]); low >= 0xdc00 && low < 0xe000 {
					r = (r-0xd800)<<10 | (low - 0xdc00) + 0x10000
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r) // half of a pair becomes U+FFFD
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// float reads a number; what is beyond a float64 becomes infinite.
func (t *tree) float(i int) float64 {
	f, _ := strconv.ParseFloat(string(t.raw(i)), 64)
	return f
}

// whole says whether a number has no fraction: 1, 1.0 and 1e2 have none.
func (t *tree) whole(i int) bool {
	digits := true
	for _, c := range t.raw(i) {
		digits = digits && (c == '-' || c >= '0' && c <= '9')
	}
	if digits {
		return true
	}
	f := t.float(i)
	return f == math.Trunc(f) && !math.IsInf(f, 0)
}

// get finds a member of an object; -1 when there is none. Of several the last counts, as most readers have it.
func (t *tree) get(i int, name string) int {
	found := -1
	if t.nodes[i].kind != kindObject {
		return -1
	}
	var buf [64]byte
	for k := i + 1; k < int(t.nodes[i].next); {
		v := k + 1
		if string(t.str(k, buf[:0])) == name {
			found = v
		}
		k = int(t.nodes[v].next)
	}
	return found
}

// members calls f for each member of an object, or element of an array with an empty name.
func (t *tree) members(i int, f func(name string, v int) error) error {
	n := &t.nodes[i]
	for k := i + 1; k < int(n.next); {
		name, v := "", k
		if n.kind == kindObject {
			name, v = string(t.str(k, nil)), k+1
		}
		if err := f(name, v); err != nil {
			return err
		}
		k = int(t.nodes[v].next)
	}
	return nil
}
