package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/relais-edge/relais/demo/shop"
	"github.com/relais-edge/relais/demo/visitors"
)

type settings struct {
	relais   string
	on, calm time.Duration
	rate     float64
	peers    bool
}

func main() {
	var s settings
	flag.StringVar(&s.relais, "relais", "../../bin/relais", "the program")
	flag.DurationVar(&s.on, "on", 5*time.Second, "how long a fault lasts")
	flag.DurationVar(&s.calm, "calm", 4*time.Second, "how long it is calm after it")
	flag.Float64Var(&s.rate, "rate", 10, "visitors a second")
	flag.BoolVar(&s.peers, "peers", true, "also nginx and HAProxy")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, s, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
	}
	if !ok || err != nil {
		stop()
		os.Exit(1)
	}
}

// outcome is what a contender lived through.
type outcome struct {
	seen          map[int]*count
	pages, failed int
	orders, lost  int // kept; confirmed and not in the ledger once, or never brought through
	verdict       visitors.Verdict
}

func run(ctx context.Context, s settings, out io.Writer) (bool, error) {
	list, got, names := faults(), map[string]outcome{}, []string{}
	for _, c := range contenders(s.relais) {
		if c.name != "relais" {
			if _, err := exec.LookPath(c.name); !s.peers || err != nil {
				fmt.Fprintf(out, "# without %s\n", c.name)
				continue
			}
		}
		o, err := shopThrough(ctx, s, c, list)
		if err != nil {
			return false, fmt.Errorf("%s: %w", c.name, err)
		}
		got[c.name], names = o, append(names, c.name)
	}
	table(out, list, names, got)
	o, peers := got["relais"], ""
	for _, n := range names[1:] {
		peers += fmt.Sprintf(" %s %d lost, %d of %d failed;", n, got[n].lost, got[n].failed, got[n].pages)
	}
	word := "ok"
	if o.lost > 0 {
		word = "short"
	}
	fmt.Fprintf(out, "drill-chaos orders lost  measured %d of %d  goal 0  peer%s  %s\n", o.lost, o.orders+o.lost, peers, word)
	fmt.Fprintf(out, "# relais: %d of %d pages failed\n", o.failed, o.pages)
	return o.lost == 0, nil
}

func table(out io.Writer, list []fault, names []string, got map[string]outcome) {
	fmt.Fprint(out, "| fault (pages failed of pages asked for) |")
	for _, n := range names {
		fmt.Fprintf(out, " %s |", n)
	}
	fmt.Fprint(out, "\n|---|")
	for range names {
		fmt.Fprint(out, "---|")
	}
	fmt.Fprintln(out)
	row := func(name string, number int) {
		fmt.Fprintf(out, "| %s |", name)
		for _, n := range names {
			c := got[n].seen[number]
			if c == nil {
				c = &count{}
			}
			fmt.Fprintf(out, " %d of %d |", c.failed, c.pages)
		}
		fmt.Fprintln(out)
	}
	row("calm", 0)
	for i, f := range list {
		row(f.name, i+1)
	}
	fmt.Fprint(out, "| orders kept, lost |")
	for _, n := range names {
		fmt.Fprintf(out, " %d, %d |", got[n].orders, got[n].lost)
	}
	fmt.Fprintln(out)
}

// shopThrough lets visitors shop while the faults come and go, and compares what they were told
// with the ledger.
func shopThrough(ctx context.Context, s settings, c contender, list []fault) (o outcome, err error) {
	dir, err := os.MkdirTemp("", "chaos")
	if err != nil {
		return o, err
	}
	defer os.RemoveAll(dir)
	b, err := newBed(ctx, dir, c)
	if err != nil {
		return o, err
	}
	defer b.close()
	g, err := visitors.New(visitors.Config{
		Target: "http://" + b.addr, Host: "shop.example", Rate: visitors.Constant(s.rate), Seed: 1, Sources: netip.MustParsePrefix("127.2.0.0/16"),
		Duration: time.Duration(len(list))*(s.on+s.calm) + s.calm, Drain: 40 * time.Second, Seen: b.note,
		Funnel: visitors.Funnel{Think: 200 * time.Millisecond, Basket: 0.5, Checkout: 0.8, Order: 0.9},
	})
	if err != nil {
		return o, err
	}
	played := make(chan error, 1)
	go func() { played <- b.play(ctx, list, s.on, s.calm) }()
	report, err := g.Run(ctx)
	if err != nil {
		return o, err
	}
	if err := <-played; err != nil {
		return o, err
	}
	l, err := shop.OpenLedger(filepath.Join(dir, "shop"))
	if err != nil {
		return o, err
	}
	defer l.Close()
	if o.verdict, err = report.Verify(ctx, l); err != nil {
		return o, err
	}
	o.orders, o.lost, o.seen = o.verdict.Kept, len(o.verdict.Lost)+len(o.verdict.Failed)+len(o.verdict.Duplicates), b.seen
	for _, c := range b.seen {
		o.pages, o.failed = o.pages+c.pages, o.failed+c.failed
	}
	return o, nil
}
