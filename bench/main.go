// Command bench loads Relais beside nginx, HAProxy, Varnish, Caddy and the
// standard library's reverse proxy, one after the other in turns, and compares
// the CPU time that each spends on a request.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/relais-edge/relais/test/proc"
)

const usage = `Usage: go run ./bench [run] [flags]
       go run ./bench install          install the peers that are missing, and build Caddy

Measures the CPU time per request of Relais and its peers, side by side, and
ends with one line a goal. Exits 1 when a goal is short. Writes bench/results/
when every row was measured in at least 5 rounds, bench/.work/partial/ otherwise.

Examples:
  go run ./bench                                  every case
  go run ./bench -case hit1k                      one case
  go run ./bench -case proxy1k -only nginx,relais -rounds 3 -dur 2
  go run ./bench -install -relais /tmp/relais     install what is missing first, measure another binary
  go run ./bench -json -                          every sample as JSON on stdout

Flags:
`

var errShort = errors.New("a goal is short")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	stop()
	os.Exit(1)
}

// settings are the flags of a run.
type settings struct {
	cases, only                  []string
	rounds, seconds, conns, site int
	relais, json, out            string
	install, installOnly         bool
}

func parse(args []string) (settings, error) {
	var s settings
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "run":
		case "install":
			s.install, s.installOnly = true, true
		default:
			return s, fmt.Errorf("no command %q; see -help", args[0])
		}
		args = args[1:]
	}
	var names, only string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprint(f.Output(), usage)
		f.PrintDefaults()
	}
	f.StringVar(&names, "case", "", "comma separated cases: hit1k, hit64k, disk1k, disk64k, proxy1k, proxy64k, tls1k, h2hit1k, handshake, h3hit1k, idle; empty runs all")
	f.StringVar(&only, "only", "", "comma separated rows, as the table names them; empty measures all")
	f.IntVar(&s.rounds, "rounds", 5, "how often each row is visited")
	f.IntVar(&s.seconds, "dur", 3, "seconds of one visit")
	f.IntVar(&s.conns, "conns", 64, "connections of the load generator")
	f.IntVar(&s.site, "sites", 10000, "sites that relais is loaded with")
	f.StringVar(&s.relais, "relais", "bin/relais", "the binary of relais")
	f.StringVar(&s.json, "json", "", "also write every sample to this file, - for stdout")
	f.StringVar(&s.out, "out", "bench/results", "directory of bench.md and bench.json")
	f.BoolVar(&s.install, "install", s.install, "install the peers that are missing first")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if f.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q; see -help", f.Arg(0))
	}
	if s.rounds < 1 || s.seconds < 1 || s.conns < 1 || s.site < 1 {
		return s, errors.New("-rounds, -dur, -conns and -sites must be at least 1")
	}
	if names != "" {
		s.cases = strings.Split(names, ",")
	}
	if only != "" {
		s.only = strings.Split(only, ",")
	}
	return s, nil
}

// wanted tells whether a row is to be measured.
func (s settings) wanted(row string) bool {
	return len(s.only) == 0 || slices.Contains(s.only, row)
}

// choose gives the cases that are asked for and refuses names that mean nothing.
func (s settings) choose() ([]benchCase, error) {
	var chosen []benchCase
	var caseNames, rowNames []string
	for _, c := range cases() {
		caseNames = append(caseNames, c.name)
		for _, r := range c.rows {
			rowNames = append(rowNames, r.name)
		}
		if len(s.cases) == 0 || slices.Contains(s.cases, c.name) {
			chosen = append(chosen, c)
		}
	}
	for _, name := range s.cases {
		if !slices.Contains(caseNames, name) {
			return nil, fmt.Errorf("-case: no case %q; there are %s", name, strings.Join(caseNames, ", "))
		}
	}
	slices.Sort(rowNames)
	for _, name := range s.only {
		if !slices.Contains(rowNames, name) {
			return nil, fmt.Errorf("-only: no row %q; there are %s", name, strings.Join(slices.Compact(rowNames), ", "))
		}
	}
	return chosen, nil
}

func run(ctx context.Context, args []string) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	chosen, err := s.choose()
	if err != nil {
		return err
	}
	root, err := repoRoot()
	if err != nil {
		return err
	}
	if s.install {
		if err := install(ctx, root, os.Stderr); err != nil || s.installOnly {
			return err
		}
	}
	if runtime.NumCPU() <= max(serverCore, loadCore) {
		return fmt.Errorf("needs cores %d (server) and %d (load); this machine has %d", serverCore, loadCore, runtime.NumCPU())
	}
	if _, err := exec.LookPath("wrk"); err != nil {
		return errors.New("the load generator wrk is not installed; install it with: go run ./bench install")
	}
	release, err := alone(root)
	if err != nil {
		return err
	}
	defer release()
	if err := build(ctx, root); err != nil {
		return err
	}
	measured, err := s.measure(ctx, root, chosen)
	if err != nil {
		return err
	}
	if err := s.write(root, measured); err != nil {
		return err
	}
	if check(os.Stdout, measured.Cases, s.wanted) {
		return errShort
	}
	return nil
}

// measure starts everything, runs the cases and stops everything.
func (s settings) measure(ctx context.Context, root string, chosen []benchCase) (*results, error) {
	sink, err := newSyslogSink()
	if err != nil {
		return nil, err
	}
	defer sink.close()
	relais := s.relais
	if !filepath.IsAbs(relais) {
		relais = filepath.Join(root, relais)
	}
	place, err := newSite(root, relais, sink.addr(), s.site)
	if err != nil {
		return nil, err
	}
	defer place.dropLogs()
	if err := proc.PinSelf(loadCore); err != nil {
		return nil, err
	}
	b := &bench{site: place, sink: sink, client: client(), conns: s.conns, rounds: s.rounds, seconds: s.seconds, out: os.Stderr}
	stop, err := b.startAll(ctx, sink, serversOf(chosen, s.wanted))
	defer stop()
	if err != nil {
		return nil, err
	}
	r := &results{Machine: thisMachine(), Versions: map[string]string{}, Cases: map[string]*caseResult{}}
	for name, v := range b.running {
		if text := v.versionOf(ctx); text != "" && b.missing[name] == nil {
			r.Versions[v.name] = text
		}
	}
	for _, c := range chosen {
		if r.Cases[c.name], err = b.measure(ctx, c, rowsOf(c, s.wanted)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// write prints the tables and saves them.
func (s settings) write(root string, r *results) error {
	dir := s.out
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(root, dir)
	}
	if s.partial(r) {
		dir = filepath.Join(root, "bench", ".work", "partial")
	}
	if err := r.save(dir); err != nil {
		return err
	}
	if s.json != "" {
		if err := writeJSON(s.json, r); err != nil {
			return err
		}
	}
	if s.json != "-" {
		fmt.Println(r.markdown())
		fmt.Println("written to", filepath.Join(dir, "bench.md"))
	}
	return nil
}

// partial tells that a run is not fit to be kept as the result.
func (s settings) partial(r *results) bool {
	if len(s.only) > 0 || s.rounds < 5 {
		return true
	}
	for _, c := range r.Cases {
		for _, row := range c.Rows {
			if row.Void != "" {
				return true
			}
		}
	}
	return false
}
