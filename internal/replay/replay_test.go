package replay

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/document"
	"github.com/relais-edge/relais/internal/edge/record"
	"github.com/relais-edge/relais/internal/stage"
)

// compiled makes a bundle of documents.
func compiled(t testing.TB, docs string) *bundle.Bundle {
	t.Helper()
	set, problems := document.Read([]document.File{{Name: "edge.yaml", Text: []byte(docs)}}, func(string) (string, bool) { return "", false })
	b, more := set.Compile()
	for _, p := range append(problems, more...) {
		t.Fatal(p)
	}
	return b
}

var began = time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)

func idOf(n int) string {
	return stage.RequestID{0: byte(n), 1: byte(n >> 8), 2: byte(n >> 16), 15: 1}.String()
}

// request is request n, a tenth of a second after the one before.
func request(n int, method, path string, with ...func(*record.Request)) *record.Request {
	q := &record.Request{
		Format: 1, ID: idOf(n), Time: began.Add(time.Duration(n) * 100 * time.Millisecond), Client: "192.0.2.7", Listener: "default/web",
		Proto: "HTTP/1.1", Method: method, Authority: "shop.example", Path: path,
		Fields: []record.Field{{"Host", "shop.example"}, {"User-Agent", "Mozilla/5.0"}, {"Accept", "*/*"}},
		Answer: record.Answer{Status: 200, Bytes: 1000, Fields: []record.Field{{"Content-Type", "text/html"}, {"Cache-Control", "max-age=60"}}},
		Millis: 20,
	}
	for _, f := range with {
		f(q)
	}
	return q
}

const listener = `
apiVersion: relais/v1
kind: Listener
metadata: {name: web}
spec: {address: "127.0.0.1:0"}
---
`

const site = `
apiVersion: relais/v1
kind: Site
metadata: {name: shop}
spec:
  hostnames: [shop.example]
  routes:
  - {name: all, pool: shop%s}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: shop}
spec: {tiers: [{name: own, origins: [{address: "127.0.0.1:9"}]}]}
---
apiVersion: relais/v1
kind: CachePolicy
metadata: {name: pages}
spec: {}
---
apiVersion: relais/v1
kind: WafPolicy
metadata: {name: strict}
spec: {}
`

func documents(policies string) string { return listener + fmt.Sprintf(site, policies) }

func TestTheSameRevisionDiffersInNothing(t *testing.T) {
	b := compiled(t, documents(", cache: pages"))
	var list []*record.Request
	for n := range 200 {
		list = append(list, request(n, "GET", fmt.Sprintf("/p/%d", n%40)))
	}
	s, err := Run(t.Context(), &Question{Before: b, After: b, Requests: list, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if s.Requests != 200 || s.Different != 0 || s.Unreadable != 0 {
		out, _ := json.MarshalIndent(s, "", " ")
		t.Errorf("%s", out)
	}
}

func TestACacheIsSeen(t *testing.T) {
	r, err := New(t.Context(), Config{Start: began, Seed: 1}, compiled(t, documents(", cache: pages")))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for n, want := range []string{"miss", "hit", "hit"} {
		res, err := r.Run(t.Context(), request(n, "GET", "/a"))
		if err != nil || res.Cache != want || res.Status != 200 || res.Stored != (n == 0) || res.Site != "default/shop" || n == 0 && res.Tier != "own" {
			t.Errorf("%d: %+v, %v", n, res, err)
		}
	}
	res, err := r.Run(t.Context(), request(1000, "GET", "/a"))
	if err != nil || res.Cache == "hit" {
		t.Errorf("after its lifetime: %+v, %v", res, err)
	}
}

func TestAFirewallIsSeen(t *testing.T) {
	q := "id=1%27%20or%20%271%27=%271"
	list := []*record.Request{request(0, "GET", "/a", func(r *record.Request) { r.Query = &q }), request(1, "GET", "/a")}
	s, err := Run(t.Context(), &Question{Before: compiled(t, documents("")), After: compiled(t, documents(", waf: strict")), Requests: list, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	out, _ := json.MarshalIndent(s, "", " ")
	if s.Different != 1 || len(s.Kinds) != 2 || s.Kinds[0].Kind != KindWAF || s.Kinds[0].Changes[0].After != "deny by 942100" || s.Kinds[1].Changes[0].After != "403" {
		t.Errorf("%s", out)
	}
}

// The site asks for all that judges the moment: a room that is always on, a score that everybody reaches, a flood's
// measures. None of it may hold up what was served long ago, and who comes with a token is who the record says.
func TestWhatJudgesTheMomentIsLeftOut(t *testing.T) {
	docs := strings.Replace(documents(""), "  routes:", "  visitor: buyers\n  waitingRoom: crowd\n  bots: none\n  flood: guard\n  challenge: {effort: 8}\n  routes:", 1) + `---
apiVersion: relais/v1
kind: VisitorPolicy
metadata: {name: buyers}
spec: {basket: [{path: /basket}]}
---
apiVersion: relais/v1
kind: WaitingRoom
metadata: {name: crowd}
spec: {when: always}
---
apiVersion: relais/v1
kind: BotPolicy
metadata: {name: none}
spec: {challengeFrom: 1, denyFrom: 2}
---
apiVersion: relais/v1
kind: FloodPolicy
metadata: {name: guard}
spec: {}
`
	r, err := New(t.Context(), Config{Start: began, Seed: 1}, compiled(t, docs))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	buyer := func(r *record.Request) { r.Visitor = record.Visitor{Class: "protected", Key: 7, Tier: "own"} }
	with := func(name, value string) func(*record.Request) {
		return func(r *record.Request) { r.Fields = append(r.Fields, record.Field{name, value}) }
	}
	for n, c := range []struct {
		name, method, path string
		with               []func(*record.Request)
		visitor            string
	}{
		{name: "anonymous", method: "GET", path: "/a"},
		{name: "a basket is filled", method: "POST", path: "/basket", visitor: "protect"},
		{name: "a cookie", method: "GET", path: "/b", with: []func(*record.Request){buyer, with("Cookie", "a=b; rv=xxxx")}, visitor: "protected"},
		{name: "a field", method: "GET", path: "/c", with: []func(*record.Request){buyer, with("Relais-Visitor", "xxxx")}, visitor: "protected"},
		{name: "a field without a token yet", method: "GET", path: "/d", with: []func(*record.Request){with("Relais-Visitor", "1")}},
		{name: "no token", method: "GET", path: "/e", with: []func(*record.Request){buyer}},
		{name: "another cookie", method: "GET", path: "/f", with: []func(*record.Request){buyer, with("Cookie", "arv=xxxx")}},
	} {
		res, err := r.Run(t.Context(), request(n, c.method, c.path, c.with...))
		if err != nil || res.Status != 200 || res.Visitor != c.visitor || res.Tier != "own" {
			t.Errorf("%s: %+v, %v", c.name, res, err)
		}
	}
}
