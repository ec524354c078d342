// Command usage kills, with SIGKILL and at random moments, a process that counts use and keeps it in the spool, and the
// control plane that takes it in, again and again. In the end all that is left is delivered, and each count that was
// acknowledged must have been counted once. It prints one line a number, and ends with 1 when a goal is missed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

type settings struct {
	dir    string
	rounds int
	seed   uint64
	most   time.Duration // that both live at most between two kills
}

func main() {
	if child() {
		return
	}
	var s settings
	flag.StringVar(&s.dir, "dir", "", "where the files are (an empty directory; a temporary one by default)")
	flag.IntVar(&s.rounds, "rounds", 100, "rounds, each with a kill of the PoP, of the control plane, or of both")
	flag.DurationVar(&s.most, "most", 700*time.Millisecond, "longest time between two kills")
	flag.Uint64Var(&s.seed, "seed", 1, "of the moments")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := run(ctx, s, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "crash usage:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings, out io.Writer) (ok bool, err error) {
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "crash-usage-"); err != nil {
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
	if err := d.drain(ctx); err != nil {
		return false, fmt.Errorf("the rest: %w", err)
	}
	r, err := d.judge(ctx)
	if err != nil {
		return false, err
	}
	fmt.Fprintf(out, "%d kills of the PoP, %d of the control plane; %d appends begun, %d acknowledged, %d batches sent, %d of them for the first time\n",
		d.popKills, d.planeKills, len(d.begun), r.acked, d.sent, d.first)
	ok = true
	line := func(what, measured, goal string, good bool) {
		word := "ok"
		if !good {
			word, ok = "short", false
		}
		fmt.Fprintf(out, "%-62s %-24s %-12s %s\n", what, measured, goal, word)
	}
	line("acknowledged counts that are missing", fmt.Sprint(r.lost), "0", r.lost == 0 && r.acked > 0)
	line("counts that are there twice, or are others", fmt.Sprint(r.wrong), "0", r.wrong == 0)
	line("counts that nobody made", fmt.Sprint(r.invented), "0", r.invented == 0)
	line("gaps in what was delivered", fmt.Sprint(r.gaps), "0", r.gaps == 0)
	line("receipts that verify, of what they are to say", fmt.Sprintf("%d of %d", r.receipted, r.counted), "all", r.receipted == r.counted && r.receipts > 0)
	line("kept back at the end, not delivered", fmt.Sprint(r.left), "0", r.left == 0)
	return ok, nil
}
