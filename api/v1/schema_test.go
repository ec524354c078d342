package v1

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the files under schema and testdata anew")

type object = map[string]any

// generator turns shapes and the comments of the sources into JSON Schema.
type generator struct {
	docs   map[string]string // Type or Type.Field: comment
	strict bool              // refuse unknown fields; not structural
}

func (g *generator) schema(s *Shape, f *Field) object {
	o := object{}
	switch s.Form {
	case FormObject:
		o["type"] = "object"
		g.properties(o, s)
	case FormMap:
		o["type"], o["additionalProperties"] = "object", object{"type": "string", "maxLength": 63}
		o["maxProperties"] = f.MaxItems
	case FormList:
		o["type"], o["items"] = "array", g.schema(s.Elem, f)
		if f.MinItems > 0 {
			o["minItems"] = f.MinItems
		}
		o["maxItems"] = f.MaxItems
		o["x-kubernetes-list-type"] = "atomic"
	case FormBool:
		o["type"] = "boolean"
	case FormInt:
		o["type"] = "integer"
		g.leaf(o, f)
	case FormString:
		o["type"] = "string"
		g.leaf(o, f)
	case FormText:
		g.text(o, s)
	}
	return o
}

func (g *generator) properties(o object, s *Shape) {
	props, required := object{}, []string{}
	for i := range s.Fields {
		f := &s.Fields[i]
		p := g.schema(f.Shape, f)
		if d := g.describe(s.Type, f); d != "" {
			p["description"] = d
		}
		if f.value.IsValid() {
			p["default"] = f.value.Interface()
		}
		props[f.Name] = p
		if f.Required {
			required = append(required, f.Name)
		}
	}
	o["properties"] = props
	if len(required) > 0 {
		o["required"] = required
	}
	if g.strict {
		o["additionalProperties"] = false
	}
}

func (g *generator) describe(t reflect.Type, f *Field) string {
	for _, i := range f.Index[:len(f.Index)-1] {
		t = t.Field(i).Type
	}
	goName := t.Field(f.Index[len(f.Index)-1]).Name
	d := g.docs[t.Name()+"."+goName]
	if d == "" && f.Shape.Form == FormObject {
		d = g.docs[f.Shape.Type.Name()]
	}
	if f.Shape.Form == FormText && f.Bounds() != "" {
		_, values, _ := strings.Cut(f.Bounds(), "write a")
		d += " It is a" + values + "."
	}
	if f.Secret {
		d += " It is a secret: a control plane keeps it closed and never gives it back."
	}
	if f.Local {
		d += " A control plane takes it from its operator alone."
	}
	return d
}

func (g *generator) leaf(o object, f *Field) {
	if o["type"] == "integer" {
		if f.Min != nil {
			o["minimum"] = *f.Min
		}
		if f.Max != nil {
			o["maximum"] = *f.Max
		}
	}
	if len(f.Enum) > 0 {
		words := []any{}
		for _, w := range f.Enum {
			if n, err := strconv.Atoi(w); err == nil && o["type"] == "integer" {
				words = append(words, n)
			} else {
				words = append(words, w)
			}
		}
		o["enum"] = words
	}
	if f.MaxLength > 0 {
		o["maxLength"] = f.MaxLength
	}
	switch {
	case f.Format == "name", f.Ref != "":
		o["pattern"] = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"
	case f.Format == "path":
		o["pattern"] = "^/"
	case f.Format == "token", f.Format == "field-name":
		o["pattern"] = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
	}
}

func (g *generator) text(o object, s *Shape) {
	switch s.Type {
	case reflect.TypeFor[Size]():
		o["x-kubernetes-int-or-string"] = true
		o["anyOf"] = []any{object{"type": "integer"}, object{"type": "string"}}
		o["pattern"] = "^[0-9]+ *([kMGT]?B|[KMGT]iB)?$"
	case reflect.TypeFor[Percent]():
		o["type"], o["pattern"] = "string", `^[0-9]+(\.[0-9]+)?%$`
	case reflect.TypeFor[Duration]():
		o["type"], o["pattern"] = "string", `^(0|([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+)$`
	case reflect.TypeFor[Time]():
		o["type"], o["format"] = "string", "date-time"
	default:
		panic("no schema for " + s.Type.String())
	}
}

func (g *generator) kind(k Kind) object {
	s := ShapeOf(k)
	o := g.schema(s, nil)
	o["description"] = g.docs[s.Type.Name()]
	o["properties"].(object)["kind"].(object)["enum"] = []any{string(k)}
	return o
}

func (g *generator) crd(k Kind) object {
	o := g.kind(k)
	p := o["properties"].(object)
	p["metadata"] = object{"type": "object"}
	p["apiVersion"], p["kind"] = object{"type": "string"}, object{"type": "string"}
	if r, ok := o["required"].([]string); ok {
		r = slices.DeleteFunc(r, func(s string) bool { return s != "spec" })
		delete(o, "required")
		if len(r) > 0 {
			o["required"] = r
		}
	}
	return o
}

// readDocs collects the comments of types and fields.
func readDocs(t *testing.T) map[string]string {
	docs := map[string]string{}
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			d, ok := n.(*ast.GenDecl)
			if !ok || d.Tok != token.TYPE {
				return true
			}
			for _, s := range d.Specs {
				ts := s.(*ast.TypeSpec)
				docs[ts.Name.Name] = line(d.Doc.Text())
				st, ok := ts.Type.(*ast.StructType)
				if !ok {
					continue
				}
				for _, f := range st.Fields.List {
					for _, id := range f.Names {
						docs[ts.Name.Name+"."+id.Name] = line(f.Doc.Text())
					}
				}
			}
			return true
		})
	}
	docs["TypeMeta.APIVersion"] = "Version of the vocabulary."
	docs["TypeMeta.Kind"] = "What the document is."
	return docs
}

func line(comment string) string { return strings.Join(strings.Fields(comment), " ") }

func generate(t *testing.T) map[string][]byte {
	docs := readDocs(t)
	files := map[string][]byte{}
	put := func(name string, o object) {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", " ")
		if err := e.Encode(o); err != nil {
			t.Fatal(err)
		}
		files[name+".json"] = b.Bytes()
	}
	all := []any{}
	for _, k := range Kinds() {
		put(strings.ToLower(string(k)), (&generator{docs: docs}).kind(k))
		put("crd/"+strings.ToLower(string(k)), (&generator{docs: docs}).crd(k))
		all = append(all, (&generator{docs: docs, strict: true}).kind(k))
	}
	put("document", object{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "A Relais document", "oneOf": all,
	})
	return files
}

func TestSchemaFilesAreCurrent(t *testing.T) {
	want := generate(t)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		path := filepath.Join("schema", filepath.FromSlash(name))
		if *update {
			if err := os.WriteFile(path, want[name], 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want[name]) {
			t.Errorf("%s is stale; run go generate ./api/v1", path)
		}
	}
	if *update {
		return // the embedded files are those of before
	}
	for _, k := range Kinds() {
		if len(KindSchema(k)) == 0 || len(CRDSchema(k)) == 0 {
			t.Errorf("%s has no embedded schema", k)
		}
	}
	if KindSchema("Nothing") != nil || len(Schema()) == 0 {
		t.Error("Schema must be there, and that of an unknown kind must not")
	}
}

func TestEveryFieldIsDescribed(t *testing.T) {
	docs := readDocs(t)
	g := &generator{docs: docs}
	var walk func(s *Shape)
	walk = func(s *Shape) {
		if s.Elem != nil {
			walk(s.Elem)
		}
		for i := range s.Fields {
			f := &s.Fields[i]
			inside := f.Shape.Form == FormObject
			if g.describe(s.Type, f) == "" {
				t.Errorf("%s.%s has no comment", s.Type.Name(), f.Name)
			}
			if inside || f.Shape.Form == FormList {
				walk(f.Shape)
			}
			if (f.Shape.Form == FormList || f.Shape.Form == FormMap) && f.MaxItems == 0 {
				t.Errorf("%s.%s has no maxItems", s.Type.Name(), f.Name)
			}
		}
	}
	for _, k := range Kinds() {
		walk(ShapeOf(k))
	}
}

// structural holds a schema against the rules of apiextensions.k8s.io/v1 for structural schemas.
func structural(report func(string, ...any), at string, o object) {
	intOrString := o["x-kubernetes-int-or-string"] == true
	for key := range o {
		switch key {
		case "type", "description", "properties", "required", "items", "default", "enum", "pattern", "format",
			"minimum", "maximum", "minItems", "maxItems", "maxLength", "maxProperties",
			"x-kubernetes-int-or-string", "x-kubernetes-list-type":
		case "anyOf":
			if want := []any{object{"type": "integer"}, object{"type": "string"}}; !intOrString || !reflect.DeepEqual(o[key], want) {
				report("%s: anyOf is allowed only as the two types of an int-or-string", at)
			}
		case "additionalProperties":
			sub, ok := o[key].(object)
			if !ok || o["properties"] != nil {
				report("%s: additionalProperties must be a schema and exclude properties", at)
				continue
			}
			structural(report, at+"[*]", sub)
		default:
			report("%s: %q is not allowed in a structural schema", at, key)
		}
	}
	kind, _ := o["type"].(string)
	props, _ := o["properties"].(object)
	switch kind {
	case "object":
		if props == nil && o["additionalProperties"] == nil && at != ".metadata" {
			report("%s: an object without properties", at)
		}
		for name, p := range props {
			structural(report, at+"."+name, p.(object))
		}
		required, _ := o["required"].([]any)
		for _, r := range required {
			if props[r.(string)] == nil {
				report("%s: required %s is no property", at, r)
			}
		}
	case "array":
		items, ok := o["items"].(object)
		if !ok {
			report("%s: an array without items", at)
			return
		}
		structural(report, at+"[]", items)
	case "string", "integer", "boolean":
	case "":
		if !intOrString {
			report("%s: no type", at)
		}
	default:
		report("%s: type %q", at, kind)
	}
	if p, ok := o["pattern"].(string); ok {
		re := regexp.MustCompile(p)
		if d, ok := o["default"].(string); ok && !re.MatchString(d) {
			report("%s: default %q against pattern %s", at, d, p)
		}
	}
	if d, ok := o["default"]; ok {
		if e, ok := o["enum"].([]any); ok && !slices.Contains(e, d) {
			report("%s: default %v is not in enum", at, d)
		}
		if _, isString := d.(string); isString != (kind == "string" || intOrString) {
			report("%s: default %v is not a %s", at, d, kind)
		}
	}
}

func TestKindSchemasAreStructural(t *testing.T) {
	for _, k := range Kinds() {
		for name, b := range map[string][]byte{"": KindSchema(k), "crd/": CRDSchema(k)} {
			var o object
			if err := json.Unmarshal(b, &o); err != nil {
				t.Fatal(err)
			}
			t.Run(name+string(k), func(t *testing.T) { structural(t.Errorf, "", o) })
			meta := o["properties"].(object)["metadata"].(object)
			if name == "crd/" && !reflect.DeepEqual(meta, object{"type": "object"}) {
				t.Errorf("%s: a CRD may not restrict metadata", k)
			}
		}
	}
}

func TestStructuralCheckFindsFaults(t *testing.T) {
	for _, bad := range []string{
		`{"type":"object"}`, `{"properties":{"a":{"type":"string"}}}`, `{"type":"array"}`,
		`{"type":"object","properties":{"a":{"$ref":"#/x"}}}`, `{"type":"string","oneOf":[]}`,
		`{"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":false}`,
		`{"type":"string","default":"b","enum":["a"]}`, `{"type":"integer","default":"1"}`,
	} {
		var o object
		if err := json.Unmarshal([]byte(bad), &o); err != nil {
			t.Fatal(err)
		}
		faults := 0
		structural(func(string, ...any) { faults++ }, "", o)
		if faults == 0 {
			t.Errorf("%s passed", bad)
		}
	}
}
