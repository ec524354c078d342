//go:build !race

package edge

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/netip"
	"testing"

	"github.com/relais-edge/relais/internal/http/message"
)

// It counts allocations, and under the race detector sync.Pool drops values by chance: `make
// allocs` runs it without.
func TestTheFrontAllocatesNothing(t *testing.T) {
	f, r := newFront(client{}, answers(200))
	req := request()
	ctx := t.Context()
	if n := testing.AllocsPerRun(200, func() {
		r.ended = r.ended[:0]
		f.Serve(ctx, req).Ender.End(message.Outcome{Status: 200})
	}); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}

// A hit on a compressed page, through every stage of a site with all of delivery on.
func TestAHitOnACompressedPageAllocatesNothing(t *testing.T) {
	b := newBed(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("ETag", `"v1"`)
		io.WriteString(w, page1)
	}, siteHead+`
  visitor: buyers
  rateLimits: [each]
  cache: pages
  compression: {}
  earlyHints: true
  https: {redirect: true, port: 443, hsts: {}}
  maintenance: {enabled: true, allow: [127.0.0.0/8]}
  errorPages: [{statuses: [5xx], text: sorry}]
  routes:
    - pool: shop
      filters:
        requestHeaders: {set: [{name: X-Client, value: "${client.ip}"}]}
        responseHeaders: {set: [{name: X-Id, value: "${request.id} ${tls.version}"}, {name: X-Error, value: "yes", statuses: [5xx]}]}
---
apiVersion: relais/v1
kind: RateLimit
metadata: {name: each}
spec: {requests: 1000000}
`+buyers+pages+pool)
	addr := netip.MustParseAddrPort("127.0.0.1:4711")
	req := &message.Request{Proto: message.HTTP2, Secure: true, Conn: &message.Conn{
		Listener: "default/web-tls", Peer: addr, Local: addr, Client: addr.Addr(), TLS: &message.TLS{Version: tls.VersionTLS13},
	}}
	req.SetMethod([]byte("GET"))
	req.SetAuthority([]byte("shop.example.com"))
	req.SetPath([]byte("/"))
	req.AddString(message.AcceptEncoding, "gzip, deflate, br, zstd")
	req.AddString(message.SecFetchMode, "navigate")
	ctx := t.Context()
	first := b.front.Serve(ctx, req)
	for first.Body != nil {
		if _, err := first.Body.Next(ctx); err != nil {
			break
		}
	}
	first.Ender.End(message.Outcome{Status: 200})
	if n := testing.AllocsPerRun(200, func() {
		resp := b.front.Serve(ctx, req)
		if string(resp.Get(message.ContentEncoding)) != "zstd" || len(resp.Bytes) == 0 || !resp.Has(message.StrictTransportSecurity) || !resp.Has(message.Age) {
			t.Fatalf("no hit: %d %s, %d bytes", resp.Status, resp.Get(message.CacheStatus), len(resp.Bytes))
		}
		resp.Ender.End(message.Outcome{Status: 200})
	}); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}
