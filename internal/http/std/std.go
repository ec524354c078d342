// Package std serves our requests and answers through net/http: HTTP/1 for listeners with
// engine std, HTTP/2 for all, and, through a handler that another transport calls, HTTP/3.
//
// It is the slow and trusted twin of our own HTTP core, so it gives the same answers. What
// net/http lets pass and our core refuses is refused here too, before a Handler sees it.
// It differs where net/http keeps no record: field lines of a request are sorted by name
// and their names are in canonical case, HTTP/2 request trailers must be announced in the
// Trailer field, and heads are counted as they would be in HTTP/1.
package std

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// Handler answers requests, like that of our own HTTP core.
type Handler interface {
	// Serve answers req; it never returns nil. What the answer lends is good until its
	// Ender is told, and so are req and its body.
	Serve(ctx context.Context, req *message.Request) *message.Response
	// Refuse gives the page for what is no acceptable request; nil for a plain one. Code
	// is a token for counters, detail is for logs.
	Refuse(ctx context.Context, conn *message.Conn, status int, code, detail string) *message.Response
}

// Limits bound a request. Zero means no limit, but for HeadBytes: 1 MiB.
type Limits struct {
	HeadBytes   int   // names and values of a head
	Fields      int   // field lines of a head
	TargetBytes int   // of a request target
	BodyBytes   int64 // of a request body
	Streams     int   // at once on an HTTP/2 connection
	Requests    int   // on one connection, before it is closed in good order
}

// Timeouts bound how long a visitor may take. Zero means no limit.
type Timeouts struct {
	Header time.Duration // for a head
	Body   time.Duration // the longest wait for more of a body
	Write  time.Duration // the longest time in which a visitor takes no byte
	Idle   time.Duration // between requests
	Tunnel time.Duration // the longest silence of both sides of a tunnel
}

// Config is how an Adapter or a Server behaves.
type Config struct {
	Limits   Limits
	Timeouts Timeouts
	Logger   *slog.Logger // nil means none
}

// Adapter turns a Handler into http.Handlers. It is safe for concurrent use.
type Adapter struct {
	cfg      Config
	handler  Handler
	calls    sync.Pool // of *call
	draining atomic.Bool
}

// NewAdapter returns an Adapter of h.
func NewAdapter(cfg Config, h Handler) *Adapter {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Adapter{cfg: cfg, handler: h}
	a.calls.New = func() any { return new(call) }
	return a
}

// Drain has every HTTP/1 and HTTP/2 answer from now on end its connection in good order.
func (a *Adapter) Drain() { a.draining.Store(true) }

// For returns the handler of the requests of one connection, and keeps conn by reference.
// Lifetime, when not nil, takes the place of the requests' contexts; HTTP/1 needs it, where
// net/http ends the context of a client that only closed its sending side.
func (a *Adapter) For(lifetime context.Context, conn *message.Conn) http.Handler {
	h := &connHandler{a: a, conn: conn, context: (*http.Request).Context}
	if lifetime != nil {
		h.context = func(*http.Request) context.Context { return lifetime }
	}
	return h
}

// connHandler serves the requests of one connection.
type connHandler struct {
	a        *Adapter
	conn     *message.Conn
	context  func(*http.Request) context.Context
	requests atomic.Int64
	unhook   func() // told when a hijacked connection is done; may be nil
	reset    func() // ends an HTTP/1 connection so that the client sees an error; may be nil
}

// call is the memory of one request.
type call struct {
	req     message.Request
	trailer message.Fields
	body    body
	ctl     control
	names   []string
}

// ServeHTTP implements http.Handler. It panics with http.ErrAbortHandler, and only so, when
// an answer that has begun cannot be ended, so that it never looks whole.
func (h *connHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := h.a.calls.Get().(*call)
	ctx := h.context(r)
	out := newWriter(h, w, r)
	resp := h.answer(ctx, c, out)
	out.close = out.close || c.body.spoils()
	err := out.send(ctx, resp)
	out.end(resp, err)
	c.release(h.a, err == nil && !out.spoilt)
	if err != nil {
		if h.reset != nil {
			h.reset()
		}
		panic(http.ErrAbortHandler)
	}
}

// answer finds the answer to a request: the Handler's, or a refusal.
func (h *connHandler) answer(ctx context.Context, c *call, out *writer) (resp *message.Response) {
	defer func() {
		if p := recover(); p != nil {
			h.a.cfg.Logger.Error("a handler panicked", "panic", p, "stack", string(debug.Stack()))
			out.close, out.spoilt = out.close || out.r.ProtoMajor == 1, true
			resp = h.refuse(ctx, &refusal{http.StatusInternalServerError, "panic", "the handler panicked"})
		}
	}()
	n, limit := h.requests.Add(1), int64(h.a.cfg.Limits.Requests)
	out.close = h.a.draining.Load() || limit > 0 && n >= limit
	if bad := c.fill(ctx, h, out); bad != nil {
		// A refused stream of HTTP/2 is over by itself; a GOAWAY would hit the requests beside it.
		out.close = out.close || out.r.ProtoMajor == 1
		return h.refuse(ctx, bad)
	}
	return h.a.handler.Serve(ctx, &c.req)
}

// refuse gives the Handler's page, or a plain one.
func (h *connHandler) refuse(ctx context.Context, why *refusal) *message.Response {
	if resp := h.a.handler.Refuse(ctx, h.conn, why.status, why.code, why.detail); resp != nil {
		return resp
	}
	return plainPage(why.status)
}

// maxKept bounds the arena that is kept from one request to the next.
const maxKept = 64 << 10

// release gives the memory of a call back, unless a handler that failed may still hold it.
func (c *call) release(a *Adapter, keep bool) {
	keep = keep && c.req.Size() <= maxKept
	c.body.end()
	c.ctl = control{}
	if keep {
		c.req.Reset()
		c.trailer.Reset()
		a.calls.Put(c)
	}
}

// plainPage is the answer where the Handler has none.
func plainPage(status int) *message.Response {
	resp := &message.Response{Status: status}
	resp.AddString(message.ContentType, "text/plain; charset=utf-8")
	resp.SetBytes([]byte(http.StatusText(status) + "\n"))
	return resp
}
