package openapi

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Limits of paths.
const (
	maxOperations = 10_000
	maxPaths      = 10_000
	maxSegments   = 64
	// maxVisited bounds the search for one path: where a literal and a parameter both fit, both ways may be gone.
	maxVisited = 256
)

// point is a place in the tree of path templates: what may follow the segments before it.
type point struct {
	literal map[string]*point
	// patterns are the segments with parameters, those with the longest literal text first.
	patterns []pattern
	item     *pathItem
}

// pattern is a segment such as {id}, or with literal text around one parameter: {name}.json.
type pattern struct {
	before, after string
	next          *point
}

// pathItem is a path of the document.
type pathItem struct {
	template string
	allow    string // the methods, as the field Allow lists them
	methods  map[string]*Operation
	names    []string // of the parameters, by their order in the template
}

// segment cuts a template's segment at its parameters. More than one parameter in a segment is one text to us.
func segment(s string) (before, name, after string, err error) {
	open := strings.IndexByte(s, '{')
	if open < 0 {
		if strings.IndexByte(s, '}') >= 0 {
			return "", "", "", errors.New("has a } without a {")
		}
		return s, "", "", nil
	}
	end := strings.LastIndexByte(s, '}')
	if end < open+2 {
		return "", "", "", errors.New("has a { without a name and a }")
	}
	before, name, after = s[:open], s[open+1:end], s[end+1:]
	if strings.IndexByte(before, '}') >= 0 {
		return "", "", "", errors.New("has a } without a {")
	}
	if strings.ContainsAny(name, "{}") {
		name = "" // several: checked as one text, and by no schema
	}
	return before, name, after, nil
}

// add puts a template into the tree.
func (p *point) add(template string, item *pathItem) error {
	if !strings.HasPrefix(template, "/") {
		return errors.New("does not begin with a slash")
	}
	segments := strings.Split(template[1:], "/")
	if len(segments) > maxSegments {
		return fmt.Errorf("has more than %d segments", maxSegments)
	}
	for _, s := range segments {
		before, name, after, err := segment(s)
		if err != nil {
			return err
		}
		if before == s {
			next := p.literal[s]
			if next == nil {
				if p.literal == nil {
					p.literal = map[string]*point{}
				}
				next = &point{}
				p.literal[s] = next
			}
			p = next
			continue
		}
		item.names = append(item.names, name)
		at := slices.IndexFunc(p.patterns, func(o pattern) bool { return o.before == before && o.after == after })
		if at < 0 {
			next := &point{}
			p.patterns = append(p.patterns, pattern{before, after, next})
			slices.SortStableFunc(p.patterns, func(a, b pattern) int {
				return len(b.before) + len(b.after) - len(a.before) - len(a.after)
			})
			p = next
			continue
		}
		p = p.patterns[at].next
	}
	if p.item != nil {
		return fmt.Errorf("is the same as %s", p.item.template)
	}
	p.item = item
	return nil
}

// Match is what a path was found to be. Its memory is used again.
type Match struct {
	Operation *Operation // nil when the endpoint is not in the document
	// Template is the path's template when only the method is not in the document, and Allow the methods that are;
	// empty otherwise.
	Template, Allow string
	values          [][]byte // of the template's parameters, lent from the path
	visited         int
}

// find walks down the tree; a path's longest literal text wins.
func (m *Match) find(p *point, path []byte, depth int) *pathItem {
	if m.visited++; m.visited > maxVisited {
		return nil
	}
	seg, rest, more := path, []byte(nil), false
	if i := bytes.IndexByte(path, '/'); i >= 0 {
		seg, rest, more = path[:i], path[i+1:], true
	}
	if next := p.literal[string(seg)]; next != nil {
		if item := m.into(next, rest, more, depth); item != nil {
			return item
		}
	}
	for i := range p.patterns {
		t := &p.patterns[i]
		n := len(seg) - len(t.before) - len(t.after)
		if n < 1 || string(seg[:len(t.before)]) != t.before || string(seg[len(seg)-len(t.after):]) != t.after {
			continue
		}
		m.values = append(m.values, seg[len(t.before):len(t.before)+n])
		if item := m.into(t.next, rest, more, depth); item != nil {
			return item
		}
		m.values = m.values[:len(m.values)-1]
	}
	return nil
}

func (m *Match) into(p *point, rest []byte, more bool, depth int) *pathItem {
	if more {
		if depth >= maxSegments {
			return nil
		}
		return m.find(p, rest, depth+1)
	}
	return p.item
}

// Find finds the operation of a method and a normalised path (RFC 3986 section 6.2.2). HEAD is found where GET is,
// if it is not there itself (RFC 9110 section 9.3.2). It costs a lookup for each segment, and allocates nothing once
// m has grown.
func (a *API) Find(method string, path []byte, m *Match) {
	m.Operation, m.Template, m.Allow, m.values, m.visited = nil, "", "", m.values[:0], 0
	if len(path) == 0 || path[0] != '/' {
		return
	}
	item := m.find(&a.root, path[1:], 0)
	if item == nil {
		return
	}
	op := item.methods[method]
	if op == nil && method == "HEAD" {
		op = item.methods["GET"]
	}
	if m.Operation = op; op == nil {
		m.Template, m.Allow = item.template, item.allow
	}
}
