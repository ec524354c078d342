//go:build !race

package edge

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/netip"
	"testing"

	"github.com/relais-edge/relais/internal/edge/record"
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

// memoryBody is a body of four bytes.
type memoryBody struct{}

func (*memoryBody) Next(context.Context) ([]byte, error) { return []byte("a=12"), io.EOF }
func (*memoryBody) Close(error)                          {}

// The way of a request that is looked at for the record and not kept.
func TestARequestThatIsNotKeptAllocatesNothing(t *testing.T) {
	docs := siteHead + `
  cache: pages
  routes:
    - name: fixed
      match: [{path: {exact: /fixed}}]
      respond: {status: 200, body: fixed}
    - pool: shop
---
` + pages + pool
	b := newBed(t, func(http.ResponseWriter, *http.Request) {}, docs, func(c *Config) {
		c.Record = &record.KeeperConfig{Bytes: 1 << 20, OrgBytes: 1 << 20, OrgCount: 100, BodyBytes: 1 << 10}
	})
	conn, body := message.Conn{Listener: "default/web"}, &memoryBody{}
	req := &message.Request{}
	ctx := t.Context()
	for _, method := range []string{"GET", "POST"} {
		serve := func() {
			req.Reset()
			req.SetMethod([]byte(method))
			req.SetAuthority([]byte("shop.example.com"))
			req.SetPath([]byte("/fixed"))
			req.Proto, req.Conn = message.HTTP11, &conn
			if method == "POST" {
				req.Body, req.ContentLength = body, 4
			}
			resp := b.front.Serve(ctx, req)
			if resp.Status != 200 {
				t.Fatal(resp.Status)
			}
			resp.Ender.End(message.Outcome{Status: 200})
		}
		serve()
		if n := testing.AllocsPerRun(1000, serve); n >= 1 {
			t.Errorf("%s: %v allocations", method, n)
		}
	}
}

// A hit on a variant of a picture, through every stage.
func TestAHitOnAVariantAllocatesNothing(t *testing.T) {
	b, _, _ := gallery(t)
	addr := netip.MustParseAddrPort("127.0.0.1:4711")
	conn := &message.Conn{Listener: "default/web", Peer: addr, Local: addr, Client: addr.Addr()}
	in, req := new(message.Request), new(message.Request)
	in.SetMethod([]byte("GET"))
	in.SetAuthority([]byte("shop.example.com"))
	in.SetPath([]byte("/a"))
	in.SetQuery([]byte("v=1&width=150&dpr=1"))
	in.AddString(message.Accept, "image/apng,image/svg+xml,image/*,*/*;q=0.8")
	ctx := t.Context()
	one := func(want string) {
		req.Reset()
		req.CopyFrom(in) // the parameters are taken off the query
		req.Proto, req.Conn = message.HTTP11, conn
		resp := b.front.Serve(ctx, req)
		if resp.Status != 200 || !resp.Has(message.Age) && want == "hit" || !resp.Lists(message.Vary, "accept") {
			t.Fatalf("%d %s", resp.Status, resp.Get(message.CacheStatus))
		}
		for resp.Body != nil {
			if _, err := resp.Body.Next(ctx); err != nil {
				break
			}
		}
		resp.Ender.End(message.Outcome{Status: 200})
	}
	one("miss")
	if n := testing.AllocsPerRun(200, func() { one("hit") }); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}
