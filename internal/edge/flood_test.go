package edge

import (
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/challenge"
	"github.com/relais-edge/relais/internal/edge/record"
	"github.com/relais-edge/relais/internal/http/message"
)

const floodDocs = siteHead + `
  cache: pages
  visitor: buyers
  flood: guard
  challenge: {effort: 8}
  routes: [{pool: shop}]
---
apiVersion: relais/v1
kind: FloodPolicy
metadata: {name: guard}
spec: {cache: {paths: [/search], parameters: [q]}}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: shop}
spec: {tiers: [{name: home, origins: [{address: "${ORIGIN}"}]}]}
` + pages + buyers

const shopKey = bundle.Key("default/shop")

// A person's hand takes the steps, so that no attack has to be played.
func TestTheStepsOfAFloodThroughTheWholeEdge(t *testing.T) {
	asked := make(chan string, 100)
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.String()
		if r.URL.Path == "/stored" || r.URL.Path == "/search" {
			w.Header().Set("Cache-Control", "max-age=60")
		}
		_, _ = io.WriteString(w, "the shop")
	}, floodDocs)
	get := func(path string, fields ...string) *http.Response {
		resp, _ := b.fetch("http1", "GET", path, "", fields...)
		return resp
	}
	b.fetch("http1", "GET", "/stored", "")
	resp, _ := b.fetch("http1", "POST", "/basket", "")
	basket, _, _ := strings.Cut(resp.Header.Get("Set-Cookie"), ";")
	if basket == "" {
		t.Fatalf("no basket: %v", resp.Header)
	}
	until := time.Now().Add(time.Minute)
	order := func(order, step string) {
		t.Helper()
		if err := b.Flood().Shield(shopKey, order, step, until); err != nil {
			t.Fatal(err)
		}
	}
	if resp := get("/page"); resp.StatusCode != 200 {
		t.Fatalf("in calm: %d", resp.StatusCode)
	}
	order("on", "challenge")
	resp, page := b.fetch("http1", "GET", "/page", "", "Accept", "text/html")
	if resp.StatusCode == 200 || !strings.Contains(page, challenge.Path) {
		t.Errorf("a stranger is not challenged: %d %s", resp.StatusCode, page)
	}
	if e := b.explained(resp); !slices.ContainsFunc(e.Decisions, func(d record.Decision) bool { return d.Stage == "flood" && d.Code == "challenge" }) {
		t.Errorf("explained as %+v", e.Decisions)
	}
	if resp := get("/stored"); resp.StatusCode != 200 {
		t.Errorf("what is stored is refused: %d", resp.StatusCode)
	}
	if resp := get("/page", "Cookie", basket); resp.StatusCode != 200 {
		t.Errorf("a visitor with a basket: %d", resp.StatusCode)
	}
	order("on", "cache")
	for len(asked) > 0 {
		<-asked
	}
	for _, junk := range []string{"&a=1", "&b=2", "&c=3"} {
		if resp := get("/search?q=lamp" + junk); resp.StatusCode != 200 {
			t.Errorf("a search: %d", resp.StatusCode)
		}
	}
	if n := len(asked); n != 1 || <-asked != "/search?q=lamp" {
		t.Errorf("the origin was asked %d times", n)
	}
	order("on", "challenge")
	now := time.Now()
	if err := b.Flood().Unblock(netip.MustParsePrefix("127.0.0.0/8"), now, now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if resp := get("/page"); resp.StatusCode != 200 {
		t.Errorf("who was spared: %d", resp.StatusCode)
	}
	order("off", "")
}

// Bytes that no browser sends are held against their sender.
func TestTheFrontTellsTheDetectorOfNonsense(t *testing.T) {
	var told []netip.Addr
	f, _ := newFront(client{}, answers(200))
	f.blame = func(a netip.Addr) { told = append(told, a) }
	for _, c := range []struct {
		status int
		told   bool
	}{{400, true}, {408, true}, {501, true}, {505, true}, {413, false}, {414, false}, {417, false}, {431, false}, {500, false}} {
		told = nil
		f.Refuse(t.Context(), &message.Conn{Client: netip.MustParseAddr("192.0.2.7")}, c.status, "x", "")
		if (len(told) == 1) != c.told {
			t.Errorf("%d: %v", c.status, told)
		}
	}
}
