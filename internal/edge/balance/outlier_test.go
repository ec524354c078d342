package balance

import (
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
)

// interval plays an interval: n answers of each origin, of which bad[i] fail, after took[i] milliseconds.
func (b *bed) interval(n int, bad, took map[int]int) {
	for i, m := range b.plan[0].members {
		for k := range n {
			s := Slot{pool: b.Pool, tier: b.plan[0].state, origin: m.o, began: b.now.Load(), counts: true}
			ms := took[i]
			if ms == 0 {
				ms = 20
			}
			s.answered(b.now.Load() + int64(ms)*1e6)
			out := Succeeded
			if k < bad[i] {
				out = Failed
			}
			b.judge(s.tier, s.origin, out)
		}
	}
	b.pass(10 * time.Second)
	b.tick(b.now.Load())
}

func (b *bed) states() (list []string) {
	for _, o := range b.status().Tiers[0].Origins {
		list = append(list, o.State)
	}
	return list
}

func outlierSpec(n int) *v1.OriginPoolSpec {
	spec := poolSpec(v1.LeastRequest, tierSpec("home", n, 0, 0))
	p := &spec.Health.Passive
	p.ConsecutiveFailures, p.Interval, p.MinRequests, p.Ejection = new(0), v1.Duration(10*time.Second), 20, v1.Duration(30*time.Second)
	return spec
}

func TestOutliersBySuccessRate(t *testing.T) {
	for _, c := range []struct {
		name string
		bad  map[int]int
		n    int
		rate v1.Percent
		want map[int]bool
	}{
		{"one that fails often", map[int]int{1: 40}, 100, 80, map[int]bool{1: true}},
		{"off", map[int]int{1: 40}, 100, 0, nil},
		{"not often enough", map[int]int{1: 15}, 100, 80, nil},
		{"too few answers", map[int]int{1: 10}, 19, 80, nil},
		{"a fault of all", map[int]int{0: 50, 1: 60, 2: 50, 3: 50, 4: 50, 5: 50}, 100, 80, nil},
		{"the worst of more than may go", map[int]int{0: 30, 1: 90, 2: 80}, 100, 80, map[int]bool{1: true, 2: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := outlierSpec(6)
			spec.Health.Passive.SuccessRate, spec.Health.Passive.MaxEjected = c.rate, new(v1.Percent(34))
			b := newBed(t, spec)
			b.tick(b.now.Load())
			b.interval(c.n, nil, nil)
			b.interval(c.n, c.bad, nil)
			for i, s := range b.states() {
				if (s == "ejected") != c.want[i] {
					t.Errorf("home-%d is %s", i, s)
				}
			}
			b.pass(31 * time.Second)
			b.interval(c.n, nil, nil)
			for i, s := range b.states() {
				if s != "well" {
					t.Errorf("after its ejection home-%d is %s", i, s)
				}
			}
		})
	}
}

func TestOutliersByLatency(t *testing.T) {
	for _, c := range []struct {
		name    string
		origins int
		took    map[int]int
		n       int
		factor  int
		want    map[int]bool
	}{
		{"one that is slow", 6, map[int]int{2: 100}, 50, 3, map[int]bool{2: true}},
		{"off", 6, map[int]int{2: 100}, 50, 0, nil},
		{"not slow enough", 6, map[int]int{2: 50}, 50, 3, nil},
		{"too few to compare with", 2, map[int]int{1: 500}, 50, 3, nil},
		{"too few answers", 6, map[int]int{2: 100}, 19, 3, nil},
		{"all are slow", 6, map[int]int{0: 100, 1: 100, 2: 100, 3: 100, 4: 100, 5: 100}, 50, 3, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := outlierSpec(c.origins)
			spec.Health.Passive.LatencyFactor = c.factor
			b := newBed(t, spec)
			b.tick(b.now.Load())
			b.interval(c.n, nil, c.took)
			for i, s := range b.states() {
				if (s == "ejected") != c.want[i] {
					t.Errorf("home-%d is %s", i, s)
				}
			}
		})
	}
}

func TestBelowThePanicShareAllAreUsed(t *testing.T) {
	for _, c := range []struct {
		panic v1.Percent
		down  int
		want  bool
	}{{0, 4, false}, {0, 5, false}, {0, 6, true}, {50, 3, false}, {50, 4, true}, {100, 1, true}, {100, 0, false}} {
		spec := poolSpec(v1.RoundRobin, tierSpec("home", 4, 100, 0), tierSpec("next", 2, 100, 0))
		spec.Health.Panic = c.panic
		spec.Health.Connect = true
		b := newBed(t, spec)
		for i := range c.down {
			b.plan[i/4].members[i%4].o.check.up.Store(false)
		}
		w := b.refresh(b.now.Load())
		if w.panicked != c.want {
			t.Errorf("panic %s, %d of 6 down: %t", c.panic, c.down, w.panicked)
		}
		if c.want && len(b.share(t, 8)) != 4 {
			t.Errorf("panic %s: not all of the first tier were used", c.panic)
		}
	}
}

func TestNeverMoreRetriesThanTheirLimit(t *testing.T) {
	spec := poolSpec(v1.RoundRobin, tierSpec("home", 4, 0, 0))
	spec.Retries.InFlight = 2
	b := newBed(t, spec)
	for range 100 {
		b.must(t, Visitor{})
	}
	n := 0
	for b.Retry() {
		n++
	}
	if n != 2 {
		t.Errorf("%d retries under way beside 100 tries, the limit is 2", n)
	}
}
