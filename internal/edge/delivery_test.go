package edge

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var page1 = strings.Repeat("<p>a page that repeats itself</p>\n", 200)

func TestACompressedAnswerIsStoredAndValidatedAsSuch(t *testing.T) {
	var asked, validated atomic.Int32
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Cache-Control", r.URL.Query().Get("cc"))
		w.Header().Set("Vary", "X-Device")
		w.Header().Set("ETag", `"v1"`)
		if r.Header.Get("If-None-Match") == `"v1"` {
			validated.Add(1)
			w.WriteHeader(304)
			return
		}
		io.WriteString(w, page1)
	}, siteHead+`
  cache: pages
  compression: {}
  routes: [{pool: shop}]
`+pages+pool)
	for _, coding := range []string{"gzip", "br", "zstd"} {
		path := "/" + coding + "?cc=max-age=60"
		asked.Store(0)
		resp, text := b.get("http1", path, "Accept-Encoding: "+coding)
		want := map[string]string{"Content-Encoding": coding, "ETag": `W/"v1~` + coding + `"`, "Vary": "X-Device, Accept-Encoding"}
		expect(t, coding+" first", resp, 200, want)
		if plain, _ := io.ReadAll(decoded(t, coding, strings.NewReader(text))); string(plain) != page1 {
			t.Errorf("%s: the content is another", coding)
		}
		want["Content-Length"] = fmt.Sprint(len(text))
		b.get("h2", path, "Accept-Encoding: "+coding+", deflate")
		resp, text2 := b.get("http1", path, "Accept-Encoding: "+coding+", deflate")
		expect(t, coding+" hit", resp, 200, want)
		if text2 != text || !strings.Contains(resp.Header.Get("Cache-Status"), "; hit") {
			t.Errorf("%s: not the stored bytes, %s", coding, resp.Header.Get("Cache-Status"))
		}
		resp, _ = b.send("http1", "HEAD", path, nil, "Accept-Encoding: "+coding)
		expect(t, coding+" HEAD", resp, 200, want)
		resp, _ = b.get("http1", path, "Accept-Encoding: "+coding, `If-None-Match: W/"v1~`+coding+`"`)
		expect(t, coding+" 304", resp, 304, map[string]string{"ETag": want["ETag"], "Vary": want["Vary"]})
		resp, plain := b.get("http1", path)
		expect(t, coding+" plain", resp, 200, map[string]string{"Content-Encoding": "", "ETag": `"v1"`, "Vary": want["Vary"]})
		if plain != page1 {
			t.Error("without Accept-Encoding the content is not plain")
		}
		if n := asked.Load(); n != 3 { // clear, TLS, and without Accept-Encoding
			t.Errorf("%s: the origin was asked %d times, want 3", coding, n)
		}
	}
	// A stored answer that must be validated: the origin gets its own tag, and its 304 renews what is stored.
	validated.Store(0)
	first, text := b.get("http1", "/v?cc=max-age=0", "Accept-Encoding: br")
	for range 3 {
		resp, text2 := b.get("http1", "/v?cc=max-age=0", "Accept-Encoding: br")
		expect(t, "validated", resp, 200, map[string]string{"Content-Encoding": "br", "ETag": first.Header.Get("ETag"), "Vary": "X-Device, Accept-Encoding"})
		if text2 != text {
			t.Error("a validated answer has other bytes")
		}
	}
	if validated.Load() != 3 {
		t.Errorf("%d validations, want 3", validated.Load())
	}
}

// A range of what is compressed at the edge is one of the plain representation, whether that or the
// compressed one is stored, or nothing.
func TestRFC9110Section14_2ARangeIsTheSameStoredOrNot(t *testing.T) {
	tag := `"v1"`
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, "", time.Now().Add(-time.Hour), strings.NewReader(page1))
	}, siteHead+`
  compression: {}
  routes:
    - match: [{path: {prefix: /cached}}]
      cache: pages
      pool: shop
    - pool: shop
`+pages+pool)
	const accept = "Accept-Encoding: gzip, deflate, br, zstd"
	for name, tt := range map[string]struct {
		fields []string
		status int
		want   string // of the plain page; "" for the whole in a coding
	}{
		"from the first byte": {[]string{"Range: bytes=0-9"}, 206, page1[:10]},
		"a part":              {[]string{"Range: bytes=10-19"}, 206, page1[10:20]},
		"the end":             {[]string{"Range: bytes=-7"}, 206, page1[len(page1)-7:]},
		"beyond the end":      {[]string{"Range: bytes=100000-"}, 416, ""},
		"the strong tag":      {[]string{"Range: bytes=10-19", "If-Range: " + tag}, 206, page1[10:20]},
		"another strong tag":  {[]string{"Range: bytes=10-19", `If-Range: "v0"`}, 200, page1},
		"the weak tag":        {[]string{"Range: bytes=10-19", "If-Range: W/" + tag}, 200, ""},
		"the tag of a coding": {[]string{"Range: bytes=10-19", `If-Range: W/"v1~zstd"`}, 200, ""},
		"a date":              {[]string{"Range: bytes=10-19", "If-Range: " + time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)}, 200, ""},
	} {
		for _, before := range []string{"nothing", "the compressed one", "the plain one", "the same"} {
			for _, folder := range []string{"/cached/", "/passed/"} {
				path := folder + strings.ReplaceAll(name+before, " ", "-")
				name := name + ", " + before + " is stored, " + folder
				switch before {
				case "the compressed one":
					b.get("http1", path, accept)
				case "the plain one":
					b.get("http1", path)
				case "the same":
					b.get("http1", path, append(tt.fields, accept)...)
				}
				resp, text := b.get("http1", path, append(tt.fields, accept)...)
				want := map[string]string{"Content-Encoding": "", "ETag": tag}
				switch {
				case tt.status == 416:
					want = map[string]string{"Content-Range": fmt.Sprintf("bytes */%d", len(page1))}
				case tt.want == "":
					want = map[string]string{"Content-Encoding": "zstd", "ETag": `W/"v1~zstd"`, "Content-Range": ""}
				case text != tt.want:
					t.Errorf("%s: %.20q, not %.20q", name, text, tt.want)
				}
				expect(t, name, resp, tt.status, want)
				if tt.status != 416 && resp.Header.Get("Vary") != "Accept-Encoding" {
					t.Errorf("%s: Vary is %q", name, resp.Header.Get("Vary"))
				}
				if tt.status != 206 {
					continue
				}
				resp, _ = b.get("http1", path, accept) // the range is not in the way of who wants the whole
				expect(t, name+", then the whole", resp, 200, map[string]string{"Content-Encoding": "zstd"})
			}
		}
	}
}

func TestPassedAnswersAreCompressedForEachClient(t *testing.T) {
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("ETag", `"v1"`)
		if r.Header.Get("If-None-Match") == `"v1"` {
			w.WriteHeader(304)
			return
		}
		if r.Method == "PUT" && r.Header.Get("If-Match") != `"v1"` {
			w.WriteHeader(412)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/done") {
			w.Header().Set("Content-Encoding", "gzip")
		}
		io.WriteString(w, page1)
	}, siteHead+`
  compression: {algorithms: [br, gzip]}
  routes:
    - match: [{path: {prefix: /plain}}]
      compression: {enabled: false}
      pool: shop
    - pool: shop
`+pool)
	for _, proto := range []string{"http1", "https", "h2c", "h2", "h3"} {
		resp, text := b.get(proto, "/", "Accept-Encoding: gzip;q=1, br;q=0.5, zstd")
		expect(t, proto, resp, 200, map[string]string{"Content-Encoding": "gzip", "Vary": "Accept-Encoding", "ETag": `W/"v1~gzip"`})
		if n := resp.ContentLength; n >= 0 && n != int64(len(text)) {
			t.Errorf("%s: Content-Length %d of %d bytes", proto, n, len(text))
		}
		if plain, err := io.ReadAll(decoded(t, "gzip", strings.NewReader(text))); string(plain) != page1 {
			t.Errorf("%s: %v", proto, err)
		}
		resp, _ = b.get(proto, "/", "Accept-Encoding: gzip", `If-None-Match: W/"v1~gzip"`)
		expect(t, proto, resp, 304, map[string]string{"ETag": `W/"v1~gzip"`})
		resp, _ = b.send(proto, "PUT", "/", strings.NewReader("{}"), "Accept-Encoding: gzip", `If-Match: W/"v1~gzip"`)
		expect(t, proto+" PUT", resp, 200, nil)
		resp, _ = b.send(proto, "HEAD", "/", nil, "Accept-Encoding: br")
		expect(t, proto+" HEAD", resp, 200, map[string]string{"Content-Encoding": "br", "Content-Length": ""})
		resp, text = b.get(proto, "/done", "Accept-Encoding: br")
		expect(t, proto, resp, 200, map[string]string{"Content-Encoding": "gzip", "Vary": "", "ETag": `"v1"`})
		if text != page1 {
			t.Error("what the origin encoded was touched")
		}
		resp, _ = b.get(proto, "/plain", "Accept-Encoding: br")
		expect(t, proto, resp, 200, map[string]string{"Content-Encoding": "", "Vary": ""})
	}
}

func TestTheEdgesOwnAnswersAreCompressedToo(t *testing.T) {
	b := newBed(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, siteHead+`
  compression: {algorithms: [br, gzip]}
  errorPages: [{statuses: [403, 404, 502], html: "`+strings.Repeat("<p>we are sorry</p>", 100)+`"}]
  routes:
    - match: [{path: {exact: /robots.txt}}]
      respond: {body: "`+strings.Repeat("Disallow: /private ", 100)+`"}
    - match: [{path: {exact: /stored.txt}}]
      cache: pages
      respond: {body: "`+strings.Repeat("Disallow: /private ", 100)+`"}
    - match: [{path: {exact: /short.txt}}]
      respond: {body: short}
    - match: [{path: {exact: /denied}}]
      access: nobody
      respond: {body: never}
    - match: [{path: {exact: /broken}}]
      pool: shop
`+pages+`
---
apiVersion: relais/v1
kind: AccessPolicy
metadata: {name: nobody}
spec: {default: deny}
`+pool)
	for _, proto := range []string{"http1", "h2", "h3", "std"} {
		for path, want := range map[string]struct {
			status       int
			coding, vary string
			plain        string
		}{
			"/robots.txt": {200, "br", "Accept-Encoding", strings.Repeat("Disallow: /private ", 100)},
			"/stored.txt": {200, "br", "Accept-Encoding", strings.Repeat("Disallow: /private ", 100)},
			"/short.txt":  {200, "", "", "short"},
			"/denied":     {403, "", "", strings.Repeat("<p>we are sorry</p>", 100)},
			"/broken":     {502, "br", "Accept-Encoding", strings.Repeat("<p>we are sorry</p>", 100)},
			"/nowhere":    {404, "br", "Accept-Encoding", strings.Repeat("<p>we are sorry</p>", 100)},
		} {
			resp, text := b.get(proto, path, "Accept-Encoding: br, gzip", "Accept: text/html")
			expect(t, proto+" "+path, resp, want.status, map[string]string{"Content-Encoding": want.coding, "Vary": want.vary})
			if resp.ContentLength != int64(len(text)) {
				t.Errorf("%s %s: Content-Length %d of %d bytes", proto, path, resp.ContentLength, len(text))
			}
			plain := text
			if want.coding != "" {
				b, err := io.ReadAll(decoded(t, want.coding, strings.NewReader(text)))
				if err != nil {
					t.Error(err)
				}
				plain = string(b)
			}
			if plain != want.plain {
				t.Errorf("%s %s: %.60q", proto, path, plain)
			}
			head, _ := b.send(proto, "HEAD", path, nil, "Accept-Encoding: br, gzip", "Accept: text/html")
			expect(t, proto+" HEAD "+path, head, want.status, map[string]string{"Content-Encoding": want.coding, "Content-Length": fmt.Sprint(len(text))})
		}
		resp, _ := b.get(proto, "/robots.txt")
		expect(t, proto+" plain", resp, 200, map[string]string{"Content-Encoding": "", "Vary": "Accept-Encoding"})
	}
}

func TestAVisitorIsBroughtToHTTPSAndKeptThere(t *testing.T) {
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Strict-Transport-Security", "max-age=1")
		io.WriteString(w, "hello")
	}, siteHead+`
  https:
    redirect: true
    port: 8443
    hsts: {maxAge: 17520h, includeSubDomains: true, preload: true}
  errorPages:
    - {statuses: [404], html: "<b>${response.status} ${request.host} ${request.id} $${x}</b>", json: '{"id":"${request.id}","host":"${request.host}"}'}
    - {statuses: [4xx], text: "class ${response.status}"}
  routes:
    - match: [{path: {prefix: /shop}}, {path: {prefix: /.well-known}}]
      pool: shop
`+pool)
	const sts = "max-age=63072000; includeSubDomains; preload"
	resp, _ := b.get("http1", "/shop?a=b")
	expect(t, "clear", resp, 301, map[string]string{"Location": "https://127.0.0.1:8443/shop?a=b", "Strict-Transport-Security": ""})
	resp, _ = b.send("h2c", "POST", "/shop", strings.NewReader("order"))
	expect(t, "clear POST", resp, 308, map[string]string{"Location": "https://127.0.0.1:8443/shop"})
	resp, text := b.get("http1", "/.well-known/acme-challenge/x")
	if expect(t, "acme", resp, 200, nil); text != "hello" {
		t.Error("a proof of names was redirected")
	}
	for _, proto := range []string{"https", "h2", "h3"} {
		resp, _ = b.get(proto, "/shop")
		expect(t, proto, resp, 200, map[string]string{"Strict-Transport-Security": sts})
		resp, text = b.get(proto, "/none", "Accept: text/html")
		expect(t, proto, resp, 404, map[string]string{"Strict-Transport-Security": sts, "Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store"})
		if want := "<b>404 127.0.0.1 " + resp.Header.Get("X-Request-Id") + " ${x}</b>"; text != want {
			t.Errorf("page %q, want %q", text, want)
		}
	}
	resp, text = b.get("h2", "/none", "Accept: application/json, text/html;q=0.5")
	expect(t, "json", resp, 404, map[string]string{"Content-Type": "application/json"})
	if want := `{"id":"` + resp.Header.Get("X-Request-Id") + `","host":"127.0.0.1"}`; text != want {
		t.Errorf("json %q, want %q", text, want)
	}
	resp, text = b.get("h2", "/none", "Accept: */*")
	if expect(t, "own page", resp, 404, nil); !strings.Contains(text, "Page not found") {
		t.Errorf("the form that the site does not give is %q", text)
	}
}

func TestMaintenanceLetsABasketGoOn(t *testing.T) {
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "open")
	}, "")
	docs := func(maintenance string) string {
		return siteHead + maintenance + `
  visitor: buyers
  cache: pages
  routes: [{pool: shop}]
` + pages + `
` + buyers + pool
	}
	b.apply(docs(""))
	resp, _ := b.send("http1", "POST", "/basket", nil)
	var cookie string
	for _, c := range resp.Cookies() {
		cookie = "Cookie: " + c.Name + "=" + c.Value
	}
	b.get("http1", "/") // is stored now
	b.apply(docs("  maintenance: {enabled: true, retryAfter: 10m, page: {html: \"<h1>back soon ${request.id}</h1>\", json: '{\"s\":${response.status}}'}}\n"))
	resp, text := b.get("http1", "/", "Accept: text/html")
	expect(t, "closed", resp, 503, map[string]string{"Retry-After": "600", "Cache-Control": "no-store", "Content-Type": "text/html; charset=utf-8"})
	if text != "<h1>back soon "+resp.Header.Get("X-Request-Id")+"</h1>" {
		t.Errorf("page %q", text)
	}
	if _, text = b.get("http1", "/", "Accept: application/json"); text != `{"s":503}` {
		t.Errorf("json %q", text)
	}
	if _, text = b.get("http1", "/"); !strings.Contains(text, "Back soon") {
		t.Errorf("text %q", text)
	}
	if resp, text = b.get("http1", "/checkout", cookie); resp.StatusCode != 200 || text != "open" {
		t.Errorf("a visitor with a basket: %d %q", resp.StatusCode, text)
	}
	b.apply(docs("  maintenance: {enabled: true, allowProtected: false}\n"))
	if resp, _ = b.get("http1", "/checkout", cookie); resp.StatusCode != 503 {
		t.Errorf("with allowProtected: false a visitor with a basket got %d", resp.StatusCode)
	}
	if !strings.Contains(b.scrape(), `relais_maintenance_requests_total{decision="basket"} 1`) {
		t.Error("the basket was not counted")
	}
}

// navigate asks for a page as a browser does, and returns the Link fields of each 103.
func navigate(t *testing.T, b *bed, proto, path string, told func()) (hints []string) {
	t.Helper()
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		hints = append(hints, fmt.Sprint(code, " ", strings.Join(h.Values("Link"), ", ")))
		told()
		return nil
	}})
	req, err := http.NewRequestWithContext(ctx, "GET", b.base(proto)+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Mode", "navigate")
	resp, err := clientOf(t, proto).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("%s %s: %d", proto, path, resp.StatusCode)
	}
	return hints
}

func TestEarlyHintsComeWhileTheOriginThinks(t *testing.T) {
	wait := make(chan struct{}, 1)
	var hold atomic.Bool
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/own") {
			w.Header().Set("Link", "</own.css>; rel=preload; as=style")
			w.WriteHeader(103)
			if r.Header.Get("X-Forwarded-Host") != "" {
				select {
				case <-wait:
				case <-time.After(20 * time.Second):
					t.Error("the origin's own hint did not reach the client before its answer")
				}
			}
			w.Header().Del("Link")
			io.WriteString(w, "page")
			return
		}
		if hold.Load() {
			select {
			case <-wait:
			case <-time.After(20 * time.Second):
				t.Error("the hint did not reach the client before the origin answered")
			}
		}
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Link", "</a.css>; rel=preload; as=style, <https://evil.test>; rel=preconnect")
		w.Header().Set("Cache-Control", "no-cache")
		io.WriteString(w, page1)
	}, siteHead+`
  cache: pages
  earlyHints: true
  routes: [{pool: shop}]
`+pages+pool)
	told := func() { wait <- struct{}{} }
	for _, proto := range []string{"h2c", "h2", "h3"} {
		hold.Store(false)
		if got := navigate(t, b, proto, "/"+proto, told); len(got) != 0 {
			t.Errorf("%s: hints %v of a page that nobody has seen", proto, got)
		}
		hold.Store(true)
		got := navigate(t, b, proto, "/"+proto, told)
		if !slices.Equal(got, []string{"103 </a.css>; rel=preload; as=style"}) {
			t.Errorf("%s: hints %v", proto, got)
		}
	}
	hold.Store(false)
	navigate(t, b, "http1", "/h1", told)
	if got := navigate(t, b, "http1", "/h1", told); len(got) != 0 {
		t.Errorf("HTTP/1.1 got %v", got)
	}
	for _, proto := range []string{"http1", "https", "h2c", "h2", "h3"} {
		if got := navigate(t, b, proto, "/own", told); !slices.Equal(got, []string{"103 </own.css>; rel=preload; as=style"}) {
			t.Errorf("%s: of the origin's hints came %v", proto, got)
		}
	}
}

func TestCopiesGoToTheOtherPoolAndOrdersDoNot(t *testing.T) {
	type copied struct{ method, target, body, mirror, id string }
	copies := make(chan copied, 10)
	other := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		copies <- copied{r.Method, r.RequestURI, string(body), r.Header.Get("Relais-Mirror"), r.Header.Get("X-Request-Id")}
		http.Error(w, "the other pool is broken", 500)
	})
	var orders atomic.Int32
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Relais-Mirror") != "" {
			t.Error("the original is marked as a copy")
		}
		body, _ := io.ReadAll(r.Body)
		orders.Add(1)
		io.WriteString(w, "thanks for "+string(body))
	}, siteHead+`
  routes:
    - match: [{path: {prefix: /search}}]
      pool: shop
      mirror: {pool: next, unsafe: true, maxBody: 10}
    - pool: shop
      mirror: {pool: next}
      filters: {rewrite: {regex: {pattern: "^/v1", replacement: ""}, query: {set: [{name: from, value: edge}]}}}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: next}
spec: {tiers: [{origins: [{address: "`+other+`"}]}]}
`+pool)
	resp, _ := b.get("h2", "/v1/a?q=1")
	expect(t, "get", resp, 200, nil)
	if c := <-copies; c != (copied{"GET", "/a?q=1&from=edge", "", "1", resp.Header.Get("X-Request-Id")}) {
		t.Errorf("%+v", c)
	}
	if resp, text := b.send("http1", "POST", "/checkout", strings.NewReader("shoes")); resp.StatusCode != 200 || text != "thanks for shoes" {
		t.Errorf("order: %d %q", resp.StatusCode, text)
	}
	if _, text := b.send("http1", "POST", "/search", strings.NewReader("much too long")); text != "thanks for much too long" {
		t.Errorf("search: %q", text)
	}
	resp, _ = b.send("http1", "POST", "/search", strings.NewReader("hats"))
	if c := <-copies; c != (copied{"POST", "/search", "hats", "1", resp.Header.Get("X-Request-Id")}) {
		t.Errorf("%+v: an order, or a body that is too long, was mirrored", c)
	}
	if orders.Load() != 4 {
		t.Errorf("the origin got %d requests, want 4", orders.Load())
	}
	if !strings.Contains(b.scrape(), `relais_mirror_requests_total{outcome="too-large"} 1`) {
		t.Error("what was too large is not counted")
	}
}

func TestHeaderValuesHoldVariablesThroughThePipeline(t *testing.T) {
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Got", r.Header.Get("X-Seen")+" "+r.RequestURI)
		w.WriteHeader(404)
	}, siteHead+`
  routes:
    - pool: shop
      filters:
        requestHeaders: {set: [{name: X-Seen, value: "${client.ip} ${tls.version} ${http.version} ${request.scheme} ${site.name}"}]}
        responseHeaders:
          set:
            - {name: X-Status, value: "${response.status} ${request.id}", statuses: [4xx]}
            - {name: X-Good, value: "yes", statuses: [2xx]}
        rewrite: {regex: {pattern: "^/p/([0-9]+)$", replacement: "/product/$1"}}
`+pool)
	resp, _ := b.get("h2", "/p/12?a")
	expect(t, "h2", resp, 404, map[string]string{
		"X-Got": "127.0.0.1 TLSv1.3 HTTP/2 https shop /product/12?a", "X-Status": "404 " + resp.Header.Get("X-Request-Id"), "X-Good": "",
	})
}

// A stampede for a stored, compressed page: it is compressed once, and asked for once.
func TestAStampedeIsCompressedOnce(t *testing.T) {
	var asked atomic.Int32
	gate := make(chan struct{})
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		<-gate
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, page1)
	}, siteHead+`
  cache: pages
  compression: {}
  routes: [{pool: shop}]
`+pages+pool)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableCompression: true}}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	var started sync.WaitGroup
	for range 20 {
		started.Add(1)
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(context.Background(), "GET", b.base("http1")+"/", nil)
			req.Header.Set("Accept-Encoding", "zstd, gzip")
			started.Done()
			resp, err := client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			text, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if plain, err := io.ReadAll(decoded(t, "zstd", strings.NewReader(string(text)))); string(plain) != page1 {
				t.Errorf("%s: %v", resp.Header.Get("Content-Encoding"), err)
			}
		})
	}
	started.Wait()
	close(gate)
	wg.Wait()
	if asked.Load() != 1 || !strings.Contains(b.scrape(), `relais_encode_answers_total{coding="zstd"} 1`) {
		t.Errorf("asked %d times", asked.Load())
	}
}
