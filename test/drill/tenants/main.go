//go:build linux

// Command tenants floods one organization's site while the visitors of another's come as ever: one edge on one
// processor, the flood and the visitors on the other. It says how much longer the neighbour's visitors wait, beside
// nginx with a limit by address and a server of its own for each site, and ends with 1 when a goal is missed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

type settings struct {
	relais      string
	rounds      int
	calm, flood time.Duration // of a round; the first half of the flood is not judged
	connections int           // of the flood, each from its own address
	rate        float64       // requests a second that the flood tries
	visits      float64       // requests a second of the neighbour's visitors
	service     time.Duration // of a page at the neighbour's origin
	only        string
}

func main() {
	var s settings
	flag.StringVar(&s.relais, "relais", "bin/relais", "the program")
	flag.IntVar(&s.rounds, "rounds", 5, "rounds of calm and flood")
	flag.DurationVar(&s.calm, "calm", 10*time.Second, "calm of a round")
	flag.DurationVar(&s.flood, "flood", 16*time.Second, "flood of a round; its first half is not judged")
	flag.IntVar(&s.connections, "connections", 4000, "connections of the flood, each from an address of its own")
	flag.Float64Var(&s.rate, "rate", 60_000, "requests a second that the flood tries to send")
	flag.Float64Var(&s.visits, "visits", 100, "requests a second of the neighbour's visitors")
	flag.DurationVar(&s.service, "service", 50*time.Millisecond, "mean time of a page at the neighbour's origin")
	flag.StringVar(&s.only, "only", "", "relais or nginx; empty for both")
	role := flag.String("role", "", "for the drill itself: flood, to be its other process")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *role != "" {
		if err := beFlood(ctx, s, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "drill tenants, flood:", err)
		}
		return
	}
	ok, err := run(ctx, s, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "drill tenants:", err)
	}
	if !ok || err != nil {
		stop()
		os.Exit(1)
	}
}

// What is asked of the neighbour's visitors: the 99th of a hundred waits so many times as long as in the calm.
const goal = 1.2

// run plays the contenders; false when a goal was missed.
func run(ctx context.Context, s settings, out io.Writer) (bool, error) {
	fmt.Fprintln(out, "| contender | flood sent /s | answered with what was asked /s | neighbour's page p99, calm ms | flooded ms | neighbour's hit p99, calm ms | flooded ms | neighbour refused |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|")
	measured := map[string]round{}
	for _, c := range []contender{{"relais", s.relais, relaisEdge}, {"nginx", "nginx", nginxEdge}} {
		if s.only != "" && s.only != c.name {
			continue
		}
		if _, err := exec.LookPath(c.program); err != nil {
			fmt.Fprintf(out, "# %s is not installed\n", c.name)
			continue
		}
		rounds, err := play(ctx, s, c)
		if err != nil {
			return false, fmt.Errorf("%s: %w", c.name, err)
		}
		m := middle(rounds)
		measured[c.name] = m
		fmt.Fprintf(out, "| %s | %.0f | %.0f | %.2f | %.2f | %.2f | %.2f | %d |\n", c.name, m.sent, m.served, ms(m.calmPage), ms(m.page), ms(m.calmHit), ms(m.hit), m.refused)
	}
	ours, ok := measured["relais"]
	if !ok {
		return true, nil
	}
	peer := "-"
	if n, ok := measured["nginx"]; ok {
		peer = fmt.Sprintf("nginx %.2f refused %d", n.times(), n.refused)
	}
	word, good := "ok", ours.times() <= goal && ours.refused == 0
	if !good {
		word = "short"
	}
	fmt.Fprintf(out, "\ndrill-tenants neighbour's page p99, flooded over calm (refused %d)  measured %.2f  goal %.2f  peer %s  %s\n", ours.refused, ours.times(), goal, peer, word)
	return good, nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// round is what one round showed, or the middle of all.
type round struct {
	calmPage, page time.Duration // 99th of a hundred of the neighbour's pages from its origin
	calmHit, hit   time.Duration // the same of its cached answers
	sent, served   float64       // of the flood, a second
	refused        int           // of the neighbour's requests
}

// times is how many times as long the neighbour's pages took.
func (r round) times() float64 { return float64(r.page) / float64(max(r.calmPage, 1)) }

// middle is the median of each figure, and the sum of the refused.
func middle(rounds []round) (m round) {
	pick := func(f func(round) float64) float64 {
		v := make([]float64, len(rounds))
		for i, r := range rounds {
			v[i] = f(r)
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	took := func(f func(round) time.Duration) time.Duration {
		return time.Duration(pick(func(r round) float64 { return float64(f(r)) }))
	}
	for _, r := range rounds {
		m.refused += r.refused
	}
	m.calmPage, m.page = took(func(r round) time.Duration { return r.calmPage }), took(func(r round) time.Duration { return r.page })
	m.calmHit, m.hit = took(func(r round) time.Duration { return r.calmHit }), took(func(r round) time.Duration { return r.hit })
	m.sent, m.served = pick(func(r round) float64 { return r.sent }), pick(func(r round) float64 { return r.served })
	return m
}
