package caching

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// greedy is a bad cache: it keeps everything for ever, whatever anybody says.
type greedy struct {
	next http.Handler
	mu   sync.Mutex
	kept map[string]*httptest.ResponseRecorder
}

func (g *greedy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	rec := g.kept[r.URL.Path]
	g.mu.Unlock()
	if rec == nil {
		rec = httptest.NewRecorder()
		func() {
			defer func() { _ = recover() }()
			g.next.ServeHTTP(rec, r)
		}()
		g.mu.Lock()
		g.kept[r.URL.Path] = rec
		g.mu.Unlock()
	}
	for n, v := range rec.Header() {
		w.Header()[n] = v
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

// TestEveryCaseCanFail: no case passes with both a proxy that never stores and a cache that always
// does, but those that only say what a first answer has.
func TestEveryCaseCanFail(t *testing.T) {
	failed := map[string]bool{}
	for _, wrap := range []func(http.Handler) http.Handler{
		func(h http.Handler) http.Handler { return h },
		func(h http.Handler) http.Handler {
			return &greedy{next: h, kept: map[string]*httptest.ResponseRecorder{}}
		},
	} {
		origin := NewBackend()
		back := httptest.NewServer(origin)
		target, err := url.Parse(back.URL)
		if err != nil {
			t.Fatal(err)
		}
		proxy := httputil.NewSingleHostReverseProxy(target)
		proxy.ErrorLog = log.New(io.Discard, "", 0)
		proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
		front := httptest.NewServer(wrap(proxy))
		for _, r := range Run(t.Context(), front.URL, origin, nil) {
			if r.Why != "" {
				failed[r.Name] = true
			}
		}
		front.Close()
		back.Close()
	}
	for _, c := range Cases() {
		// What forbids a stale answer is right with a proxy that stores nothing, and such a cache as greedy
		// cannot even come to the question.
		if !failed[c.Name] {
			t.Errorf("%s passes with a proxy that never stores and with one that always does", c.Name)
		}
	}
}

func TestCasesAreNamedOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Cases() {
		if seen[c.Name] || strings.ContainsAny(c.Name, " \t") || strings.Count(c.Name, "/") < 2 || c.Says == "" || len(c.Steps) == 0 {
			t.Errorf("%q: named twice, or not as group/section/what, or it does not say what it proves", c.Name)
		}
		seen[c.Name] = true
	}
	if len(seen) < 250 {
		t.Errorf("only %d cases", len(seen))
	}
	if r := Run(context.Background(), "http://127.0.0.1:1", NewBackend(), func(c Case) bool { return c.Name == "fields/9111-3.1/Link" }); len(r) != 1 || r[0].Why == "" {
		t.Errorf("a cache that is not there: %+v", r)
	}
}
