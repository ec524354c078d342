package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// run fetches: it asks the stages behind, judges the head, and takes the body in.
func (fl *flight) run(ctx context.Context, next stage.Handler) {
	var out message.Outcome
	defer func() {
		if p := recover(); p != nil {
			out.Err = fmt.Errorf("panic: %v", p)
			fl.fail(&stage.Error{Code: "proxy_internal_error", Side: stage.SideEdge, Status: 500, Err: out.Err})
			fl.finish(out.Err)
		}
		if fl.resp == nil {
			fl.end(out) // else when the leader is done with it
		}
	}()
	sent := fl.s.now(fl.fork)
	completing := fl.prior != nil && fl.prior.partial()
	conditional := false
	if completing {
		semantics.AskForRest(&fl.fork.In.Fields, &fl.prior.fields, fl.prior.missing())
	} else if fl.prior != nil {
		conditional = semantics.AddValidators(&fl.fork.In.Fields, &fl.prior.fields)
	}
	w := fl.s.local(fl.fork).watching()
	if w.rest(); !completing {
		w.arm(fl.rule, fl.s.learner.seed, fl.fork.In)
	}
	resp, err := next.Serve(ctx, fl.fork)
	came := fl.s.now(fl.fork)
	if err == nil && (conditional && resp.Status == 304 && !semantics.Freshens(&resp.Fields, &fl.prior.fields) ||
		completing && (resp.Status == 206 || resp.Status == 416) && !fl.complete(resp, came)) {
		// It speaks of an answer that we do not have: ask for the whole.
		closeBody(resp)
		semantics.DropConditions(&fl.fork.In.Fields)
		sent, conditional = came, false
		w.arm(fl.rule, fl.s.learner.seed, fl.fork.In)
		resp, err = next.Serve(ctx, fl.fork)
		came = fl.s.now(fl.fork)
	}
	if err != nil {
		out.Err = err
		fl.failed(err, came)
		return
	}
	out.Status = resp.Status
	e := &semantics.Exchange{
		Authorization: fl.fork.In.Has(message.Authorization),
		Status:        resp.Status, Fields: &resp.Fields, Sent: sent, Came: came, Most: fl.fork.Brief,
	}
	if conditional && resp.Status == 304 {
		fl.revalidated(resp, e)
		return
	}
	if fl.landHead(resp, e) {
		out.Body, out.Err = fl.take(ctx, resp)
	}
}

// end gives the fork back and takes the flight off the books.
func (fl *flight) end(out message.Outcome) {
	fl.fork.End(out)
	fl.cancel()
	s := fl.s
	fork := fl.fork
	fl.fork = nil
	fork.Reset()
	s.forks.Put(fork)
	s.mu.Lock()
	s.unlist(fl)
	delete(s.running, fl)
	if fl.background {
		s.background--
	}
	if s.closed && len(s.running) == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	fl.mu.Lock()
	fl.over = true
	fl.letGo()
	fl.mu.Unlock()
}

func closeBody(resp *message.Response) {
	if resp.Body != nil {
		resp.Body.Close(errNotWanted)
		resp.Body = nil
	}
}

var (
	errNotWanted = errors.New("the cache does not want the body")
	errTruncated = errors.New("the body ended before its length")
	errSlow      = errors.New("the client reads too slowly for others who get the same answer, which is too large to store")
)

// land makes known what came of the head: what f sets, and the landing that it returns.
func (fl *flight) land(f func() landing) {
	fork := fl.fork
	trail := fork.Trail
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.trail = &trail
	fl.pool, fl.tier, fl.origin, fl.tries, fl.waited = fork.Pool, fork.Tier, fork.Origin, fork.Tries, fork.Full
	fl.landed = f()
	fl.changed()
}

// failed lands an error, or the stored answer in its place.
func (fl *flight) failed(err error, now time.Time) {
	fl.leave()
	e := stage.AsError(err)
	if o := fl.prior; o != nil && !o.partial() && e.Side != stage.SideClient && semantics.ErrorStatus(e.Status) {
		fl.full = errors.Is(e, stage.ErrFull)
		fl.s.failed(fl.key, o, now, fl.full)
		if o.standsIn(e, now) {
			fl.land(func() landing { fl.obj = o; return landStale })
			return
		}
	}
	fl.fail(err)
}

func (fl *flight) fail(err error) {
	if fl.landed == landNone {
		fl.leave()
		fl.land(func() landing { fl.err = err; return landFailed })
	}
}

// revalidated lands the stored answer as a 304 updates it (RFC 9111 section 4.3.4).
func (fl *flight) revalidated(resp *message.Response, e *semantics.Exchange) {
	var merged, own, kept message.Fields
	mergeFields(&merged, &own, &fl.prior.fields, &resp.Fields)
	if !resp.Has(message.Date) {
		var buf [32]byte
		merged.Set(message.Date, semantics.AppendDate(buf[:0], e.Came))
	}
	if v := resp.Get(message.Age); v != nil {
		merged.Add(message.Age, v)
	}
	closeBody(resp)
	c := semantics.ParseResponse(&merged, fl.rule.Targets)
	e.Status, e.Fields = fl.prior.status, &merged
	life, why := semantics.Judge(e, &c, fl.rule.policyFor(fl.fork))
	var more message.Fields
	fieldsOf(&kept, &more, &merged, &c, e.Came)
	for i := range more.Len() {
		_, name, value := more.At(i)
		own.AddLine(name, value)
	}
	o := fl.object(life, fl.prior.status, &kept, fl.prior)
	o.takeContent(fl.prior) // which the flight holds
	store := why == semantics.Stored
	if !store {
		o.NoCache = true // for the leader, and nobody else
		fl.s.forget(fl.key, fl.prior)
	}
	store = store && fl.current() && !fl.outdated(fl.fork, o)
	fl.findHome(&kept)
	if store { // before anybody learns of it, as a body is
		fl.s.settle(fl.fork, fl.hash, fl.key, &fl.home, o, func() bool { return fl.mayStore(o) })
	}
	fl.leave()
	fl.land(func() landing {
		fl.obj, fl.code, fl.validated, fl.storing, fl.why = o, 304, true, store, why
		fl.own = own
		fl.body = body{total: o.length(), stored: true, done: true}
		return landShared
	})
}

// mayStore says that the answer was neither invalidated nor purged since the flight began.
func (fl *flight) mayStore(o *object) bool {
	return fl.current() && !spent(fl.rule.mark, fl.fork, &fl.home, o)
}

// findHome finds where the answer is stored.
func (fl *flight) findHome(kept *message.Fields) {
	fl.home = fl.s.homeOf(fl.fork, fl.rule, kept, fl.key, fl.hash, !fl.aliased)
	fl.moved = fl.aliased && fl.home.hash != fl.hash
}

// object makes what is stored of the flight's answer, without its body.
func (fl *flight) object(life semantics.Life, status int, kept *message.Fields, prior *object) *object {
	o := &object{Life: life, status: status, born: fl.born, org: fl.rule.org}
	o.fields.CopyFrom(kept)
	fl.s.describe(o, fl.rule, fl.fork, prior)
	return o
}

// describe says of an object with its fields, which answers x, whom it is for and what purges it. Prior
// is the one that it updates, or nil.
func (s *Stage) describe(o *object, r *rule, x *stage.Exchange, prior *object) {
	kept := &o.fields
	o.route = x.Route.Name
	o.seen.Store(o.born)
	if kept.Has(message.CacheGroups) || kept.Has(message.CacheTag) || kept.Has(message.SurrogateKey) || prior != nil && len(prior.names) > 0 {
		s.enrol(o, r, x, prior)
	}
	selector, ok := semantics.AppendSelector(slices.Clone(r.selector), kept, r.normal.deviceAlias())
	if !ok {
		o.NoCache = true // a Vary without end is for nobody
	}
	o.selector = slices.Clip(selector)
	o.selected = slices.Clip(semantics.AppendSelected(nil, selector, &x.In.Fields))
}

// current says that the key was not invalidated since the flight began.
func (fl *flight) current() bool { return fl.s.epochs.current(fl.hash, fl.epoch) }

// landHead lands an answer with a body of its own, and says whether run is to take it in.
func (fl *flight) landHead(resp *message.Response, e *semantics.Exchange) bool {
	if o := fl.prior; semantics.ErrorStatus(resp.Status) && o != nil && !o.partial() {
		if o.UsableOnError(e.Came) {
			fl.s.failed(fl.key, o, e.Came, false)
			closeBody(resp)
			fl.leave()
			fl.land(func() landing { fl.obj, fl.code = o, resp.Status; return landStale })
			return false
		}
	}
	c := semantics.ParseResponse(&resp.Fields, fl.rule.Targets)
	life, why := semantics.Judge(e, &c, fl.rule.policyFor(fl.fork))
	if why == semantics.Stored && fl.rule.guarded && disguised(fl.fork.Path, resp) {
		why = notType
		fl.s.m.disguised.Inc()
	}
	if why == semantics.Stored && fl.s.echoes(fl.fork, fl.rule) {
		why = notEcho
	}
	if why == semantics.Stored && resp.ContentLength > fl.rule.maxObject {
		why = "too-large"
		fl.s.m.tooLarge.Inc()
	}
	if why == semantics.Stored {
		var kept message.Fields
		var own message.Fields
		fieldsOf(&kept, &own, &resp.Fields, &c, e.Came)
		var prior *object
		if fl.completed {
			prior = fl.prior
		}
		fl.landBody(resp, landShared, fl.object(life, resp.Status, &kept, prior), &own, why)
		return true
	}
	if semantics.ErrorStatus(resp.Status) && !e.Authorization && !c.Has(semantics.NoStore|semantics.Private) && !resp.Has(message.SetCookie) {
		if fl.fork.In.Has(message.Cookie) {
			fl.sick = resp.Status
			if fl.sick > 599 {
				fl.sick = 502 // it is no status (RFC 9110 section 15)
			}
			return fl.landForLeader(resp, why)
		}
		var kept message.Fields
		var own message.Fields
		fieldsOf(&kept, &own, &resp.Fields, &c, e.Came)
		fl.leave()
		fl.landBody(resp, landShown, fl.object(life, resp.Status, &kept, nil), &own, why)
		return true
	}
	return fl.landForLeader(resp, why)
}

func (fl *flight) landBody(resp *message.Response, as landing, o *object, own *message.Fields, why string) {
	fl.findHome(&o.fields)
	fl.land(func() landing {
		fl.obj, fl.own, fl.code, fl.why = o, *own, resp.Status, why
		fl.storing = as == landShared && fl.current() && !fl.outdated(fl.fork, o)
		fl.body.total = resp.ContentLength
		if resp.Body == nil {
			fl.body.total = int64(len(resp.Bytes))
		}
		fl.body.stored = as == landShared
		return as
	})
}

// landForLeader lands an answer that is for the leader alone.
func (fl *flight) landForLeader(resp *message.Response, why string) bool {
	if !fl.solo && !semantics.ErrorStatus(resp.Status) {
		fl.s.markPass(fl.hash, fl.key)
	}
	if fl.prior != nil && !semantics.ErrorStatus(resp.Status) {
		fl.s.forget(fl.key, fl.prior)
	}
	fl.leave()
	fl.land(func() landing {
		fl.why, fl.code = why, resp.Status
		if fl.leader {
			fl.resp = resp
		}
		return landOwn
	})
	if fl.resp == nil {
		closeBody(resp)
	}
	return false
}

// take takes the body in, as fast as the origin sends it, and stores the answer at its end.
func (fl *flight) take(ctx context.Context, resp *message.Response) (n int64, err error) {
	if resp.Body == nil {
		n, err = int64(len(resp.Bytes)), fl.add(ctx, resp.Bytes)
	}
	for resp.Body != nil && err == nil {
		var chunk []byte
		chunk, err = resp.Body.Next(ctx)
		n += int64(len(chunk))
		if e := fl.add(ctx, chunk); e != nil {
			err = e
		}
	}
	if err == io.EOF {
		err = nil
	}
	if total := fl.body.total; err == nil && total >= 0 && total != n && !message.NoBody(message.GET, resp.Status) {
		err = errTruncated
	}
	if resp.Body != nil {
		resp.Body.Close(err)
	}
	fl.finish(err)
	return n, err
}

// finish ends the body; a whole one is stored, and then its readers learn that it is whole.
func (fl *flight) finish(err error) {
	w := fl.s.local(fl.fork).watching()
	fl.mu.Lock()
	b := &fl.body
	if err == nil && b.stored {
		b.total = int64(len(b.buf))
	}
	store := err == nil && b.stored && fl.storing && fl.mayStore(fl.obj)
	buf := b.buf
	fl.mu.Unlock()
	if store && fl.s.echoes(fl.fork, fl.rule) {
		store = false
		if w.echo.kind == "cookie" {
			fl.s.markPass(fl.hash, fl.key) // who comes next had better not wait for what is another's
		}
	}
	switch {
	case store:
		fl.rule.learned.note(fl.fork, fl.obj, w, fl.s.now(fl.fork))
		o := fl.obj.copy() // others see that one
		o.body = buf
		fl.s.settle(fl.fork, fl.hash, fl.key, &fl.home, o, func() bool { return fl.mayStore(o) })
		fl.s.m.stored.Inc()
		fl.rule.site.stored.Add(1)
	case err != nil && err != errNotWanted:
		fl.s.m.truncated.Inc()
	}
	fl.mu.Lock()
	b.err, b.done = err, true
	fl.s.charge(-b.charged)
	b.charged = 0
	fl.changed()
	fl.mu.Unlock()
	fl.leave()
}
