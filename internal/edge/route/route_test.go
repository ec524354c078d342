package route

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// tableOf serves one site for every host but unknown.test.
type tableOf struct{ site *snapshot.Site }

func (t tableOf) Site(host []byte, _ string) (*snapshot.Site, error) {
	if string(host) == "unknown.test" {
		return nil, nil
	}
	return t.site, nil
}

func (t tableOf) Organization(host []byte, _ string) string {
	switch string(host) {
	case "unknown.test":
		return ""
	case "rival.test":
		return "rival"
	}
	return t.site.Organization
}

type handler func(x *stage.Exchange) *message.Response

func (h handler) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	return h(x), nil
}

// chain compiles routes and joins Stage, Forward and an origin that answers 200.
func chain(t testing.TB, routes ...v1.Route) stage.Handler {
	t.Helper()
	site := &snapshot.Site{Organization: "demo", Spec: &bundle.Site{Key: "demo/shop", Routes: routes}, Parts: make([]any, stage.Slots)}
	for i := range routes {
		site.Routes = append(site.Routes, snapshot.Route{Index: i, Name: routes[i].Name, Spec: &routes[i]})
	}
	s := New(0, tableOf{site})
	part, err := s.Compile(site, nil)
	if err != nil {
		t.Fatal(err)
	}
	site.Parts[0] = part
	return stage.Chain(handler(func(x *stage.Exchange) *message.Response {
		x.Response.Reset()
		x.Response.Status = 200
		return &x.Response
	}), s, NewForward(0, jar{}))
}

// exchange reads a request in the form "GET http://host/path?query" and lines of fields.
func exchange(text string) *stage.Exchange {
	x, r := &stage.Exchange{}, &message.Request{}
	head, rest, _ := strings.Cut(text, "\n")
	method, target, _ := strings.Cut(head, " ")
	r.SetMethod([]byte(method))
	scheme, target, _ := strings.Cut(target, "://")
	r.Secure, r.Proto = scheme == "https", message.HTTP11
	i := strings.IndexByte(target, '/')
	r.SetAuthority([]byte(target[:i]))
	p, q, ok := strings.Cut(target[i:], "?")
	r.SetPath([]byte(p))
	if ok {
		r.SetQuery([]byte(q))
	}
	for l := range strings.SplitSeq(rest, "\n") {
		if n, v, ok := strings.Cut(l, ": "); ok {
			r.AddLine([]byte(n), []byte(v))
		}
	}
	r.Conn = &message.Conn{Listener: "default/web", Client: netip.MustParseAddr("192.0.2.7")}
	x.In, x.Client = r, netip.MustParseAddr("192.0.2.7")
	return x
}

func ptr[T any](v T) *T { return &v }

func onPath(p v1.PathMatch) []v1.RouteMatch { return []v1.RouteMatch{{Path: &p}} }

func TestFirstRouteThatMatchesServes(t *testing.T) {
	h := chain(t,
		v1.Route{Name: "exact", Match: onPath(v1.PathMatch{Exact: "/a"}), Pool: "p"},
		v1.Route{Name: "images", Match: onPath(v1.PathMatch{Prefix: "/img/"}), Pool: "p"},
		v1.Route{Name: "regex", Match: onPath(v1.PathMatch{Regex: "/p/[0-9]+"}), Pool: "p"},
		v1.Route{Name: "post", Match: []v1.RouteMatch{{Methods: []string{"POST", "PURGE"}}}, Pool: "p"},
		v1.Route{Name: "header", Match: []v1.RouteMatch{{Headers: []v1.ValueMatch{{Name: "x-Beta", Exact: ptr("yes")}}}}, Pool: "p"},
		v1.Route{Name: "absent", Match: []v1.RouteMatch{{Headers: []v1.ValueMatch{{Name: "Accept", Present: ptr(false)}}}}, Pool: "p"},
		v1.Route{Name: "query", Match: []v1.RouteMatch{{Query: []v1.ValueMatch{{Name: "v", Regex: "[0-9 ]+"}}}}, Pool: "p"},
		v1.Route{Name: "other", Listeners: []string{"default/admin"}, Pool: "p"},
		v1.Route{Name: "both", Match: []v1.RouteMatch{{Path: &v1.PathMatch{Prefix: "/x"}, Methods: []string{"GET"}}, {Path: &v1.PathMatch{Prefix: "/y"}}}, Pool: "p"},
	)
	const accept = "\nAccept: */*"
	for _, c := range []struct{ request, want string }{
		{"GET http://h/a" + accept, "exact"},
		{"GET http://h/b/../a" + accept, "exact"},
		{"GET http://h//a" + accept, "exact"},
		{"GET http://h//img//1.jpg" + accept, "images"},
		{"GET http://h/%2fp//12" + accept, "regex"},
		{"GET http://h/p%2f12" + accept, ""},
		{"GET http://h/img" + accept, "images"},
		{"GET http://h/img/1.jpg" + accept, "images"},
		{"GET http://h/%69mg/1.jpg" + accept, "images"},
		{"GET http://h/images/1.jpg" + accept, ""},
		{"GET http://h/p/12" + accept, "regex"},
		{"GET http://h/p/12/x" + accept, ""},
		{"POST http://h/z" + accept, "post"},
		{"PURGE http://h/z" + accept, "post"},
		{"purge http://h/z" + accept, ""},
		{"GET http://h/z\nX-BETA: yes" + accept, "header"},
		{"GET http://h/z\nX-Beta: no" + accept, ""},
		{"GET http://h/z", "absent"},
		{"GET http://h/z?w=1&v=1+%32" + accept, "query"},
		{"GET http://h/z?v=a" + accept, ""},
		{"GET http://h/x/1" + accept, "both"},
		{"HEAD http://h/x/1" + accept, ""},
		{"HEAD http://h/y" + accept, "both"},
		{"GET http://unknown.test/a" + accept, ""},
	} {
		x := exchange(c.request)
		_, err := h.Serve(t.Context(), x)
		got := ""
		if x.Route != nil {
			got = x.Route.Name
		}
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q goes to %q (%v), want %q", c.request, got, err, c.want)
		}
	}
}

func TestHostIsLowerCaseWithoutPort(t *testing.T) {
	h := chain(t, v1.Route{Name: "all", Pool: "p"})
	for authority, want := range map[string]string{
		"Shop.Example.COM:8080": "shop.example.com", "shop.example.com.": "shop.example.com", "[2001:DB8::1]:80": "2001:db8::1", "10.0.0.1": "10.0.0.1",
	} {
		x := exchange("GET http://" + authority + "/")
		if _, err := h.Serve(t.Context(), x); err != nil || string(x.Host) != want {
			t.Errorf("%s: host %q (%v), want %q", authority, x.Host, err, want)
		}
	}
}

func TestRFC9110_7_6_HopByHopFieldsAreNotForwarded(t *testing.T) {
	h := chain(t, v1.Route{Name: "all", Pool: "p"})
	x := exchange("GET http://h/\nConnection: keep-alive, X-Private, Cookie,  TE, close\nX-Private: 1\nKeep-Alive: 5\nCookie: a=b\nTE: trailers\nUpgrade: h2c\nProxy-Authorization: Basic x\nX-Kept: 2\nConnection: X-Second\nX-Second: 3\nX-Forwarded-For: 1.2.3.4\nForwarded: for=1.2.3.4")
	x.ID = stage.RequestID{1}
	if _, err := h.Serve(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	want := "TE: trailers|X-Kept: 2|X-Forwarded-For: 192.0.2.7|X-Forwarded-Proto: http|X-Forwarded-Host: h|Via: 1.1 relais|X-Request-Id: 04000000000000000000000000"
	if got := dump(&x.Out.Fields); got != want {
		t.Errorf("sent\n%s\nwant\n%s", got, want)
	}
}

func TestForwardedForIsKeptFromATrustedPeerOnly(t *testing.T) {
	h := chain(t, v1.Route{Name: "all", Pool: "p"})
	x := exchange("GET http://h/\nX-Forwarded-For: 198.51.100.1\nX-Forwarded-Proto: https")
	x.PeerTrusted, x.Client = true, netip.MustParseAddr("198.51.100.1")
	if _, err := h.Serve(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	if f := string(x.Out.Get(message.XForwardedFor)); f != "198.51.100.1, 192.0.2.7" || x.Out.Count(message.XForwardedFor) != 1 {
		t.Errorf("X-Forwarded-For: %q", f)
	}
	if f := string(x.Out.Get(message.XForwardedProto)); f != "https" {
		t.Errorf("X-Forwarded-Proto: %q", f)
	}
}

func TestTheListenersOwnClientFieldIsKeptFromATrustedPeerOnly(t *testing.T) {
	h := chain(t, v1.Route{Name: "all", Pool: "p"})
	for _, trusted := range []bool{false, true} {
		x := exchange("GET http://h/\nCF-Connecting-IP: 198.51.100.1\ncf-connecting-ip: 198.51.100.2\nTrue-Client-IP: 1.1.1.1")
		x.PeerTrusted, x.ClientField = trusted, "CF-Connecting-IP"
		if _, err := h.Serve(t.Context(), x); err != nil {
			t.Fatal(err)
		}
		if got := x.Out.Lookup("CF-Connecting-IP"); (got != nil) != trusted || x.Out.Lookup("True-Client-IP") == nil {
			t.Errorf("trusted %v: sent %s", trusted, dump(&x.Out.Fields))
		}
	}
}

// jar takes the Cookie lines out.
type jar struct{}

func (jar) Strip(_ *stage.Exchange, f *message.Fields) { f.Del(message.Cookie) }

func TestVisitorCookieStaysHere(t *testing.T) {
	h := chain(t, v1.Route{Name: "all", Pool: "p"})
	x := exchange("GET http://h/\nCookie: rv=x")
	if _, err := h.Serve(t.Context(), x); err != nil || x.Out.Has(message.Cookie) || !x.In.Has(message.Cookie) {
		t.Errorf("%v, sent %s", err, dump(&x.Out.Fields))
	}
}

func TestRewriteAndFilters(t *testing.T) {
	h := chain(t, v1.Route{
		Name: "api", Match: onPath(v1.PathMatch{Prefix: "/api/"}), Pool: "p",
		Filters: v1.Filters{
			Rewrite:         &v1.Rewrite{Hostname: "backend.test", Prefix: ptr("/v2")},
			RequestHeaders:  &v1.HeaderFilter{Remove: []string{"x-debug"}, Set: []v1.HeaderValue{{Name: "X-A", Value: "1"}}, Add: []v1.HeaderValue{{Name: "X-A", Value: "2"}}},
			ResponseHeaders: &v1.HeaderFilter{Set: []v1.HeaderValue{{Name: "X-Frame-Options", Value: "DENY"}}},
		},
	})
	for in, want := range map[string]string{"/api/x": "/v2/x", "/api": "/v2", "/api/": "/v2/"} {
		x := exchange("GET http://h" + in + "?q=1\nX-Debug: 1\nX-a: 0")
		resp, err := h.Serve(t.Context(), x)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(x.Out.Path()); got != want || string(x.Out.Authority()) != "backend.test" || string(x.Out.Query()) != "q=1" {
			t.Errorf("%s is sent as %s to %s", in, got, x.Out.Authority())
		}
		if f := dump(&x.Out.Fields); strings.Contains(f, "Debug") || !strings.HasPrefix(f, "X-a: 1|") || !strings.HasSuffix(f, "X-A: 2") {
			t.Errorf("sent with %s", f)
		}
		if string(resp.Get(message.XFrameOptions)) != "DENY" {
			t.Error("the answer was not changed")
		}
	}
}

func TestRedirect(t *testing.T) {
	for _, c := range []struct {
		redirect      v1.Redirect
		request, want string
	}{
		{v1.Redirect{Scheme: "https", Status: 301}, "GET http://h:8080/old/a?b", "https://h/old/a?b"},
		{v1.Redirect{Scheme: "https", Port: 8443, Status: 301}, "GET http://h/old/", "https://h:8443/old/"},
		{v1.Redirect{Hostname: "new.test", Prefix: ptr("/"), Status: 308}, "GET https://h:8443/old/a", "https://new.test:8443/a"},
		{v1.Redirect{Path: "/gone", Status: 303}, "GET http://[::1]:80/old", "http://[::1]/gone"},
	} {
		h := chain(t, v1.Route{Name: "r", Match: onPath(v1.PathMatch{Prefix: "/old"}), Redirect: &c.redirect})
		resp, err := h.Serve(t.Context(), exchange(c.request))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(resp.Get(message.Location)); got != c.want || resp.Status != c.redirect.Status {
			t.Errorf("%s: %d %s, want %s", c.request, resp.Status, got, c.want)
		}
	}
}

func TestWeightsHoldAndABasketKeepsItsPool(t *testing.T) {
	h := chain(t, v1.Route{Name: "w", Pools: []v1.WeightedPool{{Pool: "a", Weight: ptr(3)}, {Pool: "none", Weight: ptr(0)}, {Pool: "b", Weight: ptr(1)}}})
	count := map[string]int{}
	for range 4000 {
		x := exchange("GET http://h/")
		if _, err := h.Serve(t.Context(), x); err != nil {
			t.Fatal(err)
		}
		count[x.Pool]++
	}
	if count["a"] < 2800 || count["a"] > 3200 || count["none"] != 0 {
		t.Errorf("shares %v, want about 3000 and 1000", count)
	}
	seen := map[string]bool{}
	for range 50 {
		x := exchange("GET http://h/")
		x.Visitor = stage.Visitor{Class: stage.Protected, Key: 7}
		if _, err := h.Serve(t.Context(), x); err != nil {
			t.Fatal(err)
		}
		seen[x.Pool] = true
	}
	if len(seen) != 1 {
		t.Errorf("a visitor with a basket was sent to %v", seen)
	}
}

func TestRouteAndForwardAllocateNothing(t *testing.T) {
	h := chain(t, v1.Route{Name: "images", Match: onPath(v1.PathMatch{Prefix: "/img/"}), Pool: "p"}, v1.Route{Name: "all", Pool: "p"})
	x := exchange("GET http://Shop.example.com:80/a%7E/b\nConnection: keep-alive\nAccept: */*\nUser-Agent: x")
	in, client := x.In, x.Client
	if n := testing.AllocsPerRun(100, func() {
		x.Reset()
		x.In, x.Client = in, client
		if _, err := h.Serve(context.Background(), x); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func dump(f *message.Fields) string {
	var b strings.Builder
	for i := range f.Len() {
		_, n, v := f.At(i)
		if i > 0 {
			b.WriteByte('|')
		}
		b.Write(n)
		b.WriteString(": ")
		b.Write(v)
	}
	return b.String()
}

func TestRFC9110OneOrganizationsConnectionDoesNotServeAnothers(t *testing.T) {
	h := chain(t, v1.Route{Name: "all", Pool: "p"})
	for _, c := range []struct {
		sni    string
		status int
	}{
		{"h", 200},            // the name itself
		{"", 200},             // no name: nobody was chosen
		{"other.test", 200},   // another site of the organization, as HTTP/2 coalesces
		{"unknown.test", 200}, // no site's name
		{"rival.test", 421},   // another organization's
	} {
		x := exchange("GET https://h/a")
		x.In.Conn.TLS = &message.TLS{ServerName: c.sni}
		resp, err := h.Serve(t.Context(), x)
		switch {
		case c.status == 200 && (err != nil || resp.Status != 200):
			t.Errorf("SNI %q: %v", c.sni, err)
		case c.status != 200 && (err == nil || stage.AsError(err).Status != c.status):
			t.Errorf("SNI %q: got %v, want %d", c.sni, err, c.status)
		}
	}
}

func TestRFC9440AForgedClientCertDoesNotReachTheOrigin(t *testing.T) {
	h := chain(t, v1.Route{Name: "all", Pool: "p"})
	for _, c := range []struct {
		name    string
		trusted bool
		tls     *message.TLS
		want    string
	}{
		{"in clear", false, nil, ""},
		{"over TLS without a certificate", false, &message.TLS{}, ""},
		{"verified here", false, &message.TLS{ClientCert: ":AAAA:"}, ":sent:"}, // the front has put it there
		{"a trusted proxy's word", true, nil, ":sent:"},
	} {
		x := exchange("GET http://h/a\nClient-Cert: :sent:\nClient-Cert-Chain: :sent:")
		x.PeerTrusted, x.In.Conn.TLS = c.trusted, c.tls
		if _, err := h.Serve(t.Context(), x); err != nil {
			t.Fatal(err)
		}
		if got := string(x.Out.Lookup("Client-Cert")); got != c.want {
			t.Errorf("%s: Client-Cert is %q, want %q", c.name, got, c.want)
		}
	}
}

func TestTwoSlashesReachTheOriginUnlessAPrefixIsReplaced(t *testing.T) {
	h := chain(t,
		v1.Route{Name: "app", Match: onPath(v1.PathMatch{Prefix: "/app"}), Pool: "p", Filters: v1.Filters{Rewrite: &v1.Rewrite{Prefix: ptr("/inner")}}},
		v1.Route{Name: "login", Match: onPath(v1.PathMatch{Prefix: "/login"}), Pool: "p"},
		v1.Route{Name: "doubled", Match: onPath(v1.PathMatch{Regex: "//[^/].*"}), Pool: "p"},
	)
	for _, c := range []struct{ path, route, sent string }{
		{"//login//a", "login", "//login//a"},
		{"//app/x", "app", "/inner/x"},
		{"/app//x", "app", "/inner//x"},
		{"//z", "doubled", "//z"},
	} {
		x := exchange("GET http://h" + c.path)
		if _, err := h.Serve(t.Context(), x); err != nil || x.Route.Name != c.route || string(x.Out.Path()) != c.sent {
			t.Errorf("%s: %v, route %v, sent %s; want %s and %s", c.path, err, x.Route, x.Out.Path(), c.route, c.sent)
		}
	}
}
