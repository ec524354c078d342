package cache

import (
	"fmt"
	"net/http/httptest"
	"slices"
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
	s := newStage(t, Config{Slot: 3})
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
	if hits != 3*maxVariants {
		t.Errorf("%d variants are kept", hits)
	}
	x := r.exchange("GET /a")
	if in := r.s.Inspect(x); len(in.Keys) != 1 || len(in.Keys[0].Variants) != maxVariants {
		t.Errorf("%+v", in)
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

func TestKeyRules(t *testing.T) {
	except := v1.CacheKey{Query: "except", Parameters: []string{"@marketing", "ref"}}
	listed := v1.CacheKey{Query: "listed", Parameters: []string{"id", "page"}}
	sorted := v1.CacheKey{Sort: true}
	for _, c := range []struct {
		key         v1.CacheKey
		query, want string
	}{
		{except, "utm_source=a&id=7&gclid=x&fbclid=y&msclkid=z", "?id=7"},
		{except, "utm=1&utm_=2&UTM_source=3&ref=4&referrer=5", "?utm=1&UTM_source=3&referrer=5"},
		{except, "%75tm_source=a&id=7", "?id=7"},
		{except, "utm_source=a", ""},
		// What an origin that splits at semicolons sees, and what one that does not: both are in the key.
		{except, "id=5;utm_source=a", "?id=5;utm_source=a"},
		{except, "utm_source=a;id=5", "?utm_source=a;id=5"},
		{except, "utm_source=a;gclid=5", ""},
		{listed, "x=1&page=2&id=7", "?page=2&id=7"},
		{listed, "x=1;id=7&y=2", "?x=1;id=7"},
		{listed, "x=1", ""},
		{sorted, "b=2&a=1&c=3", "?a=1&b=2&c=3"},
		{sorted, "b=2&a=2&a=1", "?a=2&a=1&b=2"},
		{sorted, "b[]=2&a=1&b[]=1&b=3&%62=4", "?a=1&b[]=2&b[]=1&b=3&%62=4"},
		{sorted, "x_y=1&A=0&x.y=2&x%20y=3&a=4", "?A=0&a=4&x_y=1&x.y=2&x%20y=3"},
		{sorted, "b=1&a=2;c=3", "?b=1&a=2;c=3"},
		{sorted, "b&a&=x&", "?=x&a&b"},
		{v1.CacheKey{Query: "except", Parameters: []string{"@marketing"}, Sort: true}, "z=1&utm_x=2&a=3", "?a=3&z=1"},
		{v1.CacheKey{Query: "none"}, "a=1", ""},
		{v1.CacheKey{}, "b&&a=;x", "?b&&a=;x"},
	} {
		k := newKeyer(&c.key)
		if got := string(k.appendTarget(nil, []byte("/p"), []byte(c.query))); got != "/p"+c.want {
			t.Errorf("%+v of %s: %s, want /p%s", c.key, c.query, got, c.want)
		}
	}
	many := strings.Repeat("b=1&a=2&", maxSorted)
	if got := string(newKeyer(&sorted).appendTarget(nil, nil, []byte(many))); got != "?"+many[:len(many)-1] {
		t.Error("more parameters than are sorted lost their order")
	}
}

// FuzzSortedKeys: a sorted key holds the parameters that came, and sorting again changes nothing.
func FuzzSortedKeys(f *testing.F) {
	for _, s := range []string{"b=2&a=1", "a[]=1&a[]=0", "%61=1&a=2;b", "&&&", "a%00b=1&a=2", "%=1&%2=2"} {
		f.Add(s)
	}
	k := newKeyer(&v1.CacheKey{Sort: true})
	f.Fuzz(func(t *testing.T, query string) {
		once := k.appendTarget(nil, nil, []byte(query))
		if len(once) == 0 {
			return
		}
		if again := k.appendTarget(nil, nil, once[1:]); string(again) != string(once) {
			t.Fatalf("%q: %q, and then %q", query, once, again)
		}
		split := func(s string) []string {
			list := slices.DeleteFunc(strings.Split(s, "&"), func(p string) bool { return p == "" })
			slices.Sort(list)
			return list
		}
		if a, b := split(query), split(string(once[1:])); !slices.Equal(a, b) {
			t.Fatalf("%q became %q", a, b)
		}
	})
}

func TestLanguagesAndDevicesAreInTheKeyAndTheOriginIsSentThem(t *testing.T) {
	const phone = "User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148"
	r := newRig(t, v1.CachePolicySpec{Key: v1.CacheKey{Languages: []string{"en", "de"}, Device: true}},
		ok("Cache-Control: max-age=60", "Vary: User-Agent, Accept-Language"))
	for i, c := range []struct {
		headers []string
		cache   string
		asked   []string
	}{
		{[]string{"Accept-Language: de-AT,fr;q=0.9", phone}, "miss", []string{"|Accept-Language: de|", "|Relais-Device: mobile"}},
		{[]string{"Accept-Language: fr, de;q=0.1", phone + " another"}, "hit", nil},
		{[]string{"Accept-Language: fr", phone}, "miss", []string{"|Accept-Language: en|"}},
		{[]string{phone}, "hit", nil},
		{[]string{"Accept-Language: de", "Accept-Language: en;q=0.5", "relais-device: mobile"}, "miss", []string{"|Accept-Language: de|", "elais-device: desktop"}},
		{[]string{"Accept-Language: de", "User-Agent: curl/8"}, "hit", nil},
	} {
		r.origin.asked = nil
		g := r.do("GET /a", c.headers...)
		if g.cache != c.cache {
			t.Errorf("%d: %s", i, g.cache)
		}
		for _, want := range c.asked {
			if len(r.origin.asked) != 1 || !strings.Contains(r.origin.asked[0]+"|", want) {
				t.Errorf("%d: asked %q, want %s", i, r.origin.asked, want)
			}
		}
	}
	// What goes around the cache is told the same.
	for _, line := range []string{"POST /a", "OPTIONS /a"} {
		r.origin.asked = nil
		r.do(line, "Accept-Language: de-AT", phone, "Relais-Device: x")
		if got := r.origin.asked[0] + "|"; !strings.Contains(got, "|Accept-Language: de|") || !strings.Contains(got, "|Relais-Device: mobile|") {
			t.Errorf("%s: asked %q", line, got)
		}
	}
	if n := len(r.site.Parts[3].(*part).keyers); n != 1 {
		t.Errorf("%d keyers", n)
	}
}
