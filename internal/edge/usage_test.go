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
	var sum usage.Counts
	for deadline := time.Now().Add(time.Minute); sum != want && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for _, r := range b.Usage(time.Now()) {
			if r.Organization != "default" || r.Site != "shop" || r.Check() != nil {
				t.Fatalf("%+v", r)
			}
			sum.Add(&r.Counts)
		}
	}
	if sum != want {
		t.Errorf("%+v\nwant %+v", sum, want)
	}
}
