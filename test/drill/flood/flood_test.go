package main

import (
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/relais-edge/relais/demo/visitors"
)

// TestAShortFloodLosesNothing plays the drill small and short, to judge what no machine may change: what was confirmed
// is in the ledger, once, and nobody with a basket is refused.
func TestAShortFloodLosesNothing(t *testing.T) {
	program, err := filepath.Abs("../../../bin/relais")
	if err != nil {
		t.Fatal(err)
	}
	if err := raiseFiles(); err != nil {
		t.Fatal(err)
	}
	s := settings{
		relais: program, slots: 24, service: 50 * time.Millisecond, base: 3, calm: 24 * time.Second, length: 16 * time.Second,
		factor: 8, bots: 800, only: "none",
	}
	for _, shape := range []visitors.Shape{visitors.Swarm, visitors.Farm} {
		t.Run(string(shape), func(t *testing.T) {
			r, err := play(t.Context(), s, contenders(s, io.Discard)[0], scenario{seed: 1, shape: shape, rate: visitors.Constant(s.base)})
			if err != nil {
				t.Fatal(err)
			}
			t.Log(tableHead + "\n" + r.row(r))
			if r.lost != 0 || r.refused != 0 {
				t.Errorf("%d orders lost, %d requests of visitors with a basket refused", r.lost, r.refused)
			}
			if r.orders == 0 || r.sent < 100 {
				t.Errorf("%d orders, %d requests of the flood: nothing was played", r.orders, r.sent)
			}
		})
	}
}
