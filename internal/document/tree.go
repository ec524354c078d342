package document

import (
	"strings"
	"unicode/utf8"
)

type nodeKind uint8

const (
	plain    nodeKind = iota // a scalar without quotation marks
	quoted                   // a scalar with them, or a block of text
	mapping                  // its children are a key, a value, a key, a value…
	sequence                 // its children are its elements
)

func (k nodeKind) scalar() bool { return k <= quoted }

// node is a value of a document. Its children are a linked list of indexes into the tree.
type node struct {
	kind        nodeKind
	text        string // of a scalar
	at          int32  // offset in the source of the part
	first, next int32  // 0 means none
}

// tree is a document as it was written. Index 0 is the root.
type tree struct{ nodes []node }

func (t *tree) add(n node) int32 {
	t.nodes = append(t.nodes, n)
	return int32(len(t.nodes) - 1)
}

// children yields the indexes of a node's children.
func (t *tree) children(of int32) func(func(int32) bool) {
	return func(yield func(int32) bool) {
		for i := t.nodes[of].first; i != 0; i = t.nodes[i].next {
			if !yield(i) {
				return
			}
		}
	}
}

// value finds the value of a key of a mapping, and the key; 0 when there is none.
func (t *tree) value(of int32, name string) (value, key int32) {
	if t.nodes[of].kind != mapping {
		return 0, 0
	}
	for k := t.nodes[of].first; k != 0; {
		v := t.nodes[k].next
		if t.nodes[k].text == name && t.nodes[k].kind.scalar() {
			return v, k
		}
		k = t.nodes[v].next
	}
	return 0, 0
}

// find gives the offset of a field such as spec.routes[2].pool, or of the nearest thing around it that
// is written: of a key for a field, of the element for an index.
func (t *tree) find(field string) int32 {
	at, _ := t.seek(field)
	return at
}

// has says whether the field itself is written.
func (t *tree) has(field string) bool {
	_, ok := t.seek(field)
	return ok
}

// seek is find, and says whether the field itself was found.
func (t *tree) seek(field string) (offset int32, found bool) {
	at, cur := t.nodes[0].at, int32(0)
	for field != "" {
		if rest, ok := strings.CutPrefix(field, "["); ok {
			index, rest, ok := strings.Cut(rest, "]")
			n := 0
			for _, c := range index {
				n = n*10 + int(c-'0')
			}
			if !ok || t.nodes[cur].kind != sequence {
				return at, false
			}
			i := t.nodes[cur].first
			for ; n > 0 && i != 0; n-- {
				i = t.nodes[i].next
			}
			if i == 0 {
				return at, false
			}
			cur, at, field = i, t.nodes[i].at, strings.TrimPrefix(rest, ".")
			continue
		}
		end := strings.IndexAny(field, ".[")
		if end < 0 {
			end = len(field)
		}
		v, k := t.value(cur, field[:end])
		if k == 0 {
			return at, false
		}
		cur, at, field = v, t.nodes[k].at, strings.TrimPrefix(field[end:], ".")
	}
	return at, true
}

// isNull tells whether a scalar without quotation marks means that nothing is given.
func isNull(text string) bool {
	switch text {
	case "", "~", "null", "Null", "NULL":
		return true
	}
	return false
}

// position gives the line and the column of an offset, both from 1; columns count characters.
func position(text string, at int) (line, column int) {
	at = min(at, len(text))
	line = 1 + strings.Count(text[:at], "\n")
	start := strings.LastIndexByte(text[:at], '\n') + 1
	return line, 1 + utf8.RuneCountInString(text[start:at])
}
