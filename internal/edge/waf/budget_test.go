package waf

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

func TestABudgetIsPaidBackOverTime(t *testing.T) {
	b := newBudgets(time.Second, observe.New().Counters("lost_total", "", 1).With())
	b.cpus = 4 // half a CPU for a source
	k := b.source(netip.MustParseAddr("203.0.113.7"))
	for _, c := range []struct {
		now, use time.Duration
		over     bool
	}{
		{0, 0, false},
		{0, time.Second, false},
		{0, time.Millisecond, true},
		{5 * time.Millisecond, 0, false},
		{5 * time.Millisecond, time.Second, true},
		{2010 * time.Millisecond, 0, false},
		{time.Hour, 999 * time.Millisecond, false}, // what is not used is not saved
		{time.Hour, 2 * time.Millisecond, true},
	} {
		if c.use > 0 {
			b.use(k, c.now, c.use)
		}
		if got := b.over(k, c.now); got != c.over {
			t.Errorf("at %v after %v: over is %v", c.now, c.use, got)
		}
	}
}

func TestAnEvaluationTakesCPUTime(t *testing.T) {
	g := newRig(t, Config{}, v1.WafPolicySpec{})
	x := g.exchange(attacks[0].q)
	var r sheet
	r.fill(x, nil, false)
	pt := g.site.Parts[5].(*part)
	q := &question{part: pt, policy: pt.routes[0], x: x, sheet: &r}
	var all time.Duration
	start := time.Now()
	for range 20 {
		v, used, err := q.judged()
		if err != nil || !v.deny || used < 0 {
			t.Fatal(v, used, err)
		}
		all += used
	}
	if took := time.Since(start); all <= 0 || all > took+20*time.Millisecond {
		t.Errorf("%v of CPU in %v", all, took)
	}
}

func TestASourceIsAnAddressOrANetwork64(t *testing.T) {
	b := newBudgets(0, observe.New().Counters("lost_total", "", 1).With())
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"203.0.113.7", "203.0.113.7", true},
		{"203.0.113.7", "::ffff:203.0.113.7", true},
		{"203.0.113.7", "203.0.113.8", false},
		{"2001:db8::1", "2001:db8::ffff:2", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
	} {
		if same := b.source(netip.MustParseAddr(c.a)) == b.source(netip.MustParseAddr(c.b)); same != c.same {
			t.Errorf("%s and %s: %v", c.a, c.b, same)
		}
	}
}

// TestManySourcesForgetWhoOwesLeast: what a source owes is not washed away by a flood of others.
func TestManySourcesForgetWhoOwesLeast(t *testing.T) {
	r := observe.New()
	b := newBudgets(time.Second, r.Counters("lost_total", "", 1).With())
	b.cpus = 4
	k := b.source(netip.MustParseAddr("203.0.113.7"))
	b.use(k, 0, time.Minute)
	for i := range 4 * budgetSets * budgetWays {
		b.use(b.source(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})), 0, time.Millisecond)
	}
	g := rig{reg: r}
	if n := g.sample("lost_total"); !b.over(k, 0) || n == "0" || n == "" {
		t.Errorf("over is %v, %s lost", b.over(k, 0), n)
	}
}

func TestASourceOverItsBudget(t *testing.T) {
	g := newRig(t, Config{Wait: 5 * time.Millisecond}, v1.WafPolicySpec{})
	g.st.budgets.use(g.st.budgets.source(netip.MustParseAddr("203.0.113.7")), g.st.budgets.now(), 10*time.Hour)
	q := request{target: "/", fields: unproved}
	for range 2 { // while the CPUs have time for it, it is evaluated
		if err, m, _ := g.do(q); err != nil || m.Code != "pass" {
			t.Fatalf("%v %v", err, m)
		}
	}
	for range cap(g.st.over) {
		g.st.over <- struct{}{} // others of them
	}
	err, m, o := g.do(q)
	if e := stage.AsError(err); err == nil || e.Code != "waf_over_budget" || e.Status != 429 || e.Side != stage.SideClient || o.called {
		t.Errorf("%v", err)
	}
	if m.Code != "over-budget" || !strings.Contains(m.Detail, "share of evaluations") || g.metric("over-budget") != "1" {
		t.Errorf("%+v", m)
	}
	if err, m, _ := g.do(request{target: "/"}); err != nil || m.Code != "pass" {
		t.Errorf("what is proved clean costs no budget: %v %v", err, m)
	}
	q.basket = true
	if err, m, _ := g.do(q); err != nil || m.Code != "pass" {
		t.Errorf("with a basket it is evaluated: %v %v", err, m)
	}
	attack := attacks[0].q
	attack.basket = true
	if err, m, _ := g.do(attack); err == nil || m.Code != "deny" {
		t.Errorf("an attack with a basket: %v %v", err, m)
	}
	q.basket = false
	x := g.exchange(q)
	x.Client = netip.MustParseAddr("203.0.113.8")
	if _, err := g.st.Serve(t.Context(), x, &origin{}); err != nil {
		t.Errorf("its neighbour: %v", err)
	}
	g.site.Parts[5].(*part).routes[0].open = true
	if err, m, o := g.do(q); err != nil || m.Code != "over-budget" || !o.called || !strings.Contains(m.Detail, "onFailure") {
		t.Errorf("open: %v %v", err, m)
	}
	if n := g.sample(`relais_waf_unexamined_total{why="policy"}`); n != "1" {
		t.Errorf("passed unexamined: %q", n)
	}
	<-g.st.over
	if err, m, _ := g.do(q); err != nil || m.Code != "pass" || len(g.st.over) != cap(g.st.over)-1 || len(g.st.common) != 0 {
		t.Errorf("a place again: %v %v, %d and %d taken", err, m, len(g.st.over), len(g.st.common))
	}
	if p, err := g.st.engine.compile(&v1.WafPolicySpec{OnFailure: "open"}); err != nil || !p.open {
		t.Error(err)
	}
}
