package stage

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
)

func siteWith(names ...string) *snapshot.Site {
	site := &snapshot.Site{Key: "o/shop"}
	for i, n := range names {
		site.Routes = append(site.Routes, snapshot.Route{Index: i, Name: "r", Spec: &v1.Route{Policies: v1.Policies{WAF: n}}})
	}
	return site
}

func TestPoliciesAreMadeOncePerName(t *testing.T) {
	type spec struct{ n int }
	type policy struct{ name string }
	specs := map[string]*spec{"a": {1}, "b": {2}, "bad": {3}}
	of := func(r *v1.Route) string { return r.WAF }
	made := 0
	compile := func(name string, s *spec) (*policy, error) {
		if made++; s.n == 3 {
			return nil, errors.New("no good")
		}
		return &policy{name}, nil
	}
	routes, named, err := Policies(siteWith("a", "", "b", "a"), v1.KindWafPolicy, of, specs, compile)
	if err != nil || made != 2 || len(named) != 2 || len(routes) != 4 || routes[0] != routes[3] || routes[1] != nil || routes[2].name != "b" || named["a"] != routes[0] {
		t.Errorf("%v %v, %d made: %v", routes, named, made, err)
	}
	for name, want := range map[string]string{
		"bad": "site o/shop: WafPolicy bad: no good",
		"c":   "site o/shop, route r names WafPolicy c, which the bundle does not hold",
	} {
		if _, _, err := Policies(siteWith("a", name), v1.KindWafPolicy, of, specs, compile); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestSeriesGoOnFromPartToPart(t *testing.T) {
	reg := observe.New()
	f, site, outcomes := reg.Counters("x_total", "X.", 10, "site", "outcome"), siteWith(), []string{"a", "b"}
	shown := func() string {
		w := httptest.NewRecorder()
		reg.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		return w.Body.String()
	}
	var first, second [2]observe.Counter
	Series(f, site, outcomes, first[:], true, false)
	first[1].Inc()
	Series(f, site, outcomes, second[:], true, true)
	second[1].Inc()
	if s := shown(); !strings.Contains(s, `x_total{outcome="b",site="o/shop"} 2`) || !strings.Contains(s, `x_total{outcome="a",site="o/shop"} 0`) {
		t.Error(s)
	}
	Series(f, site, outcomes, second[:], false, true)
	if s := shown(); strings.Contains(s, "x_total{") {
		t.Error(s)
	}
}
