// Package origin is the end of the chain: it sends a request to the origin that balance chose,
// on a connection that it keeps for the next one, and says in RFC 9209's words what failed.
package origin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/http2"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// name of the handler, in trails.
const name = "origin"

const (
	noLimit = 24 * time.Hour
	// silence is how long a gRPC stream may bring nothing: its sides are silent as long as they
	// like, and pings show that the origin is there.
	silence = time.Hour
	// maxAways is how often one request may meet a connection that goes away in good order.
	maxAways = 8
)

// Config is what the handler must be told. Zero values other than Slot mean the default.
type Config struct {
	Slot stage.Slot
	// MaxAge is how long a connection is used at most when its pool does not say; 10 minutes.
	MaxAge time.Duration
	// MaxWaiting is how many requests may wait for a connection to one origin when its pool does not
	// say; 1024.
	MaxWaiting int
	// Authority issues the client certificates that are the internal CA's; nil means that there is none.
	Authority Authority
}

// Handler sends requests to origins. It is the last stage.Handler of the chain, and what
// the balance stage opens targets with.
type Handler struct {
	cfg     Config
	epoch   time.Time
	client  *http1.Client
	client2 *http2.Client
	metrics *metrics

	certificates clientCertificates

	mu        sync.Mutex
	endpoints map[*endpoint]struct{}
	closed    bool
}

// New returns a handler. It starts nothing: without Run no limit of time is kept.
func New(cfg Config, reg *observe.Registry) *Handler {
	if cfg.MaxAge <= 0 {
		cfg.MaxAge = 10 * time.Minute
	}
	if cfg.MaxWaiting <= 0 {
		cfg.MaxWaiting = 1024
	}
	return &Handler{
		certificates: clientCertificates{authority: cfg.Authority},
		cfg:          cfg, epoch: time.Now(), metrics: newMetrics(reg), endpoints: map[*endpoint]struct{}{},
		// A route decides how long the head may take, so the client has no limit of its own.
		client:  http1.NewClient(http1.ClientConfig{HeadTimeout: noLimit}),
		client2: http2.NewClient(http2.ClientConfig{HeadTimeout: noLimit, Streams: perConn}),
	}
}

// clock is monotonic, nanoseconds.
func (h *Handler) clock() int64 { return int64(time.Since(h.epoch)) }

// Open makes a target for an address (host:port) of a pool. It connects nothing. An error says
// what in spec cannot work.
func (h *Handler) Open(pool bundle.Key, address string, spec *v1.ConnectionSpec) (stage.Target, error) {
	e, err := newEndpoint(h, pool, address, spec)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	e.closed = h.closed
	e.stats = h.metrics.join(pool)
	h.endpoints[e] = struct{}{}
	return e, nil
}

// Close closes the idle connections of a target that Open made. Those that are busy end with
// their request. A target that is still used works, but keeps no connection.
func (h *Handler) Close(t stage.Target) {
	e, ok := t.(*endpoint)
	if !ok {
		return
	}
	h.mu.Lock()
	_, known := h.endpoints[e]
	delete(h.endpoints, e)
	h.mu.Unlock()
	e.close()
	if known {
		h.metrics.leave(e.stats)
	}
}

// Run keeps limits of time, once a second closes connections that were idle for too long, and
// shows the gauges. When ctx ends it closes the idle connections.
func (h *Handler) Run(ctx context.Context) error {
	done := make(chan error, 2)
	go func() { done <- h.client.Run(ctx) }()
	go func() { done <- h.client2.Run(ctx) }()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			h.mu.Lock()
			h.closed = true
			h.mu.Unlock()
			h.each(func(e *endpoint) { e.close() })
			return errors.Join(<-done, <-done)
		case <-tick.C:
			now := h.clock()
			h.each(func(e *endpoint) { e.expire(now) })
			h.certificates.refresh()
			h.metrics.show()
		}
	}
}

func (h *Handler) each(f func(*endpoint)) {
	h.mu.Lock()
	list := make([]*endpoint, 0, len(h.endpoints))
	for e := range h.endpoints {
		list = append(list, e)
	}
	h.mu.Unlock()
	for _, e := range list {
		f(e)
	}
}

// work is what an exchange keeps for this handler: the memory of the answer, and its body.
type work struct {
	resp    message.Response
	body    body
	trailer message.Fields
}

// Serve implements stage.Handler: it sends x.Out to x.Target.
func (h *Handler) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	e, ok := x.Target.(*endpoint)
	if !ok {
		return nil, errNoTarget
	}
	w, _ := x.Local[h.cfg.Slot].(*work)
	if w == nil {
		w = &work{}
		x.Local[h.cfg.Slot] = w
	}
	w.body.Close(errUnfinished)
	x.OnEnd(w)
	x.MayBlock()
	if fault := h.exchange(ctx, x, e, w); fault != nil {
		e.stats.failed(fault.Code)
		x.MarkDetail(name, fault.Code, e.address)
		return nil, fault
	}
	x.MarkDetail(name, "answer", e.address)
	if w.resp.Body != nil {
		w.body = body{inner: w.resp.Body, x: x, stats: e.stats, w: w}
		w.resp.Body = &w.body
		if w.body.trailer = w.resp.Trailer; w.resp.Trailer != nil {
			w.trailer.Reset()
			w.resp.Trailer = &w.trailer
		}
	}
	return &w.resp, nil
}

// exchange sends the request and reads the head of the answer. A connection that had been
// idle may be found dead only now: then the request goes once more, on a fresh one, if that
// does no harm.
func (h *Handler) exchange(ctx context.Context, x *stage.Exchange, e *endpoint, w *work) *stage.Error {
	want := wish{maxIdle: int64(e.spec.Idle), deadline: x.Deadline, host: e.hostOf(x), now: int64(x.Now().Sub(h.epoch))}
	if e.proxies() {
		want.proxy = visitorOf(x)
	}
	if e.signer != nil {
		e.signer.sign(&x.Out, e.tls != nil, time.Now())
	}
	repeatable := x.Out.Method.Idempotent() || len(x.Out.Get(message.IdempotencyKey)) > 0
	if !repeatable {
		want.maxIdle = min(want.maxIdle, young)
		want.sure = true
	}
	try := http1.Try{Inform: x, Head: x.Deadline, Wait: x.Wait, Body: e.spec.Read.Std(), Upgrade: mayUpgrade(x.Out.Get(message.Upgrade))}
	hot := x.Out.Method.Safe() && !x.Shared
	want.http1 = try.Upgrade && e.byHTTP1(x.Out.Get(message.Upgrade))
	if message.IsGRPC(&x.Out.Fields) {
		try.Body = silence
		if d, ok := message.GRPCTimeout(&x.Out.Fields); ok && d < noLimit {
			try.Head = earlier(try.Head, x.Start.Add(d))
		}
	}
	for aways := 0; ; {
		x.Sent = false
		c, err := e.get(ctx, want)
		if err != nil {
			x.Lap()
			return connectFault(ctx, err)
		}
		fresh := !c.used.Swap(true)
		if fresh {
			x.Lap()
			x.MarkDetail(name, "connect", e.address)
		} else {
			e.stats.reused.Inc()
		}
		try.Hot = c.h2 == nil && !fresh && hot && want.now-c.idleSince < warm
		err = c.roundTrip(ctx, x, &w.resp, try)
		x.Lap()
		if err == nil {
			x.Sent = true
			return unasked(x, &w.resp)
		}
		failed := asError(err)
		x.Sent = failed.Sent
		again := (failed.Reused || c.h2 != nil && !failed.Sent) && !want.fresh && !failed.Timeout && (repeatable || !failed.Sent)
		switch {
		case c.h2 == nil:
		case e.otherwise(failed):
			again, want.http1 = !want.http1, true
		case errors.Is(failed.Err, http2.ErrGoAway):
			// The origin did nothing, and asks for another connection.
			aways++
			again = aways <= maxAways
		}
		if !again || ctx.Err() != nil || !rewind(x.Out.Body) {
			return exchangeFault(ctx, failed)
		}
		x.MarkDetail(name, "stale", e.address)
		e.stats.stale.Inc()
		x.Tries++ // it may have arrived twice
		want.fresh = true
	}
}

// unasked refuses a 304 to a request that had no condition for it (RFC 9110 section 15.4.5): who gets it
// has nothing that it could mean.
func unasked(x *stage.Exchange, resp *message.Response) *stage.Error {
	if resp.Status != 304 || x.Out.Has(message.IfNoneMatch) || x.Out.Has(message.IfModifiedSince) {
		return nil
	}
	if resp.Body != nil {
		resp.Body.Close(errUnasked)
		resp.Body = nil
	}
	failed := fault("http_protocol_error", 502, errUnasked)
	failed.Retry = false // it has answered, and another one runs the same program
	return failed
}

// earlier is the earlier of two times; zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// mayUpgrade says whether a request may ask the origin for these protocols. A tunnel of HTTP/2
// in clear (h2c) would carry requests past every stage, so it is not asked for.
func mayUpgrade(protocols []byte) bool {
	for rest := protocols; len(rest) > 0; {
		var p []byte
		p, rest, _ = bytes.Cut(rest, []byte{','})
		if p = bytes.TrimSpace(p); message.EqualFold(p, "h2c") || message.EqualFold(p, "h2") || bytes.HasPrefix(p, []byte("HTTP/")) {
			return false
		}
	}
	return protocols != nil
}

// rewinder is a request body that can be sent again; balance's is one.
type rewinder interface {
	// Rewind says whether the body can be pulled from its start again, and does so.
	Rewind() bool
}

func rewind(b message.Body) bool {
	if b == nil {
		return true
	}
	r, ok := b.(rewinder)
	return ok && r.Rewind()
}

// End implements message.Ender: a body that nobody closed is closed now.
func (w *work) End(message.Outcome) {
	w.body.Close(errUnfinished)
}

// body is an answer's body on its way. It says in the trail why it broke.
type body struct {
	inner message.Body
	x     *stage.Exchange
	stats *poolStats
	w     *work
	// trailer is the connection's; it is copied, since the connection may serve another
	// request before this one's trailer has been sent.
	trailer *message.Fields
}

// Ready implements message.Prompt.
func (b *body) Ready() bool {
	p, ok := b.inner.(message.Prompt)
	return ok && p.Ready()
}

// Next implements message.Body. An error other than io.EOF is a *stage.Error, or ctx's own.
func (b *body) Next(ctx context.Context) ([]byte, error) {
	if b.inner == nil {
		return nil, errUnfinished
	}
	p, err := b.inner.Next(ctx)
	switch {
	case err == nil:
	case err != io.EOF:
		err = b.broke(ctx, err)
	case b.trailer != nil:
		b.w.trailer.CopyFrom(b.trailer)
		b.trailer = nil
	}
	return p, err
}

// Close implements message.Body.
func (b *body) Close(cause error) {
	if b.inner != nil {
		b.inner.Close(cause)
		*b = body{}
	}
}
