package compile_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/compile"
	"github.com/relais-edge/relais/internal/document"
)

var update = flag.Bool("update", false, "write the golden files anew")

func load(t *testing.T, path string) []v1.Document {
	t.Helper()
	set, problems := document.Load([]string{path}, func(string) (string, bool) { return "", false })
	for _, p := range problems {
		t.Error(p)
	}
	return set.Documents
}

func cases(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(paths) < 6 {
		t.Fatal("testdata is missing", err)
	}
	return paths
}

func encode(t *testing.T, x any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(x); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// golden is what a golden file holds.
type golden struct {
	Bundle   *bundle.Bundle `json:"bundle,omitempty"`
	Problems []string       `json:"problems,omitempty"`
}

func result(docs []v1.Document) golden {
	b, problems := compile.Compile(docs)
	g := golden{Bundle: b}
	for _, p := range problems {
		kind, m := p.Document.Meta()
		g.Problems = append(g.Problems, string(kind)+" "+m.Organization+"/"+m.Name+" "+p.Problem.String())
	}
	return g
}

func TestCompileGivesTheGoldenBundlesAndProblems(t *testing.T) {
	for _, path := range cases(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			got := encode(t, result(load(t, path)))
			file := strings.TrimSuffix(path, ".yaml") + ".golden.json"
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s differs; got:\n%s", file, got)
			}
		})
	}
}

func TestCompileDoesNotDependOnTheOrderOfDocuments(t *testing.T) {
	for _, path := range cases(t) {
		docs := load(t, path)
		want := encode(t, result(docs))
		for range 3 {
			slices.Reverse(docs)
			docs = append(docs[len(docs)/3:], docs[:len(docs)/3]...)
			if got := encode(t, result(docs)); !bytes.Equal(got, want) {
				t.Errorf("%s: another order gives another result", path)
			}
		}
	}
}

func TestCompileChangesNoDocument(t *testing.T) {
	for _, path := range cases(t) {
		docs, again := load(t, path), load(t, path)
		compile.Compile(docs)
		if !reflect.DeepEqual(docs, again) {
			t.Errorf("%s: the documents changed", path)
		}
	}
}

func TestBundlesSurviveJSONByteForByte(t *testing.T) {
	examples, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatal("no examples", err)
	}
	for _, path := range append(cases(t), examples...) {
		b, problems := compile.Compile(load(t, path))
		if len(problems) > 0 {
			continue
		}
		first := encode(t, b)
		var back bundle.Bundle
		d := json.NewDecoder(bytes.NewReader(first))
		d.DisallowUnknownFields()
		if err := d.Decode(&back); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if second := encode(t, &back); !bytes.Equal(first, second) {
			t.Errorf("%s: written, read and written again:\n%s\n%s", path, first, second)
		}
		// Filling in defaults after the journey must change nothing: a written zero is still one.
		for i := range back.Listeners {
			l := v1.Listener{Spec: back.Listeners[i].Spec}
			v1.Default(&l)
			back.Listeners[i].Spec = l.Spec
		}
		for _, s := range back.Sites {
			site := v1.Site{Spec: v1.SiteSpec{Routes: s.Routes}}
			v1.Default(&site)
			for _, p := range s.Pools {
				d := v1.OriginPool{Spec: *p}
				v1.Default(&d)
				*p = d.Spec
			}
			for _, p := range s.WAF {
				d := v1.WafPolicy{Spec: *p}
				v1.Default(&d)
				*p = d.Spec
			}
			for _, p := range s.RateLimits {
				d := v1.RateLimit{Spec: *p}
				v1.Default(&d)
				*p = d.Spec
			}
			for _, p := range s.Visitors {
				d := v1.VisitorPolicy{Spec: *p}
				v1.Default(&d)
				*p = d.Spec
			}
		}
		if second := encode(t, &back); !bytes.Equal(first, second) {
			t.Errorf("%s: defaults changed it:\n%s\n%s", path, first, second)
		}
	}
}

func TestSitesShareSpecs(t *testing.T) {
	docs := load(t, "testdata/inherit.yaml")
	for _, d := range docs {
		if s, ok := d.(*v1.Site); ok {
			other := *s
			other.Metadata.Name, other.Spec.Hostnames = "other", []string{"other.test"}
			docs = append(docs, &other)
			break
		}
	}
	b, problems := compile.Compile(docs)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if len(b.Sites) != 2 || b.Sites[0].Pools["shop"] != b.Sites[1].Pools["shop"] || b.Sites[0].WAF["strict"] != b.Sites[1].WAF["strict"] {
		t.Error("two sites that name one pool must share its spec")
	}
}

func TestCompileBearsEmptyDocuments(t *testing.T) {
	var docs []v1.Document
	for _, k := range v1.Kinds() {
		docs = append(docs, v1.New(k))
		d := v1.New(k)
		v1.Default(d)
		docs = append(docs, d)
	}
	compile.Compile(docs) // what is wrong in one document is for Validate to tell; here it only must not fall
}
