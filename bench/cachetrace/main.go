// Command cachetrace runs made-up request traces through our cache policy and index, and
// through LRU, S3-FIFO and W-TinyLFU, in caches of the same bytes, and compares hits by object and
// by byte. It exits 1 when ours is short of the goal on the trace that has one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/relais-edge/relais/internal/edge/cache/store/admission"
)

const usage = `Usage: go run ./bench/cachetrace [flags]

Hits by object and by byte of four policies on made-up traces: a catalogue with
Zipf popularity, objects asked for once, crawlers that scan, sizes of 512 B to
4 MB. The first quarter of a trace is warm-up. Everybody has the same bytes, and
nobody's overhead is counted. The figures are the same in every run.

Examples:
  go run ./bench/cachetrace                     every trace, all policies (a minute)
  go run ./bench/cachetrace -only goal          the trace that has a goal
  go run ./bench/cachetrace -live bin/relais    whole servers beside Varnish (minutes)
  go run ./bench/cachetrace -rewrite 0.5 -peers=false   as a disk would, ours alone

Flags:
`

// Goals on the trace "goal" in 5 % of its footprint, both at once.
const (
	goalObjects = 0.565
	goalBytes   = 0.583
)

var errShort = errors.New("hits are short of the goal")

// shapes are the traces: the one that has a goal, and others, so that the policy does not fit
// one only.
var shapes = []shape{
	{name: "goal", zipf: 0.9, oneHit: 0.2, scans: 4e-6},
	{name: "plain", zipf: 0.9},
	{name: "flat", zipf: 0.7, oneHit: 0.2, scans: 4e-6},
	{name: "steep", zipf: 1.1, oneHit: 0.3, scans: 4e-6},
	{name: "shift", zipf: 0.9, oneHit: 0.2, scans: 4e-6, shift: 7500},
	{name: "pages", zipf: 0.9, oneHit: 0.2, scans: 4e-6, pages: true},
}

type settings struct {
	only              string
	share             float64
	requests, catalog int
	peers             bool
	policy            admission.Config
}

func main() {
	s := settings{}
	f := flag.NewFlagSet("cachetrace", flag.ExitOnError)
	f.Usage = func() {
		fmt.Fprint(f.Output(), usage)
		f.PrintDefaults()
	}
	f.StringVar(&s.only, "only", "", "comma separated traces: "+names()+"; empty is all")
	f.Float64Var(&s.share, "cache", 0.05, "size of the caches, as a share of the trace's footprint")
	f.IntVar(&s.requests, "requests", 1_500_000, "requests of a trace")
	f.IntVar(&s.catalog, "catalog", 200_000, "objects of the catalogue")
	f.BoolVar(&s.peers, "peers", true, "the other policies too")
	f.Float64Var(&s.policy.Rewrite, "rewrite", 0, "share of objects at the log's tail that are written again; 0 is the default")
	f.Float64Var(&s.policy.SizeExponent, "exponent", 0, "power of the size that divides the frequency; 0 is the default")
	f.IntVar(&s.policy.Counters, "counters", 0, "4-bit counters an object; 0 is the default")
	f.Float64Var(&s.policy.Window, "window", 0, "requests a counter until all are halved; 0 is the default")
	program := f.String("live", "", "path of bin/relais: instead, send the trace to it and to Varnish, and compare what they fetch")
	_ = f.Parse(os.Args[1:]) // ExitOnError
	var err error
	if *program != "" {
		err = live(context.Background(), *program, s, os.Stdout)
	} else {
		err = run(s, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cachetrace:", err)
		os.Exit(1)
	}
}

func names() string {
	var out []string
	for _, s := range shapes {
		out = append(out, s.name)
	}
	return strings.Join(out, ", ")
}

// run prints a table, and fails when the goal is missed.
func run(s settings, w io.Writer) error {
	if s.requests < 1000 || s.catalog < 1000 || !(s.share > 0 && s.share <= 1) {
		return fmt.Errorf("want at least 1000 requests, a catalogue of at least 1000, and a cache of more than 0 and at most 1 of the footprint")
	}
	fmt.Fprintf(w, "%-6s %-12s %7s %7s  %s\n", "trace", "policy", "objects", "bytes", "")
	short, found := false, false
	for _, sh := range shapes {
		if s.only != "" && !strings.Contains(","+s.only+",", ","+sh.name+",") {
			continue
		}
		found = true
		sh.requests, sh.catalog = s.requests, s.catalog
		ours, err := compare(sh, s, w)
		if err != nil {
			return err
		}
		short = short || sh.name == "goal" && (ours.objects < goalObjects || ours.bytes < goalBytes)
	}
	if !found {
		return fmt.Errorf("no trace %q; there are %s", s.only, names())
	}
	if short {
		return errShort
	}
	return nil
}

// compare runs one trace through all policies.
func compare(sh shape, s settings, w io.Writer) (ratios, error) {
	t := generate(sh)
	capacity := int64(float64(t.footprint) * s.share)
	fmt.Fprintf(w, "%-6s %d requests, %d objects, %.1f GB; cache %.0f MB\n", sh.name, len(t.requests), t.unique,
		float64(t.footprint)/1e9, float64(capacity)/1e6)
	line := func(name string, r ratios, more string) {
		fmt.Fprintf(w, "%-6s %-12s %7.4f %7.4f  %s\n", sh.name, name, r.objects, r.bytes, more)
	}
	if s.peers {
		line("LRU", measure(newLRU(capacity), t.requests), "")
		line("S3-FIFO", measure(newS3FIFO(capacity), t.requests), "")
		line("W-TinyLFU", measure(newTinyLFU(capacity), t.requests), "")
	}
	log, err := newRelais(capacity, t.footprint/int64(t.unique), s.policy)
	if err != nil {
		return ratios{}, err
	}
	r := measure(log, t.requests)
	stats, n := log.policy.Stats(), float64(log.index.Len())
	goal := ""
	if sh.name == "goal" {
		goal = fmt.Sprintf("; goal %.3f %.3f", goalObjects, goalBytes)
	}
	line("Relais", r, fmt.Sprintf("%.0f objects, %.2f written again a byte written, sketch %.1f B an object, %d without a place in the index%s",
		n, float64(log.rewritten)/float64(max(1, log.written)), float64(stats.Bytes)/max(1, n), log.failed, goal))
	return r, log.close()
}

// ratios are hits by request, and by byte that was asked for.
type ratios struct{ objects, bytes float64 }

// measure runs a trace through a policy; what comes after the first quarter counts.
func measure(p policy, requests []request) ratios {
	var hits, asked, hitBytes, bytes float64
	for i, r := range requests {
		hit := p.request(r)
		if i < len(requests)/4 {
			continue
		}
		asked++
		bytes += float64(r.size)
		if hit {
			hits++
			hitBytes += float64(r.size)
		}
	}
	return ratios{hits / asked, hitBytes / bytes}
}
