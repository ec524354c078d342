package waf

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// pieces cuts s at random.
func pieces(rnd *rand.Rand, s string, most int) (out []string) {
	for len(s) > 0 {
		n := min(len(s), 1+rnd.IntN(most))
		out = append(out, s[:n])
		s = s[n:]
	}
	return out
}

func TestLargeUploadsPassByteForByte(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	raw := make([]byte, 5<<20)
	for i := range raw {
		raw[i] = byte(rnd.Uint32())
	}
	file := "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n" + string(raw) + "\r\n--b--\r\n"
	words, examined := 20_000, v1.Size(128<<10)
	if raced { // the detector makes an evaluation twenty times as long
		words, examined = 2000, 8<<10
	}
	note := `{"note":"` + strings.Repeat("un joli mot ", words) + `"}`
	g := newRig(t, Config{}, v1.WafPolicySpec{BodyBytes: &examined})
	for _, c := range []struct{ name, contentType, body string }{
		{"multipart", "multipart/form-data; boundary=b", file},
		{"JSON longer than what is examined", jsonType, note},
		{"form longer than what is examined", form, "note=" + strings.Repeat("un+joli+mot+", words)},
		{"XML longer than what is examined", "text/xml", "<a>" + strings.Repeat("<b>un joli mot</b>", words) + "</a>"},
	} {
		q := request{method: "POST", target: "/up", fields: []string{"Content-Type", c.contentType}, body: pieces(rnd, c.body, 64<<10)}
		err, m, o := g.do(q)
		if err != nil || o.err != nil || o.body.String() != c.body {
			t.Errorf("%s: %v %q; %d bytes of %d arrived, %v", c.name, err, m.Detail, o.body.Len(), len(c.body), o.err)
		}
	}
	if n := g.st.bodies.Used(); n != 0 {
		t.Errorf("%d bytes are still counted", n)
	}
}

func TestAttackWithinTheExaminedPartOfALongBody(t *testing.T) {
	g := newRig(t, Config{}, v1.WafPolicySpec{BodyBytes: new(v1.Size(1 << 10))})
	attack := "x' UNION SELECT a FROM users-- -"
	pad := strings.Repeat("un joli mot ", 1000)
	for _, c := range []struct{ name, contentType, body string }{
		{"JSON", jsonType, `{"a":"` + attack + `","b":"` + pad + `"}`},
		{"form", form, "a=" + strings.ReplaceAll(attack, " ", "+") + "&b=" + pad},
		{"multipart", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"t\"\r\n\r\n" + attack + "\r\n--b\r\nContent-Disposition: form-data; name=\"u\"\r\n\r\n" + pad + "\r\n--b--\r\n"},
		{"XML", "application/xml", "<a><b>" + attack + "</b><c>" + pad + "</c></a>"},
	} {
		q := request{method: "POST", target: "/up", fields: []string{"Content-Type", c.contentType}, body: []string{c.body}}
		if err, m, _ := g.do(q); err == nil || !strings.Contains(m.Detail, "942") {
			t.Errorf("%s: %v %q", c.name, err, m.Detail)
		}
	}
}

func TestOversizeReject(t *testing.T) {
	g := newRig(t, Config{}, v1.WafPolicySpec{BodyBytes: new(v1.Size(10)), Oversize: "reject"})
	for _, c := range []struct {
		body   []string
		length int64
		denied bool
	}{
		{[]string{"a=12345678"}, 10, false},
		{[]string{"a=12345678"}, -1, false},
		{[]string{"a=1234", "56789"}, 11, true},
		{[]string{"a=1234", "56789"}, -1, true},
		{[]string{}, -1, false},
	} {
		x := g.exchange(request{method: "POST", target: "/", fields: []string{"Content-Type", form}, body: c.body})
		x.In.ContentLength = c.length
		x.In.DelLine("content-length")
		_, err := g.st.Serve(context.Background(), x, &origin{})
		if (err != nil) != c.denied || err != nil && stage.AsError(err).Status != 413 {
			t.Errorf("%v with length %d: %v", c.body, c.length, err)
		}
		x.End(message.Outcome{})
	}
	if g.metric("oversize") != "2" || g.st.bodies.Used() != 0 {
		t.Errorf("counted %s, %d bytes kept", g.metric("oversize"), g.st.bodies.Used())
	}
	g = newRig(t, Config{}, v1.WafPolicySpec{Protection: v1.Protection{Mode: v1.ModeShadow}, BodyBytes: new(v1.Size(10)), Oversize: "reject"})
	err, m, o := g.do(request{method: "POST", target: "/", fields: []string{"Content-Type", form}, body: []string{"a=1234", "56789"}})
	if err != nil || m.Code != "would-deny" || o.body.String() != "a=123456789" {
		t.Errorf("shadow: %v %v %q", err, m, o.body.String())
	}
}

func TestBodiesThatAreNotRead(t *testing.T) {
	g := newRig(t, Config{}, v1.WafPolicySpec{Exclusions: []v1.WafExclusion{{Rules: []string{"920420", "920470"}}}})
	for _, c := range []struct {
		name   string
		fields []string
		read   bool
	}{
		{"image", []string{"Content-Type", "image/jpeg"}, false},
		{"octet-stream with a parameter", []string{"Content-Type", "Application/Octet-Stream; x=y"}, false},
		{"gRPC", []string{"Content-Type", "application/grpc+proto"}, false},
		{"upgrade", []string{"Content-Type", form, "Upgrade", "websocket", "Connection", "Upgrade"}, false},
		{"SVG", []string{"Content-Type", "image/svg+xml"}, true},
		{"text", []string{"Content-Type", "text/plain"}, true},
		{"form", []string{"Content-Type", form}, true},
	} {
		x := g.exchange(request{method: "POST", target: "/", fields: c.fields, body: []string{"a=1"}})
		src := x.In.Body
		ask := stage.Handler(&origin{})
		if _, err := g.st.Serve(context.Background(), x, &peek{ask, func() {
			if (x.In.Body != src) != c.read {
				t.Errorf("%s: read is %v, want %v", c.name, x.In.Body != src, c.read)
			}
		}}); err != nil {
			t.Errorf("%s: %v %v", c.name, err, x.Trail.Marks())
		}
	}
}

type peek struct {
	next stage.Handler
	look func()
}

func (p *peek) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	p.look()
	return p.next.Serve(ctx, x)
}

func TestMemoryForBodiesIsBounded(t *testing.T) {
	q := request{method: "POST", target: "/", fields: []string{"Content-Type", form}, body: []string{"a=1", strings.Repeat("2", 100), "3"}}
	g := newRig(t, Config{BodyMemory: 50}, v1.WafPolicySpec{})
	if err, m, o := g.do(q); err == nil || stage.AsError(err).Status != 503 || m.Code != "overloaded" || o.called {
		t.Errorf("%v %v", err, m)
	}
	q.basket = true
	if err, m, o := g.do(q); err != nil || m.Code != "pass" || o.body.String() != strings.Join(q.body, "") {
		t.Errorf("with a basket: %v %v", err, m)
	}
	g = newRig(t, Config{BodyMemory: 50}, v1.WafPolicySpec{Protection: v1.Protection{Mode: v1.ModeShadow}})
	q.basket = false
	if err, m, o := g.do(q); err != nil || m.Code != "overloaded" || o.body.String() != strings.Join(q.body, "") {
		t.Errorf("shadow: %v %v %q", err, m, o.body.String())
	}
	if g.st.bodies.Used() != 0 {
		t.Error("bytes are still counted")
	}
}

// An organization that has its part of the memory for bodies leaves the rest to others.
func TestOneOrganizationDoesNotTakeAllMemoryForBodies(t *testing.T) {
	g := newRig(t, Config{BodyMemory: 1000}, v1.WafPolicySpec{})
	name := "p"
	for g.st.bodies.Account("o") == g.st.bodies.Account(name) {
		name += "p" // one in thousands shares the account
	}
	other := *g.site
	other.Key, other.Parts = bundle.Key(name+"/shop"), make([]any, stage.Slots)
	p, err := g.st.Compile(&other, nil)
	if err != nil {
		t.Fatal(err)
	}
	other.Parts[5] = p
	kept, err := g.st.bodies.Account("o").Read(t.Context(), &chunks{parts: []string{strings.Repeat("x", 700)}}, 1000, false)
	if err != nil {
		t.Fatal(err)
	}
	q := request{method: "POST", target: "/", fields: []string{"Content-Type", form}, body: []string{"a=" + strings.Repeat("1", 100)}}
	if err, m, _ := g.do(q); err == nil || m.Code != "overloaded" || !strings.Contains(m.Detail, "part") {
		t.Errorf("who has its part: %v %+v", err, m)
	}
	x := g.exchange(q)
	x.Site, x.Route = &other, &other.Routes[0]
	if _, err := g.st.Serve(t.Context(), x, &origin{}); err != nil {
		t.Errorf("another organization: %v", err)
	}
	x.End(message.Outcome{})
	if !g.series(`relais_waf_bodies_refused_total{why="part"} 1`) {
		t.Error("it is not counted")
	}
	kept.Close(nil)
	if err, m, _ := g.do(q); err != nil || m.Code != "pass" {
		t.Errorf("once there is room again: %v %+v", err, m)
	}
}

// unproved is a field that the screen leaves to the engine, which finds nothing in it.
var unproved = []string{"Range", "bytes=0-99"}

func TestPlacesForEvaluations(t *testing.T) {
	g := newRig(t, Config{Concurrent: 1, Wait: time.Millisecond}, v1.WafPolicySpec{})
	g.st.common <- struct{}{} // somebody is at it
	if err, m, o := g.do(request{target: "/", fields: unproved}); err == nil || stage.AsError(err).Code != "waf_overloaded" || m.Code != "overloaded" || o.called {
		t.Errorf("no place: %v %v", err, m)
	}
	if err, m, _ := g.do(request{target: "/", fields: unproved, basket: true}); err != nil || m.Code != "pass" {
		t.Errorf("the place for baskets: %v %v", err, m)
	}
	g.st.basket <- struct{}{}
	if err, m, o := g.do(request{target: "/", fields: unproved, basket: true}); err != nil || m.Code != "overloaded" || !o.called {
		t.Errorf("no place for a basket either: %v %v", err, m)
	}
	<-g.st.common
	if err, _, _ := g.do(request{target: "/", fields: unproved}); err != nil {
		t.Errorf("a place again: %v", err)
	}
}

func TestShadowHardlyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{Concurrent: 1}, v1.WafPolicySpec{Protection: v1.Protection{Mode: v1.ModeShadow}})
		g.st.common <- struct{}{}
		from := time.Now()
		if err, m, o := g.do(request{target: "/", fields: unproved}); err != nil || m.Code != "overloaded" || !o.called || time.Since(from) > 50*time.Millisecond {
			t.Errorf("%v %v after %v", err, m, time.Since(from))
		}
	})
}

func TestHeavyBodiesHoldUpNobodyElse(t *testing.T) {
	g := newRig(t, Config{Concurrent: 8, Wait: time.Millisecond}, v1.WafPolicySpec{})
	for range cap(g.st.heavy) {
		g.st.heavy <- struct{}{} // bodies that take their time
	}
	big := request{method: "POST", target: "/", fields: append([]string{"Content-Type", form}, unproved...), body: []string{"a=" + strings.Repeat("2", heavy)}}
	if err, m, o := g.do(big); err == nil || stage.AsError(err).Code != "waf_overloaded" || m.Code != "overloaded" || o.called {
		t.Errorf("one more: %v %v", err, m)
	}
	small := big
	small.body = []string{"a=2"}
	if err, m, _ := g.do(small); err != nil || m.Code != "pass" {
		t.Errorf("a small body: %v %v", err, m)
	}
	big.basket = true
	if err, m, o := g.do(big); err != nil || m.Code != "overloaded" || !o.called {
		t.Errorf("with a basket: %v %v", err, m)
	}
	<-g.st.heavy
	if err, m, _ := g.do(big); err != nil || m.Code != "pass" || len(g.st.heavy) != cap(g.st.heavy)-1 || len(g.st.common) != 0 {
		t.Errorf("a place again: %v %v, %d and %d places taken", err, m, len(g.st.heavy), len(g.st.common))
	}
	for len(g.st.common) < cap(g.st.common) {
		g.st.common <- struct{}{}
	}
	big.basket = false
	if err, _, _ := g.do(big); err == nil || len(g.st.heavy) != cap(g.st.heavy)-1 {
		t.Errorf("no place at all: %v, %d taken", err, len(g.st.heavy))
	}
}

func TestFailureOfTheEngineSparesBaskets(t *testing.T) {
	g := newRig(t, Config{}, v1.WafPolicySpec{})
	pt := *g.site.Parts[5].(*part)
	pt.engine = &engine{} // panics
	g.site.Parts[5] = &pt
	if err, m, _ := g.do(request{target: "/", fields: unproved}); err == nil || stage.AsError(err).Code != "waf_failed" || m.Code != "failed" || len(g.st.common) != 0 {
		t.Errorf("%v %v, %d places taken", err, m, len(g.st.common))
	}
	if err, m, o := g.do(request{target: "/", fields: unproved, basket: true}); err != nil || m.Code != "failed" || !o.called {
		t.Errorf("with a basket: %v %v", err, m)
	}
}
