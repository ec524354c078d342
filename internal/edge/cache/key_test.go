package cache

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

func TestKeyTellsApart(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, ok("Cache-Control: max-age=60"))
	other := newSite(t, r.s, "rival/shop", v1.CachePolicySpec{})
	seen := map[string]bool{}
	for name, change := range map[string]func(x *stage.Exchange){
		"":             func(*stage.Exchange) {},
		"tenant":       func(x *stage.Exchange) { x.Site, x.Route = other, &other.Routes[0] },
		"scheme":       func(x *stage.Exchange) { x.In.Secure = true },
		"host":         func(x *stage.Exchange) { x.SetHost([]byte("b.example")) },
		"port":         func(x *stage.Exchange) { x.In.SetAuthority([]byte("shop.example:8080")) },
		"path":         func(x *stage.Exchange) { x.In.SetPath([]byte("/A")) },
		"query":        func(x *stage.Exchange) { x.In.SetQuery([]byte("x")) },
		"another port": func(x *stage.Exchange) { x.In.SetAuthority([]byte("[::1]:80443")) },
	} {
		x := r.exchange("GET /a")
		change(x)
		k := string(newKeyer(&v1.CacheKey{}).append(nil, x))
		if seen[k] {
			t.Errorf("%q has the key of another: %s", name, k)
		}
		seen[k] = true
	}
	for _, authority := range []string{"shop.example", "shop.example:80", "shop.example:", "SHOP.example"} {
		x := r.exchange("GET /a")
		x.In.SetAuthority([]byte(authority))
		if k := string(newKeyer(&v1.CacheKey{}).append(nil, x)); !seen[k] {
			t.Errorf("%s has a key of its own: %s", authority, k)
		}
	}
}

func TestTenantsNeverShare(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, reply{body: "of acme", headers: []string{"Cache-Control: max-age=60"}})
	r.do("GET /a")
	rival := newSite(t, r.s, "rival/shop", v1.CachePolicySpec{})
	r.origin.replies = []reply{{body: "of rival", headers: []string{"Cache-Control: max-age=60"}}}
	x := r.exchange("GET /a")
	x.Site, x.Route = rival, &rival.Routes[0]
	if g := r.send(t.Context(), x); g.body != "of rival" {
		t.Errorf("rival got %q", g.body)
	}
}

// Two routes of a site may lead one URI to two origins, chosen by a field that is not in the key.
func TestRoutesNeverShareButAreInvalidatedTogether(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, reply{body: "one", headers: []string{"Cache-Control: max-age=60"}})
	on := func(i int, line string) *got {
		x := r.exchange(line)
		x.Route = &r.site.Routes[i]
		return r.send(t.Context(), x)
	}
	on(0, "GET /a")
	r.origin.replies = []reply{{body: "two", headers: []string{"Cache-Control: max-age=60"}}}
	if g := on(2, "GET /a"); g.body != "two" {
		t.Errorf("the second route got %q", g.body)
	}
	if g := on(0, "GET /a"); g.cache != "hit" || g.body != "one" {
		t.Errorf("the first: %s %q", g.cache, g.body)
	}
	if g := on(1, "GET /a"); g.cache != "" || g.header("Cache-Status") != "" {
		t.Errorf("a route without a policy: %q %q", g.cache, g.header("Cache-Status"))
	}
	on(1, "POST /a") // its route has no policy, and yet
	for _, i := range []int{0, 2} {
		if g := on(i, "GET /a"); g.cache != "miss" {
			t.Errorf("route %d after POST: %s", i, g.cache)
		}
	}
}

func TestASiteWithoutPoliciesHasNoPart(t *testing.T) {
	s := New(Config{Slot: 3})
	site := &snapshot.Site{Routes: []snapshot.Route{{Spec: &v1.Route{}}}}
	if p, err := s.Compile(site, nil); p != nil || err != nil {
		t.Errorf("%v, %v", p, err)
	}
}

func TestWhatIsStoredSurvivesAReload(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, ok("Cache-Control: max-age=60"))
	r.do("GET /a")
	r.site = newSite(t, r.s, "acme/shop", v1.CachePolicySpec{MaxObject: 1000})
	if g := r.do("GET /a"); g.cache != "hit" {
		t.Errorf("%s", g.cache)
	}
}

func TestRFC9211_CacheStatusIsAppended(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, ok("Cache-Control: max-age=60", "Cache-Status: shield; hit; ttl=5"))
	for i, want := range []string{"relais; fwd=uri-miss; stored", "relais; hit; ttl=50"} {
		g := r.do("GET /a")
		var lines []string
		for i := g.fields.Next(message.CacheStatus, 0); i >= 0; i = g.fields.Next(message.CacheStatus, i+1) {
			_, _, v := g.fields.At(i)
			lines = append(lines, string(v))
		}
		if strings.Join(lines, ", ") != "shield; hit; ttl=5, "+want {
			t.Errorf("%d: %q", i, lines)
		}
		r.pass(10 * time.Second)
	}
}

func TestUpgradesAndBodiesAreNotLookedUp(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, ok("Cache-Control: max-age=60"))
	r.do("GET /a")
	if g := r.do("GET /a", "Upgrade: websocket"); g.cache != "bypass" {
		t.Errorf("upgrade: %s", g.cache)
	}
	x := r.exchange("GET /a")
	x.In.ContentLength = 5
	if g := r.send(t.Context(), x); g.cache != "bypass" {
		t.Errorf("body: %s", g.cache)
	}
}

func TestVariantsAreBounded(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, ok("Cache-Control: max-age=60", "Vary: Foo"))
	for i := range 3 * maxVariants {
		r.do("GET /a", fmt.Sprintf("Foo: %d", i))
	}
	hits := 0
	for i := range 3 * maxVariants {
		x := r.exchange("GET /a", fmt.Sprintf("Foo: %d", i), "Cache-Control: only-if-cached")
		if g := r.send(t.Context(), x); g.cache == "hit" {
			hits++
		}
	}
	if hits != maxVariants {
		t.Errorf("%d variants are kept", hits)
	}
	if n := r.s.Stats(); n.Entries != 1 || n.Bytes > maxVariants*2000 {
		t.Errorf("%+v", n)
	}
}

func TestMetricsCountResults(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, ok("Cache-Control: max-age=60"))
	r.do("GET /a")
	r.do("GET /a")
	w := httptest.NewRecorder()
	r.s.cfg.Metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	b := w.Body
	for _, want := range []string{`relais_cache_requests_total{result="hit"} 1`, `relais_cache_requests_total{result="miss"} 1`, `relais_cache_events_total{event="stored"} 1`, "relais_cache_keys 1"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s", want)
		}
	}
}
