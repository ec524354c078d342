package cache

import (
	"context"
	"io"

	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/edge/cache/store"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// bypass forwards what is not looked up.
func (s *Stage) bypass(ctx context.Context, x *stage.Exchange, next stage.Handler, r *rule, why string) (*message.Response, error) {
	s.done(x, resultBypass, why)
	resp, err := next.Serve(ctx, x)
	if err == nil {
		r.hideTags(&resp.Fields)
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
	if x.Shared && !x.PeerTrusted {
		l.rule.dropUnkeyed(&x.In.Fields)
	}
	epoch, born := s.epochs.at(l.hash), s.purges.Last()
	sent := s.now(x)
	w := l.watching()
	if w.rest(); x.Shared && !x.In.Has(message.Range) {
		w.arm(l.rule, s.learner.seed, x.In)
	}
	resp, err := next.Serve(ctx, x)
	w.armed = false
	if err != nil {
		s.done(x, r, "")
		return resp, err
	}
	e := &semantics.Exchange{
		Authorization: x.In.Has(message.Authorization), Status: resp.Status,
		Fields: &resp.Fields, Sent: sent, Came: s.now(x), Most: x.Brief,
	}
	not := s.record(x, l, resp, e, epoch, born)
	l.rule.hideTags(&resp.Fields)
	s.addStatus(&resp.Fields, &status{fwd: why, stored: not == semantics.Stored, detail: not, key: l.told()})
	s.done(x, r, not)
	return resp, nil
}

// record stores an answer as its client reads it, if it may be; else it says why not.
func (s *Stage) record(x *stage.Exchange, l *local, resp *message.Response, e *semantics.Exchange, epoch uint32, born uint64) string {
	var span semantics.Span
	var size int64
	if resp.Status == 206 {
		span, size, e.Part = semantics.ContentRange(&resp.Fields)
		e.Part = e.Part && (resp.ContentLength < 0 || resp.ContentLength == span.Len())
	}
	c := semantics.ParseResponse(&resp.Fields, l.rule.Targets)
	life, not := semantics.Judge(e, &c, l.rule.policyFor(x))
	if not == semantics.Stored && l.rule.guarded && disguised(x.Path, resp) {
		s.m.disguised.Inc()
		not = notType
	}
	if not == semantics.Stored && s.echoes(x, l.rule) {
		not = notEcho
	}
	if not == semantics.Stored && resp.ContentLength > l.rule.maxObject {
		not = "too-large"
	}
	if not == semantics.Stored && !x.Shared {
		not = "pass"
		s.endPass(l.hash, l.key)
	}
	if not != semantics.Stored {
		return not
	}
	var kept, own message.Fields
	fieldsOf(&kept, &own, &resp.Fields, &c, e.Came)
	status := resp.Status
	if e.Part {
		kept.Del(message.ContentRange)
		status = 200
	}
	o := &object{Life: life, status: status, born: born, org: l.rule.org}
	o.fields.CopyFrom(&kept)
	s.describe(o, l.rule, x, nil)
	if l.rule.watched {
		s.watch(x, l, o, born)
	}
	t := &l.tee
	*t = tee{
		s: s, key: l.key, hash: l.hash, epoch: epoch, max: l.rule.maxObject, total: resp.ContentLength,
		obj: o, x: x, mark: l.rule.mark, site: l.rule.site, rule: l.rule,
		home: s.homeOf(x, l.rule, &kept, l.key, l.hash, !l.aliased),
	}
	if e.Part {
		t.total = span.Len()
		t.obj.parts, t.obj.size = []piece{{first: span.First}}, size
	}
	if resp.Body != nil {
		t.inner = resp.Body
		resp.Body = t
		return not
	}
	if !e.Part {
		t.total = -1
	}
	t.record(resp.Bytes)
	t.commit()
	return not
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
	home       home
	x          *stage.Exchange
	mark       *purge.Mark
	site       *siteState
	rule       *rule
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
	o := t.obj
	current := func() bool { return t.s.epochs.current(t.hash, t.epoch) && !spent(t.mark, t.x, &t.home, o) }
	if o != nil && (t.total < 0 || t.total == int64(len(t.buf))) && current() && !t.s.echoes(t.x, t.rule) {
		content := t.buf
		if o.partial() && int64(len(content)) < o.size {
			o.parts[0].data = content
			if t.home.rule != nil {
				t.s.learn(t.x, t.home.rule)
			}
			t.s.keepPart(t.mark, &t.home, o, t.max, current)
		} else {
			o.parts, o.body = nil, content
			t.rule.learned.note(t.x, o, t.s.local(t.x).watch, t.s.now(t.x))
			t.s.settle(t.x, t.hash, t.key, &t.home, o, current)
		}
		t.s.m.stored.Inc()
		t.site.stored.Add(1)
	}
	t.drop()
}

func (t *tee) drop() {
	t.s.charge(-int64(len(t.buf)))
	t.obj, t.buf, t.x = nil, nil, nil
}

// head forwards a HEAD that nothing stored answers. Its answer says whether a stored one is still good
// (RFC 9111 section 4.3.5), and else is stored for other HEADs.
func (s *Stage) head(ctx context.Context, x *stage.Exchange, next stage.Handler, l *local, o *object, why forward) (*message.Response, error) {
	x.Shared, x.StandIn = true, o.standsInForRoom(l.now)
	sent := s.now(x)
	epoch := s.epochs.at(l.hash)
	l.born = s.purges.Last()
	resp, err := next.Serve(ctx, x)
	if err != nil {
		if r := s.instead(x, l, o, err); r != nil {
			return r, nil
		}
		s.done(x, resultPass, "")
		return resp, err
	}
	s.done(x, resultPass, "")
	e := &semantics.Exchange{Status: resp.Status, Authorization: x.In.Has(message.Authorization), Sent: sent, Came: s.now(x)}
	stored := false
	if o != nil && !o.headOnly && resp.Status == 200 && o.status == 200 {
		s.freshenByHead(x, l, o, resp, e, epoch)
	} else {
		stored = s.keepHead(x, l, resp, e, epoch)
	}
	l.rule.hideTags(&resp.Fields)
	s.addStatus(&resp.Fields, &status{fwd: why, stored: stored, key: l.told()})
	return resp, nil
}

// keepHead stores the answer to a HEAD for later ones, if it may be.
func (s *Stage) keepHead(x *stage.Exchange, l *local, resp *message.Response, e *semantics.Exchange, epoch uint32) bool {
	e.Fields = &resp.Fields
	c := semantics.ParseResponse(&resp.Fields, l.rule.Targets)
	life, not := semantics.Judge(e, &c, l.rule.policyFor(x))
	if not != semantics.Stored || !s.epochs.current(l.hash, epoch) {
		return false
	}
	var kept, own message.Fields
	fieldsOf(&kept, &own, &resp.Fields, &c, e.Came)
	n := &object{Life: life, status: resp.Status, born: l.born, headOnly: true, size: resp.ContentLength, org: l.rule.org}
	n.fields.CopyFrom(&kept)
	s.describe(n, l.rule, x, nil)
	to := s.homeOf(x, l.rule, &kept, l.key, l.hash, !l.aliased)
	s.settle(x, l.hash, l.key, &to, n, func() bool { return s.epochs.current(l.hash, epoch) && !spent(l.rule.mark, x, &to, n) })
	return true
}

func (s *Stage) freshenByHead(x *stage.Exchange, l *local, o *object, resp *message.Response, e *semantics.Exchange, epoch uint32) {
	if !semantics.HeadFreshens(&resp.Fields, &o.fields, resp.ContentLength, o.length()) {
		s.forget(l.key, o)
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
	c := semantics.ParseResponse(&merged, l.rule.Targets)
	e.Fields = &merged
	life, not := semantics.Judge(e, &c, l.rule.policyFor(x))
	if not != semantics.Stored {
		s.forget(l.key, o)
		return
	}
	fieldsOf(&kept, &own, &merged, &c, e.Came)
	n := &object{Life: life, status: o.status, born: o.born, softened: o.softened, org: l.rule.org}
	n.fields.CopyFrom(&kept)
	s.describe(n, l.rule, x, o)
	n.takeContent(o)
	if s.epochs.current(l.hash, epoch) {
		to := s.homeOf(x, l.rule, &kept, l.key, l.hash, !l.aliased)
		s.settle(x, l.hash, l.key, &to, n, func() bool { return s.epochs.current(l.hash, epoch) })
	}
}
