package balance

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// zone is what DNS says, in a test.
type dnsZone struct {
	mu    sync.Mutex
	names map[string][]string
	asked int
}

func (z *dnsZone) set(name string, addresses ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.names[name] = addresses
}

func (z *dnsZone) resolve(o *v1.Origin) (list []v1.Origin, err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked++
	addresses, ok := z.names[o.Address+o.SRV]
	if !ok {
		return nil, errors.New("no such host")
	}
	for i, a := range addresses {
		f := v1.Origin{Address: a}
		if o.SRV != "" {
			f.Weight = new(i + 1)
		}
		list = append(list, f)
	}
	return list, nil
}

func namedSpec() *v1.OriginPoolSpec {
	spec := poolSpec(v1.RoundRobin, v1.Tier{Name: "home", Origins: []v1.Origin{
		{Address: "shop.test:80", Expand: true, Weight: new(1), Zone: "a"}, {SRV: "_http._tcp.shop.test", Weight: new(1)},
	}})
	spec.Discovery.Interval = v1.Duration(10 * time.Second)
	return spec
}

func TestOriginsAreWhatDNSSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &dnsZone{names: map[string][]string{"shop.test:80": {"10.0.0.1:80", "10.0.0.2:80"}, "_http._tcp.shop.test": {"x.shop.test:81", "y.shop.test:82"}}}
		r := newRig(t, nil)
		r.origins.resolve = z.resolve
		specs := map[bundle.Key]*v1.OriginPoolSpec{"org/shop": namedSpec()}
		if err := r.Prepare(t.Context(), maps.All(specs)); err != nil {
			t.Fatal(err)
		}
		r.compile(t, map[string]*v1.OriginPoolSpec{"shop": specs["org/shop"], "same": namedSpec()})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		addresses := func() (list []string) {
			for _, o := range r.Status()[1].Tiers[0].Origins {
				list = append(list, o.Address)
			}
			slices.Sort(list)
			return list
		}
		want := func(why string, list ...string) {
			t.Helper()
			if got := addresses(); !slices.Equal(got, list) {
				t.Errorf("%s: %v, want %v", why, got, list)
			}
		}
		want("found before the documents were in service", "10.0.0.1:80", "10.0.0.2:80", "x.shop.test:81", "y.shop.test:82")
		s, err := r.pools["org/shop"].Pick(Visitor{Now: r.clock()}, &Tried{})
		if err != nil {
			t.Fatal(err)
		}
		p := r.pools["org/shop"]
		if m := p.plan[0].members; m[3].weight != 2 || m[0].o.zone != "a" || m[0].o.host != "shop.test:80" || m[3].o.host != "y.shop.test:82" {
			t.Errorf("%+v", m)
		}
		z.set("shop.test:80", "10.0.0.2:80", "10.0.0.3:80")
		time.Sleep(12 * time.Second)
		want("one came and one went", "10.0.0.2:80", "10.0.0.3:80", "x.shop.test:81", "y.shop.test:82")
		s.Release(Succeeded)
		z.set("shop.test:80")
		z.mu.Lock()
		delete(z.names, "_http._tcp.shop.test")
		z.mu.Unlock()
		time.Sleep(time.Minute)
		want("a name that is gone, or resolves to nothing", "10.0.0.2:80", "10.0.0.3:80", "x.shop.test:81", "y.shop.test:82")
		if st := r.Status()[1].Names; len(st) != 2 || st[1].Found != 2 || st[1].Error != errNothing.Error() || st[0].Error != "no such host" {
			t.Errorf("%+v", st)
		}
		z.mu.Lock()
		before := z.asked
		z.mu.Unlock()
		time.Sleep(100 * time.Second)
		z.mu.Lock()
		if n := z.asked - before; n < 17 || n > 24 {
			t.Errorf("two names were looked at %d times in 100 s by two pools together, want about 20", n)
		}
		z.mu.Unlock()
		// Whoever is not named any more is not asked for.
		r.compile(t, map[string]*v1.OriginPoolSpec{"shop": poolSpec(v1.RoundRobin, tierSpec("home", 1, 0, 0)), "same": poolSpec(v1.RoundRobin, tierSpec("home", 1, 0, 0))})
		z.mu.Lock()
		before = z.asked
		z.mu.Unlock()
		time.Sleep(time.Minute)
		z.mu.Lock()
		if r.names.mu.Lock(); z.asked != before || len(r.names.byKey) != 0 {
			t.Errorf("asked %d times more, %d names are left", z.asked-before, len(r.names.byKey))
		}
		r.names.mu.Unlock()
		z.mu.Unlock()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestAPoolWhoseNameResolvesToNothingSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &dnsZone{names: map[string][]string{"_http._tcp.shop.test": {}}}
		r := newRig(t, nil)
		r.origins.resolve = z.resolve
		spec := namedSpec()
		if err := r.Prepare(t.Context(), maps.All(map[bundle.Key]*v1.OriginPoolSpec{"org/shop": spec})); err != nil {
			t.Fatal(err)
		}
		r.compile(t, map[string]*v1.OriginPoolSpec{"shop": spec})
		if _, err := r.pools["org/shop"].Pick(Visitor{Now: r.clock()}, &Tried{}); !errors.Is(err, ErrNone) {
			t.Errorf("%v", err)
		}
		st := r.Status()[0]
		if len(st.Names) != 2 || st.Names[0].Error == "" || st.Names[1].Error == "" {
			t.Errorf("%+v", st)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		z.set("shop.test:80", "10.0.0.9:80")
		time.Sleep(3 * time.Second) // soon again, as there is none
		if _, err := r.pools["org/shop"].Pick(Visitor{Now: r.clock()}, &Tried{}); err != nil {
			t.Error(err)
		}
		cancel()
		<-done
		if err := r.Sweep(maps.All(map[bundle.Key]*v1.OriginPoolSpec{})); err != nil {
			t.Error(err)
		}
	})
}
