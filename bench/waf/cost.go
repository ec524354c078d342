package main

import (
	"context"
	"fmt"
	"io"

	"github.com/relais-edge/relais/internal/edge/waf/regression"
	"github.com/relais-edge/relais/internal/edge/waf/traffic"
)

// Goals of the stage's cost, in microseconds of CPU a request at level 1; at level 2 they are twice as high.
const (
	goalPage, goalPageOff = 40, 120
	goalFresh             = 100
	goalStatic            = 30
	goalPost              = 70
	goalTimes             = 70 // times the engine alone, with a warm memo
	goalShare             = 98 // percent of ordinary requests that are proved clean
)

var kinds = []struct {
	name, about string
	warm, off   float64 // goals; 0: none
	times       bool    // the goal of times holds
}{
	{"page", "GET, 17 fields, 8 cookies, ids never repeat", goalPage, goalPageOff, true},
	{"fresh", "the same, cookies, path, query and referer all new", goalFresh, 0, false},
	{"static", "GET of a style sheet", goalStatic, 0, true},
	{"form", "POST of a form of 11 fields", goalPost, 0, true},
	{"json", "POST of 1 KB of JSON", goalPost, 0, true},
}

// contenders of the cost, in the order of the table.
const (
	warm1 = iota
	off1
	warm2
	off2
	coraza1
	coraza2
	columns
)

// subjects are the stage and the engine at levels 1 and 2.
func subjects() (list [columns]subject, err error) {
	on, off := newStage(0), newStage(-1)
	for level := 1; level <= 2; level++ {
		a, err := on.level(level)
		if err != nil {
			return list, err
		}
		b, err := off.level(level)
		if err != nil {
			return list, err
		}
		e, err := newEngine(level, true)
		if err != nil {
			return list, err
		}
		list[2*(level-1)], list[2*(level-1)+1], list[coraza1+level-1] = a, b, e
	}
	return list, nil
}

// cost measures what a harmless request costs in the stage, beside the engine alone.
func (s *settings) cost(ctx context.Context, r *report, out io.Writer) error {
	list, err := subjects()
	if err != nil {
		return err
	}
	names := [columns]string{"level 1, memo warm", "level 1, memo off", "level 2, memo warm", "level 2, memo off", "Coraza, level 1", "Coraza, level 2"}
	visits := [columns]int{2000, 1000, 2000, 1000, 24, 24}
	r.table("Cost of harmless requests", fmt.Sprintf("In process, the edge's own stage on %d goroutines; Coraza alone with SecRxPreFilter On and the same rules in the same rounds. µs of CPU a request, median of %d alternating rounds (lowest-highest); × is how many times as much Coraza takes, the median of the rounds' ratios.", workers(), s.rounds),
		"request", "level 1, memo warm", "memo off", "Coraza", "× warm", "× off", "level 2, memo warm", "memo off", "Coraza", "× warm")
	for i := range kinds {
		k := &kinds[i]
		var row [columns]*contender
		for c := range row {
			row[c] = &contender{name: k.name + ", " + names[c], who: list[c], visit: visits[c], wrong: passAll}
		}
		if k.name == "fresh" {
			for _, c := range row {
				c.wrong = passMost
			}
		}
		// Other ids than those that are measured make the memo warm and the states that expressions need.
		if k.name == "form" { // the rules of level 2 refuse it, in Coraza too: every one is the engine's
			for _, c := range []int{warm2, off2, coraza2} {
				row[c].wrong, row[c].visit = refuseAll, 24
			}
		}
		for c := range coraza1 {
			if _, _, err := list[c].ask(requestsOf(k.name, 1<<30, min(3000, 2*row[c].visit))); err != nil {
				return err
			}
		}
		err := alternate(ctx, s.rounds, row[:], func(round, n int) []regression.Case { return requestsOf(k.name, 5000*round, n) })
		if err != nil {
			return err
		}
		cell := func(c int) string { return fmt.Sprintf("%.1f (%s)", median(row[c].micro), row[c].span()) }
		ratio := func(c, peer int) float64 { return row[c].times(row[peer]) }
		times := func(c, peer int) string { return fmt.Sprintf("%.0f", ratio(c, peer)) }
		r.row(k.name+": "+k.about, cell(warm1), cell(off1), cell(coraza1), times(warm1, coraza1), times(off1, coraza1), cell(warm2), cell(off2), cell(coraza2), times(warm2, coraza2))
		fmt.Fprintf(out, "%s: level 1 %.1f us, memo off %.1f, Coraza %.0f; level 2 %.1f, memo off %.1f, Coraza %.0f\n", k.name,
			median(row[warm1].micro), median(row[off1].micro), median(row[coraza1].micro), median(row[warm2].micro), median(row[off2].micro), median(row[coraza2].micro))
		peer := func(c, peer int) string {
			return fmt.Sprintf("Coraza %.0f us, %s x", median(row[peer].micro), times(c, peer))
		}
		r.most(k.name+" us", median(row[warm1].micro), k.warm, "%.1f", peer(warm1, coraza1))
		if k.off > 0 {
			r.most(k.name+" memo off us", median(row[off1].micro), k.off, "%.1f", peer(off1, coraza1))
		}
		if k.times {
			r.least(k.name+" times Coraza", ratio(warm1, coraza1), goalTimes, "%.1f", fmt.Sprintf("Coraza, SecRxPreFilter On, %.0f us", median(row[coraza1].micro)))
		}
		r.most(k.name+" level 2 us", median(row[warm2].micro), 2*k.warm, "%.1f", peer(warm2, coraza2))
		if k.off > 0 {
			r.most(k.name+" level 2 memo off us", median(row[off2].micro), 2*k.off, "%.1f", peer(off2, coraza2))
		}
	}
	return nil
}

// requestsOf makes n requests of a kind, with ids from a number on.
func requestsOf(kind string, from, n int) []regression.Case {
	out := make([]regression.Case, n)
	for i := range out {
		out[i] = traffic.Request(kind, from+i)
	}
	return out
}

// share measures how many of a shop's ordinary requests need no engine.
func (s *settings) share(r *report, out io.Writer) error {
	r.table("Share of ordinary requests proved clean", "The kept corpus of a shop in French and German: searches, filters, tracking parameters, addresses, JSON carts, return addresses, consent cookies, images.",
		"level", "requests", "refused by the stage", "proved clean", "share")
	shop := traffic.Shop(4000)
	for level := 1; level <= 2; level++ {
		b, err := newStage(0).level(level)
		if err != nil {
			return err
		}
		_, denied, err := b.ask(shop)
		if err != nil {
			return err
		}
		all, clean := b.proved()
		percent := 100 * float64(clean) / float64(max(all, 1))
		r.row(fmt.Sprint(level), fmt.Sprint(all), fmt.Sprint(denied), fmt.Sprint(clean), fmt.Sprintf("%.2f %%", percent))
		fmt.Fprintf(out, "share: level %d, %d of %d proved clean, %d refused\n", level, clean, all, denied)
		if level == 1 {
			r.least("share proved clean %", percent, goalShare, "%.2f", "none proves anything")
		}
	}
	return nil
}
