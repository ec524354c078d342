package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// goal is what the product must reach in a case: CPU per request of the peer
// divided by CPU per request of the product.
type goal struct {
	name  string
	test  string // a benchCase
	peer  string // a row of it
	ratio float64
	// kib, when not 0, is instead the most memory of an idle connection in the row peer.
	kib float64
}

func goals() []goal {
	return []goal{
		{"bench-hit1k", "hit1k", baseline, 1.4, 0},
		{"bench-proxy1k", "proxy1k", baseline, 1.0, 0},
		{"bench-proxy64k", "proxy64k", baseline, 1.0, 0},
		{"bench-tls1k", "tls1k", baseline, 1.1, 0},
		{"bench-h2hit1k", "h2hit1k", baseline, 3.5, 0},
		{"bench-handshake", "handshake", baseline, 1.0, 0},
		{"bench-h3hit1k", "h3hit1k", "caddy respond", 1.9, 0},
		{"bench-idle", "idle", product, 0, 4},
		{"bench-idle-tls", "idle", "relais TLS", 0, 24},
	}
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
			fmt.Fprintf(t, "%s\tnot measured\tgoal %.2f\tpeer %s\tleft out by -only\n", g.name, g.ratio, g.peer)
			continue
		}
		ours, peer := r.row(product), r.row(g.peer)
		if ours.Void != "" || peer.Void != "" {
			fmt.Fprintf(t, "%s\tnot measured\tgoal %.2f\tpeer %s\tshort\n", g.name, g.ratio, g.peer)
			short = true
			continue
		}
		if g.kib > 0 {
			word := "ok"
			if peer.Median.ConnKiB > g.kib {
				word, short = "short", true
			}
			fmt.Fprintf(t, "%s\tmeasured %.1f KiB\tgoal %.0f\trow %s\t%s\n", g.name, peer.Median.ConnKiB, g.kib, g.peer, word)
			continue
		}
		ratio := peer.Median.CPUMicros / ours.Median.CPUMicros
		word := "ok"
		if ratio < g.ratio {
			word, short = "short", true
		}
		fmt.Fprintf(t, "%s\tmeasured %.2f\tgoal %.2f\tpeer %s %.1fus vs %.1fus\t%s\n",
			g.name, ratio, g.ratio, g.peer, peer.Median.CPUMicros, ours.Median.CPUMicros, word)
	}
	_ = t.Flush()
	return short
}
