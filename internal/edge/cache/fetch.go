package cache

import (
	"context"
	"errors"

	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// maxJoins bounds how often a request joins a flight whose answer turns out not to be for it.
const maxJoins = 2

// fetch answers through a flight: one that runs, or one that it starts.
func (s *Stage) fetch(ctx context.Context, x *stage.Exchange, next stage.Handler, l *local, o *object, why forward) (*message.Response, error) {
	x.MayBlock()
	// An answer that nobody else may use, or that is only for who has these credentials, is
	// not worth waiting for.
	solo := x.In.Has(message.Authorization) || o != nil && o.NoCache
	retried := false
	for try := 0; ; try++ {
		fl, leads, stored := s.join(ctx, x, next, l, o, solo || try >= maxJoins)
		if stored != nil {
			return s.hit(x, l, stored, resultHit, ""), nil
		}
		if fl == nil {
			x.StandIn = o.standsInForRoom(l.now)
			resp, err := s.pass(ctx, x, next, l, resultPass, why)
			if err != nil {
				if r := s.instead(x, l, o, err); r != nil {
					return r, nil
				}
			}
			return resp, err
		}
		early, err := fl.await(ctx, x)
		if err != nil {
			fl.abandon(leads)
			return nil, err
		}
		x.Lap()
		l.now = s.now(x)
		switch fl.landed {
		case landOwn:
			if leads {
				return s.takeOwn(ctx, x, next, l, fl, why)
			}
			if semantics.WantsPart(&x.In.Fields) {
				fl.quit(false)
				return s.pass(ctx, x, next, l, resultPass, why)
			}
			solo = true
		case landFailed:
			// One retry for a visitor whom the edge may treat better than the one who led.
			if leads || retried || x.Visitor.Class <= fl.class || stage.AsError(fl.err).Side == stage.SideOrigin {
				fl.quit(leads)
				fl.tell(x)
				if o != fl.prior { // of which the flight has judged
					if r := s.instead(x, l, o, fl.err); r != nil {
						return r, nil
					}
				}
				x.Mark("cache", resultNames[resultMiss])
				return nil, fl.err
			}
			retried = true
		case landStale:
			if leads || fl.obj.isFor(l, x) {
				fl.quit(leads)
				fl.tell(x)
				return s.standIn(x, l, fl.obj, fl.code, fl.full), nil
			}
			l.hint = fl.obj.selector
		default:
			if resp := s.share(x, l, fl, leads, early, why); resp != nil {
				return resp, nil
			}
			// Another variant may be worth waiting for; what only its leader may use is not.
			l.hint, solo = fl.obj.selector, fl.obj.isFor(l, x)
		}
		fl.quit(false)
		again := o != nil
		o = nil
		l.born = s.purges.Last()
		if v := s.store.Get(l.hash, l.key); again && v.first() != nil {
			var verdict purge.Verdict
			if o, verdict = s.find(l, v, x); o != nil && verdict.Soft > 0 {
				o = s.soften(l, o, verdict)
			}
		}
	}
}

// tell copies what the fork's stages decided to the exchange of a client.
func (fl *flight) tell(x *stage.Exchange) {
	x.Pool, x.Tier, x.Origin, x.Tries, x.Full = fl.pool, fl.tier, fl.origin, fl.tries, fl.waited
	for _, m := range fl.trail.Marks() {
		x.MarkDetail(m.Stage, m.Code, m.Detail)
	}
}

// share answers from a flight that is for more than one; nil when it is not for x.
func (s *Stage) share(x *stage.Exchange, l *local, fl *flight, leads, early bool, why forward) *message.Response {
	o := fl.obj
	if !leads && !fl.mayShare(l, x, early) {
		return nil
	}
	fl.mu.Lock()
	size, storing := fl.body.total, fl.storing
	fl.mu.Unlock()
	resp := &x.Response
	resp.Reset()
	f := formOf(x.In, o, size, l.now)
	f.start(resp, o)
	if leads {
		for i := range fl.own.Len() {
			_, name, value := fl.own.At(i)
			resp.AddLine(name, value)
		}
	}
	if o.Aged || !leads && !fl.validated {
		addAge(&resp.Fields, o.Age(l.now))
	}
	st := status{fwd: why, stored: storing, collapsed: !leads, detail: fl.why, key: l.told()}
	if fl.code != resp.Status {
		st.code = fl.code
	}
	s.addStatus(&resp.Fields, &st)
	ok := fl.open(resp, x.In.Method, &f)
	if !ok && !leads {
		return nil
	}
	fl.quit(leads)
	if !ok {
		// Only when a leader comes back to a body whose beginning is gone: it never was to be kept.
		resp.Body = failedBody{errNotWanted}
	}
	fl.tell(x)
	s.done(x, fl.result(leads), fl.why)
	if x.ID[0]%sampled == 1 {
		s.top.note(l.key, 0, false, l.now)
	}
	return resp
}

func (fl *flight) result(leads bool) result {
	switch {
	case fl.validated:
		return resultRevalidated
	case !leads:
		return resultCollapsed
	case fl.prior != nil:
		return resultExpired
	}
	return resultMiss
}

// mayShare says whether a client that did not start the flight may have its answer (RFC 9111
// section 4). Early says that it waited for the head.
func (fl *flight) mayShare(l *local, x *stage.Exchange, early bool) bool {
	if fl.moved || !fl.obj.isFor(l, x) || fl.outdated(x, fl.obj) {
		return false
	}
	if fl.landed == landShown {
		return early
	}
	c := l.control
	if early {
		// The answer is newer than the request that wants a new one.
		c.Set &^= semantics.NoCache | semantics.MaxAge
	}
	return fl.obj.Use(&c, l.now) == semantics.Fresh
}

// failedBody is a body that cannot be read.
type failedBody struct{ err error }

func (b failedBody) Next(context.Context) ([]byte, error) { return nil, b.err }
func (b failedBody) Close(error)                          {}

// fullStale is what Exchange.Full says where a stored answer stood in.
const fullStale = "stale"

// standIn answers with the stored answer in the place of an error (RFC 5861 section 4). Code is the status of
// the error where it came from an origin, and full says that no origin was asked for want of room.
func (s *Stage) standIn(x *stage.Exchange, l *local, o *object, code int, full bool) *message.Response {
	why := "stale-if-error"
	if full {
		x.Full, why = fullStale, "no-room"
	}
	resp := &x.Response
	resp.Reset()
	f := formOf(x.In, o, o.length(), l.now)
	f.start(resp, o)
	addAge(&resp.Fields, o.Age(l.now))
	s.addStatus(&resp.Fields, &status{fwd: fwdStale, code: code, detail: why, key: l.told()})
	f.setContent(resp, x.In.Method, o)
	s.done(x, resultStale, why)
	return resp
}

// instead answers with o in the place of err, where it may; nil where it may not.
func (s *Stage) instead(x *stage.Exchange, l *local, o *object, err error) *message.Response {
	e := stage.AsError(err)
	if l.now = s.now(x); !o.standsIn(e, l.now) {
		return nil
	}
	full := errors.Is(e, stage.ErrFull)
	o.failed(l.now, full)
	return s.standIn(x, l, o, 0, full)
}

// takeOwn gives the leader the answer that is for it alone. The fork lives until the answer has left.
func (s *Stage) takeOwn(ctx context.Context, x *stage.Exchange, next stage.Handler, l *local, fl *flight, why forward) (*message.Response, error) {
	fl.quit(true)
	fl.tell(x)
	if x.In.Has(message.Range) {
		// The whole may be much more than the client wants.
		closeBody(fl.resp)
		fl.end(message.Outcome{Status: fl.resp.Status, Err: errNotWanted})
		return s.pass(ctx, x, next, l, resultPass, why)
	}
	x.OnEnd(fl)
	l.rule.hideTags(&fl.resp.Fields)
	s.addStatus(&fl.resp.Fields, &status{fwd: why, detail: fl.why, key: l.told()})
	s.done(x, fl.result(true), fl.why)
	return fl.resp, nil
}

// End implements message.Ender for an answer that was only for the leader.
func (fl *flight) End(o message.Outcome) { fl.end(o) }

// refresh starts a validation in the background (RFC 5861 section 3), unless one runs.
func (s *Stage) refresh(ctx context.Context, x *stage.Exchange, next stage.Handler, l *local, o *object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for fl := s.flights[l.hash]; fl != nil; fl = fl.next {
		if fl.fits(l, x) {
			return
		}
	}
	if s.background >= s.cfg.MaxBackground {
		s.m.background.Inc()
		return
	}
	s.launch(ctx, x, next, l, o, false, false)
}
