package hints

import (
	"context"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// informed notes interim answers.
type informed struct{ got []string }

func (i *informed) Inform(status int, f *message.Fields) {
	i.got = append(i.got, fmt.Sprint(status, " ", string(f.Get(message.Link))))
}
func (i *informed) MayBlock() {}

// origin answers with fields, and notes what the client knew by then.
type origin struct {
	status int
	fields []string
	knew   *informed
	before int
}

func (o *origin) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	o.before = len(o.knew.got)
	x.Response.Reset()
	x.Response.Status = o.status
	for _, l := range o.fields {
		n, v, _ := strings.Cut(l, ": ")
		x.Response.AddLine([]byte(n), []byte(v))
	}
	return &x.Response, nil
}

type rig struct {
	*Stage
	site *snapshot.Site
}

func newRig(t *testing.T, key bundle.Key) *rig {
	r := &rig{New(0, observe.New()), &snapshot.Site{Key: key, Parts: make([]any, stage.Slots)}}
	r.site.Routes = []snapshot.Route{
		{Name: "a", Spec: &v1.Route{Delivery: v1.Delivery{EarlyHints: new(true)}}},
		{Name: "b", Index: 1, Spec: &v1.Route{Delivery: v1.Delivery{EarlyHints: new(true)}}},
		{Name: "off", Index: 2, Spec: &v1.Route{}},
	}
	p, err := r.Compile(r.site, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.site.Parts[0] = p
	return r
}

// ask sends a navigation and returns the interim answers before and in all.
func (r *rig) ask(t *testing.T, route int, host, path string, o *origin, change func(*message.Request)) (before int, got []string) {
	t.Helper()
	i := &informed{}
	o.knew = i
	in := &message.Request{Proto: message.HTTP2, Control: i}
	in.SetMethod([]byte("GET"))
	in.AddString(message.SecFetchMode, "navigate")
	if change != nil {
		change(in)
	}
	x := &stage.Exchange{In: in, Site: r.site, Route: &r.site.Routes[route], Host: []byte(host), Path: []byte(path)}
	if _, err := r.Serve(t.Context(), x, o); err != nil {
		t.Fatal(err)
	}
	return o.before, i.got
}

const css = `</s.css>; rel=preload; as=style`

func html(fields ...string) *origin {
	return &origin{status: 200, fields: append([]string{"Content-Type: text/html; charset=utf-8"}, fields...)}
}

func TestHintsOfTheLastPageComeBeforeTheOriginAnswers(t *testing.T) {
	r := newRig(t, "o/s")
	if n, got := r.ask(t, 0, "shop.test", "/", html("Link: "+css), nil); n != 0 || len(got) != 0 {
		t.Errorf("hints %v of a page that nobody has seen", got)
	}
	if n, got := r.ask(t, 0, "shop.test", "/", html("Link: "+css), nil); n != 1 || len(got) != 1 || got[0] != "103 "+css {
		t.Errorf("before the origin %d, %v", n, got)
	}
	for name, c := range map[string]struct {
		route      int
		host, path string
		change     func(*message.Request)
	}{
		"other path": {0, "shop.test", "/x", nil}, "other host": {0, "other.test", "/", nil}, "other route": {1, "shop.test", "/", nil},
		"route without": {2, "shop.test", "/", nil},
		"HTTP/1.1":      {0, "shop.test", "/", func(r *message.Request) { r.Proto = message.HTTP11 }},
		"no navigation": {0, "shop.test", "/", func(r *message.Request) { r.Set(message.SecFetchMode, []byte("cors")) }},
		"validation":    {0, "shop.test", "/", func(r *message.Request) { r.AddString(message.IfNoneMatch, `"a"`) }},
		"HEAD":          {0, "shop.test", "/", func(r *message.Request) { r.SetMethod([]byte("HEAD")) }},
	} {
		if _, got := r.ask(t, c.route, c.host, c.path, html("Cache-Control: no-store"), c.change); len(got) != 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	other := newRig(t, "o/other")
	other.Stage, other.site.Parts[0] = r.Stage, r.site.Parts[0]
	if _, got := other.ask(t, 0, "shop.test", "/", html(), nil); len(got) != 0 {
		t.Error("another tenant's hints were sent")
	}
	r.ask(t, 0, "shop.test", "/", html(), nil)
	if _, got := r.ask(t, 0, "shop.test", "/", html(), nil); len(got) != 0 {
		t.Error("hints that the page no longer has were sent")
	}
}

func TestOnlyPagesThatAnybodyMayGetAreLearned(t *testing.T) {
	for name, o := range map[string]*origin{
		"private": html("Link: "+css, "Cache-Control: max-age=1, Private"), "no-store": html("Link: "+css, "Cache-Control: no-store"),
		"private fields": html("Link: "+css, `Cache-Control: private="x"`),
		"cookie":         html("Link: "+css, "Set-Cookie: a=b"), "not html": {status: 200, fields: []string{"Link: " + css, "Content-Type: text/css"}},
		"404": {status: 404, fields: []string{"Link: " + css, "Content-Type: text/html"}},
	} {
		r := newRig(t, "o/s")
		r.ask(t, 0, "h", "/", o, nil)
		if _, got := r.ask(t, 0, "h", "/", html(), nil); len(got) != 0 {
			t.Errorf("%s was learned", name)
		}
	}
	r := newRig(t, "o/s")
	r.ask(t, 0, "h", "/", html("Link: "+css), func(m *message.Request) { m.AddString(message.Authorization, "Basic x") })
	if _, got := r.ask(t, 0, "h", "/", html(), nil); len(got) != 0 {
		t.Error("an answer to credentials was learned")
	}
}

func TestOnlyHintsToTheSiteItselfAreKept(t *testing.T) {
	for _, c := range []struct{ host, in, want string }{
		{"www.shop.test", `</a.css>; rel=preload; as=style, </b>; rel=next, <c.js>; as=script; rel="x modulepreload"`, `</a.css>; rel=preload; as=style, <c.js>; as=script; rel="x modulepreload"`},
		{"www.shop.test", `<https://static.shop.test>; rel=preconnect`, `<https://static.shop.test>; rel=preconnect`},
		{"www.shop.test", `<HTTPS://WWW.shop.test:8443/x>; rel=PRECONNECT; crossorigin`, `<HTTPS://WWW.shop.test:8443/x>; rel=PRECONNECT; crossorigin`},
		{"www.shop.test", `<//static.shop.test/a>; rel=preload`, `<//static.shop.test/a>; rel=preload`},
		{"www.shop.test", `<https://evil.test>; rel=preconnect, <https://evilshop.test>; rel=preconnect, <//evil.test/a>; rel=preload`, ``},
		{"www.shop.test", `<https://shop.test@evil.test>; rel=preconnect, </\evil.test/a>; rel=preload, <javascript:x>; rel=preload`, ``},
		{"www.shop.test", `<https://shop.test.evil.test>; rel=preconnect, <https://.shop.test>; rel=preconnect`, ``},
		{"localhost", `<https://a.localhost>; rel=preconnect, <https://localhost>; rel=preconnect`, `<https://localhost>; rel=preconnect`},
		{"h.test", `</a,b>; title="x, <y>; rel=preload"; rel=next, </c>; rel=preload`, `</c>; rel=preload`},
		{"h.test", `</a>; rel=next; rel=preload`, ``},
		{"h.test", `<>; rel=preload, <, rel=preload`, ``},
		{"h.test", strings.Repeat(`</a>; rel=preload, `, 20), strings.TrimSuffix(strings.Repeat(`</a>; rel=preload, `, maxLinks), ", ")},
		{"h.test", `</` + strings.Repeat("a", maxBytes) + `>; rel=preload, </b>; rel=preload`, `</b>; rel=preload`},
	} {
		var f message.Fields
		f.AddString(message.Link, c.in)
		if got := string(appendLinks(nil, &f, []byte(c.host))); got != c.want {
			t.Errorf("%s: %q, want %q", c.in, got, c.want)
		}
	}
}

func TestTheTableIsBoundedAndASiteMakesRoomAmongItsOwn(t *testing.T) {
	m := observe.New()
	tb := newTable(m.Counters("x", "", 1).With())
	tb.put("o/small", []byte("/"), []byte("l"))
	for i := range maxSitePages * 2 {
		tb.put("o/big", fmt.Appendf(nil, "/%d", i), []byte("l"))
	}
	if len(tb.sites["o/big"]) != maxSitePages || tb.get("o/small", []byte("/")) != "l" || tb.n != maxSitePages+1 {
		t.Errorf("%d pages of one site, %d in all", len(tb.sites["o/big"]), tb.n)
	}
	for s := range 40 {
		for i := range maxSitePages {
			tb.put(bundle.Key(fmt.Sprint("o/", s)), fmt.Appendf(nil, "/%d", i), []byte("l"))
		}
	}
	n := 0
	for _, pages := range tb.sites {
		n += len(pages)
	}
	if n != maxPages || tb.n != n {
		t.Errorf("%d pages, counted %d, want %d", n, tb.n, maxPages)
	}
	tb.put("o/new", make([]byte, maxKey+1), []byte("l"))
	if tb.get("o/new", make([]byte, maxKey+1)) != "" {
		t.Error("a key that is too long was kept")
	}
}

func TestARequestThatLearnsNothingNewAllocatesNothing(t *testing.T) {
	r := newRig(t, "o/s")
	o := html("Link: " + css)
	o.knew = &informed{}
	in := &message.Request{Proto: message.HTTP2}
	in.SetMethod([]byte("GET"))
	in.AddString(message.SecFetchMode, "navigate")
	x := &stage.Exchange{In: in, Site: r.site, Route: &r.site.Routes[0], Host: []byte("h"), Path: []byte("/")}
	lines := &message.Response{Status: 200}
	lines.AddString(message.ContentType, "text/html")
	lines.AddString(message.Link, css)
	fixed := fixed{lines}
	if n := testing.AllocsPerRun(100, func() {
		x.Trail = stage.Trail{}
		if _, err := r.Serve(t.Context(), x, fixed); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

type fixed struct{ resp *message.Response }

func (f fixed) Serve(context.Context, *stage.Exchange) (*message.Response, error) { return f.resp, nil }

func FuzzLinks(f *testing.F) {
	for _, s := range []string{css, `<https://h.test/>;rel="preconnect"`, `<a`, `<>;;;"\`, `</a>; rel=preload, </b>; rel="`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var h, again message.Fields
		h.AddString(message.Link, s)
		out := appendLinks(nil, &h, []byte("h.test"))
		if len(out) > maxBytes {
			t.Errorf("%d bytes", len(out))
		}
		again.Add(message.Link, out)
		if twice := appendLinks(nil, &again, []byte("h.test")); string(twice) != string(out) {
			t.Errorf("%q gives %q, and that gives %q", s, out, twice)
		}
	})
}
