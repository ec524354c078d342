package edge

import (
	"net/http"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/pop"
)

var _ pop.Counters = (*Edge)(nil)

// What the gates of a rollout look at is counted of real requests.
func TestSampleOfAnEdge(t *testing.T) {
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/page":
			w.Header().Set("Cache-Control", "max-age=60")
		case "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		case "/slow":
			time.Sleep(30 * time.Millisecond)
		}
	}, siteHead+`
  visitor: buyers
  routes:
    - match: [{path: {prefix: /closed}}]
      rateLimits: [one]
      pool: shop
    - {match: [{path: {exact: /page}}], pool: shop, cache: pages}
    - pool: shop
---
apiVersion: relais/v1
kind: RateLimit
metadata: {name: one}
spec: {requests: 1, per: 1h, burst: 1, spareBaskets: false}
`+buyers+pages+pool)
	before := b.Sample("default")
	if before != (fleet.Sample{}) {
		t.Fatalf("%+v before any request", before)
	}
	for range 3 {
		b.send("http1", "GET", "/page", nil)
	}
	b.send("h2", "GET", "/broken", nil)
	b.send("http1", "GET", "/slow", nil)
	b.send("http1", "GET", "/closed", nil)
	filled, _ := b.send("http1", "POST", "/basket", nil)
	if len(filled.Cookies()) == 0 {
		t.Fatal("no cookie for the basket")
	}
	cookie := "Cookie: " + filled.Cookies()[0].Name + "=" + filled.Cookies()[0].Value
	b.send("http1", "GET", "/checkout", nil, cookie)
	if resp, _ := b.send("http1", "GET", "/closed", nil, cookie); resp.StatusCode != 429 {
		t.Errorf("beyond the limit: %d", resp.StatusCode)
	}

	s := b.Sample("default") // counted before an answer leaves
	slow := s.Tail(fleet.Bucket(25))
	s.Latency = [fleet.Buckets]int64{}
	if want := (fleet.Sample{Requests: 9, Errors: 1, Known: 2, Blocked: 1, Lookups: 3, Misses: 1}); s != want {
		t.Errorf("%+v\nwant %+v", s, want)
	}
	if slow < 1 {
		t.Error("the slow answer is not among the slow ones")
	}
	if g := b.Gauges(); g.CPU < 0 || g.CPU > 1 || g.Memory < 0 || g.Memory > 1 {
		t.Errorf("%+v", g)
	}
}
