package cache

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

var browser = []string{
	"Host: shop.example", "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36", "Accept: image/avif,image/webp,*/*;q=0.8",
	"Accept-Language: de-DE,de;q=0.9,en;q=0.8", "Accept-Encoding: gzip, deflate, br, zstd", "Cookie: rv=0123456789abcdef", "Sec-Fetch-Dest: image",
}

var image = reply{body: strings.Repeat("x", 1024), headers: []string{
	"Content-Type: image/jpeg", "Cache-Control: public, max-age=3600", `ETag: "33a64df551425fcc55e4d42a148795d9f25f89d4"`, "Server: shop",
	"Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT", "Date: @0", "Vary: Accept-Encoding", "X-Content-Type-Options: nosniff",
}}

func TestHitAllocatesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		line    string
		headers []string
		status  int
	}{
		"GET":           {"GET /a?b=c", browser, 200},
		"HEAD":          {"HEAD /a?b=c", browser, 200},
		"If-None-Match": {"GET /a?b=c", append([]string{`If-None-Match: "x", "33a64df551425fcc55e4d42a148795d9f25f89d4"`}, browser...), 304},
		"Range":         {"GET /a?b=c", append([]string{"Range: bytes=10-19"}, browser...), 206},
		"Cache-Control": {"GET /a?b=c", append([]string{"Cache-Control: max-stale=5, min-fresh=2"}, browser...), 200},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, v1.CachePolicySpec{Key: v1.CacheKey{Query: "except", Parameters: []string{"utm_*"}, Cookies: []string{"rv"}}}, image)
			r.do("GET /a?b=c", browser...)
			x := r.exchange(c.line, c.headers...)
			in, site, route := x.In, x.Site, x.Route
			one := func() {
				x.Reset()
				x.In, x.Site, x.Route, x.Start = in, site, route, r.now
				x.SetHost([]byte("shop.example"))
				resp, err := r.chain.Serve(t.Context(), x)
				if err != nil || resp.Status != c.status || x.CacheStatus != "hit" {
					t.Fatal(err, resp.Status, x.CacheStatus)
				}
				x.End(message.Outcome{})
			}
			if n := testing.AllocsPerRun(100, one); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

// instant answers with an answer that is not stored.
type instant struct{}

func (o instant) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	resp := &x.Response
	resp.Reset()
	resp.Status = 200
	resp.AddString(message.CacheControl, "private, max-age=60")
	resp.SetBytes(nil)
	return resp, nil
}

func TestPassAllocatesNothing(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, reply{})
	r.chain = stage.Chain(instant{}, r.s)
	r.do("GET /a", browser...)
	x := r.exchange("GET /a", browser...)
	in, site, route := x.In, x.Site, x.Route
	one := func() {
		x.Reset()
		x.In, x.Site, x.Route, x.Start = in, site, route, r.now
		x.SetHost([]byte("shop.example"))
		if resp, err := r.chain.Serve(t.Context(), x); err != nil || resp.Status != 200 || x.CacheStatus != "pass" {
			t.Fatal(err, x.CacheStatus)
		}
		x.End(message.Outcome{})
	}
	one()
	if n := testing.AllocsPerRun(100, one); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkHit(b *testing.B) {
	r := newRig(b, v1.CachePolicySpec{}, image)
	r.do("GET /a", browser...)
	x := r.exchange("GET /a", browser...)
	in, site, route := x.In, x.Site, x.Route
	host := []byte("shop.example")
	b.ReportAllocs()
	for b.Loop() {
		x.Reset()
		x.In, x.Site, x.Route, x.Start = in, site, route, r.now
		x.SetHost(host)
		if _, err := r.chain.Serve(b.Context(), x); err != nil {
			b.Fatal(err)
		}
		x.End(message.Outcome{})
	}
}

// BenchmarkMiss is a whole fetch by a flight, with an origin that answers at once.
func BenchmarkMiss(b *testing.B) {
	r := newRigWith(b, Config{Clock: time.Now}, v1.CachePolicySpec{}, image)
	x := new(stage.Exchange)
	r.fill(x, "GET /a", browser...)
	in, site, route := x.In, x.Site, x.Route
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		x.Reset()
		x.In, x.Site, x.Route, x.Start = in, site, route, time.Now()
		x.SetHost([]byte("shop.example"))
		in.SetPath(fmt.Appendf(nil, "/%d", i))
		in.SetAuthority([]byte("shop.example"))
		if i%64 == 0 {
			r.fill(x, "GET /a", browser...)
			in = x.In
			r.origin.asked = nil
		}
		resp, err := r.chain.Serve(b.Context(), x)
		if g := read(b.Context(), x, resp, err); g.err != nil || g.status != 200 {
			b.Fatal(g.err)
		}
	}
}
