package waf

import (
	"slices"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/waf/screen"
)

// TestShoppersNeedNoEngine: an engine that panics is not asked about requests that are proved
// clean, at any level; all attacks are its own.
func TestShoppersNeedNoEngine(t *testing.T) {
	for paranoia := 1; paranoia <= 2; paranoia++ {
		g := newRig(t, Config{}, v1.WafPolicySpec{Paranoia: paranoia})
		pt := *g.site.Parts[5].(*part)
		pt.engine = &engine{}
		g.site.Parts[5] = &pt
		clean := []request{
			{target: "/telephonie/casque-audio/p-1234567.html?ref=home&color=noir"},
			{method: "POST", target: "/compte", fields: []string{"Content-Type", form}, body: []string{"first_name=Jean&city=Paris"}},
			{method: "POST", target: "/api", fields: []string{"Content-Type", jsonType}, body: []string{`{"items":[{"sku":"A1","qty":2}]}`}},
		}
		for _, q := range clean {
			if err, m, o := g.do(q); err != nil || m.Code != "pass" || !o.called {
				t.Errorf("paranoia %d: %s: %v %v", paranoia, q.target, err, m)
			}
		}
		for _, a := range attacks {
			if err, m, _ := g.do(a.q); err == nil || m.Code != "failed" {
				t.Errorf("paranoia %d: %s was not the engine's: %v %v", paranoia, a.name, err, m)
			}
		}
	}
}

// TestExclusionOfWhatIsCountedIsTheEngines: without a target a count may come out another way.
func TestExclusionOfWhatIsCountedIsTheEngines(t *testing.T) {
	for target, proved := range map[string]bool{"ARGS:q": true, "REQUEST_COOKIES:prefs": true, "REQUEST_HEADERS:Host": false} {
		g := newRig(t, Config{}, v1.WafPolicySpec{Exclusions: []v1.WafExclusion{{Target: target}}})
		x := g.exchange(request{target: "/?q=1"})
		pt := g.site.Parts[5].(*part)
		p := pt.routes[0]
		var r sheet
		r.fill(x, nil, false)
		if got := g.st.proved(p, x, &r); got != proved {
			t.Errorf("%s: proved is %v", target, got)
		}
	}
}

func TestEveryLevelHasItsScreen(t *testing.T) {
	e, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	var seen []*screen.Screen
	for paranoia := 1; paranoia <= 4; paranoia++ {
		s := e.screen(paranoia)
		if s == nil || slices.Contains(seen, s) || e.screen(paranoia) != s {
			t.Errorf("paranoia %d: %p", paranoia, s)
		}
		if c := s.Coverage(); len(c.Always) > 0 {
			t.Errorf("paranoia %d: nothing is proved because of rules %v", paranoia, c.Always)
		}
		seen = append(seen, s)
	}
}
