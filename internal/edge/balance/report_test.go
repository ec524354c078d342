package balance

import (
	"context"
	"math"
	"slices"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

func TestAReportPlusWhatWasSentSinceFillsATier(t *testing.T) {
	b := newBed(t, poolSpec(v1.RoundRobin, tierSpec("home", 2, 0, 0), tierSpec("next", 1, 0, 0)))
	home := b.plan[0].state
	look := func() {
		for range laggardLook {
			b.observe(b.now.Load(), second)
		}
	}
	var held []Slot
	for range 4 {
		held = append(held, b.must(t, Visitor{Class: stage.Known}))
	}
	// Each origin has two of ours and ten of others, of the twenty that it works on.
	for i := range 2 {
		held[i].Reported(Load{InFlight: 12, Limit: 20, Utilization: -1}, b.now.Load())
	}
	look()
	if got := home.others.Load(); got != 20 {
		t.Fatalf("%d of others, want 20", got)
	}
	if m := home.marks.Load(); m.soft != 40 || m.limit != 48 || m.basket != 72 {
		t.Fatalf("marks %+v", m)
	}
	n := 0
	for {
		s := b.must(t, Visitor{})
		if s.Tier() != "home" {
			if s.Spill() != "soft" {
				t.Errorf("spill %q", s.Spill())
			}
			s.Release(Succeeded)
			break
		}
		held = append(held, s)
		n++
	}
	if n != 16 { // 40 less 20 of others and 4 of ours
		t.Errorf("%d new visitors came in, want 16", n)
	}
	if st := b.status().Tiers[0]; st.Limit != 48 || !st.Found || st.Others != 20 {
		t.Errorf("status %+v", st)
	}
	// What came back since is free, without another report.
	for _, s := range held {
		s.Release(Succeeded)
	}
	if s := b.must(t, Visitor{}); s.Tier() != "home" {
		t.Error("what came back did not count")
	}
	// A report that is old counts no more.
	b.pass(3 * time.Second)
	look()
	if home.others.Load() != 0 || home.marks.Load().limit != math.MaxInt64 {
		t.Errorf("an old report counts: %d of others, %+v", home.others.Load(), home.marks.Load())
	}
}

func TestAReportThatLiesIsBounded(t *testing.T) {
	for name, l := range map[string]Load{
		"a huge load":  {InFlight: 10_000_000, Limit: 1, Utilization: 100},
		"a huge limit": {InFlight: 0, Limit: 10_000_000, Utilization: 0},
	} {
		spec := poolSpec(v1.RoundRobin, tierSpec("home", 1, 10, 0), tierSpec("next", 1, 0, 0))
		b := newBed(t, spec)
		s := b.must(t, Visitor{Class: stage.Known})
		s.Reported(l, b.now.Load())
		for range laggardLook {
			b.observe(b.now.Load(), second)
		}
		s.Release(Succeeded)
		n := 0
		for range 100 {
			if s := b.must(t, Visitor{Class: stage.Known}); s.Tier() == "home" {
				n++
			}
		}
		// What is told stays the bound; one that says that it is full gets nothing until its report is old.
		if n > 11 || name == "a huge load" && n > 0 {
			t.Errorf("%s: %d came in", name, n)
		}
		b.pass(3 * time.Second)
		for range laggardLook {
			b.observe(b.now.Load(), second)
		}
		if o := b.plan[0].state.others.Load(); o != 0 {
			t.Errorf("%s: %d of others stay", name, o)
		}
		// The origin goes, and comes into another tier.
		spec2 := poolSpec(v1.RoundRobin, tierSpec("next", 1, 0, 0), tierSpec("home", 1, 10, 0))
		s = b.must(t, Visitor{Class: stage.Known})
		s.Reported(l, b.now.Load())
		spec2.Tiers[0].Origins, spec2.Tiers[1].Origins = spec.Tiers[0].Origins, spec.Tiers[1].Origins
		b.apply(t, spec2)
		s.Reported(l, b.now.Load()) // too late
		for i := range b.plan {
			if o := b.plan[i].state.others.Load(); o != 0 {
				t.Errorf("%s: %s knows of %d others after the change", name, b.plan[i].state.name, o)
			}
		}
	}
}

func TestUtilizationFindsALimit(t *testing.T) {
	l := useLimit{size: math.Inf(1)}
	now, refused := int64(0), uint64(0)
	step := func(use float64) {
		now += int64(tick)
		l.step(now, use, load{refused: refused, inFlight: 100})
	}
	step(0.5)
	if !math.IsInf(l.size, 1) {
		t.Fatal("a limit without need")
	}
	for range 40 {
		step(1.2)
	}
	if l.size >= 80 || l.size < leastSize {
		t.Errorf("a second above: %v", l.size)
	}
	low := l.size
	for range 40 {
		refused++
		step(0.6)
	}
	if l.size <= low {
		t.Error("it does not grow although visitors are sent away")
	}
	step(-1)
	if !math.IsInf(l.size, 1) {
		t.Error("nobody reports, and the limit stays")
	}
}

func TestReportsAreHeardAndKeptFromVisitors(t *testing.T) {
	r := newRig(t, map[string]*v1.OriginPoolSpec{"shop": poolSpec(v1.LeastRequest, tierSpec("home", 1, 0, 0), tierSpec("next", 1, 0, 0))})
	pool := r.pools["org/shop"]
	o := pool.byAddr["home-0:80"]
	answers := func() (n uint64) { // of the tier that count
		of := &pool.tiers["home"].kinds.of
		for i := range of {
			n += of[i].count.Load()
		}
		return n
	}
	for _, c := range []struct {
		id       message.ID
		value    string
		status   int
		limit    int64
		refused  bool
		answered bool
	}{
		{message.RelaisLoad, "inflight=7, limit=50", 200, 50, false, true},
		{message.EndpointLoadMetrics, `JSON {"named_metrics":{"inflight":3,"limit":40}}`, 200, 40, false, true},
		{message.EndpointLoadMetrics, "TEXT mem_utilization=0.4", 200, 40, false, true},
		{message.RelaisLoad, "inflight=-7, limit=50", 200, 40, true, true},
		{message.RelaisLoad, "inflight=7, limit=60", 503, 60, false, false},
	} {
		var x stage.Exchange
		r.prepare(&x, "GET", nil)
		before := answers()
		resp, err := r.Serve(t.Context(), &x, next(func(_ context.Context, x *stage.Exchange) (*message.Response, error) {
			x.Lap()
			resp := &message.Response{Status: c.status}
			resp.AddString(c.id, c.value)
			return resp, nil
		}))
		if err != nil || resp.Has(c.id) {
			t.Fatalf("%s: %v; the visitor is told", c.value, err)
		}
		if got := o.report.limit.Load(); got != c.limit {
			t.Errorf("%s: limit %d, want %d", c.value, got, c.limit)
		}
		if slices.Contains(codes(&x), "load-report-refused") != c.refused {
			t.Errorf("%s: %v", c.value, codes(&x))
		}
		if (answers() > before) != c.answered {
			t.Errorf("%s: an answer of %d counts: %v", c.value, c.status, !c.answered)
		}
		x.End(message.Outcome{})
	}
}

func TestFollowingAnswersAllocatesNothing(t *testing.T) {
	b := newBed(t, poolSpec(v1.LeastRequest, tierSpec("home", 20, 0, 0), tierSpec("next", 1, 0, 0)))
	var tried Tried
	now := b.now.Load()
	if n := testing.AllocsPerRun(500, func() {
		now += ms
		s, err := b.Pick(Visitor{Key: 5, Now: now, Class: stage.Protected, Tier: "home"}, &tried)
		if err != nil {
			t.Fatal(err)
		}
		s.paced(now + 20*ms)
		s.Reported(Load{3, 8, .5}, now+20*ms)
		s.Release(Succeeded)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// An origin of ten that claims to have ten million requests does not empty its tier.
func TestAReportThatLiesTakesItsOwnPartOnly(t *testing.T) {
	b := newBed(t, poolSpec(v1.RoundRobin, tierSpec("home", 10, 0, 0), tierSpec("next", 1, 0, 0)))
	look := func() {
		for range laggardLook {
			b.observe(b.now.Load(), second)
		}
	}
	for i := range 10 {
		s := b.must(t, Visitor{Class: stage.Known})
		l := Load{InFlight: 1, Limit: 20, Utilization: -1}
		if i == 3 {
			l.InFlight = 10_000_000
		}
		s.Reported(l, b.now.Load())
		s.Release(Succeeded)
	}
	look()
	n := 0
	for range 300 {
		if s := b.must(t, Visitor{Class: stage.Known}); s.Tier() == "home" {
			n++
		}
	}
	if n < 140 || n > 240 {
		t.Errorf("%d of about 200 places are left", n)
	}
}
