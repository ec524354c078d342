// Command waf measures the firewall: what a request costs in the edge's own stage beside Coraza alone, what hostile
// traffic and ten thousand overlays cost, how it does over the wire beside nginx with ModSecurity, and whether its
// verdicts are stock Coraza's.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
)

const usage = `Usage: go run ./bench/waf [flags]

Measures the firewall, prints tables, and ends with one line a number: measured,
goal, peer, ok or short. Exits 1 when one is short. Parts:

  cost      harmless requests in the edge's own stage, beside Coraza alone
  share     of a shop's ordinary requests that are proved clean
  hostile   requests made to defeat memo, automaton and expressions, beside stock Coraza
  sites     ten thousand sites with distinct overlays
  wire      bin/relais beside nginx with ModSecurity, same rules, same origin
  verdicts  all requests of the rule set's tests over the wire, against stock Coraza's verdicts

Examples:
  go run -tags no_fs_access ./bench/waf -install
  go run -tags no_fs_access ./bench/waf -parts cost,hostile -rounds 20

Flags:
`

var errShort = errors.New("a number is short")

// settings are the flags of a run.
type settings struct {
	rounds, many int
	relais, out  string
	parts        []string
	install      bool
}

func parts() []string { return []string{"cost", "share", "hostile", "sites", "wire", "verdicts"} }

func workers() int { return runtime.GOMAXPROCS(0) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "bench waf:", err)
	stop()
	os.Exit(1)
}

func parse(args []string) (*settings, error) {
	s := &settings{}
	var names string
	f := flag.NewFlagSet("bench waf", flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprint(f.Output(), usage)
		f.PrintDefaults()
	}
	f.StringVar(&names, "parts", "", "comma separated parts; empty runs all")
	f.IntVar(&s.rounds, "rounds", 10, "how often each row is visited, in turns")
	f.IntVar(&s.many, "sites", 10_000, "sites with overlays of their own")
	f.StringVar(&s.relais, "relais", "bin/relais", "the binary of relais")
	f.StringVar(&s.out, "out", "bench/results/waf.md", "where the tables of a full run are written; empty writes none")
	f.BoolVar(&s.install, "install", false, "install nginx with ModSecurity first when it is missing")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q; see -help", f.Arg(0))
	}
	if s.rounds < 1 || s.many < 1 {
		return nil, errors.New("-rounds and -sites must be at least 1")
	}
	s.parts = parts()
	if names != "" {
		s.parts = strings.Split(names, ",")
		for _, p := range s.parts {
			if !slices.Contains(parts(), p) {
				return nil, fmt.Errorf("-parts: no part %q; there are %s", p, strings.Join(parts(), ", "))
			}
		}
	}
	var err error
	s.relais, err = filepath.Abs(s.relais)
	return s, err
}

func run(ctx context.Context, args []string) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	if s.install {
		if err := install(ctx, os.Stderr); err != nil {
			return err
		}
	}
	r := &report{}
	fmt.Fprintf(&r.tables, "# The firewall, measured\n\nMade by `make bench-waf` on %s: %d cores, %s, %s. How, and what to distrust: [README](../README.md).\n",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.Version(), versions())
	if err := s.measure(ctx, r, os.Stderr); err != nil {
		return err
	}
	for _, d := range r.details {
		r.note("%s", d)
	}
	fmt.Println(r.tables.String())
	var lines strings.Builder
	short := r.lines(io.MultiWriter(os.Stdout, &lines))
	if s.out != "" && len(s.parts) == len(parts()) && s.rounds >= 10 {
		r.note("```\n%s```", lines.String())
		if err := os.MkdirAll(filepath.Dir(s.out), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(s.out, []byte(r.tables.String()), 0o644); err != nil {
			return err
		}
		fmt.Println("written to", s.out)
	}
	if short {
		return errShort
	}
	return nil
}

// measure runs the parts. One that fails is a number that is short, and the others go on.
func (s *settings) measure(ctx context.Context, r *report, out io.Writer) error {
	for _, name := range s.parts {
		var err error
		switch name {
		case "cost":
			err = s.cost(ctx, r, out)
		case "share":
			err = s.share(r, out)
		case "hostile":
			err = s.against(ctx, r, out)
		case "sites":
			err = s.sites(ctx, r, out)
		case "wire":
			err = s.onWire(ctx, func(w *wire) error { return s.speed(ctx, w, r, out) })
		case "verdicts":
			err = s.onWire(ctx, func(w *wire) error { return s.agreement(ctx, w, r, out) })
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			fmt.Fprintf(out, "%s: %v\n", name, err)
			r.missing(name, err)
		}
	}
	return nil
}

// onWire starts both servers, does a part and stops them.
func (s *settings) onWire(ctx context.Context, part func(w *wire) error) error {
	w, stop, err := s.newWire(ctx)
	defer stop()
	if err != nil {
		return err
	}
	return part(w)
}

// versions are those of the engine and of the rules that this program was built with.
func versions() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown rules"
	}
	var out []string
	for _, d := range info.Deps {
		if strings.HasPrefix(d.Path, "github.com/corazawaf/coraza") {
			out = append(out, strings.TrimPrefix(d.Path, "github.com/corazawaf/")+" "+d.Version)
		}
	}
	return strings.Join(out, ", ")
}
