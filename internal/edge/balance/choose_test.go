package balance

import (
	"fmt"
	"syscall"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/stage"
)

func weighted(a v1.Algorithm, weights ...int) *v1.OriginPoolSpec {
	s := poolSpec(a, tierSpec("home", len(weights), 0, 0))
	for i, w := range weights {
		s.Tiers[0].Origins[i].Weight = new(w)
	}
	return s
}

func TestRoundRobinIsExactAndSmooth(t *testing.T) {
	b := newBed(t, weighted(v1.RoundRobin, 5, 1, 0, 2))
	counts, last, run := map[string]int{}, "", 0
	for range 800 {
		s := b.must(t, Visitor{})
		counts[s.Address()]++
		if run++; s.Address() != last {
			last, run = s.Address(), 1
		}
		if run > 3 {
			t.Fatalf("%s came %d times in a row", last, run)
		}
		s.Release(Succeeded)
	}
	if counts["home-0:80"] != 500 || counts["home-1:80"] != 100 || counts["home-3:80"] != 200 {
		t.Errorf("%v", counts)
	}
}

func TestRandomFollowsWeights(t *testing.T) {
	b := newBed(t, weighted(v1.Random, 6, 3, 1))
	counts := map[string]int{}
	for range 20_000 {
		s := b.must(t, Visitor{})
		counts[s.Address()]++
		s.Release(Succeeded)
	}
	for a, want := range map[string]int{"home-0:80": 12_000, "home-1:80": 6000, "home-2:80": 2000} {
		if n := counts[a]; n < want-400 || n > want+400 {
			t.Errorf("%s: %d, want about %d", a, n, want)
		}
	}
}

func TestLeastRequestLevels(t *testing.T) {
	for _, n := range []int{2, 8, 40} {
		b := newBed(t, poolSpec(v1.LeastRequest, tierSpec("home", n, 0, 0)))
		for range n * 50 {
			b.must(t, Visitor{})
		}
		for _, o := range b.status().Tiers[0].Origins {
			if o.InFlight < 45 || o.InFlight > 55 {
				t.Errorf("of %d: %s has %d in flight, the mean is 50", n, o.Address, o.InFlight)
			}
		}
	}
	b := newBed(t, weighted(v1.LeastRequest, 3, 1))
	for range 400 {
		b.must(t, Visitor{})
	}
	if o := b.status().Tiers[0].Origins; o[0].InFlight != 300 || o[1].InFlight != 100 {
		t.Errorf("weights 3 and 1: %+v", o)
	}
}

func TestFirstIsTheFirstThatIsWell(t *testing.T) {
	b := newBed(t, weighted(v1.First, 1, 1))
	s := b.must(t, Visitor{})
	if s.Address() != "home-0:80" {
		t.Error(s.Address())
	}
	for range 5 {
		b.judge(s.tier, s.origin, Failed)
	}
	if s := b.must(t, Visitor{}); s.Address() != "home-1:80" {
		t.Error(s.Address())
	}
}

func TestConsistentHashKeepsKeysWhenAnOriginGoes(t *testing.T) {
	b := newBed(t, poolSpec(v1.ConsistentHash, tierSpec("home", 20, 0, 0)))
	where := func() map[uint64]string {
		m := map[uint64]string{}
		for k := range uint64(10_000) {
			s := b.must(t, Visitor{Hash: mix(k)})
			m[k] = s.Address()
			s.Release(Abandoned)
		}
		return m
	}
	before := where()
	counts := map[string]int{}
	for _, a := range before {
		counts[a]++
	}
	for a, n := range counts {
		if n < 350 || n > 650 {
			t.Errorf("%s has %d of 10,000 keys, want about 500", a, n)
		}
	}
	for range 5 {
		b.judge(b.plan[0].state, b.byAddr["home-7:80"], Failed)
	}
	for k, a := range where() {
		if a == "home-7:80" || before[k] != "home-7:80" && a != before[k] {
			t.Fatalf("key %d moved from %s to %s", k, before[k], a)
		}
	}
	spec := poolSpec(v1.ConsistentHash, tierSpec("home", 21, 0, 0))
	b.apply(t, spec)
	b.pass(1e12)
	moved := 0
	for k, a := range where() {
		if a != before[k] {
			moved++
		}
	}
	if moved > 1500 {
		t.Errorf("%d of 10,000 keys moved for one more origin", moved)
	}
}

func TestConsistentHashBoundsTheLoadOfOneKey(t *testing.T) {
	b := newBed(t, poolSpec(v1.ConsistentHash, tierSpec("home", 10, 0, 0)))
	for range 1000 {
		b.must(t, Visitor{Hash: 42})
	}
	for _, o := range b.status().Tiers[0].Origins {
		if o.InFlight > 125+hashSlack {
			t.Errorf("%s has %d in flight of 1000 at ten", o.Address, o.InFlight)
		}
	}
}

// algorithms are all there are; ring is not in the documents by that name.
var algorithms = [...]v1.Algorithm{v1.RoundRobin, v1.LeastRequest, v1.PeakEWMA, v1.ConsistentHash, "ring", v1.Random, v1.First}

func algorithmSpec(a v1.Algorithm, tiers ...v1.Tier) *v1.OriginPoolSpec {
	s := poolSpec(a, tiers...)
	if a == "ring" {
		s.Algorithm, s.Hash.Table = v1.ConsistentHash, "ring"
	}
	return s
}

func TestWhatWasTriedIsNotChosenAgain(t *testing.T) {
	for _, a := range algorithms {
		for _, n := range []int{3, 12} {
			b := newBed(t, algorithmSpec(a, tierSpec("home", n, 0, 0), tierSpec("next", 1, 0, 0)))
			var tried Tried
			seen := map[string]bool{}
			for i := range n + 1 {
				s, err := b.Pick(Visitor{Hash: 9, Class: stage.Known, Now: b.now.Load()}, &tried)
				if err != nil || seen[s.Address()] || (i == n) != (s.Tier() == "next") {
					t.Fatalf("%s of %d, try %d: %v %v", a, n, i, s.Address(), err)
				}
				seen[s.Address()] = true
				tried.add(s.origin)
				s.Release(Abandoned)
			}
			if _, err := b.Pick(Visitor{Now: b.now.Load()}, &tried); err != ErrTried {
				t.Errorf("%s: %v, want ErrTried", a, err)
			}
		}
	}
}

// cpuTime is what this process has used, in ns: on a busy machine the clock on the wall shows others' work.
func cpuTime() int64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkPick is a choice among 1,000 origins and giving the place back.
func BenchmarkPick(b *testing.B) {
	for _, a := range algorithms {
		for _, w := range []int{1, 7} {
			b.Run(fmt.Sprintf("%s/1000/weight-%d", a, w), func(b *testing.B) {
				spec := algorithmSpec(a, tierSpec("home", 1000, 100_000, 20), tierSpec("next", 10, 0, 0))
				for i := range spec.Tiers[0].Origins {
					spec.Tiers[0].Origins[i].Weight = new(1 + i%w)
				}
				bed := newBed(b, spec)
				var tried Tried
				v := Visitor{Now: bed.now.Load()}
				for _, m := range bed.plan[0].members {
					m.o.latency.observe(20e6, v.Now)
				}
				b.ReportAllocs()
				began := cpuTime()
				defer func() { b.ReportMetric(float64(cpuTime()-began)/float64(b.N), "cpu-ns/op") }()
				for b.Loop() {
					v.Key++
					v.Hash += 0x9e3779b97f4a7c15
					s, err := bed.Pick(v, &tried)
					if err != nil {
						b.Fatal(err)
					}
					s.Release(Succeeded)
				}
			})
		}
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	for _, a := range algorithms {
		spec := algorithmSpec(a, tierSpec("home", 1000, 10, 20), tierSpec("next", 10, 0, 0))
		for i := range spec.Tiers[0].Origins {
			spec.Tiers[0].Origins[i].Zone = "ab"[i%2 : i%2+1]
		}
		if spec.Zones.Prefer = "none"; a != v1.First && a != v1.ConsistentHash && a != "ring" {
			spec.Zones.Prefer = "own"
		}
		spec.Health.Passive.LatencyFactor = 3
		b := &bed{}
		b.build(t, spec, Where{Zone: "a"})
		var tried Tried
		if n := testing.AllocsPerRun(500, func() {
			if s, err := b.Pick(Visitor{Key: 5, Now: b.now.Load()}, &tried); err == nil {
				s.answered(b.now.Load())
				s.Release(Succeeded)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", a, n)
		}
	}
}
