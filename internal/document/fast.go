package document

import (
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep a document nests; the deepest field of the vocabulary is at 12.
const maxDepth = 32

// fastReader reads the plain part of YAML: block mappings and sequences, flow ones, scalars on one line,
// comments. It says no to all else, to everything that is wrong among it, and never says what.
type fastReader struct {
	tree
	s     string
	i     int // the next byte
	depth int
}

// read builds the tree of one document without its marks. It reports false for a document that
// is not in its part of YAML; there is then nothing to be said about the tree.
func (r *fastReader) read(s string) bool {
	r.nodes, r.s, r.i, r.depth = r.nodes[:0], s, 0, 0
	if !ordinary(s) {
		return false
	}
	if rest, ok := strings.CutPrefix(s, "---"); ok {
		if !strings.HasPrefix(rest, "\n") {
			return false
		}
		r.i = 4
	}
	column, ok := r.nextLine()
	if !ok || column < 0 {
		return false
	}
	if _, ok = r.block(column); !ok {
		return false
	}
	return r.i == len(s)
}

// ordinary tells whether a text holds only line feeds and characters that are neither controls nor
// line breaks of another kind nor marks.
func ordinary(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c < ' ' && c != '\n' || c == 0x7f {
			return false
		}
		if c < utf8.RuneSelf {
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError || r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfeff || r >= 0xfffe {
			return false
		}
		i += n - 1
	}
	return true
}

// nextLine goes over empty lines and comments, from the start of a line, to the first character of the
// next one that holds something. The column is -1 at the end.
func (r *fastReader) nextLine() (column int, ok bool) {
	for r.i < len(r.s) {
		start := r.i
		for r.i < len(r.s) && r.s[r.i] == ' ' {
			r.i++
		}
		switch {
		case r.i == len(r.s):
			return -1, true
		case r.s[r.i] == '\n':
			r.i++
		case r.s[r.i] == '#':
			r.skipLine()
		default:
			return r.i - start, true
		}
	}
	return -1, true
}

func (r *fastReader) skipLine() {
	if n := strings.IndexByte(r.s[r.i:], '\n'); n >= 0 {
		r.i += n + 1
	} else {
		r.i = len(r.s)
	}
}

// endLine goes over what may follow a value, to the start of the next line.
func (r *fastReader) endLine() bool {
	start := r.i
	for r.i < len(r.s) && r.s[r.i] == ' ' {
		r.i++
	}
	switch {
	case r.i == len(r.s):
		return true
	case r.s[r.i] == '\n':
		r.i++
		return true
	case r.s[r.i] == '#' && r.i > start:
		r.skipLine()
		return true
	}
	return false
}

// column of the present offset, from 0.
func (r *fastReader) column() int { return r.i - (strings.LastIndexByte(r.s[:r.i], '\n') + 1) }

// peekIs tells whether the present byte is c and a space or the end of the line follows.
func (r *fastReader) peekIs(c byte) bool {
	return r.i < len(r.s) && r.s[r.i] == c && (r.i+1 == len(r.s) || r.s[r.i+1] == ' ' || r.s[r.i+1] == '\n')
}

// block reads the node that begins here, at the given column, as the first thing of its line or after
// dashes. Afterwards the reader is at the first character of the next line that holds something.
func (r *fastReader) block(column int) (int32, bool) {
	if r.depth++; r.depth > maxDepth {
		return 0, false
	}
	defer func() { r.depth-- }()
	if r.peekIs('-') {
		return r.blockSequence(column)
	}
	if r.atKey() {
		return r.blockMapping(column)
	}
	n, ok := r.inline()
	if !ok || !r.endLine() {
		return 0, false
	}
	next, ok := r.nextLine()
	// A deeper line would go on with a plain scalar.
	return n, ok && next < column && (next >= 0 || r.i == len(r.s))
}

// atKey tells whether a key of a block mapping begins here.
func (r *fastReader) atKey() bool {
	save, n := r.i, len(r.nodes)
	_, ok := r.scalar(false)
	ok = ok && r.peekIs(':')
	r.i, r.nodes = save, r.nodes[:n]
	return ok
}

func (r *fastReader) blockMapping(column int) (int32, bool) {
	m := r.add(node{kind: mapping, at: int32(r.i)})
	last := int32(0)
	for {
		start := r.i
		key, ok := r.scalar(false)
		if !ok || !r.peekIs(':') || r.i-start > 256 {
			return 0, false
		}
		r.i++
		r.link(m, &last, key)
		value, next, ok := r.blockValue(column, true)
		if !ok {
			return 0, false
		}
		r.link(m, &last, value)
		if next < column {
			return m, true
		}
		if next > column || r.peekIs('-') {
			return 0, false
		}
	}
}

func (r *fastReader) blockSequence(column int) (int32, bool) {
	q := r.add(node{kind: sequence, at: int32(r.i)})
	last := int32(0)
	for {
		r.i++ // the dash
		value, next, ok := r.blockValue(column, false)
		if !ok {
			return 0, false
		}
		r.link(q, &last, value)
		if next < column || next == column && !r.peekIs('-') {
			return q, true
		}
		if next > column {
			return 0, false
		}
	}
}

// blockValue reads what follows the colon of a key or the dash of an element that stands at the given
// column, and gives the column of the next line.
func (r *fastReader) blockValue(column int, ofKey bool) (value int32, next int, ok bool) {
	colon := r.i
	for r.i < len(r.s) && r.s[r.i] == ' ' {
		r.i++
	}
	if r.i == len(r.s) || r.s[r.i] == '\n' || r.s[r.i] == '#' {
		if !r.endLineFrom(colon) {
			return 0, 0, false
		}
		if next, ok = r.nextLine(); !ok {
			return 0, 0, false
		}
		if next > column || ofKey && next == column && r.peekIs('-') {
			value, ok = r.block(next)
			return value, r.nextColumn(), ok
		}
		return r.add(node{kind: plain, at: int32(colon)}), next, true
	}
	if !ofKey && (r.peekIs('-') || r.atKey()) {
		value, ok = r.block(r.column())
		return value, r.nextColumn(), ok
	}
	value, ok = r.inline()
	if !ok || !r.endLine() {
		return 0, 0, false
	}
	if next, ok = r.nextLine(); !ok || next > column {
		return 0, 0, false
	}
	return value, next, true
}

func (r *fastReader) endLineFrom(i int) bool {
	r.i = i
	return r.endLine()
}

// nextColumn is the column of the line at whose first character the reader stands; -1 at the end.
func (r *fastReader) nextColumn() int {
	if r.i == len(r.s) {
		return -1
	}
	return r.column()
}

func (r *fastReader) link(parent int32, last *int32, child int32) {
	if *last == 0 {
		r.nodes[parent].first = child
	} else {
		r.nodes[*last].next = child
	}
	*last = child
}

// inline reads a value within a line: a flow mapping or sequence, which may go over several lines, or
// a scalar.
func (r *fastReader) inline() (int32, bool) {
	if c := r.s[r.i]; c == '[' || c == '{' {
		return r.flow()
	}
	if r.peekIs('-') {
		return 0, false
	}
	n, ok := r.scalar(false)
	if ok && r.i < len(r.s) && r.s[r.i] == ':' {
		return 0, false // a second key on the line
	}
	return n, ok
}

// scalar reads a scalar that ends on its line. It stops at a colon that ends a key.
func (r *fastReader) scalar(inFlow bool) (int32, bool) {
	if r.i >= len(r.s) {
		return 0, false
	}
	switch c := r.s[r.i]; c {
	case '"', '\'':
		return r.quotedScalar(c)
	case '?', ':', ',', '[', ']', '{', '}', '#', '&', '*', '!', '|', '>', '%', '@', '`', '\n', ' ':
		return 0, false
	case '-':
		if r.peekIs('-') || inFlow {
			return 0, false
		}
		if strings.HasPrefix(r.s[r.i:], "---") {
			return 0, false
		}
	case '.':
		if strings.HasPrefix(r.s[r.i:], "...") {
			return 0, false
		}
	case '<':
		if strings.HasPrefix(r.s[r.i:], "<<") {
			return 0, false
		}
	}
	return r.plainScalar(inFlow)
}

func (r *fastReader) plainScalar(inFlow bool) (int32, bool) {
	start, end := r.i, r.i
scan:
	for ; r.i < len(r.s); r.i++ {
		switch c := r.s[r.i]; c {
		case '\n':
			break scan
		case ' ':
			continue
		case '#':
			if r.s[r.i-1] == ' ' {
				break scan
			}
		case ':':
			if r.peekIs(':') {
				break scan
			}
			if inFlow && strings.IndexByte(",[]{}", r.s[r.i+1]) >= 0 {
				return 0, false
			}
		case ',', '[', ']', '{', '}':
			if inFlow {
				break scan
			}
		case '?':
			if inFlow {
				return 0, false
			}
		}
		end = r.i + 1
	}
	r.i = end
	if r.peekAfterSpacesIs(':') {
		return 0, false // white space before the colon of a key: rare, left to the library
	}
	return r.add(node{kind: plain, text: r.s[start:end], at: int32(start)}), true
}

func (r *fastReader) peekAfterSpacesIs(c byte) bool {
	j := r.i
	for j < len(r.s) && r.s[j] == ' ' {
		j++
	}
	return j > r.i && j < len(r.s) && r.s[j] == c
}

func (r *fastReader) quotedScalar(mark byte) (int32, bool) {
	start := r.i
	for j := r.i + 1; j < len(r.s); j++ {
		switch c := r.s[j]; {
		case c == '\n':
			return 0, false
		case c == '\\' && mark == '"':
			j++
		case c == mark && mark == '\'' && j+1 < len(r.s) && r.s[j+1] == mark:
			j++
		case c == mark:
			text, ok := unquote(r.s[start+1:j], mark)
			r.i = j + 1
			if r.peekAfterSpacesIs(':') {
				return 0, false
			}
			return r.add(node{kind: quoted, text: text, at: int32(start)}), ok
		}
	}
	return 0, false
}

// unquote undoes the escapes that are common; it reports false for the others.
func unquote(s string, mark byte) (string, bool) {
	if mark == '\'' {
		return strings.ReplaceAll(s, "''", "'"), true
	}
	if strings.IndexByte(s, '\\') < 0 {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\\' {
			if i++; i == len(s) {
				return "", false
			}
			switch s[i] {
			case '"', '\\', '/':
				c = s[i]
			case 'n':
				c = '\n'
			case 't':
				c = '\t'
			default:
				return "", false
			}
		}
		b.WriteByte(c)
	}
	return b.String(), true
}

// flow reads a mapping in braces or a sequence in brackets.
func (r *fastReader) flow() (int32, bool) {
	if r.depth++; r.depth > maxDepth {
		return 0, false
	}
	defer func() { r.depth-- }()
	open := r.s[r.i]
	kind, end := sequence, byte(']')
	if open == '{' {
		kind, end = mapping, '}'
	}
	n, last := r.add(node{kind: kind, at: int32(r.i)}), int32(0)
	r.i++
	if !r.flowSpace() {
		return 0, false
	}
	if r.s[r.i] == end {
		r.i++
		return n, true
	}
	for {
		if kind == mapping {
			key, ok := r.scalar(true)
			if !ok || r.i >= len(r.s) || r.s[r.i] != ':' {
				return 0, false
			}
			if r.nodes[key].kind == plain && !r.peekIs(':') {
				return 0, false
			}
			r.i++
			r.link(n, &last, key)
			if !r.flowSpace() {
				return 0, false
			}
		}
		value, ok := r.flowValue()
		if !ok || !r.flowSpace() {
			return 0, false
		}
		r.link(n, &last, value)
		switch r.s[r.i] {
		case end:
			r.i++
			return n, true
		case ',':
			r.i++
			if !r.flowSpace() || r.s[r.i] == end {
				return 0, false
			}
		default:
			return 0, false
		}
	}
}

func (r *fastReader) flowValue() (int32, bool) {
	if c := r.s[r.i]; c == '[' || c == '{' {
		return r.flow()
	}
	return r.scalar(true)
}

// flowSpace goes over white space to the next character. It reports false at the end and at a comment.
func (r *fastReader) flowSpace() bool {
	for r.i < len(r.s) && (r.s[r.i] == ' ' || r.s[r.i] == '\n') {
		r.i++
	}
	return r.i < len(r.s) && r.s[r.i] != '#'
}
