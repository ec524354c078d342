package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// peerScore is what a peer passed when it was measured as a plain reverse
// proxy at its defaults (Debian 12 packages; Caddy and Go as modules).
type peerScore struct {
	peer          string
	passed, total int
}

// peerScores are the best peers of each suite, best first.
func peerScores(suite string) []peerScore {
	switch suite {
	case "smug":
		return []peerScore{{"Apache 2.4.71", 188, 193}, {"Caddy 2.11.9", 177, 193}, {"HAProxy 2.6.12", 166, 193}, {"nginx 1.22.1", 157, 193}}
	case "h2spec-h2c":
		return []peerScore{{"HAProxy 2.6.12", 145, 145}, {"Caddy 2.11.9", 140, 145}, {"Apache 2.4.71", 139, 145}, {"nginx 1.22.1", 120, 145}}
	case "h2spec-tls":
		return []peerScore{{"HAProxy 2.6.12", 145, 145}, {"Caddy 2.11.9", 141, 145}, {"nginx 1.22.1", 120, 145}}
	}
	return nil
}

// suiteRun is a suite with its outcomes on the subject.
type suiteRun struct {
	Suite    string    `json:"suite"`
	Outcomes []Outcome `json:"outcomes"`
	// Unsteady cases were worse than the record at first and as good when
	// they ran again.
	Unsteady []string `json:"unsteady,omitempty"`
}

// writeTable prints one row for each suite. recorded is nil when the subject
// has no score file.
func writeTable(w io.Writer, subject string, runs []suiteRun, recorded Scores) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "suite\tcases\trecorded\t%s\tFAIL\tFWD\tSMUGGLE\tskip\tpeers\n", subject)
	for _, r := range runs {
		n := tally(r.Outcomes)
		was := "-"
		if len(recorded[r.Suite]) > 0 {
			passed := 0
			for _, v := range recorded[r.Suite] {
				if v == Pass {
					passed++
				}
			}
			was = fmt.Sprint(passed)
		}
		var peers []string
		for _, p := range peerScores(r.Suite) {
			peers = append(peers, fmt.Sprintf("%s %d/%d", p.peer, p.passed, p.total))
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", r.Suite, len(r.Outcomes), was, n[Pass], n[Fail], n[Forward], n[Smuggled], n[Skip], strings.Join(peers, ", "))
	}
	_ = t.Flush()
}

// writeOpen prints every case that is not a pass.
func writeOpen(w io.Writer, r suiteRun) {
	for _, o := range r.Outcomes {
		if o.Verdict != Pass {
			fmt.Fprintf(w, "%-8s %s %s: %s\n", o.Verdict, r.Suite, o.Case, o.Detail)
		}
	}
}

// writeChanges prints how a run differs from the record.
func writeChanges(w io.Writer, suite string, c Comparison, outcomes []Outcome) {
	detail := map[string]string{}
	for _, o := range outcomes {
		detail[o.Case] = o.Detail
	}
	for _, ch := range c.Worse {
		if ch.Now == "" {
			fmt.Fprintf(w, "WORSE   %s %s: recorded as %s, and did not run\n", suite, ch.Case, ch.Was)
			continue
		}
		fmt.Fprintf(w, "WORSE   %s %s: %s, was %s: %s\n", suite, ch.Case, ch.Now, ch.Was, detail[ch.Case])
	}
	for _, ch := range c.Better {
		fmt.Fprintf(w, "better  %s %s: %s, was %s\n", suite, ch.Case, ch.Now, ch.Was)
	}
	if len(c.New) > 0 {
		fmt.Fprintf(w, "new     %s: %d cases are not recorded yet\n", suite, len(c.New))
	}
}
