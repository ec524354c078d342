package waf

import (
	"net/netip"
	"strconv"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/observe"
)

func TestWhoIsScreenedInVainIsScreenedSeldom(t *testing.T) {
	b := newBudgets(0, observe.New().Counters("lost_total", "", 1).With())
	k, other := b.source(netip.MustParseAddr("203.0.113.7")), b.source(netip.MustParseAddr("203.0.113.8"))
	b.screened(k, true)
	if b.of(k).find(k) != nil {
		t.Error("who sends nothing else has an account")
	}
	ask := func() (asked bool) {
		next, _ := b.vain(k)
		return !next
	}
	for i := range vainFrom {
		if !ask() {
			t.Fatalf("not asked after %d in vain", i)
		}
		b.screened(k, false)
	}
	for round := range 3 {
		for i := range vainEvery - 1 {
			if ask() {
				t.Errorf("round %d: asked at %d", round, i)
			}
		}
		if !ask() {
			t.Errorf("round %d: not asked", round)
		}
		b.screened(k, false)
	}
	if next, some := b.vain(other); next || some {
		t.Error("its neighbour is taken for it")
	}
	b.screened(k, true)
	for range vainFrom - 1 {
		b.screened(k, false)
	}
	if !ask() {
		t.Error("a proof is forgotten")
	}
	b.screened(k, false)
	if ask() {
		t.Error("asked")
	}
	b.use(k, b.now(), 10*time.Hour)
	if !ask() {
		t.Error("who is over its budget is not asked")
	}
}

// inVain makes the rig's client one for whose last requests the screen was in vain.
func (g *rig) inVain() {
	k := g.st.budgets.source(netip.MustParseAddr("203.0.113.7"))
	g.st.budgets.screened(k, true)
	for range vainFrom {
		g.st.budgets.screened(k, false)
	}
}

func (g *rig) vain() int {
	n, _ := strconv.Atoi(g.sample(`relais_waf_screen_total{verdict="vain"}`))
	return n
}

// TestAnAttackerDoesNotPayTheScreen: the verdicts stay what they are, and a proof makes all as it was.
func TestAnAttackerDoesNotPayTheScreen(t *testing.T) {
	g := newRig(t, Config{}, v1.WafPolicySpec{})
	for i := range 4 * vainEvery {
		if err, m, o := g.do(attacks[i%len(attacks)].q); err == nil || m.Code != "deny" || o.called {
			t.Fatalf("%d: %v %v", i, err, m)
		}
	}
	if want := 3 * (vainEvery - 1); g.vain() != want {
		t.Errorf("%d not screened, want %d", g.vain(), want)
	}
	for range vainEvery {
		if err, m, o := g.do(request{target: "/"}); err != nil || m.Code != "pass" || m.Detail != "" || !o.called {
			t.Fatalf("%v %v", err, m)
		}
	}
	was := g.vain()
	if err, m, _ := g.do(attacks[0].q); err == nil || m.Code != "deny" || g.vain() != was {
		t.Errorf("after a proof: %v %v, %d and %d not screened", err, m, was, g.vain())
	}
}

// TestVerdictsWithoutTheScreen: whether the screen is asked changes neither what becomes of a request nor what is said of it.
func TestVerdictsWithoutTheScreen(t *testing.T) {
	for paranoia := 1; paranoia <= 2; paranoia++ {
		g := newRig(t, Config{}, v1.WafPolicySpec{Paranoia: paranoia})
		all := append([]request{}, shopping...)
		for _, a := range attacks {
			all = append(all, a.q)
		}
		for i, q := range all {
			g.st.budgets.screened(g.st.budgets.source(netip.MustParseAddr("203.0.113.7")), true)
			was := g.vain()
			err, m, _ := g.do(q)
			if g.vain() != was {
				t.Fatal("not screened")
			}
			g.inVain()
			again, n, _ := g.do(q)
			if g.vain() != was+1 {
				t.Fatal("screened")
			}
			if (err == nil) != (again == nil) || m.Code != n.Code || m.Detail != n.Detail {
				t.Errorf("level %d, %d: %v %q, without the screen %v %q", paranoia, i, m.Code, m.Detail, n.Code, n.Detail)
			}
		}
	}
}

// TestWhatCannotBeJudgedIsScreenedFirst: nothing of ours refuses what the screen proves clean.
func TestWhatCannotBeJudgedIsScreenedFirst(t *testing.T) {
	clean := request{target: "/"}
	t.Run("failure", func(t *testing.T) {
		g := newRig(t, Config{}, v1.WafPolicySpec{})
		pt := *g.site.Parts[5].(*part)
		pt.engine = &engine{} // panics
		g.site.Parts[5] = &pt
		g.inVain()
		if err, m, o := g.do(clean); err != nil || m.Code != "pass" || !o.called || g.vain() != 1 {
			t.Errorf("%v %v, %d not screened", err, m, g.vain())
		}
		if err, m, _ := g.do(attacks[0].q); err == nil || m.Code != "failed" {
			t.Errorf("an attack: %v %v", err, m)
		}
	})
	t.Run("no place", func(t *testing.T) {
		g := newRig(t, Config{Wait: time.Hour}, v1.WafPolicySpec{})
		g.inVain()
		for range cap(g.st.common) {
			g.st.common <- struct{}{}
		}
		if err, m, _ := g.do(clean); err != nil || m.Code != "pass" || g.vain() != 0 {
			t.Errorf("%v %v, %d not screened", err, m, g.vain())
		}
	})
	t.Run("site over its time", func(t *testing.T) {
		g := newRig(t, Config{}, v1.WafPolicySpec{CPU: v1.Duration(time.Millisecond)})
		p := g.site.Parts[5].(*part).routes[0]
		p.spent.use(g.st.budgets.now(), time.Hour, p.cpu)
		g.inVain()
		if err, m, _ := g.do(clean); err != nil || m.Code != "pass" || g.vain() != 1 {
			t.Errorf("%v %v, %d not screened", err, m, g.vain())
		}
		if err, m, _ := g.do(attacks[0].q); err == nil || m.Code != "over-cpu" {
			t.Errorf("an attack: %v %v", err, m)
		}
	})
	t.Run("source over its budget", func(t *testing.T) {
		g := newRig(t, Config{}, v1.WafPolicySpec{})
		g.inVain()
		g.st.budgets.use(g.st.budgets.source(netip.MustParseAddr("203.0.113.7")), g.st.budgets.now(), 1000*time.Hour)
		if err, m, _ := g.do(clean); err != nil || m.Code != "pass" || g.vain() != 0 {
			t.Errorf("%v %v, %d not screened", err, m, g.vain())
		}
	})
	t.Run("basket", func(t *testing.T) {
		g := newRig(t, Config{}, v1.WafPolicySpec{})
		g.inVain()
		q := clean
		q.basket = true
		if err, m, _ := g.do(q); err != nil || m.Code != "pass" || g.vain() != 0 {
			t.Errorf("%v %v, %d not screened", err, m, g.vain())
		}
	})
}
