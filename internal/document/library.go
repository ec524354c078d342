package document

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

const (
	// maxNodes bounds the values of one document.
	maxNodes = 1_000_000
	// maxCopied bounds the values that aliases repeat in one document, so that a few lines of aliases
	// of aliases cannot stand for millions.
	maxCopied = 10_000
)

// fault is something wrong at an offset of a part.
type fault struct {
	at        int32
	field     string
	what, fix string
	meant     string // the field that an unknown one probably stands for
}

// readLibrary reads the documents of a part with the library. It stops at the first fault, which it
// gives beside the documents before it.
func readLibrary(s string) (trees []tree, f *fault) {
	for at, c := range s {
		switch {
		case c == utf8.RuneError && !strings.HasPrefix(s[at:], "\ufffd"):
			return nil, &fault{at: int32(at), what: "the text is not UTF-8", fix: "save the file as UTF-8"}
		case c < ' ' && c != '\n' && c != '\r' && c != '\t' || c == 0x7f:
			return nil, &fault{at: int32(at), what: fmt.Sprintf("the text holds the control character %q", c), fix: "remove it"}
		}
	}
	dec := yaml.NewDecoder(strings.NewReader(s))
	lines := lineStarts(s)
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return trees, nil
		}
		if err != nil {
			return trees, syntaxFault(s, lines, err)
		}
		if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 {
			continue
		}
		root := doc.Content[0]
		if root.Kind == yaml.ScalarNode && root.Style == 0 && isNull(root.Value) {
			continue // an empty document
		}
		c := copier{s: s, lines: lines}
		if _, f := c.copy(root, 0); f != nil {
			return trees, f
		}
		trees = append(trees, c.tree)
	}
}

// copier makes a tree of the library's nodes.
type copier struct {
	tree
	s      string
	lines  []int
	copied int // values inside aliases
	inside int // aliases around the present value
}

func (c *copier) copy(n *yaml.Node, depth int) (int32, *fault) {
	at := c.offset(n.Line, n.Column)
	bad := func(what, fix string) (int32, *fault) { return 0, &fault{at: at, what: what, fix: fix} }
	if depth++; depth > maxDepth {
		return bad(fmt.Sprintf("the document nests deeper than %d", maxDepth), "write it flatter")
	}
	if len(c.nodes) >= maxNodes {
		return bad(fmt.Sprintf("the document holds more than %d values", maxNodes), "split it")
	}
	if c.inside > 0 {
		if c.copied++; c.copied > maxCopied {
			return bad(fmt.Sprintf("aliases repeat more than %d values", maxCopied), "write the values out")
		}
	}
	if n.Style&yaml.TaggedStyle != 0 {
		return bad("the tag "+n.Tag+" has no meaning here", "remove it")
	}
	switch n.Kind {
	case yaml.AliasNode:
		c.inside++
		i, f := c.copy(n.Alias, depth)
		c.inside--
		return i, f
	case yaml.ScalarNode:
		kind := plain
		if n.Style != 0 {
			kind = quoted
		}
		return c.add(node{kind: kind, text: n.Value, at: at}), nil
	case yaml.MappingNode, yaml.SequenceNode:
		kind := mapping
		if n.Kind == yaml.SequenceNode {
			kind = sequence
		}
		i, last := c.add(node{kind: kind, at: at}), int32(0)
		for j, child := range n.Content {
			if kind == mapping && j%2 == 0 && child.Value == "<<" && child.Style == 0 {
				return 0, &fault{at: c.offset(child.Line, child.Column), what: "merge keys (<<) have no meaning here", fix: "write the fields out"}
			}
			k, f := c.copy(child, depth)
			if f != nil {
				return 0, f
			}
			if last == 0 {
				c.nodes[i].first = k
			} else {
				c.nodes[last].next = k
			}
			last = k
		}
		return i, nil
	}
	return bad("this cannot be read", "")
}

// lineStarts gives the offset of each line as the library counts them.
func lineStarts(s string) []int {
	starts := []int{0}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\n':
			starts = append(starts, i+1)
		case s[i] == '\r':
			if i+1 < len(s) && s[i+1] == '\n' {
				i++
			}
			starts = append(starts, i+1)
		case strings.HasPrefix(s[i:], "\u0085"):
			starts = append(starts, i+2)
		case strings.HasPrefix(s[i:], "\u2028") || strings.HasPrefix(s[i:], "\u2029"):
			starts = append(starts, i+3)
		}
	}
	return starts
}

// offset of a line and a column, both from 1, columns in characters.
func (c *copier) offset(line, column int) int32 { return offsetIn(c.s, c.lines, line, column) }

func offsetIn(s string, lines []int, line, column int) int32 {
	if line < 1 {
		return 0
	}
	if line > len(lines) {
		return int32(len(s))
	}
	at := lines[line-1]
	for ; column > 1 && at < len(s); column-- {
		_, n := utf8.DecodeRuneInString(s[at:])
		at += n
	}
	return int32(at)
}

// syntaxFault puts the library's words into those of a person who writes a document.
func syntaxFault(s string, lines []int, err error) *fault {
	f := &fault{what: "the YAML cannot be read: " + strings.TrimPrefix(err.Error(), "yaml: ")}
	var e *yaml.LoadError
	if !errors.As(err, &e) {
		return f
	}
	f.at = offsetIn(s, lines, e.Mark.Line, e.Mark.Column)
	f.what = "the YAML cannot be read: " + e.Message
	line := lineAt(s, f.at)
	switch {
	case strings.Contains(line, "${") && strings.ContainsAny(line, "[{") && inFlow(line):
		f.what = "a ${…} stands inside [ ] or { } without quotation marks"
		f.fix = `put it in quotation marks: "${NAME}"`
	case strings.HasPrefix(strings.TrimLeft(line, " "), "\t"):
		f.what, f.fix = "the line is indented with a tab", "indent with spaces"
	case strings.Contains(e.Message, "expected alphabetic or numeric") || strings.Contains(e.Message, "unknown anchor"):
		f.what, f.fix = "a value that begins with * or & is an alias or an anchor in YAML", `put it in quotation marks, such as "*.example.com"`
	case strings.Contains(e.Message, "mapping values are not allowed"):
		f.what = "there is a colon where no key can be"
		f.fix = "put the value in quotation marks if it holds a colon and a space, or mend the indentation"
	case strings.Contains(e.Message, "unexpected end of stream"):
		f.what, f.fix = "a quotation mark is opened and not closed", "close it"
	case strings.Contains(e.Message, "incompatible YAML document"):
		f.fix = "remove the %YAML line"
	case strings.Contains(e.Message, "expected ',' or"), strings.Contains(e.Message, "expected node content"):
		f.what, f.fix = "a bracket or brace is opened and not closed before this", "close it, and put a comma between entries"
	case strings.Contains(e.Message, "cannot start any token"):
		f.what = "a value cannot begin with " + firstOf(s, f.at)
		f.fix = "put the value in quotation marks"
	case strings.Contains(e.Message, "expected '-' indicator"), strings.Contains(e.Message, "did not find expected key"):
		f.what, f.fix = "the indentation does not fit the lines before", "let the fields of a mapping, and the dashes of a list, stand in one column"
	}
	return f
}

func lineAt(s string, at int32) string {
	start := strings.LastIndexByte(s[:at], '\n') + 1
	line, _, _ := strings.Cut(s[start:], "\n")
	return line
}

// inFlow tells whether a ${ of the line stands behind an open bracket or brace and outside quotation marks.
func inFlow(line string) bool {
	depth, mark := 0, byte(0)
	for i := range len(line) {
		switch c := line[i]; {
		case mark != 0:
			if c == mark {
				mark = 0
			}
		case c == '"' || c == '\'':
			mark = c
		case c == '$' && depth > 0 && strings.HasPrefix(line[i:], "${"):
			return true
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}

func firstOf(s string, at int32) string {
	if int(at) >= len(s) {
		return "nothing"
	}
	_, n := utf8.DecodeRuneInString(s[at:])
	return s[at : int(at)+n]
}
