package waf

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/waf/learn"
	"github.com/relais-edge/relais/internal/edge/waf/regression"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// shop answers, and names an order.
type shop struct {
	r     message.Response
	order string
}

func (o *shop) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	o.r.Reset()
	o.r.Status = 200
	x.Tries = 1
	if o.order != "" {
		o.r.SetLine("X-Order", []byte(o.order))
	}
	return &o.r, nil
}

// buyer is a visitor with a basket, each from another network unless it is said otherwise.
func (g *rig) buyer(x *stage.Exchange, n int) *stage.Exchange {
	x.Visitor = stage.Visitor{Class: stage.Protected, Key: uint64(n + 1)}
	x.Client = netip.AddrFrom4([4]byte{198, byte(n >> 8), byte(n), 7})
	return x
}

// send sends a request of a buyer; the mark is the stage's last.
func (g *rig) send(q request, n int, at time.Time) (stage.Mark, error) {
	x := g.buyer(g.exchange(q), n)
	x.Start = at
	_, err := g.st.Serve(context.Background(), x, &shop{})
	x.End(message.Outcome{})
	m := x.Trail.Marks()
	return m[len(m)-1], err
}

// order has a buyer order.
func (g *rig) order(n int, name string, at time.Time) {
	x := g.buyer(g.exchange(request{method: "POST", target: "/order", fields: []string{"Content-Type", form}, body: []string{"a=1"}}), n)
	x.Visitor.Step = stage.StepOrder
	x.Start = at
	_, err := g.st.Serve(context.Background(), x, &shop{order: name})
	x.End(message.Outcome{})
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *rig) learned() *Learned { return g.st.Learned(g.site, time.Now()) }

func TestOnlyOrdersOfDifferentBuyersMakeAProposal(t *testing.T) {
	hit := request{target: "/search?q=sleep%288%29+pillow"}
	now := time.Now()
	for _, c := range []struct {
		name string
		play func(g *rig)
		want int
	}{
		{"hits of buyers who ordered", func(g *rig) {
			for n := range 3 {
				g.send(hit, n, now)
				g.order(n, "", now)
			}
		}, 1},
		{"hits without orders, however many", func(g *rig) {
			for n := range 12 {
				g.send(hit, n, now)
			}
		}, 0},
		{"one buyer, many orders", func(g *rig) {
			for n := range 5 {
				g.send(hit, 1, now)
				g.order(1, strconv.Itoa(n), now)
			}
		}, 0},
		{"orders after other requests", func(g *rig) {
			for n := range 5 {
				g.send(request{target: "/"}, n, now)
				g.order(n, "", now)
			}
		}, 0},
		{"orders too late", func(g *rig) {
			for n := range 3 {
				g.send(hit, n, now)
				g.order(n, "", now.Add(7*time.Hour))
			}
		}, 0},
		{"one in ten and a bit ordered", func(g *rig) {
			for n := range 31 {
				g.send(hit, n, now)
			}
			for n := range 3 {
				g.order(n, "", now)
			}
		}, 0},
	} {
		g := newRig(t, Config{}, v1.WafPolicySpec{Protection: v1.Protection{Mode: v1.ModeShadow}, Learning: v1.WafLearning{Buyers: 3}})
		c.play(g)
		l := g.learned()
		if len(l.Proposals) != c.want {
			t.Errorf("%s: %d proposals: %+v", c.name, len(l.Proposals), l.Proposals)
		}
		if c.want == 1 {
			want := `{rules: ["942100", "942160"], target: "ARGS:q", shapes: ["sleep(9) w"], path: "/search", exact: true, methods: [GET]}`
			if p := &l.Proposals[0]; p.YAML != want || p.Evidence.Buyers != 3 || p.Policy != "w" || p.Wide != "" {
				t.Errorf("%s: %+v", c.name, p)
			}
		}
	}
}

func TestWhatIsExcludedIsNotProposedAgain(t *testing.T) {
	past, future := &v1.Time{Time: time.Now().Add(-time.Hour)}, &v1.Time{Time: time.Now().Add(time.Hour)}
	left := func(rules ...string) string { return fmt.Sprint(rules) }
	for _, c := range []struct {
		have v1.WafExclusion
		want string // the rules that are proposed all the same
	}{
		{v1.WafExclusion{Rules: []string{"942100"}, Target: "ARGS:q", Path: "/search", Exact: true, Methods: []string{"GET"}}, left("942160")},
		{v1.WafExclusion{Rules: []string{"942000-942999"}, Target: "args:Q", Path: "/search/", Expires: future}, left()},
		{v1.WafExclusion{Tags: []string{"attack-sqli"}}, left()},
		{v1.WafExclusion{Rules: []string{"942000-942999"}, Expires: past}, left("942100", "942160")},
		{v1.WafExclusion{Rules: []string{"942000-942999"}, Target: "ARGS:p"}, left("942100", "942160")},
		{v1.WafExclusion{Rules: []string{"942000-942999"}, Path: "/sea"}, left("942100", "942160")},
		{v1.WafExclusion{Rules: []string{"942000-942999"}, Methods: []string{"POST"}}, left("942100", "942160")},
		{v1.WafExclusion{Rules: []string{"942000-942999"}, Path: "/search/x", Exact: true}, left("942100", "942160")},
	} {
		e, err := shared()
		if err != nil {
			t.Fatal(err)
		}
		x := v1.WafExclusion{Rules: []string{"942100", "942160"}, Target: "ARGS:q", Path: "/search", Exact: true, Methods: []string{"GET"}}
		e.uncover(&x, &v1.WafPolicySpec{Exclusions: []v1.WafExclusion{c.have}}, time.Now())
		if got := left(x.Rules...); got != c.want {
			t.Errorf("beside %s: %s, want %s", Line(&c.have), got, c.want)
		}
	}
}

func TestLearningOffRemembersNothing(t *testing.T) {
	g := newRig(t, Config{}, v1.WafPolicySpec{Learning: v1.WafLearning{Mode: "off", Buyers: 2}})
	for n := range 4 {
		g.send(sqli("q"), n, time.Now())
		g.order(n, "", time.Now())
	}
	if l := g.learned(); len(l.Findings)+len(l.Proposals) != 0 {
		t.Errorf("%+v", l)
	}
}

func TestARuleThatHitsBuyersOnlyLogsForAWhile(t *testing.T) {
	hit := request{target: "/search?q=sleep%288%29+pillow"}
	spec := v1.WafPolicySpec{Learning: v1.WafLearning{Buyers: 3, OrderField: "x-order", Lifetime: v1.Duration(time.Hour)}}
	g := newRig(t, Config{}, spec)
	now := time.Now()
	for n := range 3 {
		m, err := g.send(hit, n, now)
		if err == nil || m.Code != "deny" {
			t.Fatalf("buyer %d: %+v", n, m)
		}
		g.order(n, fmt.Sprint("o", n), now)
	}
	m, err := g.send(hit, 50, now)
	if err != nil || m.Code != "demoted" || !strings.Contains(m.Detail, "942100 (ARGS:q) only logs here until") {
		t.Fatalf("after three buyers: %v %+v", err, m)
	}
	if g.metric("demoted") != "1" {
		t.Errorf("%q counted", g.metric("demoted"))
	}
	for name, q := range map[string]request{
		"another path":     {target: "/find?q=sleep%288%29+pillow"},
		"another target":   {target: "/search?p=sleep%288%29+pillow"},
		"another method":   {method: "POST", target: "/search?q=sleep%288%29+pillow", fields: []string{"Content-Type", form}, body: []string{"a=1"}},
		"another rule too": sqli("q"),
	} {
		if m, err := g.send(q, 51, now); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
	if m, err := g.send(hit, 52, now.Add(61*time.Minute)); err == nil {
		t.Errorf("after its time: %+v", m)
	}

	// Switched off by a new document, what is in force ends too.
	g = newRig(t, Config{}, spec)
	for n := range 3 {
		g.send(hit, n, now)
		g.order(n, fmt.Sprint("o", n), now)
	}
	spec.Learning.Mode = "observe"
	g.site.Spec.WAF["w"] = &spec
	p, err := g.st.Compile(g.site, g.site.Parts[5])
	if err != nil {
		t.Fatal(err)
	}
	g.site.Parts[5] = p
	if m, err := g.send(hit, 53, now); err == nil {
		t.Errorf("after it was switched off: %+v", m)
	}
}

func TestWithoutNamedOrdersNoRuleIsDemoted(t *testing.T) {
	hit := request{target: "/search?q=sleep%288%29+pillow"}
	now := time.Now()
	for name, learning := range map[string]v1.WafLearning{
		"no field in the policy": {Buyers: 2},
		"none in the answer":     {Buyers: 2, OrderField: "x-order"},
		"observe":                {Buyers: 2, OrderField: "x-order", Mode: "observe"},
	} {
		g := newRig(t, Config{}, v1.WafPolicySpec{Learning: learning})
		for n := range 6 {
			g.send(hit, n, now)
			order := fmt.Sprint("o", n)
			if name == "none in the answer" {
				order = ""
			}
			g.order(n, order, now)
		}
		if m, err := g.send(hit, 50, now); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func TestADeniedRequestNamesItsSmallestExclusion(t *testing.T) {
	g := newRig(t, Config{}, v1.WafPolicySpec{})
	x := g.exchange(request{method: "POST", target: "/api/cart", fields: []string{"Content-Type", jsonType}, body: []string{`{"items":[{"label":"sleep(8) pillow"}]}`}})
	if _, err := g.st.Serve(context.Background(), x, &shop{}); err == nil {
		t.Fatal("passed")
	}
	var got []string
	for _, m := range x.Trail.Marks() {
		got = append(got, m.Code+" "+m.Detail)
	}
	want := `exclusion {rules: ["942100", "942160"], target: "ARGS:/^json\\.items\\.\\d+\\.label$/", path: "/api/cart", exact: true, methods: [POST]}`
	if len(got) != 3 || !strings.HasPrefix(got[0], "policy w, revision ") || got[1] != want || !strings.HasPrefix(got[2], "deny ") {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
}

// plainRequest is a regression request as the rig sends it.
func plainRequest(q *regression.Case) request {
	r := request{method: q.Method, target: q.Target}
	for _, f := range q.Fields {
		r.fields = append(r.fields, f.Name, f.Value)
	}
	if q.Body != "" {
		r.body = []string{q.Body}
	}
	return r
}

// TestAfterLearningNoHardBenignRequestIsDenied: of a corpus of hard benign requests the rules
// deny one in ten; with the exclusions that are proposed after buyers who ordered sent them, none,
// and what that loses of the rule set's attack tests, as they are written and aimed, is at most a hundredth on those routes.
func TestAfterLearningNoHardBenignRequestIsDenied(t *testing.T) {
	corpus := frozenBenign(t)
	if len(corpus) < 300 {
		t.Fatalf("only %d requests", len(corpus))
	}
	if raced { // for what the detector looks at a part is as good
		corpus = corpus[:40]
	}
	buyers := 10
	if !*whole {
		buyers = 2
	}
	e, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	trial := &Trial{e}
	spec := v1.WafPolicySpec{Protection: v1.Protection{Mode: v1.ModeShadow}, BodyBytes: new(v1.Size(128 << 10)), Learning: v1.WafLearning{Buyers: buyers}}
	hard := denied(t, trial, &spec, corpus)
	stock := len(hard)
	if rate := share(stock, len(corpus)); !raced && (rate < .07 || rate > .11) || stock == 0 {
		t.Errorf("the rules deny %d of %d", stock, len(corpus))
	}
	// Learning goes by what is denied for its score: requests that are not denied teach nothing.
	g := newRig(t, Config{}, spec)
	now := time.Now()
	for k, i := range hard {
		for b := range buyers {
			n := buyers*k + b
			if m, err := g.send(plainRequest(&corpus[i]), n, now); err != nil || m.Code != "would-deny" {
				t.Fatalf("%s: %v %+v", corpus[i].Target, err, m)
			}
			g.st.book.Site("o/shop").Order(now, who(g.buyer(g.exchange(request{}), n)), 0, learn.Terms{})
		}
	}
	l := g.learned()
	learnt := spec
	learnt.Mode = v1.ModeEnforce
	for i := range l.Proposals {
		learnt.Exclusions = append(learnt.Exclusions, l.Proposals[i].Exclusion)
	}
	if left := denied(t, trial, &learnt, corpus); len(left) != 0 {
		t.Errorf("%d are still denied, such as %s", len(left), corpus[left[0]].Target)
	}
	t.Logf("kept corpus: %d of %d denied by the rules, 0 after learning (%d exclusions)", stock, len(corpus), len(l.Proposals))
	if *whole {
		unseen := benignCorpus(2, 400)
		t.Logf("other requests of the same words: %d of %d denied by the rules, %d after learning", len(denied(t, trial, &spec, unseen)), len(unseen), len(denied(t, trial, &learnt, unseen)))
	}
	provenRoutes(t, trial, &spec, l.Proposals)
}

// provenRoutes prints what the proposals of each route lose together.
func provenRoutes(t *testing.T, trial *Trial, spec *v1.WafPolicySpec, list []Proposal) {
	t.Helper()
	every := 30
	if *whole {
		every = 1
	} else if raced {
		every = 1500
	}
	prover, err := NewProver(trial, every)
	if err != nil {
		t.Fatal(err)
	}
	routes := map[string][]v1.WafExclusion{}
	for i := range list {
		routes[list[i].Exclusion.Path] = append(routes[list[i].Exclusion.Path], list[i].Exclusion)
	}
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "route\texclusions\ttests\tdenied\tlost\t\taimed\t\tlost tests")
	for _, path := range sortedKeys(routes) {
		proof, err := prover.Prove(t.Context(), spec, routes[path])
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%.2f%%\t%d\t%.2f%%\t%s\n", path, len(routes[path]), proof.Tests, proof.Denied,
			len(proof.Lost), 100*proof.Share(), len(proof.Aimed), 100*proof.AimedShare(), strings.Join(proof.Lost, " "))
		if proof.Share() > MuchLost {
			t.Errorf("%s loses %.2f%% of the attack tests", path, 100*proof.Share())
		}
		if proof.AimedShare() > MuchLost {
			t.Errorf("%s loses %.2f%% of the attack tests that are aimed: %s", path, 100*proof.AimedShare(), strings.Join(proof.Aimed, " "))
		}
	}
	w.Flush()
	t.Logf("\n%s", b.String())
}

func sortedKeys[V any](m map[string]V) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// denied lists which requests a policy denies.
func denied(t testing.TB, trial *Trial, spec *v1.WafPolicySpec, list []regression.Case) (out []int) {
	t.Helper()
	j, err := trial.Judge(spec)
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		v, err := j.Judge(&list[i])
		if err != nil {
			t.Fatal(err)
		}
		if v.Denied {
			out = append(out, i)
		}
	}
	return out
}
