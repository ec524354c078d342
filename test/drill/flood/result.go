package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/relais-edge/relais/demo/visitors"
)

// result is what a scenario showed of a contender.
type result struct {
	orders       int // confirmed, that were begun in the flood
	lost         int // confirmed, and not in the ledger exactly once
	failed       int // never brought through
	refused      int64
	gaveUp       int64
	answered     float64       // percent of the visitors' pages in the flood, after its first ten seconds
	calm, p99    time.Duration // of pages, before the flood and after its first ten seconds
	sent, served int64         // requests of the flood, and those that got what they asked for
}

// settle is how long a contender has to find its answer.
const settle = 10 * time.Second

// judge counts what the visitors saw.
func (f *field) judge(s settings) (r result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, calm := f.pages(s.calm/3, s.calm)
	all, then := f.pages(s.calm+settle, s.calm+s.length)
	r.calm, r.p99 = p99(calm), p99(then)
	if all > 0 {
		r.answered = 100 * float64(len(then)) / float64(all)
	}
	return r
}

// pages counts the pages asked for in a time, and how long those took that were answered.
func (f *field) pages(from, to time.Duration) (all int, took []time.Duration) {
	for _, x := range f.seen {
		if at := x.Start.Sub(f.began); !x.Page || at < from || at >= to {
			continue
		}
		all++
		if answered(x) {
			took = append(took, x.Took)
		}
	}
	return all, took
}

func answered(x visitors.Seen) bool {
	return x.Status >= 200 && x.Status < 500 && x.Status != 429 && x.Status != 403
}

func p99(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[len(d)*99/100]
}

// kept is how many of the orders that are placed without a flood were placed, in percent.
func (r result) kept(quiet result) float64 {
	return 100 * float64(r.orders) / float64(max(quiet.orders, 1))
}

const tableHead = "| contender | orders in the flood | of those without, % | failed | lost | refused with a basket | gave up | visitors' pages answered % | p99 before, ms | p99, ms | flood sent | flood served % |\n|---|---|---|---|---|---|---|---|---|---|---|---|"

func (r result) row(quiet result) string {
	served := 0.0
	if r.sent > 0 {
		served = 100 * float64(r.served) / float64(r.sent)
	}
	return fmt.Sprintf("| %d | %.1f | %d | %d | %d | %d | %.2f | %d | %d | %d | %.1f |", r.orders, r.kept(quiet), r.failed, r.lost, r.refused, r.gaveUp,
		r.answered, r.calm.Milliseconds(), r.p99.Milliseconds(), r.sent, served)
}

// number is one goal and what was measured.
type number struct {
	name           string
	measured, goal float64
	most           bool // the goal is a most, not a least
	peer           string
}

func (n number) ok() bool {
	if n.most {
		return n.measured <= n.goal
	}
	return n.measured >= n.goal
}

func (n number) String() string {
	word := "ok"
	if !n.ok() {
		word = "short"
	}
	return fmt.Sprintf("drill-flood %-78s measured %.2f  goal %.2f  peer %s  %s", n.name, n.measured, n.goal, n.peer, word)
}

// goals are the numbers of ours in a scenario.
func goals(sc scenario, r, quiet result, peers string) []number {
	out := []number{
		{sc.name + ": refused with a basket", float64(r.refused), 0, true, peers},
		{sc.name + ": orders lost or not brought through", float64(r.lost + r.failed), 0, true, peers},
	}
	if sc.shape == "" {
		return out
	}
	return append(out,
		number{sc.name + ": orders of those without a flood, %", r.kept(quiet), sc.least, false, peers},
		number{sc.name + ": p99 over the calm one, ms", float64((r.p99 - r.calm).Milliseconds()), 200, true, peers})
}
