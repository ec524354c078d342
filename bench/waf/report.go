package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/relais-edge/relais/internal/edge/waf/regression"
)

// number is one line of the end: what was measured against what must be reached.
type number struct {
	name, measured, goal, peer string
	ok                         bool
}

// report is what a run has found: tables in Markdown, and numbers.
type report struct {
	tables  strings.Builder
	numbers []number
	details []string // what follows the tables
}

func (r *report) table(title, text string, columns ...string) {
	fmt.Fprintf(&r.tables, "\n## %s\n%s\n\n| %s |\n|%s\n", title, text, strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
}

func (r *report) row(cells ...string) {
	fmt.Fprintf(&r.tables, "| %s |\n", strings.Join(cells, " | "))
}

func (r *report) note(format string, args ...any) { fmt.Fprintf(&r.tables, "\n"+format+"\n", args...) }

// most adds a number that must not be above its goal, least one that must not be below it.
func (r *report) most(name string, measured, goal float64, format, peer string) {
	r.numbers = append(r.numbers, number{"waf-" + name, fmt.Sprintf(format, measured), "<= " + fmt.Sprintf(format, goal), peer, measured <= goal})
}

func (r *report) least(name string, measured, goal float64, format, peer string) {
	r.numbers = append(r.numbers, number{"waf-" + name, fmt.Sprintf(format, measured), ">= " + fmt.Sprintf(format, goal), peer, measured >= goal})
}

// missing adds a number that could not be measured, which is short.
func (r *report) missing(name string, err error) {
	r.numbers = append(r.numbers, number{name: "waf-" + name, measured: "-", goal: "-", peer: err.Error()})
}

// lines prints a line for each number and says whether one is short.
func (r *report) lines(out io.Writer) (short bool) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, n := range r.numbers {
		word := "ok"
		if !n.ok {
			word, short = "short", true
		}
		fmt.Fprintf(t, "%s\tmeasured %s\tgoal %s\tpeer: %s\t%s\n", n.name, n.measured, n.goal, n.peer, word)
	}
	_ = t.Flush()
	return short
}

// contender is one row of a comparison: how many requests it is given in a visit depends on how long it takes.
type contender struct {
	name  string
	who   subject
	visit int
	// wrong says what is wrong with a visit in which so many of n requests were refused; nil takes all.
	wrong func(denied, n int) error
	micro []float64 // CPU time of a request, by round
}

// passAll holds of traffic that no rule may refuse.
func passAll(denied, n int) error {
	if denied > 0 {
		return fmt.Errorf("%d of %d harmless requests were refused", denied, n)
	}
	return nil
}

// chance is one request of so many that the rules may refuse where values are made by chance: color=1e309 is a number too
// large for a double to them, and so it is to Coraza alone.
const chance = 1000

// passMost holds of traffic of which the rules refuse hardly any.
func passMost(denied, n int) error {
	if denied > n/chance {
		return passAll(denied, n)
	}
	return nil
}

// refuseAll holds of traffic that the rules refuse although it is harmless.
func refuseAll(denied, n int) error {
	if denied < n {
		return fmt.Errorf("%d of %d requests passed that the rules refuse", n-denied, n)
	}
	return nil
}

// alternate visits every contender once a round, each round one later; requests makes those of a round.
func alternate(ctx context.Context, rounds int, list []*contender, requests func(round, n int) []regression.Case) error {
	for round := range rounds {
		for k := range list {
			c := list[(k+round)%len(list)]
			if err := ctx.Err(); err != nil {
				return err
			}
			cases := requests(round, c.visit)
			cpu, denied, err := c.who.ask(cases)
			if err == nil && c.wrong != nil {
				err = c.wrong(denied, len(cases))
			}
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			c.micro = append(c.micro, float64(cpu.Nanoseconds())/1e3/float64(len(cases)))
		}
	}
	return nil
}

// median is 0 of none.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	if len(v) == 0 {
		return 0
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// times is the median over the rounds of how many times c's cost other's is.
func (c *contender) times(other *contender) float64 {
	var ratios []float64
	for i := range min(len(c.micro), len(other.micro)) {
		if c.micro[i] > 0 {
			ratios = append(ratios, other.micro[i]/c.micro[i])
		}
	}
	return median(ratios)
}

func (c *contender) span() string {
	if len(c.micro) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f-%.0f", slices.Min(c.micro), slices.Max(c.micro))
}
