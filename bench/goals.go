package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// goal is what the product must reach in a case: CPU per request of the peer
// divided by CPU per request of the product, the median over the rounds. A
// round's two visits are neighbours in time, so that what the machine does
// besides meets both.
type goal struct {
	test  string // a benchCase
	peer  string // a row of it
	ratio float64
	// kib, when not 0, is instead the most memory of an idle connection in the row peer.
	kib float64
}

// name is how the line of a goal begins.
func (g goal) name() string { return "bench-" + g.test + "/" + strings.ReplaceAll(g.peer, " ", "-") }

func goals() []goal {
	return []goal{
		{"hit1k", baseline, 1.5, 0},
		{"hit1k", "haproxy cache", 1.1, 0},
		{"hit1k", "varnish", 2.8, 0},
		{"hit1k", cacheBaseline, 1.67, 0}, // 0.6 of its CPU
		{"hit64k", cacheBaseline, 1.43, 0},
		{"disk1k", cacheBaseline, 1.0, 0},
		{"disk64k", cacheBaseline, 1.0, 0},
		{"proxy1k", baseline, 1.1, 0},
		{"proxy1k", "haproxy", 1.1, 0},
		{"proxy64k", baseline, 1.0, 0},
		{"proxy64k", "haproxy", 1.2, 0},
		{"tls1k", baseline, 1.15, 0},
		{"h2hit1k", baseline, 3.5, 0},
		{"h2hit1k", "haproxy cache", 1.3, 0},
		{"h2hit1k", "relais std", 12, 0},
		{"handshake", baseline, 1.0, 0},
		{"h3hit1k", "caddy respond", 1.9, 0},
		{"idle", product, 0, 4},
		{"idle", "relais TLS", 0, 24},
	}
}

// ratioTo is the median over the rounds of the peer's CPU per request divided by r's, and 0 without a round of both.
func (r rowResult) ratioTo(peer rowResult) float64 {
	var ratios []float64
	for i := range min(len(r.Samples), len(peer.Samples)) {
		if ours := r.Samples[i].CPUMicros; ours > 0 {
			ratios = append(ratios, peer.Samples[i].CPUMicros/ours)
		}
	}
	return middle(ratios)
}

// check prints one line for each goal whose case was run and tells whether one
// is short. A goal is short also when its figures are missing, but not when the
// user chose rows without the product.
func check(out io.Writer, results map[string]*caseResult, wanted func(row string) bool) (short bool) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, g := range goals() {
		r := results[g.test]
		if r == nil {
			continue
		}
		if !wanted(product) || !wanted(g.peer) {
			fmt.Fprintf(t, "%s\tnot measured\tgoal %.2f\tpeer %s\tleft out by -only\n", g.name(), g.ratio, g.peer)
			continue
		}
		ours, peer := r.row(product), r.row(g.peer)
		if ours.Void != "" || peer.Void != "" {
			fmt.Fprintf(t, "%s\tnot measured\tgoal %.2f\tpeer %s\tshort\n", g.name(), g.ratio, g.peer)
			short = true
			continue
		}
		if g.kib > 0 {
			word := "ok"
			if peer.Median.ConnKiB > g.kib {
				word, short = "short", true
			}
			fmt.Fprintf(t, "%s\tmeasured %.1f KiB\tgoal %.0f\trow %s\t%s\n", g.name(), peer.Median.ConnKiB, g.kib, g.peer, word)
			continue
		}
		ratio := ours.ratioTo(peer)
		word := "ok"
		if ratio < g.ratio {
			word, short = "short", true
		}
		fmt.Fprintf(t, "%s\tmeasured %.2f\tgoal %.2f\tpeer %s %.1fus vs %.1fus\t%s\n",
			g.name(), ratio, g.ratio, g.peer, peer.Median.CPUMicros, ours.Median.CPUMicros, word)
	}
	_ = t.Flush()
	return short
}
