package waf

import (
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

func TestExclusionsOfNothingOrEverythingAreFound(t *testing.T) {
	e, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		x     v1.WafExclusion
		field string // empty when it is good
		what  string
	}{
		{v1.WafExclusion{Rules: []string{"942100"}, Target: "ARGS:q", Path: "/search"}, "", ""},
		{v1.WafExclusion{Rules: []string{"942000-942999"}}, "", ""},
		{v1.WafExclusion{Tags: []string{"attack-sqli"}, Target: "REQUEST_COOKIES:/^seen_\\d+$/"}, "", ""},
		{v1.WafExclusion{Rules: []string{"942100"}, Target: "REQUEST_XML:/*"}, "", ""},
		{v1.WafExclusion{Target: "ARGS:html"}, "", ""},
		{v1.WafExclusion{Target: "ARGS", Path: "/editor"}, "", ""},
		{v1.WafExclusion{Rules: []string{"200002"}, Path: "/api"}, "", ""},
		{v1.WafExclusion{Rules: []string{"942100", "942998"}}, "spec.exclusions[0].rules[1]", `"942998" is no detection rule of OWASP_CRS/4`},
		{v1.WafExclusion{Rules: []string{"949110"}}, "spec.exclusions[0].rules[0]", "is no detection rule"},
		{v1.WafExclusion{Rules: []string{"1-99"}}, "spec.exclusions[0].rules[0]", "is no detection rule"},
		{v1.WafExclusion{Tags: []string{"attack-sql"}}, "spec.exclusions[0].tags[0]", "is on no detection rule"},
		{v1.WafExclusion{Rules: []string{"1-999999"}}, "spec.exclusions[0]", "takes every rule out of force"},
		{v1.WafExclusion{Rules: []string{"942100"}, Target: "ARGS_GET:q"}, "spec.exclusions[0].target", "none of the rules looks at ARGS_GET, so it excludes nothing; the rules look at ARGS"},
		{v1.WafExclusion{Rules: []string{"913100"}, Target: "ARGS:q"}, "spec.exclusions[0].target", "none of the rules looks at ARGS"},
		{v1.WafExclusion{Rules: []string{"942100"}, Target: "ARGS:/.*/"}, "spec.exclusions[0].target", "holds for every name"},
		{v1.WafExclusion{Target: "ARGS"}, "spec.exclusions[0].target", "every rule, name and path"},
		{v1.WafExclusion{Rules: []string{"942100"}, Target: "ARG:q"}, "spec.exclusions[0].target", "there is no variable ARG"},
	} {
		b := &bundle.Bundle{Sites: []*bundle.Site{{Key: "o/shop", WAF: map[string]*v1.WafPolicySpec{"w": {Exclusions: []v1.WafExclusion{c.x}}}}}}
		list := (&Trial{e}).Check(b, 10)
		switch {
		case c.field == "" && len(list) == 0:
		case c.field == "" || len(list) != 1:
			t.Errorf("%s: %v", Line(&c.x), list)
		case list[0].Field != c.field || !strings.Contains(list[0].What, c.what) || list[0].Fix == "" || list[0].Policy != "w":
			t.Errorf("%s: %+v", Line(&c.x), list[0])
		}
		if len((&Trial{e}).Check(b, 0)) != 0 {
			t.Errorf("%s: more was looked at than allowed", Line(&c.x))
		}
	}
}

func TestExclusionsOfACandidateAreChecked(t *testing.T) {
	e, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	spec := &v1.WafPolicySpec{Candidate: &v1.WafCandidate{Exclusions: []v1.WafExclusion{{Rules: []string{"942998"}}}}}
	b := &bundle.Bundle{Sites: []*bundle.Site{{Key: "o/shop", WAF: map[string]*v1.WafPolicySpec{"w": spec}}}}
	list := (&Trial{e}).Check(b, 10)
	if len(list) != 1 || list[0].Field != "spec.candidate.exclusions[0].rules[0]" || !Excludes(b) {
		t.Errorf("%+v", list)
	}
}

func TestAnExactExclusionHoldsForItsPathAlone(t *testing.T) {
	g := newRig(t, Config{}, v1.WafPolicySpec{Exclusions: []v1.WafExclusion{{Rules: []string{"942000-942999"}, Path: "/search", Exact: true}}})
	for target, denied := range map[string]bool{"/search": false, "/search/": true, "/search/a": true, "/": true} {
		q := sqli("q")
		q.target = target + strings.TrimPrefix(q.target, "/search")
		if err, m, _ := g.do(q); (err != nil) != denied {
			t.Errorf("%s: %v %+v", target, err, m)
		}
	}
}
