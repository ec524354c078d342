package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/relais-edge/relais/internal/edge/balance"
	"github.com/relais-edge/relais/internal/forecast"
)

// printForecast writes a forecast for people.
func printForecast(w io.Writer, f *forecast.Forecast) {
	p := paintFor(w)
	fmt.Fprintln(w, f.How)
	fmt.Fprintf(w, "what if: %s\n", f.WhatIf)
	for i := range f.Pools {
		fmt.Fprintln(w)
		printPool(w, p, &f.Pools[i])
	}
	if len(f.Warnings) > 0 {
		fmt.Fprintln(w)
	}
	for _, s := range f.Warnings {
		fmt.Fprintln(w, "warning:", s)
	}
	verdict := p.green
	if !f.Fits {
		verdict = p.red
	}
	fmt.Fprintf(w, "\n%s\n", verdict(f.Verdict))
}

func printPool(w io.Writer, p paint, pool *forecast.Pool) {
	fmt.Fprintf(w, "%s  now: %s\n", p.bold(pool.Key), pool.From)
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	head := "  TIER\tREQUESTS/S\tIN FLIGHT\tOF ITS LIMIT\tANONYMOUS\tKNOWN\tBASKET\tSPILLED THERE THEN"
	if pool.PricePerHour != nil {
		head += "\tPRICE/H"
	}
	fmt.Fprintln(t, head)
	for i := range pool.Tiers {
		r := &pool.Tiers[i]
		a, b := &r.Now, &r.Then
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", r.Name, change(a.Rate.All(), b.Rate.All()), change(a.InFlight, b.InFlight), shares(r),
			change(a.Rate.Anonymous, b.Rate.Anonymous), change(a.Rate.Known, b.Rate.Known), change(a.Rate.Basket, b.Rate.Basket), reasons(&b.Spills))
		if pool.PricePerHour != nil {
			fmt.Fprintf(t, "\t%s", price(r.PricePerHour))
		}
		fmt.Fprintln(t)
	}
	_ = t.Flush()
	printLost(w, p, pool)
	if e := pool.Extra; e != nil {
		fmt.Fprintf(w, "  latency: %+.1f ms in the mean, %+.1f ms in the 95th percentile\n", e.Mean, e.P95)
	} else {
		fmt.Fprintln(w, "  latency: not known")
	}
	if pool.PricePerHour != nil {
		fmt.Fprintf(w, "  price an hour: %s\n", price(pool.PricePerHour))
	}
	for _, s := range pool.Warnings {
		fmt.Fprintln(w, "  warning:", s)
	}
}

// printLost says who is not answered.
func printLost(w io.Writer, p paint, pool *forecast.Pool) {
	if was := pool.WasRefused; was.All() > 0 {
		fmt.Fprintf(w, "  refused now: %s\n", classes(was, balance.ByClass{}))
	}
	none := true
	for _, l := range []struct {
		name string
		n    balance.ByClass
	}{
		{"refused, as no tier has room", pool.Lost.Refused},
		{"lost, as all tries fail", pool.Lost.Failed},
		{"not answered in time", pool.Lost.Late},
	} {
		if l.n.All() > 0 {
			none = false
			fmt.Fprintf(w, "  %s: %s\n", p.red(l.name), classes(l.n, pool.Asked))
		}
	}
	if none {
		fmt.Fprintln(w, "  refused: nobody")
	}
	if l := pool.Transition.Lost; l.All() > 0 {
		fmt.Fprintf(w, "  %s, in the first %.0f s: %s requests\n", p.red("lost while it begins"), pool.Transition.Seconds, figure(l.All()))
	}
}

// classes writes rates by class, with their shares of what is asked.
func classes(n, asked balance.ByClass) string {
	var parts []string
	for _, c := range []struct {
		name     string
		n, asked float64
	}{{"anonymous", n.Anonymous, asked.Anonymous}, {"known", n.Known, asked.Known}, {"with a basket", n.Basket, asked.Basket}} {
		if c.n <= 0 {
			continue
		}
		s := c.name + " " + figure(c.n) + "/s"
		if c.asked > 0 {
			s += fmt.Sprintf(" (%.1f %%)", math.Min(100, 100*c.n/c.asked))
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ", ")
}

// change writes a figure now and then.
func change(now, then float64) string { return figure(now) + " → " + figure(then) }

func figure(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 10:
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// shares are those of a tier's limit that is in use.
func shares(t *forecast.Tier) string {
	share := func(s *forecast.Side) string {
		if s.Limit <= 0 {
			return "no limit"
		}
		return fmt.Sprintf("%.0f %%", 100*s.InFlight/s.Limit)
	}
	then := share(&t.Then)
	switch {
	case t.Failed == t.Origins:
		then = "failed"
	case t.Failed > 0:
		then += fmt.Sprintf(" (%d of %d failed)", t.Failed, t.Origins)
	}
	return share(&t.Now) + " → " + then
}

// reasons are why requests spilled, with how many a second.
func reasons(s *balance.Spills) string {
	var parts []string
	for _, r := range []struct {
		name string
		n    float64
	}{{"soft", s.Soft}, {"hard", s.Hard}, {"unhealthy", s.Unhealthy}, {"tried", s.Tried}, {"stayed", s.Stayed}, {"sticky", s.Sticky}} {
		if r.n > 0 {
			parts = append(parts, r.name+" "+figure(r.n)+"/s")
		}
	}
	if len(parts) == 0 {
		return "–"
	}
	return strings.Join(parts, ", ")
}

func price(p *forecast.NowThen) string {
	if p == nil {
		return "–"
	}
	return change(p.Now, p.Then)
}
