package meter

import (
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

func siteIn(t *testing.T, m *Meter, organization, name string) *snapshot.Site {
	t.Helper()
	s := &snapshot.Site{Organization: organization, Name: name, Parts: make([]any, stage.Slots)}
	p, err := m.Compile(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Parts[slot] = p
	return s
}

func TestHowVisitorsFare(t *testing.T) {
	m := New(slot)
	shop, blog, other := siteIn(t, m, "acme", "shop"), siteIn(t, m, "acme", "blog"), siteIn(t, m, "deli", "shop")
	answered := func(site *snapshot.Site, status int, set func(x *stage.Exchange)) {
		x := &stage.Exchange{Start: noon, In: &message.Request{}, Site: site}
		set(x)
		m.Answered(x, status)
	}
	denied := &stage.Error{Code: "http_request_denied", Side: stage.SideTenant, Status: 403}
	for _, status := range []string{"hit", "stale", "collapsed", "miss", "revalidated", "expired", "pass", "bypass"} {
		answered(shop, 200, func(x *stage.Exchange) { x.CacheStatus = status })
	}
	answered(blog, 499, func(*stage.Exchange) {})
	answered(blog, 500, func(*stage.Exchange) {})
	answered(blog, 504, func(x *stage.Exchange) { x.Visitor.Class = stage.Protected })
	answered(shop, 403, func(x *stage.Exchange) { x.Visitor.Class, x.Failure = stage.Protected, denied })
	answered(shop, 403, func(x *stage.Exchange) { x.Visitor.Bot, x.Failure = "crawler", denied })
	answered(shop, 403, func(x *stage.Exchange) { x.Visitor.Class, x.Failure = stage.Known, denied }) // a cookie is no proof
	answered(shop, 403, func(x *stage.Exchange) { x.Failure = denied })
	answered(other, 200, func(*stage.Exchange) {})
	answered(nil, 404, func(*stage.Exchange) {})

	s := m.Sample("acme")
	if s.Latency[0] != 15 {
		t.Errorf("latency %v", s.Latency)
	}
	s.Latency = [fleet.Buckets]int64{}
	if want := (fleet.Sample{Requests: 15, Errors: 2, Known: 3, Blocked: 2, Lookups: 7, Misses: 4}); s != want {
		t.Errorf("%+v\nwant %+v", s, want)
	}
	if s := m.Sample("deli"); s.Requests != 1 || s.Errors+s.Known+s.Lookups != 0 {
		t.Errorf("the neighbour's: %+v", s)
	}
	if s := m.Sample("nobody"); s != (fleet.Sample{}) {
		t.Errorf("nobody's: %+v", s)
	}
}

func TestCountsStayUntilAnOrganizationHasNoSite(t *testing.T) {
	m := New(slot)
	shop, blog := siteIn(t, m, "acme", "shop"), siteIn(t, m, "acme", "blog")
	answer := func(s *snapshot.Site) { m.Answered(&stage.Exchange{Start: noon, Site: s}, 200) }
	answer(shop)
	answer(blog)
	m.Sweep(slices.Values([]string{"acme", "acme", "deli"})) // the blog is gone
	answer(blog)                                             // it was under way
	changed := &snapshot.Site{Organization: "acme", Name: "shop", Parts: make([]any, stage.Slots)}
	changed.Parts[slot], _ = m.Compile(changed, shop.Parts[slot])
	answer(changed)
	answer(siteIn(t, m, "acme", "news"))
	if s := m.Sample("acme"); s.Requests != 5 {
		t.Errorf("%d requests", s.Requests)
	}
	m.Sweep(slices.Values([]string{"deli"}))
	answer(changed)
	if s := m.Sample("acme"); s.Requests != 0 || len(m.organizations) != 0 {
		t.Errorf("it is gone: %d requests, %d organizations", s.Requests, len(m.organizations))
	}
	answer(siteIn(t, m, "acme", "shop")) // it is back, and begins anew
	if s := m.Sample("acme"); s.Requests != 1 {
		t.Errorf("%d requests", s.Requests)
	}
}

// A table finds what a logarithm does, on the bounds too.
func TestTimesAreInTheFleetsBuckets(t *testing.T) {
	c := newClasses()
	check := func(d time.Duration) {
		if got, want := c.of(d), fleet.Bucket(float64(d)/float64(time.Millisecond)); got != want {
			t.Errorf("%v: bucket %d, want %d", d, got, want)
		}
	}
	for b := range fleet.Buckets {
		at := time.Duration(fleet.Bound(b) * float64(time.Millisecond))
		for d := at - 5; d <= at+5; d++ {
			check(d)
		}
	}
	for n := range 62 {
		check(1<<n - 1)
		check(1 << n)
	}
	check(0)
	if c.of(-time.Hour) != 0 {
		t.Error("a clock that went back")
	}
	rapid.Check(t, func(r *rapid.T) { check(time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(r, "time"))) })
}

// While many count, no part is ever more than its whole, and in the end nothing is missing.
func TestASampleOfCountsUnderWayIsWhole(t *testing.T) {
	m := New(slot)
	sites := []*snapshot.Site{siteIn(t, m, "acme", "shop"), siteIn(t, m, "acme", "blog")}
	const each = 2000
	var counting sync.WaitGroup
	for i := range 4 {
		counting.Go(func() {
			x := &stage.Exchange{Start: noon, In: &message.Request{}, Site: sites[i%2], CacheStatus: "miss"}
			x.Visitor.Class, x.Failure = stage.Protected, &stage.Error{Code: "bot_denied", Side: stage.SideTenant}
			for range each {
				m.Answered(x, 503)
			}
		})
	}
	done := make(chan struct{})
	go func() { counting.Wait(); close(done) }()
	var before fleet.Sample
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		s := m.Sample("acme")
		if s.Misses > s.Lookups || s.Lookups > s.Requests || s.Blocked > s.Known || s.Known > s.Requests || s.Errors > s.Requests || s.Requests < before.Requests {
			t.Fatalf("%+v after %+v", s, before)
		}
		before = s
		m.Sweep(slices.Values([]string{"acme"}))
	}
	if before.Requests != 4*each || before.Misses != 4*each || before.Blocked != 4*each || before.Errors != 4*each {
		t.Errorf("%+v", before)
	}
}

func TestAnsweredAllocatesNothing(t *testing.T) {
	m := New(slot)
	x := &stage.Exchange{Start: noon, In: &message.Request{}, Site: siteIn(t, m, "acme", "shop"), CacheStatus: "miss"}
	x.Visitor.Class = stage.Protected
	if n := testing.AllocsPerRun(100, func() { m.Answered(x, 500) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
