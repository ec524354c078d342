package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/cache"
	"github.com/relais-edge/relais/internal/edge/cache/selftest"
	"github.com/relais-edge/relais/internal/snapshot"
)

const cachedSite = siteHead + `  cache: pages
  routes: [{pool: shop}]
` + pool

// cached is a site with a CachePolicy of this spec.
func cached(spec string) string {
	return cachedSite + "---\napiVersion: relais/v1\nkind: CachePolicy\nmetadata: {name: pages}\nspec: " + spec + "\n"
}

// door asks the cache's door, and returns the answer's status and body.
func (b *bed) door(method, target string, question, v any) int {
	b.t.Helper()
	body, _ := json.Marshal(question)
	w := httptest.NewRecorder()
	b.CacheDoor().ServeHTTP(w, httptest.NewRequestWithContext(b.t.Context(), method, target, bytes.NewReader(body)))
	if v != nil {
		if err := json.Unmarshal(w.Body.Bytes(), v); err != nil {
			b.t.Fatalf("%s: %v", w.Body, err)
		}
	}
	return w.Code
}

func tagged(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "public, max-age=60")
	w.Header().Set("Cache-Tag", "all, page-"+strings.Trim(r.URL.Path, "/"))
	w.Header().Set("Vary", "Accept-Language")
	fmt.Fprint(w, r.URL.Path, r.URL.RawQuery)
}

// why asks about a URL of the plain listener.
func (b *bed) why(path string, fields ...string) cache.Why {
	b.t.Helper()
	var a cache.Why
	if code := b.door("POST", "/cache/why", CacheQuestion{URL: b.base("http1") + path, Fields: fields}, &a); code != 200 {
		b.t.Fatal(code, a)
	}
	return a
}

func TestPurgeOverTheAdminSocketAndWhyItWasAMiss(t *testing.T) {
	b := newBed(t, tagged, cached(`{key: {query: except, parameters: ["utm_*"]}}`))
	host, _, _ := net.SplitHostPort(strings.TrimPrefix(b.base("http1"), "http://"))
	for _, c := range []struct {
		name string
		q    CachePurge
		want string // in the words of why; empty for a hit
	}{
		{"url", CachePurge{URLs: []string{b.base("http1") + "/a%2Db?utm_x=1&q"}}, "purged by url " + host + "/a-b?q at "},
		{"url of another query", CachePurge{URLs: []string{host + "/a-b"}}, ""},
		{"any query", CachePurge{URLs: []string{"/a-b?zzz"}, AnyQuery: true}, "purged by path /a-b at "},
		{"prefix", CachePurge{Prefixes: []string{"/a-b"}}, "purged by prefix /a-b at "},
		{"tag", CachePurge{Tags: []string{"PAGE-a-b"}}, "purged by tag page-a-b at "},
		{"host", CachePurge{Hosts: []string{host}}, "purged by host " + host + " at "},
		{"all", CachePurge{All: true}, "purged by site at "},
		{"organization", CachePurge{Organization: "default"}, "purged by organization at "},
		{"everything", CachePurge{Everything: true}, "purged by all at "},
		{"soft", CachePurge{Tags: []string{"all"}, Soft: true}, "purged softly by tag all at "},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.get("http1", "/a-b?q&utm_x=2")
			if a := b.why("/a-b?q"); a.Result != "hit" || !strings.Contains(a.Reasons[0].Rule, "RFC 9111 section 4.2") {
				t.Fatalf("before: %+v", a)
			}
			if c.q.Organization == "" && !c.q.Everything {
				c.q.Site = "shop"
			}
			var r cache.Receipt
			if code := b.door("POST", "/cache/purge", &c.q, &r); code != 200 || r.Number == 0 || !r.Kept || r.Holds.IsZero() {
				t.Fatalf("%d %+v", code, r)
			}
			a := b.why("/a-b?q")
			words := fmt.Sprint(a.Reasons)
			if c.want == "" {
				if a.Result != "hit" {
					t.Errorf("%+v", a)
				}
				return
			}
			if a.Result == "hit" || !strings.Contains(words, c.want) || !strings.Contains(words, fmt.Sprintf("number %d", r.Number)) {
				t.Errorf("%s: %s, want %q and number %d", a.Result, words, c.want, r.Number)
			}
			if resp, _ := b.get("http1", "/a-b?q"); strings.Contains(resp.Header.Get("Cache-Status"), "hit") {
				t.Error(resp.Header.Get("Cache-Status"))
			}
			if resp, _ := b.get("http1", "/a-b?q"); resp.Header.Get("Cache-Tag") != "" {
				t.Error("a visitor sees tags")
			}
		})
	}
}

func TestWhatCannotBePurgedIsRefused(t *testing.T) {
	b := newBed(t, tagged, cached("{}"))
	for _, q := range []CachePurge{
		{},
		{Site: "shop"},
		{Site: "none", All: true},
		{Tags: []string{"x"}},
		{Site: "shop", Tags: []string{"a b"}},
		{Site: "shop", URLs: []string{"ftp://x/"}},
		{Site: "shop", URLs: []string{"/%zz"}},
		{Site: "shop", Prefixes: []string{"/a?b"}},
		{Site: "shop", Hosts: []string{"a/b"}},
		{Site: "shop", Hosts: []string{"*"}},
		{Site: "shop", Everything: true},
		{Site: "shop", Organization: "default"},
		{Organization: "default", All: true},
		{Site: "shop", All: true, URLs: []string{"/a"}},
		{Site: "shop", AnyQuery: true, Tags: []string{"x"}},
		{Site: "shop", Groups: []string{""}},
		{Site: "shop", Groups: []string{"w\u00f6rd"}},
		{Groups: []string{"a"}},
		{Site: "shop", Prefixes: []string{""}},
		{Site: "shop", URLs: []string{""}},
		{Site: "shop", URLs: []string{"http://"}},
	} {
		var e struct{ Error string }
		if code := b.door("POST", "/cache/purge", &q, &e); code != 400 || e.Error == "" {
			t.Errorf("%+v: %d %q", q, code, e.Error)
		}
	}
}

func TestServes(t *testing.T) {
	site := &snapshot.Site{Spec: &bundle.Site{Hostnames: []string{"shop.example", "*.shop.example"}}}
	for host, want := range map[string]bool{
		"shop.example": true, "m.shop.example": true, "a.b.shop.example": true,
		"another.example": false, "myshop.example": false, "example": false,
	} {
		if got := serves(site, host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
	if site.Spec.Hostnames = []string{"*"}; !serves(site, "any.example") {
		t.Error("a site of every host")
	}
}

func TestWhySaysWhatTheEdgeThenDoes(t *testing.T) {
	b := newBed(t, tagged, cached("{}"))
	b.get("http1", "/a", "Accept-Language: de")
	for _, c := range []struct {
		path   string
		fields []string
		result string
		words  string
		status string // in Cache-Status of the request
	}{
		{"/a", []string{"Accept-Language: de"}, "hit", "fresh", "; hit"},
		{"/a", []string{"Accept-Language: en"}, "miss", `"accept-language: de"`, "fwd=vary-miss"},
		{"/none", nil, "miss", "Nothing is stored", "fwd=uri-miss"},
		{"/a", []string{"Accept-Language: de", "Cache-Control: no-cache"}, "revalidate", "wants a newer one", "fwd=request"},
		{"/a", []string{"Cache-Control: no-store"}, "bypass", "no-store", "fwd=request"},
		{"/b", []string{"Authorization: x"}, "pass", "Authorization", "fwd=uri-miss"},
		{"/b", []string{"Cache-Control: only-if-cached", "Accept-Language: x"}, "refused", "504", ""},
		{"/a", []string{"If-Match: x"}, "bypass", "for the origin to judge", "fwd=bypass"},
	} {
		a := b.why(c.path, c.fields...)
		if words := fmt.Sprint(a.Reasons); a.Result != c.result || !strings.Contains(words, c.words) {
			t.Errorf("%s %q: %s %s, want %s %q", c.path, c.fields, a.Result, words, c.result, c.words)
		}
		for _, r := range a.Reasons {
			if r.Rule == "" {
				t.Errorf("%q has no rule", r.Words)
			}
		}
		resp, _ := b.get("http1", c.path, c.fields...)
		if got := resp.Header.Get("Cache-Status"); !strings.Contains(got, c.status) {
			t.Errorf("%s %q: the edge says %q, and why %q", c.path, c.fields, got, c.status)
		}
	}
	var e struct{ Error string }
	for _, q := range []CacheQuestion{{URL: "/a"}, {URL: "http://x/", Fields: []string{"a"}}, {URL: "http://x/", Fields: []string{"a: b\r\nc"}}} {
		if code := b.door("POST", "/cache/why", q, &e); code != 400 || e.Error == "" {
			t.Errorf("%+v: %d", q, code)
		}
	}
}

func TestInspectTopAndStats(t *testing.T) {
	b := newBed(t, tagged, cached("{}"))
	for range 400 {
		b.get("http1", "/a", "Accept-Language: de")
	}
	b.get("http1", "/a", "Accept-Language: en")
	var in cache.Inspection
	b.door("POST", "/cache/inspect", CacheQuestion{URL: b.base("http1") + "/a"}, &in)
	if len(in.Keys) != 1 || len(in.Keys[0].Variants) != 2 {
		t.Fatalf("%+v", in)
	}
	v := in.Keys[0].Variants[0]
	if v.State != "fresh" || fmt.Sprint(v.For) != "[accept-language: en,]" && fmt.Sprint(v.For) != "[accept-language: en]" || fmt.Sprint(v.Tags) != "[all page-a]" || v.Kept != 2 || v.Lifetime != 60 {
		t.Errorf("%+v", v)
	}
	var st cache.EdgeStats
	b.door("GET", "/cache/stats?site=shop", nil, &st)
	if len(st.Sites) != 1 || st.Sites[0].Requests != 401 || st.Sites[0].HitRatio < 0.99 || st.Sites[0].BytesSaved != 2*399 || st.Sites[0].Stored != 2 {
		t.Errorf("%+v", st)
	}
	var top []cache.TopKey
	b.door("GET", "/cache/top?site=shop&by=bytes", nil, &top)
	if len(top) != 1 || top[0].Site != "default/shop" || !strings.HasSuffix(top[0].URL, "/a") || top[0].Requests < 50 || top[0].Requests > 1600 {
		t.Errorf("%+v", top)
	}
	if b.door("GET", "/cache/top?site=other", nil, &top); len(top) != 0 {
		t.Errorf("of another site: %+v", top)
	}
}

// badOrigin does what frameworks and shops do wrong: it looks at the beginning of a path only, gives what
// ends like a file a long life, and builds links from whatever field names a host.
func badOrigin(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html")
	asked := r.URL.Path
	if strings.HasPrefix(asked, "/static/") && cleaned(asked) == "/account" { // of files the origin says nothing
		fmt.Fprintf(w, "<p>your cookies: %s</p>", r.Header.Get("Cookie"))
		return
	}
	if strings.HasPrefix(asked, "/account") {
		w.Header().Set("Cache-Control", "private")
		for _, end := range []string{".css", ".js", ".png", ".jpg", ".pdf", ".woff2"} {
			if strings.HasSuffix(asked, end) {
				w.Header().Set("Cache-Control", "public, max-age=600")
			}
		}
		fmt.Fprintf(w, "<p>your cookies: %s</p>", r.Header.Get("Cookie"))
		return
	}
	if r.Header.Get("X-HTTP-Method-Override") == "POST" {
		w.Header().Set("Cache-Control", "public, max-age=600")
		w.WriteHeader(404)
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=600")
	host := r.Host
	for _, name := range []string{"X-Forwarded-Host", "X-Host", "X-Original-Host"} {
		if v := r.Header.Get(name); v != "" {
			host = v
		}
	}
	fmt.Fprintf(w, `<link rel="canonical" href="https://%s/"><a title="%s">`, host, r.URL.Query().Get("utm_content"))
}

// cleaned goes back where a path says so.
func cleaned(p string) string { return path.Clean(strings.ReplaceAll(p, "\\", "/")) }

func TestKeysAreLearnedBelowCompressionAndEchoesAreKeptOut(t *testing.T) {
	const session = "8f14e45fceea167a5a36dedd4bea2543"
	text := strings.Repeat("<p>all the same</p>", 200)
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Cache-Control", "public, max-age=600")
		if r.URL.Path == "/mine" {
			if c, err := r.Cookie("sid"); err == nil {
				fmt.Fprint(w, c.Value)
			}
		}
		fmt.Fprint(w, text, r.URL.Path, r.URL.Query().Get("id"))
	}, strings.Replace(cached("{}"), "  cache: pages\n", "  cache: pages\n  compression: {}\n", 1))
	for i := range 40 {
		b.get("http1", fmt.Sprintf("/p%d?xid=%d&utm_source=s", i%3, i), "Accept-Encoding: gzip")
	}
	b.get("http1", "/p0?id=1", "Accept-Encoding: gzip")
	b.get("http1", "/p0?id=2", "Accept-Encoding: gzip")
	resp, _ := b.get("http1", "/mine", "Accept-Encoding: gzip", "Cookie: sid="+session)
	if resp.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("it was not compressed: %v", resp.Header)
	}
	if resp, _ = b.get("http1", "/mine", "Accept-Encoding: gzip"); strings.Contains(resp.Header.Get("Cache-Status"), "hit") {
		t.Error("a page with a session's token was stored")
	}
	var list []cache.KeyReport
	if code := b.door("GET", "/cache/keys?site=shop", nil, &list); code != 200 || len(list) != 1 {
		t.Fatalf("%d %+v", code, list)
	}
	k := list[0]
	verdicts := map[string]string{}
	for _, e := range k.Evidence {
		verdicts[e.Name] = e.Verdict
	}
	if fmt.Sprint(k.KeyWould) != "[xid]" || k.QueryWould != "except" || verdicts["id"] != "counts" || k.WouldBe < 0.6 || k.Policy != "pages" {
		t.Errorf("%+v", k)
	}
	if len(k.Echoes) != 1 || k.Echoes[0].Kind != "cookie" || k.Echoes[0].Name != "sid" || k.Echoes[0].Path != "/mine" {
		t.Errorf("%+v", k.Echoes)
	}
	if b.door("GET", "/cache/keys?site=other", nil, &list); len(list) != 0 {
		t.Errorf("of another site: %+v", list)
	}
}

func TestSelftestFindsWhatTheGuardKeepsOut(t *testing.T) {
	for guard, want := range map[string][]string{
		"off": {"poisoning X-Host", "poisoning X-Original-Host", "poisoning X-HTTP-Method-Override", "poisoning utm_content", "leak /", "leak /static"},
		"on":  nil,
	} {
		t.Run(guard, func(t *testing.T) {
			b := newBed(t, badOrigin, cached("{guard: \""+guard+"\", defaultTTL: 1h, key: {query: except, parameters: [\"@marketing\"]}}"))
			client := clientOf(t, "http1")
			r, err := selftest.Run(t.Context(), selftest.Config{Do: client.Do, Key: func(ctx context.Context, target string) (string, error) {
				var a cache.Why
				b.door("POST", "/cache/why", CacheQuestion{URL: target}, &a)
				return a.Key, nil
			}}, []string{b.base("http1") + "/account", b.base("http1") + "/"})
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]int{}
			for _, f := range r.Findings {
				got[f.Kind+" "+f.With[:min(len(f.With), 1)]]++
				got[f.Kind+" "+f.With[:min(len(f.With), 7)]]++
				got[f.Kind+" "+f.With]++
			}
			for _, w := range want {
				if got[w] == 0 {
					t.Errorf("not found: %s (%v)", w, got)
				}
			}
			if want == nil && len(r.Findings) > 0 {
				t.Errorf("found with the guard on: %+v", r.Findings)
			}
			if r.URLs != 2 || r.Requests < 40 || len(r.Skipped) > 0 || guard == "off" && r.Stored == 0 {
				t.Errorf("%+v", r)
			}
			// What a visitor asks for is as it was.
			if _, body := b.get("http1", "/"); strings.Contains(body, ".invalid") {
				t.Errorf("a visitor gets %s", body)
			}
		})
	}
}

func TestSelftestTriesNoFieldsWhereItsParameterIsNotInTheKey(t *testing.T) {
	b := newBed(t, badOrigin, cached(`{guard: "off", key: {query: none}}`))
	client := clientOf(t, "http1")
	r, err := selftest.Run(t.Context(), selftest.Config{Do: client.Do, Key: func(_ context.Context, target string) (string, error) {
		return "always the same", nil
	}}, []string{b.base("http1") + "/"})
	if err != nil || len(r.Skipped) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, body := b.get("http1", "/"); strings.Contains(body, ".invalid") {
		t.Errorf("a visitor gets %s", body)
	}
}

func TestPurgesGoOnWithTheNextProcessAndItsAlone(t *testing.T) {
	data := t.TempDir()
	with := func(c *Config) { c.Data = data }
	b := newBed(t, tagged, cached("{}"), with)
	var r cache.Receipt
	b.door("POST", "/cache/purge", CachePurge{Site: "shop", Tags: []string{"x"}}, &r)
	b.cache.Seal()
	var e struct{ Error string }
	if code := b.door("POST", "/cache/purge", CachePurge{Site: "shop", Tags: []string{"y"}}, &e); code != 400 || !strings.Contains(e.Error, "another process") {
		t.Errorf("%d %s: a process that has handed over takes purges", code, e.Error)
	}
	c := newBed(t, tagged, cached("{}"), with)
	var st cache.EdgeStats
	c.door("GET", "/cache/stats", nil, &st)
	if st.PurgeKeys != 1 || st.PurgeLog.Last <= r.Number {
		t.Errorf("%+v after number %d", st, r.Number)
	}
}

// What the key says of a visitor the origin is told, whoever says something else.
func TestTheOriginIsToldTheLanguageAndTheDeviceThatAreInTheKey(t *testing.T) {
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60")
		fmt.Fprint(w, r.Header.Values("Accept-Language"), r.Header.Values("Relais-Device"))
	}, cached(`{key: {languages: [en, de], device: true}, bypass: [{cookies: [session], exceptSuffixes: ["@static"]}]}`))
	const phone = "User-Agent: Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/120.0 Mobile Safari/537.36"
	for _, c := range []struct {
		path, want, status string
		fields             []string
	}{
		{"/", "[de] [mobile]", "fwd=uri-miss", []string{"Accept-Language: fr, de-CH;q=0.5", phone, "Relais-Device: desktop"}},
		{"/", "[de] [mobile]", "hit", []string{"Accept-Language: de", phone}},
		{"/", "[en] [desktop]", "fwd=vary-miss", []string{"Accept-Language: fr"}},
		{"/", "[de] [mobile]", "fwd=bypass; detail=cookie", []string{"Accept-Language: de-AT", phone, "Cookie: a=b; session=1"}},
		{"/a.png", "[de] [desktop]", "fwd=uri-miss", []string{"Accept-Language: de-AT", "Cookie: session=1"}},
		{"/a.png", "[de] [desktop]", "hit", []string{"Accept-Language: de", "Cookie: session=2"}},
	} {
		resp, body := b.get("http1", c.path, c.fields...)
		for c.status == "hit" && strings.Contains(resp.Header.Get("Cache-Status"), "; collapsed") { // its last byte came before it was stored
			resp, body = b.get("http1", c.path, c.fields...)
		}
		if strings.ReplaceAll(body, "][", "] [") != c.want || !strings.Contains(resp.Header.Get("Cache-Status"), c.status) {
			t.Errorf("%s %q: %s, %s", c.path, c.fields, body, resp.Header.Get("Cache-Status"))
		}
	}
	if a := b.why("/", "Cookie: session=1"); a.Result != "bypass" || !strings.Contains(a.Reasons[0].Words, "bypass[0], cookie session") {
		t.Errorf("%+v", a)
	}
}
