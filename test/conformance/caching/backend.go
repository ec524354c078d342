package caching

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Backend is the origin behind the cache. It implements http.Handler.
type Backend struct {
	mu      sync.Mutex
	scripts map[string]*script // by path
}

// NewBackend returns an origin that knows no case yet.
func NewBackend() *Backend { return &Backend{scripts: map[string]*script{}} }

// script is what the origin answers to the requests of one case.
type script struct {
	path string

	mu       sync.Mutex
	n        int // the step
	step     *Step
	header   http.Header // of the last request in this step; nil when there was none
	when     time.Time
	statuses map[string]int // by reply
	bodies   map[string]string
}

func (b *Backend) expect(path string) *script {
	s := &script{path: path, statuses: map[string]int{}, bodies: map[string]string{}}
	b.mu.Lock()
	b.scripts[path] = s
	b.mu.Unlock()
	return s
}

// ServeHTTP implements http.Handler.
func (b *Backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	b.mu.Lock()
	s := b.scripts[path]
	if s == nil { // a case's neighbour, such as PATH/other
		s = b.scripts[strings.TrimSuffix(path, "/other")]
	}
	b.mu.Unlock()
	if s == nil {
		http.Error(w, "no case has this path", http.StatusTeapot)
		return
	}
	s.serve(w, r)
}

func (s *script) next(step *Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	s.step, s.header, s.when = step, nil, time.Now()
}

func (s *script) id() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprint(s.n)
}

func (s *script) asked() (http.Header, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.header, s.when
}

func (s *script) statusOf(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.statuses[id]
}

func (s *script) bodyOf(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bodies[id]
}

func (s *script) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	step, id := s.step, fmt.Sprint(s.n)
	s.header, s.when = r.Header.Clone(), time.Now()
	s.mu.Unlock()
	reply := &step.Reply
	if reply.Hangup {
		panic(http.ErrAbortHandler)
	}
	time.Sleep(reply.Delay)
	now := time.Now()
	if reply.Interim != 0 {
		for _, f := range reply.Early {
			name, value, _ := strings.Cut(f, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(reply.Interim)
		clear(w.Header())
	}
	h := w.Header()
	h["Date"] = nil // only where the case says so
	h["Content-Type"] = []string{"text/plain"}
	typed := false
	for _, f := range reply.Fields {
		name, value, _ := strings.Cut(f, ": ")
		name = http.CanonicalHeaderKey(name)
		if name == "Content-Type" || name == "Date" && h["Date"] == nil {
			delete(h, name)
			typed = typed || name == "Content-Type"
		}
		h[name] = append(h[name], expand(strings.ReplaceAll(value, "PATH", s.path), now))
	}
	status, body := reply.Status, reply.Body
	if status == 0 {
		status = http.StatusOK
	}
	validated := step.From == Validated && conditional(r.Header)
	if validated {
		status = http.StatusNotModified
		if !typed {
			delete(h, "Content-Type")
		}
	} else {
		h.Set("Reply-Id", id)
	}
	if body == "" && status != 204 && status != 304 {
		body = "answer " + id + " of " + s.path
	}
	if r.Method == http.MethodHead {
		h.Set("Content-Length", fmt.Sprint(len(body)))
	}
	s.mu.Lock()
	if !validated {
		s.statuses[id], s.bodies[id] = status, body
	}
	s.mu.Unlock()
	w.WriteHeader(status)
	if status != 204 && status != 304 {
		_, _ = w.Write([]byte(body))
	}
	if reply.Cut {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func conditional(h http.Header) bool {
	return present(h, "If-None-Match") || present(h, "If-Modified-Since")
}

func present(h http.Header, name string) bool { return len(h.Values(name)) > 0 }
