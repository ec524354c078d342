package waf

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/stage"
)

// marksOf lists what a request's trail says of the firewall and of its candidate.
func marksOf(x *stage.Exchange) (own, candidate stage.Mark) {
	for _, m := range x.Trail.Marks() {
		switch m.Stage {
		case "waf":
			own = m
		case "waf-candidate":
			candidate = m
		}
	}
	return own, candidate
}

func (g *rig) candidate(t *testing.T) Candidate {
	t.Helper()
	list := g.st.Candidates("o/shop", time.Now())
	if len(list) != 1 {
		t.Fatalf("%d candidates", len(list))
	}
	return list[0]
}

func (g *rig) series(name string) bool {
	w := httptest.NewRecorder()
	g.reg.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	return strings.Contains(w.Body.String(), name+"\n")
}

// The policy decides, the candidate says what it would do: for stricter and laxer ones, by its rules, its own rules, its
// exclusions and its threshold.
func TestACandidateTellsWhatItWouldDoAndDecidesNothing(t *testing.T) {
	whole := new(v1.Percent(100))
	attack := sqli("q")
	quiet := request{target: "/about"}
	ban := []v1.WafRule{{Name: "ban", Path: "/about"}}
	for _, c := range []struct {
		name      string
		spec      v1.WafPolicySpec
		candidate v1.WafCandidate
		q         request
		denied    bool
		result    string
		rule      string
	}{
		{"the same", v1.WafPolicySpec{}, v1.WafCandidate{Paranoia: 2}, quiet, false, "", ""},
		{"the same, denied", v1.WafPolicySpec{}, v1.WafCandidate{Paranoia: 2}, attack, true, "", ""},
		{"a higher threshold", v1.WafPolicySpec{}, v1.WafCandidate{InboundThreshold: 1000}, attack, true, "would-pass", "942100"},
		{"a lower threshold", v1.WafPolicySpec{InboundThreshold: 1000}, v1.WafCandidate{InboundThreshold: 5}, attack, false, "would-deny", "942100"},
		{"a rule of its own", v1.WafPolicySpec{}, v1.WafCandidate{Rules: ban}, quiet, false, "would-deny", "ban"},
		{"no rules of its own", v1.WafPolicySpec{Rules: ban}, v1.WafCandidate{Rules: []v1.WafRule{}}, quiet, true, "would-pass", "ban"},
		{"its own rules are the policy's", v1.WafPolicySpec{Rules: ban}, v1.WafCandidate{Paranoia: 2}, quiet, true, "", ""},
		{"an exclusion", v1.WafPolicySpec{}, v1.WafCandidate{Exclusions: []v1.WafExclusion{{Tags: []string{"attack-sqli"}}}}, attack, true, "would-pass", "942100"},
		{
			"no exclusions",
			v1.WafPolicySpec{Exclusions: []v1.WafExclusion{{Tags: []string{"attack-sqli"}}}},
			v1.WafCandidate{Exclusions: []v1.WafExclusion{}},
			attack, false, "would-deny", "942100",
		},
		{"in shadow", v1.WafPolicySpec{Protection: v1.Protection{Mode: v1.ModeShadow}}, v1.WafCandidate{InboundThreshold: 1000}, attack, false, "would-pass", "942100"},
		{"a share of none", v1.WafPolicySpec{}, v1.WafCandidate{Share: new(v1.Percent(0)), InboundThreshold: 1000}, attack, true, "none", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.candidate.Share == nil {
				c.candidate.Share = whole
			}
			c.spec.Candidate = &c.candidate
			g := newRig(t, Config{Concurrent: 4}, c.spec)
			x := g.exchange(c.q)
			x.ID = stage.RequestID{7}
			_, err := g.st.Serve(t.Context(), x, &origin{})
			if (err != nil) != c.denied {
				t.Errorf("the policy decides: %v", err)
			}
			own, m := marksOf(x)
			if own.Code == "" || m.Code != strings.TrimPrefix(c.result, "none") || m.Code != "" && m.Detail == "" {
				t.Errorf("marks %+v, %+v", own, m)
			}
			is := g.candidate(t)
			counts := map[string]uint64{"": is.Agreed, "would-deny": is.WouldDeny, "would-pass": is.WouldPass, "skipped": is.Skipped}
			for name, n := range counts {
				if want := name == c.result; (n == 1) != want || n > 1 {
					t.Errorf("%q is counted %d times", name, n)
				}
			}
			if c.result == "none" {
				return
			}
			result := c.result
			if result == "" {
				result = "agreed"
			}
			if want := `relais_waf_candidate_total{result="` + result + `",site="o/shop"} 1`; !g.series(want) {
				t.Errorf("metrics lack %s", want)
			}
			at := slices.IndexFunc(is.Rules, func(d Differing) bool { return d.Rule == c.rule })
			switch {
			case c.rule == "" && len(is.Rules) > 0, c.rule != "" && at < 0:
				t.Errorf("rules %+v, want %q", is.Rules, c.rule)
			case c.rule != "" && (is.Rules[at].Example != x.ID.String() || is.Rules[at].WouldDeny != is.WouldDeny || is.Rules[at].WouldPass != is.WouldPass):
				t.Errorf("%+v", is.Rules[at])
			}
		})
	}
}

// From its time on the candidate decides, and nothing is compared any more: not before, and as the document that it becomes.
func TestACandidateDecidesFromItsTimeOn(t *testing.T) {
	from := v1.Time{Time: time.Now().Add(time.Hour)}
	spec := v1.WafPolicySpec{
		DetectionParanoia: 3, BodyBytes: new(v1.Size(1000)),
		Candidate: &v1.WafCandidate{Share: new(v1.Percent(100)), From: &from, Paranoia: 2, Rules: []v1.WafRule{{Name: "ban", Path: "/about"}, {Name: "note", Path: "/", Action: "log"}}},
	}
	g := newRig(t, Config{}, spec)
	send := func(at time.Time) (own, candidate stage.Mark, x *stage.Exchange, err error) {
		x = g.exchange(request{target: "/about"})
		x.Start = at
		_, err = g.st.Serve(t.Context(), x, &origin{})
		own, candidate = marksOf(x)
		return own, candidate, x, err
	}
	if own, m, _, err := send(from.Add(-time.Second)); err != nil || own.Code != "pass" || m.Code != "would-deny" {
		t.Errorf("before: %v %+v %+v", err, own, m)
	}
	own, m, x, err := send(from.Time)
	if err == nil || own.Code != "deny" || m.Code != "" {
		t.Errorf("from its time on: %v %+v %+v", err, own, m)
	}
	is := g.candidate(t)
	if is.From == nil || !is.From.Equal(from.Time) || is.Deciding || is.Agreed+is.WouldDeny != 1 {
		t.Errorf("%+v", is)
	}
	if later := g.st.Candidates("", from.Time)[0]; !later.Deciding {
		t.Errorf("%+v", later)
	}
	// The digest is that of the document with the fields moved into the policy.
	moved := v1.WafPolicySpec{Paranoia: 2, DetectionParanoia: 3, BodyBytes: spec.BodyBytes, Rules: spec.Candidate.Rules}
	told := slices.ContainsFunc(x.Trail.Marks(), func(m stage.Mark) bool {
		return m.Stage == "waf" && m.Code == "policy" && strings.Contains(m.Detail, "revision "+revision(&moved))
	})
	if is.Revision != revision(&moved) || !told {
		t.Errorf("revision %s, want %s; %+v", is.Revision, revision(&moved), x.Trail.Marks())
	}
	// A rule that only logs says so once the candidate decides, not before.
	for _, at := range []time.Time{from.Add(-time.Second), from.Time} {
		x := g.exchange(request{target: "/other"})
		x.Start = at
		_, _ = g.st.Serve(t.Context(), x, &origin{})
		noted := slices.ContainsFunc(x.Trail.Marks(), func(m stage.Mark) bool { return m.Code == "rule" })
		if noted != !at.Before(from.Time) {
			t.Errorf("%v: %+v", at, x.Trail.Marks())
		}
	}
}

// What was counted outlives a change of the documents while both sides are the same, and nothing else does.
func TestAComparisonGoesOnWhileBothSidesAreTheSame(t *testing.T) {
	with := func(threshold, share int) v1.WafPolicySpec {
		return v1.WafPolicySpec{
			InboundThreshold: threshold, BodyBytes: new(v1.Size(1000)),
			Candidate: &v1.WafCandidate{Share: new(v1.Percent(share)), InboundThreshold: 900},
		}
	}
	g := newRig(t, Config{}, with(5, 100))
	apply := func(spec v1.WafPolicySpec) {
		g.site.Spec = &bundle.Site{WAF: map[string]*v1.WafPolicySpec{"w": &spec}}
		p, err := g.st.Compile(g.site, g.site.Parts[5])
		if err != nil {
			t.Fatal(err)
		}
		g.site.Parts[5] = p
	}
	_, _, _ = g.do(sqli("q"))
	apply(with(5, 50))
	if is := g.candidate(t); is.WouldPass != 1 {
		t.Errorf("another share: %+v", is)
	}
	apply(with(6, 50))
	if is := g.candidate(t); is.WouldPass != 0 {
		t.Errorf("another policy: %+v", is)
	}
	apply(v1.WafPolicySpec{})
	if list := g.st.Candidates("", time.Now()); len(list) != 0 || g.series(`relais_waf_candidate_total{result="agreed",site="o/shop"} 0`) {
		t.Errorf("no candidate any more: %+v", list)
	}
	apply(with(5, 50))
	g.st.Sweep(&bundle.Bundle{})
	if list := g.st.Candidates("", time.Now()); len(list) != 0 {
		t.Errorf("the site is gone: %+v", list)
	}
}

// A comparison takes what is left over: with no place free, or with the CPU time used up, it is skipped, and the request
// is served as without a candidate.
func TestAComparisonTakesNothingFromVisitors(t *testing.T) {
	spec := v1.WafPolicySpec{InboundThreshold: 900, Candidate: &v1.WafCandidate{Share: new(v1.Percent(100)), InboundThreshold: 5}}
	for _, c := range []struct {
		name string
		busy func(g *rig, c *candidate)
		want uint64
	}{
		{"nothing", func(*rig, *candidate) {}, 0},
		{"half of the places", func(g *rig, _ *candidate) {
			for range cap(g.st.common) / 2 {
				g.st.common <- struct{}{}
			}
		}, 1},
		{"its CPU time", func(g *rig, c *candidate) { c.spent.use(g.st.budgets.now(), time.Hour, c.cpu) }, 1},
		{"the source's budget", func(g *rig, _ *candidate) {
			g.st.budgets.use(g.st.budgets.source(g.exchange(request{}).Client), g.st.budgets.now(), 10*time.Hour)
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, Config{Concurrent: 8}, spec)
			of := g.site.Parts[5].(*part).routes[0].candidate
			c.busy(g, of)
			spent := g.site.Parts[5].(*part).routes[0].spent.paid.Load()
			if err, m, o := g.do(sqli("q")); err != nil || !o.called || m.Code != "pass" {
				t.Errorf("%v %+v", err, m)
			}
			if is := g.candidate(t); is.Skipped != c.want || is.WouldDeny != 1-c.want {
				t.Errorf("%+v", is)
			}
			if c.want == 0 && (of.spent.paid.Load() == 0 || g.site.Parts[5].(*part).routes[0].spent.paid.Load() == spent) {
				t.Error("the CPU time of the comparison was not counted, or not that of the policy")
			}
		})
	}
}

// What is told apart is bounded.
func TestDifferencesAreBounded(t *testing.T) {
	d := &diff{rules: map[string]*Differing{}}
	x := &stage.Exchange{}
	for i := range 3 * maxDiffering {
		d.note([]string{strings.Repeat("r", i+1)}, newlyDenied, x)
	}
	list := d.list()
	if n := len(list); n != maxDiffering+1 || list[n-1].Rule != "" || list[n-1].WouldDeny != 2*maxDiffering {
		t.Errorf("%d, the last %+v", n, list[n-1])
	}
}

// What buyers demoted is demoted for the candidate too: nothing is told of it that would not happen.
func TestADemotedRuleIsDemotedForTheCandidate(t *testing.T) {
	hit := request{target: "/search?q=sleep%288%29+pillow"}
	g := newRig(t, Config{}, v1.WafPolicySpec{
		Learning:  v1.WafLearning{Buyers: 3, OrderField: "x-order", Lifetime: v1.Duration(time.Hour)},
		Candidate: &v1.WafCandidate{Share: new(v1.Percent(100)), InboundThreshold: 4},
	})
	now := time.Now()
	for n := range 3 {
		if _, err := g.send(hit, n, now); err == nil {
			t.Fatalf("buyer %d passes", n)
		}
		g.order(n, strings.Repeat("o", n+1), now)
	}
	before := g.candidate(t)
	if m, err := g.send(hit, 50, now); err != nil || m.Code != "demoted" {
		t.Fatalf("%+v %v", m, err)
	}
	if is := g.candidate(t); is.Agreed != before.Agreed+1 || is.WouldDeny != 0 || is.WouldPass != 0 {
		t.Errorf("%+v", is)
	}
}
