package replay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge"
	"github.com/relais-edge/relais/internal/edge/record"
	"github.com/relais-edge/relais/internal/observe"
)

// recording is an edge that keeps every request.
func recording(t *testing.T, dir string, b *bundle.Bundle) (e *edge.Edge, stop func()) {
	t.Helper()
	e, err := edge.New(edge.Config{
		Data: t.TempDir(), CacheBytes: 16 << 20, Explain: 64, Logger: slog.New(slog.DiscardHandler), Metrics: observe.New(),
		Record: &record.KeeperConfig{Share: 1, Bytes: 8 << 20, OrgBytes: 8 << 20, OrgCount: 10_000, BodyBytes: 4 << 10, Dir: dir, FileBytes: 4 << 20, Clients: record.ClientsHashed},
	})
	if err != nil {
		t.Fatal(err)
	}
	e.SetRevision("abc123")
	if err := e.Apply(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return e, stop
}

// exported waits for n requests of a record and reads them.
func exported(t *testing.T, e *edge.Edge, n int) (list []*record.Request, text string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var b bytes.Buffer
		if err := e.ExportRecord(&b, ""); err != nil {
			t.Fatal(err)
		}
		list, bad, err := Read(bytes.NewReader(b.Bytes()), 1000)
		if err != nil || len(bad) > 0 {
			t.Fatal(err, bad)
		}
		if len(list) >= n {
			return list, b.String()
		}
		if time.Now().After(end) {
			t.Fatalf("%d requests are kept, want %d", len(list), n)
		}
	}
}

func TestWhatAnEdgeKeptIsReplayedAsItWas(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/html")
		switch {
		case r.URL.Path == "/page":
			w.Header().Set("Cache-Control", "max-age=600")
			w.Header().Set("ETag", `"1"`)
		case r.URL.Path == "/missing":
			w.WriteHeader(404)
		default:
			http.SetCookie(w, &http.Cookie{Name: "sid", Value: "originsecret99"})
		}
		_, _ = io.WriteString(w, strings.Repeat("hello ", 500))
	}))
	defer origin.Close()
	docs := strings.Replace(documents(", cache: pages, waf: strict, compression: {}"), "127.0.0.1:9", strings.TrimPrefix(origin.URL, "http://"), 1)
	b := compiled(t, docs)
	dir := t.TempDir()
	e, stop := recording(t, dir, b)
	url := "http://" + e.Addresses()[0]
	n := 0
	send := func(method, path, kind, body string) {
		t.Helper()
		n++
		req, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "shop.example"
		req.Header.Set("User-Agent", "Mozilla/5.0")
		req.Header.Set("Accept", "*/*")
		req.Header.Set("Cookie", "sid=visitorsecret11; lang=french")
		req.Header.Set("Authorization", "Bearer topsecret22")
		if method == "GET" {
			req.Header.Del("Authorization")
		}
		if kind != "" {
			req.Header.Set("Content-Type", kind)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	const form = "application/x-www-form-urlencoded"
	for range 3 {
		send("GET", "/page", "", "")
	}
	send("GET", "/missing", "", "")
	send("GET", "/search?q=%27%20or%20%271%27=%271", "", "")
	send("POST", "/login", form, "user=elisabeth.miller%40mail.example&password=hunter2secret")
	send("POST", "/login", form, "user=%27+union+select+password+from+users--")
	send("POST", "/pay", "application/json", `{"card":"4111111111111111","holder":"Elisabeth Miller"}`)
	send("POST", "/note", "text/plain", strings.Repeat("long ", 2000))
	list, text := exported(t, e, n)
	for _, secret := range []string{"visitorsecret11", "topsecret22", "originsecret99", "elisabeth", "Elisabeth", "hunter2secret", "4111111111111111"} {
		if strings.Contains(text, secret) {
			t.Errorf("%s is in the record:\n%s", secret, text)
		}
	}
	for _, attack := range []string{"%27%20or%20%271%27=%271", "%27+union+select+", "sid=", "abc123"} {
		if !strings.Contains(text, attack) {
			t.Errorf("%s is not in the record:\n%s", attack, text)
		}
	}
	s, err := Run(t.Context(), &Question{Before: b, After: compiled(t, docs), Requests: list, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if s.Different != 0 || s.Recorded != (Drift{}) || s.Requests != n || s.Cut != 1 {
		t.Errorf("%+v\n%s", s, text)
	}
	// Over a restart, and after a process that was killed while it wrote.
	stop()
	file := filepath.Join(dir, "requests.ndjson")
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, kept[:len(kept)-40], 0o600); err != nil {
		t.Fatal(err)
	}
	e, stop = recording(t, dir, b)
	list, _ = exported(t, e, n-1)
	if len(list) != n-1 {
		t.Errorf("%d requests after a torn line, want %d", len(list), n-1)
	}
	url = "http://" + e.Addresses()[0]
	send("GET", "/page", "", "")
	exported(t, e, n-1)
	stop()
	e, _ = recording(t, dir, b)
	if list, _ = exported(t, e, n-1); len(list) != n-1 { // one was torn, and one is new
		t.Errorf("%d requests, want %d", len(list), n-1)
	}
}
