package balance

import (
	"math/rand/v2"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/stage"
)

// TestTheReserveFollowsTheBaskets: anonymous visitors take every place they may as soon as it is free, and
// visitors with a basket, who want a given share of the tier, still find one nearly always.
func TestTheReserveFollowsTheBaskets(t *testing.T) {
	for _, share := range []float64{0.1, 0.3, 0.5} {
		b := newBed(t, poolSpec(v1.LeastRequest, tierSpec("home", 1, 60, 0), tierSpec("next", 1, 0, 0)))
		rng := rand.New(rand.NewPCG(1, 2))
		var held []Slot
		run := func(rounds int, look bool) (moved, used float64) {
			asked, moves, taken := 0, 0, 0
			for range rounds {
				for {
					s := b.must(t, Visitor{Class: stage.Known})
					if s.Tier() != "home" {
						s.Release(Succeeded)
						break
					}
					held = append(held, s)
				}
				b.pass(5 * time.Millisecond)
				taken += len(held)
				i := rng.IntN(len(held))
				if rng.Float64() < share {
					asked++
					if s := b.must(t, Visitor{Class: stage.Protected, Tier: "home"}); s.Tier() == "home" {
						held = append(held, s)
					} else {
						moves++
						s.Release(Succeeded)
					}
				}
				held[i].Release(Succeeded)
				held[i], held = held[len(held)-1], held[:len(held)-1]
				if look {
					b.observe(b.now.Load(), second)
				}
			}
			return float64(moves) / float64(asked), float64(taken) / float64(rounds) / 60
		}
		before, _ := run(4000, false)
		run(4000, true)
		moved, used := run(20_000, true)
		if before < 0.9 || moved > 2*sentOnRare {
			t.Errorf("share %v: %.3f of the baskets had to go elsewhere, %.3f without a reserve", share, moved, before)
		}
		if used < 0.85 {
			t.Errorf("share %v: only %.3f of the tier is used", share, used)
		}
		for _, s := range held {
			s.Release(Succeeded)
		}
		for range 300 {
			b.pass(time.Second)
			b.observe(b.now.Load(), second)
		}
		if m := b.plan[0].state.marks.Load(); m.limit != m.general {
			t.Errorf("without baskets %d places are kept", m.limit-m.general)
		}
	}
}

func TestALaggardGetsFewRequestsAndNoBasket(t *testing.T) {
	b := newBed(t, poolSpec(v1.LeastRequest, tierSpec("home", 4, 0, 0), tierSpec("next", 1, 0, 0)))
	type due struct {
		at int64
		s  Slot
	}
	var flight []due
	slow := "home-2:80"
	most, protected := int64(0), 0
	run := func(d time.Duration, factor int64) {
		for end := b.now.Load() + int64(d); b.now.Load() < end; b.pass(time.Millisecond) {
			now := b.now.Load()
			left := flight[:0]
			for _, f := range flight {
				if f.at > now {
					left = append(left, f)
					continue
				}
				f.s.paced(now)
				f.s.Release(Succeeded)
			}
			flight = left
			class := stage.Class(now / ms % 3)
			s := b.must(t, Visitor{Class: class})
			took := 20 * ms
			if s.Address() == slow {
				took *= factor
				if class == stage.Protected {
					protected++
				}
			}
			flight = append(flight, due{now + took, s})
			most = max(most, b.byAddr[slow].inFlight.Load())
			if now/ms%int64(tick/time.Millisecond) == 0 {
				b.observe(now, second)
			}
		}
	}
	run(2*time.Second, 10)
	most, protected = 0, 0
	run(5*time.Second, 10)
	if most > 1 || protected > 0 {
		t.Errorf("a laggard had %d requests at once, and %d baskets", most, protected)
	}
	if st := b.status().Tiers[0].Origins[2].State; st != "slow" {
		t.Errorf("state %q", st)
	}
	run(5*time.Second, 1)
	most = 0
	run(time.Second, 1)
	if st := b.status().Tiers[0].Origins[2].State; st != "well" || most < 2 {
		t.Errorf("well again: state %q, %d at once", st, most)
	}
}

func TestTiersOfOneRankAreTakenByZoneAndPrice(t *testing.T) {
	tier := func(order int, zone string, price int) v1.Tier {
		tr := v1.Tier{Zone: zone, Price: price}
		if order > 0 {
			tr.Order = &order
		}
		return tr
	}
	for _, c := range []struct {
		zone  string
		tiers []v1.Tier
		want  []int
	}{
		{"", []v1.Tier{tier(0, "", 9), tier(0, "", 1)}, []int{0, 1}},
		{"", []v1.Tier{tier(0, "", 0), tier(2, "", 9), tier(2, "", 3)}, []int{0, 2, 1}},
		{"paris", []v1.Tier{tier(0, "", 0), tier(2, "lille", 3), tier(2, "paris", 9)}, []int{0, 2, 1}},
		{"lille", []v1.Tier{tier(1, "paris", 1), tier(1, "paris", 1), tier(1, "lille", 5)}, []int{2, 0, 1}},
		{"lille", []v1.Tier{tier(2, "lille", 0), tier(1, "paris", 9)}, []int{1, 0}},
	} {
		got := ranked(c.tiers, c.zone)
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%+v from %q: %v, want %v", c.tiers, c.zone, got, c.want)
				break
			}
		}
	}
}

func TestEverySpillHasAReason(t *testing.T) {
	b := newBed(t, poolSpec(v1.LeastRequest, tierSpec("home", 1, 10, 20), tierSpec("next", 1, 10, 20)))
	spill := func(v Visitor) string {
		t.Helper()
		s := b.must(t, v)
		return s.Spill()
	}
	if got := spill(Visitor{Class: stage.Known}); got != "" {
		t.Errorf("at home: %q", got)
	}
	if got := spill(Visitor{Class: stage.Protected, Tier: "next"}); got != "sticky" {
		t.Errorf("where the basket is: %q", got)
	}
	for b.plan[0].state.inFlight.Load() < 8 {
		b.must(t, Visitor{Class: stage.Known})
	}
	if got := spill(Visitor{Key: 3}); got != "hard" {
		t.Errorf("at the general bound: %q", got)
	}
	if got := spill(Visitor{Key: 3}); got != "stayed" {
		t.Errorf("again: %q", got)
	}
	if got := spill(Visitor{Class: stage.Known}); got != "hard" {
		t.Errorf("a known visitor: %q", got)
	}
	for b.plan[0].state.inFlight.Load() < 10 {
		b.must(t, Visitor{Class: stage.Protected, Tier: "home"})
	}
	if got := spill(Visitor{Class: stage.Protected, Tier: "home"}); got != "hard" {
		t.Errorf("a basket that had to go: %q", got)
	}
	home := b.plan[0]
	for range 5 {
		b.judge(home.state, home.members[0].o, Failed)
	}
	if got := spill(Visitor{Class: stage.Known}); got != "unhealthy" {
		t.Errorf("home is ill: %q", got)
	}
}
