package cache

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// purge purges for the rig's site.
func (r *rig) purge(e purge.Entry) *Receipt {
	r.t.Helper()
	if e.Site == "" && e.Kind != purge.All {
		e.Site = "acme/shop"
	}
	got, err := r.s.Purge(r.t.Context(), r.site, e)
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

func page(extra ...string) reply {
	return reply{body: "page", headers: append([]string{"Cache-Control: public, max-age=60, stale-while-revalidate=30, stale-if-error=600", `ETag: "v1"`, "Date: @0"}, extra...)}
}

func TestPurgeByWhatItNames(t *testing.T) {
	const host = "shop.example"
	for _, c := range []struct {
		name string
		e    purge.Entry
		gone string // of the requests below
	}{
		{"URL", purge.Entry{Kind: purge.URL, Host: host, Value: "/img/a.jpg"}, "/img/a.jpg"},
		{"URL with query", purge.Entry{Kind: purge.URL, Host: host, Value: "/img/a.jpg?w=1"}, "/img/a.jpg?w=1"},
		{"URL with a parameter that does not count", purge.Entry{Kind: purge.URL, Host: host, Value: "/img/a.jpg?utm_x=7"}, "/img/a.jpg"},
		{"path", purge.Entry{Kind: purge.Path, Host: host, Value: "/img/a.jpg"}, "/img/a.jpg /img/a.jpg?w=1"},
		{"path on all hosts", purge.Entry{Kind: purge.Path, Value: "/img/a.jpg"}, "/img/a.jpg /img/a.jpg?w=1"},
		{"prefix", purge.Entry{Kind: purge.Prefix, Host: host, Value: "/img/"}, "/img/a.jpg /img/a.jpg?w=1 /img/b.jpg"},
		{"Cache-Tag", purge.Entry{Kind: purge.Tag, Value: "Product-1"}, "/p/1"},
		{"Surrogate-Key", purge.Entry{Kind: purge.Tag, Value: "key2"}, "/p/2"},
		{"Cache-Groups", purge.Entry{Kind: purge.Tag, Value: "group"}, "/p/3"},
		{"group", purge.Entry{Kind: purge.Group, Value: "two words"}, "/p/3"},
		{"group of one origin", purge.Entry{Kind: purge.Group, Host: "http://shop.example", Value: "two words"}, "/p/3"},
		{"group of another origin", purge.Entry{Kind: purge.Group, Host: "https://shop.example", Value: "two words"}, ""},
		{"group in another case", purge.Entry{Kind: purge.Group, Value: "Two words"}, ""},
		{"group of another site", purge.Entry{Kind: purge.Group, Site: "acme/other", Value: "two words"}, ""},
		{"host", purge.Entry{Kind: purge.Host, Host: host}, "*"},
		{"another host", purge.Entry{Kind: purge.Host, Host: "other.example"}, ""},
		{"site", purge.Entry{Kind: purge.Site}, "*"},
		{"organization", purge.Entry{Kind: purge.Organization, Site: "acme"}, "*"},
		{"all", purge.Entry{Kind: purge.All}, "*"},
		{"the tag of another site", purge.Entry{Kind: purge.Tag, Site: "acme/other", Value: "product-1"}, ""},
	} {
		for _, soft := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s soft=%t", c.name, soft), func(t *testing.T) {
				r := newRig(t, v1.CachePolicySpec{Key: v1.CacheKey{Query: "except", Parameters: []string{"utm_*"}}})
				all := []string{"/img/a.jpg", "/img/a.jpg?w=1", "/img/b.jpg", "/images", "/p/1", "/p/2", "/p/3"}
				for i, target := range all {
					rep := page()
					switch i {
					case 4:
						rep = page("Cache-Tag: product-1, x")
					case 5:
						rep = page("Surrogate-Key: key1 key2")
					case 6:
						rep = page(`Cache-Groups: "group", "two words"`)
					}
					r.origin.replies = []reply{rep}
					r.do("GET " + target)
				}
				e := c.e
				e.Soft = soft
				before := r.s.purges.Last()
				if got := r.purge(e); got.Number <= before || !got.Kept || !got.Holds.Equal(r.now) || len(got.Purged) != 1 {
					t.Errorf("%+v", got)
				}
				r.origin.replies = []reply{page()}
				for _, target := range all {
					want := "hit"
					if c.gone == "*" || strings.Contains(" "+c.gone+" ", " "+target+" ") {
						if want = "miss"; soft {
							want = "stale" // and validated meanwhile
						}
					}
					if g := r.do("GET " + target); g.cache != want {
						t.Errorf("%s: %s, want %s", target, g.cache, want)
					}
					if g := r.do("GET " + target); g.cache != "hit" {
						t.Errorf("%s after it was fetched again: %s", target, g.cache)
					}
				}
			})
		}
	}
}

// All variants and all schemes of a URL go at once.
// TestRFC9211_2_2_AfterAPurgeNothingIsThere: vary-miss is for answers to other requests, and not for those that a purge has ended.
func TestRFC9211_2_2_AfterAPurgeNothingIsThere(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, page("Vary: Foo"))
	fwd := func(foo string) string {
		w := r.s.Why(r.exchange("GET /a", "Foo: "+foo))
		g := r.do("GET /a", "Foo: "+foo)
		if want := "fwd=" + w.Forward; !strings.Contains(g.header("Cache-Status"), want) {
			t.Errorf("why says %s, and Cache-Status %q", want, g.header("Cache-Status"))
		}
		return w.Forward
	}
	if got := fwd("1") + fwd("2"); got != "uri-missvary-miss" {
		t.Errorf("before: %s", got)
	}
	r.purge(purge.Entry{Kind: purge.Path, Value: "/a"})
	if got := fwd("1") + fwd("2"); got != "uri-missvary-miss" {
		t.Errorf("after a purge: %s", got)
	}
	r.purge(purge.Entry{Kind: purge.Path, Value: "/a", Soft: true})
	if got := fwd("3"); got != "vary-miss" {
		t.Errorf("after a soft purge: %s", got)
	}
}

func TestPurgeByURLReachesAllVariants(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, page("Vary: Accept-Language"))
	ask := func(lang string, secure bool) string {
		x := r.exchange("GET /a", "Accept-Language: "+lang)
		x.In.Secure = secure
		return r.send(t.Context(), x).cache
	}
	for range 2 {
		for _, lang := range []string{"de", "en", "fr"} {
			ask(lang, false)
			ask(lang, true)
		}
	}
	r.purge(purge.Entry{Kind: purge.URL, Host: "shop.example", Value: "/a"})
	for _, lang := range []string{"de", "en", "fr"} {
		for _, secure := range []bool{false, true} {
			if got := ask(lang, secure); got != "miss" {
				t.Errorf("%s %t: %s", lang, secure, got)
			}
		}
	}
}

func TestPurgeReachesAnswersUnderANoVarySearchRule(t *testing.T) {
	for _, e := range []purge.Entry{
		{Kind: purge.URL, Host: "shop.example", Value: "/a?p=1&u=2"}, {Kind: purge.Path, Host: "shop.example", Value: "/a"}, {Kind: purge.Prefix, Value: "/"},
	} {
		r := newRig(t, v1.CachePolicySpec{}, page(`No-Vary-Search: params=("u")`))
		r.do("GET /a?p=1&u=1")
		if g := r.do("GET /a?p=1&u=9"); g.cache != "hit" {
			t.Fatal(g.cache)
		}
		r.purge(e)
		if g := r.do("GET /a?p=1&u=9"); g.cache != "miss" {
			t.Errorf("%s: %s", e.String(), g.cache)
		}
	}
}

func TestASoftPurgeOverAHardOneRevivesNothing(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, page("Cache-Tag: a, b"))
	r.do("GET /a")
	r.purge(purge.Entry{Kind: purge.Tag, Value: "a"})
	r.purge(purge.Entry{Kind: purge.Tag, Value: "b", Soft: true})
	if g := r.do("GET /a"); g.cache != "miss" {
		t.Error(g.cache)
	}
	r.purge(purge.Entry{Kind: purge.Tag, Value: "b", Soft: true})
	r.origin.replies = []reply{{status: 500, body: "down"}}
	if g := r.do("GET /a"); g.cache != "stale" {
		t.Error(g.cache)
	}
	r.purge(purge.Entry{Kind: purge.Tag, Value: "a"})
	if g := r.do("GET /a"); g.status != 500 {
		t.Errorf("%d %s: a hard purge after a soft one", g.status, g.cache)
	}
}

// RFC 5861: the windows of a soft purged answer begin with the purge.
func TestRFC5861_SoftPurgedAnswersAreUsedWithinTheirWindows(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, page("Cache-Tag: a"))
	r.do("GET /a")
	r.pass(10 * time.Second)
	r.purge(purge.Entry{Kind: purge.Tag, Value: "a", Soft: true})
	r.pass(20 * time.Second)
	r.origin.replies = []reply{{err: &stage.Error{Code: "connection_refused", Side: stage.SideOrigin, Status: 502}}}
	if g := r.do("GET /a"); g.cache != "stale" || !strings.Contains(g.header("Cache-Status"), "ttl=-20") {
		t.Errorf("%s, %s: within stale-while-revalidate", g.cache, g.header("Cache-Status"))
	}
	r.pass(20 * time.Second)
	if g := r.do("GET /a"); g.cache != "stale" || !strings.Contains(g.header("Cache-Status"), "stale-if-error") {
		t.Errorf("%s, %s: within stale-if-error", g.cache, g.header("Cache-Status"))
	}
	r.pass(600 * time.Second)
	if g := r.do("GET /a"); g.err == nil {
		t.Errorf("%s: after its windows", g.cache)
	}
}

func TestRFC9111_4_3_4_ASoftPurgedAnswerIsFreshAgainByA304AndKeepsItsTags(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, page("Cache-Tag: a"), reply{status: 304, headers: []string{`ETag: "v1"`, "Cache-Control: max-age=60", "Date: @0"}})
	r.do("GET /a")
	for range 2 {
		r.purge(purge.Entry{Kind: purge.Tag, Value: "a", Soft: true})
		if g := r.do("GET /a"); g.cache != "stale" && g.cache != "revalidated" || g.body != "page" {
			t.Errorf("%s %q", g.cache, g.body)
		}
		if g := r.do("GET /a"); g.cache != "hit" {
			t.Error(g.cache)
		}
	}
	r.purge(purge.Entry{Kind: purge.Tag, Value: "a"})
	r.origin.replies = []reply{page()}
	if g := r.do("GET /a"); g.cache != "miss" {
		t.Error(g.cache)
	}
}

func TestTagsAreHiddenFromVisitorsAndGroupsAreNot(t *testing.T) {
	tagged := []string{"Cache-Tag: a", "Surrogate-Key: b c", `Cache-Groups: "g"`}
	for _, c := range []struct {
		name, line string
		reply      reply
		tags       string
	}{
		{"miss", "GET /a", page(tagged...), ""},
		{"miss", "GET /a", page(tagged...), "show"},
		{"private", "GET /a", reply{body: "x", headers: append([]string{"Cache-Control: private"}, tagged...)}, ""},
		{"HEAD", "HEAD /a", page(tagged...), ""},
		{"POST", "POST /a", page(tagged...), ""},
		{"no-store", "GET /a|Cache-Control: no-store", page(tagged...), ""},
		{"authorized", "GET /a|Authorization: x", page(tagged...), ""},
	} {
		t.Run(c.name+c.tags, func(t *testing.T) {
			r := newRig(t, v1.CachePolicySpec{Tags: c.tags}, c.reply)
			for range 2 { // then a hit, where it may be one
				line, field, has := strings.Cut(c.line, "|")
				var fields []string
				if has {
					fields = []string{field}
				}
				g := r.do(line, fields...)
				if seen := g.header("Cache-Tag") + g.header("Surrogate-Key"); (seen != "") != (c.tags == "show") {
					t.Errorf("%s: the visitor sees %q", g.cache, seen)
				}
				if g.header("Cache-Groups") != `"g"` {
					t.Errorf("Cache-Groups is %q", g.header("Cache-Groups"))
				}
			}
		})
	}
}

func TestAnAnswerWithTagsThatCannotBeKeptIsValidatedEachTime(t *testing.T) {
	for _, tags := range []string{"Cache-Tag: " + strings.Repeat("x", purge.MaxTag+1), "Surrogate-Key: a,b"} {
		r := newRig(t, v1.CachePolicySpec{}, page(tags))
		r.do("GET /a")
		if g := r.do("GET /a"); g.cache == "hit" {
			t.Errorf("%.30s: a purge could not be obeyed, and it is served", tags)
		}
	}
}

func TestAnAnswerInFlightWhenItsPurgeArrivesIsNotStoredNorShared(t *testing.T) {
	for name, e := range map[string]purge.Entry{
		"URL":    {Kind: purge.URL, Host: "shop.example", Value: "/a"},
		"tag":    {Kind: purge.Tag, Value: "a"},
		"prefix": {Kind: purge.Prefix, Value: "/"},
		"site":   {Kind: purge.Site},
		"soft":   {Kind: purge.Tag, Value: "a", Soft: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				half := make(chan struct{})
				old := page("Cache-Tag: a")
				old.slow, old.body = half, "the old page"
				fresh := page("Cache-Tag: a")
				fresh.body = "the new page"
				r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{}, old, fresh)
				got := make(chan *got, 2)
				go func() { got <- r.send(context.Background(), r.exchange("GET /a")) }()
				synctest.Wait() // its head is there
				r.purge(e)
				go func() { got <- r.send(context.Background(), r.exchange("GET /a")) }()
				synctest.Wait()
				close(half)
				synctest.Wait()
				first, second := <-got, <-got
				if first.body == fresh.body {
					first, second = second, first
				}
				if first.body != old.body || second.body != fresh.body {
					t.Errorf("%q, and to who asked after the purge %q", first.body, second.body)
				}
				if g := r.send(context.Background(), r.exchange("GET /a")); g.cache != "hit" || g.body != fresh.body {
					t.Errorf("%s %q", g.cache, g.body)
				}
			})
		})
	}
}

// A tee stores at the end of its body; a purge before that wins.
func TestAPassInFlightWhenItsPurgeArrivesIsNotStored(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, page("Cache-Tag: a", "Cache-Control: public"))
	x := r.exchange("GET /a", "Authorization: x")
	resp, err := r.chain.Serve(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	r.purge(purge.Entry{Kind: purge.Tag, Value: "a"})
	read(t.Context(), x, resp, err)
	if n := r.s.Stats().Memory.Index.Objects; n != 0 {
		t.Errorf("%d keys are stored", n)
	}
}

func TestPurgesHoldAfterARestartForWhatADiskKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	open := func() (*Stage, func()) {
		l, err := purge.OpenFile(path, 100)
		if err != nil {
			t.Fatal(err)
		}
		return newStage(t, Config{Slot: 3, Purges: l}), func() { _ = l.Close() }
	}
	s, end := open()
	born := s.purges.Last()
	for _, e := range []purge.Entry{{Kind: purge.Tag, Site: "acme/shop", Value: "a"}, {Kind: purge.Prefix, Site: "acme/shop", Value: "/img"}} {
		if _, err := s.Purge(t.Context(), nil, e); err != nil {
			t.Fatal(err)
		}
	}
	end()
	s, end = open()
	defer end()
	m := s.purges.Mark("acme/shop")
	at := func(path string) *purge.Place {
		return &purge.Place{Host: []byte("shop.example"), Path: []byte(path)}
	}
	for _, c := range []struct {
		name string
		tags []uint64
		path string
		dead bool
	}{
		{"tagged", []uint64{m.TagHash([]byte("a"))}, "/p", true}, {"below", nil, "/img/x", true}, {"other", []uint64{m.TagHash([]byte("b"))}, "/p", false},
	} {
		o := &object{born: born, tags: c.tags}
		if v := purged(m, o, at(c.path)); (v.Hard > o.born) != c.dead {
			t.Errorf("%s: %+v", c.name, v)
		}
		later := &object{born: s.purges.Last(), tags: c.tags}
		if v := purged(m, later, at(c.path)); v.Hard > later.born {
			t.Errorf("%s, asked for after the restart: %+v", c.name, v)
		}
	}
}

func TestPURGEIsForThoseWhomThePolicyNames(t *testing.T) {
	const token = "0123456789abcdef"
	both := &v1.CachePurge{Addresses: []string{"10.0.0.0/8"}, Tokens: []string{token}}
	for _, c := range []struct {
		name    string
		spec    *v1.CachePurge
		route   int
		headers []string
		client  string
		want    int
	}{
		{"no policy for it", nil, 0, nil, "127.0.0.1", 405},
		{"a route without cache", both, 1, nil, "10.1.1.1", 405},
		{"nothing given is nobody", &v1.CachePurge{}, 0, nil, "127.0.0.1", 405},
		{"address", &v1.CachePurge{Addresses: []string{"10.0.0.0/8"}}, 0, nil, "10.1.1.1", 200},
		{"mapped address", &v1.CachePurge{Addresses: []string{"10.0.0.0/8"}}, 0, nil, "::ffff:10.1.1.1", 200},
		{"another address", &v1.CachePurge{Addresses: []string{"10.0.0.0/8"}}, 0, nil, "11.1.1.1", 403},
		{"token", &v1.CachePurge{Tokens: []string{token}}, 0, []string{"Authorization: bearer " + token}, "11.1.1.1", 200},
		{"no token", &v1.CachePurge{Tokens: []string{token}}, 0, nil, "11.1.1.1", 403},
		{"wrong token", &v1.CachePurge{Tokens: []string{token}}, 0, []string{"Authorization: Bearer " + token + "x"}, "11.1.1.1", 403},
		{"basic", &v1.CachePurge{Tokens: []string{token}}, 0, []string{"Authorization: Basic " + token}, "11.1.1.1", 403},
		{"both", both, 0, []string{"Authorization: Bearer " + token}, "10.1.1.1", 200},
		{"address of both", both, 0, nil, "10.1.1.1", 403},
		{"token of both", both, 0, []string{"Authorization: Bearer " + token}, "11.1.1.1", 403},
		{"wrong words", &v1.CachePurge{Addresses: []string{"10.0.0.0/8"}}, 0, []string{"Relais-Purge: everything"}, "10.1.1.1", 400},
		{"wrong tag", &v1.CachePurge{Addresses: []string{"10.0.0.0/8"}}, 0, []string{"Cache-Tag: a b"}, "10.1.1.1", 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, v1.CachePolicySpec{Purge: c.spec}, page())
			r.do("GET /a")
			x := r.exchange("PURGE /a", c.headers...)
			x.Client = addr(c.client)
			x.Route = &r.site.Routes[c.route]
			resp, err := r.chain.Serve(t.Context(), x)
			status := 0
			if err != nil {
				status = stage.AsError(err).Status
			} else {
				status = resp.Status
			}
			x.End(message.Outcome{})
			if status != c.want {
				t.Fatalf("%d, want %d (%v)", status, c.want, err)
			}
			want := "hit"
			if c.want == 200 {
				want = "miss"
			}
			if g := r.do("GET /a"); g.cache != want {
				t.Errorf("then %s, want %s", g.cache, want)
			}
			if len(r.origin.asked) > 2 || strings.Contains(strings.Join(r.origin.asked, " "), "PURGE") {
				t.Errorf("the origin was asked %q", r.origin.asked)
			}
		})
	}
}

func TestPURGEByTagPrefixAndSoftly(t *testing.T) {
	for _, c := range []struct{ header, want string }{
		{"Cache-Tag: x, a", "miss"},
		{"Surrogate-Key: x a", "miss"},
		{"Cache-Tag: x", "hit"},
		{"Relais-Purge: prefix", "miss"},
		{"Relais-Purge: path, soft", "stale"},
		{"Relais-Purge: soft", "hit"},
	} {
		r := newRig(t, v1.CachePolicySpec{Purge: &v1.CachePurge{Addresses: []string{"0.0.0.0/0"}}}, page("Cache-Tag: a"))
		r.do("GET /a?q")
		x := r.exchange("PURGE /a", c.header)
		x.Client = addr("10.0.0.1")
		if g := r.send(t.Context(), x); g.status != 200 || !strings.Contains(g.body, `"number":`) {
			t.Fatalf("%d %s %v", g.status, g.body, g.err)
		}
		if g := r.do("GET /a?q"); g.cache != c.want {
			t.Errorf("%s: %s, want %s", c.header, g.cache, c.want)
		}
	}
}

func TestHitsAfterManyPurgesAllocateNothing(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, page("Cache-Tag: a, b, c"))
	r.do("GET /img/a/b?x")
	x := r.exchange("GET /img/a/b?x")
	in, site, route := x.In, x.Site, x.Route
	others := []purge.Entry{
		{Kind: purge.Tag, Site: "acme/shop", Value: "other"},
		{Kind: purge.Prefix, Site: "acme/shop", Value: "/other"},
		{Kind: purge.URL, Site: "acme/shop", Value: "/img"},
		{Kind: purge.Organization, Site: "other"},
	}
	n := uint64(0)
	if a := testing.AllocsPerRun(200, func() {
		n++
		e := &others[n%4]
		e.Number = n
		r.s.purges.Apply(e)
		x.Reset()
		x.In, x.Site, x.Route, x.Start = in, site, route, r.now
		x.SetHost([]byte("shop.example"))
		x.SetPath([]byte("/img/a/b"))
		if _, err := r.chain.Serve(t.Context(), x); err != nil || x.CacheStatus != "hit" {
			t.Fatal(err, x.CacheStatus)
		}
		x.End(message.Outcome{})
	}); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

// Run with -race. Who asks after a purge never gets what was asked for before it.
func TestNobodyGetsWhatWasAskedForBeforeAPurge(t *testing.T) {
	r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{}, page())
	o := &counting{}
	r.chain = stage.Chain(o, r.s)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 300 {
				if i%10 == w {
					o.raise()
					if _, err := r.s.Purge(context.Background(), r.site, purge.Entry{Kind: purge.Tag, Site: "acme/shop", Value: "a"}); err != nil {
						t.Error(err)
					}
					o.hold()
				}
				least := o.held.Load()
				x := r.exchange("GET /a")
				resp, err := r.chain.Serve(context.Background(), x)
				g := read(context.Background(), x, resp, err)
				if g.err != nil {
					t.Error(g.err)
					return
				}
				var n int64
				_, _ = fmt.Sscan(g.body, &n)
				if n < least {
					t.Errorf("version %d, and %d was purged (%s)", n, least, g.cache)
					return
				}
			}
		})
	}
	wg.Wait()
	r.settle()
}

// taggedRig has so many objects under one tag.
func taggedRig(b *testing.B, objects int) *rig {
	r := newRigWith(b, Config{MaxBytes: 4 << 30, Clock: time.Now}, v1.CachePolicySpec{}, page())
	key := []byte(nil)
	for i := range objects {
		key = fmt.Appendf(key[:0], "acme/shop http://shop.example/%d", i)
		r.s.keep(r.s.tiers.HashOf(key), key, &object{status: 200, names: []byte("tag\n"), org: r.s.tiers.Org("acme")}, func() bool { return true })
	}
	return r
}

// BenchmarkPurgeTag purges a tag that one object carries, and one that a million carry, in turns of
// 1,000, and tells the median of the ratios.
func BenchmarkPurgeTag(b *testing.B) {
	one, million := taggedRig(b, 1), taggedRig(b, 1_000_000)
	turn := func(r *rig) time.Duration {
		begin := time.Now()
		for range 1000 {
			if _, err := r.s.Purge(b.Context(), r.site, purge.Entry{Kind: purge.Tag, Site: "acme/shop", Value: "tag"}); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(begin)
	}
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a million objects on the heap are not the purge's cost
	for b.Loop() {
		var ratios, each []float64
		for range 201 {
			a, m := turn(one), turn(million)
			ratios = append(ratios, float64(m)/float64(a))
			each = append(each, float64(m.Nanoseconds())/1000)
		}
		slices.Sort(ratios)
		slices.Sort(each)
		b.ReportMetric(ratios[len(ratios)/2], "million/one")
		b.ReportMetric(each[len(each)/2], "ns/purge")
	}
}

// BenchmarkPurgesKept purges with a log on disk: one client, who waits for the disk each time, and many.
func BenchmarkPurgesKept(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			l, err := purge.OpenFile(filepath.Join(b.TempDir(), "log"), purge.DefaultEntries)
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			s := newStage(b, Config{Slot: 3, Purges: l})
			b.SetParallelism(clients)
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, err := s.Purge(context.Background(), nil, purge.Entry{Kind: purge.Tag, Site: "acme/shop", Value: fmt.Sprint("t", i)}); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "purges/s")
		})
	}
}

// counting answers with its version, which is tagged.
type counting struct {
	mu            sync.Mutex
	version, held atomic.Int64
}

// raise makes a new version; once its purge holds, hold says that nobody may get an older one.
func (c *counting) raise() { c.mu.Lock(); c.version.Add(1) }
func (c *counting) hold()  { c.held.Store(c.version.Load()); c.mu.Unlock() }

func (c *counting) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	resp := &x.Response
	resp.Reset()
	resp.Status = 200
	resp.AddString(message.CacheControl, "max-age=60")
	resp.AddString(message.CacheTag, "a")
	resp.SetBytes(fmt.Append(nil, c.version.Load()))
	return resp, nil
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
