package shop

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"
)

// Cache-Control of the shop's answers (RFC 9111, RFC 5861).
const (
	cachePage    = "public, max-age=10, stale-while-revalidate=30"
	cacheImage   = "public, max-age=86400"
	cacheAsset   = "public, max-age=604800"
	cacheMissing = "public, max-age=5"
	cachePrivate = "private, no-store"
)

// contentPolicy allows what the shop's pages need and nothing else.
const contentPolicy = "default-src 'none'; img-src 'self'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func (s *Shop) routes() http.Handler {
	mux := http.NewServeMux()
	dynamic := func(pattern string, h http.HandlerFunc) { mux.Handle(pattern, s.admit(true, h)) }
	static := func(pattern string, h http.HandlerFunc) { mux.Handle(pattern, s.admit(false, h)) }

	dynamic("GET /{$}", s.getHome)
	dynamic("GET /c/{category}", s.getCategory)
	dynamic("GET /search", s.getSearch)
	dynamic("GET /p/{sku}", s.getProduct)
	dynamic("GET /basket", s.getBasket)
	dynamic("POST /basket", s.postBasket)
	dynamic("GET /checkout", s.getCheckout)
	dynamic("POST /checkout", s.postCheckout)
	dynamic("GET /order/{id}", s.getOrder)

	dynamic("GET /api/products", s.apiProducts)
	dynamic("GET /api/products/{sku}", s.apiProduct)
	dynamic("GET /api/basket", s.apiGetBasket)
	dynamic("POST /api/basket", s.apiPostBasket)
	dynamic("POST /api/orders", s.apiPostOrder)
	dynamic("GET /api/orders/{id}", s.apiGetOrder)

	mux.HandleFunc("GET /img/{file}", s.getImage) // takes its slot itself
	static("GET /assets/style.css", s.style.serve)
	static("GET /assets/icon.svg", s.icon.serve)
	static("GET /robots.txt", getRobots)
	static("/", s.notFound)

	// Health and counters must answer when every slot is taken.
	mux.HandleFunc("GET /healthz", s.getHealth)
	mux.HandleFunc("GET /stats", s.getStats)
	return s.outer(mux)
}

// outer is around everything: fields that every answer has, the body's size limit, and a
// panic's end.
func (s *Shop) outer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Shop-Cluster", s.cfg.Cluster)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("Referrer-Policy", "same-origin")
		if s.cfg.ReportLoad {
			load := float64(s.slots.inUse()+int(s.slots.waiting.Load())) / float64(s.cfg.Capacity)
			h.Set("Endpoint-Load-Metrics", fmt.Sprintf("TEXT application_utilization=%.3f", load))
		}
		defer func() {
			fault := recover()
			if fault == nil {
				return
			}
			if fault == http.ErrAbortHandler {
				panic(fault) // net/http's own way to cut the connection
			}
			s.cfg.Logger.Error("shop: panic in a request", "path", r.URL.Path, "panic", fault, "stack", string(debug.Stack()))
			s.fail(w, r, http.StatusInternalServerError, "Something broke on our side.")
		}()
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		next.ServeHTTP(w, r)
	})
}

// admit lets a request in when there is a slot, and has dynamic ones hold it for the
// service time.
func (s *Shop) admit(dynamic bool, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.slots.acquire(r.Context()); err != nil {
			s.refuse(w, r)
			return
		}
		defer s.slots.release()
		s.served.Add(1)
		if dynamic && !s.work(r.Context()) {
			panic(http.ErrAbortHandler) // nobody is there to read an answer
		}
		next(w, r)
	})
}

// refuse says that the shop is full.
func (s *Shop) refuse(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Retry-After", "2")
	s.fail(w, r, http.StatusServiceUnavailable, "Every counter is busy just now. Please try again in a moment.")
}

// fail answers with an error as HTML or, under /api/, as a problem document (RFC 9457).
func (s *Shop) fail(w http.ResponseWriter, r *http.Request, status int, detail string) {
	h := w.Header()
	h.Del("Etag")
	h.Set("Cache-Control", cachePrivate)
	if status == http.StatusNotFound {
		h.Set("Cache-Control", cacheMissing)
	}
	if strings.HasPrefix(r.URL.Path, "/api/") {
		s.problem(w, status, detail)
		return
	}
	s.render(w, r, view{Page: "error", Status: status, Title: http.StatusText(status), Body: detail})
}

func (s *Shop) problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(status), "status": status, "detail": detail})
}

func (s *Shop) notFound(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		s.fail(w, r, http.StatusMethodNotAllowed, "This page cannot be used that way.")
		return
	}
	s.fail(w, r, http.StatusNotFound, "We looked on every shelf, but there is nothing at this address.")
}

// fault answers for an error of the database.
func (s *Shop) fault(w http.ResponseWriter, r *http.Request, err error) {
	s.cfg.Logger.Error("shop: the ledger failed", "path", r.URL.Path, "error", hint(err))
	w.Header().Set("Retry-After", "1")
	s.fail(w, r, http.StatusServiceUnavailable, "Our books are closed for a moment. Nothing is lost; please try again.")
}

func (s *Shop) getHealth(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	if _, err := s.store.reads.ExecContext(ctx, "SELECT 1 FROM orders LIMIT 1"); err != nil {
		s.cfg.Logger.Error("shop: not healthy", "error", hint(err))
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte("the ledger does not answer\n"))
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}

func (s *Shop) getStats(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.Stats())
}

func getRobots(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", cacheAsset)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("User-agent: *\nDisallow: /basket\nDisallow: /checkout\nDisallow: /order/\nDisallow: /api/\n"))
}

// firstDay is the Last-Modified of everything that never changes.
func firstDay() time.Time { return time.Date(2026, time.January, 5, 8, 0, 0, 0, time.UTC) }

// asset is a file of the site that is part of the program.
type asset struct {
	contentType, body, etag, version string
}

func newAsset(contentType, body string) asset {
	version := digest([]byte(body))
	return asset{contentType, body, `"` + version + `"`, version}
}

func (a asset) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", cacheAsset)
	h.Set("Content-Type", a.contentType)
	h.Set("Etag", a.etag)
	http.ServeContent(w, r, "", firstDay(), strings.NewReader(a.body))
}

// digest is a short name of some bytes, for entity tags.
func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// writePublic answers with a page that caches may keep, with a strong entity tag of its
// bytes, so that revalidation costs no transfer.
func writePublic(w http.ResponseWriter, r *http.Request, body []byte) {
	h := w.Header()
	h.Set("Cache-Control", cachePage)
	h.Set("Etag", `"`+digest(body)+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// isToken reports whether s has between low and high characters, all of the unreserved set
// of RFC 3986 and ':'.
func isToken(s string, low, high int) bool {
	if len(s) < low || len(s) > high {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '.' || c == '_' || c == '~' || c == ':' || c == '-':
		default:
			return false
		}
	}
	return true
}

// tooLarge reports whether a body went over its limit.
func tooLarge(err error) bool {
	var limit *http.MaxBytesError
	return errors.As(err, &limit)
}
