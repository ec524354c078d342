// Command cache kills a process that writes to the cache's log in files, with SIGKILL, at
// random moments, again and again, and damages files in between. It reads back all that is
// found. Then it does the same, without damage, to a whole edge, whose bodies it asks for over HTTP. It prints
// one line a number, and ends with 1 when a goal is missed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/relais-edge/relais/test/crash/warm"
	"github.com/relais-edge/relais/test/proc"
)

// The goals.
const (
	goalFound = 99.9 // percent of what was stored more than a second before the kill
	goalReady = time.Second
)

type settings struct {
	dir     string
	rounds  int
	objects int
	seed    uint64
	program string // whose cache is killed as a whole; empty is none
	edge    int    // kills of it
	peers   bool
	install bool
}

func main() {
	if child() {
		return
	}
	var s settings
	flag.StringVar(&s.dir, "dir", "", "where the files are (an empty directory; a temporary one by default)")
	flag.IntVar(&s.rounds, "rounds", 200, "kills")
	flag.IntVar(&s.objects, "objects", 1_000_000, "objects of the log whose start is timed")
	flag.StringVar(&s.program, "program", "", "bin/relais, to kill a whole edge as well")
	flag.IntVar(&s.edge, "edge-rounds", 50, "kills of the whole edge")
	flag.BoolVar(&s.peers, "peers", true, "kill nginx, Varnish and Traffic Server as well, with -program")
	flag.BoolVar(&s.install, "install", false, "install those that are missing, as root on Debian")
	flag.Uint64Var(&s.seed, "seed", 1, "of the moments and the damage")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := run(ctx, s, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "crash cache:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings, out io.Writer) (ok bool, err error) {
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "crash-cache-"); err != nil {
			return false, err
		}
		defer os.RemoveAll(s.dir)
	}
	d := newDrill(s)
	for i := 1; i <= s.rounds; i++ {
		if err := d.round(ctx, i); err != nil {
			return false, fmt.Errorf("round %d: %w", i, err)
		}
	}
	ready, err := million(ctx, s)
	if err != nil {
		return false, err
	}
	fmt.Fprintf(out, "%d kills, %d objects stored, %d bodies read back, damage in %d rounds (%d records then missed)\n", d.kills, d.stored, d.read, d.damaged, d.missed)
	ok = true
	line := func(what, measured, goal string, good bool) {
		word := "ok"
		if !good {
			word, ok = "short", false
		}
		fmt.Fprintf(out, "%-62s %-24s %-12s %s\n", what, measured, goal, word)
	}
	share := 100.0
	if d.expected > 0 {
		share = 100 * float64(d.expected-d.lost) / float64(d.expected)
	}
	line("corrupt bodies", fmt.Sprint(d.corrupt), "0", d.corrupt == 0)
	line("found, of what was stored > 1 s before the kill", fmt.Sprintf("%.4f %% of %d", share, d.expected), fmt.Sprintf(">= %.1f %%", goalFound), share >= goalFound && d.expected > 0)
	line("erased > 1 s before the kill and come back", fmt.Sprint(d.back), "0", d.back == 0)
	line("slowest start of a round", d.slowest.Round(time.Millisecond).String(), "<= "+goalReady.String(), d.slowest <= goalReady)
	line(fmt.Sprintf("start with %d objects, fastest of %d, page cache warm", ready.found, starts), fmt.Sprintf("%s, %s CPU", ready.wall.Round(time.Millisecond), ready.cpu.Round(time.Millisecond)),
		"<= "+goalReady.String(), ready.wall <= goalReady && ready.found == s.objects)
	if s.program == "" {
		return ok, nil
	}
	dir, err := os.MkdirTemp(s.dir, "edge-")
	if err != nil {
		return false, err
	}
	r, err := warm.Run(ctx, warm.Config{Server: warm.Relais(s.program), Dir: dir, Rounds: s.edge, Objects: 20_000, Load: 4 * time.Second, Seed: s.seed})
	if err != nil {
		return false, err
	}
	line(fmt.Sprintf("the whole edge, %d kills: corrupt bodies of %d and %d", r.Kills, r.Answers, r.Expected), fmt.Sprint(r.Corrupt), "0", r.Corrupt == 0)
	share = 100 * (1 - float64(r.Lost)/float64(max(r.Expected, 1)))
	line("hits, of what was stored > 1 s before the kill", fmt.Sprintf("%.4f %% of %d", share, r.Expected), fmt.Sprintf(">= %.1f %%", goalFound), share >= goalFound && r.Expected > 0)
	line("slowest start of the edge, from exec to a connection", r.Ready.Round(time.Millisecond).String(), "<= "+goalReady.String(), r.Ready <= goalReady)
	if s.peers {
		err = peers(ctx, s, out)
	}
	return ok, err
}

// peerRounds are the kills of each peer, of which the first is no news.
const peerRounds = 6

// peers kills other caches in the same way, for comparison.
func peers(ctx context.Context, s settings, out io.Writer) error {
	programs := map[string]string{}
	for _, p := range warm.Peers() {
		programs[p.Program] = p.Package
	}
	if s.install {
		if err := proc.Install(ctx, programs, out); err != nil {
			return err
		}
	}
	for _, p := range warm.Peers() {
		if _, err := exec.LookPath(p.Program); err != nil {
			fmt.Fprintf(out, "peer %s is left out: no %s here; run with -install, or: apt-get install %s\n", p.Name, p.Program, p.Package)
			continue
		}
		dir, err := os.MkdirTemp(s.dir, p.Name+"-")
		if err != nil {
			return err
		}
		r, err := warm.Run(ctx, warm.Config{Server: p.Server, Dir: dir, Rounds: peerRounds, Objects: 20_000, Load: 4 * time.Second, Seed: s.seed})
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		fmt.Fprintf(out, "peer %s, %d kills: %d corrupt bodies of %d; hits of what was answered > 1 s before the kill: %.4f %% of %d; slowest start %s\n", p.Name,
			r.Kills, r.Corrupt, r.Answers+r.Expected, 100*(1-float64(r.Lost)/float64(max(r.Expected, 1))), r.Expected, r.Ready.Round(time.Millisecond))
	}
	return nil
}
