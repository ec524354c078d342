package flood

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// A provider that was down sends what it has all at once: its callbacks share a key and an address.
func TestManyCallbacksOfOneProviderAreLetThroughInAFlood(t *testing.T) {
	b := attacked(t, short())
	if st := b.Status("")[0]; st.Step != "drop" {
		t.Fatalf("%+v", st)
	}
	var x stage.Exchange
	var in message.Request
	rng := rand.New(rand.NewPCG(3, 4))
	send := func(v stage.Visitor) error {
		b.request(&x, &in, rng, true)
		x.Visitor = v
		_, err := b.Serve(context.Background(), &x, missing{b})
		return err
	}
	pay := stage.Visitor{Class: stage.Protected, Key: 9, Step: stage.StepOrder, Reached: stage.StepOrder, Confirmed: true, Callback: true}
	for i := range callbackBurst {
		if err := send(pay); err != nil {
			t.Fatalf("callback %d: %v", i, err)
		}
	}
	if send(pay) == nil {
		t.Error("callbacks have no bound at all")
	}
	other := pay
	if other.Key = 10; send(other) != nil {
		t.Error("another provider pays for it")
	}
	// The same without the proof is a visitor with a basket at best.
	for range ceilingBurst {
		_ = send(stage.Visitor{Class: stage.Protected, Key: 11, Step: stage.StepOrder})
	}
	if send(stage.Visitor{Class: stage.Protected, Key: 11, Step: stage.StepOrder}) == nil {
		t.Error("what is no callback has the bound of one")
	}
}

// Nobody becomes of another class for the detector by the path that he asks for.
func TestAPathMakesNoStanding(t *testing.T) {
	seen := map[uint8]stage.Visitor{}
	for class := stage.Anonymous; class <= stage.Protected; class++ {
		for step := stage.StepBrowse; step <= stage.StepOrder; step++ {
			x := &stage.Exchange{In: &message.Request{}, Visitor: stage.Visitor{Class: class, Step: step}}
			c := standingCell(x, true, true)
			if other, taken := seen[c]; taken || int(c) >= cells {
				t.Errorf("%s at %s has the cell %d of %s at %s", class, step, c, other.Class, other.Step)
			}
			seen[c] = x.Visitor
		}
	}
}
