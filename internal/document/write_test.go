package document

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
)

// TestWhatIsWrittenIsReadAgain takes every example, and texts that YAML or variables could take for something else.
func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	set, problems := LoadWritten([]string{examples}, func(string) (string, bool) { return "", false })
	for _, p := range problems {
		if !strings.Contains(p.What, "given twice") { // the examples share names
			t.Error(p)
		}
	}
	if len(set.Documents) < 40 || len(set.Written) != len(set.Documents) {
		t.Fatalf("%d documents, %d of them as written", len(set.Documents), len(set.Written))
	}
	for i, d := range set.Written {
		rewrite(t, d, set.Documents[i])
	}
	for _, text := range []string{
		"yes", "true", "~", "null", "", "0x10", "1e3", "12", "- a", "a: b", "#x", "a #b", "'", `"`, `\`, "$", "$$", "$${A}", "${A}", "${client.ip}", "$$$", "a\nb\n", "a\nb",
		" a ", "\ta", "---", "...", "%a", "@a", "`a", "!a", "&a", "*a", "|", ">", "?", "[a]", "{a}", "é\u2028", "=", "<<", "2001-01-01", "\r\n", "a\r\nb",
	} {
		d := &v1.KillSwitch{Metadata: v1.Metadata{Name: "k", Labels: map[string]string{"a": text}}, Spec: v1.KillSwitchSpec{Features: []string{"waf"}, Reason: "x" + text, Expires: &v1.Time{}}}
		d.APIVersion, d.Kind = v1.APIVersion, v1.KindKillSwitch
		if text != "" {
			d.Spec.Reason = text
		}
		if err := d.Spec.Expires.UnmarshalText([]byte("2027-01-31T00:00:00Z")); err != nil {
			t.Fatal(err)
		}
		rewrite(t, d, nil)
	}
}

// rewrite writes a document in both forms, and reads each again.
func rewrite(t *testing.T, d, full v1.Document) {
	t.Helper()
	y, err := YAML(d)
	if err != nil {
		t.Fatal(err)
	}
	j, err := JSON(d)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "d.yaml")
	if err := os.WriteFile(file, y, 0o600); err != nil {
		t.Fatal(err)
	}
	fromYAML, problems := LoadWritten([]string{file}, func(n string) (string, bool) { t.Errorf("asks for the variable %s", n); return "", false })
	fromJSON, more := Decode([]File{{"request", j}}, nil)
	for _, p := range append(problems, more...) {
		t.Errorf("%s\n%s\n%s", p, y, j)
	}
	for form, s := range map[string]*Set{string(y): fromYAML, string(j): fromJSON} {
		switch {
		case len(s.Written) != 1:
			t.Errorf("%d documents of:\n%s", len(s.Written), form)
		case !reflect.DeepEqual(s.Written[0], d):
			t.Errorf("%+v\nread again:\n%+v\nof:\n%s", d, s.Written[0], form)
		case full != nil && !reflect.DeepEqual(s.Documents[0], full):
			t.Errorf("with defaults %+v\nread again:\n%+v\nof:\n%s", full, s.Documents[0], form)
		}
	}
}

func TestWhatIsSentReadsNoFileAndNoVariable(t *testing.T) {
	_, problems := Decode([]File{{"request", []byte("apiVersion: relais/v1\nkind: ApiPolicy\nmetadata: {name: a}\nspec: {document: {file: /etc/passwd}}\n")}}, nil)
	if len(problems) != 1 || problems[0].Field != "spec.document.file" || problems[0].Line != 4 {
		t.Errorf("%v", problems)
	}
	set, problems := Decode([]File{{"request", []byte(`{"apiVersion":"relais/v1","kind":"Pop","metadata":{"name":"a","labels":{"x":"${HOME}"}},"spec":{"region":"eu"}}`)}}, nil)
	if len(problems) > 0 || set.Written[0].(*v1.Pop).Metadata.Labels["x"] != "${HOME}" {
		t.Errorf("%v", problems)
	}
}
