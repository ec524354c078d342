// Command flood plays floods against a shop in real time: a calm minute, then twenty times as many requests from ten
// thousand addresses over HTTP/1.1 and HTTP/2, with buyers in between; in front of the shop Relais, and its peers as a
// careful operator sets them. It prints a table a scenario and one line a number, and ends with 1 when a goal is missed.
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
	slots    int
	service  time.Duration
	base     float64       // visitors a second
	calm     time.Duration // before the flood
	length   time.Duration // of the flood
	factor   float64       // of all requests
	bots     int           // addresses of a swarm
	only     string
	scenario string
	keep     string // folder for what the servers say; empty for none
}

func main() {
	var s settings
	flag.StringVar(&s.relais, "relais", "bin/relais", "the program")
	flag.IntVar(&s.slots, "slots", 24, "requests that the shop works on at once")
	flag.DurationVar(&s.service, "service", 100*time.Millisecond, "mean time of a page")
	flag.Float64Var(&s.base, "visitors", 4, "visitors a second on a quiet day")
	flag.DurationVar(&s.calm, "calm", 60*time.Second, "time before the flood")
	flag.DurationVar(&s.length, "length", 60*time.Second, "time of the flood")
	flag.Float64Var(&s.factor, "factor", 20, "requests of the flood for each of a visitor")
	flag.IntVar(&s.bots, "bots", 10_000, "addresses of a swarm")
	flag.StringVar(&s.only, "only", "", "contenders whose names begin with one of these, separated by semicolons")
	flag.StringVar(&s.scenario, "scenario", "", "scenarios whose names hold this")
	flag.StringVar(&s.keep, "keep", "", "folder for the servers' configurations and logs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, s, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "drill flood:", err)
	}
	if !ok || err != nil {
		stop()
		os.Exit(1)
	}
}

// run plays the scenarios; false when a goal was missed.
func run(ctx context.Context, s settings, out io.Writer) (bool, error) {
	if err := raiseFiles(); err != nil {
		return false, err
	}
	chosen := contenders(s, out)
	var numbers []number
	for _, sc := range scenarios(s) {
		if !strings.Contains(sc.name, s.scenario) {
			continue
		}
		fmt.Fprintf(out, "\n## %s\n%s\n", sc.name, tableHead)
		quiet, err := play(ctx, s, chosen[0], scenario{name: "quiet", seed: sc.seed, rate: sc.rate, shared: sc.shared})
		if err != nil {
			return false, fmt.Errorf("%s, without a flood: %w", sc.name, err)
		}
		fmt.Fprintf(out, "| %s, no flood %s\n", chosen[0].name, quiet.row(quiet))
		var ours result
		var peers []string
		for i, c := range chosen {
			r := quiet
			if sc.shape != "" || i > 0 {
				if r, err = play(ctx, s, c, sc); err != nil {
					return false, fmt.Errorf("%s, %s: %w", sc.name, c.name, err)
				}
				fmt.Fprintf(out, "| %s %s\n", c.name, r.row(quiet))
			}
			if i == 0 {
				ours = r
			} else {
				peers = append(peers, fmt.Sprintf("%s kept %.1f%% refused %d p99 +%dms", c.name, r.kept(quiet), r.refused, (r.p99-r.calm).Milliseconds()))
			}
		}
		numbers = append(numbers, goals(sc, ours, quiet, strings.Join(peers, "; "))...)
	}
	ok := true
	fmt.Fprintln(out)
	for _, n := range numbers {
		fmt.Fprintln(out, n)
		ok = ok && n.ok()
	}
	return ok, nil
}

// contenders are those to play, ours first.
func contenders(s settings, out io.Writer) []contender {
	list := []contender{{"relais", s.relais, relaisEdge}, {"nginx", "nginx", nginxEdge}, {"haproxy", "haproxy", haproxyEdge}}
	chosen := list[:1]
	for _, c := range list[1:] {
		wanted := s.only == ""
		for name := range strings.SplitSeq(s.only, ";") {
			wanted = wanted || name != "" && strings.HasPrefix(c.name, name)
		}
		if !wanted {
			continue
		}
		if _, err := exec.LookPath(c.program); err != nil {
			fmt.Fprintf(out, "# %s is not installed\n", c.name)
			continue
		}
		chosen = append(chosen, c)
	}
	return chosen
}

// raiseFiles lets the process have as many connections as the system allows.
func raiseFiles() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	return nil
}
