package route

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

func TestVariablesInHeaderValues(t *testing.T) {
	set := func(names ...string) (out []v1.HeaderValue) {
		for _, n := range names {
			out = append(out, v1.HeaderValue{Name: "X-" + n, Value: "<${" + n + "}>"})
		}
		return out
	}
	names := []string{
		"client.ip", "client.port", "request.id", "request.method", "request.scheme", "request.host", "request.authority",
		"request.path", "request.query", "http.version", "tls.version", "tls.cipher", "tls.sni", "route.name", "visitor.class",
	}
	h := chain(t, v1.Route{Name: "all", Pool: "p", Filters: v1.Filters{
		RequestHeaders:  &v1.HeaderFilter{Set: set(names...)},
		ResponseHeaders: &v1.HeaderFilter{Add: set("response.status", "request.id")},
	}})
	x := exchange("GET https://Shop.Example.com:8443/a%7Eb?q=1\nAccept: */*")
	x.In.Conn.Peer = netip.MustParseAddrPort("192.0.2.7:4711")
	x.In.Conn.TLS = &message.TLS{Version: tls.VersionTLS13, Cipher: tls.TLS_AES_128_GCM_SHA256, ServerName: "shop.example.com"}
	x.ID = stage.RequestID{1}
	id := x.ID.String()
	resp, err := h.Serve(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"client.ip": "192.0.2.7", "client.port": "4711", "request.id": id, "request.method": "GET", "request.scheme": "https",
		"request.host": "shop.example.com", "request.authority": "Shop.Example.com:8443", "request.path": "/a~b", "request.query": "q=1",
		"http.version": "HTTP/1.1", "tls.version": "TLSv1.3", "tls.cipher": "TLS_AES_128_GCM_SHA256", "tls.sni": "shop.example.com",
		"route.name": "all", "visitor.class": "anonymous",
	} {
		if got := string(x.Out.Lookup("X-" + name)); got != "<"+want+">" {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if a, b := string(resp.Lookup("X-response.status")), string(resp.Lookup("X-request.id")); a != "<200>" || b != "<"+id+">" {
		t.Errorf("the answer has %s %s", a, b)
	}
	x.In.Conn.TLS.ServerName = "evil\r\nX-Admin: 1"
	x.In.Conn.Peer = netip.MustParseAddrPort("10.0.0.1:1")
	if _, err := h.Serve(t.Context(), x); err != nil || string(x.Out.Lookup("X-tls.sni")) != "<>" || string(x.Out.Lookup("X-client.port")) != "<>" {
		t.Errorf("sni %q, port %q", x.Out.Lookup("X-tls.sni"), x.Out.Lookup("X-client.port"))
	}
}

func TestVariablesAndConditionsAllocateNothing(t *testing.T) {
	h := chain(t, v1.Route{Name: "all", Pool: "p", Filters: v1.Filters{
		RequestHeaders:  &v1.HeaderFilter{Set: []v1.HeaderValue{{Name: "X-Client", Value: "${client.ip} ${request.id} ${tls.version}"}}},
		ResponseHeaders: &v1.HeaderFilter{Add: []v1.HeaderValue{{Name: "X-Any-Name-That-Is-Long-Enough-Not-To-Fit", Value: "${response.status}", Statuses: []string{"2xx"}}}},
	}})
	x := exchange("GET http://shop.example.com/a\nAccept: */*")
	in, client := x.In, x.Client
	if n := testing.AllocsPerRun(100, func() {
		x.Reset()
		x.In, x.Client = in, client
		if _, err := h.Serve(t.Context(), x); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestALineIsForItsStatusesOnly(t *testing.T) {
	h := chain(t, v1.Route{Name: "r", Respond: &v1.Respond{Status: 404}, Filters: v1.Filters{ResponseHeaders: &v1.HeaderFilter{
		Set: []v1.HeaderValue{
			{Name: "X-A", Value: "all"},
			{Name: "X-B", Value: "class", Statuses: []string{"2xx", "4xx"}},
			{Name: "X-C", Value: "code", Statuses: []string{"404"}},
			{Name: "X-D", Value: "other", Statuses: []string{"403", "5xx"}},
		},
	}}})
	resp, err := h.Serve(t.Context(), exchange("GET http://h/"))
	if err != nil {
		t.Fatal(err)
	}
	if got := dump(&resp.Fields); got != "X-A: all|X-B: class|X-C: code" {
		t.Error(got)
	}
}

func TestRewriteByPattern(t *testing.T) {
	for _, c := range []struct{ pattern, replacement, in, want string }{
		{`^/v1/([a-z]+)/([0-9]+)$`, `/api/$2/$1`, "/v1/shoes/12", "/api/12/shoes"},
		{`^/v1/([a-z]+)/([0-9]+)$`, `/api/$2/$1`, "/v2/shoes/12", "/v2/shoes/12"},
		{`/old`, `/new`, "/old/a/old", "/new/a/new"},
		{`^/`, ``, "/a", "/a"},
		{`^.*$`, `x$$1`, "/a", "/x$1"},
		{`b*`, `-`, "/abbc", "/-/-a-c-"},
		{`(x)?y`, `/$1z`, "/y", "//z"},
		{`^/dl/(.*)-(.*)$`, `/files/$1$2`, "/dl/a-b", "/files/ab"},
		{`^/dl/(.*)-(.*)$`, `/files/$1$2`, "/dl/.-./secret", "400"},
		{`^/dl/(.*)-(.*)$`, `/files/$1$2`, "/dl/%2F-%3A", "/files/%2F%3A"},
		{`a`, strings.Repeat("$0", 500), "/" + strings.Repeat("a", 2000), "414"},
	} {
		h := chain(t, v1.Route{Name: "r", Pool: "p", Filters: v1.Filters{Rewrite: &v1.Rewrite{Regex: &v1.RegexRewrite{Pattern: c.pattern, Replacement: c.replacement}}}})
		x := exchange("GET http://h" + c.in + "?q")
		_, err := h.Serve(t.Context(), x)
		got := string(x.Out.Path())
		var e *stage.Error
		if errors.As(err, &e) {
			got = map[int]string{400: "400", 414: "414"}[e.Status]
		}
		if got != c.want {
			t.Errorf("%s -> %s of %s: %s, want %s", c.pattern, c.replacement, c.in, got, c.want)
		}
		if string(x.Path) != c.in && !strings.Contains(c.in, "%") {
			t.Errorf("the path that rules see became %s", x.Path)
		}
	}
}

func TestRewriteOfTheQuery(t *testing.T) {
	for _, c := range []struct {
		q        v1.QueryRewrite
		in, want string
	}{
		{v1.QueryRewrite{Strip: true}, "?a=1&b", ""},
		{v1.QueryRewrite{Remove: []string{"utm_*", "b"}}, "?a=1&utm_source=x&b=2&&utm=3", "?a=1&utm=3"},
		{v1.QueryRewrite{Remove: []string{"b"}}, "?%62=1", ""},
		{v1.QueryRewrite{Remove: []string{"b"}}, "?bb=1&c=b", "?bb=1&c=b"},
		{v1.QueryRewrite{Set: []v1.Parameter{{Name: "a", Value: "x y&z"}, {Name: "é"}}}, "?a=1&c=2&%61=3", "?c=2&a=x%20y%26z&%C3%A9="},
		{v1.QueryRewrite{Set: []v1.Parameter{{Name: "a", Value: "1"}}}, "", "?a=1"},
		{v1.QueryRewrite{Strip: true, Set: []v1.Parameter{{Name: "a", Value: "1"}}}, "?z", "?a=1"},
	} {
		h := chain(t, v1.Route{Name: "r", Pool: "p", Filters: v1.Filters{Rewrite: &v1.Rewrite{Query: &c.q}}})
		x := exchange("GET http://h/p" + c.in)
		if _, err := h.Serve(t.Context(), x); err != nil {
			t.Fatal(err)
		}
		got := ""
		if x.Out.HasQuery() {
			got = "?" + string(x.Out.Query())
		}
		if got != c.want || string(x.Out.Path()) != "/p" {
			t.Errorf("%+v of %s: %s, want %s", c.q, c.in, got, c.want)
		}
	}
}

// secured joins the stage of a site that redirects to https, and an answer of 200.
func secured(t *testing.T, port int) stage.Handler {
	t.Helper()
	route := v1.Route{Name: "all", Respond: &v1.Respond{Status: 200}}
	site := &snapshot.Site{Spec: &bundle.Site{HTTPS: v1.HTTPS{Redirect: true, Port: port}}, Parts: make([]any, stage.Slots)}
	site.Routes = []snapshot.Route{{Name: "all", Spec: &route}}
	s := New(0, tableOf{site})
	p, err := s.Compile(site, nil)
	if err != nil {
		t.Fatal(err)
	}
	site.Parts[0] = p
	return stage.Chain(nil, s, NewForward(0, jar{}))
}

func TestRequestsInClearAreSentToHTTPS(t *testing.T) {
	for _, c := range []struct {
		request string
		port    int
		local   string
		status  int
		want    string
	}{
		{"GET http://shop.test/a/../b?q=1", 443, "10.0.0.1:80", 301, "https://shop.test/a/../b?q=1"},
		{"HEAD http://shop.test/", 443, "10.0.0.1:80", 301, "https://shop.test/"},
		{"POST http://shop.test/checkout", 443, "10.0.0.1:80", 308, "https://shop.test/checkout"},
		{"DELETE http://shop.test/", 443, "10.0.0.1:80", 308, "https://shop.test/"},
		{"GET http://shop.test/", 8443, "10.0.0.1:80", 301, "https://shop.test:8443/"},
		{"GET http://shop.test:8080/", 8443, "10.0.0.1:8080", 301, "https://shop.test:8443/"},
		{"GET http://shop.test:8080/", 443, "10.0.0.1:8080", 301, "https://shop.test/"},
		{"GET http://shop.test/", 8443, "10.0.0.1:8080", 301, "https://shop.test/"}, // ports are mapped in front
		{"GET http://[2001:db8::1]:8080/", 8443, "[2001:db8::1]:8080", 301, "https://[2001:db8::1]:8443/"},
		{"GET http://shop.test/.well-known/acme-challenge/x", 443, "10.0.0.1:80", 200, ""},
		{"GET http://shop.test/.well-known/acme-challenge/../x", 443, "10.0.0.1:80", 301, "https://shop.test/.well-known/acme-challenge/../x"},
		{"GET https://shop.test/", 443, "10.0.0.1:443", 200, ""},
		{"GET http:///", 443, "10.0.0.1:80", 400, ""},
	} {
		x := exchange(c.request)
		x.In.Conn.Local = netip.MustParseAddrPort(c.local)
		resp, err := secured(t, c.port).Serve(t.Context(), x)
		var e *stage.Error
		if errors.As(err, &e) {
			if e.Status != c.status {
				t.Errorf("%s: %v", c.request, err)
			}
			continue
		}
		if resp.Status != c.status || string(resp.Get(message.Location)) != c.want {
			t.Errorf("%s: %d %s, want %d %s", c.request, resp.Status, resp.Get(message.Location), c.status, c.want)
		}
	}
}

func TestAProxyInFrontThatEndsTLSMakesNoLoop(t *testing.T) {
	for trusted, want := range map[bool]int{true: 200, false: 301} {
		x := exchange("GET http://shop.test/\nX-Forwarded-Proto: https")
		x.PeerTrusted = trusted
		x.In.Conn.Local = netip.MustParseAddrPort("10.0.0.1:80")
		resp, err := secured(t, 443).Serve(t.Context(), x)
		if err != nil || resp.Status != want {
			t.Errorf("trusted %v: %v %v", trusted, resp.Status, err)
		}
	}
}
