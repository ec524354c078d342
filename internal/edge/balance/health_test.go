package balance

import (
	"context"
	"errors"
	"iter"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

func checked(spec *v1.OriginPoolSpec) *v1.OriginPoolSpec {
	spec.Health.Path = "/healthz"
	return spec
}

// prober answers checks and counts them.
type prober struct {
	mu    sync.Mutex
	down  map[string]bool
	count map[string]int
	hosts map[string]string
}

func (p *prober) probe(_ context.Context, address, host, path string) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count[address]++
	p.hosts[address] = host
	if path != "/healthz" || p.down[address] {
		return 0, errors.New("down")
	}
	return 200, nil
}

func (p *prober) set(address string, down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down[address] = down
}

func (p *prober) counted(address string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count[address]
}

func live(m map[bundle.Key]*v1.OriginPoolSpec) iter.Seq2[bundle.Key, *v1.OriginPoolSpec] {
	return maps.All(m)
}

func TestActiveChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &prober{down: map[string]bool{}, count: map[string]int{}, hosts: map[string]string{}}
		spec := checked(poolSpec(v1.LeastRequest, tierSpec("home", 2, 100, 0), tierSpec("next", 1, 0, 0)))
		r := newRig(t, nil)
		r.origins.probe = p.probe
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		// Two pools of one organization with the same origins are checked once.
		other := checked(poolSpec(v1.Random, tierSpec("home", 2, 100, 0)))
		r.compile(t, map[string]*v1.OriginPoolSpec{"shop": spec, "other": other})
		state := func(pool, origin int) string { return r.Status()[pool].Tiers[0].Origins[origin].State }
		time.Sleep(100 * time.Second)
		if n := p.counted("home-0:80"); n < 18 || n > 23 {
			t.Errorf("%d checks in 100 s, want about 20", n)
		}
		if p.hosts["home-0:80"] != "home-0" {
			t.Errorf("host %q", p.hosts["home-0:80"])
		}
		p.set("home-0:80", true)
		time.Sleep(8 * time.Second)
		if state(1, 0) != "well" {
			t.Error("down after two failed checks, want three")
		}
		time.Sleep(9 * time.Second)
		if state(0, 0) != "down" || state(1, 0) != "down" || state(1, 1) != "well" {
			t.Errorf("%s %s %s", state(0, 0), state(1, 0), state(1, 1))
		}
		if st := r.Status()[1].Tiers[0]; st.Limit != 50 || st.State != "partly" {
			t.Errorf("a tier with half its origins is %s and takes %d of 100", st.State, st.Limit)
		}
		was := p.counted("home-0:80")
		time.Sleep(10 * time.Second)
		if n := p.counted("home-0:80") - was; n < 14 || n > 18 {
			t.Errorf("%d checks in 10 s of an origin that is down, want about 16", n)
		}
		r.pools["org/shop"].eject(r.pools["org/shop"].plan[0].state, r.pools["org/shop"].byAddr["home-0:80"])
		p.set("home-0:80", false)
		time.Sleep(1500 * time.Millisecond)
		if state(1, 0) != "well" || state(0, 0) != "well" {
			t.Error("still down, or ejected, after two good checks")
		}
		// A change keeps what the checks found, and ends those that nobody needs.
		p.set("home-1:80", true)
		time.Sleep(20 * time.Second)
		spec2 := checked(poolSpec(v1.RoundRobin, tierSpec("home", 2, 100, 0)))
		r.compile(t, map[string]*v1.OriginPoolSpec{"shop": spec2})
		if state(1, 1) != "down" {
			t.Error("a reload forgot that an origin is down")
		}
		before := p.counted("next-0:80")
		time.Sleep(time.Minute)
		if n := p.counted("next-0:80"); n > before+1 {
			t.Errorf("%d more checks of an origin that is gone", n-before)
		}
		// A pool that no site names goes after its grace, and its checks with it.
		if err := r.Sweep(live(nil)); err != nil {
			t.Error(err)
		}
		time.Sleep(59 * time.Second)
		if len(r.Status()) != 2 {
			t.Error("dropped before its grace was over")
		}
		time.Sleep(3 * time.Second)
		if n := len(r.Status()); n != 0 {
			t.Errorf("%d pools after their grace", n)
		}
		before = p.counted("home-0:80")
		time.Sleep(time.Minute)
		if n := p.counted("home-0:80"); n > before+1 {
			t.Errorf("%d more checks of a pool that is gone", n-before)
		}
		if len(r.origins.closed) != len(r.origins.opened) {
			t.Errorf("opened %v, closed %v", r.origins.opened, r.origins.closed)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestSweepKeepsAndUpdatesWhatIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := poolSpec(v1.LeastRequest, tierSpec("home", 1, 10, 0))
		r := newRig(t, map[string]*v1.OriginPoolSpec{"shop": old, "gone": old})
		now := poolSpec(v1.LeastRequest, tierSpec("home", 1, 20, 0))
		s, _ := r.pools["org/shop"].Pick(Visitor{Now: r.clock()}, &Tried{})
		for range 3 {
			if err := r.Sweep(live(map[bundle.Key]*v1.OriginPoolSpec{"org/shop": now, "org/never-built": now})); err != nil {
				t.Error(err)
			}
			time.Sleep(40 * time.Second)
		}
		st := r.Status()
		if len(st) != 1 || st[0].Key != "org/shop" || st[0].Tiers[0].Limit != 20 || st[0].Tiers[0].InFlight != 1 {
			t.Errorf("%+v", st)
		}
		s.Release(Succeeded)
		r.idle(t)
	})
}

func TestTwoSitesShareAPool(t *testing.T) {
	spec := poolSpec(v1.LeastRequest, tierSpec("home", 1, 10, 0))
	r := newRig(t, map[string]*v1.OriginPoolSpec{"shop": spec})
	first := r.site.Parts[2].(*part).find("shop")
	copied := *spec
	r.compile(t, map[string]*v1.OriginPoolSpec{"shop": &copied})
	if r.site.Parts[2].(*part).find("shop") != first || len(r.origins.opened) != 1 {
		t.Errorf("a second pool was made: %v", r.origins.opened)
	}
}

func TestAConnectCheckAsksForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var asked []string
		down := true
		spec := poolSpec(v1.LeastRequest, tierSpec("home", 1, 0, 0), tierSpec("next", 1, 0, 0))
		spec.Health.Connect = true
		b := newBed(t, spec)
		b.origins.probe = func(_ context.Context, address, _, path string) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, path)
			if down && address == "home-0:80" {
				return 0, errors.New("refused")
			}
			return 0, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { b.checks.run(ctx) })
		time.Sleep(time.Minute)
		if s := b.must(t, Visitor{}); s.Tier() != "next" {
			t.Errorf("an origin that refuses is used: %s", s.Tier())
		}
		mu.Lock()
		down = false
		mu.Unlock()
		time.Sleep(time.Minute)
		if s := b.must(t, Visitor{}); s.Tier() != "home" {
			t.Errorf("an origin that is back is not used: %s", s.Tier())
		}
		cancel()
		wg.Wait()
		for _, path := range asked {
			if path != "" {
				t.Errorf("it asked for %q", path)
			}
		}
	})
}
