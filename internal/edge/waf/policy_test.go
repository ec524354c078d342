package waf

import (
	"context"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
)

func sqli(name string) request {
	return request{target: "/search?" + name + "=1%27%20UNION%20SELECT%20a%20FROM%20users--%20-"}
}

func TestExclusionsHoldOnlyWhereTheySay(t *testing.T) {
	past, future := &v1.Time{Time: time.Now().Add(-1)}, &v1.Time{Time: time.Now().Add(time.Hour)}
	all := []string{"942000-942999"}
	inPath := func(q request, p string) request { q.target = p + strings.TrimPrefix(q.target, "/search"); return q }
	post := sqli("q")
	post.method, post.fields, post.body = "POST", []string{"Content-Type", form}, []string{"b=1"}
	deep := request{method: "POST", target: "/api", fields: []string{"Content-Type", jsonType}, body: []string{`{"items":[{"name":"x' UNION SELECT a FROM users-- -"}]}`}}
	for _, c := range []struct {
		name   string
		e      v1.WafExclusion
		q      request
		denied bool
	}{
		{"range", v1.WafExclusion{Rules: all}, sqli("q"), false},
		{"range of others", v1.WafExclusion{Rules: []string{"941000-941999"}}, sqli("q"), true},
		{"one id of several that match", v1.WafExclusion{Rules: []string{"942100"}}, sqli("q"), true},
		{"unknown id", v1.WafExclusion{Rules: []string{"942998"}}, sqli("q"), true},
		{"tag", v1.WafExclusion{Tags: []string{"attack-sqli"}}, sqli("q"), false},
		{"other tag", v1.WafExclusion{Tags: []string{"attack-xss"}}, sqli("q"), true},
		{"target", v1.WafExclusion{Rules: all, Target: "ARGS:q"}, sqli("q"), false},
		{"target in another case", v1.WafExclusion{Rules: all, Target: "args:Q"}, sqli("q"), false},
		{"other target", v1.WafExclusion{Rules: all, Target: "ARGS:other"}, sqli("q"), true},
		{"whole variable", v1.WafExclusion{Rules: all, Target: "ARGS"}, sqli("q"), false},
		{"other variable", v1.WafExclusion{Rules: all, Target: "REQUEST_COOKIES:q"}, sqli("q"), true},
		{"target of every rule", v1.WafExclusion{Target: "ARGS:q"}, sqli("q"), false},
		{"target with an expression", v1.WafExclusion{Tags: []string{"attack-sqli"}, Target: `ARGS:/^json\.items\.\d+\.name$/`}, deep, false},
		{"expression that does not match", v1.WafExclusion{Tags: []string{"attack-sqli"}, Target: `ARGS:/^json\.items\.name$/`}, deep, true},
		{"path", v1.WafExclusion{Rules: all, Path: "/search"}, sqli("q"), false},
		{"other path", v1.WafExclusion{Rules: all, Path: "/search"}, inPath(sqli("q"), "/searching"), true},
		{"path below", v1.WafExclusion{Rules: all, Path: "/search"}, inPath(sqli("q"), "/search/x"), false},
		{"method", v1.WafExclusion{Rules: all, Methods: []string{"POST"}}, post, false},
		{"other method", v1.WafExclusion{Rules: all, Methods: []string{"POST"}}, sqli("q"), true},
		{"expired", v1.WafExclusion{Rules: all, Expires: past}, sqli("q"), true},
		{"not yet expired", v1.WafExclusion{Rules: all, Expires: future}, sqli("q"), false},
		{"path alone", v1.WafExclusion{Path: "/search"}, sqli("q"), false},
		{"path alone, elsewhere", v1.WafExclusion{Path: "/search"}, inPath(sqli("q"), "/x"), true},
		{"the scoring cannot be excluded", v1.WafExclusion{Rules: []string{"901000-901999", "949000-949999"}}, sqli("q"), true},
		{"a range over the paranoia switches", v1.WafExclusion{Rules: []string{"942000-942099"}}, request{target: "/?q=a--b"}, false},
	} {
		g := newRig(t, Config{}, v1.WafPolicySpec{Exclusions: []v1.WafExclusion{c.e}})
		if err, m, _ := g.do(c.q); (err != nil) != c.denied {
			t.Errorf("%s: denied %v, want %v: %q", c.name, err != nil, c.denied, m.Detail)
		}
		// It holds for no other request of the engine, whose transactions are used again.
		plain := newRig(t, Config{}, v1.WafPolicySpec{})
		if err, _, _ := plain.do(sqli("q")); err == nil {
			t.Errorf("%s: holds for another policy", c.name)
		}
	}
}

func TestCompileErrorsHelp(t *testing.T) {
	e, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		spec v1.WafPolicySpec
		want string
	}{
		{v1.WafPolicySpec{Paranoia: 5}, "paranoia is 5"},
		{v1.WafPolicySpec{InboundThreshold: -1}, "inboundThreshold is -1"},
		{v1.WafPolicySpec{BodyBytes: new(v1.Size(17 << 20))}, "bodyBytes is 17MiB"},
		{v1.WafPolicySpec{Exclusions: []v1.WafExclusion{{}, {Rules: []string{"1", "x"}}}}, `exclusions[1]: rules[1]: "x" is not a rule`},
		{v1.WafPolicySpec{Exclusions: []v1.WafExclusion{{Rules: []string{"9-1"}}}}, "is not a rule"},
		{v1.WafPolicySpec{Exclusions: []v1.WafExclusion{{Target: "ARG:x"}}}, "there is no variable ARG"},
		{v1.WafPolicySpec{Exclusions: []v1.WafExclusion{{Target: "ARGS:"}}}, "no name after it"},
		{v1.WafPolicySpec{Exclusions: []v1.WafExclusion{{Target: "ARGS:/(/"}}}, "does not hold an expression"},
		{v1.WafPolicySpec{Exclusions: []v1.WafExclusion{{Target: "ARGS://"}}}, "does not hold an expression"},
	} {
		if _, err := e.compile(&c.spec); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	site := newRig(t, Config{}, v1.WafPolicySpec{}).site
	site.Spec = &bundle.Site{}
	if _, err := New(5, Config{}, observe.New()).Compile(site, nil); err == nil {
		t.Error("a policy that the bundle does not hold was accepted")
	}
}

// TestEngineKnowsWhatItExcludes guards the facts of the rule set that exclusions rest on.
func TestEngineKnowsWhatItExcludes(t *testing.T) {
	e, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range e.rules {
		if r.id >= 901000 && r.id < 902000 || r.id >= 949000 && r.id < 950000 {
			t.Errorf("rule %d can be excluded", r.id)
		}
	}
	if len(e.rules) < 300 {
		t.Errorf("%d detection rules", len(e.rules))
	}
	// Exceptions of a transaction are appended to those of a rule: none may have room left.
	rules := reflect.ValueOf(e.waf).FieldByName("waf").Elem().FieldByName("Rules").FieldByName("rules")
	if rules.Len() < 300 {
		t.Errorf("%d rules", rules.Len())
	}
	for i := range rules.Len() {
		for r := rules.Index(i); ; {
			for j := range r.FieldByName("variables").Len() {
				v := r.FieldByName("variables").Index(j)
				if x := v.FieldByName("Exceptions"); x.Len() != x.Cap() {
					t.Errorf("rule %d, variable %d: %d exceptions in room for %d; mend the constant fill",
						rules.Index(i).FieldByName("RuleMetadata").FieldByName("ID_").Int(), v.FieldByName("Variable").Uint(), x.Len(), x.Cap())
				}
			}
			chain := r.FieldByName("Chain")
			if chain.IsNil() {
				break
			}
			r = chain.Elem()
		}
	}
}

func TestPrepareBuildsOnceAndOnlyWhenNeeded(t *testing.T) {
	st := New(5, Config{}, observe.New())
	off := &bundle.Bundle{Sites: []*bundle.Site{{WAF: map[string]*v1.WafPolicySpec{"w": {Protection: v1.Protection{Mode: v1.ModeOff}}}}, {}}}
	if err := st.Prepare(context.Background(), off); err != nil || st.engine != nil {
		t.Errorf("built for nobody: %v", err)
	}
	on := &bundle.Bundle{Sites: []*bundle.Site{{WAF: map[string]*v1.WafPolicySpec{"w": {}}}}}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := st.Prepare(ctx, on); err == nil {
		t.Error("went on after its context")
	}
	if err := st.Prepare(context.Background(), on); err != nil || st.engine == nil {
		t.Fatal(err)
	}
	e := st.engine
	site := newRig(t, Config{}, v1.WafPolicySpec{}).site
	p, err := st.Compile(site, nil)
	if err != nil || p.(*part).engine != e {
		t.Errorf("built again: %v", err)
	}
	site.Routes = []snapshot.Route{{Spec: &v1.Route{}}}
	if q, err := st.Compile(site, p); q != nil || err != nil {
		t.Errorf("a site without policies made a part: %v %v", q, err)
	}
}

// TestConcurrentPolicies runs policies with target exclusions side by side on one engine.
func TestConcurrentPolicies(t *testing.T) {
	a := newRig(t, Config{}, v1.WafPolicySpec{Exclusions: []v1.WafExclusion{{Target: "REQUEST_COOKIES:id"}, {Target: "REQUEST_HEADERS:X-A"}, {Target: "ARGS:q"}}})
	b := newRig(t, Config{}, v1.WafPolicySpec{Paranoia: 2, Exclusions: []v1.WafExclusion{{Target: "REQUEST_COOKIES:other"}, {Target: "REQUEST_HEADERS:X-B"}}})
	var wg sync.WaitGroup
	for _, g := range []*rig{a, b} {
		for range 2 {
			wg.Go(func() {
				for range 8 {
					for _, q := range []request{sqli("q"), {target: "/", fields: []string{"Cookie", "id=1' UNION SELECT password FROM users-- -"}}, shopping[9]} {
						err, m, _ := g.do(q)
						if want := g == b && q.body == nil; (err != nil) != want {
							t.Errorf("%s: denied %v, want %v: %q", q.target, err != nil, want, m.Detail)
						}
					}
				}
			})
		}
	}
	wg.Wait()
}

// TestMemoryOfAPolicy measures what a further policy costs; it must stay far below an engine's.
func TestMemoryOfAPolicy(t *testing.T) {
	e, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const n = 1000
	list := make([]*policy, n)
	before := heap()
	for i := range list {
		list[i], err = e.compile(&v1.WafPolicySpec{Exclusions: []v1.WafExclusion{{Rules: []string{"942000-942999"}, Path: "/x"}, {Tags: []string{"attack-xss"}, Target: "ARGS:a"}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	per := (heap() - before) / n
	runtime.KeepAlive(list)
	t.Logf("%d bytes for a policy with two exclusions", per)
	if per > 8<<10 {
		t.Errorf("%d bytes for a policy, want at most 8 KiB", per)
	}
}

func BenchmarkServe(b *testing.B) {
	for _, c := range []struct {
		name string
		q    request
		e    []v1.WafExclusion
	}{
		{"GET", shopping[1], nil},
		{"GET/exclusion of 60 rules", shopping[1], []v1.WafExclusion{{Tags: []string{"attack-sqli"}}}},
		{"GET/target of every rule", shopping[1], []v1.WafExclusion{{Target: "ARGS:q"}}},
		{"POST JSON", shopping[9], nil},
		{"attack", attacks[0].q, nil},
	} {
		b.Run(c.name, func(b *testing.B) {
			g := newRig(b, Config{}, v1.WafPolicySpec{Exclusions: c.e})
			b.ReportAllocs()
			for b.Loop() {
				_, _, _ = g.do(c.q)
			}
		})
	}
}

func BenchmarkNewEngine(b *testing.B) {
	for b.Loop() {
		if _, err := newEngine(); err != nil {
			b.Fatal(err)
		}
	}
}
