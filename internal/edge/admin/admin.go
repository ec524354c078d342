// Package admin is the local door of an edge for the engineer on call: an HTTP server on a
// Unix socket that explains the last requests, shows metrics and profiles, and says how the edge is.
// Whoever may open the socket's file may ask; visitors cannot reach it.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// Explainer knows the last requests; *record.Ring through the edge is one.
type Explainer interface {
	// Explain returns what is known of a request, ready for JSON.
	Explain(id stage.RequestID) (any, bool)
	// Recent returns up to n requests, the newest first.
	Recent(n int) any
}

// Status is how an edge is.
type Status struct {
	Version   string       `json:"version"`
	Pid       int          `json:"pid"`
	Started   time.Time    `json:"started"`
	Revision  string       `json:"revision"` // digest of the bundle in service
	Applied   time.Time    `json:"applied"`
	Sites     int          `json:"sites"`
	Listeners []bundle.Key `json:"listeners"`
	// Problem is why the newest documents are not in service; empty when they are.
	Problem string `json:"problem,omitempty"`
	// WAFDoubts are the rules of which the firewall's screen proved wrongly that they do not match, ready for
	// JSON; nil when there are none.
	WAFDoubts any `json:"wafDoubts,omitempty"`
	// WAFCandidates are what the candidates of firewall policies would do otherwise, ready for JSON; nil when there are none.
	WAFCandidates any `json:"wafCandidates,omitempty"`
}

// Config of a Server.
type Config struct {
	Path string // of the socket
	// Listener is the socket when it is open already; nil has Run open Path.
	Listener net.Listener
	Explain  Explainer
	Metrics  *observe.Registry
	Status   func() Status
	// Pools says how the pools in use are, ready for JSON; nil where there are none.
	Pools func() any
	// Load lists the recorded load of a pool, or of all when key is empty, ready for JSON; nil where there is none.
	Load func(key string) any
	// Record writes the requests that were kept, of one organization or of all, as NDJSON; nil where none are.
	Record func(w io.Writer, organization string) error
	// Bundle is what is in service, ready for JSON; nil where nothing is.
	Bundle func() any
	// Endpoints lists what is known of a site's endpoints, ready for JSON; nil where there are none.
	Endpoints func(site string) (any, bool)
	// Cache answers what is below /cache/; nil where there is none.
	Cache http.Handler
	// WAF answers what is below /waf/; nil where there is none.
	WAF http.Handler
	// Packet answers what is below /packet/; nil where there is no packet filter.
	Packet http.Handler
	// Flood answers what is below /flood/; nil where there is none.
	Flood http.Handler
	// Upgrade has a new program take over and returns the id of its process, or why it could
	// not; nil where that cannot be.
	Upgrade func(ctx context.Context) (pid int, err error)
}

// Server is the admin server.
type Server struct{ cfg Config }

// New returns a server; Run opens its socket.
func New(cfg Config) *Server { return &Server{cfg} }

// lastAnswers is how long questions under way may take when the server ends.
const lastAnswers = time.Second

// Run serves until ctx ends; then it ends what is under way after a moment.
func (s *Server) Run(ctx context.Context) error {
	ln := s.cfg.Listener
	if ln == nil {
		var err error
		if ln, err = Open(ctx, s.cfg.Path); err != nil {
			return err
		}
	}
	srv := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastAnswers)
		defer cancel()
		_ = srv.Shutdown(last)
		_ = srv.Close()
	})
	err := srv.Serve(ln)
	if !stop() {
		<-ended
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return context.Cause(ctx)
}

// Open opens the socket; a file left by a process that was killed is replaced, one in use is not.
func Open(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("admin socket: %w; choose another folder with --data", err)
	}
	if _, err := os.Stat(path); err == nil {
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			_ = c.Close()
			return nil, fmt.Errorf("admin socket %s is in use: another relais runs with this folder; choose another with --data", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("admin socket: %w", err)
		}
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w; choose another folder with --data", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	return ln, nil
}

// maxRecent bounds how many requests one question may list.
const maxRecent = 1000

// Handler answers the questions.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.cfg.Metrics.Handler())
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, s.cfg.Status()) })
	mux.HandleFunc("GET /pools", func(w http.ResponseWriter, _ *http.Request) {
		if s.cfg.Pools == nil {
			refuse(w, http.StatusNotImplemented, "this process has no pools; relais serve has")
			return
		}
		answer(w, http.StatusOK, s.cfg.Pools())
	})
	mux.HandleFunc("GET /load", func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Load == nil {
			refuse(w, http.StatusNotImplemented, "this process records no load; relais serve does")
			return
		}
		answer(w, http.StatusOK, s.cfg.Load(r.FormValue("pool")))
	})
	mux.HandleFunc("GET /record", func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Record == nil {
			refuse(w, http.StatusNotImplemented, "this process keeps no requests; relais serve --record does")
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		_ = s.cfg.Record(w, r.FormValue("organization")) // the client is gone
	})
	mux.HandleFunc("GET /bundle", func(w http.ResponseWriter, _ *http.Request) {
		if s.cfg.Bundle == nil {
			refuse(w, http.StatusNotImplemented, "this process has no documents in service; relais serve has")
			return
		}
		answer(w, http.StatusOK, s.cfg.Bundle())
	})
	mux.HandleFunc("GET /api/endpoints", func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Endpoints == nil {
			refuse(w, http.StatusNotImplemented, "this process finds no endpoints; relais serve does")
			return
		}
		found, ok := s.cfg.Endpoints(r.FormValue("site"))
		if !ok {
			refuse(w, http.StatusNotFound, "no endpoints are known of this site: it has no ApiPolicy with discovery, or nobody has asked for it yet")
			return
		}
		answer(w, http.StatusOK, found)
	})
	mux.HandleFunc("GET /profile", profile)
	mux.HandleFunc("/waf/", func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.WAF == nil {
			refuse(w, http.StatusNotImplemented, "this process has no firewall; relais serve has")
			return
		}
		s.cfg.WAF.ServeHTTP(w, r)
	})
	mux.HandleFunc("/cache/", func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Cache == nil {
			refuse(w, http.StatusNotImplemented, "this process has no cache; relais serve has")
			return
		}
		s.cfg.Cache.ServeHTTP(w, r)
	})
	mux.HandleFunc("/packet/", func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Packet == nil {
			refuse(w, http.StatusNotImplemented, "this process has no packet filter; relais serve --packet has")
			return
		}
		s.cfg.Packet.ServeHTTP(w, r)
	})
	mux.HandleFunc("/flood/", func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Flood == nil {
			refuse(w, http.StatusNotImplemented, "this process has no detector of floods; relais serve has")
			return
		}
		s.cfg.Flood.ServeHTTP(w, r)
	})
	mux.HandleFunc("POST /upgrade", s.upgrade)
	mux.HandleFunc("GET /explain/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, ok := stage.ParseRequestID(r.PathValue("id"))
		if !ok {
			refuse(w, http.StatusBadRequest, "a request id has 26 characters, as in the X-Request-Id of an answer")
			return
		}
		e, ok := s.cfg.Explain.Explain(id)
		if !ok {
			refuse(w, http.StatusNotFound, "no request with this id among the last ones; it is too old, or another edge served it")
			return
		}
		answer(w, http.StatusOK, e)
	})
	mux.HandleFunc("GET /explain", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.FormValue("last"))
		if err != nil || n < 1 {
			n = 20
		}
		answer(w, http.StatusOK, s.cfg.Explain.Recent(min(n, maxRecent)))
	})
	return mux
}

// Upgraded is the answer to POST /upgrade.
type Upgraded struct {
	Pid int `json:"pid"` // of the new process
}

func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Upgrade == nil {
		refuse(w, http.StatusNotImplemented, "this process cannot hand over to another; relais serve can")
		return
	}
	pid, err := s.cfg.Upgrade(r.Context())
	if err != nil {
		refuse(w, http.StatusConflict, err.Error())
		return
	}
	answer(w, http.StatusOK, Upgraded{pid})
}

// maxProfile bounds how long one profile may take.
const maxProfile = time.Minute

// profile gives a CPU profile of the next seconds, for `go tool pprof`.
func profile(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.FormValue("seconds"))
	if err != nil || n < 1 {
		n = 10
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := pprof.StartCPUProfile(w); err != nil {
		refuse(w, http.StatusConflict, err.Error())
		return
	}
	defer pprof.StopCPUProfile()
	select {
	case <-r.Context().Done():
	case <-time.After(min(time.Duration(n)*time.Second, maxProfile)):
	}
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the client is gone
}

func refuse(w http.ResponseWriter, status int, why string) {
	answer(w, status, map[string]string{"error": why})
}
