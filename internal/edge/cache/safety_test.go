package cache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// personal is an origin that writes into each answer for whom it made it.
type personal struct {
	fields []string // of the answer; {user} is who asked
	set    bool     // answers set a session cookie
	clock  func() time.Time
	wait   bool
}

func userOf(f *message.Fields) string {
	if v := f.Get(message.Authorization); v != nil {
		return string(v)
	}
	return string(f.Get(message.Cookie))
}

func (p *personal) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	if p.wait {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	user := userOf(&x.In.Fields)
	resp := &x.Response
	resp.Reset()
	resp.Status = 200
	addLines(&resp.Fields, p.fields, p.clock())
	if p.set {
		resp.AddString(message.SetCookie, "sid="+user+"; Path=/")
	}
	resp.SetBytes([]byte("for [" + user + "]"))
	return resp, nil
}

// TestNoAnswerReachesAnother: all combinations of what requests carry and of what answers say, for
// users one after the other and at once. An answer that is one user's own, by any rule of RFC 9111, must
// never reach another, and no cookie that was set for one ever does.
func TestNoAnswerReachesAnother(t *testing.T) {
	controls := []string{
		"", "max-age=60", "private", "private, max-age=60", "no-store", "no-store, max-age=60", "no-cache", "no-cache, max-age=60",
		"max-age=0", "max-age=60, must-revalidate", "proxy-revalidate, max-age=60", "max-age=60, no-cache=\"set-cookie\"",
		"private=\"set-cookie\", max-age=60", "max-age=0, stale-while-revalidate=60", "stale-if-error=60", "must-understand, max-age=60",
		"max-age=60, private=\"", "PRIVATE", "max-age=60, x=\"private", "no-cache=x, max-age=60",
	}
	extras := [][]string{
		nil,
		{"Expires: @60", "Date: @0"},
		{"Last-Modified: @-86400", "Date: @0"},
		{`ETag: "v"`},
		{"Vary: Cookie"},
		{"Vary: Cookie, Authorization"},
		{"Vary: *"},
		{"Pragma: no-cache"},
		{"CDN-Cache-Control: private"},
		{"CDN-Cache-Control: no-store"},
		{"CDN-Cache-Control: max-age=?"},
		{"No-Vary-Search: params"},
		{`Cache-Groups: "a"`},
	}
	credentials := []string{"Cookie: sid=%s", "Authorization: Bearer %s", "Cookie: theme=dark; sid=%s"}
	specs := []v1.CachePolicySpec{{}, {DefaultTTL: v1.Duration(time.Hour), StaleWhileRevalidate: v1.Duration(time.Hour), StaleIfError: v1.Duration(time.Hour), StaleDisconnected: v1.Duration(time.Hour)}}
	n := 0
	for i := range specs {
		r := newRigWith(t, Config{}, specs[i], reply{})
		for _, c := range controls {
			for _, e := range extras {
				for _, cred := range credentials {
					for _, set := range []bool{true, false} {
						fields := e
						if c != "" {
							fields = append([]string{"Cache-Control: " + c}, e...)
						}
						p := &personal{fields: fields, set: set}
						leak(r, &specs[i], p, cred, fmt.Sprint("GET /", n))
						n++
					}
				}
			}
		}
	}
	t.Logf("%d combinations", n)
}

// mayShare says whether the origin said itself that the answer is for all: a test of leaks cannot
// blame the cache for that.
func (p *personal) mayShare(spec *v1.CachePolicySpec, cred string) bool {
	all := strings.ToLower(strings.Join(p.fields, "\n"))
	auth := strings.HasPrefix(cred, "Authorization")
	if p.set || strings.Contains(all, "no-store") || strings.Contains(all, "vary: *") || strings.Contains(all, "vary: cookie\n") && !auth {
		return p.set && strings.Contains(all, "=\"set-cookie\"") && strings.Contains(all, "max-age=60") && (!auth || strings.Contains(all, "must-revalidate"))
	}
	if auth {
		return strings.Contains(all, "must-revalidate")
	}
	return strings.Contains(all, "max-age=60") || strings.Contains(all, "expires") || strings.Contains(all, "last-modified") ||
		strings.Contains(all, "stale-") || spec.DefaultTTL > 0
}

func leak(r *rig, spec *v1.CachePolicySpec, p *personal, cred, get string) {
	t := r.t
	t.Helper()
	p.clock = r.s.cfg.Clock
	r.chain = stage.Chain(p, r.s)
	for i := range 8 {
		user := fmt.Sprintf(cred, string(rune('a'+i%3)))
		name, value, _ := strings.Cut(user, ": ")
		line := get + "?x=" + fmt.Sprint(i%2)
		if i == 5 {
			line = "HEAD" + strings.TrimPrefix(get, "GET") + "?x=0"
		}
		g := r.do(line, name+": "+value)
		if i == 6 {
			r.pass(2 * time.Minute)
		}
		if c := g.header("Set-Cookie"); c != "" && c != "sid="+value+"; Path=/" {
			t.Fatalf("%s with %v, set %v: the cookie of another: %s", cred, p.fields, p.set, c)
		}
		if g.err == nil && g.body != "" && g.body != "for ["+value+"]" && !p.mayShare(spec, cred) {
			t.Fatalf("%s with %v, set %v: %q to %q (%s)", cred, p.fields, p.set, g.body, value, g.header("Cache-Status"))
		}
	}
}

// TestNoAnswerReachesAnotherAtOnce: the same while all wait for one another.
func TestNoAnswerReachesAnotherAtOnce(t *testing.T) {
	for _, c := range []string{"private", "no-store", "private, max-age=60", "no-cache", "max-age=0", "", "max-age=60, private=\""} {
		for _, set := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				p := &personal{fields: []string{"Cache-Control: " + c}, set: set, wait: true}
				r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{}, reply{})
				p.clock = time.Now
				r.chain = stage.Chain(p, r.s)
				var wg sync.WaitGroup
				for i := range 60 {
					value := fmt.Sprint("sid=", i%6)
					x := r.exchange("GET /account", "Cookie: "+value)
					wg.Go(func() {
						time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond)
						if g := r.send(context.Background(), x); g.body != "for ["+value+"]" {
							t.Errorf("%s: %q to %q (%s)", c, g.body, value, g.header("Cache-Status"))
						}
					})
				}
				wg.Wait()
				synctest.Wait()
			})
		}
	}
}

// TestTenantsShareNeitherGroupsNorRules: the same host and target on two sites.
func TestTenantsShareNeitherGroupsNorRules(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, ok("Cache-Control: max-age=60", `Cache-Groups: "g"`, "No-Vary-Search: params"))
	other := newSite(t, r.s, bundle.Key("evil/shop"), v1.CachePolicySpec{})
	r.do("GET /a?x=1")
	mine := r.site
	r.site = other
	if g := r.do("GET /a?x=1"); g.cache != "miss" {
		t.Errorf("another site: %s", g.cache)
	}
	r.origin.replies = []reply{ok(`Cache-Group-Invalidation: "g"`)}
	r.do("POST /a?x=1")
	r.site = mine
	if g := r.do("GET /a?x=2"); g.cache != "hit" {
		t.Errorf("another site's invalidation: %s", g.cache)
	}
}

func TestAPageIsNotStoredAsAFile(t *testing.T) {
	page := func(contentType string) reply {
		return ok("Cache-Control: public, max-age=60", "Content-Type: "+contentType)
	}
	var cases []rfcCase
	for path, disguised := range map[string]bool{
		"/account/x.css": true, "/account/x.JS": true, "/account/;x.png": true, "/account/%0ax.woff2": true, "/account.php/x.jpg": true,
		"/account": false, "/account.html": false, "/feed.xml": false, "/x.css/": false, "/v1.2": false, "/data.json": false,
	} {
		want := "hit"
		if disguised {
			want = "pass"
		}
		cases = append(cases, rfcCase{name: "policy: guard against deception of " + path, steps: []step{
			{req: "GET " + path, reply: page("text/html; charset=utf-8")}, {req: "GET " + path, reply: page("text/html"), want: want},
		}})
	}
	for _, contentType := range []string{"application/problem+json", "application/vnd.api+json; v=1", "text/xml", "APPLICATION/XML"} {
		cases = append(cases, rfcCase{name: "policy: nor is data, of " + contentType, steps: []step{
			{req: "GET /x.svg", reply: page(contentType)}, {req: "GET /x.svg", reply: page(contentType), want: "pass"},
		}})
	}
	cases = append(cases, rfcCase{name: "policy: a picture in XML is one", steps: []step{
		{req: "GET /x.svg", reply: page("image/svg+xml")}, {req: "GET /x.svg", want: "hit"},
	}}, rfcCase{name: "policy: a style sheet is what its path says", steps: []step{
		{req: "GET /x.css", reply: page("text/css")}, {req: "GET /x.css", want: "hit"},
	}}, rfcCase{name: "policy: an error page is no disguise", steps: []step{
		{req: "GET /x.css", status: 404, reply: reply{status: 404, headers: page("text/html").headers, body: "x"}}, {req: "GET /x.css", status: 404, want: "hit"},
	}}, rfcCase{name: "policy: the guard can be turned off", spec: v1.CachePolicySpec{Guard: "off"}, steps: []step{
		{req: "GET /x.css", reply: page("text/html")}, {req: "GET /x.css", want: "hit"},
	}})
	run(t, cases)
}

// TestPathsThatServersReadDifferentlyGetNoLifetimeOfOurs: a route for files, with a lifetime of the policy, is chosen by
// one reading of a path, and the origin may answer by another.
func TestPathsThatServersReadDifferentlyGetNoLifetimeOfOurs(t *testing.T) {
	week := v1.CachePolicySpec{DefaultTTL: v1.Duration(7 * 24 * time.Hour)}
	var cases []rfcCase
	for path, want := range map[string]string{
		"/static/..%2faccount": "miss", "/static/..%5Caccount": "miss", `/static/..\account`: "miss", "/static/%2e%2e/account": "miss",
		"/static/../account": "miss", "/static/.": "miss", "/account%3Fx.css": "miss", "/account%23x.css": "miss", "/account%0ax.css": "miss",
		"/account;x.css": "miss", "/account%3bx.css": "miss", "/static/%252e%252e%252faccount": "miss", "/x%": "miss",
		"/static/a.css": "hit", "/static/a%20b.css": "hit", "/a;jsessionid=1": "hit", "/.well-known/x": "hit", "/a..b/c": "hit", "/%C3%A4": "hit",
	} {
		plain := ok("Content-Type: text/plain")
		if want == "miss" {
			want = "pass" // remembered as what cannot be stored
		}
		cases = append(cases, rfcCase{name: "policy: no default lifetime for " + path, spec: week, steps: []step{{req: "GET " + path, reply: plain}, {req: "GET " + path, reply: plain, want: want}}},
			rfcCase{name: "policy: the origin's own lifetime holds for " + path, spec: week, steps: []step{
				{req: "GET " + path, reply: ok("Cache-Control: max-age=60")}, {req: "GET " + path, want: "hit"},
			}},
			rfcCase{name: "policy: the guard can be turned off for " + path, spec: v1.CachePolicySpec{DefaultTTL: week.DefaultTTL, Guard: "off"}, steps: []step{
				{req: "GET " + path, reply: plain}, {req: "GET " + path, want: "hit"},
			}})
	}
	run(t, cases)
}

func TestUnkeyedFieldsDoNotReachTheOrigin(t *testing.T) {
	kept := ok("Cache-Control: max-age=60")
	poison := []string{"X-Original-URL: /admin", "x-rewrite-url: /admin", "X-HTTP-Method-Override: PUT", "X-Host: evil", "X-Forwarded-Scheme: http", "X-Region: eu"}
	drops := []string{"!X-Original-URL", "!x-rewrite-url", "!X-HTTP-Method-Override", "!X-Host", "!X-Forwarded-Scheme", "X-Region: eu"}
	run(t, []rfcCase{
		{name: "policy: a shared fetch has no unkeyed fields", steps: []step{{headers: poison, reply: kept, asked: drops}}},
		{name: "policy: nor has a part that is stored", steps: []step{{headers: append(ranged("2-5"), poison...), reply: slice(2, 5), status: 206, asked: drops}}},
		{name: "policy: what is in the key goes through", spec: v1.CachePolicySpec{Key: v1.CacheKey{Headers: []string{"X-Forwarded-Scheme"}}}, steps: []step{
			{headers: poison, reply: kept, asked: []string{"X-Forwarded-Scheme: http"}}, {reply: kept, want: "miss"},
		}},
		{name: "policy: the guard can be turned off", spec: v1.CachePolicySpec{Guard: "off"}, steps: []step{
			{headers: poison, reply: kept, asked: []string{"X-Original-URL: /admin"}},
		}},
	})
}

// TestTenThousandColdRequestsAreOneFetch: all at once, half of them slow to read, the first one gone
// before its answer begins.
func TestTenThousandColdRequestsAreOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rep := reply{headers: []string{"Cache-Control: max-age=60"}, body: strings.Repeat("0123456789", 10_000), wait: after(time.Second), slow: after(3 * time.Second)}
		r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{}, rep)
		first, cancel := context.WithCancel(t.Context())
		go func() { _, _ = r.chain.Serve(first, r.exchange("GET /a")) }()
		synctest.Wait()
		time.AfterFunc(time.Millisecond, cancel)
		const n = 10_000
		var wg sync.WaitGroup
		var mu sync.Mutex
		halves := 0
		for i := range n {
			x := r.exchange("GET /a")
			wg.Go(func() {
				resp, err := r.chain.Serve(t.Context(), x)
				if err != nil {
					t.Errorf("%d: %v", i, err)
					return
				}
				if resp.Body != nil && i%2 == 0 {
					// The first half comes while the origin has yet to send the second.
					if chunk, err := resp.Body.Next(t.Context()); err != nil || len(chunk) == 0 || time.Now().Nanosecond() != 0 {
						t.Errorf("%d: %d bytes, %v", i, len(chunk), err)
					}
					mu.Lock()
					halves++
					mu.Unlock()
					time.Sleep(time.Duration(i) * time.Millisecond)
					resp.Body.Close(nil)
					x.End(message.Outcome{})
					return
				}
				if g := read(t.Context(), x, resp, nil); g.err != nil || g.body != rep.body {
					t.Errorf("%d: %v, %d bytes", i, g.err, len(g.body))
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if len(r.origin.asked) != 1 || halves != n/2 {
			t.Errorf("the origin was asked %d times; %d streamed", len(r.origin.asked), halves)
		}
	})
}

// TestAHerdOfRangesIsAFewFetches: ranges of what is not stored go through, but not thousands at once.
// Of what is too large to store each has to ask for its own.
func TestAHerdOfRangesIsAFewFetches(t *testing.T) {
	for name, c := range map[string]struct {
		length int64
		most   int
	}{"whole": {0, maxRanging + 1}, "too large": {1 << 40, 1000 + 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				whole := reply{headers: []string{"Cache-Control: max-age=60"}, body: digits, length: c.length, wait: after(time.Second)}
				r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{}, whole)
				r.origin.ranges = true
				for i, g := range r.crowd(1000, "GET /a", "Range: bytes=2-5") {
					if g.err != nil || g.status != 206 || g.body != "2345" {
						t.Fatalf("%d: %d %q %v", i, g.status, g.body, g.err)
					}
				}
				synctest.Wait()
				if n := len(r.origin.asked); n > c.most {
					t.Errorf("asked %d times", n)
				}
				for i := range r.s.ranges {
					if r.s.ranges[i].Load() != 0 {
						t.Error("a range is counted that has ended")
					}
				}
			})
		})
	}
}
