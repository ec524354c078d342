// Command conformance holds Relais, or a peer, against suites of protocol
// cases and compares the outcome with a record that may only improve.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

const usage = `Usage: go run ./test/conformance [flags]
       go run ./test/conformance smug [flags]    the ambiguous-HTTP battery against a proxy that already runs

Starts the subject as a plain reverse proxy in front of a recording origin, runs
the suites (smug, h2spec-h2c, h2spec-tls, caching, caching-2-tiers, and testssl when it is named) and prints a table. For relais it
compares each case with test/conformance/scores.txt and exits 1 when one is worse.

Examples:
  go run ./test/conformance                              all suites on bin/relais
  go run ./test/conformance -suite smug -v               one suite, with every case that is not passed
  go run ./test/conformance -update                      record what is better or new
  go run ./test/conformance -subject haproxy             a peer, to see that the tool is right
  go run ./test/conformance smug -http1 127.0.0.1:8080 -http2 127.0.0.1:8080 -origin 127.0.0.1:9000

Flags:
`

var (
	errWorse  = errors.New("a case is worse than recorded")
	errBroken = errors.New("at least one case is not passed")
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	args := os.Args[1:]
	var err error
	if len(args) > 0 && args[0] == "smug" {
		err = runBattery(ctx, args[1:], os.Stdout)
	} else {
		err = run(ctx, args, os.Stdout)
	}
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		stop()
		os.Exit(1)
	}
}

// settings are the flags of a run.
type settings struct {
	subject, relais, doc, scores, json string
	suites                             []string
	lanes                              int
	update, verbose                    bool
}

func parse(args []string) (settings, error) {
	var s settings
	var names string
	f := flag.NewFlagSet("conformance", flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprint(f.Output(), usage)
		f.PrintDefaults()
	}
	f.StringVar(&s.subject, "subject", "relais", "relais, nginx, haproxy or caddy")
	f.StringVar(&s.relais, "relais", "bin/relais", "the binary of relais")
	f.StringVar(&s.doc, "doc", "examples/proxy.yaml", "the document that relais serves; it takes LISTEN, LISTEN_TLS and ORIGIN")
	f.StringVar(&s.scores, "scores", "test/conformance/scores.txt", "the record")
	f.StringVar(&names, "suite", "", "comma separated suites; empty runs all")
	f.StringVar(&s.json, "json", "", "write every outcome to this file, - for stdout")
	f.IntVar(&s.lanes, "lanes", 4, "copies of the subject that the battery runs on side by side")
	f.BoolVar(&s.update, "update", false, "write what is better or new to the record")
	f.BoolVar(&s.verbose, "v", false, "print every case that is not passed")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if f.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q; see -help", f.Arg(0))
	}
	if s.lanes < 1 || s.lanes > 32 {
		return s, fmt.Errorf("-lanes %d: want 1 to 32", s.lanes)
	}
	if names != "" {
		s.suites = strings.Split(names, ",")
	}
	return s, nil
}

func run(ctx context.Context, args []string, out io.Writer) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	root, err := repoRoot()
	if err != nil {
		return err
	}
	all := suites(root, fromRoot(root, s.relais))
	if len(s.suites) > 0 {
		all = append(all, named(fromRoot(root, s.relais))...)
	}
	chosen, err := pick(all, s.suites)
	if err != nil {
		return err
	}
	var recorded Scores
	if s.subject == "relais" {
		if recorded, err = loadScores(fromRoot(root, s.scores)); err != nil {
			return err
		}
	}
	work, err := os.MkdirTemp("", "relais-conformance-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	subject, stop, err := start(ctx, startConfig{
		kind: s.subject, copies: s.lanes, work: work, root: root,
		relais: fromRoot(root, s.relais), doc: fromRoot(root, s.doc),
	})
	defer stop()
	if err != nil {
		return err
	}
	runs, err := runSuites(ctx, chosen, subject, recorded)
	if err != nil {
		return err
	}
	return report(out, s, root, runs, recorded)
}

func fromRoot(root, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(root, path)
}

// runSuites runs each suite once, and the cases that got worse once more, so
// that a slow moment of the machine does not look like a fault.
func runSuites(ctx context.Context, chosen []Suite, subject *Subject, recorded Scores) ([]suiteRun, error) {
	var runs []suiteRun
	for _, suite := range chosen {
		outcomes, err := suite.Run(ctx, subject, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", suite.Name(), err)
		}
		r := suiteRun{Suite: suite.Name(), Outcomes: outcomes}
		var again []string
		for _, ch := range compare(recorded[r.Suite], outcomes).Worse {
			if ch.Now != "" {
				again = append(again, ch.Case)
			}
		}
		if len(again) > 0 {
			second, err := suite.Run(ctx, subject, again)
			if err != nil {
				return nil, fmt.Errorf("%s, second run: %w", suite.Name(), err)
			}
			r.takeBetter(second)
		}
		runs = append(runs, r)
	}
	return runs, nil
}

// takeBetter puts the outcomes of a second run in place of worse ones.
func (r *suiteRun) takeBetter(second []Outcome) {
	for _, o := range second {
		for i, first := range r.Outcomes {
			if first.Case == o.Case && o.Verdict.badness() < first.Verdict.badness() {
				r.Outcomes[i] = o
				r.Unsteady = append(r.Unsteady, o.Case)
			}
		}
	}
}

func report(out io.Writer, s settings, root string, runs []suiteRun, recorded Scores) error {
	worse := 0
	changed := false
	for _, r := range runs {
		if s.verbose {
			writeOpen(out, r)
		}
		for _, name := range r.Unsteady {
			fmt.Fprintf(out, "unsteady %s %s: worse than recorded at first, not when it ran again\n", r.Suite, name)
		}
		if recorded == nil {
			continue
		}
		c := compare(recorded[r.Suite], r.Outcomes)
		writeChanges(out, r.Suite, c, r.Outcomes)
		worse += len(c.Worse)
		changed = changed || len(c.Better)+len(c.New) > 0
	}
	writeTable(out, s.subject, runs, recorded)
	if err := writeJSON(out, s.json, runs); err != nil {
		return err
	}
	if recorded == nil {
		return nil // a peer: no record to keep
	}
	if s.update && changed {
		for _, r := range runs {
			recorded.improve(r.Suite, compare(recorded[r.Suite], r.Outcomes))
		}
		path := fromRoot(root, s.scores)
		if err := os.WriteFile(path, []byte(recorded.text()), 0o644); err != nil {
			return err
		}
		fmt.Fprintln(out, "recorded in", s.scores)
	} else if changed {
		fmt.Fprintln(out, "record what is better or new with -update")
	}
	if worse > 0 {
		return fmt.Errorf("%d: %w", worse, errWorse)
	}
	return nil
}

func writeJSON(out io.Writer, path string, v any) error {
	if path == "" {
		return nil
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if path == "-" {
		_, err = out.Write(b)
		return err
	}
	return os.WriteFile(path, b, 0o644)
}
