package document

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// seeds are texts that touch the borders of what the fast reader reads.
var seeds = []string{
	"a: b\n", "a: b", "a:\n  - b\n  - c: d\n    e: f\n", "a:\n- b\n- c\nd: e\n", "- - a\n  - b\n- c\n",
	"a: [b, {c: d}, \"e\"]\n", "{\"a\":1,\"b\":[true,null],\"c\":{\"d\":\"e\\n\"}}\n", "a: 'it''s'\n", "a: \"x\\u0041\"\n",
	"# c\n\na: b # c\n# d\n", "a: b#c\n", "a: b: c\n", "a: |\n  x\n  y\n", "a: &x b\nc: *x\n", "a: b\n  c\n", "a:\n  b\n", "a:\n\nb: ~\n",
	"---\na: b\n", "--- a\n", "a: -1\nb: - c\n", "[a, b\n]\n", "a: {b: [\n c,\n d]}\n", "a: [b, ]\n", "? a\n: b\n", "a : b\n", "\"a\": b\n",
	"a: ${X:-b:1}\n", "a: [::]:443\n", "a: http://b/c?d=e\n", "<<: {a: b}\n", "a: !!str b\n", "a:\tb\n", "a: b\r\n", "-\n-\n", "- a\n-b\n",
	"a: %b\n", "a: @b\n", "a: `b\n", "a: \n b:\n  c\n d: e\n", "a: 'b' # c\n", "a: 'b'c\n", "a: {b: c}d\n", "a: [b]: c\n", "a:\n b: c\n  d: e\n",
	"a: ...\n", "...\n", "a: ---\n", "a: [a: b]\n", "a: {b}\n", "a: {b: }\n", "a: [?b]\n", "a: x ? y\n", "a: [x:]\n", "a: [\"b\":c]\n", "{a: b,\nc: d}\n",
	"a: \"b\n c\"\n", "a: b\n---\nc: d\n", "a: = \n", "a: <<\n", "a: [-1, - b]\n", "- a: b\n  c: d\n-  e: f\n   g: h\n", "a:   \n   - b\n",
	"a: ü # für\nb: [ß, \"日本\"]\n", "a: x\u00a0y\n", "a: x\u2028y\n", "a: \u0085\n", "\ufeffa: b\n", "a: \U0001f600: b\n", "ü:\n  - a\n", "a: x\ufffdy\n",
}

func addSeeds(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	for _, pattern := range []string{"testdata/bad/*.yaml", "../compile/testdata/*.yaml", "../../examples/*.yaml"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(text))
		}
	}
}

// FuzzDecode holds the fast reader against the library: what both read must be the same tree, with the
// same places, and what the library refuses the fast reader must not read.
func FuzzDecode(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, text string) {
		hang := time.AfterFunc(10*time.Second, func() { panic(fmt.Sprintf("still reading %q", text)) })
		defer hang.Stop()
		var r fastReader
		for _, p := range split(nil, 0, text) {
			part := text[p.start:p.end]
			if !r.read(part) {
				continue
			}
			trees, fault := readLibrary(part)
			if fault != nil {
				if strings.Contains(fault.what, "merge keys") {
					continue
				}
				t.Fatalf("%q: the library refuses it: %s", part, fault.what)
			}
			if len(trees) == 0 && r.nodes[0].kind == plain && isNull(r.nodes[0].text) {
				continue
			}
			if len(trees) != 1 {
				t.Fatalf("%q: the library finds %d documents", part, len(trees))
			}
			compareTrees(t, part, &r.tree, 0, &trees[0], 0)
		}
	})
}

func compareTrees(t *testing.T, text string, a *tree, i int32, b *tree, j int32) {
	x, y := a.nodes[i], b.nodes[j]
	if x.kind != y.kind || x.text != y.text {
		t.Fatalf("%q: fast reads kind %d %q, the library kind %d %q", text, x.kind, x.text, y.kind, y.text)
	}
	empty := x.kind == plain && x.text == "" // the library puts what is not there elsewhere
	if x.at != y.at && !empty {
		t.Fatalf("%q: %q is at %d, the library says %d", text, x.text, x.at, y.at)
	}
	c, d := x.first, y.first
	for c != 0 && d != 0 {
		compareTrees(t, text, a, c, b, d)
		c, d = a.nodes[c].next, b.nodes[d].next
	}
	if c != d && (c == 0 || d == 0) {
		t.Fatalf("%q: numbers of children differ", text)
	}
}

func TestFastReaderReadsWhatIsCommon(t *testing.T) {
	for _, text := range []string{
		"apiVersion: relais/v1\nkind: Site\nmetadata: {name: shop, organization: demo}\nspec:\n  hostnames: [shop.example.com]\n  routes:\n    - match: [{path: {prefix: /img/}}]\n      pool: shop\n    - pool: shop # all else\n",
		"{\n  \"apiVersion\": \"relais/v1\",\n  \"kind\": \"Site\",\n  \"spec\": {\"hostnames\": [\"a\"], \"n\": 1}\n}\n",
		"spec:\n  tiers:\n  - origins:\n    - address: \"10.0.0.1:80\"\n      weight: 3\n",
	} {
		if !new(fastReader).read(text) {
			t.Errorf("left to the library:\n%s", text)
		}
	}
}

// FuzzLoad gives hostile texts to the whole way from a file to a bundle: no panic, and each problem has
// a place in the text and words.
func FuzzLoad(f *testing.F) {
	addSeeds(f)
	env := func(name string) (string, bool) { return "v", len(name)%2 == 0 }
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<16 {
			return
		}
		set, problems := Read([]File{{"f.yaml", []byte(text)}}, env)
		_, more := set.Compile()
		for _, p := range append(problems, more...) {
			if p.What == "" || p.File != "f.yaml" || p.Line < 1 || p.Column < 1 {
				t.Errorf("problem without words or place: %+v", p)
			}
		}
	})
}
