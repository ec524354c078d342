package main

import (
	"fmt"
	"slices"
	"time"
)

// result is what a scenario showed of a contender.
type result struct {
	pages    int           // in the time that counts
	offered  float64       // pages a second then
	answered float64       // percent of them
	orders   int           // kept
	lost     int           // confirmed and not in the ledger once, or never brought through
	refused  int64         // answers 403, 429 or 503 to visitors with a basket
	gaveUp   int64         // visitors who left because the site did not work
	calm     time.Duration // p99 of pages before
	p99      time.Duration // in the time that counts
	used     float64       // percent of home's slots, on average
	well     float64       // percent of the slots of the half that stays quick
	waste    float64       // percent of the overflow's pages that began while a fifth of home was free
	spilled  float64       // percent of pages
	left     int64         // pages worked on to the end for clients that had left
}

// judge counts what was seen. The time that counts begins a little after the turn.
func (f *field) judge(sc scenario) result {
	f.mu.Lock()
	defer f.mu.Unlock()
	from, to := f.began.Add(turn+settle), f.began.Add(sc.end)
	var r result
	calm := f.times(f.began.Add(quietFrom), f.began.Add(turn))
	then := f.times(from, to)
	r.calm, r.p99 = p99(calm.took), p99(then.took)
	r.pages, r.offered = then.all, float64(then.all)/to.Sub(from).Seconds()
	r.answered = percent(len(then.took), then.all)
	var taken, all, well, wells int
	for _, x := range f.samples {
		if x.at.After(from) && x.at.Before(to) {
			taken, all, well, wells = taken+x.taken, all+x.all, well+x.well, wells+x.wells
		}
	}
	r.used, r.well = percent(taken, all), percent(well, wells)
	home, _ := f.home.count(from, to)
	over, wasted := f.overflow.count(from, to)
	r.spilled, r.waste = percent(over, over+home), percent(wasted, over)
	r.left = f.home.left.Load() + f.overflow.left.Load()
	return r
}

type window struct {
	all  int
	took []time.Duration // of those that were answered well
}

// times are the pages that were asked for in a time.
func (f *field) times(from, to time.Time) (w window) {
	for _, x := range f.seen {
		if !x.Page || x.Start.Before(from) || !x.Start.Before(to) {
			continue
		}
		w.all++
		if x.Status >= 200 && x.Status < 500 && x.Status != 429 {
			w.took = append(w.took, x.Took)
		}
	}
	return w
}

func p99(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[len(d)*99/100]
}

func percent(part, all int) float64 {
	if all == 0 {
		return 0
	}
	return 100 * float64(part) / float64(all)
}

func (r result) String() string {
	return fmt.Sprintf("| %.0f/s | %.2f | %d | %d | %d | %d | %d | %d | %.1f | %.1f | %.1f | %.1f | %d |",
		r.offered, r.answered, r.orders, r.lost, r.refused, r.gaveUp, r.calm.Milliseconds(), r.p99.Milliseconds(), r.used, r.well, r.waste, r.spilled, r.left)
}

const tableHead = "| contender | offered | answered % | orders | lost | refused | gave up | p99 before, ms | p99, ms | home used % | its second half % | waste % | spilled % | worked for nobody |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"

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
	return fmt.Sprintf("drill-overflow %-58s measured %.2f  goal %.2f  peer %s  %s", n.name, n.measured, n.goal, n.peer, word)
}

// goals are the numbers of a contender of ours in a scenario.
func goals(sc scenario, c contender, r result, peers string) []number {
	name := func(what string) string { return sc.name + ", " + c.name + ": " + what }
	out := []number{
		{name("orders lost"), float64(r.lost), 0, true, peers},
		{name("refused with a basket"), float64(r.refused), 0, true, peers},
	}
	if sc.slow {
		return append(out,
			number{name("p99 over the quiet one, ms"), float64((r.p99 - r.calm).Milliseconds()), 200, true, peers},
			number{name("quick half used, %"), r.well, 80, false, peers})
	}
	return append(out,
		number{name("p99 / quiet p99"), float64(r.p99) / float64(max(r.calm, 1)), 1.3, true, peers},
		number{name("waste, %"), r.waste, 2, true, peers},
		number{name("home used, %"), r.used, 85, false, peers})
}
