package visitor

import (
	"context"
	"io"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

const secret = "0123456789abcdef"

// origin answers as an origin behind the balance stage does.
type origin struct {
	r                  message.Response
	status             int
	pool, tier, fields string
	cached             bool
	seen               stage.Visitor
}

func (o *origin) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	o.seen = x.Visitor
	o.r.Reset()
	if o.r.Status = o.status; o.status == 0 {
		o.r.Status = 200
	}
	x.Pool, x.Tier, x.Tries = o.pool, o.tier, 1
	if o.cached {
		x.Pool, x.Tier, x.Tries = "", "", 0
	}
	for l := range strings.SplitSeq(o.fields, "\n") {
		if n, v, ok := strings.Cut(l, ": "); ok {
			o.r.AddLine([]byte(n), []byte(v))
		}
	}
	return &o.r, nil
}

func policySpec() *v1.VisitorPolicySpec {
	return &v1.VisitorPolicySpec{
		Cookie: "rv", Secret: secret,
		Basket:  []v1.StageMatch{{Path: "/cart"}, {Path: "/add", Methods: []string{"GET"}}},
		Ordered: []v1.StageMatch{{Path: "/cart/checkout"}},
		Header:  "Relais-Visitor", OriginHeader: "Relais-Funnel",
		Minting:  v1.Minting{PerMinute: 600, ConfirmedPerMinute: 6000, OrderCredit: new(20)},
		Lifetime: v1.Duration(2 * time.Hour), Grace: new(v1.Duration(5 * time.Minute)),
	}
}

func newSite(key string, spec *v1.VisitorPolicySpec) *snapshot.Site {
	return &snapshot.Site{
		Key: bundle.Key(key),
		Spec: &bundle.Site{
			Visitors: map[string]*v1.VisitorPolicySpec{"v": spec},
			Pools: map[string]*v1.OriginPoolSpec{
				"shop":   {Tiers: []v1.Tier{{Name: "home"}, {Name: "overflow"}}},
				"images": {Tiers: []v1.Tier{{Name: "home"}, {Name: "far"}}},
			},
		},
		Routes: []snapshot.Route{{Spec: &v1.Route{Policies: v1.Policies{Visitor: "v"}}}, {Index: 1, Spec: &v1.Route{}}},
		Parts:  make([]any, stage.Slots),
	}
}

// rig is a stage with a site and a browser's cookie.
type rig struct {
	t      testing.TB
	reg    *observe.Registry
	st     *Stage
	site   *snapshot.Site
	o      origin
	cookie string
	x      *stage.Exchange
	set    string // the last Set-Cookie
}

func newRig(t testing.TB, spec *v1.VisitorPolicySpec) *rig {
	t.Helper()
	g := &rig{t: t, reg: observe.New(), o: origin{pool: "shop", tier: "home"}}
	g.st = New(4, Config{}, nil, g.reg)
	g.site = newSite("o/shop", spec)
	p, err := g.st.Compile(g.site, nil)
	if err != nil {
		t.Fatal(err)
	}
	g.site.Parts[4] = p
	return g
}

// do sends a request as a browser would and keeps the cookie.
func (g *rig) do(method, path string) *rig {
	g.t.Helper()
	r := &message.Request{Secure: true}
	r.SetMethod([]byte(method))
	if g.cookie != "" {
		r.AddString(message.Cookie, "a=1; rv="+g.cookie+"; z=9")
	}
	g.x = &stage.Exchange{In: r, Path: []byte(path), Site: g.site, Route: &g.site.Routes[0], Start: time.Now()}
	g.x.Client = netip.MustParseAddr("192.0.2.1")
	a, err := g.st.Serve(context.Background(), g.x, &g.o)
	if err != nil {
		g.t.Fatal(err)
	}
	g.set = string(a.Get(message.SetCookie))
	if v, ok := strings.CutPrefix(g.set, "rv="); ok {
		g.cookie, _, _ = strings.Cut(v, ";")
	}
	return g
}

func (g *rig) token() token {
	g.t.Helper()
	t, err := g.site.Parts[4].(*part).routes[0].codec.parse([]byte(g.cookie), time.Now().Unix())
	if err != nil {
		g.t.Fatalf("the cookie %q: %v", g.cookie, err)
	}
	return t
}

func metric(t testing.TB, reg *observe.Registry, outcome string) string {
	t.Helper()
	w := httptest.NewRecorder()
	reg.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	b, _ := io.ReadAll(w.Body)
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, `relais_visitor_total{outcome="`+outcome+`",site="o/shop"} `); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func TestFunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, policySpec())
		g.do("GET", "/")
		if g.set != "" || g.o.seen.Class != stage.Anonymous || g.o.seen.Key == 0 || len(g.x.Trail.Marks()) != 0 {
			t.Fatalf("a visitor without cookie: %q %+v", g.set, g.o.seen)
		}
		g.do("GET", "/cart")
		if g.set != "" {
			t.Fatalf("looking at the basket gave %q", g.set)
		}
		g.o.status = 503
		if g.do("POST", "/cart/add"); g.set != "" {
			t.Fatalf("a failed basket gave %q", g.set)
		}
		g.o.status = 302
		g.do("POST", "/cart/add")
		if g.o.seen.Class != stage.Anonymous || !strings.HasSuffix(g.set, "; Path=/; Max-Age=7200; HttpOnly; SameSite=Lax; Secure") {
			t.Fatalf("the basket: %q, seen %+v", g.set, g.o.seen)
		}
		id := g.token().id
		g.o.status = 200
		g.do("GET", "/")
		want := stage.Visitor{Class: stage.Protected, Key: id, Tier: "home", Reached: stage.StepBasket}
		if want.Source, want.Network = stranger(g.x).Source, stranger(g.x).Network; g.set != "" || g.o.seen != want || want.Source == want.Network {
			t.Fatalf("after the basket: %q, seen %+v", g.set, g.o.seen)
		}
		time.Sleep(59 * time.Minute)
		if g.do("GET", "/"); g.set != "" {
			t.Fatal("renewed before half of the lifetime")
		}
		time.Sleep(time.Minute)
		if g.do("GET", "/"); !strings.Contains(g.set, "Max-Age=7200") || g.token().id != id {
			t.Fatalf("at half of the lifetime: %q", g.set)
		}
		g.do("POST", "/cart/checkout")
		if !strings.Contains(g.set, "Max-Age=300;") || !g.token().final {
			t.Fatalf("the order: %q", g.set)
		}
		time.Sleep(4 * time.Minute)
		if g.do("POST", "/cart/checkout"); g.set != "" || g.o.seen.Class != stage.Protected {
			t.Fatalf("in the grace: %q %+v", g.set, g.o.seen)
		}
		time.Sleep(time.Minute)
		if g.do("GET", "/"); g.o.seen.Class != stage.Anonymous || g.set != "" {
			t.Fatalf("after the grace: %+v %q", g.o.seen, g.set)
		}
		if metric(t, g.reg, "expired") != "1" {
			t.Error("the expired cookie was not counted")
		}
	})
}

func TestNewBasketInTheGraceProtectsAgain(t *testing.T) {
	g := newRig(t, policySpec())
	g.do("POST", "/cart").do("POST", "/cart/checkout")
	id := g.token().id
	g.do("POST", "/cart")
	if tk := g.token(); tk.final || tk.id != id || !strings.Contains(g.set, "Max-Age=7200") {
		t.Errorf("%q %+v", g.set, tk)
	}
}

func TestTierFollowsTheBasketPoolOnly(t *testing.T) {
	g := newRig(t, policySpec())
	g.do("POST", "/cart")
	g.o.pool, g.o.tier = "images", "far"
	if g.do("GET", "/"); g.set != "" {
		t.Errorf("another pool moved the basket: %q", g.set)
	}
	g.o.pool, g.o.tier = "shop", "overflow"
	if g.do("GET", "/"); g.set == "" {
		t.Error("the basket's pool did not move it")
	}
	if g.do("GET", "/"); g.o.seen.Tier != "overflow" || g.set != "" {
		t.Errorf("seen %+v, %q", g.o.seen, g.set)
	}
	g.o.pool, g.o.tier = "images", "far"
	if g.do("POST", "/cart"); g.set == "" {
		t.Error("a basket elsewhere did not move")
	}
	if g.do("GET", "/"); g.o.seen.Tier != "far" {
		t.Errorf("seen %+v", g.o.seen)
	}
}

func TestNoCookieOnWhatIsShared(t *testing.T) {
	for _, c := range []struct {
		name, method, fields string
		cached, want         bool
	}{
		{"GET without hints", "GET", "", false, true},
		{"GET from the cache", "GET", "", true, false},
		{"GET public", "GET", "Cache-Control: public, max-age=60", false, false},
		{"GET max-age", "GET", "Cache-Control: max-age=60", false, false},
		{"GET Last-Modified", "GET", "Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT", false, false},
		{"GET Expires", "GET", "Expires: Mon, 01 Jan 2034 00:00:00 GMT", false, false},
		{"GET private", "GET", "Cache-Control: max-age=60, Private", false, true},
		{"GET no-store on another line", "GET", "Cache-Control: max-age=60\nCache-Control: no-store", false, true},
		{"GET private field list", "GET", "Cache-Control: private=\"x\", public", false, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t, policySpec())
			g.do("POST", "/cart")
			time.Sleep(90 * time.Minute)
			g.o.fields, g.o.cached = c.fields, c.cached
			if g.do(c.method, "/page"); (g.set != "") != c.want {
				t.Errorf("%s: %q, want a cookie: %v", c.name, g.set, c.want)
			}
		})
	}
	g := newRig(t, policySpec())
	g.o.fields = "Cache-Control: public, max-age=60"
	if g.do("POST", "/cart"); g.set == "" {
		t.Error("an answer to POST got no cookie")
	}
	g = newRig(t, policySpec())
	g.o.fields = "Cache-Control: public, max-age=60"
	if g.do("GET", "/add"); g.set != "" || metric(t, g.reg, "withheld") != "1" {
		t.Errorf("a shared answer to GET got %q", g.set)
	}
}

func TestForeignAndForgedCookiesAreIgnored(t *testing.T) {
	g := newRig(t, policySpec())
	g.do("POST", "/cart")
	good := g.cookie
	other := newCodec("o/other", "rv", []byte(secret))
	otherName := newCodec("o/shop", "rw", []byte(secret))
	otherSecret := newCodec("o/shop", "rv", []byte("fedcba9876543210"))
	tk := g.token()
	var list []string
	for i := range good { // every character counts
		c := byte('0')
		if good[i] == c {
			c = 'v'
		}
		list = append(list, good[:i]+string(c)+good[i+1:])
	}
	for _, c := range []*codec{other, otherName, otherSecret} {
		list = append(list, string(c.append(nil, &tk)))
	}
	anonymous := tk
	anonymous.class = stage.Anonymous
	mine := g.site.Parts[4].(*part).routes[0].codec
	list = append(list, string(mine.append(nil, &anonymous)), "", "x", good+"0", good[:len(good)-1], strings.ToUpper(good))
	for _, c := range list {
		g.cookie = c
		r := &message.Request{}
		r.SetMethod([]byte("GET"))
		r.AddString(message.Cookie, "rv="+c)
		x := &stage.Exchange{In: r, Path: []byte("/"), Site: g.site, Route: &g.site.Routes[0], Start: time.Now()}
		if _, err := g.st.Serve(context.Background(), x, &g.o); err != nil || g.o.seen.Class != stage.Anonymous {
			t.Errorf("%q counts as %s", c, g.o.seen.Class)
		}
	}
	if n := metric(t, g.reg, "invalid"); n == "0" || n == "" {
		t.Error("invalid cookies were not counted")
	}
	// A cookie that a neighbour planted before ours does not hide it.
	r := &message.Request{}
	r.SetMethod([]byte("GET"))
	r.AddString(message.Cookie, "rv=planted; rv="+good)
	x := &stage.Exchange{In: r, Path: []byte("/"), Site: g.site, Route: &g.site.Routes[0], Start: time.Now()}
	if _, _ = g.st.Serve(context.Background(), x, &g.o); g.o.seen.Class != stage.Protected {
		t.Error("a planted cookie hides the good one")
	}
}

func TestMintIsCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := policySpec()
		spec.Minting.PerMinute = 3
		g := newRig(t, spec)
		for i := range 5 {
			g.cookie = ""
			g.do("POST", "/cart")
			want := stage.Protected
			if i >= 3 {
				want = stage.Known
			}
			if got := g.token().class; got != want {
				t.Fatalf("basket %d: %s, want %s", i, got, want)
			}
		}
		if g.do("POST", "/cart"); g.set != "" || g.o.seen.Class != stage.Known || g.o.seen.Tier != "home" {
			t.Errorf("a known visitor beyond the cap: %q %+v", g.set, g.o.seen)
		}
		if metric(t, g.reg, "capped") != "3" || metric(t, g.reg, "protect") != "3" {
			t.Error("the cap was not counted")
		}
		time.Sleep(20 * time.Second)
		if g.do("POST", "/cart"); g.token().class != stage.Protected {
			t.Error("not protected when there was room again")
		}
	})
}

func TestModes(t *testing.T) {
	spec := policySpec()
	spec.Mode = v1.ModeShadow
	g := newRig(t, spec)
	if g.do("POST", "/cart"); g.set != "" || g.x.Trail.Marks()[0].Code != "would-protect" {
		t.Errorf("shadow: %q %v", g.set, g.x.Trail.Marks())
	}
	if g.do("POST", "/cart/checkout"); g.x.Trail.Marks()[0].Code != "would-end" {
		t.Errorf("shadow: %v", g.x.Trail.Marks())
	}
	for _, p := range []v1.Protection{{Mode: v1.ModeOff}, {Expires: &v1.Time{Time: time.Now().Add(-1)}}} {
		spec := policySpec()
		spec.Protection = p
		g = newRig(t, spec)
		if g.do("POST", "/cart"); g.set != "" || len(g.x.Trail.Marks()) != 0 {
			t.Errorf("%+v: %q %v", p, g.set, g.x.Trail.Marks())
		}
	}
}

func TestStripRemovesOnlyOurCookie(t *testing.T) {
	g := newRig(t, policySpec())
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"a=1", "a=1"},
		{"rv=x", ""},
		{"a=1; rv=x; b=2", "a=1; b=2"},
		{"rv=x;a=1", "a=1"},
		{"a=1;b=2\nrv=x\nc=3", "a=1; b=2; c=3"},
		{"arv=1; rvx=2; xrv=rv=3\nd", "arv=1; rvx=2; xrv=rv=3\nd"},
		{"rv=1; rv=2;; rv=", ""},
	} {
		r := &message.Request{}
		r.SetMethod([]byte("GET"))
		for l := range strings.SplitSeq(c.in, "\n") {
			if l != "" {
				r.AddString(message.Cookie, l)
			}
		}
		x := &stage.Exchange{In: r, Site: g.site, Route: &g.site.Routes[1]}
		x.Out.CopyFrom(r)
		g.st.Strip(x, &x.Out.Fields)
		var got []string
		for i := x.Out.Next(message.Cookie, 0); i >= 0; i = x.Out.Next(message.Cookie, i+1) {
			_, _, v := x.Out.At(i)
			got = append(got, string(v))
		}
		if s := strings.Join(got, "\n"); s != c.want {
			t.Errorf("%q became %q, want %q", c.in, s, c.want)
		}
	}
}

func TestCompileErrorsHelp(t *testing.T) {
	for _, c := range []struct {
		change func(*v1.VisitorPolicySpec)
		want   string
	}{
		{func(s *v1.VisitorPolicySpec) { s.Secret = "short" }, "secret has 5 bytes"},
		{func(s *v1.VisitorPolicySpec) { s.Secret = "" }, "secret is missing"},
		{func(s *v1.VisitorPolicySpec) { s.Cookie = "" }, "cookie has no name"},
		{func(s *v1.VisitorPolicySpec) { s.Lifetime = 0 }, "lifetime is 0s"},
	} {
		spec := policySpec()
		c.change(spec)
		_, err := New(4, Config{}, nil, observe.New()).Compile(newSite("o/shop", spec), nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	st := New(4, Config{}, nil, observe.New())
	site := newSite("o/shop", policySpec())
	p, _ := st.Compile(site, nil)
	site.Routes[0].Spec = &v1.Route{}
	if q, err := st.Compile(site, p); q != nil || err != nil {
		t.Errorf("a site without policies made a part: %v %v", q, err)
	}
	site.Routes[0].Spec = &v1.Route{Policies: v1.Policies{Visitor: "gone"}}
	if _, err := st.Compile(site, p); err == nil {
		t.Error("a policy that the bundle does not hold was accepted")
	}
}

func BenchmarkServe(b *testing.B) {
	g := newRig(b, policySpec())
	g.do("POST", "/cart")
	for _, c := range []struct{ name, cookie string }{{"anonymous", "a=1; b=2"}, {"protected", "a=1; rv=" + g.cookie}} {
		b.Run(c.name, func(b *testing.B) {
			r := &message.Request{}
			r.SetMethod([]byte("GET"))
			r.AddString(message.Cookie, c.cookie)
			x := &stage.Exchange{In: r, Path: []byte("/"), Site: g.site, Route: &g.site.Routes[0], Start: time.Now()}
			var next stage.Handler = &g.o
			for b.Loop() {
				x.Trail = stage.Trail{}
				_, _ = g.st.Serve(context.Background(), x, next)
			}
		})
	}
}
