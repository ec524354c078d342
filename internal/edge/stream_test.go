package edge

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// everything has every stage at work on each request.
const everything = siteHead + `
  access: all
  rateLimits: [each]
  waf: core
  visitor: buyers
  cache: pages
  compression: {minLength: 0}
  earlyHints: true
  https: {hsts: {}}
  maintenance: {enabled: true, allow: [127.0.0.0/8]}
  errorPages: [{statuses: [5xx], text: "sorry"}]
  routes:
    - pool: shop
      mirror: {pool: next}
      filters:
        requestHeaders: {set: [{name: X-Client, value: "${client.ip}"}]}
        responseHeaders: {set: [{name: X-Id, value: "${request.id}"}]}
---
apiVersion: relais/v1
kind: AccessPolicy
metadata: {name: all}
spec: {rules: [{action: deny, addresses: [192.0.2.0/24]}]}
---
apiVersion: relais/v1
kind: RateLimit
metadata: {name: each}
spec: {requests: 100000}
---
apiVersion: relais/v1
kind: WafPolicy
metadata: {name: core}
spec: {mode: enforce}
` + buyers + pages + `
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: next}
spec: {tiers: [{origins: [{address: "127.0.0.1:9"}]}]}
` + pool

// TestStreamedAnswersReachTheClientWithoutDelayWithEverythingOn lets the origin write an event
// only when the client has read the one before: whatever holds an event back, anywhere,
// stops the stream for good.
func TestStreamedAnswersReachTheClientWithoutDelayWithEverythingOn(t *testing.T) {
	const events = 8
	seen := make(chan int)
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.Header.Get("X-Kind"))
		w.Header().Set("Cache-Control", r.Header.Get("X-Cache"))
		w.WriteHeader(200)
		http.NewResponseController(w).Flush()
		for i := range events {
			if !await(t, seen, i) { // 0: the client has the head
				return
			}
			io.WriteString(w, event(i))
			http.NewResponseController(w).Flush()
		}
		await(t, seen, events)
	}, everything)
	if resp, _ := b.get("http1", "/?q=1%27%20UNION%20SELECT%20password%20FROM%20users--"); resp.StatusCode != 403 {
		t.Errorf("the firewall lets an attack pass: %d", resp.StatusCode)
	}
	n := 0
	for _, proto := range []string{"http1", "https", "h2c", "h2", "h3", "std"} {
		client := clientOf(t, proto)
		for _, kind := range []string{"text/event-stream", "text/html", "application/octet-stream"} {
			for _, coding := range []string{"", "gzip", "br", "zstd"} {
				for _, cache := range []string{"no-cache", "max-age=60"} {
					n++
					name := fmt.Sprint(proto, " ", kind, " ", coding, " ", cache)
					req, _ := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprint(b.base(proto), "/stream/", n), nil)
					req.Header.Set("X-Kind", kind)
					req.Header.Set("X-Cache", cache)
					if coding != "" {
						req.Header.Set("Accept-Encoding", coding)
					}
					resp, err := client.Do(req)
					if err != nil || t.Failed() {
						t.Fatal(name, ": ", err)
					}
					want := coding
					if kind == "application/octet-stream" {
						want = ""
					}
					if got := resp.Header.Get("Content-Encoding"); resp.StatusCode != 200 || got != want {
						t.Fatalf("%s: %d, Content-Encoding %q", name, resp.StatusCode, got)
					}
					readEvents(t, name, want, resp.Body, seen, events)
					resp.Body.Close()
				}
			}
		}
	}
}

// TestAStreamThatIsSharedReachesEachOfItsClientsWithoutDelay has one fetch for several clients.
func TestAStreamThatIsSharedReachesEachOfItsClientsWithoutDelay(t *testing.T) {
	const events, clients = 5, 3
	seen := make(chan int, clients)
	var asked atomic.Int32
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Relais-Mirror") != "" {
			return
		}
		asked.Add(1)
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "max-age=60")
		w.WriteHeader(200)
		http.NewResponseController(w).Flush()
		for i := range events + 1 {
			for range clients {
				if !await(t, seen, i) {
					return
				}
			}
			if i < events {
				io.WriteString(w, event(i))
				http.NewResponseController(w).Flush()
			}
		}
	}, everything)
	var wg sync.WaitGroup
	for _, proto := range []string{"http1", "h2c", "std"} {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", b.base(proto)+"/shared", nil)
		req.Host = "shop.example.com"
		req.Header.Set("Accept-Encoding", "br, gzip")
		resp, err := clientOf(t, proto).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer resp.Body.Close()
			r := decoded(t, "br", resp.Body)
			seen <- 0
			for i := range events {
				got := make([]byte, len(event(i)))
				if _, err := io.ReadFull(r, got); err != nil || string(got) != event(i) {
					t.Errorf("%s: event %d is %q: %v", proto, i, got, err)
				}
				seen <- i + 1
			}
			if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
				t.Errorf("%s: after the last event %q, %v", proto, rest, err)
			}
		})
	}
	wg.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("the origin was asked %d times", n)
	}
}

func event(i int) string { return fmt.Sprintf("id: %d\ndata: something happened\n\n", i) }

// await waits until the client has seen what came before event i.
func await(t *testing.T, seen <-chan int, i int) bool {
	select {
	case got := <-seen:
		if got != i {
			t.Errorf("the client has seen %d events, the origin sent %d", got, i)
		}
		return true
	case <-time.After(20 * time.Second):
		t.Errorf("event %d did not reach the client before the origin had to send the next", i-1)
		return false
	}
}

// tell lets the origin write event i.
func tell(t *testing.T, name string, seen chan<- int, i int) {
	t.Helper()
	select {
	case seen <- i:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: the origin does not wait for event %d to be seen", name, i)
	}
}

// readEvents reads each event before it lets the origin write the next.
func readEvents(t *testing.T, name, coding string, body io.Reader, seen chan<- int, events int) {
	t.Helper()
	tell(t, name, seen, 0)
	var r io.Reader
	for i := range events {
		if r == nil {
			r = decoded(t, coding, body)
		}
		want := event(i)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
			t.Fatalf("%s: event %d is %q: %v", name, i, got, err)
		}
		tell(t, name, seen, i+1)
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("%s: after the last event %q, %v", name, rest, err)
	}
}
