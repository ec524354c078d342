package openapi

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// compiler turns the parts of a document into schemas and operations.
type compiler struct {
	doc       *tree
	schemas   map[int]*schema
	queue     []int
	pointers  map[string]int
	indexes   map[int]map[string]int
	lists     map[int][]int
	patterns  int
	program   int  // instructions of all patterns
	parts     int  // parameters and media types of all operations
	items     int  // paths
	looks     int  // of typesOf
	old       bool // OpenAPI 3.0
	unchecked map[string]bool
	order     []string // of unchecked
}

// note says what of the document is not held against requests.
func (c *compiler) note(what string) {
	if !c.unchecked[what] && len(c.order) < 100 {
		c.unchecked[what] = true
		c.order = append(c.order, what)
	}
}

// child finds a member of an object, or an element of a list, by a token of a JSON pointer.
func (c *compiler) child(i int, name string) int {
	n := &c.doc.nodes[i]
	if n.kind == kindObject && n.size > 16 {
		x := c.indexes[i]
		if x == nil {
			x = make(map[string]int, n.size)
			_ = c.doc.members(i, func(name string, v int) error { x[name] = v; return nil })
			c.indexes[i] = x
		}
		if v, ok := x[name]; ok {
			return v
		}
		return -1
	}
	if n.kind != kindArray {
		return c.doc.get(i, name)
	}
	at, err := strconv.Atoi(name)
	if err != nil || at < 0 || at >= int(n.size) {
		return -1
	}
	l := c.lists[i]
	if l == nil {
		l = make([]int, 0, n.size)
		_ = c.doc.members(i, func(_ string, v int) error { l = append(l, v); return nil })
		c.lists[i] = l
	}
	return l[at]
}

// text gives a member that is a string; empty when it is not.
func (c *compiler) text(i int, name string) string {
	if v := c.child(i, name); v >= 0 && c.doc.nodes[v].kind == kindString {
		return string(c.doc.str(v, nil))
	}
	return ""
}

// flag says whether a member is true.
func (c *compiler) flag(i int, name string) bool {
	v := c.child(i, name)
	return v >= 0 && c.doc.nodes[v].kind == kindBool && string(c.doc.raw(v)) == "true"
}

// count counts a parameter or media type: many operations may refer to one long list of them.
func (c *compiler) count() error {
	if c.parts++; c.parts > maxParts {
		return fmt.Errorf("the document's operations have more than %d parameters and media types in all", maxParts)
	}
	return nil
}

// Error is what is wrong with a document.
type Error struct {
	// Pointer to the value that is wrong, as a JSON pointer (RFC 6901); empty for the whole document.
	Pointer string
	// Offset of that value in the text.
	Offset int
	// What is wrong, and how to mend it.
	What, Fix string
}

// Error implements error.
func (e *Error) Error() string {
	if e.Pointer == "" {
		return e.What + "; " + e.Fix
	}
	return e.Pointer + " of the OpenAPI document: " + e.What + "; " + e.Fix
}

// placed is an error of the node that is nearest to it.
type placed struct {
	node int
	err  error
}

func (p *placed) Error() string { return p.err.Error() }
func (p *placed) Unwrap() error { return p.err }

// at says where an error is, unless that was said already.
func at(i int, err error) error {
	var p *placed
	if err == nil || errors.As(err, &p) {
		return err
	}
	return &placed{i, err}
}

// located makes an error one for who wrote the document. What stands behind a semicolon says how to mend it.
func (c *compiler) located(err error) error {
	e := &Error{}
	var p *placed
	if errors.As(err, &p) {
		e.Pointer, e.Offset, err = c.doc.path(p.node), int(c.doc.nodes[p.node].start), p.err
	}
	ok := false
	if e.What, e.Fix, ok = strings.Cut(err.Error(), "; "); !ok {
		e.Fix = "mend the OpenAPI document"
	}
	return e
}

// follow gives the node that node i stands for: itself, or what its $ref points to. Only references into the
// document are followed.
func (c *compiler) follow(i int) (int, error) {
	for range maxRefs {
		ref := c.text(i, "$ref")
		if ref == "" {
			return i, nil
		}
		to, err := c.point(ref)
		if err != nil {
			return 0, err
		}
		i = to
	}
	return 0, errors.New("a $ref leads in a circle, or through more than 64 others")
}

// point finds the node that a reference points to.
func (c *compiler) point(ref string) (int, error) {
	if i, ok := c.pointers[ref]; ok {
		return i, nil
	}
	fragment, ok := strings.CutPrefix(ref, "#")
	if !ok {
		return 0, fmt.Errorf("$ref %q leads out of the document, which is not followed; bundle the document into one file", cut(ref))
	}
	fragment, err := url.PathUnescape(fragment)
	if err != nil || fragment != "" && fragment[0] != '/' {
		return 0, fmt.Errorf("$ref %q is not a JSON pointer such as #/components/schemas/Order", cut(ref))
	}
	i := 0
	for fragment != "" {
		var token string
		token, fragment, _ = strings.Cut(fragment[1:], "/")
		if fragment != "" {
			fragment = "/" + fragment
		}
		token = strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
		if i = c.child(i, token); i < 0 {
			return 0, fmt.Errorf("$ref %q points to nothing; define it in the document, or mend the name", cut(ref))
		}
	}
	c.pointers[ref] = i
	return i, nil
}

func cut(s string) string {
	if len(s) > 120 {
		return strings.ToValidUTF8(s[:120], "") + "…"
	}
	return s
}
