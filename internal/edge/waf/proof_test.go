package waf

import (
	"context"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// sample is the value of a series of the rig's metrics; empty when there is none.
func (g *rig) sample(series string) string {
	w := httptest.NewRecorder()
	g.reg.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	b, _ := io.ReadAll(w.Body)
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, series+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// anonymous sends a request without User-Agent, which rule 920320 of level 2 takes offence at.
func (g *rig) anonymous() stage.Mark {
	x := g.exchange(request{target: "/"})
	x.In.DelLine("user-agent")
	_, err := g.st.Serve(context.Background(), x, &origin{})
	x.End(message.Outcome{})
	if err != nil {
		g.t.Fatal(err)
	}
	return x.Trail.Marks()[0]
}

func TestAWrongProofSwitchesTheScreenOff(t *testing.T) {
	var log strings.Builder
	g := newRig(t, Config{Sample: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))}, v1.WafPolicySpec{Paranoia: 2, InboundThreshold: 100})
	g.site.Parts[5].(*part).routes[0].screen = g.st.engine.screen(1) // which knows nothing of the rules of level 2
	if m := g.anonymous(); m.Code != "pass" || m.Detail != "" || len(g.st.Doubts()) != 0 {
		t.Fatalf("it was not proved: %+v", m)
	}
	g.st.check(<-g.st.samples)
	list := g.st.Doubts()
	if len(list) != 1 || list[0].Rule != 920320 || list[0].Site != "o/shop" || list[0].Request == "" || !strings.Contains(list[0].Detail, "920320") {
		t.Fatalf("%+v", list)
	}
	if !strings.Contains(log.String(), "920320") || !strings.Contains(log.String(), list[0].Request) {
		t.Errorf("the log says %q", log.String())
	}
	if m := g.anonymous(); !strings.Contains(m.Detail, "920320") {
		t.Errorf("it is not the engine's: %+v", m)
	}
	if _, m, _ := g.do(request{target: "/"}); m.Code != "pass" || len(g.st.samples) != 0 {
		t.Errorf("another request is not the engine's: %+v, %d proofs", m, len(g.st.samples))
	}
	for series, want := range map[string]string{
		`relais_waf_proofs_total{outcome="wrong"}`:   "1",
		`relais_waf_screen_total{verdict="clean"}`:   "1",
		`relais_waf_screen_total{verdict="doubted"}`: "2",
		`relais_waf_doubted_rules`:                   "1",
	} {
		if got := g.sample(series); got != want {
			t.Errorf("%s is %q, want %s", series, got, want)
		}
	}
	// Where the rule is not in force the screen is as good as before.
	for _, c := range []struct {
		spec   v1.WafPolicySpec
		proved bool
	}{
		{v1.WafPolicySpec{Paranoia: 2}, false},
		{v1.WafPolicySpec{Paranoia: 1}, true},
		{v1.WafPolicySpec{Paranoia: 1, DetectionParanoia: 2}, false},
		{v1.WafPolicySpec{Paranoia: 2, Exclusions: []v1.WafExclusion{{Rules: []string{"920320"}}}}, true},
		{v1.WafPolicySpec{Paranoia: 2, Exclusions: []v1.WafExclusion{{Rules: []string{"920320"}, Path: "/other"}}}, false},
	} {
		p, err := g.st.engine.compile(&c.spec)
		if err != nil {
			t.Fatal(err)
		}
		x := g.exchange(request{target: "/"})
		var r sheet
		r.fill(x, nil, false)
		if got := g.st.proved(p, x, &r); got != c.proved {
			t.Errorf("%+v: proved is %v", c.spec, got)
		}
	}
	// The same rule again is no news; one that has no number ends all proofs.
	q := &sample{engine: g.st.engine}
	q.x.Site, q.x.Verdict = g.site, &stage.Verdict{Rules: []int{920320}}
	g.st.doubt(q, "")
	q.x.Verdict = nil
	g.st.doubt(q, "")
	if list = g.st.Doubts(); len(list) != 2 || list[1].Rule != 0 {
		t.Errorf("%+v", list)
	}
	p, _ := g.st.engine.compile(&v1.WafPolicySpec{})
	x := g.exchange(request{target: "/"})
	var r sheet
	r.fill(x, nil, false)
	if g.st.proved(p, x, &r) {
		t.Error("there are proofs after one that nobody can explain")
	}
}

// TestASampleHasMemoryOfItsOwn: it is checked after its request is gone.
func TestASampleHasMemoryOfItsOwn(t *testing.T) {
	g := newRig(t, Config{Sample: 1}, v1.WafPolicySpec{Paranoia: 2})
	body := []byte("first_name=Jean&city=Paris")
	x := g.exchange(request{method: "POST", target: "/compte?a=1", fields: []string{"Content-Type", form}, body: []string{string(body)}})
	x.In.Conn = &message.Conn{}
	if _, err := g.st.Serve(context.Background(), x, &origin{}); err != nil {
		t.Fatal(err)
	}
	x.End(message.Outcome{})
	q := <-g.st.samples
	x.In.Reset()
	x.In.SetPath([]byte("/../../etc/passwd"))
	x.Reset()
	if s := string(q.sheet.Target); s != "/compte?a=1" || string(q.sheet.Body) != string(body) {
		t.Errorf("%q %q", s, q.sheet.Body)
	}
	g.st.check(q)
	if n := g.sample(`relais_waf_proofs_total{outcome="right"}`); n != "1" {
		t.Errorf("right: %q", n)
	}
	q.engine = &engine{} // panics
	g.st.check(q)
	if n := g.sample(`relais_waf_proofs_total{outcome="failed"}`); n != "1" || len(g.st.Doubts()) != 0 {
		t.Errorf("failed: %q", n)
	}
}

func TestProofsAreCheckedBesideRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{Sample: 1}, v1.WafPolicySpec{})
		for range 3 {
			g.do(request{target: "/"})
		}
		if n := g.sample(`relais_waf_proofs_total{outcome="dropped"}`); n != "2" {
			t.Errorf("dropped: %q", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- g.st.Run(ctx) }()
		synctest.Wait()
		if n := g.sample(`relais_waf_proofs_total{outcome="right"}`); n != "1" {
			t.Errorf("right: %q", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		x := g.exchange(request{target: "/"})
		x.Replay(1)
		_, _ = g.st.Serve(ctx, x, &origin{})
		if len(g.st.samples) != 0 {
			t.Error("a replayed request is a sample")
		}
	})
}
