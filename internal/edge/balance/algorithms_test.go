package balance

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
)

// share counts where n requests go that are answered at once.
func (b *bed) share(t testing.TB, n int) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for k := range n {
		s := b.must(t, Visitor{Hash: mix(uint64(k))})
		counts[s.Address()]++
		s.Release(Abandoned)
	}
	return counts
}

func TestPeakEWMASendsByHowLongAnswersTake(t *testing.T) {
	// A discrete simulation: requests come each millisecond, origins answer after 20 ms, but one after 200.
	for _, n := range []int{4, 40} {
		b := newBed(t, poolSpec(v1.PeakEWMA, tierSpec("home", n, 0, 0)))
		type job struct {
			end int64
			s   Slot
		}
		var under []job
		counts := map[string]int{}
		for ms := range int64(20_000) {
			now := b.now.Add(1e6)
			under = slices.DeleteFunc(under, func(j job) bool {
				if j.end > now {
					return false
				}
				j.s.answered(now)
				j.s.Release(Succeeded)
				return true
			})
			s := b.must(t, Visitor{})
			took := int64(20e6)
			if s.Address() == "home-0:80" {
				took = 200e6
			}
			if ms > 2000 {
				counts[s.Address()]++
			}
			under = append(under, job{now + took, s})
		}
		slow, mean := counts["home-0:80"], (18_000-counts["home-0:80"])/(n-1)
		if slow == 0 || slow*4 > mean {
			t.Errorf("of %d: the slow one got %d, the others %d each", n, slow, mean)
		}
	}
}

func TestEWMATakesPeaksAtOnceAndForgetsThem(t *testing.T) {
	var e ewma
	now := int64(time.Hour)
	e.observe(20e6, now)
	e.observe(500e6, now+1e6)
	if got := e.read(now + 1e6); got < 499e6 {
		t.Errorf("a peak of 500 ms is read as %v", time.Duration(got))
	}
	for i := range int64(100) {
		e.observe(20e6, now+i*100e6)
	}
	if got := e.read(now + 10e9); got < 30e6 || got > 200e6 {
		t.Errorf("ten seconds later: %v", time.Duration(got))
	}
	if half := e.read(now+10e9+5e9) / e.read(now+10e9); math.Abs(half-0.5) > 0.03 {
		t.Errorf("in 5 s without answers %v remained", half)
	}
	if e.read(now+int64(time.Hour)) != 0 {
		t.Error("nothing is known after an hour")
	}
}

func TestPeakEWMADoesNotFallForFastFailures(t *testing.T) {
	spec := poolSpec(v1.PeakEWMA, tierSpec("home", 4, 0, 0))
	spec.Health.Passive.ConsecutiveFailures = new(0)
	b := newBed(t, spec)
	failed := 0
	for range 4000 {
		s := b.must(t, Visitor{})
		out := Succeeded
		if s.Address() == "home-0:80" {
			out = Failed
			b.pass(time.Millisecond)
			failed++
		} else {
			b.pass(20 * time.Millisecond)
		}
		s.answered(b.now.Load())
		s.Release(out)
	}
	if failed > 400 {
		t.Errorf("%d of 4000 requests went to the origin that fails fast", failed)
	}
}

func TestRingMovesNoOtherKeys(t *testing.T) {
	b := newBed(t, algorithmSpec("ring", tierSpec("home", 20, 0, 0)))
	where := func() map[uint64]string {
		m := map[uint64]string{}
		for k := range uint64(10_000) {
			s := b.must(t, Visitor{Hash: mix(k)})
			m[k] = s.Address()
			s.Release(Abandoned)
		}
		return m
	}
	before, counts := where(), map[string]int{}
	for _, a := range before {
		counts[a]++
	}
	for a, n := range counts {
		if n < 300 || n > 750 {
			t.Errorf("%s has %d of 10,000 keys, want about 500", a, n)
		}
	}
	b.apply(t, algorithmSpec("ring", tierSpec("home", 21, 0, 0)))
	moved := 0
	for k, a := range where() {
		if a == before[k] {
			continue
		}
		if moved++; a != "home-20:80" {
			t.Fatalf("key %d moved from %s to %s, which is not the new one", k, before[k], a)
		}
	}
	if moved < 300 || moved > 750 {
		t.Errorf("%d of 10,000 keys moved to the 21st origin", moved)
	}
	b.apply(t, algorithmSpec("ring", tierSpec("home", 20, 0, 0)))
	for k, a := range where() {
		if a != before[k] {
			t.Fatalf("key %d did not come back: %s, was %s", k, a, before[k])
		}
	}
}

func TestAChangedRingIsTheRingMadeAnew(t *testing.T) {
	members := func(addresses ...string) (list []member) {
		for _, a := range addresses {
			list = append(list, member{o: &origin{address: a}, weight: 10})
		}
		return list
	}
	all := make([]string, 40)
	for i := range all {
		all[i] = fmt.Sprintf("10.0.0.%d:80", i)
	}
	before := members(all...)
	old := newRing(before, nil, nil)
	after := slices.Concat(before[:7], before[8:], members("10.1.0.1:80"))
	after[3].weight = 5
	want := newRing(after, nil, nil)
	got := newRing(after, old, before)
	if !slices.Equal(got.points, want.points) || !slices.Equal(got.first, want.first) {
		t.Errorf("%d points, want %d", len(got.points), len(want.points))
	}
	r := &ring{per: old.per, heavy: old.heavy}
	if !r.change(after, old, before) {
		t.Error("two that came and two that went were not merged in")
	}
}

func TestRingFollowsWeightsAndBoundsTheLoadOfOneKey(t *testing.T) {
	spec := algorithmSpec("ring", tierSpec("home", 10, 0, 0))
	for i := range spec.Tiers[0].Origins {
		spec.Tiers[0].Origins[i].Weight = new(2 - i%2)
	}
	b := newBed(t, spec)
	heavy := 0
	for a, n := range b.share(t, 10_000) {
		if strings.Contains("home-0:80 home-2:80 home-4:80 home-6:80 home-8:80", a) {
			heavy += n
		}
	}
	if heavy < 5900 || heavy > 7400 {
		t.Errorf("those with two thirds of the weight got %d of 10,000", heavy)
	}
	for range 1000 {
		b.must(t, Visitor{Hash: 42})
	}
	for i, o := range b.status().Tiers[0].Origins {
		if most := int64(1000*(2-i%2)/15*5/4 + 2*hashSlack); o.InFlight > most {
			t.Errorf("%s has %d in flight of 1000, want %d at most", o.Address, o.InFlight, most)
		}
	}
}

func TestSlowStartOfWhoComesAndWhoComesBack(t *testing.T) {
	for _, a := range []v1.Algorithm{v1.RoundRobin, v1.LeastRequest, v1.PeakEWMA, v1.Random} {
		t.Run(string(a), func(t *testing.T) {
			make := func(n int) *v1.OriginPoolSpec {
				s := poolSpec(a, tierSpec("home", n, 1000, 0))
				s.SlowStart = v1.Duration(20 * time.Second)
				return s
			}
			b := newBed(t, make(4))
			// What counts is the weight: requests that stay in flight level by it.
			level := func() (fourth, mean int64) {
				for _, m := range b.plan[0].members {
					m.o.latency.word.Store(0)
					m.o.latency.observe(20e6, b.now.Load())
				}
				var held []Slot
				for range 300 {
					s := b.must(t, Visitor{})
					held = append(held, s)
				}
				for _, o := range b.status().Tiers[0].Origins {
					if o.Address == "home-3:80" {
						fourth = o.InFlight
					}
				}
				mean = (300 - fourth) / 3
				for _, s := range held {
					s.Release(Abandoned)
				}
				return fourth, mean
			}
			if f, m := level(); f < m*6/10 {
				t.Errorf("at the start all are alike: %d beside %d", f, m)
			}
			b.judge(b.plan[0].state, b.byAddr["home-3:80"], Failed)
			for range 4 {
				b.judge(b.plan[0].state, b.byAddr["home-3:80"], Failed)
			}
			b.pass(11 * time.Second)
			if f, m := level(); f > m/4 {
				t.Errorf("back for a moment: %d beside %d", f, m)
			}
			if st := b.status().Tiers[0]; st.Origins[3].State != "starting" || st.Limit >= 800 {
				t.Errorf("%s, and the tier takes %d", st.Origins[3].State, st.Limit)
			}
			b.pass(10 * time.Second)
			if f, m := level(); f < m/4 || f > m*8/10 {
				t.Errorf("half way: %d beside %d", f, m)
			}
			b.pass(11 * time.Second)
			if f, m := level(); f < m*6/10 {
				t.Errorf("at the end: %d beside %d", f, m)
			}
			if st := b.status().Tiers[0]; st.Origins[3].State != "well" || st.Limit != 1000 {
				t.Errorf("%s, and the tier takes %d", st.Origins[3].State, st.Limit)
			}
			b.apply(t, make(5))
			if st := b.status().Tiers[0]; st.Origins[4].State != "starting" || st.Origins[3].State != "well" {
				t.Errorf("one that is new: %+v", st.Origins)
			}
		})
	}
}

func zoned(a v1.Algorithm, limit int) *v1.OriginPoolSpec {
	spec := poolSpec(a, tierSpec("home", 20, limit, 0))
	for i := range spec.Tiers[0].Origins {
		spec.Tiers[0].Origins[i].Zone = []string{"a", "b"}[i%2]
	}
	spec.Zones = v1.ZoneSpec{Prefer: "own", Least: new(v1.Percent(70))}
	return spec
}

func TestTheOwnZoneIsPreferredWhileItHasRoomAndIsWell(t *testing.T) {
	inA := func(counts map[string]int) (n int) {
		for i := 0; i < 20; i += 2 {
			n += counts[fmt.Sprintf("home-%d:80", i)]
		}
		return n
	}
	for _, a := range []v1.Algorithm{v1.RoundRobin, v1.LeastRequest, v1.PeakEWMA, v1.Random} {
		b := &bed{}
		b.build(t, zoned(a, 0), Where{Zone: "a"})
		if n := inA(b.share(t, 1000)); n != 1000 {
			t.Errorf("%s: %d of 1000 stayed", a, n)
		}
		// Six of ten are out, so that four sevenths of what is needed is there.
		for i := 0; i < 12; i += 2 {
			for range 5 {
				b.judge(b.plan[0].state, b.byAddr[fmt.Sprintf("home-%d:80", i)], Failed)
			}
		}
		want := 1000*4/7 + (1000-1000*4/7)*4/14
		if n := inA(b.share(t, 1000)); n < want-80 || n > want+80 {
			t.Errorf("%s: %d of 1000 stayed where four of ten are well, want about %d", a, n, want)
		}
		// An edge of another zone, or of none, has no preference.
		for _, zone := range []string{"c", ""} {
			o := &bed{}
			o.build(t, zoned(a, 0), Where{Zone: zone})
			if n := inA(o.share(t, 1000)); n < 350 || n > 650 {
				t.Errorf("%s: %d of 1000 for zone %q", a, n, zone)
			}
		}
		// Its part of the capacity is 50 of 100: what is beyond goes to the other zone.
		full := &bed{}
		full.build(t, zoned(a, 100), Where{Zone: "a"})
		for range 60 {
			full.must(t, Visitor{})
		}
		near := int64(0)
		for i, o := range full.status().Tiers[0].Origins {
			if i%2 == 0 {
				near += o.InFlight
			}
		}
		if near < 38 || near > 58 {
			t.Errorf("%s: %d of 60 in the zone that has half of 100 places", a, near)
		}
	}
}

func TestSubsetsAreDeterministicAndEven(t *testing.T) {
	seats := make([]seat, 100)
	for i := range seats {
		seats[i].address = fmt.Sprintf("10.0.0.%d:80", i)
	}
	for _, edges := range []int{10, 20, 40, 13} {
		counts := map[string]int{}
		for n := range edges {
			mine := subset(seats, 10, uint64(n))
			if len(mine) != 10 {
				t.Fatalf("edge %d uses %d", n, len(mine))
			}
			if again := subset(seats, 10, uint64(n)); !slices.Equal(mine, again) {
				t.Fatal("another time another subset")
			}
			for _, s := range mine {
				counts[s.address]++
			}
		}
		least, most := edges, 0
		for _, s := range seats {
			least, most = min(least, counts[s.address]), max(most, counts[s.address])
		}
		if most-least > 1 {
			t.Errorf("%d edges: an origin has %d, another %d", edges, least, most)
		}
	}
	// One more origin moves few.
	before := subset(seats, 10, 3)
	after := subset(append(slices.Clone(seats), seat{address: "10.0.1.1:80"}), 11, 3)
	same := 0
	for _, s := range after {
		if slices.Contains(before, s) {
			same++
		}
	}
	if same < 8 {
		t.Errorf("%d of 10 stayed when one came", same)
	}
	b := &bed{}
	spec := poolSpec(v1.LeastRequest, tierSpec("home", 100, 0, 0))
	spec.Tiers[0].Subset = 10
	b.build(t, spec, Where{Number: 3})
	if n := len(b.origins.opened); n != 10 {
		t.Errorf("%d targets were opened for a subset of 10", n)
	}
	if n := len(b.share(t, 1000)); n != 10 {
		t.Errorf("%d origins were used", n)
	}
}

func TestAnOriginTakesNoMoreThanItsOwnLimit(t *testing.T) {
	for _, a := range algorithms {
		spec := algorithmSpec(a, tierSpec("home", 12, 0, 0), tierSpec("next", 1, 0, 0))
		for i := range spec.Tiers[0].Origins {
			spec.Tiers[0].Origins[i].InFlight = 1 + i%3
		}
		spec.Tiers[0].Capacity.SoftMark = new(v1.Percent(100))
		b := newBed(t, spec)
		for range 40 {
			b.must(t, Visitor{Hash: 7})
		}
		st := b.status()
		for i, o := range st.Tiers[0].Origins {
			if o.InFlight != int64(1+i%3) {
				t.Errorf("%s: %s has %d, its limit is %d", a, o.Address, o.InFlight, 1+i%3)
			}
		}
		if st.Tiers[0].Limit != 24 || st.Tiers[1].InFlight != 16 {
			t.Errorf("%s: the tier takes %d, and %d went on; want 24 and 16", a, st.Tiers[0].Limit, st.Tiers[1].InFlight)
		}
	}
	// One without a limit leaves the tier without one.
	spec := poolSpec(v1.Random, tierSpec("home", 2, 0, 0))
	spec.Tiers[0].Origins[0].InFlight = 3
	b := newBed(t, spec)
	for range 50 {
		b.must(t, Visitor{})
	}
	if o := b.status().Tiers[0].Origins; o[0].InFlight != 3 || o[1].InFlight != 47 {
		t.Errorf("%+v", o)
	}
}
