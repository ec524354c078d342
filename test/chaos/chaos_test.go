package main

import (
	"context"
	"os"
	"testing"
	"time"
)

// TestNoOrderIsLostInChaos is the drill's short form, without the peers.
func TestNoOrderIsLostInChaos(t *testing.T) {
	const program = "../../bin/relais"
	if _, err := os.Stat(program); err != nil {
		t.Fatal("build it first: make build")
	}
	list := faults()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	s := settings{on: 1500 * time.Millisecond, calm: 1500 * time.Millisecond, rate: 5}
	o, err := shopThrough(ctx, s, contenders(program)[0], list)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range list {
		if c := o.seen[i+1]; c != nil {
			t.Logf("%s: %d of %d pages failed", f.name, c.failed, c.pages)
		}
	}
	// Each request of a buyer's three may meet a cut that no edge can hide. Told of it, the buyer comes again later:
	// that is no order that anybody believes in and nobody has.
	if !o.verdict.OK() || len(o.verdict.Failed) > 2 {
		t.Errorf("%s; failed: %+v", o.verdict, o.verdict.Failed)
	}
	if o.orders < 20 {
		t.Errorf("only %d orders: the test proves little", o.orders)
	}
}
