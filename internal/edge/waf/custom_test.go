package waf

import (
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/stage"
)

func TestOwnRules(t *testing.T) {
	get := func(target string, fields ...string) request { return request{target: target, fields: fields} }
	post := func(kind, body string) request {
		return request{method: "POST", target: "/cart", fields: []string{"Content-Type", kind}, body: []string{body}}
	}
	for _, c := range []struct {
		name     string
		rule     v1.WafRule
		denied   []request
		accepted []request
	}{
		{"a path", v1.WafRule{Path: "/wp-admin"}, []request{get("/wp-admin/x")}, []request{get("/wp-administer"), get("/")}},
		{"a method", v1.WafRule{Path: "/cart", Methods: []string{"POST"}}, []request{post(form, "a=1")}, []request{get("/cart")}},
		{
			"a field, whatever its case",
			v1.WafRule{When: []v1.WafCondition{{Target: "header:X-Tool", Contains: []string{"Scanner"}, IgnoreCase: true}}},
			[]request{get("/", "x-tool", "my SCANNER 1")},
			[]request{get("/", "x-tool", "scan"), get("/", "y-tool", "scanner")},
		},
		{
			"case counts",
			v1.WafRule{When: []v1.WafCondition{{Target: "header:x-tool", Contains: []string{"Scanner"}}}},
			[]request{get("/", "X-Tool", "Scanner")},
			[]request{get("/", "x-tool", "scanner")},
		},
		{
			"an argument of the query, decoded",
			v1.WafRule{When: []v1.WafCondition{{Target: "argument:coupon code", Equals: []string{"a+b c"}}}},
			[]request{get("/?x=1&coupon+code=a%2Bb+c"), get("/?coupon%20code=a%2bb%20c")},
			[]request{get("/?coupon+code=a+b+c"), get("/?coupon=a%2Bb+c")},
		},
		{
			"an argument of a form",
			v1.WafRule{When: []v1.WafCondition{{Target: "argument:qty", Longer: new(3)}}},
			[]request{post(form, "qty=1000")},
			[]request{post(form, "qty=999"), post("text/plain", "qty=1000")},
		},
		{
			"any argument",
			v1.WafRule{When: []v1.WafCondition{{Target: "argument", Prefix: []string{"ref-"}}}},
			[]request{get("/?a=1&b=ref-7")},
			[]request{get("/?a=1&b=xref-7")},
		},
		{
			"an expression, and not",
			v1.WafRule{Path: "/cart", When: []v1.WafCondition{{Target: "argument:coupon"}, {Target: "argument:coupon", Matches: "^[A-Z0-9]{1,8}$", Not: true}}},
			[]request{get("/cart?coupon=summer")},
			[]request{get("/cart?coupon=SUMMER26"), get("/cart")},
		},
		{
			"a cookie that is missing",
			v1.WafRule{Path: "/checkout", When: []v1.WafCondition{{Target: "cookie:session", Not: true}}},
			[]request{get("/checkout", "Cookie", "a=b; xsession=1")},
			[]request{get("/checkout", "Cookie", "a=b; session=1")},
		},
		{
			"the end of a host",
			v1.WafRule{When: []v1.WafCondition{{Target: "host", Suffix: []string{".shop.example"}}}},
			[]request{get("/")},
			nil,
		},
		{
			"the path and the query",
			v1.WafRule{When: []v1.WafCondition{{Target: "path", Suffix: []string{".bak", ".old"}}, {Target: "query", Contains: []string{"v="}}}},
			[]request{get("/a.bak?v=1"), get("/a.old?v=1")},
			[]request{get("/a.bak"), get("/a.css?v=1")},
		},
		{
			"members of JSON",
			v1.WafRule{When: []v1.WafCondition{{Target: "json:items.#.sku", Equals: []string{"X-9"}}}},
			[]request{post(jsonType, `{"items":[{"sku":"A"},{"sku":"X-9"}]}`)},
			[]request{post(jsonType, `{"items":[{"sku":"A"}],"sku":"X-9"}`), post("text/plain", `{"items":[{"sku":"X-9"}]}`)},
		},
		{
			"a member of JSON",
			v1.WafRule{When: []v1.WafCondition{{Target: "json:total", Equals: []string{"0"}}}},
			[]request{post(jsonType, `{"total":0}`)},
			[]request{post(jsonType, `{"total":1}`), post(jsonType, `{"to`)},
		},
		{
			"a body",
			v1.WafRule{When: []v1.WafCondition{{Target: "body", Contains: []string{"forbidden"}}}},
			[]request{post("text/plain", "a forbidden word")},
			[]request{post("text/plain", "a word"), get("/forbidden")},
		},
	} {
		c.rule.Name = "mine"
		// Above every score that the rule set gives here, so that only the own rule refuses.
		g := newRig(t, Config{}, v1.WafPolicySpec{InboundThreshold: 10_000, Rules: []v1.WafRule{c.rule}})
		for want, list := range map[bool][]request{true: c.denied, false: c.accepted} {
			for i := range list {
				err, m, _ := g.do(list[i])
				if own := err != nil && m.Code == "deny" && strings.HasPrefix(m.Detail, "rule mine "); own != want {
					t.Errorf("%s: %s %s: %v %+v", c.name, list[i].target, strings.Join(list[i].body, ""), err, m)
				}
			}
		}
	}
}

func TestOwnRulesThatLogExpireOrAreInShadow(t *testing.T) {
	rule := v1.WafRule{Name: "mine", Action: "log", Path: "/a"}
	g := newRig(t, Config{}, v1.WafPolicySpec{Rules: []v1.WafRule{rule}})
	x := g.exchange(request{target: "/a"})
	if _, err := g.st.Serve(t.Context(), x, &origin{}); err != nil {
		t.Error(err)
	}
	logged := false
	for _, m := range x.Trail.Marks() {
		logged = logged || m.Code == "rule" && m.Detail == "mine"
	}
	if !logged {
		t.Errorf("%+v", x.Trail.Marks())
	}
	rule.Action = "deny"
	g = newRig(t, Config{}, v1.WafPolicySpec{Protection: v1.Protection{Mode: v1.ModeShadow}, Rules: []v1.WafRule{rule}})
	if err, m, _ := g.do(request{target: "/a"}); err != nil || m.Code != "would-deny" {
		t.Errorf("shadow: %v %+v", err, m)
	}
	past := v1.Time{Time: time.Now().Add(-time.Hour)}
	rule.Expires = &past
	g = newRig(t, Config{}, v1.WafPolicySpec{Rules: []v1.WafRule{rule}})
	if err, m, _ := g.do(request{target: "/a"}); err != nil || m.Code != "pass" {
		t.Errorf("expired: %v %+v", err, m)
	}
	rule.Expires = nil
	g = newRig(t, Config{}, v1.WafPolicySpec{Rules: []v1.WafRule{rule}})
	if err, _, _ := g.do(request{target: "/a", basket: true}); err == nil || stage.AsError(err).Status != 403 {
		t.Errorf("with a basket: %v", err)
	}
}

func TestOwnRulesAllocateLittle(t *testing.T) {
	g := newRig(t, Config{}, v1.WafPolicySpec{Rules: []v1.WafRule{
		{Name: "a", When: []v1.WafCondition{{Target: "argument", Contains: []string{"zzz"}, IgnoreCase: true}}},
		{Name: "b", When: []v1.WafCondition{{Target: "header:User-Agent", Matches: "nikto|sqlmap"}}},
		{Name: "c", Path: "/x", When: []v1.WafCondition{{Target: "cookie:a"}}},
	}})
	x := g.exchange(request{target: "/?a=1&b=two+words"})
	p := g.site.Parts[5].(*part).routes[0]
	s := &sheet{}
	s.fill(x, nil, false)
	if n := testing.AllocsPerRun(100, func() {
		if r, err := p.asked(x, s, false); r != nil || err != nil {
			t.Fatal(r, err)
		}
	}); n != 0 && !raced {
		t.Errorf("%v allocations", n)
	}
}

// FuzzOwnRules: whatever a client sends, a rule answers, and what an equal argument says does not depend on how it is written.
func FuzzOwnRules(f *testing.F) {
	f.Add("a=1&b=%41", `{"a":[1,2,{"b":3}]}`)
	f.Add("%=%%&&=", `{"a":`)
	f.Add("+", strings.Repeat("[", 1000))
	var conditions []condition
	for _, target := range []string{"argument", "argument:a", "json:a.#.b", "json:a", "body", "query", "cookie:a", "header:b", "path", "host"} {
		c, err := newCondition(&v1.WafCondition{Target: target, Contains: []string{"zz"}, Matches: "^q+$", IgnoreCase: true})
		if err != nil {
			f.Fatal(err)
		}
		conditions = append(conditions, c)
	}
	g := newRig(f, Config{}, v1.WafPolicySpec{})
	f.Fuzz(func(t *testing.T, query, body string) {
		x := g.exchange(request{method: "POST", target: "/", fields: []string{"Content-Type", "application/json", "Cookie", "a=" + strings.Map(cookieText, query)}, body: []string{body}})
		x.In.SetQuery([]byte(query))
		var s sheet
		s.fill(x, []byte(body), false)
		for i := range conditions {
			conditions[i].found(x, &s)
		}
	})
}

func cookieText(r rune) rune {
	if r < ' ' || r > '~' {
		return -1
	}
	return r
}
