package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestScoresMayOnlyImprove(t *testing.T) {
	recorded := map[string]Verdict{"a": Pass, "b": Fail, "c": Smuggled, "gone": Pass}
	c := compare(recorded, []Outcome{
		{Case: "a", Verdict: Fail}, {Case: "b", Verdict: Pass}, {Case: "c", Verdict: Smuggled}, {Case: "d", Verdict: Forward},
	})
	if want := []Change{{"a", Pass, Fail}, {"gone", Pass, ""}}; !slices.Equal(c.Worse, want) {
		t.Errorf("worse %v, want %v", c.Worse, want)
	}
	if want := []Change{{"b", Fail, Pass}}; !slices.Equal(c.Better, want) {
		t.Errorf("better %v, want %v", c.Better, want)
	}
	if want := []Change{{"d", "", Forward}}; !slices.Equal(c.New, want) {
		t.Errorf("new %v, want %v", c.New, want)
	}
	s := Scores{"x": recorded}
	s.improve("x", c)
	want := map[string]Verdict{"a": Pass, "b": Pass, "c": Smuggled, "d": Forward, "gone": Pass}
	for k, v := range want {
		if s["x"][k] != v {
			t.Errorf("record of %s is %s, want %s", k, s["x"][k], v)
		}
	}
}

func TestScoreFileRoundTrip(t *testing.T) {
	s := Scores{"smug": {"te-obf/vtab": Pass, `host/bad-"<script>"`: Fail}, "h2spec-tls": {"http2/5.1/1": Skip}}
	back, err := parseScores([]byte(s.text()))
	if err != nil {
		t.Fatal(err)
	}
	if back.text() != s.text() || len(back["smug"]) != 2 {
		t.Errorf("read back\n%swant\n%s", back.text(), s.text())
	}
}

func TestScoreFileErrorsNameTheLine(t *testing.T) {
	for _, bad := range []string{"smug x\n", "smug x good\n", "smug x pass\nsmug x FAIL\n"} {
		if _, err := parseScores([]byte(bad)); err == nil || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%q: error %v", bad, err)
		}
	}
}

// fake gives one list of outcomes after the other.
type fake struct {
	runs [][]Outcome
	only *[][]string
}

func (fake) Name() string { return "fake" }

func (f *fake) Run(_ context.Context, _ *Subject, only []string) ([]Outcome, error) {
	*f.only = append(*f.only, only)
	if len(f.runs) == 0 {
		return nil, errors.New("ran once too often")
	}
	out := f.runs[0]
	f.runs = f.runs[1:]
	return out, nil
}

func TestAWorseCaseRunsOnceMore(t *testing.T) {
	var only [][]string
	f := &fake{only: &only, runs: [][]Outcome{
		{{Case: "steady", Verdict: Fail}, {Case: "slow", Verdict: Fail}, {Case: "fine", Verdict: Pass}},
		{{Case: "steady", Verdict: Fail}, {Case: "slow", Verdict: Pass}},
	}}
	recorded := Scores{"fake": {"steady": Pass, "slow": Pass, "fine": Pass}}
	runs, err := runSuites(t.Context(), []Suite{f}, nil, recorded)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(only[1], []string{"steady", "slow"}) || !slices.Equal(runs[0].Unsteady, []string{"slow"}) {
		t.Errorf("ran again %v, unsteady %v", only[1], runs[0].Unsteady)
	}
	var out bytes.Buffer
	err = report(&out, settings{subject: "relais"}, t.TempDir(), runs, recorded)
	if !errors.Is(err, errWorse) || !strings.Contains(out.String(), "WORSE   fake steady: FAIL, was pass") {
		t.Errorf("error %v, output\n%s", err, &out)
	}
}

func TestUpdateWritesImprovementsOnly(t *testing.T) {
	root := t.TempDir()
	recorded := Scores{"fake": {"a": Fail, "b": Pass}}
	runs := []suiteRun{{Suite: "fake", Outcomes: []Outcome{{Case: "a", Verdict: Pass}, {Case: "b", Verdict: Fail}, {Case: "c", Verdict: Skip}}}}
	err := report(&bytes.Buffer{}, settings{subject: "relais", update: true, scores: "scores.txt"}, root, runs, recorded)
	if !errors.Is(err, errWorse) {
		t.Errorf("error %v, want the regression of b", err)
	}
	b, err := os.ReadFile(filepath.Join(root, "scores.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimPrefix(string(b), scoresHead); got != "fake a pass\nfake b pass\nfake c skip\n" {
		t.Errorf("wrote\n%s", got)
	}
}

func TestFromH2spec(t *testing.T) {
	got, err := fromH2spec([]byte(`[{"name":"http2/5.1/1","about":"Sends DATA","verdict":"FAIL","detail":"want GOAWAY; got Timeout"},{"name":"hpack/2.3/1","verdict":"pass"}]`))
	want := []Outcome{{"http2/5.1/1", Fail, "Sends DATA: want GOAWAY; got Timeout"}, {"hpack/2.3/1", Pass, ""}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("outcomes %v, error %v", got, err)
	}
	for _, bad := range []string{"", "[]", "Error: dial tcp"} {
		if _, err := fromH2spec([]byte(bad)); err == nil {
			t.Errorf("%q taken for an outcome", bad)
		}
	}
}

func TestTheCommittedScoresAreReadable(t *testing.T) {
	s, err := loadScores("scores.txt")
	if err != nil {
		t.Fatal(err)
	}
	if len(s) > 0 && s.text() != readFile(t, "scores.txt") {
		t.Error("scores.txt is not as -update writes it")
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPickNamesTheSuites(t *testing.T) {
	if _, err := pick(suites(".", "relais"), []string{"smug", "nothing"}); err == nil || !strings.Contains(err.Error(), "h2spec-tls") {
		t.Errorf("error %v does not list the suites", err)
	}
	got, err := pick(suites(".", "relais"), []string{"h2spec-tls"})
	if err != nil || len(got) != 1 || got[0].Name() != "h2spec-tls" {
		t.Errorf("picked %v, %v", got, err)
	}
}

func TestStartSaysWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	_, stop, err := start(t.Context(), startConfig{kind: "relais", copies: 1, work: dir, root: dir, relais: filepath.Join(dir, "relais"), doc: filepath.Join(dir, "proxy.yaml")})
	stop()
	if err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("error %v does not say how to mend it", err)
	}
	_, stop, err = start(t.Context(), startConfig{kind: "squid", copies: 1, work: dir})
	stop()
	if err == nil || !strings.Contains(err.Error(), "haproxy") {
		t.Errorf("error %v does not list the subjects", err)
	}
}
