package document

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// badCase is a text and what is to be said about it.
type badCase struct{ name, text, messages string }

// readBad reads testdata/bad.txt: each case begins with === and its name; its messages begin with >.
func readBad(t testing.TB) []badCase {
	all, err := os.ReadFile("testdata/bad.txt")
	if err != nil {
		t.Fatal(err)
	}
	var cases []badCase
	for part := range strings.SplitSeq("\n"+string(all), "\n=== ") {
		name, rest, ok := strings.Cut(part, "\n")
		if !ok || name == "" {
			continue
		}
		c := badCase{name: name}
		for line := range strings.Lines(rest + "\n") {
			if strings.HasPrefix(line, "> ") {
				c.messages += line
			} else {
				c.text += line
			}
		}
		c.text = strings.TrimRight(c.text, "\n") + "\n"
		cases = append(cases, c)
	}
	return cases
}

// TestWhatIsSaidOfBadDocuments holds the messages to those of testdata/bad.txt, word for word.
func TestWhatIsSaidOfBadDocuments(t *testing.T) {
	var out strings.Builder
	cases := readBad(t)
	if len(cases) < 40 {
		t.Errorf("only %d cases", len(cases))
	}
	for _, c := range cases {
		text := strings.NewReplacer("␉", "\t", "␇", "\a", "⍰", "\xfc").Replace(c.text)
		set, problems := Read([]File{{"shop.yaml", []byte(text)}}, badEnv)
		_, more := set.Compile()
		var got strings.Builder
		for _, p := range append(problems, more...) {
			got.WriteString("> " + p.String() + "\n")
		}
		if got.Len() == 0 {
			t.Errorf("%s: nothing is said", c.name)
		}
		if got.String() != c.messages && !*update {
			t.Errorf("%s:\n%s\ngot:\n%swant:\n%s", c.name, c.text, got.String(), c.messages)
		}
		out.WriteString("=== " + c.name + "\n" + c.text + got.String() + "\n")
	}
	if *update {
		if err := os.WriteFile("testdata/bad.txt", []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func badEnv(name string) (string, bool) {
	v, ok := map[string]string{"LISTEN": "127.0.0.1:8080", "EMPTY": "", "WORD": "many"}[name]
	return v, ok
}
