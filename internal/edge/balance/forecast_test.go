package balance_test

import (
	"math"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/balance"
	"github.com/relais-edge/relais/internal/forecast"
)

// TestForecastIsWhatThenHappens has an edge record its load in the world of the balancer's trials, whose visitors
// browse, fill baskets, order and give up; asks the forecast what an outage or a rise would do; and compares with
// what that world then does. Home has 80 slots of 20 ms and 5 ms of network, so 100 in flight and 4,000 a second.
// What is refused may be 5 % of all beside it: where many are refused fewer fill a basket, which a forecast does not know.
func TestForecastIsWhatThenHappens(t *testing.T) {
	for _, c := range []struct {
		name   string
		truth  balance.Truth
		fail   []string
		slots  []forecast.Slots
		orders bool // are kept
		fits   bool
	}{
		{"home is lost, and the overflow was in use", balance.Truth{Home: 4, Overflow: 8, Before: 5000, After: 5000, Kill: 4}, []string{"home"}, nil, true, true},
		{"more comes to a home that was full", balance.Truth{Home: 4, Overflow: 8, Before: 5000, After: 6500}, nil, nil, true, true},
		{"half of home is lost", balance.Truth{Home: 4, Overflow: 8, Before: 5000, After: 5000, Kill: 2}, []string{"home-0", "home-1"}, nil, true, true},
		{"more comes than was ever seen, and the slots are told", balance.Truth{Home: 4, Overflow: 8, Before: 3000, After: 5500}, nil, []forecast.Slots{{Tier: "home", Count: 100}}, true, true},
		{"less comes to a home that was never seen at ease, and the slots are told", balance.Truth{Home: 4, Overflow: 8, Before: 6500, After: 3250}, nil, []forecast.Slots{{Tier: "home", Count: 100}}, true, true},
		{"less comes to tiers that had refused", balance.Truth{Home: 4, Overflow: 8, Before: 9000, After: 6300, ToldHome: 80, ToldOverflow: 200}, nil, nil, true, false},
		{
			"home is lost, and the overflow has no room for all",
			balance.Truth{Home: 4, Overflow: 8, Before: 3600, After: 3600, Kill: 4, ToldHome: 80, ToldOverflow: 200},
			[]string{"home"},
			nil, true, false,
		},
	} {
		if balance.RaceDetector && c.truth.Kill != 2 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.truth.Seed = 11
			before, after := c.truth.Run()
			q := &forecast.Question{
				Pools: map[bundle.Key]*v1.OriginPoolSpec{before.Key: c.truth.Spec()}, Loads: []balance.PoolLoad{before}, Seed: 3,
				WhatIf: forecast.WhatIf{Fail: c.fail, Capacity: c.slots, Rate: forecast.Rate{Factor: c.truth.After / c.truth.Before}},
			}
			f, err := forecast.Run(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			p, truth := f.Pools[0], after.Minutes[len(after.Minutes)-1]
			t.Logf("%s %q", f.Verdict, p.Warnings)
			all := truth.Refused.All() / truth.Seconds
			for _, m := range truth.Tiers {
				all += m.Requests.All() / truth.Seconds
			}
			for i, m := range truth.Tiers {
				then := p.Tiers[i].Then
				near(t, m.Name+" requests/s", then.Rate.All(), m.Requests.All()/truth.Seconds, 0.05*all)
				if p.Extra != nil { // the times of all tiers are known
					by := 0.05*m.InFlight + 2
					if i == 0 { // when it is full its limit is sought on and on, and what waits with it
						by = 0.3 * m.InFlight
					}
					near(t, m.Name+" in flight", then.InFlight, m.InFlight, by)
				}
				near(t, m.Name+" spilled", then.Spills.All(), m.Spills.All()/truth.Seconds, 0.05*all)
			}
			near(t, "refused/s", p.Lost.Refused.All(), truth.Refused.All()/truth.Seconds, 0.05*all)
			near(t, "baskets refused/s", p.Lost.Refused.Basket, truth.Refused.Basket/truth.Seconds, 0.01*all)
			if f.OrdersLost == c.orders || f.Fits != c.fits {
				t.Errorf("orders lost: %v, fits: %v; %s; %+v", f.OrdersLost, f.Fits, f.Verdict, p.Transition)
			}
		})
	}
}

func near(t *testing.T, what string, got, want, by float64) {
	t.Helper()
	t.Logf("%s: forecast %.1f, then %.1f", what, got, want)
	if math.Abs(got-want) > by {
		t.Errorf("%s: forecast %.1f, then %.1f", what, got, want)
	}
}
