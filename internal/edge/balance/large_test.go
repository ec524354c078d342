package balance

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

func TestALargePoolIsMadeAnewBesideTheRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, poolSpec(v1.LeastRequest, tierSpec("home", 1000, 0, 0)))
		w := b.view.Load()
		s := b.must(t, Visitor{})
		b.mu.Lock() // whoever made a view now would wait
		for range 5 {
			s.pool.judge(s.tier, s.origin, Failed)
		}
		if b.must(t, Visitor{}); b.view.Load() != w {
			t.Error("the view changed while nobody could make one")
		}
		b.mu.Unlock()
		synctest.Wait()
		if w = b.view.Load(); len(w.tiers[0].members) != 999 {
			t.Errorf("%d are used, want one less than 1000", len(w.tiers[0].members))
		}
		b.pass(11 * time.Second)
		b.mu.Lock()
		b.must(t, Visitor{}) // the ejection is over, and the request does not wait
		b.mu.Unlock()
		synctest.Wait()
		if w := b.view.Load(); len(w.tiers[0].members) != 1000 {
			t.Errorf("%d are used after the ejection", len(w.tiers[0].members))
		}
	})
}

func TestARequestOfASiteDoesNotWaitForALargePool(t *testing.T) {
	spec := poolSpec(v1.LeastRequest, tierSpec("home", 1000, 0, 0))
	r := newRig(t, nil)
	live := map[bundle.Key]*v1.OriginPoolSpec{"org/shop": spec}
	yield := func(f func(bundle.Key, *v1.OriginPoolSpec) bool) {
		for k, v := range live {
			if !f(k, v) {
				return
			}
		}
	}
	if err := r.Prepare(t.Context(), yield); err != nil {
		t.Fatal(err)
	}
	if r.pools["org/shop"] == nil {
		t.Fatal("a large pool is not made before it is in service")
	}
	next := poolSpec(v1.LeastRequest, tierSpec("home", 1001, 0, 0))
	r.compile(t, map[string]*v1.OriginPoolSpec{"shop": next})
	if n := len(r.Status()[0].Tiers[0].Origins); n != 1000 {
		t.Errorf("the first request to a changed site made the pool of %d anew", n)
	}
	live["org/shop"] = next
	if err := r.Sweep(yield); err != nil {
		t.Fatal(err)
	}
	if n := len(r.Status()[0].Tiers[0].Origins); n != 1001 {
		t.Errorf("%d origins after the sweep", n)
	}
}

// BenchmarkRebuild is what a change costs, beside the requests, in a pool of 10,000 origins.
func BenchmarkRebuild(b *testing.B) {
	for _, a := range []v1.Algorithm{v1.LeastRequest, v1.ConsistentHash, "ring"} {
		for _, c := range []string{"first", "health", "weight", "one-more"} {
			b.Run(fmt.Sprintf("%s/10000/%s", a, c), func(b *testing.B) {
				even := algorithmSpec(a, tierSpec("home", 10_000, 0, 0))
				even.Health.Path = "/healthz"
				odd := algorithmSpec(a, tierSpec("home", 10_000, 0, 0))
				odd.Health.Path = "/healthz"
				switch c {
				case "weight":
					odd.Tiers[0].Origins[5000].Weight = new(2)
					even.Tiers[0].Origins[0].Weight = new(2)
					odd.Tiers[0].Origins[0].Weight = new(2)
				case "one-more":
					odd.Tiers[0].Origins = append(odd.Tiers[0].Origins, v1.Origin{Address: "more:80", Weight: new(1)})
				}
				bed := newBed(b, even)
				i := 0
				for b.Loop() {
					switch i++; c {
					case "first":
						newBed(b, even)
					case "health":
						bed.plan[0].members[5000].o.check.up.Store(i%2 == 0)
						bed.refresh(bed.now.Load())
					default:
						bed.apply(b, []*v1.OriginPoolSpec{even, odd}[i%2])
					}
				}
			})
		}
	}
}
