// Command overflow plays a shop's bad days in real time: visitors of the demo shop, a home cluster
// with a fixed number of slots, an overflow cluster twice as large, and in front of them Relais,
// not told the slots, and its peers, told. It prints a table a scenario and one line a number,
// and ends with 1 when a goal is missed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

type settings struct {
	relais   string
	origins  int
	slots    int
	service  time.Duration
	pages    float64
	only     string
	scenario string
}

// base is the visitors a second of a quiet day.
func (s settings) base() float64 {
	return baseLoad * float64(s.origins*s.slots) / s.service.Seconds() / s.pages
}

func main() {
	var s settings
	flag.StringVar(&s.relais, "relais", "bin/relais", "the program")
	flag.IntVar(&s.origins, "origins", 6, "servers of the home cluster; the overflow has twice as many")
	flag.IntVar(&s.slots, "slots", 10, "requests that a server works on at once")
	flag.DurationVar(&s.service, "service", 300*time.Millisecond, "mean time of a page; with it the clusters' pages a second change")
	flag.Float64Var(&s.pages, "pages", 6.7, "pages that a visitor asks for, on average")
	flag.StringVar(&s.only, "only", "", "contenders whose names begin with one of these, separated by semicolons")
	flag.StringVar(&s.scenario, "scenario", "", "scenarios whose names hold this")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, s, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "drill overflow:", err)
	}
	if !ok || err != nil {
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings, out io.Writer) (bool, error) {
	ours, peers := chosen(s, out)
	each := float64(s.origins*s.slots) / s.service.Seconds()
	fmt.Fprintf(out, "# home %d x %d slots of %s = %.0f pages/s, overflow twice that\n", s.origins, s.slots, s.service, each)
	var numbers []number
	for _, sc := range scenarios() {
		if !strings.Contains(sc.name, s.scenario) {
			continue
		}
		fmt.Fprintf(out, "\n## %s\n%s\n", sc.name, tableHead)
		got, beside := map[string]result{}, []string{}
		for _, c := range append(peers, ours...) {
			r, err := play(ctx, s, c, sc)
			if err != nil {
				return false, fmt.Errorf("%s, %s: %w", sc.name, c.name, err)
			}
			got[c.name] = r
			fmt.Fprintf(out, "| %s %s\n", c.name, r)
		}
		for _, c := range peers {
			r := got[c.name]
			beside = append(beside, fmt.Sprintf("%s %d lost %d refused p99 %dms used %.0f%%", c.name, r.lost, r.refused, r.p99.Milliseconds(), r.used))
		}
		for _, c := range ours {
			numbers = append(numbers, goals(sc, c, got[c.name], strings.Join(beside, "; "))...)
		}
	}
	ok := true
	fmt.Fprintln(out)
	for _, n := range numbers {
		fmt.Fprintln(out, n)
		ok = ok && n.ok()
	}
	return ok, nil
}

// chosen are the contenders to play, ours and others.
func chosen(s settings, out io.Writer) (ours, peers []contender) {
	for _, c := range contenders(s.relais) {
		wanted := s.only == ""
		for name := range strings.SplitSeq(s.only, ";") {
			wanted = wanted || name != "" && strings.HasPrefix(c.name, name)
		}
		program, _, _ := strings.Cut(c.name, ",")
		switch _, err := exec.LookPath(program); {
		case !wanted:
		case program == "relais":
			ours = append(ours, c)
		case err != nil:
			fmt.Fprintf(out, "# no %s here: apt-get install %s\n", program, program)
		default:
			peers = append(peers, c)
		}
	}
	return ours, peers
}
