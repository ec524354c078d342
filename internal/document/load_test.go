package document

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/snapshot"
)

const waf = "apiVersion: relais/v1\nkind: WafPolicy\nmetadata: {name: %s}\nspec: {paranoia: %s}\n"

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func names(set *Set) string {
	var list []string
	for _, d := range set.Documents {
		_, m := d.Meta()
		list = append(list, m.Name)
	}
	return strings.Join(list, " ")
}

func lines(problems []Problem) string {
	var b strings.Builder
	for _, p := range problems {
		b.WriteString(p.String() + "\n")
	}
	return b.String()
}

func TestLoadReadsDirectoriesByNameAndNotDeeper(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"20.yml": fmt.Sprintf(waf, "b", "1"), "10.yaml": fmt.Sprintf(waf, "a", "1") + "---\n" + fmt.Sprintf(waf, "a2", "1"),
		"30.json":   `{"apiVersion": "relais/v1", "kind": "WafPolicy", "metadata": {"name": "c"}, "spec": {"paranoia": 2}}`,
		"notes.txt": "no", ".hidden.yaml": "no", "deeper/x.yaml": "no", "dir.yaml/x": "no",
	})
	set, problems := Load([]string{dir}, noEnv)
	if len(problems) > 0 || names(set) != "a a2 b c" {
		t.Errorf("documents %q, problems:\n%s", names(set), lines(problems))
	}
}

func TestLoadTellsAllProblemsOfAllFilesAtOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"a.yaml": fmt.Sprintf(waf, "a", "9") + "---\n" + "kind: WafPolicy\nspec: [\n---\n" + fmt.Sprintf(waf, "c", "0"),
		"b.yaml": fmt.Sprintf(waf, "a", "1"),
		"c.yaml": "\n\nkind: WafPolicy\n",
	})
	if err := os.MkdirAll(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	_, problems := Load([]string{"missing.yaml", "empty", "a.yaml", "b.yaml", "c.yaml"}, noEnv)
	want := `missing.yaml: cannot be read: no such file or directory; check the path
empty: the directory holds no documents; put *.yaml, *.yml or *.json files into it
a.yaml:4:8: WafPolicy a spec.paranoia: 9 is out of bounds; write a number from 1 to 4
a.yaml:8:1: a bracket or brace is opened and not closed before this; close it, and put a comma between entries
a.yaml:12:18: WafPolicy c spec.paranoia: 0 is out of bounds; write a number from 1 to 4
c.yaml:3:1: WafPolicy apiVersion: is missing; write apiVersion: relais/v1
c.yaml:3:1: WafPolicy metadata.name: is required; write a name, such as shop
b.yaml:3:12: WafPolicy a metadata.name: the document is given twice; remove one or rename it; the other is at a.yaml:3
`
	if got := lines(problems); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestLoadOfNothingSaysSo(t *testing.T) {
	if _, problems := Load(nil, noEnv); len(problems) != 1 {
		t.Errorf("problems: %v", problems)
	}
}

// TestLoadOfAnEmptyFileIsAProblem: a file that is cut before it is written anew must not take
// what it held out of service.
func TestLoadOfAnEmptyFileIsAProblem(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, ".", map[string]string{
		"good/a.yaml": fmt.Sprintf(waf, "a", "1"), "good/b.yaml": "", "blank.yaml": " \n\n", "comment.yaml": "# nothing\n---\n",
	})
	for path, want := range map[string]string{
		"good":         "good/b.yaml: the file is empty; write documents into it, or remove it\n",
		"blank.yaml":   "blank.yaml: the file is empty; write documents into it, or remove it\n",
		"comment.yaml": "comment.yaml: holds no documents; write at least one; an edge without documents serves nothing\n",
	} {
		if _, problems := Load([]string{path}, noEnv); lines(problems) != want {
			t.Errorf("%s: got %q, want %q", path, lines(problems), want)
		}
	}
	if _, problems := Load([]string{"good/a.yaml", "comment.yaml"}, noEnv); len(problems) > 0 {
		t.Errorf("a file of comments beside documents: %s", lines(problems))
	}
}

func TestLoadReadsStandardInput(t *testing.T) {
	l := lister{stdin: strings.NewReader(fmt.Sprintf(waf, "a", "x"))}
	l.path("-")
	_, problems := Read(l.files, noEnv)
	if got := lines(problems); got != "stdin:4:18: WafPolicy a spec.paranoia: \"x\" is not a whole number; write digits only, such as 10\n" {
		t.Error(got)
	}
	l = lister{stdin: iotest{}}
	if l.path("-"); len(l.problems) != 1 || !strings.Contains(l.problems[0].String(), "broken pipe") {
		t.Errorf("problems: %v", l.problems)
	}
}

type iotest struct{}

func (iotest) Read([]byte) (int, error) { return 0, fmt.Errorf("broken pipe: %w", io.ErrUnexpectedEOF) }

func TestEveryWayOfWritingGivesTheSameDocument(t *testing.T) {
	block := "apiVersion: relais/v1\nkind: OriginPool\nmetadata:\n  name: shop\n  labels:\n    team: a\nspec:\n  tiers:\n  - name: home\n    capacity:\n      inFlight: 40\n      reserve: 20%\n    origins:\n    - address: 192.0.2.1:80\n      weight: 3\n  connection:\n    public: true\n"
	var want v1.Document
	for i, text := range []string{
		block,
		"# comment\n---\n" + block + "...\n",
		"\ufeff" + block,
		strings.ReplaceAll(block, "\n", "\r\n"),
		strings.ReplaceAll(block, "name: home", "name: 'home' # ü"),
		"%YAML 1.1\n---\n" + block,
		strings.Replace(strings.ReplaceAll(block, "192.0.2.1:80", "&a 192.0.2.1:80"), "&a 192", "&a 192", 1),
		`{"apiVersion":"relais/v1","kind":"OriginPool","metadata":{"name":"shop","labels":{"team":"a"}},"spec":{"tiers":[{"name":"home","capacity":{"inFlight":40,"reserve":"20%"},"origins":[{"address":"192.0.2.1:80","weight":3}]}],"connection":{"public":true}}}`,
		"{\n\t\"apiVersion\": \"relais/v1\",\n\t\"kind\": \"OriginPool\",\n\t\"metadata\": {\"name\": \"sh\\u006fp\", \"labels\": {\"team\": \"a\"}},\n\t\"spec\": {\"tiers\": [{\"name\": \"home\", \"capacity\": {\"inFlight\": 40, \"reserve\": \"20%\"}, \"origins\": [{\"address\": \"192.0.2.1:80\", \"weight\": 3}]}], \"connection\": {\"public\": true}}\n}\n",
	} {
		set, problems := Read([]File{{"f", []byte(text)}}, noEnv)
		if len(problems) > 0 || len(set.Documents) != 1 {
			t.Errorf("way %d: %d documents, problems:\n%s", i, len(set.Documents), lines(problems))
			continue
		}
		if want == nil {
			want = set.Documents[0]
		}
		if !reflect.DeepEqual(set.Documents[0], want) {
			t.Errorf("way %d differs", i)
		}
	}
}

func TestWrittenDocumentsAreReadAgainAsTheyWere(t *testing.T) {
	for _, dir := range []string{examples, "../compile/testdata"} {
		paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
		if err != nil || len(paths) == 0 {
			t.Fatal(dir, err)
		}
		for _, path := range paths {
			set, _ := Load([]string{path}, noEnv)
			for _, d := range set.Documents {
				text, err := json.Marshal(d)
				if err != nil {
					t.Fatal(err)
				}
				again, problems := Read([]File{{"f.json", text}}, noEnv)
				if len(problems) > 0 || len(again.Documents) != 1 || !equalJSON(t, again.Documents[0], text) {
					t.Errorf("%s: %s: %s", path, text, lines(problems))
				}
			}
		}
	}
}

func equalJSON(t *testing.T, d v1.Document, want []byte) bool {
	t.Helper()
	got, err := json.Marshal(d)
	return err == nil && string(got) == string(want)
}

func TestExpandReplacesVariables(t *testing.T) {
	env := func(k string) (string, bool) {
		v, ok := map[string]string{"A": "1", "EMPTY": "", "DOLLAR": "${A}"}[k]
		return v, ok
	}
	for _, c := range []struct{ in, want, what string }{
		{"a", "a", ""},
		{"${A}", "1", ""},
		{"x${A}y${A}", "x1y1", ""},
		{"${B:-d}", "d", ""},
		{"${EMPTY:-d}", "d", ""},
		{"${EMPTY}", "", ""},
		{"${B:-}", "", ""},
		{"${A:-d}", "1", ""},
		{"$${A}", "${A}", ""},
		{"a ${client.ip} b ${A}", "a ${client.ip} b 1", ""},
		{"${A.b}", "", "does not name"},
		{"$$", "$", ""},
		{"$", "$", ""},
		{"^/a$", "^/a$", ""},
		{"$A", "$A", ""},
		{"${DOLLAR}", "${A}", ""},
		{"${B:-127.0.0.1:80}", "127.0.0.1:80", ""},
		{"a$$$$b", "a$$b", ""},
		{"${B}", "", "not set"},
		{"${A", "", "not closed"},
		{"${1A}", "", "does not name"},
		{"${}", "", "does not name"},
		{"${A-d}", "", "does not name"},
	} {
		got, what, _ := expand(c.in, env)
		if got != c.want || !strings.Contains(what, c.what) || (what == "") != (c.what == "") {
			t.Errorf("%q: %q, %q; want %q, %q", c.in, got, what, c.want, c.what)
		}
	}
}

func TestVariablesTakeTheTypeOfTheirField(t *testing.T) {
	env := func(k string) (string, bool) {
		v, ok := map[string]string{"N": "2", "B": "true", "D": "3s", "EMPTY": ""}[k]
		return v, ok
	}
	text := "apiVersion: relais/v1\nkind: OriginPool\nmetadata: {name: a}\nspec:\n  connection: {public: \"${B}\", connect: \"${D}\", idle: \"${EMPTY}\"}\n  retries: {attempts: \"${N}\"}\n  tiers:\n    - origins:\n        - address: 192.0.2.${N}:80\n          weight: ${EMPTY}\n"
	set, problems := Read([]File{{"f", []byte(text)}}, env)
	if len(problems) > 0 {
		t.Fatal(lines(problems))
	}
	s := set.Documents[0].(*v1.OriginPool).Spec
	if !s.Connection.Public || s.Connection.Connect.String() != "3s" || s.Connection.Idle.String() != "55s" || *s.Retries.Attempts != 2 ||
		s.Tiers[0].Origins[0].Address != "192.0.2.2:80" || *s.Tiers[0].Origins[0].Weight != 1 {
		t.Errorf("spec is %+v", s)
	}
}

func TestProblemsAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range MaxProblems * 2 {
		fmt.Fprintf(&b, "---\n"+waf, fmt.Sprint("w", i), "9")
	}
	_, problems := Read([]File{{"f", []byte(b.String())}}, noEnv)
	if len(problems) != MaxProblems+1 || !strings.Contains(problems[MaxProblems].String(), "500 more problems") {
		t.Errorf("%d problems, the last is %s", len(problems), problems[len(problems)-1])
	}
}

func TestADocumentIsBounded(t *testing.T) {
	text := fmt.Sprintf(waf, "w", "1") + "# " + strings.Repeat("x", MaxDocumentBytes) + "\n---\n" + fmt.Sprintf(waf, "v", "1")
	set, problems := Read([]File{{"f", []byte(text)}}, noEnv)
	if len(problems) != 1 || !strings.Contains(problems[0].What, "larger than 4 MiB") || names(set) != "v" {
		t.Errorf("documents %q, problems %s", names(set), lines(problems))
	}
}

func TestADocumentDoesNotKeepItsFileInMemory(t *testing.T) {
	set, problems := Read([]File{{"f", manySites(100)}}, noEnv)
	if len(problems) > 0 {
		t.Fatal(lines(problems))
	}
	file := set.files[0].text
	for _, d := range set.Documents {
		_, m := d.Meta()
		if at := strings.Index(file, m.Name); at < 0 || &[]byte(m.Name)[0] == &[]byte(file[at:])[0] {
			t.Fatalf("%s is not in the file, or points into it", m.Name)
		}
	}
}

type counter struct{ n int }

func (c *counter) Materialise(_, _ *snapshot.Site) error { c.n++; return nil }

// TestTenThousandSitesBuildNoneUntilAsked walks the whole way; BenchmarkFileToTable10kSites measures it.
func TestTenThousandSitesBuildNoneUntilAsked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sites.yaml")
	if err := os.WriteFile(path, manySites(10_000), 0o644); err != nil {
		t.Fatal(err)
	}
	m := &counter{}
	table := fileToTable(t, path, nil, m)
	if table.Sites() != 10_000 || m.n != 0 {
		t.Errorf("%d sites, %d built", table.Sites(), m.n)
	}
	again := fileToTable(t, path, table, m)
	for e := range again.Entries() {
		if table.Entry(e.Key()) != e {
			t.Fatalf("%s did not change and is new after a reload", e.Key())
		}
	}
	e := again.Lookup([]byte("www.site-09999.example.com"), bundle.NewKey("default", "web"))
	if s, err := e.Site(); err != nil || s.Name != "site-09999" || m.n != 1 {
		t.Errorf("site %v, error %v, %d built", s, err, m.n)
	}
}

func fileToTable(t testing.TB, path string, old *snapshot.Table, m snapshot.Materialiser) *snapshot.Table {
	set, problems := Load([]string{path}, noEnv)
	if len(problems) > 0 {
		t.Fatal(lines(problems))
	}
	b, problems := set.Compile()
	if len(problems) > 0 {
		t.Fatal(lines(problems))
	}
	return snapshot.Build(b, old, m)
}

func BenchmarkFileToTable10kSites(b *testing.B) {
	path := filepath.Join(b.TempDir(), "sites.yaml")
	if err := os.WriteFile(path, manySites(10_000), 0o644); err != nil {
		b.Fatal(err)
	}
	b.Run("start", func(b *testing.B) {
		for b.Loop() {
			fileToTable(b, path, nil, &counter{})
		}
	})
	b.Run("reload", func(b *testing.B) {
		old := fileToTable(b, path, nil, &counter{})
		for b.Loop() {
			fileToTable(b, path, old, &counter{})
		}
	})
}

func TestAMendIsItselfYAML(t *testing.T) {
	const site = "apiVersion: relais/v1\nkind: Site\nmetadata: {name: a}\nspec:\n  hostnames: %s\n  routes: [{respond: {}}]\n"
	for given, want := range map[string]string{`"*"`: `["*"]`, `"*.a.example"`: `["*.a.example"]`, "a.example": "[a.example]"} {
		_, problems := Read([]File{{Name: "x", Text: []byte(fmt.Sprintf(site, given))}}, noEnv)
		if len(problems) != 1 || problems[0].Fix != "write "+want {
			t.Errorf("%s: %s", given, lines(problems))
			continue
		}
		if _, problems = Read([]File{{Name: "x", Text: []byte(fmt.Sprintf(site, want))}}, noEnv); len(problems) > 0 {
			t.Errorf("%s is no mend: %s", want, lines(problems))
		}
	}
}
