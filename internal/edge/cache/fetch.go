package cache

import (
	"bytes"
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
			if fl.sick != 0 && early {
				return s.sick(x, l, fl, o)
			}
			if semantics.WantsPart(&x.In.Fields) {
				fl.quit(false)
				return s.pass(ctx, x, next, l, resultPass, why)
			}
			solo = true
		case landFailed:
			// One retry for a visitor whom the edge may treat better than the one who led.
			better := x.Visitor.Class > fl.class && stage.AsError(fl.err).Side != stage.SideOrigin || fl.spare && !x.Visitor.Background
			if leads || retried || !better {
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
				l.keepHold(x, fl.obj)
				fl.quit(leads)
				fl.tell(x)
				return s.standIn(x, l, fl.obj, fl.code, fl.full), nil
			}
			l.hint = bytes.Clone(fl.obj.selector)
		default:
			if resp := s.share(ctx, x, l, fl, leads, early, why); resp != nil {
				return resp, nil
			}
			// Another variant may be worth waiting for; what only its leader may use is not.
			l.hint, solo = bytes.Clone(fl.obj.selector), fl.obj.isFor(l, x)
		}
		fl.quit(false)
		again := o != nil
		o = nil
		l.born = s.purges.Last()
		l.hint = bytes.Clone(l.hint) // what lends it is let go
		if again {
			var verdict purge.Verdict
			if o, verdict, _ = s.find(l, x, l.reuse(&l.found), true); o != nil && verdict.Soft > 0 {
				o = s.soften(l, o, softLife(o, verdict))
			}
		}
	}
}

// sick answers who waited for a fetch whose answer is an error page that may be its leader's own, as the request
// had cookies: the origin is not asked once more by each of them, and nobody sees what it wrote for another.
func (s *Stage) sick(x *stage.Exchange, l *local, fl *flight, o *object) (*message.Response, error) {
	fl.quit(false)
	fl.tell(x)
	err := &stage.Error{Code: "origin_error", Side: stage.SideOrigin, Status: fl.sick, Err: errSick}
	if r := s.instead(x, l, o, err); r != nil {
		return r, nil
	}
	x.Mark("cache", resultNames[resultMiss])
	return nil, err
}

var errSick = errors.New("the origin answered another request, for whose answer this one waited, with an error page; that page is not shown to others, as the other request had cookies")

// tell copies what the fork's stages decided to the exchange of a client.
func (fl *flight) tell(x *stage.Exchange) {
	x.Pool, x.Tier, x.Origin, x.Tries, x.Full = fl.pool, fl.tier, fl.origin, fl.tries, fl.waited
	for _, m := range fl.trail.Marks() {
		x.MarkDetail(m.Stage, m.Code, m.Detail)
	}
}

// share answers from a flight that is for more than one; nil when it is not for x.
func (s *Stage) share(ctx context.Context, x *stage.Exchange, l *local, fl *flight, leads, early bool, why forward) *message.Response {
	o := fl.obj
	if !leads && !fl.mayShare(l, x, early) {
		return nil
	}
	size, storing := fl.settled(ctx)
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
	ok := fl.open(x, l, &f)
	if !ok && !leads {
		return nil
	}
	fl.quit(leads)
	if !ok {
		// Only when a leader comes back to a body whose beginning is gone: it never was to be kept.
		resp.Body = failedBody{errNotWanted}
	}
	fl.tell(x)
	if l.rule.watched {
		s.watch(x, l, o, o.born)
	}
	s.done(x, fl.result(leads), fl.why)
	if x.ID[0]%sampled == 1 && !x.Visitor.Background {
		s.top.note(l.key, 0, false, l.now)
	}
	return resp
}

// settled is the body's length as far as it is known, and whether the answer is being stored. Of one without a body
// that is over when it returns: no last piece says so.
func (fl *flight) settled(ctx context.Context) (size int64, storing bool) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	for b := &fl.body; fl.storing && b.total == 0 && !b.done && ctx.Err() == nil; {
		wake := fl.sleep()
		fl.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
		}
		fl.mu.Lock()
	}
	return fl.body.total, fl.storing
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
	if l.rule.watched {
		s.watch(x, l, o, o.born) // before its fields go to the response
	}
	f.start(resp, o)
	addAge(&resp.Fields, o.Age(l.now))
	s.addStatus(&resp.Fields, &status{fwd: fwdStale, code: code, detail: why, key: l.told()})
	s.setContent(x, l, &f, o)
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
	s.failed(l.key, o, l.now, full)
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
