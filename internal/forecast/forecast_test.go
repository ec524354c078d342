package forecast

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/balance"
)

// shop is a pool of two tiers of two origins, in two zones.
func shop(told int) *v1.OriginPoolSpec {
	tier := func(name, zone string, price int) v1.Tier {
		t := v1.Tier{Name: name, Zone: zone, Price: price, Capacity: v1.Capacity{SoftMark: new(v1.Percent(85))}}
		for _, n := range []string{"0", "1"} {
			t.Origins = append(t.Origins, v1.Origin{Address: name + "-" + n + ":80", Weight: new(1)})
		}
		return t
	}
	home, over := tier("home", "fra", 1), tier("overflow", "par", 5)
	if told > 0 {
		home.Capacity.InFlight, over.Capacity.InFlight = new(told), new(told)
		over.Capacity.Adaptive = "on"
	}
	return &v1.OriginPoolSpec{
		Algorithm: v1.LeastRequest, Tiers: []v1.Tier{home, over},
		Health: v1.HealthSpec{
			Connect: true, Interval: v1.Duration(time.Second), UnhealthyAfter: 1, HealthyAfter: 1,
			Passive: v1.PassiveHealth{ConsecutiveFailures: new(5), Ejection: v1.Duration(10 * time.Second), MaxEjected: new(v1.Percent(50))},
		},
		Retries: v1.RetrySpec{Attempts: new(2), Budget: new(v1.Percent(20))}, Stickiness: v1.StickinessSpec{On: "visitor"},
	}
}

// hour is a load of so many requests a second at home, of 50 ms each.
func hour(rate balance.ByClass) balance.PoolLoad {
	l := balance.PoolLoad{Key: "demo/shop", Since: 0, Until: 3600}
	for m := range int64(60) {
		by := 60.0
		if m != 30 {
			by = 30 // every other minute has half of it
		}
		n := balance.ByClass{Anonymous: rate.Anonymous * by, Known: rate.Known * by, Basket: rate.Basket * by}
		l.Minutes = append(l.Minutes, balance.Minute{Start: m * 60, Seconds: 60, Tiers: []balance.TierMinute{
			{Name: "home", Requests: n, InFlight: n.All() / 60 * 0.050, Most: n.All() / 60 * 0.08, P50: 40, P95: 120},
			{Name: "overflow", InFlight: 0},
		}})
	}
	return l
}

func asked(t *testing.T, told int, w WhatIf) *Forecast {
	t.Helper()
	q := &Question{
		Pools: map[bundle.Key]*v1.OriginPoolSpec{"demo/shop": shop(told)}, WhatIf: w, Seed: 1,
		Loads: []balance.PoolLoad{hour(balance.ByClass{Anonymous: 300, Known: 60, Basket: 40})},
	}
	f, err := Run(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestATierThatFailsSendsItsTrafficOn(t *testing.T) {
	for _, fail := range [][]string{{"home"}, {"shop/home"}, {"demo/shop/home"}, {"fra"}, {"zone:fra"}, {"home-0:80", "home-1"}} {
		f := asked(t, 0, WhatIf{Fail: fail})
		home, over := f.Pools[0].Tiers[0], f.Pools[0].Tiers[1]
		if home.Failed != 2 || home.Then.Rate.All() > 0 || over.Failed != 0 {
			t.Errorf("%q: home %+v", fail, home)
		}
		// 400 a second of 50 ms; nothing was recorded of the overflow.
		if r := over.Then.Rate.All(); r < 380 || r > 420 || over.Then.InFlight < 17 || over.Then.InFlight > 23 {
			t.Errorf("%q: overflow %+v", fail, over.Then)
		}
		if s := over.Then.Spills; s.Unhealthy+s.Stayed+s.Sticky < 380 {
			t.Errorf("%q: reasons %+v", fail, s)
		}
		if p := over.PricePerHour; p == nil || p.Now != 0 || math.Abs(p.Then-over.Then.Rate.All()*5*3600) > 0.01*p.Then {
			t.Errorf("price %+v", p)
		}
		if !slices.ContainsFunc(f.Pools[0].Warnings, func(s string) bool { return strings.Contains(s, "no limit is known") }) || f.Pools[0].Extra != nil {
			t.Errorf("%q: it says nothing of what it does not know: %q", fail, f.Pools[0].Warnings)
		}
		if !f.Simulation || !strings.HasPrefix(f.How, "simulation") {
			t.Error("it is not labelled")
		}
	}
}

func TestWhatHasNoRoomIsRefusedAndBasketsLast(t *testing.T) {
	f := asked(t, 24, WhatIf{Rate: Rate{Factor: 3}}) // 60 in flight for 48 places
	p := f.Pools[0]
	if f.Fits || f.OrdersLost || p.Lost.Refused.Anonymous < 50 || p.Lost.Refused.Basket > 0 {
		t.Errorf("%s: %+v", f.Verdict, p.Lost)
	}
	if !strings.Contains(f.Verdict, "orders kept: yes; anonymous refused ") {
		t.Errorf("verdict %q", f.Verdict)
	}
	if f = asked(t, 24, WhatIf{}); !f.Fits || f.Verdict != "orders kept: yes; nobody refused" {
		t.Errorf("as recorded: %s %+v", f.Verdict, f.Pools[0].Lost)
	}
}

func TestWithoutALimitAQueueIsTooLate(t *testing.T) {
	f := asked(t, 0, WhatIf{Fail: []string{"home"}, Capacity: []Slots{{"overflow", 10}}}) // half of what comes
	if p := f.Pools[0]; f.Fits || p.Lost.Late.Anonymous < 50 {
		t.Errorf("%s: %+v", f.Verdict, p.Lost)
	}
}

func TestTheRateMayBeToldInRequestsASecond(t *testing.T) {
	f := asked(t, 0, WhatIf{Rate: Rate{PerSecond: 1000}})
	if f.Factor != 2.5 || math.Abs(f.Pools[0].Asked.All()-1000) > 50 {
		t.Errorf("factor %v, %+v", f.Factor, f.Pools[0].Asked)
	}
}

func TestALargeLoadIsMadeSmaller(t *testing.T) {
	q := &Question{
		Pools: map[bundle.Key]*v1.OriginPoolSpec{"demo/shop": shop(0)}, WhatIf: WhatIf{Fail: []string{"home"}}, Seed: 1,
		Loads: []balance.PoolLoad{hour(balance.ByClass{Anonymous: 300_000, Known: 60_000, Basket: 40_000})},
	}
	tr := &trial{base: &base{rate: balance.ByClass{Anonymous: 400_000}}, spec: shop(0), aims: &aims{}, factor: 2, budget: maxPoolRequests}
	if tr.plan(); tr.scale < 10 || len(tr.planned) == 0 {
		t.Errorf("scale %v", tr.scale)
	}
	if testing.Short() {
		return
	}
	aimed, err := q.WhatIf.resolve(q.Pools)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := newBase(&q.Loads[0], Window{}, []string{"home", "overflow"})
	tr = &trial{base: b, spec: shop(0), aims: aimed["demo/shop"], factor: 1, budget: 60_000, seed: 1, progress: func(float64) {}}
	p, err := tr.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r := p.Tiers[1].Then; r.Rate.All() < 380_000 || r.Rate.All() > 420_000 || r.InFlight < 17_000 || r.InFlight > 23_000 {
		t.Errorf("%+v", r)
	}
}

func TestTheBusiestMinuteOrTheMean(t *testing.T) {
	l := hour(balance.ByClass{Anonymous: 100})
	order := []string{"home", "overflow"}
	if b, ok := newBase(&l, Window{}, order); !ok || b.rate.All() != 100 || b.from != 1800 {
		t.Errorf("busiest: %+v", b)
	}
	if b, ok := newBase(&l, Window{Mean: true}, order); !ok || math.Abs(b.rate.All()-50.8) > 0.1 {
		t.Errorf("mean: %+v", b)
	}
	if b, ok := newBase(&l, Window{Last: 10 * time.Minute}, order); !ok || b.rate.All() != 50 {
		t.Errorf("the last ten minutes: %+v", b)
	}
	if _, ok := newBase(&l, Window{From: time.Unix(7200, 0)}, order); ok {
		t.Error("there is no load after the end")
	}
}

func TestNonsenseIsAnsweredWithWhatThereIs(t *testing.T) {
	pools := map[bundle.Key]*v1.OriginPoolSpec{"demo/shop": shop(0)}
	for _, c := range []struct {
		w    WhatIf
		want string
	}{
		{WhatIf{Fail: []string{"hom"}}, "--fail hom: no tier, origin or zone of this name in the documents; there are tiers shop/home, shop/overflow; zones fra, par; origins home-0:80,"},
		{WhatIf{Fail: []string{"zone:"}}, "no tier"},
		{WhatIf{Capacity: []Slots{{"hom", 1}}}, "--capacity hom: no tier of this name in the documents; there are tiers shop/home, shop/overflow"},
	} {
		if _, err := Run(t.Context(), &Question{Pools: pools, WhatIf: c.w}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.w, err)
		}
	}
	if _, err := Run(t.Context(), &Question{Pools: pools}); !errors.Is(err, ErrNoLoad) {
		t.Errorf("no load: %v", err)
	}
	for _, s := range []string{"", "x", "x0", "x-1", "xInf", "xNaN", "1.5", "12/m", "/s", "x1e9", "-5/s"} {
		if r, err := ParseRate(s); err == nil {
			t.Errorf("rate %q is %+v", s, r)
		}
	}
	for _, s := range []string{"", "home", "home=", "home=0", "home=-1", "=5", "home=1.5", "home=99999999"} {
		if c, err := ParseSlots(s); err == nil {
			t.Errorf("capacity %q is %+v", s, c)
		}
	}
	if r, err := ParseRate("x1.5"); err != nil || r.Factor != 1.5 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestAForecastEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q := &Question{Pools: map[bundle.Key]*v1.OriginPoolSpec{"demo/shop": shop(0)}, Loads: []balance.PoolLoad{hour(balance.ByClass{Anonymous: 5000})}}
	if _, err := Run(ctx, q); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAForecastIsJSON(t *testing.T) {
	f := asked(t, 0, WhatIf{})
	b, err := json.Marshal(f) // no NaN, no Inf
	if err != nil || !strings.Contains(string(b), `"simulation":true`) {
		t.Errorf("%s, %v", b, err)
	}
}
