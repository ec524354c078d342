package edge

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/feed"
	"github.com/relais-edge/relais/internal/edge/cache/refill"
)

// job waits until a job has ended.
func (b *bed) job(id uint64) refill.Progress {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		var p refill.Progress
		if code := b.door("GET", fmt.Sprint("/cache/warm?job=", id), nil, &p); code != 200 {
			b.t.Fatalf("job %d: status %d", id, code)
		}
		if p.Ended != nil {
			return p
		}
	}
	b.t.Fatalf("job %d does not end", id)
	return refill.Progress{}
}

// counting counts what the origin is asked, and how much of it at once.
type counting struct {
	asked, now, most atomic.Int64
	last             atomic.Pointer[http.Request]
}

func (c *counting) wrap(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c.asked.Add(1)
		c.last.Store(r)
		n := c.now.Add(1)
		defer c.now.Add(-1)
		for m := c.most.Load(); n > m && !c.most.CompareAndSwap(m, n); m = c.most.Load() {
		}
		h(w, r)
	}
}

// heat asks so often that a path is among those that are asked for most.
func (b *bed) heat(path string, fields ...string) {
	b.t.Helper()
	for range 250 {
		b.get("http1", path, fields...)
	}
}

func TestAfterAPurgeTheHottestAreFetchedAgainInAllVariants(t *testing.T) {
	for _, c := range []struct {
		name string
		q    CachePurge
		soft bool
	}{
		{"tag", CachePurge{Tags: []string{"all"}}, false},
		{"soft tag", CachePurge{Tags: []string{"all"}, Soft: true}, true},
		{"prefix", CachePurge{Prefixes: []string{"/hot"}}, false},
		{"site", CachePurge{All: true}, false},
		{"everything", CachePurge{Everything: true}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var n counting
			b := newBed(t, n.wrap(tagged), cached(`{staleWhileRevalidate: 1h}`))
			b.heat("/hot?a=1", "Accept-Language: de")
			b.heat("/hot?a=1", "Accept-Language: en", "Accept-Encoding: gzip")
			before := n.asked.Load()
			c.q.Warm = true
			if !c.q.Everything {
				c.q.Site = "shop"
			}
			var a PurgeAnswer
			if code := b.door("POST", "/cache/purge", &c.q, &a); code != 200 || len(a.Jobs) != 1 {
				t.Fatalf("%d %+v", code, a)
			}
			p := b.job(a.Jobs[0])
			if p.Stored != 2 || p.Total != 2 || p.Failed != 0 {
				t.Errorf("%+v", p)
			}
			if got := n.asked.Load() - before; got != 2 {
				t.Errorf("the origin was asked %d times, not twice", got)
			}
			for _, lang := range []string{"de", "en"} {
				f := []string{"Accept-Language: " + lang}
				if lang == "en" {
					f = append(f, "Accept-Encoding: gzip")
				}
				if resp, _ := b.get("http1", "/hot?a=1", f...); !strings.Contains(resp.Header.Get("Cache-Status"), "; hit") || strings.Contains(resp.Header.Get("Cache-Status"), "detail") {
					t.Errorf("%s: %s", lang, resp.Header.Get("Cache-Status"))
				}
			}
		})
	}
}

func TestAReWarmIsForTheDevicesAndLanguagesThatAsked(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{}
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.Header.Get("Relais-Device")+" "+r.Header.Get("Accept-Language")]++
		mu.Unlock()
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, r.Header.Get("Relais-Device"))
	}, cached(`{key: {device: true, languages: [en, de]}}`))
	phone := []string{"User-Agent: Mozilla/5.0 (iPhone) Mobile", "Accept-Language: de-CH"}
	b.heat("/hot", phone...)
	b.heat("/hot", "User-Agent: Mozilla/5.0 (X11)", "Accept-Language: fr")
	var a PurgeAnswer
	if code := b.door("POST", "/cache/purge", CachePurge{Site: "shop", All: true, Warm: true}, &a); code != 200 || len(a.Jobs) != 1 {
		t.Fatalf("%d %+v", code, a)
	}
	if p := b.job(a.Jobs[0]); p.Stored != 2 || p.Total != 2 {
		t.Errorf("%+v", p)
	}
	if resp, text := b.get("http1", "/hot", phone...); !strings.Contains(resp.Header.Get("Cache-Status"), "; hit") || text != "mobile" {
		t.Errorf("%s, %q", resp.Header.Get("Cache-Status"), text)
	}
	mu.Lock()
	if len(asked) != 2 || asked["mobile de"] != 2 || asked["desktop en"] != 2 {
		t.Errorf("%v", asked)
	}
	mu.Unlock()
	// What a visitor says of the device is not heard.
	if _, text := b.get("http1", "/other", "Relais-Device: mobile"); text != "desktop" {
		t.Errorf("a visitor is a %s by its own word", text)
	}
}

func TestAPolicyRefillsAfterEveryPurgeAndCountsNobodysRequests(t *testing.T) {
	var n counting
	b := newBed(t, n.wrap(tagged), cached(`{warm: {}}`))
	b.heat("/hot")
	var before, after struct{ Sites []struct{ Requests int64 } }
	b.door("GET", "/cache/stats?site=shop", nil, &before)
	var a PurgeAnswer
	b.door("POST", "/cache/purge", CachePurge{Site: "shop", Tags: []string{"all"}}, &a)
	var jobs []refill.Progress
	if b.door("GET", "/cache/warm?site=shop", nil, &jobs); len(jobs) != 1 || len(a.Jobs) != 0 {
		t.Fatalf("%+v %+v", jobs, a)
	}
	if p := b.job(jobs[0].ID); p.Stored != 1 {
		t.Errorf("%+v", p)
	}
	b.door("GET", "/cache/stats?site=shop", nil, &after)
	if before.Sites[0].Requests != after.Sites[0].Requests {
		t.Errorf("a fetch of the edge's own is counted as a visitor's: %+v, %+v", before, after)
	}
	if out := b.scrape(); !strings.Contains(out, `relais_cache_refill_total{result="stored"} 1`) {
		t.Error("the fetch is not counted")
	}
	// Where the policy says never, only --warm does.
	b.apply(cached(`{warm: {afterPurge: never}}`))
	b.door("POST", "/cache/purge", CachePurge{Site: "shop", Tags: []string{"all"}}, &a)
	if b.door("GET", "/cache/warm?site=shop", nil, &jobs); len(jobs) != 1 {
		t.Errorf("%+v", jobs)
	}
}

func TestAListOfURLsIsFetched(t *testing.T) {
	var n counting
	b := newBed(t, n.wrap(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/private":
			w.Header().Set("Cache-Control", "private")
		case "/gone":
			http.NotFound(w, r)
			return
		case "/page":
			w.Header().Add("Link", "</style.css>; rel=preload; as=style, <https://other.example/x>; rel=prefetch, </next>; rel=next")
			w.Header().Set("Cache-Control", "max-age=60")
		default:
			w.Header().Set("Cache-Control", "max-age=60")
		}
		fmt.Fprint(w, r.URL.Path)
	}), cached(`{warm: {rate: 1000, links: follow}}`))
	base := b.base("http1")
	b.get("http1", "/there")
	var a WarmupAnswer
	q := CacheWarmup{Site: "shop", URLs: []string{base + "/page", base + "/private", base + "/gone", base + "/there", base + "/page", "/short", "ftp://x/"}}
	if code := b.door("POST", "/cache/warm", q, &a); code != 200 || a.RefusedN != 2 {
		t.Fatalf("%d %+v", code, a)
	}
	p := b.job(a.Job)
	if p.Stored != 2 || p.Fresh != 1 || p.NotStored != 1 || p.Failed != 1 || p.Same != 1 || p.Total != 6 || len(p.Errors) != 1 || !strings.Contains(p.Errors[0], "/gone: status 404") {
		t.Errorf("%+v", p)
	}
	for path, want := range map[string]string{"/page": "hit", "/style.css": "hit", "/next": "fwd=uri-miss"} {
		if resp, _ := b.get("http1", path); !strings.Contains(resp.Header.Get("Cache-Status"), want) {
			t.Errorf("%s: %s", path, resp.Header.Get("Cache-Status"))
		}
	}
	var e struct{ Error string }
	for _, q := range []CacheWarmup{{Site: "none", URLs: []string{base}}, {Site: "shop"}} {
		if code := b.door("POST", "/cache/warm", q, &e); code != 400 || e.Error == "" {
			t.Errorf("%+v: %d", q, code)
		}
	}
	if code := b.door("GET", "/cache/warm?job=99", nil, &e); code != 404 {
		t.Errorf("%d", code)
	}
}

func TestAPurgeStormNeverAsksTheOriginForMoreThanItsBound(t *testing.T) {
	var n counting
	slow := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(3 * time.Millisecond)
		tagged(w, r)
	}
	b := newBed(t, n.wrap(slow), cached(`{warm: {rate: 200, inFlight: 3}}`))
	for i := range 30 {
		for range 40 {
			b.get("http1", fmt.Sprint("/p", i))
		}
	}
	n.asked.Store(0)
	n.most.Store(0)
	begin := time.Now()
	for time.Since(begin) < 1500*time.Millisecond {
		b.door("POST", "/cache/purge", CachePurge{Site: "shop", Tags: []string{"all"}}, nil)
	}
	var jobs []refill.Progress
	b.door("GET", "/cache/warm?site=shop", nil, &jobs)
	for _, j := range jobs {
		b.job(j.ID)
	}
	took := time.Since(begin).Seconds()
	if most := n.most.Load(); most > 3 || most == 0 {
		t.Errorf("%d at once, the bound is 3", most)
	}
	if asked := n.asked.Load(); float64(asked) > 200*took+3 || asked < 10 {
		t.Errorf("%d fetches in %.1f s, the bound is 200 a second", asked, took)
	}
}

func TestAFetchThatNobodyWaitsForTakesNoPlaceThatAVisitorMayNeed(t *testing.T) {
	var n counting
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	b := newBed(t, n.wrap(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/slow") {
			<-hold
		}
		tagged(w, r)
	}), siteHead+`  cache: pages
  routes: [{pool: shop}]
---
apiVersion: relais/v1
kind: CachePolicy
metadata: {name: pages}
spec: {}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: shop}
spec: {tiers: [{origins: [{address: "${ORIGIN}"}], capacity: {inFlight: 4, softMark: 100%}}]}
`)
	t.Cleanup(release)
	b.heat("/hot")
	done := make(chan struct{}, 2)
	for i := range 2 {
		go func() {
			b.get("http1", fmt.Sprint("/slow", i))
			done <- struct{}{}
		}()
	}
	for end := time.Now().Add(10 * time.Second); n.now.Load() < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the visitors do not come")
		}
	}
	var a PurgeAnswer
	b.door("POST", "/cache/purge", CachePurge{Site: "shop", Tags: []string{"page-hot"}, Warm: true}, &a)
	asked := n.asked.Load()
	var p refill.Progress
	for range 100 { // it is tried, and finds no room while half of the places are taken
		b.door("GET", fmt.Sprint("/cache/warm?job=", a.Jobs[0]), nil, &p)
		if p.Total == 1 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n.asked.Load() != asked || p.Ended != nil || p.Total != 1 {
		t.Errorf("a place was taken: %d requests more, %+v", n.asked.Load()-asked, p)
	}
	if resp, _ := b.get("http1", "/other"); resp.StatusCode != 200 {
		t.Errorf("a visitor got %d", resp.StatusCode)
	}
	release()
	<-done
	<-done
	if p := b.job(a.Jobs[0]); p.Stored != 1 {
		t.Errorf("when there is room again: %+v", p)
	}
}

// events sends lines to the feed.
func (b *bed) events(lines ...string) (int, feed.Ack) {
	b.t.Helper()
	w := httptest.NewRecorder()
	b.CacheDoor().ServeHTTP(w, httptest.NewRequestWithContext(b.t.Context(), "POST", "/cache/feed?site=shop", strings.NewReader(strings.Join(lines, "\n"))))
	var a feed.Ack
	decode(b.t, w.Body.Bytes(), &a)
	return w.Code, a
}

func TestTheFeedPurgesByTagAndURLAndTellsTheOldestPrice(t *testing.T) {
	var price atomic.Int64
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600")
		w.Header().Set("Surrogate-Key", "sku-"+r.URL.Query().Get("sku"))
		fmt.Fprint(w, price.Load())
	}, cached(`{feed: {tags: ["sku-{sku}"], urls: ["/stock/{sku}"]}}`))
	b.get("http1", "/p?sku=A1")
	b.get("http1", "/stock/A1?x")
	b.get("http1", "/p?sku=B2")
	price.Store(1)
	at := time.Now().Add(-2 * time.Second)
	code, a := b.events(`{"sku":"A1","version":7,"price":"9.99","at":"`+at.Format(time.RFC3339Nano)+`"}`, `{"sku":"A1","version":6}`, `{"sku":"A1","version":7}`, `{"wrong"}`, `{"tag":"sku-ZZ"}`)
	if code != 200 || a.Lines != 5 || a.Purged != 2 || a.Older != 1 || a.Repeated != 1 || a.Refused != 1 || a.Reasons[0].Line != 4 {
		t.Fatalf("%d %+v", code, a)
	}
	for path, want := range map[string]string{"/p?sku=A1": "1", "/stock/A1?x": "1", "/p?sku=B2": "0"} {
		if _, body := b.get("http1", path); body != want {
			t.Errorf("%s is %s, want %s", path, body, want)
		}
	}
	var st []feed.Status
	b.door("GET", "/cache/feed?site=shop", nil, &st)
	if len(st) != 1 || st[0].Events != 5-1 && st[0].Events != 5 || st[0].Lag.Changes != 2 || st[0].Lag.Oldest == nil || st[0].Lag.Oldest.Name != "A1" || st[0].Lag.Max < 2 || st[0].Lag.Max > 10 {
		t.Errorf("%+v %+v", st, st[0].Lag.Oldest)
	}
	if out := b.scrape(); !strings.Contains(out, `relais_cache_feed_events_total{result="purged",site="default/shop"} 2`) {
		t.Error("the events are not counted")
	}
	// No feed, no site.
	b.apply(cached(`{}`))
	if _, a := b.events(`{"sku":"A1"}`); a.Refused != 1 || !strings.Contains(a.Reasons[0].Why, "no CachePolicy of site default/shop has a feed") {
		t.Errorf("%+v", a)
	}
}

func TestAnOldPriceThatIsStillLeavingIsSeen(t *testing.T) {
	for _, mode := range []string{"hard", "soft"} {
		t.Run(mode, func(t *testing.T) {
			big := strings.Repeat("x", 8<<20) // more than sockets take at once
			b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "public, max-age=3600, stale-while-revalidate=3600")
				w.Header().Set("Cache-Tag", "sku-A1")
				fmt.Fprint(w, big)
			}, cached(`{feed: {tags: ["sku-{sku}"], purge: `+mode+`}}`), func(c *Config) { c.CacheBytes = 64 << 20 })
			b.get("http1", "/p")
			resp, err := clientOf(t, "http1").Get(b.base("http1") + "/p")
			if err != nil {
				t.Fatal(err)
			}
			if code, a := b.events(`{"sku":"A1","version":1}`); code != 200 || a.Purged != 1 {
				t.Fatalf("%d %+v", code, a)
			}
			time.Sleep(300 * time.Millisecond) // the old answer is under way that long at least
			buf := make([]byte, 1<<20)
			for err == nil {
				_, err = resp.Body.Read(buf)
			}
			resp.Body.Close()
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
				var st []feed.Status
				b.door("GET", "/cache/feed?site=shop", nil, &st)
				l := st[0].Lag
				if l.Late == 1 && l.Oldest.Seen && l.Oldest.Seconds >= 0.3 {
					return
				}
				if time.Now().After(end) {
					t.Fatalf("%+v %+v", l, l.Oldest)
				}
			}
		})
	}
}

func decode(t *testing.T, text []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}
