// Command slow shows that slow clients do not cost the others: slowhttptest's three modes
// against bin/relais, and against nginx and HAProxy beside it, while an ordinary client from
// another address asks. It prints one line a number and ends with 1 when a goal is missed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/relais-edge/relais/test/proc"
	"github.com/relais-edge/relais/test/slow"
)

// The goals.
const (
	goalShare = 99.9 // percent of the ordinary client's requests that are answered
	goalExtra = 50 * time.Millisecond
	// goalHeld is the part of the slow connections that must have been open at one moment, in percent.
	goalHeld = 100
)

type settings struct {
	relais      string
	connections int
	processes   int
	length      time.Duration
	peers       string
	modes       string
}

func main() {
	var s settings
	flag.StringVar(&s.relais, "relais", "bin/relais", "the program")
	flag.IntVar(&s.connections, "connections", 10_000, "slow connections")
	flag.IntVar(&s.processes, "processes", 8, "slowhttptest processes; together they hold a tenth more connections than asked for")
	flag.DurationVar(&s.length, "length", time.Minute, "how long an attack lasts")
	flag.StringVar(&s.peers, "peers", "nginx,haproxy", "the peers, separated by commas")
	flag.StringVar(&s.modes, "modes", "headers,body,read", "what the clients are slow at")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, s, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "drill slow:", err)
	}
	if !ok || err != nil {
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings, out io.Writer) (ok bool, err error) {
	if err := prepare(s, out); err != nil {
		return false, err
	}
	names := []string{"relais"}
	for name := range strings.SplitSeq(s.peers, ",") {
		if _, err := exec.LookPath(name); name != "" && err != nil {
			fmt.Fprintf(out, "# no %s here: apt-get install %s\n", name, name)
		} else if name != "" {
			names = append(names, name)
		}
	}
	ok = true
	for text := range strings.SplitSeq(s.modes, ",") {
		mode, got := slow.Mode(text), map[string]measured{}
		for _, name := range names {
			m, err := measure(ctx, s, name, mode)
			if err != nil {
				return false, fmt.Errorf("%s, slow %s: %w", name, mode, err)
			}
			got[name] = m
			fmt.Fprintf(out, "# %-7s slow %-7s %s\n", name, mode, m)
		}
		ok = lines(out, s, mode, got, names[1:]) && ok
	}
	return ok, nil
}

// prepare looks at what the drill needs, and puts this process and what it starts on the last
// core; the servers get the first.
func prepare(s settings, out io.Writer) error {
	if _, err := exec.LookPath("slowhttptest"); err != nil {
		return errors.New("slowhttptest is missing: apt-get install slowhttptest")
	}
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	if int(l.Cur) < s.connections*3/2 {
		return fmt.Errorf("the limit of open files is %d; %d connections need half as many more: ulimit -n", l.Cur, s.connections)
	}
	if s.processes < 1 || s.connections < s.processes {
		return errors.New("each process needs a connection")
	}
	if runtime.NumCPU() < 2 {
		fmt.Fprintln(out, "# one core only: the generators take time from the servers")
		return nil
	}
	return proc.PinSelf(runtime.NumCPU() - 1)
}

// measured is what the ordinary client met before and during an attack.
type measured struct {
	idle, under slow.Report
	// held is how many slow connections the server had accepted at once, in readings of each second.
	most, usual int
}

func (m measured) extra() time.Duration { return m.under.P99 - m.idle.P99 }

func (m measured) String() string {
	return fmt.Sprintf("idle p99 %s; under attack %d of %d answered, p50 %s, p99 %s, longest %s; connections held: most %d, median %d %v",
		short(m.idle.P99), m.under.Answered, m.under.Asked, short(m.under.P50), short(m.under.P99), short(m.under.Max), m.most, m.usual, m.under.Failures)
}

func short(d time.Duration) string { return d.Round(100 * time.Microsecond).String() }

// lines prints the numbers of a mode and says whether the goals are met.
func lines(out io.Writer, s settings, mode slow.Mode, got map[string]measured, peers []string) bool {
	var shares, extras, held []string
	for _, p := range peers {
		held = append(held, fmt.Sprintf("%s %d", p, got[p].most))
		shares = append(shares, fmt.Sprintf("%s %.2f %%", p, got[p].under.Share()))
		extras = append(extras, fmt.Sprintf("%s %s", p, short(got[p].extra())))
	}
	r := got["relais"]
	a := line(out, "slow-"+string(mode)+" answered", fmt.Sprintf("%.2f %%", r.under.Share()), fmt.Sprintf(">= %.1f %%", goalShare), shares, r.under.Share() >= goalShare)
	b := line(out, "slow-"+string(mode)+" p99 over idle", short(r.extra()), "<= "+short(goalExtra), extras, r.extra() <= goalExtra)
	goal := s.connections * goalHeld / 100
	c := line(out, "slow-"+string(mode)+" held at once", fmt.Sprint(r.most), fmt.Sprintf(">= %d", goal), held, r.most >= goal)
	return a && b && c
}

func line(out io.Writer, name, measured, goal string, peers []string, ok bool) bool {
	verdict := "short"
	if ok {
		verdict = "ok"
	}
	fmt.Fprintf(out, "%-26s %-12s goal %-12s peers: %-40s %s\n", name, measured, goal, strings.Join(peers, ", "), verdict)
	return ok
}
