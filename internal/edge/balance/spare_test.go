package balance

import (
	"errors"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/stage"
)

func TestBackgroundWorkTakesOnlyWhatIsToSpareAndIsNeverSentOn(t *testing.T) {
	b := newBed(t, poolSpec(v1.LeastRequest, tierSpec("home", 2, 40, 25), tierSpec("next", 2, 40, 0)))
	back := Visitor{Background: true}
	var held []Slot
	for {
		s, err := b.pick(back)
		if err != nil {
			if !errors.Is(err, ErrFull) {
				t.Error(err)
			}
			break
		}
		if s.Tier() != "home" || s.Spilled {
			t.Fatalf("in %s", s.Tier())
		}
		held = append(held, s)
	}
	// The limit is 40, a quarter is kept for baskets, the soft mark is at 30: half of that.
	if len(held) != 15 {
		t.Errorf("%d places, want 15", len(held))
	}
	// Every visitor still finds room, in the first tier up to its mark.
	for i := range 15 {
		s, err := b.pick(Visitor{Class: stage.Anonymous, Key: uint64(i)})
		if err != nil || s.Tier() != "home" {
			t.Fatalf("visitor %d: %v", i, err)
		}
		held = append(held, s)
	}
	for i := range held[:15] {
		held[i].Release(Succeeded)
	}
	if _, err := b.pick(back); !errors.Is(err, ErrFull) {
		t.Errorf("half of the mark is taken by visitors: %v", err)
	}
	if got := b.Pool.view.Load().tiers[0].state.refused.Load(); got != 0 {
		t.Errorf("%d visitors count as sent on", got)
	}
	held[15].Release(Succeeded)
	s, err := b.pick(back)
	if err != nil {
		t.Fatal(err)
	}
	s.Release(Succeeded)
	for i := range held[16:] {
		held[16+i].Release(Succeeded)
	}
}

func TestBackgroundWorkIsNobodyThatWasSentAwayWhileOthersWait(t *testing.T) {
	b := newBed(t, poolSpec(v1.LeastRequest, tierSpec("home", 1, 10, 0)))
	b.line.waiting.Add(1)
	defer b.line.waiting.Add(-1)
	if _, err := b.pick(Visitor{Background: true}); !errors.Is(err, ErrFull) {
		t.Errorf("a place that is for those who wait was taken: %v", err)
	}
	if got := b.view.Load().tiers[0].state.refused.Load(); got != 0 {
		t.Errorf("%d visitors count as sent away", got)
	}
}

func TestBackgroundWorkLeavesHalfOfAnOriginsOwnLimitAndTheOnlyPlace(t *testing.T) {
	spec := poolSpec(v1.RoundRobin, tierSpec("home", 1, 0, 0))
	spec.Tiers[0].Origins[0].InFlight = 4
	b := newBed(t, spec)
	n := 0
	for {
		if _, err := b.pick(Visitor{Background: true}); err != nil {
			break
		}
		n++
	}
	if n == 0 || n > 2 {
		t.Errorf("%d of 4 places", n)
	}
	if _, err := newBed(t, poolSpec(v1.First, tierSpec("home", 1, 1, 0))).pick(Visitor{Background: true}); !errors.Is(err, ErrFull) {
		t.Errorf("the only place was taken: %v", err)
	}
	if s, err := newBed(t, poolSpec(v1.First, tierSpec("home", 1, 0, 0))).pick(Visitor{Background: true}); err != nil || s.Tier() != "home" {
		t.Errorf("without a limit there is room: %v", err)
	}
}
