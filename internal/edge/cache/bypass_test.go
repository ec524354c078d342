package cache

import (
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
)

func TestBypassRulesMatch(t *testing.T) {
	for _, c := range []struct {
		rule    v1.CacheBypass
		line    string
		headers []string
		want    bool
	}{
		{v1.CacheBypass{Cookies: []string{"session"}}, "GET /a", []string{"Cookie: theme=dark; session=1"}, true},
		{v1.CacheBypass{Cookies: []string{"session"}}, "GET /a", []string{"Cookie: theme=dark", "Cookie: session"}, true},
		{v1.CacheBypass{Cookies: []string{"session"}}, "GET /a", []string{"Cookie: Session=1; sessions=2; x=session"}, false},
		{v1.CacheBypass{Cookies: []string{"session"}}, "GET /a", nil, false},
		{v1.CacheBypass{Cookies: []string{"wordpress_logged_in_*"}}, "GET /a", []string{"Cookie: wordpress_logged_in_0a1b=x"}, true},
		{v1.CacheBypass{Cookies: []string{"wordpress_logged_in_*"}}, "GET /a", []string{"Cookie: wordpress_test=x"}, false},
		{v1.CacheBypass{Cookies: []string{"role=staff"}}, "GET /a", []string{`Cookie: role="staff"`}, true},
		{v1.CacheBypass{Cookies: []string{"role=staff"}}, "GET /a", []string{"Cookie: role=staffer"}, false},
		{v1.CacheBypass{Parameters: []string{"preview"}}, "GET /a?x=1&preview", nil, true},
		{v1.CacheBypass{Parameters: []string{"preview"}}, "GET /a?x=preview", nil, false},
		{v1.CacheBypass{Parameters: []string{"preview"}}, "GET /a?x=1;%70review=", nil, true},
		{v1.CacheBypass{Parameters: []string{"mode=draft copy"}}, "GET /a?mode=draft%20copy", nil, true},
		{v1.CacheBypass{Parameters: []string{"mode=draft copy"}}, "GET /a?mode=draft+copy", nil, true},
		{v1.CacheBypass{Parameters: []string{"mode=draft"}}, "GET /a?mode=draft2&mode=draf", nil, false},
		{v1.CacheBypass{Parameters: []string{"preview_*"}}, "GET /a?preview_id=7", nil, true},
		{v1.CacheBypass{Headers: []string{"X-Preview"}}, "GET /a", []string{"x-preview: "}, true},
		{v1.CacheBypass{Headers: []string{"X-Debug=1"}}, "GET /a", []string{"X-Debug: 1"}, true},
		{v1.CacheBypass{Headers: []string{"X-Debug=1"}}, "GET /a", []string{"X-Debug: 0"}, false},
		{v1.CacheBypass{Headers: []string{"X-Staff-*"}}, "GET /a", []string{"x-staff-name: me"}, true},
		{v1.CacheBypass{Suffixes: []string{".php", "/"}}, "GET /a.PHP", nil, true},
		{v1.CacheBypass{Suffixes: []string{".php", "/"}}, "GET /shop/", nil, true},
		{v1.CacheBypass{Suffixes: []string{".php", "/"}}, "GET /a.php5?b=.php", nil, false},
		{v1.CacheBypass{Suffixes: []string{"@static"}}, "GET /a.jpg", nil, true},
		{v1.CacheBypass{ExceptSuffixes: []string{"@static", ".txt"}}, "GET /a", nil, true},
		{v1.CacheBypass{ExceptSuffixes: []string{"@static", ".txt"}}, "GET /robots.txt", nil, false},
		{v1.CacheBypass{Cookies: []string{"session"}, ExceptSuffixes: []string{"@static"}}, "GET /a.jpg", []string{"Cookie: session=1"}, false},
		{v1.CacheBypass{Cookies: []string{"session"}, Parameters: []string{"x"}}, "GET /a", []string{"Cookie: session=1"}, false},
		{v1.CacheBypass{Cookies: []string{"session"}, Parameters: []string{"x"}}, "GET /a?x", []string{"Cookie: session=1"}, true},
	} {
		spec := v1.CachePolicySpec{Bypass: []v1.CacheBypass{c.rule}}
		r := newRig(t, spec, ok("Cache-Control: public, max-age=60"))
		if got := r.do(c.line, c.headers...).cache == "bypass"; got != c.want {
			t.Errorf("%+v for %s %q: %v", c.rule, c.line, c.headers, got)
		}
	}
}

// The first need of a shop: who is logged in gets pages from the origin, and pictures from the cache.
func TestWhoIsLoggedInGetsPagesFromTheOriginAndPicturesFromTheCache(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{Bypass: []v1.CacheBypass{{Cookies: []string{"session"}, ExceptSuffixes: []string{"@static"}}}},
		ok("Cache-Control: public, max-age=60"))
	for i, c := range []struct{ line, cookie, cache, status string }{
		{"GET /", "session=a", "bypass", "relais; fwd=bypass; detail=cookie"},
		{"GET /", "", "miss", "relais; fwd=uri-miss; stored"}, // the one before stored nothing
		{"GET /", "", "hit", "relais; hit; ttl=60"},
		{"GET /", "session=a", "bypass", "relais; fwd=bypass; detail=cookie"}, // nor does it look what is stored
		{"HEAD /", "session=a", "bypass", "relais; fwd=bypass; detail=cookie"},
		{"GET /a.jpg", "session=a", "miss", "relais; fwd=uri-miss; stored"},
		{"GET /a.jpg", "session=b", "hit", "relais; hit; ttl=60"},
		{"GET /a.jpg", "", "hit", "relais; hit; ttl=60"},
	} {
		var headers []string
		if c.cookie != "" {
			headers = []string{"Cookie: " + c.cookie}
		}
		g := r.do(c.line, headers...)
		if g.cache != c.cache || g.header("Cache-Status") != c.status {
			t.Errorf("%d: %s %s: %s, %q", i, c.line, c.cookie, g.cache, g.header("Cache-Status"))
		}
		for _, m := range g.x.Trail.Marks() {
			if c.cache == "bypass" && m.Stage == "cache" && m.Detail != "bypass[0], cookie session" {
				t.Errorf("%d: the trail says %q", i, m.Detail)
			}
		}
	}
	w := r.s.Why(r.exchange("GET /", "Cookie: session=a"))
	if w.Result != "bypass" || w.Forward != "bypass" || len(w.Reasons) != 1 || !strings.Contains(w.Reasons[0].Words, "bypass[0], cookie session") {
		t.Errorf("%+v", w)
	}
}

func TestABypassedPOSTStoresNothing(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{Bypass: []v1.CacheBypass{{Cookies: []string{"session"}}}},
		ok("Cache-Control: public, max-age=60", "Content-Location: /a"))
	r.do("POST /a", "Cookie: session=1")
	if g := r.do("GET /a"); g.cache != "miss" {
		t.Errorf("after a POST that goes around: %s", g.cache)
	}
	r.do("POST /a")
	if g := r.do("GET /a"); g.cache != "hit" {
		t.Errorf("after another: %s", g.cache)
	}
}

func TestNormalAllocatesNothing(t *testing.T) {
	spec := v1.CachePolicySpec{
		Bypass: []v1.CacheBypass{
			{Cookies: []string{"session", "wp_*"}, ExceptSuffixes: []string{"@static", ".txt"}},
			{Parameters: []string{"preview=1"}, Headers: []string{"X-Debug=1"}},
		},
		Key: v1.CacheKey{Query: "except", Parameters: []string{"@marketing"}, Sort: true, Languages: []string{"en", "de"}, Device: true},
	}
	r := newRig(t, spec, image)
	const line = "GET /a?size=m&utm_source=x&colour=red&gclid=0123456789"
	r.do(line, browser...)
	x := new(message.Request)
	e := r.exchange(line, browser...)
	in, site, route := e.In, e.Site, e.Route
	one := func() {
		x.CopyFrom(in) // as a connection does, in memory that is used again
		e.Reset()
		e.In, e.Site, e.Route, e.Start = x, site, route, r.now
		e.SetHost([]byte("shop.example"))
		e.SetPath([]byte("/a"))
		if resp, err := r.chain.Serve(t.Context(), e); err != nil || resp.Status != 200 || e.CacheStatus != "hit" {
			t.Fatal(err, e.CacheStatus)
		}
		e.End(message.Outcome{})
	}
	one()
	if n := testing.AllocsPerRun(100, one); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
