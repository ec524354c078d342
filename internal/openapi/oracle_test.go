package openapi

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// maker makes schemas and values that have something to do with one another.
type maker struct{ *rand.Rand }

func (m maker) pick(list ...any) any { return list[m.IntN(len(list))] }

func (m maker) name() string { return m.pick("a", "b", "c", "x-d").(string) }

func (m maker) value(depth int) any {
	n := m.IntN(9)
	if depth == 0 {
		n = m.IntN(7)
	}
	switch n {
	case 0:
		return nil
	case 1:
		return m.IntN(2) == 0
	case 2, 3:
		return m.IntN(8) - 2
	case 4:
		return float64(m.IntN(40)-10) / 4
	case 5, 6:
		return m.pick("", "a", "ab", "abc", "é", "日本", "a\tb", "12", "x-1")
	case 7:
		l := make([]any, m.IntN(4))
		for i := range l {
			l[i] = m.value(depth - 1)
		}
		return l
	}
	o := map[string]any{}
	for range m.IntN(4) {
		o[m.name()] = m.value(depth - 1)
	}
	return o
}

func (m maker) list(depth int) []any {
	l := make([]any, 1+m.IntN(3))
	for i := range l {
		l[i] = m.schema(depth - 1)
	}
	return l
}

func (m maker) schema(depth int) any {
	if m.IntN(12) == 0 {
		return m.IntN(3) > 0
	}
	s := map[string]any{}
	for range 1 + m.IntN(3) {
		n := m.IntN(17)
		if depth > 0 {
			n = m.IntN(31)
		}
		switch n {
		case 0, 1, 2:
			s["type"] = m.pick("null", "boolean", "integer", "number", "string", "array", "object", "object", "array")
		case 3:
			s["type"] = []any{m.pick("null", "integer"), m.pick("string", "object", "number")}
		case 4:
			s["enum"] = []any{m.value(1), m.value(1), m.value(2)}
		case 5:
			s["const"] = m.value(1)
		case 6:
			s["minimum"] = m.IntN(4)
		case 7:
			s["exclusiveMaximum"] = m.IntN(6)
		case 8:
			s["multipleOf"] = m.pick(1, 2, 0.25, 0.5)
		case 9:
			s["minLength"] = m.IntN(3)
		case 10:
			s["maxLength"] = m.IntN(4)
		case 11:
			s["pattern"] = m.pick("^a", "b$", "^[0-9]+$", "x-")
		case 12:
			s["maxItems"] = m.IntN(4)
		case 13:
			s["uniqueItems"] = true
		case 14:
			s["required"] = []any{"a"}
		case 15:
			s["minProperties"] = m.IntN(3)
		case 16:
			s["dependentRequired"] = map[string]any{"a": []any{"b"}}
		case 17, 18:
			s["properties"] = map[string]any{"a": m.schema(depth - 1), m.name(): m.schema(depth - 1)}
		case 19:
			s["additionalProperties"] = m.schema(depth - 1)
		case 20:
			s["patternProperties"] = map[string]any{"^x-": m.schema(depth - 1)}
		case 21:
			s["propertyNames"] = m.schema(depth - 1)
		case 22:
			s["items"] = m.schema(depth - 1)
		case 23:
			s["prefixItems"] = m.list(depth)
		case 24:
			s["contains"] = m.schema(depth - 1)
		case 25:
			s["allOf"] = m.list(depth)
		case 26:
			s["anyOf"] = m.list(depth)
		case 27:
			s["oneOf"] = m.list(depth)
		case 28:
			s["not"] = m.schema(depth - 1)
		case 29:
			s["if"], s["then"], s["else"] = m.schema(depth-1), m.schema(depth-1), m.schema(depth-1)
		case 30:
			s["dependentSchemas"] = map[string]any{"b": m.schema(depth - 1)}
		}
	}
	return s
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func read(t *testing.T, s string) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(s))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Verdicts are those of a library that passes JSON Schema's own suite, on made schemas and values.
func TestVerdictsAreThoseOfALibrary(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(7, 11))}
	held, not := 0, 0
	for i := range 700 {
		schema := text(t, m.schema(3))
		lib := jsonschema.NewCompiler()
		if err := lib.AddResource("mem:///s.json", read(t, schema)); err != nil {
			t.Fatal(err)
		}
		oracle, err := lib.Compile("mem:///s.json")
		if err != nil {
			t.Fatalf("%s: %v", schema, err)
		}
		a, err := Compile(fmt.Appendf(nil, `{"openapi":"3.1.0","paths":{"/a":{"post":{"requestBody":{"content":{"application/json":{"schema":%s}}}}}}}`, schema), "")
		if err != nil {
			t.Fatalf("%s: %v", schema, err)
		}
		var c Checker
		for range 12 {
			body := text(t, m.value(3))
			want := oracle.Validate(read(t, body)) == nil
			v := c.Body(a.Operations[0], []byte("application/json"), []byte(body))
			if (v == nil) != want {
				t.Errorf("%d: schema %s\nvalue %s\nwe say %v, the library %v", i, schema, body, v, want)
			}
			if want {
				held++
			} else {
				not++
			}
		}
	}
	if held < 500 || not < 500 {
		t.Errorf("%d values held and %d did not: too few to say anything", held, not)
	}
}
