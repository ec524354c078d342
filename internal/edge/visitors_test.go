package edge

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/edge/record"
	"github.com/relais-edge/relais/internal/stage"
)

// fetch sends a request with fields, and returns its answer with the body read.
func (b *bed) fetch(proto, method, path, body string, fields ...string) (*http.Response, string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.base(proto)+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i+1 < len(fields); i += 2 {
		req.Header.Add(fields[i], fields[i+1])
	}
	c := clientOf(b.t, proto)
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := c.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp, string(text)
}

// explained is what explain says of an answer.
func (b *bed) explained(resp *http.Response) record.Explanation {
	b.t.Helper()
	id, ok := stage.ParseRequestID(resp.Header.Get("X-Request-Id"))
	if !ok {
		b.t.Fatalf("%q is no id", resp.Header.Get("X-Request-Id"))
	}
	var e record.Explanation
	until(b.t, "the request is not explained", func() bool {
		x, ok := b.Explain(id)
		e, _ = x.(record.Explanation)
		return ok
	})
	return e
}

const visitorDocs = siteHead + `
  cache: pages
  visitor: buyers
  waitingRoom: crowd
  bots: programs
  challenge: {effort: 8}
  routes: [{pool: small}]
---
apiVersion: relais/v1
kind: VisitorPolicy
metadata: {name: buyers}
spec:
  callbacks: [{name: pay, path: /hooks, signature: {scheme: github, secrets: [the-secret-of-it]}}]
---
apiVersion: relais/v1
kind: WaitingRoom
metadata: {name: crowd}
spec: {newPerMinute: 6000}
---
apiVersion: relais/v1
kind: BotPolicy
metadata: {name: programs}
spec: {denyFrom: 95, honeypots: [/trap]}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: small}
spec: {tiers: [{name: home, capacity: {inFlight: 2, reserve: 50%}, origins: [{address: "${ORIGIN}"}]}]}
` + pages

// idle waits until all places at origins are given back, which is a moment after an answer's last byte.
func (b *bed) idle() {
	until(b.t, "places are not given back", func() bool {
		for _, p := range b.Pools() {
			for _, tier := range p.Tiers {
				if tier.InFlight > 0 {
					return false
				}
			}
		}
		return true
	})
}

func TestTheLineFromTheFirstToTheLast(t *testing.T) {
	hold, held := make(chan struct{}), make(chan struct{}, 10)
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		for _, c := range r.Cookies() {
			if c.Name == "rq" || c.Name == "rv" {
				w.WriteHeader(599)
			}
		}
		switch r.URL.Path {
		case "/hold":
			held <- struct{}{}
			<-hold
		case "/stored":
			w.Header().Set("Cache-Control", "max-age=60")
		case "/basket":
			w.Header().Set("Relais-Funnel", "basket")
		}
		_, _ = io.WriteString(w, "the shop")
	}, visitorDocs)
	const asJSON = "application/json"
	resp, _ := b.fetch("http1", "GET", "/basket", "", "Relais-Visitor", "new")
	basket := resp.Header.Get("Relais-Visitor")
	if basket == "" || resp.Header.Get("Relais-Funnel") != "" {
		t.Fatalf("%v", resp.Header)
	}
	b.idle() // who comes while a place is still taken begins the line
	b.fetch("http1", "GET", "/stored", "")
	b.idle()
	c := clientOf(t, "http1")
	go func() { // the one place of who has no basket
		if resp, err := c.Get(b.base("http1") + "/hold"); err == nil {
			_ = resp.Body.Close()
		}
	}()
	<-held
	resp, text := b.fetch("http1", "GET", "/x", "", "Accept", asJSON, "Relais-Ticket", "new")
	ticket := resp.Header.Get("Relais-Ticket")
	var page struct{ Position, RetryAfter int }
	if err := json.Unmarshal([]byte(text), &page); err != nil || resp.StatusCode != 503 || page.Position != 1 || ticket == "" {
		t.Fatalf("%d %s %v", resp.StatusCode, text, err)
	}
	if e := b.explained(resp); e.Full != "room" {
		t.Errorf("explained as %+v", e)
	}
	if resp, _ := b.fetch("http1", "GET", "/stored", ""); resp.StatusCode != 200 {
		t.Errorf("what is stored: %d", resp.StatusCode)
	}
	if resp, _ := b.fetch("http1", "GET", "/y", "", "Relais-Visitor", basket); resp.StatusCode != 200 {
		t.Errorf("a visitor with a basket: %d", resp.StatusCode)
	}
	sign := func(body string) string {
		m := hmac.New(sha256.New, []byte("the-secret-of-it"))
		m.Write([]byte(body))
		return "sha256=" + hex.EncodeToString(m.Sum(nil))
	}
	if resp, _ := b.fetch("http1", "POST", "/hooks/1", "paid", "X-Hub-Signature-256", sign("paid")); resp.StatusCode != 200 {
		t.Errorf("a payment: %d", resp.StatusCode)
	}
	if resp, _ := b.fetch("http1", "POST", "/hooks/1", "paid", "X-Hub-Signature-256", sign("free")); resp.StatusCode != 503 {
		t.Errorf("a forged payment: %d", resp.StatusCode)
	}
	close(hold)
	until(t, "the first in the line is not let in", func() bool {
		resp, _ := b.fetch("http1", "GET", "/x", "", "Accept", asJSON, "Relais-Ticket", ticket)
		return resp.StatusCode == 200
	})
}

func TestProgramsAreScoredAndExplained(t *testing.T) {
	b := newBed(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the shop") }, visitorDocs)
	for _, proto := range []string{"http1", "https", "h2", "h3"} {
		resp, _ := b.fetch(proto, "GET", "/trap", "", "User-Agent", "curl/8 "+proto)
		e := b.explained(resp)
		if resp.StatusCode != 404 || e.Code != "honeypot" || e.Score != 35 {
			t.Errorf("%s: the trap: %d %+v", proto, resp.StatusCode, e)
		}
		if over := proto == "https" || proto == "h2"; (len(e.JA4) == 36 && e.JA4[:3] == "t13") != over {
			t.Errorf("%s: JA4 %q", proto, e.JA4)
		}
		resp, _ = b.fetch(proto, "GET", "/", "", "User-Agent", "curl/8 "+proto)
		if e = b.explained(resp); resp.StatusCode != 403 || e.Code != "bot_denied" || e.Score != 95 {
			t.Errorf("%s: after the trap: %d %+v", proto, resp.StatusCode, e)
		}
	}
}
