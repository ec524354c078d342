package flood

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// asks is a Challenger that remembers whom it asked.
type asks struct {
	asked  int
	passed bool
}

func (a *asks) Passed(x *stage.Exchange) bool { return a.passed || x.Visitor.Exempt() }

func (a *asks) Challenge(x *stage.Exchange, _ int) *message.Response {
	if x.In.Method != message.GET || x.Visitor.Exempt() {
		return nil
	}
	a.asked++
	x.Response.Reset()
	x.Response.Status = 429
	return &x.Response
}

func TestNobodyIsChallengedWhereThePolicyLeavesThatOut(t *testing.T) {
	spec := short()
	spec.Steps = []string{"stale", "limit"}
	b := attacked(t, spec)
	var x stage.Exchange
	var in message.Request
	for range 20 {
		b.request(&x, &in, rand.New(rand.NewPCG(3, 4)), true)
		_, _ = b.Serve(context.Background(), &x, missing{b})
	}
	if b.asks.asked != 0 || b.Status("")[0].Step != "limit" {
		t.Errorf("%d were asked, in step %s", b.asks.asked, b.Status("")[0].Step)
	}
}

func TestSuspectsAreChallengedBelowTheCacheAndOnlyThey(t *testing.T) {
	spec := short()
	spec.Steps = []string{"stale", "challenge"}
	b := attacked(t, spec)
	a := &b.asks
	chain := stage.Chain(well{}, b.Stage, b.Gate())
	var x stage.Exchange
	var in message.Request
	rng := rand.New(rand.NewPCG(3, 4))
	send := func(bot bool, class stage.Class) int {
		b.request(&x, &in, rng, bot)
		x.Visitor = stage.Visitor{Class: class, Key: 5}
		resp, err := chain.Serve(context.Background(), &x)
		if err != nil {
			t.Fatal(err)
		}
		return resp.Status
	}
	a.asked = 0
	if send(true, stage.Anonymous) != 429 || !x.Measures.Suspect || a.asked != 1 {
		t.Errorf("a bot was not asked: %+v", x.Measures)
	}
	if send(true, stage.Protected) != 200 || a.asked != 1 {
		t.Error("a visitor with a basket was asked")
	}
	for range 100 {
		if send(false, stage.Anonymous) != 200 {
			t.Fatal("a visitor was asked")
		}
	}
	a.passed = true
	if send(true, stage.Anonymous) != 200 {
		t.Error("who passed was asked again")
	}
	harmed := b.Status("")[0].Measures[Challenge-Stale]
	if harmed.Harmed != 0 {
		t.Errorf("%+v", harmed)
	}
}
