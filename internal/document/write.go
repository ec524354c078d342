package document

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	v1 "github.com/relais-edge/relais/api/v1"
)

// JSON writes a document as one JSON object. What it leaves out stays out: no default is filled in, and of a list of
// fields only those that are given are there, in the order of the types.
func JSON(d v1.Document) ([]byte, error) {
	n, err := writeNode(d, false)
	if err != nil {
		return nil, err
	}
	w := writer{left: maxNodes}
	if err := w.value(n, 0); err != nil {
		return nil, fmt.Errorf("document: %w", err)
	}
	return w.out, nil
}

// YAML writes a document so that Load reads it as it is: a dollar sign that would begin a variable is doubled.
func YAML(d v1.Document) ([]byte, error) {
	n, err := writeNode(d, true)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(n), e.Close()); err != nil {
		return nil, fmt.Errorf("document: %w", err)
	}
	return b.Bytes(), nil
}

func writeNode(d v1.Document, escape bool) (*yaml.Node, error) {
	kind, _ := d.Meta()
	return nodeWriter{escape}.object(reflect.ValueOf(d).Elem(), v1.ShapeOf(kind))
}

// nodeWriter makes YAML's nodes of what is given in a document.
type nodeWriter struct{ escape bool }

func (w nodeWriter) object(v reflect.Value, s *v1.Shape) (*yaml.Node, error) {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for i := range s.Fields {
		f := &s.Fields[i]
		fv := f.Of(v)
		if fv.IsZero() || f.Shape.Form == v1.FormList && fv.Len() == 0 {
			continue
		}
		if f.Pointer {
			fv = fv.Elem()
		}
		c, err := w.value(fv, f.Shape)
		if err != nil {
			return nil, err
		}
		if f.Shape.Form == v1.FormObject && !f.Pointer && len(c.Content) == 0 {
			continue
		}
		n.Content = append(n.Content, scalarNode("!!str", f.Name), c)
	}
	if len(n.Content) == 0 {
		n.Style = yaml.FlowStyle // {}
	}
	return n, nil
}

func scalarNode(tag, value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
}

func (w nodeWriter) value(v reflect.Value, s *v1.Shape) (*yaml.Node, error) {
	switch s.Form {
	case v1.FormObject:
		return w.object(v, s)
	case v1.FormList:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for i := range v.Len() {
			c, err := w.value(v.Index(i), s.Elem)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, c)
		}
		return n, nil
	case v1.FormMap:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		m, _ := v.Interface().(map[string]string)
		for _, k := range slices.Sorted(maps.Keys(m)) {
			n.Content = append(n.Content, scalarNode("!!str", k), w.text(m[k]))
		}
		if len(n.Content) == 0 {
			n.Style = yaml.FlowStyle
		}
		return n, nil
	case v1.FormInt:
		return scalarNode("!!int", strconv.FormatInt(v.Int(), 10)), nil
	case v1.FormBool:
		return scalarNode("!!bool", strconv.FormatBool(v.Bool())), nil
	case v1.FormText:
		b, err := textOf(v)
		return w.text(b), err
	}
	return w.text(v.String()), nil
}

func textOf(v reflect.Value) (string, error) {
	m, ok := v.Interface().(encoding.TextMarshaler)
	if !ok {
		return "", fmt.Errorf("document: %s has no text", v.Type())
	}
	b, err := m.MarshalText()
	if err != nil {
		return "", fmt.Errorf("document: %w", err)
	}
	return string(b), nil
}

func (w nodeWriter) text(s string) *yaml.Node {
	if w.escape {
		s = escapeVariables(s)
	}
	return scalarNode("!!str", s)
}

// escapeVariables doubles the dollar signs that expand would take for something else.
func escapeVariables(s string) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		b.WriteByte(s[i])
		if s[i] == '$' && i+1 < len(s) && (s[i+1] == '$' || s[i+1] == '{') {
			b.WriteByte('$')
		}
	}
	return b.String()
}
