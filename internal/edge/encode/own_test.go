package encode

import (
	"context"
	"errors"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// below is what stands below a stage.
type below func(context.Context, *stage.Exchange) (*message.Response, error)

func (f below) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	return f(ctx, x)
}

// responds is what stands below: a route that responds with body.
func responds(body []byte, kind string, forwarded bool) below {
	return func(_ context.Context, x *stage.Exchange) (*message.Response, error) {
		x.Response.Reset()
		x.Response.Status, x.Forwarding = 200, forwarded
		x.Response.AddString(message.ContentType, kind)
		x.Response.SetBytes(body)
		return &x.Response, nil
	}
}

func (r *rig) exchange(accept string) *stage.Exchange {
	x := &stage.Exchange{In: &message.Request{}, Site: r.site, Route: &r.site.Routes[0]}
	x.In.SetMethod([]byte("GET"))
	if accept != "" {
		x.In.AddString(message.AcceptEncoding, accept)
	}
	return x
}

func TestWhatARouteRespondsWithIsCompressed(t *testing.T) {
	for _, c := range []struct {
		name, accept, kind string
		body               string
		forwarded          bool
		coding             string
		vary               bool
	}{
		{"zstd", "gzip, br, zstd", "text/html", text, false, "zstd", true},
		{"br", "gzip, br", "text/html", text, false, "br", true},
		{"gzip", "gzip", "text/html; charset=utf-8", text, false, "gzip", true},
		{"none accepted", "", "text/html", text, false, "", true},
		{"another type", "gzip", "image/png", text, false, "", false},
		{"short", "gzip", "text/html", "short", false, "", false},
		{"does not become shorter", "gzip", "text/html", "0123456789abcdef", false, "", true},
		{"an origin's, which Stage has seen", "gzip", "text/html", text, true, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, v1.Compression{}, "")
			body := []byte(c.body)
			for range 2 {
				resp, err := r.Own().Serve(t.Context(), r.exchange(c.accept), responds(body, c.kind, c.forwarded))
				if err != nil {
					t.Fatal(err)
				}
				got := string(resp.Get(message.ContentEncoding))
				if got != c.coding || plain(t, got, resp.Bytes) != c.body || resp.ContentLength != int64(len(resp.Bytes)) {
					t.Fatalf("%q, Content-Length %d, %d bytes", got, resp.ContentLength, len(resp.Bytes))
				}
				if resp.Has(message.Vary) != c.vary {
					t.Errorf("Vary %q", resp.Get(message.Vary))
				}
			}
			if n := r.encoders.open.Load(); n != 0 {
				t.Errorf("encoders of %d bytes are still in use", n)
			}
		})
	}
}

func TestWhatARouteRespondsWithIsCompressedOnce(t *testing.T) {
	r := newRig(t, v1.Compression{}, "")
	a, b := []byte(text), []byte(strings.ToUpper(text))
	ask := func(body []byte) []byte {
		resp, err := r.Own().Serve(t.Context(), r.exchange("br"), responds(body, "text/html", false))
		if err != nil || plain(t, "br", resp.Bytes) != string(body) {
			t.Fatal(err)
		}
		return resp.Bytes
	}
	first := ask(a)
	if again := ask(a); &again[0] != &first[0] {
		t.Error("it is compressed again")
	}
	ask(b) // other content under the same rule
	x, h := r.exchange("br"), stage.Handler(responds(a, "text/html", false))
	own := r.Own()
	_, _ = own.Serve(t.Context(), x, h)
	if n := testing.AllocsPerRun(100, func() {
		if resp, err := own.Serve(t.Context(), x, h); err != nil || !resp.Has(message.ContentEncoding) {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAPageIsCompressedButNotInAFlood(t *testing.T) {
	r := newRig(t, v1.Compression{}, "")
	off := newRig(t, v1.Compression{Enabled: new(false)}, "")
	for _, c := range []struct {
		name   string
		x      *stage.Exchange
		status int
		coding string
	}{
		{"an origin that does not answer", r.exchange("gzip"), 502, "gzip"},
		{"closed", r.exchange("zstd"), 503, "zstd"},
		{"no route", func() *stage.Exchange { x := r.exchange("gzip"); x.Route = nil; return x }(), 404, "gzip"},
		{"no site", func() *stage.Exchange { x := r.exchange("gzip"); x.Site, x.Route = nil, nil; return x }(), 404, ""},
		{"a site that cannot be served", func() *stage.Exchange {
			x := r.exchange("gzip")
			x.Site, x.Route = &snapshot.Site{}, nil
			return x
		}(), 500, ""},
		{"denied", r.exchange("gzip"), 403, ""},
		{"limited", r.exchange("gzip"), 429, ""},
		{"compression is off", off.exchange("gzip"), 502, ""},
		{"not accepted", r.exchange("identity"), 502, ""},
	} {
		resp := &c.x.Response
		resp.Status = c.status
		resp.AddString(message.ContentType, "text/html; charset=utf-8")
		resp.SetBytes([]byte(text))
		r.Page(c.x, resp)
		got := string(resp.Get(message.ContentEncoding))
		if got != c.coding || plain(t, got, resp.Bytes) != text || resp.ContentLength != int64(len(resp.Bytes)) {
			t.Errorf("%s: %q, %d bytes", c.name, got, len(resp.Bytes))
		}
	}
}

func TestPagesPassAsTheyAreWhenTooManyAreCompressed(t *testing.T) {
	r := newRig(t, v1.Compression{}, "")
	r.encoders.max = 1
	x := r.exchange("gzip")
	x.Response.Status = 502
	x.Response.AddString(message.ContentType, "text/html")
	x.Response.SetBytes([]byte(text))
	r.Page(x, &x.Response)
	if x.Response.Has(message.ContentEncoding) || string(x.Response.Bytes) != text {
		t.Error("it was compressed")
	}
	if r.encoders.open.Load() != 0 {
		t.Error("memory is not given back")
	}
}

func TestAnErrorBelowPasses(t *testing.T) {
	r := newRig(t, v1.Compression{}, "")
	want := errors.New("below")
	_, err := r.Own().Serve(t.Context(), r.exchange("gzip"), below(func(context.Context, *stage.Exchange) (*message.Response, error) {
		return nil, want
	}))
	if !errors.Is(err, want) {
		t.Error(err)
	}
}
