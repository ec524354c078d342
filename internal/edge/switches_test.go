package edge

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

const switchDocs = siteHead + `
  waf: core
  rateLimits: [slow]
  routes: [{pool: shop}]
---
apiVersion: relais/v1
kind: WafPolicy
metadata: {name: core}
spec: {mode: enforce}
---
apiVersion: relais/v1
kind: RateLimit
metadata: {name: slow}
spec: {requests: 1, per: 24h}
` + pool

func TestAProtectionIsSwitchedOffWhileItRuns(t *testing.T) {
	b := newBed(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the shop") }, switchDocs)
	const attack = "/?id=1%27%20OR%20%271%27=%271%27%20UNION%20SELECT%20password%20FROM%20users--"
	expect := func(when, path string, status int) {
		t.Helper()
		if resp, page := b.get("http1", path); resp.StatusCode != status {
			t.Errorf("%s: %s gets %d: %.200s", when, path, resp.StatusCode, page)
		}
	}
	set := func(list ...Switch) {
		t.Helper()
		if err := b.SetSwitches(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	expect("at first", attack, 403) // takes the one request that the limit has
	expect("at first", "/", 429)
	set(Switch{Protection: "ratelimit"})
	expect("without limits", "/", 200)
	expect("without limits", attack, 403)
	set(Switch{Protection: "ratelimit", Organization: "default"}, Switch{Protection: "waf", Site: "default/shop"})
	expect("without both", attack, 200)
	b.apply(strings.Replace(switchDocs, "per: 24h", "per: 23h", 1))
	expect("with other documents", attack, 200)
	set(Switch{Protection: "ratelimit"}, Switch{Protection: "waf", Organization: "another"})
	expect("off for another organization", attack, 403)
	for _, bad := range []Switch{{Protection: "jwt"}, {Protection: "waf", Site: "shop"}, {Protection: "waf", Site: "a/b", Organization: "c"}} {
		if b.SetSwitches(t.Context(), []Switch{bad}) == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	if b.SetSwitches(t.Context(), slices.Repeat([]Switch{{Protection: "waf"}}, MaxSwitches+1)) == nil {
		t.Error("any number of switches is taken")
	}
	expect("after what was refused", attack, 403)
	set()
	expect("at last", attack, 403) // the changed limit counts anew
	expect("at last", "/", 429)
}

func TestWhatSitesShareStaysSharedAndWhatWasGivenStays(t *testing.T) {
	waf := &v1.WafPolicySpec{Protection: v1.Protection{Mode: v1.ModeEnforce}}
	given := &bundle.Bundle{Format: bundle.Format}
	for i := range 4 {
		given.Sites = append(given.Sites, &bundle.Site{
			Key: bundle.NewKey([]string{"a", "b"}[i%2], fmt.Sprint("s", i)), WAF: map[string]*v1.WafPolicySpec{"core": waf},
			API: map[string]*v1.ApiPolicySpec{"x": {}}, Bots: map[string]*v1.BotPolicySpec{"x": {}}, RateLimits: map[string]*v1.RateLimitSpec{"x": {}},
			Rooms: map[string]*v1.WaitingRoomSpec{"x": {}}, Flood: &v1.FloodPolicySpec{},
		})
	}
	out := switched(given, []Switch{{Protection: "waf", Organization: "a"}, {Protection: "waf"}})
	if waf.Mode != v1.ModeEnforce || given.Sites[0].WAF["core"] != waf {
		t.Error("what was given is changed")
	}
	off := out.Sites[0].WAF["core"]
	for _, s := range out.Sites {
		if s.WAF["core"] != off || off.Mode != v1.ModeOff {
			t.Errorf("%s has a spec of its own, or one that is on", s.Key)
		}
	}
	var all []Switch
	for _, p := range Protections() {
		all = append(all, Switch{Protection: p})
	}
	for _, s := range switched(given, all).Sites {
		for _, mode := range []v1.Mode{s.API["x"].Mode, s.Bots["x"].Mode, s.RateLimits["x"].Mode, s.Rooms["x"].Mode, s.WAF["core"].Mode, s.Flood.Mode} {
			if mode != v1.ModeOff {
				t.Errorf("%s: %v", s.Key, mode)
			}
		}
	}
	if switched(given, nil) != given {
		t.Error("a copy is made for nothing")
	}
}
