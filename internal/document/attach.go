package document

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/openapi"
	"github.com/relais-edge/relais/internal/token"
)

// attach reads what documents name beside themselves, and what stands in them in a form of its own: OpenAPI
// documents, which become JSON in the document, and key sets. What is wrong there is a problem of the document.
func (s *Set) attach() []Problem {
	var problems []Problem
	for i, d := range s.Documents {
		switch d := d.(type) {
		case *v1.ApiPolicy:
			problems = append(problems, s.attachAPI(i, &d.Spec)...)
		case *v1.JwtPolicy:
			for j := range d.Spec.Issuers {
				k := d.Spec.Issuers[j].JWKS
				if k == nil || k.Inline == "" || !json.Valid([]byte(k.Inline)) {
					continue // that it is no JSON, Validate has told
				}
				if _, err := token.ParseKeys([]byte(k.Inline)); err != nil {
					problems = append(problems, s.place(i, v1.Problem{
						Field: "spec.issuers[" + strconv.Itoa(j) + "].jwks.inline", What: err.Error(),
						Fix: "give public keys for signatures: RSA from 2048 bits, EC or Ed25519",
					}))
				}
			}
		}
	}
	return problems
}

// Referenced are the files that documents name, by the names under which they were read.
func (s *Set) Referenced() []string { return s.referenced }

// attachAPI puts an OpenAPI document into its ApiPolicy, as JSON. A problem of a file stands at its line in that file.
func (s *Set) attachAPI(i int, spec *v1.ApiPolicySpec) []Problem {
	d := spec.Document
	if d == nil || (d.File == "") == (d.Inline == "") {
		return nil // Validate has told
	}
	if d.File != "" && s.mode.sent {
		return []Problem{s.place(i, v1.Problem{Field: "spec.document.file", What: "names a file, and the control plane reads none", Fix: "give its text in spec.document.inline, or send the document with relais apply, which does"})}
	}
	text, name, field := d.Inline, "", "spec.document.inline"
	if d.File != "" {
		name, field = d.File, "spec.document.file"
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(s.files[s.origins[i].file].name), name)
		}
		if !slices.Contains(s.referenced, name) {
			s.referenced = append(s.referenced, name)
		}
		b, err := readBeside(name)
		if err != nil {
			return []Problem{s.place(i, v1.Problem{Field: field, What: quote(name) + " cannot be read: " + err.Error(), Fix: "check the path; a relative one counts from the folder of this document"})}
		}
		text = string(b)
	}
	b, err := toJSON(text)
	if err == nil {
		_, err = openapi.Compile(b, spec.BasePath)
	}
	if err == nil {
		// The bundle holds all that is needed. Others share the old one by pointer.
		spec.Document = &v1.ApiDocument{Inline: string(b)}
		if s.mode.written {
			if w, ok := s.Written[i].(*v1.ApiPolicy); ok {
				w.Spec.Document = &v1.ApiDocument{Inline: text}
			}
		}
		return nil
	}
	out := v1.Problem{Field: field, What: err.Error(), Fix: "mend the OpenAPI document"}
	line, column := 0, 0
	var e *openapi.Error
	if errors.As(err, &e) {
		out.What, out.Fix = e.What, e.Fix
		if e.Pointer != "" {
			out.What = e.Pointer + " of the OpenAPI document: " + e.What
			line, column = locate(text, e)
		}
	}
	p := s.place(i, out)
	switch {
	case name != "" && line > 0:
		p.File, p.Line, p.Column = name, line, column
	case line > 0:
		s.block(i, &p, line, column)
	}
	return []Problem{p}
}

// locate finds the line and the column of an error in the text of an OpenAPI document; 0 where it cannot.
func locate(text string, e *openapi.Error) (line, column int) {
	if t := plainJSON(text); t != "" {
		return position(text, strings.Index(text, t)+e.Offset)
	}
	var doc yaml.Node
	if yaml.NewDecoder(strings.NewReader(text)).Decode(&doc) != nil || len(doc.Content) == 0 {
		return 0, 0
	}
	n := doc.Content[0]
	shown := n
	for token := range strings.SplitSeq(strings.TrimPrefix(e.Pointer, "/"), "/") {
		token = strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		var next *yaml.Node
		at, err := strconv.Atoi(token)
		switch {
		case n.Kind == yaml.SequenceNode && err == nil && at >= 0 && at < len(n.Content):
			next = n.Content[at]
			shown = next
		case n.Kind == yaml.MappingNode:
			for k := 0; k+1 < len(n.Content); k += 2 {
				if n.Content[k].Value == token {
					shown, next = n.Content[k], n.Content[k+1]
				}
			}
		}
		if next == nil {
			break
		}
		n = next
	}
	return shown.Line, shown.Column
}

// block moves a problem from a field to a line of its text, where that stands line by line (YAML's |).
func (s *Set) block(i int, p *Problem, line, column int) {
	o := s.origins[i]
	lines := strings.Split(s.files[o.file].text[o.start:o.end], "\n")
	row := p.Line - o.line
	if row < 1 || row+line > len(lines) {
		return
	}
	head := strings.TrimRight(lines[row-1], " \r")
	if !strings.HasSuffix(strings.TrimRight(head, "+-"), "|") {
		return
	}
	first := lines[row]
	p.Line += line
	p.Column = len(first) - len(strings.TrimLeft(first, " ")) + column
}

// readBeside reads a file that a document names.
func readBeside(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	if !info.Mode().IsRegular() { // reading a pipe may never end
		return nil, errors.New("it is not a regular file")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, openapi.MaxBytes+1))
	if err == nil && len(b) > openapi.MaxBytes {
		err = fmt.Errorf("it is larger than %d MiB", openapi.MaxBytes>>20)
	}
	return b, err
}

// plainJSON is a text without what stands around it, if it is JSON; else empty.
func plainJSON(text string) string {
	if t := strings.TrimSpace(strings.TrimPrefix(text, "\ufeff")); strings.HasPrefix(t, "{") && json.Valid([]byte(t)) {
		return t
	}
	return ""
}

// toJSON writes a YAML text as JSON. JSON stays as it is.
func toJSON(text string) ([]byte, error) {
	if len(text) > openapi.MaxBytes {
		return nil, fmt.Errorf("the text is larger than %d MiB", openapi.MaxBytes>>20)
	}
	if t := plainJSON(text); t != "" {
		return []byte(t), nil
	}
	var doc yaml.Node
	if err := yaml.NewDecoder(strings.NewReader(text)).Decode(&doc); err != nil {
		return nil, fmt.Errorf("is neither JSON nor YAML: %s", printable(err.Error()))
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 {
		return nil, errors.New("is empty")
	}
	w := writer{left: maxNodes}
	if err := w.value(doc.Content[0], 0); err != nil {
		return nil, err
	}
	return w.out, nil
}

// writer writes the nodes of YAML as JSON.
type writer struct {
	out  []byte
	left int // values that may still be written: aliases of aliases must not stand for millions
}

const maxWritten = 64 << 20

func (w *writer) value(n *yaml.Node, depth int) error {
	if w.left--; w.left < 0 || len(w.out) > maxWritten {
		return errors.New("stands for more values than are taken")
	}
	if depth > 128 {
		return errors.New("is nested more than 128 deep")
	}
	switch n.Kind {
	case yaml.AliasNode:
		return w.value(n.Alias, depth+1)
	case yaml.SequenceNode:
		w.out = append(w.out, '[')
		for i, e := range n.Content {
			if i > 0 {
				w.out = append(w.out, ',')
			}
			if err := w.value(e, depth+1); err != nil {
				return err
			}
		}
		w.out = append(w.out, ']')
	case yaml.MappingNode:
		w.out = append(w.out, '{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge" {
				return fmt.Errorf("line %d: a key is no plain text (nor may it be a merge key, <<)", k.Line)
			}
			if i > 0 {
				w.out = append(w.out, ',')
			}
			w.text(k.Value)
			w.out = append(w.out, ':')
			if err := w.value(n.Content[i+1], depth+1); err != nil {
				return err
			}
		}
		w.out = append(w.out, '}')
	case yaml.ScalarNode:
		w.scalar(n)
	default:
		return fmt.Errorf("line %d: holds something that JSON does not know", n.Line)
	}
	return nil
}

func (w *writer) text(s string) {
	b, _ := json.Marshal(s) // a text always can be
	w.out = append(w.out, b...)
}

func (w *writer) scalar(n *yaml.Node) {
	v := n.Value
	switch n.ShortTag() {
	case "!!null":
		w.out = append(w.out, "null"...)
		return
	case "!!bool":
		if b, err := strconv.ParseBool(strings.ToLower(v)); err == nil {
			w.out = strconv.AppendBool(w.out, b)
			return
		}
	case "!!int", "!!float":
		if json.Valid([]byte(v)) {
			w.out = append(w.out, v...)
			return
		}
		if i, err := strconv.ParseInt(v, 0, 64); err == nil {
			w.out = strconv.AppendInt(w.out, i, 10)
			return
		}
		if f, err := strconv.ParseFloat(v, 64); err == nil && f-f == 0 {
			w.out = strconv.AppendFloat(w.out, f, 'g', -1, 64)
			return
		}
	}
	w.text(v)
}
