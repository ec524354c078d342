package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/stage"
)

func TestBoundsOfCapacity(t *testing.T) {
	for _, c := range []struct {
		inFlight             int
		reserve, soft        v1.Percent
		part, all            int64
		limit, general, mark int64
	}{
		{400, 20, 85, 1, 1, 400, 320, 320},
		{400, 10, 85, 1, 1, 400, 360, 340},
		{400, 0, 85, 1, 1, 400, 400, 340},
		{10, 0, 85, 1, 1, 10, 10, 9},
		{10, 20, 50, 1, 1, 10, 8, 5},
		{10, 100, 85, 1, 1, 10, 0, 0},
		{1, 20, 85, 1, 1, 1, 1, 1},
		{400, 20, 85, 1, 2, 200, 160, 160},
		{3, 0, 85, 1, 2, 2, 2, 2},
		{400, 20, 85, 0, 2, 0, 0, 0},
	} {
		able := &tier{part: c.part, all: c.all}
		m := bounds(&v1.Capacity{InFlight: new(c.inFlight), Reserve: c.reserve, SoftMark: &c.soft}, able.able(), math.Inf(1), func(int64) float64 { return 0 })
		if m.limit != c.limit || m.general != c.general || m.soft != c.mark || m.basket != c.limit {
			t.Errorf("%+v: got %+v", c, m)
		}
	}
}

func TestNeverAboveCapacityAndTheReserveIsKept(t *testing.T) {
	b := newBed(t, poolSpec(v1.LeastRequest, tierSpec("home", 3, 40, 25), tierSpec("next", 2, 30, 10)))
	type count struct{ all, others, most, mostOthers atomic.Int64 }
	counts := map[string]*count{"home": {}, "next": {}}
	raise := func(most *atomic.Int64, n int64) {
		for {
			m := most.Load()
			if n <= m || most.CompareAndSwap(m, n) {
				return
			}
		}
	}
	// The pool is full when the race begins.
	const racers = 64
	var first [racers][]Slot
	taken := 0
	for {
		s, err := b.pick(Visitor{Class: stage.Protected})
		if err != nil {
			break
		}
		raise(&counts[s.Tier()].most, counts[s.Tier()].all.Add(1))
		first[taken%racers] = append(first[taken%racers], s)
		taken++
	}
	if taken != 70 {
		t.Errorf("%d places in all, want 70", taken)
	}
	var full atomic.Int64
	var wg sync.WaitGroup
	for g := range racers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			held := first[g]
			class := make([]stage.Class, len(held))
			for i := range class {
				class[i] = stage.Protected
			}
			for range 3000 {
				if len(held) > 0 && r.IntN(9) < 4 {
					c := counts[held[0].Tier()]
					// The test's counts go down before the pool's, so they never show more.
					c.all.Add(-1)
					if class[0] != stage.Protected {
						c.others.Add(-1)
					}
					held[0].Release(Outcome(r.IntN(3)))
					held, class = held[1:], class[1:]
					continue
				}
				v := Visitor{Class: stage.Class(min(2, r.IntN(5))), Key: r.Uint64N(500), Tier: []string{"", "home", "next", "gone"}[r.IntN(4)]}
				s, err := b.pick(v)
				if err != nil {
					full.Add(1)
					continue
				}
				c := counts[s.Tier()]
				raise(&c.most, c.all.Add(1))
				if v.Class != stage.Protected {
					raise(&c.mostOthers, c.others.Add(1))
				}
				held, class = append(held, s), append(class, v.Class)
			}
			for i, s := range held {
				c := counts[s.Tier()]
				c.all.Add(-1)
				if class[i] != stage.Protected {
					c.others.Add(-1)
				}
				s.Release(Succeeded)
			}
		})
	}
	wg.Wait()
	for name, want := range map[string][2]int64{"home": {40, 30}, "next": {30, 27}} {
		c := counts[name]
		if c.most.Load() > want[0] || c.mostOthers.Load() > want[1] {
			t.Errorf("%s: %d in flight, %d without basket; bounds %v", name, c.most.Load(), c.mostOthers.Load(), want)
		}
	}
	if full.Load() == 0 {
		t.Error("the pool was never full: the test does not test")
	}
	for _, tier := range b.status().Tiers {
		if tier.InFlight != 0 {
			t.Errorf("%s: %d in flight at the end", tier.Name, tier.InFlight)
		}
		for _, o := range tier.Origins {
			if o.InFlight != 0 {
				t.Errorf("%s: %d in flight at the end", o.Address, o.InFlight)
			}
		}
	}
}

func TestNewAnonymousVisitorsGoOnAtTheSoftMarkAndOthersAtTheHardMark(t *testing.T) {
	b := newBed(t, poolSpec(v1.LeastRequest, tierSpec("home", 1, 100, 0), tierSpec("next", 1, 100, 0)))
	fill := func(n int, class stage.Class, tier string, reason Reason) {
		t.Helper()
		for i := range n {
			s := b.must(t, Visitor{Class: class})
			if s.Tier() != tier {
				t.Fatalf("%v number %d went to %s, want %s", class, i, s.Tier(), tier)
			}
			if i == 0 && reason != ReasonNone && s.skipped[0] != reason {
				t.Errorf("%v: home was skipped for %v, want %v", class, s.skipped[0], reason)
			}
		}
	}
	fill(85, stage.Anonymous, "home", ReasonNone)
	fill(10, stage.Anonymous, "next", ReasonSoft)
	fill(15, stage.Known, "home", ReasonNone)
	fill(10, stage.Known, "next", ReasonHard)
	fill(65, stage.Anonymous, "next", ReasonHard) // next is at its own mark now
	fill(15, stage.Anonymous, "next", ReasonHard) // and takes more, since there is no other
	for _, class := range []stage.Class{stage.Anonymous, stage.Known, stage.Protected} {
		if _, err := b.pick(Visitor{Class: class, Tier: "home"}); err != ErrFull {
			t.Errorf("%v: %v, want ErrFull", class, err)
		}
	}
}

func TestABasketStaysUntilItsTierIsFullToTheLastPlaceOrUnhealthy(t *testing.T) {
	b := newBed(t, poolSpec(v1.LeastRequest, tierSpec("home", 1, 10, 20), tierSpec("next", 1, 10, 20)))
	for range 8 {
		b.must(t, Visitor{Class: stage.Known})
	}
	if s := b.must(t, Visitor{Class: stage.Known, Tier: "home"}); s.Tier() != "next" {
		t.Errorf("without a basket the reserve was used")
	}
	for range 2 {
		if s := b.must(t, Visitor{Class: stage.Protected, Tier: "home"}); s.Tier() != "home" || s.Reason != ReasonReserve {
			t.Errorf("%s, %v; want home by its reserve", s.Tier(), s.Reason)
		}
	}
	if s := b.must(t, Visitor{Class: stage.Protected, Tier: "home"}); s.Tier() != "next" || s.skipped[0] != ReasonHard {
		t.Errorf("%s, %v; want next because home is full", s.Tier(), s.skipped[0])
	}
	s := b.must(t, Visitor{Class: stage.Protected, Tier: "next"})
	if s.Tier() != "next" || s.Reason != ReasonSticky {
		t.Errorf("%s, %v; want next, sticky", s.Tier(), s.Reason)
	}
	for range 5 {
		s.pool.judge(s.tier, s.origin, Failed)
	}
	if _, err := b.pick(Visitor{Class: stage.Protected, Tier: "next"}); err != ErrFull {
		t.Errorf("next is unhealthy and home full: %v, want ErrFull", err)
	}
	spec := poolSpec(v1.LeastRequest, tierSpec("home", 1, 20, 20), tierSpec("next", 1, 10, 20))
	b.apply(t, spec)
	if s := b.must(t, Visitor{Class: stage.Protected, Tier: "next"}); s.Tier() != "home" || s.skipped[1] != ReasonUnhealthy {
		t.Errorf("%s, %v; want home because next is unhealthy", s.Tier(), s.skipped)
	}
	off := poolSpec(v1.LeastRequest, tierSpec("home", 1, 0, 0), tierSpec("next", 1, 0, 0))
	off.Stickiness.On = "none"
	b.apply(t, off)
	b.pass(time.Minute)
	if s := b.must(t, Visitor{Class: stage.Protected, Tier: "next"}); s.Tier() != "home" {
		t.Error("without stickiness the basket's tier was kept")
	}
}

func TestAnonymousVisitorsSpillAsAWholeAndStay(t *testing.T) {
	b := newBed(t, poolSpec(v1.LeastRequest, tierSpec("home", 1, 100, 10), tierSpec("next", 1, 100, 10)))
	const early, late = 7, 8
	for i := range 60 {
		b.must(t, Visitor{Key: 1000 + uint64(i)})
	}
	b.must(t, Visitor{Key: early})
	for i := range 24 {
		b.must(t, Visitor{Key: 2000 + uint64(i)})
	}
	if s := b.must(t, Visitor{Key: late}); s.Tier() != "next" {
		t.Fatal("at the soft mark a new visitor came in")
	}
	if s := b.must(t, Visitor{Key: early}); s.Tier() != "home" {
		t.Error("a visitor that was in the tier was sent on at the soft mark")
	}
	home := b.view.Load().tiers[0].state
	home.inFlight.Store(80)
	if s := b.must(t, Visitor{Key: late}); s.Tier() != "next" || s.Reason != ReasonStayed {
		t.Errorf("%s, %v: a visitor that spilled came back at once", s.Tier(), s.Reason)
	}
	home.inFlight.Store(70)
	if s := b.must(t, Visitor{Key: late}); s.Tier() != "home" {
		t.Error("a visitor that spilled stayed away although there was room to spare")
	}
	home.inFlight.Store(84)
	if s := b.must(t, Visitor{Key: late}); s.Tier() != "home" {
		t.Error("a visitor that came back was sent on at once")
	}
}

func TestReturnIsATenthOfTheTierASecond(t *testing.T) {
	b := newBed(t, poolSpec(v1.LeastRequest, tierSpec("home", 1, 1000, 0), tierSpec("next", 1, 0, 0)))
	home := b.view.Load().tiers[0].state
	room := func() (n int) {
		for {
			s := b.must(t, Visitor{})
			if s.Tier() != "home" {
				s.Release(Succeeded)
				return n
			}
			n++
		}
	}
	if n := room(); n != 850 {
		t.Fatalf("%d came in before the soft mark", n)
	}
	home.inFlight.Store(0)
	if n := room(); n != 800 {
		t.Errorf("just after a spill %d came in, want 800", n)
	}
	home.inFlight.Store(0)
	b.pass(300 * time.Millisecond)
	if n := room(); n != 830 {
		t.Errorf("a little later %d came in, want 830", n)
	}
	home.inFlight.Store(0)
	b.pass(time.Hour)
	if n := room(); n != 850 {
		t.Errorf("much later %d came in, want 850", n)
	}

	home.inFlight.Store(0)
	s := b.must(t, Visitor{Class: stage.Known})
	for range 5 {
		b.judge(s.tier, s.origin, Failed)
	}
	s.Release(Abandoned)
	if n := room(); n != 0 {
		t.Errorf("%d came to an unhealthy tier", n)
	}
	b.pass(10 * time.Second)
	if n := room(); n != 0 {
		t.Errorf("when the tier was well again %d came at once", n)
	}
	for i := range 4 {
		b.pass(time.Second)
		if n := room(); n != 100 {
			t.Errorf("second %d: %d came back, want 100", i, n)
		}
	}
}

func TestEjectionGrowsIsBoundedAndEnds(t *testing.T) {
	spec := poolSpec(v1.LeastRequest, tierSpec("home", 4, 0, 0))
	b := newBed(t, spec)
	fail := func(address string, n int) {
		o := b.byAddr[address]
		for range n {
			b.judge(b.view.Load().tiers[0].state, o, Failed)
		}
	}
	out := func() (list []string) {
		for _, o := range b.status().Tiers[0].Origins {
			if o.State == "ejected" {
				list = append(list, o.Address)
			}
		}
		return list
	}
	fail("home-0:80", 4)
	b.judge(b.view.Load().tiers[0].state, b.byAddr["home-0:80"], Succeeded)
	fail("home-0:80", 4)
	if l := out(); l != nil {
		t.Fatalf("%v ejected although failures were not in a row", l)
	}
	fail("home-0:80", 1)
	fail("home-1:80", 5)
	fail("home-2:80", 50)
	if l := out(); !slices.Equal(l, []string{"home-0:80", "home-1:80"}) {
		t.Fatalf("%v ejected, want half", l)
	}
	for range 100 {
		s := b.must(t, Visitor{})
		if a := s.Address(); a == "home-0:80" || a == "home-1:80" {
			t.Fatalf("%s was chosen while it was ejected", a)
		}
	}
	b.pass(10 * time.Second)
	if l := out(); l != nil {
		t.Fatalf("%v still ejected", l)
	}
	fail("home-0:80", 1) // the next failure ejects again, for twice as long
	b.pass(19 * time.Second)
	if l := out(); !slices.Equal(l, []string{"home-0:80"}) {
		t.Fatalf("%v ejected, want home-0", l)
	}
	b.pass(time.Second)
	if l := out(); l != nil {
		t.Fatalf("%v still ejected", l)
	}
	for range 20 {
		fail("home-0:80", 1)
		o := b.byAddr["home-0:80"]
		if d := o.ejectedUntil - b.now.Load(); d > int64(100*time.Second) {
			t.Fatalf("ejected for %v", time.Duration(d))
		}
		b.now.Store(o.ejectedUntil)
	}
}

func TestWhenNobodyIsWellAllAreUsed(t *testing.T) {
	b := newBed(t, poolSpec(v1.LeastRequest, tierSpec("home", 1, 0, 0), tierSpec("next", 1, 0, 0)))
	for i, o := range []string{"home-0:80", "next-0:80"} {
		for range 5 {
			b.judge(b.plan[i].state, b.byAddr[o], Failed)
		}
	}
	s := b.must(t, Visitor{})
	if !s.Panicked || s.Tier() != "home" {
		t.Errorf("panicked %v, tier %s", s.Panicked, s.Tier())
	}
	b.pass(10 * time.Second)
	if s := b.must(t, Visitor{}); s.Panicked {
		t.Error("still in panic when all are well")
	}
	none := poolSpec(v1.LeastRequest, tierSpec("home", 1, 0, 0))
	none.Tiers[0].Origins[0].Weight = new(0)
	b.apply(t, none)
	if _, err := b.pick(Visitor{}); err != ErrNone {
		t.Errorf("%v, want ErrNone", err)
	}
}

func TestAChangeOfTheSpecKeepsWhatStays(t *testing.T) {
	b := newBed(t, poolSpec(v1.LeastRequest, tierSpec("home", 2, 10, 0)))
	var held []Slot
	for range 6 {
		held = append(held, b.must(t, Visitor{Class: stage.Known}))
	}
	for range 5 {
		b.judge(b.plan[0].state, b.byAddr["home-0:80"], Failed)
	}
	spec := poolSpec(v1.RoundRobin, tierSpec("home", 3, 12, 0))
	spec.Tiers[0].Origins = spec.Tiers[0].Origins[0:3:3]
	b.apply(t, spec)
	st := b.status().Tiers[0]
	if st.InFlight != 6 || st.Limit != 8 || st.Origins[0].State != "ejected" || st.Origins[0].InFlight != 3 {
		t.Errorf("after the change: %+v", st)
	}
	if want := []string{"home-0:80", "home-1:80", "home-2:80"}; !reflect.DeepEqual(b.origins.opened, want) {
		t.Errorf("opened %v, want %v", b.origins.opened, want)
	}
	spec2 := poolSpec(v1.RoundRobin, tierSpec("home", 1, 12, 0))
	b.apply(t, spec2)
	if want := []string{"home-1:80", "home-2:80"}; len(b.origins.closed) != 2 || !slices.Contains(b.origins.closed, want[0]) {
		t.Errorf("closed %v, want %v", b.origins.closed, want)
	}
	for _, s := range held {
		s.Release(Succeeded)
	}
	if st := b.status().Tiers[0]; st.InFlight != 0 || st.Origins[0].InFlight != 0 {
		t.Errorf("places were not given back: %+v", st)
	}
	// Another way to speak to the origins opens all anew.
	spec3 := poolSpec(v1.RoundRobin, tierSpec("home", 1, 12, 0))
	spec3.Connection.TLS = &v1.OriginTLS{ServerName: "origin.example"}
	b.apply(t, spec3)
	if len(b.origins.opened) != 4 || len(b.origins.closed) != 3 {
		t.Errorf("opened %v, closed %v", b.origins.opened, b.origins.closed)
	}
	// A spec that cannot work changes nothing.
	b.origins.openErr = fmt.Errorf("no")
	bad := poolSpec(v1.RoundRobin, tierSpec("home", 5, 1, 0))
	if err := b.update(bad, b.checks); err == nil || b.status().Tiers[0].Limit != 12 {
		t.Errorf("error %v, %+v", err, b.status())
	}
}

func TestAChangeOfTheConnectionIsSeenWhileRequestsAreServed(t *testing.T) {
	spec := poolSpec(v1.LeastRequest, tierSpec("home", 2, 0, 0))
	b := newBed(t, spec)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				s, err := b.pick(Visitor{})
				if err != nil {
					t.Error(err)
					return
				}
				if s.Target() == nil {
					t.Error("an origin without a target")
				}
				s.Release(Succeeded)
			}
		})
	}
	for i := range 50 {
		next := *spec
		next.Connection.Read = v1.Duration(i+1) * v1.Duration(time.Second)
		b.apply(t, &next)
	}
	close(stop)
	wg.Wait()
}
