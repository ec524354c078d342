package snapshot

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// recorder counts what it builds and hands a state on from site to site.
type recorder struct {
	built atomic.Int64
	fail  func(s *Site) error
}

func (r *recorder) Materialise(s, old *Site) error {
	r.built.Add(1)
	if r.fail != nil {
		if err := r.fail(s); err != nil {
			return err
		}
	}
	s.Parts = []any{1}
	if old != nil {
		s.Parts = []any{old.Parts[0].(int) + 1}
	}
	return nil
}

func site(name string, hosts ...string) *bundle.Site {
	return &bundle.Site{
		Key: bundle.NewKey("demo", name), Hostnames: hosts,
		Routes: []v1.Route{{Name: "route-1", Pool: "shop"}},
		Pools:  map[string]*v1.OriginPoolSpec{"shop": {Tiers: []v1.Tier{{Origins: []v1.Origin{{Address: "10.0.0.1:80"}}}}}},
	}
}

func on(s *bundle.Site, listeners ...bundle.Key) *bundle.Site {
	s.Listeners = listeners
	return s
}

func build(old *Table, m Materialiser, sites ...*bundle.Site) *Table {
	return Build(&bundle.Bundle{Format: bundle.Format, Sites: sites}, old, m)
}

func name(e *Entry) string {
	if e == nil {
		return ""
	}
	_, n := e.Key().Split()
	return n
}

func TestLookupTakesExactThenLongestWildcardThenAny(t *testing.T) {
	table := build(nil, &recorder{},
		site("exact", "shop.example.com"),
		site("wild", "*.example.com"),
		site("deep", "*.eu.example.com"),
		on(site("internal", "admin.example.com", "*.corp"), "default/internal"),
		on(site("external", "admin.example.com"), "default/external"),
		on(site("all", "*"), "default/web", "default/internal"),
	)
	for _, c := range []struct{ host, listener, want string }{
		{"shop.example.com", "default/web", "exact"},
		{"www.example.com", "default/web", "wild"},
		{"a.b.example.com", "default/web", "wild"},
		{"a.eu.example.com", "default/web", "deep"},
		{"a.b.eu.example.com", "default/web", "deep"},
		{"eu.example.com", "default/web", "wild"},
		{"example.com", "default/web", "all"},
		{"example.com", "default/external", ""},
		{"xexample.com", "default/web", "all"},
		{"admin.example.com", "default/internal", "internal"},
		{"admin.example.com", "default/external", "external"},
		{"admin.example.com", "default/web", "wild"},
		{"x.corp", "default/internal", "internal"},
		{"x.corp", "default/web", "all"},
		{"", "default/web", "all"},
		{".", "default/web", "all"},
		{".example.com", "default/web", "all"},
		{"*.example.com", "default/web", "wild"},
		{strings.Repeat("a.", 200) + "example.com", "default/web", "all"},
	} {
		if got := name(table.Lookup([]byte(c.host), bundle.Key(c.listener))); got != c.want {
			t.Errorf("%s on %s: site %q, want %q", c.host, c.listener, got, c.want)
		}
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	table := build(nil, &recorder{}, site("a", "a.example.com"), site("w", "*.w.example.com"), site("all", "*"))
	for _, host := range []string{"a.example.com", "x.y.w.example.com", "else.where"} {
		h := []byte(host)
		if n := testing.AllocsPerRun(100, func() { table.Lookup(h, "default/web") }); n != 0 {
			t.Errorf("%s: %v allocations", host, n)
		}
	}
}

func TestWithAndWithoutLeaveTheTableBeforeAsItWas(t *testing.T) {
	m := &recorder{}
	t0 := build(nil, m, site("a", "a.test", "*.a.test", "*"), site("b", "b.test"))
	t1 := t0.With(site("a", "a2.test"))
	t2 := t1.With(site("c", "c.test", "*.c.test"))
	t3 := t2.Without("demo/b").Without("demo/none")
	for _, c := range []struct {
		table *Table
		host  string
		want  string
	}{
		{t0, "a.test", "a"},
		{t0, "x.a.test", "a"},
		{t0, "else", "a"},
		{t0, "a2.test", "a"},
		{t0, "b.test", "b"},
		{t1, "a.test", ""},
		{t1, "x.a.test", ""},
		{t1, "else", ""},
		{t1, "a2.test", "a"},
		{t1, "b.test", "b"},
		{t2, "x.c.test", "c"},
		{t2, "b.test", "b"},
		{t3, "b.test", ""},
		{t3, "c.test", "c"},
		{t3, "a2.test", "a"},
	} {
		if got := name(c.table.Lookup([]byte(c.host), "l")); got != c.want {
			t.Errorf("%s: site %q, want %q", c.host, got, c.want)
		}
	}
	for i, want := range []int{2, 2, 3, 2} {
		if got := []*Table{t0, t1, t2, t3}[i].Sites(); got != want {
			t.Errorf("table %d: %d sites, want %d", i, got, want)
		}
	}
	if t1.wild != 0 || t2.wild != 1 {
		t.Errorf("wildcards: %d and %d, want 0 and 1", t1.wild, t2.wild)
	}
	if t3.With(site("c", "c.test", "*.c.test")) != t3 {
		t.Error("a site that did not change must give the same table")
	}
}

func TestTwoSitesOfOneHostStayApartWhenOneGoes(t *testing.T) {
	table := build(nil, &recorder{}, on(site("x", "h.test", "*"), "l/x"), on(site("y", "h.test", "*"), "l/y")).Without("demo/x")
	if e := table.Lookup([]byte("h.test"), "l/x"); e != nil {
		t.Errorf("l/x: %s", name(e))
	}
	for _, h := range []string{"h.test", "any"} {
		if got := name(table.Lookup([]byte(h), "l/y")); got != "y" {
			t.Errorf("%s on l/y: %q", h, got)
		}
	}
}

func TestASiteIsBuiltOnceAtItsFirstUse(t *testing.T) {
	m := &recorder{}
	table := build(nil, m, site("a", "a.test"), site("b", "b.test"))
	e := table.Lookup([]byte("a.test"), "l")
	if e.Built() != nil {
		t.Error("built before its first use")
	}
	var wg sync.WaitGroup
	var sites [16]*Site
	for i := range sites {
		wg.Go(func() { sites[i], _ = e.Site() })
	}
	wg.Wait()
	for _, s := range sites {
		if s == nil || s != sites[0] {
			t.Fatal("calls at the same time got different sites")
		}
	}
	if n := m.built.Load(); n != 1 {
		t.Errorf("built %d times", n)
	}
	if s := sites[0]; s.Organization != "demo" || s.Name != "a" || s.Routes[0].Name != "route-1" || s.Routes[0].Spec != &s.Spec.Routes[0] || e.Built() != s {
		t.Errorf("site is %+v", s)
	}
}

func TestReloadRebuildsOnlyWhatChanged(t *testing.T) {
	m := &recorder{}
	t0 := build(nil, m, site("a", "a.test"), site("b", "b.test"))
	for _, k := range []bundle.Key{"demo/a", "demo/b"} {
		if _, err := t0.Entry(k).Site(); err != nil {
			t.Fatal(err)
		}
	}
	changed := site("b", "b.test")
	changed.Pools["shop"].Tiers[0].Origins[0].Address = "10.0.0.2:80"
	t1 := build(t0, m, site("a", "a.test"), changed)
	if t1.Entry("demo/a") != t0.Entry("demo/a") {
		t.Error("a did not change and has a new entry")
	}
	if t1.Entry("demo/b") == t0.Entry("demo/b") {
		t.Error("b changed and has its old entry")
	}
	s, err := t1.Entry("demo/b").Site()
	if err != nil || s.Parts[0] != 2 {
		t.Errorf("b got no state of the site before: %v, %v", s.Parts, err)
	}
	if n := m.built.Load(); n != 3 {
		t.Errorf("built %d times, want 3", n)
	}
}

func TestStateIsHandedOnOverSitesThatNobodyVisited(t *testing.T) {
	m := &recorder{}
	table := build(nil, m, site("a", "a.test"))
	if _, err := table.Entry("demo/a").Site(); err != nil {
		t.Fatal(err)
	}
	first := table.Entry("demo/a")
	for i := range 50 {
		table = table.With(site("a", "a.test", fmt.Sprintf("a%d.test", i)))
	}
	e := table.Entry("demo/a")
	depth := 0
	for p := e.before.Load(); p != nil; p = p.before.Load() {
		depth++
	}
	if depth > 2 {
		t.Errorf("a chain of %d entries is kept", depth)
	}
	s, err := e.Site()
	if err != nil || s.Parts[0] != 2 {
		t.Errorf("parts %v, error %v; want the state of the first site", s.Parts, err)
	}
	if e.before.Load() != nil || first.Built() == nil {
		t.Error("the entry before must be let go once its state is taken over")
	}
}

func TestAnErrorKeepsTheOldSiteAndIsReportedOnce(t *testing.T) {
	boom := errors.New("no such rule")
	m := &recorder{fail: func(s *Site) error {
		switch len(s.Spec.Hostnames) {
		case 2:
			return boom
		case 3:
			panic("nil map")
		}
		return nil
	}}
	table := build(nil, m, site("a", "a.test"))
	good, err := table.Entry("demo/a").Site()
	if err != nil {
		t.Fatal(err)
	}
	table = table.With(site("a", "a.test", "b.test"))
	e := table.Entry("demo/a")
	for range 2 {
		s, err := e.Site()
		if s != good || !errors.Is(err, boom) || !strings.Contains(err.Error(), "demo/a") {
			t.Errorf("site %v, error %v; want the old site and the error with its site", s, err)
		}
	}
	if !e.Report() || e.Report() {
		t.Error("the error is to be reported by exactly one caller")
	}
	if n := m.built.Load(); n != 2 {
		t.Errorf("built %d times, want 2: an error is remembered", n)
	}
	s, err := table.With(site("a", "a.test", "b.test", "c.test")).Entry("demo/a").Site()
	if s != good || err == nil || !strings.Contains(err.Error(), "nil map") {
		t.Errorf("a panic: site %v, error %v", s, err)
	}
	s, err = build(nil, m, site("n", "a.test", "b.test")).Entry("demo/n").Site()
	if s != nil || err == nil {
		t.Errorf("without an old site: %v, %v", s, err)
	}
}

func TestCurrentSwaps(t *testing.T) {
	var c Current
	if c.Load() != nil {
		t.Error("a table before the first")
	}
	a, b := build(nil, &recorder{}), build(nil, &recorder{})
	if c.Swap(a) != nil || c.Swap(b) != a || c.Load() != b {
		t.Error("Swap must put the table into use and give the one before")
	}
}

func TestReadersAreNotDisturbedByChanges(t *testing.T) {
	m := &recorder{}
	var c Current
	c.Swap(build(nil, m, site("a", "a.test"), site("b", "b.test")))
	var wg sync.WaitGroup
	var stop atomic.Bool
	for range 2 {
		wg.Go(func() {
			for !stop.Load() {
				e := c.Load().Lookup([]byte("a.test"), "l")
				if e == nil {
					t.Error("a.test was not found during a change")
					return
				}
				if s, err := e.Site(); s == nil || err != nil {
					t.Error(s, err)
					return
				}
			}
		})
	}
	for i := range 300 {
		c.Swap(c.Load().With(site("a", "a.test", fmt.Sprintf("x%d.test", i))).With(site("b", fmt.Sprintf("b%d.test", i))))
	}
	stop.Store(true)
	wg.Wait()
}

func manySites(n int) []*bundle.Site {
	sites := make([]*bundle.Site, n)
	for i := range sites {
		sites[i] = site(fmt.Sprintf("s%d", i), fmt.Sprintf("s%d.example.com", i), fmt.Sprintf("*.s%d.example.com", i))
	}
	return sites
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		table := build(nil, &recorder{}, manySites(n)...)
		hosts := make([][]byte, 64)
		wild := make([][]byte, 64)
		for i := range hosts {
			hosts[i] = fmt.Appendf(nil, "s%d.example.com", i*n/64)
			wild[i] = fmt.Appendf(nil, "www.s%d.example.com", i*n/64)
		}
		for kind, list := range map[string][][]byte{"exact": hosts, "wildcard": wild} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if table.Lookup(list[i&63], "default/web") == nil {
						b.Fatal("not found")
					}
					i++
				}
			})
		}
	}
}

func BenchmarkSwapOneSite(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var c Current
			c.Swap(build(nil, &recorder{}, manySites(n)...))
			one := [2]*bundle.Site{site("s7", "s7.example.com"), site("s7", "s7.example.com", "t7.example.com")}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				c.Swap(c.Load().With(one[i&1]))
				i++
			}
		})
	}
}

func BenchmarkBuild10kSites(b *testing.B) {
	sites := manySites(10_000)
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			build(nil, &recorder{}, sites...)
		}
	})
	again := manySites(10_000)
	old := build(nil, &recorder{}, sites...)
	b.Run("reload", func(b *testing.B) {
		for b.Loop() {
			build(old, &recorder{}, again...)
		}
	})
}
