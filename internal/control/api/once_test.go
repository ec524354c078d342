package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/control/api"
	"github.com/relais-edge/relais/internal/control/store"
)

func TestARequestUnderAKeyIsMadeOnce(t *testing.T) {
	b := setup(t)
	east := b.tokens["east"]
	make := func(key, body string) reply {
		return b.ask(east, "POST", "/v1/organizations/east/tokens", body, "Idempotency-Key", key)
	}
	token := `{"title":"ci","rules":[{"verbs":["read"],"kinds":["Site"]}],"expires":"2026-06-02T00:00:00Z"}`
	first, again := make("k1", token), make("k1", token)
	if first.status != 201 || again.status != 201 || first.body != again.body || again.header.Get("Idempotency-Replayed") != "true" || first.header.Get("Idempotency-Replayed") != "" {
		t.Fatalf("%d %s\n%d %s", first.status, first.body, again.status, again.body)
	}
	if p := make("k1", strings.Replace(token, "ci", "cd", 1)).problem(t); p.Status != 422 || p.Type != "urn:relais:problem:key-reused" {
		t.Errorf("%+v", p)
	}
	if p := make(strings.Repeat("k", 200), token).problem(t); p.Status != 400 {
		t.Errorf("%+v", p)
	}
	// What was refused was not made, and may be tried again.
	if p := make("k2", strings.Replace(token, "2026-06-02", "2020-01-01", 1)).problem(t); p.Status != 422 {
		t.Errorf("%+v", p)
	}
	if r := make("k2", token); r.status != 201 {
		t.Errorf("%d %s", r.status, r.body)
	}
	var wg sync.WaitGroup
	bodies := [8]string{}
	for i := range bodies {
		wg.Go(func() { bodies[i] = make("k3", token).body })
	}
	wg.Wait()
	for _, s := range bodies {
		if s != bodies[0] || !strings.Contains(s, `"token"`) {
			t.Errorf("duplicates at once: %q and %q", bodies[0], s)
		}
	}
	var list struct{ Items []struct{ Title string } }
	b.must(json.Unmarshal([]byte(b.ask(east, "GET", "/v1/organizations/east/tokens", "").body), &list))
	made := 0
	for _, k := range list.Items {
		if k.Title == "ci" {
			made++
		}
	}
	if made != 3 {
		t.Errorf("%d tokens were made with three keys", made)
	}
	// The answers at rest are closed, and another tenant's key is another.
	b.must(b.store.View(t.Context(), func(r *store.Reader) error {
		p, err := r.List(t.Context(), store.Query{Organization: "~idempotency"})
		for _, d := range p.Documents {
			if strings.Contains(string(d.Body), `"token"`) || strings.Contains(string(d.Body), "rlt_") {
				t.Errorf("an answer is kept in clear: %s", d.Body)
			}
		}
		return err
	}))
	if r := b.ask(b.tokens["cafe"], "POST", "/v1/organizations/cafe/tokens", token, "Idempotency-Key", "k1"); r.status != 201 || r.body == first.body {
		t.Errorf("%d %s", r.status, r.body)
	}
	b.pass(23 * time.Hour)
	if n, err := b.api.SweepKeys(t.Context(), nil); err != nil || n != 0 {
		t.Errorf("%d keys went too early: %v", n, err)
	}
	b.pass(90 * time.Minute)
	if n, err := b.api.SweepKeys(t.Context(), nil); err != nil || n != 4 {
		t.Errorf("%d keys went: %v", n, err)
	}
}

// events reads a stream.
type events struct {
	lines *bufio.Scanner
	end   context.CancelFunc
}

func (b *bed) watch(token, org, last string) (*events, int) {
	b.t.Helper()
	ctx, end := context.WithCancel(b.t.Context())
	b.t.Cleanup(end)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+"/v1/organizations/"+org+"/watch", nil)
	b.must(err)
	req.Header.Set("Authorization", "Bearer "+token)
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(req)
	b.must(err)
	b.t.Cleanup(func() { _ = resp.Body.Close() })
	return &events{bufio.NewScanner(resp.Body), end}, resp.StatusCode
}

// next reads up to the next event.
func (e *events) next(t *testing.T) (id, name string, ev api.Event) {
	t.Helper()
	for e.lines.Scan() {
		key, value, _ := strings.Cut(e.lines.Text(), ": ")
		switch key {
		case "id":
			id = value
		case "event":
			name = value
		case "data":
			if err := json.Unmarshal([]byte(value), &ev); err != nil {
				t.Fatal(err)
			}
			return id, name, ev
		}
	}
	return "", "", ev
}

func TestWatchersAreToldOfTheirOwn(t *testing.T) {
	b := setup(t)
	shop := b.tokens["shop"]
	e, status := b.watch(shop, "shop", "")
	if status != 200 {
		t.Fatal(status)
	}
	apply := func(org, name string) {
		t.Helper()
		if r := b.ask(b.tokens[org], "POST", "/v1/organizations/"+org+"/documents?reason=because", pool(name)); r.status != 200 {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	apply("cafe", "hidden")
	apply("shop", "a")
	apply("shop", "b")
	id, name, first := e.next(t)
	if name != "revision" || first.Organization != "shop" || first.Reason != "because" || len(first.Changes) != 1 || first.Changes[0].Name != "a" || first.Changes[0].Action != "created" {
		t.Errorf("%s %s %+v", id, name, first)
	}
	if _, _, second := e.next(t); len(second.Changes) != 1 || second.Changes[0].Name != "b" {
		t.Errorf("%+v", second)
	}
	again, _ := b.watch(shop, "shop", id)
	if _, _, ev := again.next(t); len(ev.Changes) != 1 || ev.Changes[0].Name != "b" {
		t.Errorf("resumed after a: %+v", ev)
	}
	if _, status := b.watch(shop, "shop", "999999"); status != 400 {
		t.Errorf("an id of the future: %d", status)
	}
	b.must(b.store.Prune(t.Context(), store.Change{Author: "test"}, "shop", b.revision("shop")))
	old, _ := b.watch(shop, "shop", "1")
	if _, name, _ := old.next(t); name != "reset" {
		t.Errorf("after pruning: %q", name)
	}
	// Who may no longer is told no more: the stream ends.
	if r := b.ask(b.tokens["east"], "PUT", "/v1/organizations/shop/users/admin-shop/disabled", `{"disabled":true}`); r.status != 204 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if _, name, ev := e.next(t); name != "" {
		t.Errorf("told after the right was gone: %s %+v", name, ev)
	}
}

func TestWatchersAreBounded(t *testing.T) {
	b := setup(t)
	var last *events
	for i := range 17 {
		e, status := b.watch(b.tokens["shop"], "shop", "")
		if want := map[bool]int{true: 429, false: 200}[i == 16]; status != want {
			t.Fatalf("watcher %d: %d", i, status)
		}
		if i < 16 {
			last = e
		}
	}
	last.end()
	deadline := time.Now().Add(30 * time.Second)
	for {
		if _, status := b.watch(b.tokens["shop"], "shop", ""); status == 200 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the place of one who left is not given to another")
		}
		time.Sleep(20 * time.Millisecond)
	}
}
