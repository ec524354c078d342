package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Scores are recorded verdicts: suite, then case. They may only improve.
type Scores map[string]map[string]Verdict

const scoresHead = `# Recorded conformance of Relais: suite, case, verdict. It may only improve:
#   go run ./test/conformance           compares and fails when a case is worse than here
#   go run ./test/conformance -update   writes what is better or new
`

// loadScores reads a score file. A file that does not exist is empty.
func loadScores(path string) (Scores, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Scores{}, nil
	}
	if err != nil {
		return nil, err
	}
	s, err := parseScores(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func parseScores(b []byte) (Scores, error) {
	s := Scores{}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("line %d: want suite, case and verdict, have %q", n, line)
		}
		if Verdict(f[2]).badness() > Smuggled.badness() {
			return nil, fmt.Errorf("line %d: no verdict %q", n, f[2])
		}
		if s[f[0]] == nil {
			s[f[0]] = map[string]Verdict{}
		}
		if _, twice := s[f[0]][f[1]]; twice {
			return nil, fmt.Errorf("line %d: %s %s is there twice", n, f[0], f[1])
		}
		s[f[0]][f[1]] = Verdict(f[2])
	}
	return s, lines.Err()
}

// text is the content of the score file, sorted, so that a change reads well in a diff.
func (s Scores) text() string {
	var b strings.Builder
	b.WriteString(scoresHead)
	for _, suite := range sortedKeys(s) {
		for _, c := range sortedKeys(s[suite]) {
			fmt.Fprintf(&b, "%s %s %s\n", suite, c, s[suite][c])
		}
	}
	return b.String()
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Change is a difference between a record and a run.
type Change struct {
	Case     string
	Was, Now Verdict // Was is empty for a new case, Now for one that is gone
}

// Comparison sorts the differences of one suite.
type Comparison struct {
	Worse  []Change // a worse verdict, or a recorded case that did not run
	Better []Change
	New    []Change
}

// compare holds the outcomes of a whole suite against its record.
func compare(recorded map[string]Verdict, now []Outcome) Comparison {
	var c Comparison
	seen := map[string]bool{}
	for _, o := range now {
		seen[o.Case] = true
		was, known := recorded[o.Case]
		switch {
		case !known:
			c.New = append(c.New, Change{o.Case, "", o.Verdict})
		case o.Verdict.badness() > was.badness():
			c.Worse = append(c.Worse, Change{o.Case, was, o.Verdict})
		case o.Verdict.badness() < was.badness():
			c.Better = append(c.Better, Change{o.Case, was, o.Verdict})
		}
	}
	for _, name := range sortedKeys(recorded) {
		if !seen[name] {
			c.Worse = append(c.Worse, Change{name, recorded[name], ""})
		}
	}
	return c
}

// improve puts what is better or new into the record and leaves the rest.
func (s Scores) improve(suite string, c Comparison) {
	if s[suite] == nil {
		s[suite] = map[string]Verdict{}
	}
	for _, ch := range slices.Concat(c.Better, c.New) {
		s[suite][ch.Case] = ch.Now
	}
}

// tally counts verdicts.
func tally(outcomes []Outcome) map[Verdict]int {
	n := map[Verdict]int{}
	for _, o := range outcomes {
		n[o.Verdict]++
	}
	return n
}
