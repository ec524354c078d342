package edge

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/usage"
)

// What a real edge served, refused and fetched stands in its usage, by site.
func TestUsageOfAnEdge(t *testing.T) {
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/page" {
			w.Header().Set("Cache-Control", "max-age=60")
		}
		_, _ = w.Write([]byte("0123456789"))
	}, `
apiVersion: relais/v1
kind: Site
metadata: {name: shop}
spec:
  hostnames: ["*"]
  routes:
    - match: [{path: {prefix: /closed}}]
      access: nobody
      pool: home
    - pool: home
      cache: pages
---
apiVersion: relais/v1
kind: AccessPolicy
metadata: {name: nobody}
spec: {default: deny}
---
apiVersion: relais/v1
kind: CachePolicy
metadata: {name: pages}
spec: {}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: home}
spec: {tiers: [{name: own, origins: [{address: "${ORIGIN}"}]}]}
`)
	for range 4 {
		b.send("http1", "GET", "/page", nil)
	}
	b.send("h2", "POST", "/form", strings.NewReader("twelve bytes"))
	resp, page := b.send("http1", "GET", "/closed", nil)
	if resp.StatusCode != 403 {
		t.Fatalf("the closed page: %d", resp.StatusCode)
	}
	want := usage.Counts{
		Requests: 5, BytesIn: 12, BytesOut: 50, CacheHits: 3, Fetches: 2, Refused: 1, RefusedBytesOut: int64(len(page)),
	}
	b.used("shop", want)
}

// used waits until a site used just so much.
func (b *bed) used(site string, want usage.Counts) {
	b.t.Helper()
	var sum usage.Counts
	for deadline := time.Now().Add(time.Minute); sum != want && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for _, r := range b.Usage(time.Now()) {
			if r.Organization != "default" || r.Site != site || r.Check() != nil {
				b.t.Fatalf("%+v", r)
			}
			sum.Add(&r.Counts)
		}
	}
	if sum != want {
		b.t.Errorf("%+v\nwant %+v", sum, want)
	}
}

// An order is what ends a basket, once; whoever says that he ordered without one has not.
func TestOrdersAreCountedOnce(t *testing.T) {
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/thanks" {
			w.Header().Set("Relais-Funnel", "ordered")
		}
	}, siteHead+"  visitor: buyers\n  routes: [{pool: shop}]\n"+buyers+pool)
	b.send("http1", "POST", "/thanks", nil)
	for range 2 {
		filled, _ := b.send("http1", "POST", "/basket", nil)
		if len(filled.Cookies()) == 0 {
			t.Fatal("no cookie for the basket")
		}
		cookie := "Cookie: " + filled.Cookies()[0].Name + "=" + filled.Cookies()[0].Value
		ordered, _ := b.send("http1", "POST", "/thanks", nil, cookie)
		if len(ordered.Cookies()) == 0 {
			t.Fatal("no cookie for the order")
		}
		cookie = "Cookie: " + ordered.Cookies()[0].Name + "=" + ordered.Cookies()[0].Value
		b.send("http1", "POST", "/thanks", nil, cookie) // the page is loaded again
	}
	b.used("shop", usage.Counts{Requests: 7, Fetches: 7, Orders: 2})
}
