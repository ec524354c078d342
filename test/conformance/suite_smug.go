package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/relais-edge/relais/test/conformance/smug"
)

// smugSuite is the battery of ambiguous HTTP, on all lanes of the subject.
type smugSuite struct{}

func (smugSuite) Name() string { return "smug" }

func (smugSuite) Run(ctx context.Context, s *Subject, only []string) ([]Outcome, error) {
	lanes := make([]smug.Lane, 0, len(s.Lanes))
	for _, l := range s.Lanes {
		lanes = append(lanes, smug.Lane{HTTP1: l.HTTP1, HTTP2: l.H2C, Recorder: l.Recorder})
	}
	report, err := smug.Run(ctx, lanes, smug.Options{Pick: func(c smug.Case) bool {
		return len(only) == 0 || slices.Contains(only, c.Name)
	}})
	if err != nil {
		return nil, err
	}
	if report.Dead {
		return nil, errors.New("the subject does not answer a plain GET after the battery, so its refusals mean nothing")
	}
	return fromSmug(report), nil
}

func fromSmug(report smug.Report) []Outcome {
	all := make([]Outcome, 0, len(report.Results))
	for _, r := range report.Results {
		o := Outcome{Case: r.Name, Verdict: Verdict(r.Verdict)}
		if r.Verdict != smug.Pass {
			o.Detail = fmt.Sprintf("%s (%s); wanted %s, answers %v, reached the origin %q, findings %v", r.Why, r.Rule, r.Want, r.Statuses, r.Requests, r.Findings)
		}
		all = append(all, o)
	}
	return all
}
