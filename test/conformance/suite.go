package main

import (
	"context"
	"fmt"
)

// Verdict is the outcome of a case in one word.
type Verdict string

// The verdicts that suites use, from good to bad.
const (
	Pass     Verdict = "pass"
	Skip     Verdict = "skip"
	Fail     Verdict = "FAIL"
	Forward  Verdict = "FWD"
	Smuggled Verdict = "SMUGGLE"
)

// badness orders verdicts; 0 is best. An unknown verdict is the worst.
func (v Verdict) badness() int {
	order := [...]Verdict{Pass, Skip, Fail, Forward, Smuggled}
	for i, o := range order {
		if v == o {
			return i
		}
	}
	return len(order)
}

// Outcome is what one case showed.
type Outcome struct {
	Case    string  `json:"case"` // unique in its suite, without spaces
	Verdict Verdict `json:"verdict"`
	Detail  string  `json:"detail,omitempty"` // for a reader, when it is not a pass
}

// Suite is a set of cases that a subject is held against. A suite that is
// added later implements this and is named in suites.
type Suite interface {
	// Name is one word; it is the first column of the score file.
	Name() string
	// Run runs the cases named in only, or all when only is empty, and gives
	// their outcomes in a stable order.
	Run(ctx context.Context, s *Subject, only []string) ([]Outcome, error)
}

// suites are all suites in the order in which they run.
func suites(root, relais string) []Suite {
	return []Suite{
		smugSuite{},
		h2specSuite{name: "h2spec-h2c", root: root},
		h2specSuite{name: "h2spec-tls", root: root, tls: true},
		cachingSuite{root: root, relais: relais, tiers: 1},
		cachingSuite{root: root, relais: relais, tiers: 2},
	}
}

// named are the suites that take minutes and run only when they are named.
func named(relais string) []Suite { return []Suite{testsslSuite{relais}} }

// pick gives the suites with these names, or all.
func pick(all []Suite, names []string) ([]Suite, error) {
	if len(names) == 0 {
		return all, nil
	}
	var chosen []Suite
	for _, name := range names {
		found := false
		for _, s := range all {
			if s.Name() == name {
				chosen, found = append(chosen, s), true
			}
		}
		if !found {
			known := make([]string, 0, len(all))
			for _, s := range all {
				known = append(known, s.Name())
			}
			return nil, fmt.Errorf("no suite %q; there are %v", name, known)
		}
	}
	return chosen, nil
}
