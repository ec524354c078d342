package api_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// in logs somebody in and gives the session's text.
func (b *bed) in(org, login, pass string) string {
	b.t.Helper()
	r := b.ask("", "POST", "/v1/login", `{"organization":"`+org+`","login":"`+login+`","password":"`+pass+`"}`)
	var got struct{ Token string }
	if err := json.Unmarshal([]byte(r.body), &got); err != nil || r.status != 200 {
		b.t.Fatalf("%d %s", r.status, r.body)
	}
	return got.Token
}

func (b *bed) count(org, text string) int {
	b.t.Helper()
	r := b.ask(b.tokens[org], "GET", "/v1/organizations/"+org+"/audit?limit=1000", "")
	if r.status != 200 {
		b.t.Fatalf("%d %s", r.status, r.body)
	}
	return strings.Count(r.body, text)
}

// TestSessionsAreListedAndEnded ends one from another, and with it what watches by it.
func TestSessionsAreListedAndEnded(t *testing.T) {
	b := setup(t)
	one, two := b.in("shop", "admin-shop", password), b.in("shop", "admin-shop", password)
	var list struct{ Items []struct{ ID, Agent string } }
	r := b.ask(one, "GET", "/v1/organizations/shop/users/admin-shop/sessions", "")
	b.must(json.Unmarshal([]byte(r.body), &list))
	if len(list.Items) != 2 || list.Items[0].Agent == "" || strings.Contains(r.body, "hash") {
		t.Fatalf("%d %s", r.status, r.body)
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", b.url+"/v1/organizations/shop/watch", nil)
	b.must(err)
	req.Header.Set("Authorization", "Bearer "+two)
	watch, err := http.DefaultClient.Do(req)
	b.must(err)
	defer watch.Body.Close()
	events := bufio.NewScanner(watch.Body)
	if !events.Scan() || events.Text() != ": hello" {
		t.Fatalf("%d %q", watch.StatusCode, events.Text())
	}
	if r := b.ask(one, "DELETE", "/v1/organizations/shop/users/admin-shop/sessions", ""); r.status != 204 {
		t.Errorf("%d %s", r.status, r.body)
	}
	for events.Scan() { // the stream ends: else the test's deadline does
	}
	if r := b.ask(two, "GET", "/v1/session", ""); r.status != 401 {
		t.Errorf("the other session goes on: %d %s", r.status, r.body)
	}
	if r := b.ask(one, "GET", "/v1/session", ""); r.status != 200 {
		t.Errorf("the session that asked has ended: %d %s", r.status, r.body)
	}
	b.pass(59 * time.Minute)
	if r := b.ask(one, "GET", "/v1/session", ""); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	b.pass(61 * time.Minute)
	if r := b.ask(one, "GET", "/v1/session", ""); r.status != 401 {
		t.Errorf("unused for an hour: %d %s", r.status, r.body)
	}
}

// TestALinkSetsAPasswordOnce invites somebody, who sets a password and logs in, and resets it.
func TestALinkSetsAPasswordOnce(t *testing.T) {
	b := setup(t)
	offer := func(purpose string) string {
		t.Helper()
		r := b.ask(b.tokens["shop"], "POST", "/v1/organizations/shop/users/zoe/links", `{"purpose":"`+purpose+`"}`)
		var made struct{ Link string }
		if err := json.Unmarshal([]byte(r.body), &made); err != nil || r.status != 201 {
			t.Fatalf("%d %s", r.status, r.body)
		}
		return made.Link
	}
	link := offer("invite")
	if r := b.ask("", "POST", "/v1/links/show", `{"link":"`+link+`"}`); r.status != 200 || !strings.Contains(r.body, `"zoe"`) {
		t.Errorf("%d %s", r.status, r.body)
	}
	redeem := func(text, pass string) reply {
		return b.ask("", "POST", "/v1/links/redeem", `{"link":"`+text+`","password":"`+pass+`"}`)
	}
	if p := redeem(link, "short").problem(t); p.Status != 422 {
		t.Errorf("%+v", p)
	}
	if r := redeem(link, password); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if p := redeem(link, password+"2").problem(t); p.Status != 410 || p.Type != "urn:relais:problem:link-ended" {
		t.Errorf("twice: %+v", p)
	}
	former := b.in("shop", "zoe", password)
	if r := redeem(offer("reset"), password+"3"); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := b.ask(former, "GET", "/v1/session", ""); r.status != 401 {
		t.Errorf("a session outlived the password: %d", r.status)
	}
	b.in("shop", "zoe", password+"3")
}

// TestProvidersKeepTheirSecret writes one, reads it and looks for the secret.
func TestProvidersKeepTheirSecret(t *testing.T) {
	b := setup(t)
	at := "/v1/organizations/shop/providers/corp"
	if r := b.ask(b.tokens["shop"], "PUT", at, `{"issuer":"https://id.example.com","clientId":"relais","clientSecret":"very secret"}`); r.status != 204 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	for _, path := range []string{at, "/v1/organizations/shop/providers"} {
		r := b.ask(b.tokens["shop"], "GET", path, "")
		if r.status != 200 || !strings.Contains(r.body, "id.example.com") || strings.Contains(r.body, "ecret") {
			t.Errorf("%d %s", r.status, r.body)
		}
	}
	if p := b.ask(b.tokens["shop"], "PUT", at, `{"issuer":"http://id.example.com","clientId":"relais"}`).problem(t); p.Status != 422 {
		t.Errorf("%+v", p)
	}
	if r := b.ask(b.tokens["shop"], "DELETE", at, ""); r.status != 204 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if p := b.ask(b.tokens["shop"], "GET", at, "").problem(t); p.Status != 404 {
		t.Errorf("%+v", p)
	}
}

// TestDenialsAreTold looks for one entry for each attempt, whichever room refused it, in the log of who tried.
func TestDenialsAreTold(t *testing.T) {
	b := setup(t)
	for i, s := range [][3]string{
		{"GET", "/v1/organizations/shop/documents", ""},             // change
		{"GET", "/v1/organizations/shop/users", ""},                 // the API itself
		{"GET", "/v1/organizations/shop/watch", ""},                 // the API itself
		{"POST", "/v1/organizations/shop/purges", `{"all":true}`},   // the API itself, under a key
		{"POST", "/v1/organizations/shop/projects", `{"name":"x"}`}, // tenant, which tells by itself
	} {
		if r := b.ask(b.tokens["cafe"], s[0], s[1], s[2], "Idempotency-Key", "key-of-test-"+s[1]); r.status != 403 {
			t.Errorf("%d %s", r.status, r.body)
		}
		if n := b.count("cafe", `"action":"denied"`); n != i+1 {
			t.Errorf("%s %s: %d entries, want %d", s[0], s[1], n, i+1)
		}
	}
	if n := b.count("shop", `"denied"`); n != 0 {
		t.Errorf("another's log has %d of them", n)
	}
}

// TestStrangersAreBounded asks for logins until the source has had enough; who has a token does not notice.
func TestStrangersAreBounded(t *testing.T) {
	b := setup(t)
	last := reply{}
	for range 61 {
		last = b.ask("", "POST", "/v1/links/show", `{"link":"none"}`)
	}
	if p := last.problem(t); p.Status != 429 || last.header.Get("Retry-After") == "" {
		t.Errorf("%+v", p)
	}
	if r := b.ask(b.tokens["shop"], "GET", "/v1/session", ""); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
}
