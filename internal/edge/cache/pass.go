package cache

import (
	"context"
	"io"
	"net/url"
	"strings"

	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/edge/cache/store"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// bypass forwards what is not looked up.
func (s *Stage) bypass(ctx context.Context, x *stage.Exchange, next stage.Handler, why string) (*message.Response, error) {
	s.done(x, resultBypass, why)
	resp, err := next.Serve(ctx, x)
	if err == nil {
		fwd := fwdBypass
		if why == "no-store" {
			fwd = fwdRequest
		} else if why == "method" {
			fwd = fwdMethod
		}
		s.addStatus(&resp.Fields, &status{fwd: fwd})
	}
	return resp, err
}

// pass forwards a request as it is, for nobody but its client; where x is shared the answer is
// stored on its way through if it may be. Else it was not asked for with the care for that, and the
// next request will be.
func (s *Stage) pass(ctx context.Context, x *stage.Exchange, next stage.Handler, l *local, r result, why forward) (*message.Response, error) {
	epoch := s.epoch(l.hash).Load()
	sent := s.now(x)
	resp, err := next.Serve(ctx, x)
	if err != nil {
		s.done(x, r, "")
		return resp, err
	}
	e := &semantics.Exchange{
		Authorization: x.In.Has(message.Authorization), Status: resp.Status,
		Fields: &resp.Fields, Sent: sent, Came: s.now(x),
	}
	c := semantics.ParseResponse(&resp.Fields)
	life, not := semantics.Judge(e, &c, &l.rule.Policy)
	if not == semantics.Stored && resp.ContentLength > l.rule.maxObject {
		not = "too-large"
	}
	if not == semantics.Stored && !x.Shared {
		not = "pass"
		s.endPass(l.hash, l.key)
	}
	if not == semantics.Stored {
		var kept, own message.Fields
		fieldsOf(&kept, &own, &resp.Fields, &c, e.Came)
		t := &l.tee
		*t = tee{
			s: s, key: l.key, hash: l.hash, epoch: epoch, max: l.rule.maxObject, total: resp.ContentLength,
			obj: newObject(life, resp.Status, &kept, l.rule, x.Route.Name, x.In),
		}
		if resp.Body != nil {
			t.inner = resp.Body
			resp.Body = t
		} else {
			t.total = -1
			t.record(resp.Bytes)
			t.commit()
		}
	}
	s.addStatus(&resp.Fields, &status{fwd: why, stored: not == semantics.Stored, detail: not})
	s.done(x, r, not)
	return resp, nil
}

// tee is a body that is stored as its client reads it. It implements message.Body.
type tee struct {
	s          *Stage
	inner      message.Body
	obj        *object // nil once it is not to be stored
	key        []byte  // of the exchange, which outlives the body
	hash       store.Hash
	epoch      uint32
	max, total int64
	buf        []byte
}

// Next implements message.Body.
func (t *tee) Next(ctx context.Context) ([]byte, error) {
	chunk, err := t.inner.Next(ctx)
	t.record(chunk)
	if err == io.EOF {
		t.commit()
	} else if err != nil {
		t.drop()
	}
	return chunk, err
}

// Ready implements message.Prompt.
func (t *tee) Ready() bool {
	p, ok := t.inner.(message.Prompt)
	return ok && p.Ready()
}

// Close implements message.Body.
func (t *tee) Close(cause error) {
	t.drop()
	t.inner.Close(cause)
}

func (t *tee) record(chunk []byte) {
	if t.obj == nil || len(chunk) == 0 {
		return
	}
	t.buf = append(t.buf, chunk...)
	if !t.s.charge(int64(len(chunk))) || int64(len(t.buf)) > t.max {
		t.s.m.tooLarge.Inc()
		t.drop()
	}
}

func (t *tee) commit() {
	if o := t.obj; o != nil && (t.total < 0 || t.total == int64(len(t.buf))) && t.s.epoch(t.hash).Load() == t.epoch {
		o.body = append(make([]byte, 0, len(t.buf)), t.buf...)
		t.s.keep(t.hash, t.key, o)
		t.s.m.stored.Inc()
	}
	t.drop()
}

func (t *tee) drop() {
	t.s.charge(-int64(len(t.buf)))
	t.obj, t.buf = nil, nil
}

// head forwards a HEAD that nothing stored answers. Its answer is not stored, but says whether
// a stored one is still good (RFC 9111 section 4.3.5).
func (s *Stage) head(ctx context.Context, x *stage.Exchange, next stage.Handler, l *local, o *object, why forward) (*message.Response, error) {
	x.Shared = true
	sent := s.now(x)
	epoch := s.epoch(l.hash).Load()
	resp, err := next.Serve(ctx, x)
	s.done(x, resultPass, "")
	if err != nil {
		return resp, err
	}
	if o != nil && resp.Status == 200 && o.status == 200 {
		s.freshenByHead(x, l, o, resp, &semantics.Exchange{Status: 200, Authorization: x.In.Has(message.Authorization), Sent: sent, Came: s.now(x)}, epoch)
	}
	s.addStatus(&resp.Fields, &status{fwd: why})
	return resp, nil
}

func (s *Stage) freshenByHead(x *stage.Exchange, l *local, o *object, resp *message.Response, e *semantics.Exchange, epoch uint32) {
	if !semantics.HeadFreshens(&resp.Fields, &o.fields, resp.ContentLength, int64(len(o.body))) {
		s.forget(l.hash, l.key, o)
		return
	}
	var merged, kept, own message.Fields
	mergeFields(&merged, &own, &o.fields, &resp.Fields)
	if !resp.Has(message.Date) {
		var buf [32]byte
		merged.Set(message.Date, semantics.AppendDate(buf[:0], e.Came))
	}
	if v := resp.Get(message.Age); v != nil {
		merged.Add(message.Age, v)
	}
	c := semantics.ParseResponse(&merged)
	e.Fields = &merged
	life, not := semantics.Judge(e, &c, &l.rule.Policy)
	if not != semantics.Stored {
		s.forget(l.hash, l.key, o)
		return
	}
	fieldsOf(&kept, &own, &merged, &c, e.Came)
	n := newObject(life, o.status, &kept, l.rule, x.Route.Name, x.In)
	n.body = o.body
	if s.epoch(l.hash).Load() == epoch {
		s.keep(l.hash, l.key, n)
	}
}

// unsafe forwards a request that may change things. Its success invalidates what is stored of
// its target, and of what Location and Content-Location name on the same host (RFC 9111 section 4.4).
func (s *Stage) unsafe(ctx context.Context, x *stage.Exchange, next stage.Handler, p *part) (*message.Response, error) {
	s.done(x, resultBypass, "method")
	resp, err := next.Serve(ctx, x)
	if err != nil {
		return resp, err
	}
	if resp.Status >= 200 && resp.Status < 400 && x.In.Method != message.CONNECT {
		l := s.local(x)
		s.invalidate(l, x, p, x.In.Path(), x.In.Query())
		for _, id := range [...]message.ID{message.Location, message.ContentLocation} {
			if v := resp.Get(id); v != nil {
				s.invalidateReference(l, x, p, string(v))
			}
		}
	}
	if x.Route != nil && x.Route.Index < len(p.routes) && p.routes[x.Route.Index] != nil {
		s.addStatus(&resp.Fields, &status{fwd: fwdMethod})
	}
	return resp, nil
}

// invalidateReference invalidates what a URI reference names, when its origin is x's.
func (s *Stage) invalidateReference(l *local, x *stage.Exchange, p *part, ref string) {
	u, err := url.Parse(ref)
	if err != nil {
		return
	}
	scheme := "http"
	if x.In.Secure {
		scheme = "https"
	}
	own := string(x.Host)
	if strings.IndexByte(own, ':') >= 0 {
		own = "[" + own + "]"
	}
	base := &url.URL{Scheme: scheme, Host: own + string(port(x.In.Authority(), x.In.Secure)), Path: "/"}
	if b, err := base.Parse(string(x.In.Path())); err == nil {
		base = b
	}
	u = base.ResolveReference(u)
	host := u.Hostname() + string(port([]byte(u.Host), x.In.Secure))
	if u.Scheme != scheme || !message.EqualFold([]byte(host), string(x.Host)+string(port(x.In.Authority(), x.In.Secure))) {
		return
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	s.invalidate(l, x, p, []byte(path), []byte(u.RawQuery))
}

// invalidate forgets what is stored under a target, and keeps what is on its way from being
// stored or joined.
func (s *Stage) invalidate(l *local, x *stage.Exchange, p *part, path, query []byte) {
	for _, k := range p.keyers {
		l.key = k.appendTarget(appendOrigin(l.key[:0], x), path, query)
		h := s.store.HashOf(l.key)
		s.epoch(h).Add(1)
		s.store.Update(h, l.key, func(old *variants) (*variants, int64) {
			if old != nil {
				s.m.invalid.Inc()
			}
			return nil, 0
		})
		s.mu.Lock()
		delete(s.flights, h)
		s.mu.Unlock()
	}
}
