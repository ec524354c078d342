package waf

import (
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/stage"
)

func TestCPUTimeOfASiteIsBounded(t *testing.T) {
	var s spent
	const rate = 500 * time.Millisecond // in a second
	now := time.Second
	for n := range 10 { // two seconds' worth
		if s.over(now, rate) {
			t.Fatalf("over after %d", n)
		}
		s.use(now, 100*time.Millisecond, rate)
	}
	if s.over(now, rate) {
		t.Error("over at what may be used at once")
	}
	if s.use(now, time.Millisecond, rate); !s.over(now, rate) {
		t.Error("not over")
	}
	if now += 10 * time.Millisecond; s.over(now, rate) {
		t.Error("over although time has paid for it")
	}
	s.use(now, -time.Second, rate)
	s.use(now, time.Second, 0)
	if s.over(now, rate) || s.over(now, 0) {
		t.Error("what costs nothing counts")
	}
}

// TestASiteThatUsedUpItsCPUTime: what the screen cannot prove is refused, or passes where the policy says so; baskets are
// evaluated, what is proved clean passes, and a change of the documents changes nothing of that.
func TestASiteThatUsedUpItsCPUTime(t *testing.T) {
	for _, open := range []bool{false, true} {
		spec := v1.WafPolicySpec{CPU: v1.Duration(10 * time.Millisecond)}
		if open {
			spec.OnFailure = "open"
		}
		g := newRig(t, Config{}, spec)
		pt := g.site.Parts[5].(*part)
		pt.routes[0].spent.use(g.st.budgets.now(), time.Hour, pt.routes[0].cpu)
		err, m, o := g.do(request{target: "/", fields: unproved})
		if m.Code != "over-cpu" || (err == nil) != open || o.called != open {
			t.Errorf("open %v: %v %+v", open, err, m)
		}
		if !open && (stage.AsError(err).Status != 503 || stage.AsError(err).Code != "waf_over_budget") {
			t.Errorf("%+v", stage.AsError(err))
		}
		if err, m, _ := g.do(request{target: "/?q=x'+UNION+SELECT+a+FROM+users--+-", basket: true}); err == nil || m.Code != "deny" {
			t.Errorf("an attack with a basket: %v %+v", err, m)
		}
		if err, m, _ := g.do(request{target: "/"}); err != nil || m.Code != "pass" {
			t.Errorf("what is proved clean: %v %+v", err, m)
		}
		again, err := g.st.Compile(g.site, pt)
		if err != nil {
			t.Fatal(err)
		}
		g.site.Parts[5] = again
		if _, m, _ := g.do(request{target: "/", fields: unproved}); m.Code != "over-cpu" || !strings.Contains(m.Detail, "CPU time") {
			t.Errorf("after a change: %+v", m)
		}
	}
}

// TestABusySiteLeavesPlacesForOthers: without a bound of its own a site that uses more than half the CPUs has half of the
// places, and waits for one.
func TestABusySiteLeavesPlacesForOthers(t *testing.T) {
	g := newRig(t, Config{Concurrent: 4, Wait: time.Millisecond}, v1.WafPolicySpec{})
	q := request{target: "/", fields: unproved}
	p := g.site.Parts[5].(*part).routes[0]
	for range 2 {
		g.st.busy <- struct{}{}
	}
	if err, m, _ := g.do(q); err != nil || m.Code != "pass" {
		t.Errorf("not busy: %v %+v", err, m)
	}
	p.spent.use(g.st.budgets.now(), time.Hour, p.cpu)
	if err, m, o := g.do(q); stage.AsError(err) == nil || stage.AsError(err).Code != "waf_overloaded" || o.called {
		t.Errorf("busy, and no leave: %v %+v", err, m)
	}
	q.basket = true
	if err, m, _ := g.do(q); err != nil || m.Code != "pass" {
		t.Errorf("with a basket: %v %+v", err, m)
	}
	q.basket = false
	<-g.st.busy
	if err, m, _ := g.do(q); err != nil || m.Code != "pass" || len(g.st.busy) != 1 || len(g.st.common) != 0 {
		t.Errorf("busy, with leave: %v %+v, %d and %d taken", err, m, len(g.st.busy), len(g.st.common))
	}
}
