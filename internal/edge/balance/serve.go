package balance

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// fullErrors is how many values of Retry-After there are, from a second up.
const fullErrors = int(mostAway * (spread + 100) / 100 / time.Second)

var (
	errNoPool = &stage.Error{
		Code: "proxy_configuration_error", Side: stage.SideEdge, Status: 500,
		Err: errors.New("the site has no pool of the name that its route chose"),
	}
	errNoOrigin = &stage.Error{
		Code: "proxy_configuration_error", Side: stage.SideEdge, Status: 503, Err: ErrNone,
	}
	errRetried = errors.New("the request is tried at another origin")
)

// attempt is what the stage keeps of a request: the place of the try under way, and what a
// further try needs. It stays in the exchange's Local for the next request.
type attempt struct {
	stage  *Stage
	pool   *Pool
	slot   Slot
	held   bool    // slot is to be released
	result Outcome // of the try, as far as it is known
	inner  message.Body
	whole  bool  // inner came to its end
	left   int64 // bytes of inner that are to come; less than 0 when that is not known
	tried  Tried
	replay replay

	tries    int           // sent by this stage
	deadline int64         // the pool's clock; 0 is none
	wait     time.Duration // the route's limit, from the end of a body that is sent as it comes
	waiter   waiter        // for a place that comes free in a moment, and
	timer    *time.Timer   // its wait
	grpc     int64         // when the client of a gRPC call gives up; 0 is not said
	winner   *copied       // whose answer is taken, when the request was sent as copies
	counted  bool          // the try is a retry that takes from the budget
	extra    bool          // the one retry of an order outside the budget was used
}

// Serve implements stage.Stage. It sends x to an origin of the pool x.Pool, and to another one
// when that fails and a repeat does no harm.
func (s *Stage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	p, _ := x.Site.Parts[s.cfg.Slot].(*part)
	if p == nil {
		return nil, errNoPool
	}
	pool := p.find(x.Pool)
	if pool == nil {
		return nil, errNoPool
	}
	a, _ := x.Local[s.cfg.Slot].(*attempt)
	if a == nil {
		a = &attempt{stage: s}
		x.Local[s.cfg.Slot] = a
	}
	a.End(message.Outcome{}) // a use of x before this one that is not over
	a.begin(x, pool)
	x.OnEnd(a)
	if err := a.replay.ahead(ctx, x.Out.ContentLength); err != nil {
		return nil, err
	}
	if a.replay.gathered {
		x.Lap() // the time that the client took is not the origin's
	}
	return a.run(ctx, x, next)
}

func (a *attempt) begin(x *stage.Exchange, p *Pool) {
	a.pool, a.tries, a.extra = p, 0, false
	body := x.Out.Body
	if body == nil || body == message.Body(&a.replay) {
		body = x.In.Body
	}
	if x.Out.Body = nil; body != nil {
		a.replay.begin(body, &a.stage.bodies, x.Out.ContentLength)
		x.Out.Body = &a.replay
	}
}

// run tries until there is an answer, or no further try is allowed.
func (a *attempt) run(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	v := Visitor{
		Class: x.Visitor.Class, Key: x.Visitor.Key, Tier: x.Visitor.Tier, Background: x.Visitor.Background,
		Source: x.Visitor.Source, Network: x.Visitor.Network, Now: a.stage.now(x),
	}
	if x.Replayed() {
		v.seed = x.Chance() | 1
	}
	w := a.pool.view.Load()
	if v.Hash = hashOf(x, w.spec); w.kinds {
		v.Kind = kindOf(x)
	}
	a.limit(x, v.Now)
	if err := a.place(ctx, x, &v); err != nil {
		return nil, err
	}
	for {
		a.aim(x, v.Now)
		resp, err := a.send(ctx, x, next)
		a.endRetry()
		if err == nil {
			a.hear(x, resp)
			if resp = a.consider(ctx, x, &v, resp); resp != nil {
				return resp, nil
			}
			continue
		}
		failed := stage.AsError(err)
		a.result = blame(ctx, failed)
		if failed.Status == 504 && a.replay.coming() {
			a.result = Abandoned // it was the client's own limit, and the client had not sent all
		}
		a.tried.add(a.slot.origin)
		a.release()
		if !failed.Retry || !a.again(ctx, x, failed.Code, false) {
			return nil, failed
		}
		v.Now = a.stage.now(x)
		if err := a.place(ctx, x, &v); err != nil {
			return nil, failed
		}
	}
}

// blame says whether a failed try counts against the origin.
func blame(ctx context.Context, e *stage.Error) Outcome {
	if ctx.Err() != nil || e.Side != stage.SideOrigin || e.Code == "connection_limit_reached" {
		return Abandoned
	}
	return Failed
}

// consider looks at an answer: nil means that it was dropped for a further try, for which a
// place is held.
func (a *attempt) consider(ctx context.Context, x *stage.Exchange, v *Visitor, resp *message.Response) *message.Response {
	a.result = Succeeded
	if failing(resp.Status) {
		a.result = Failed
	}
	// A request with a body may still be being sent, so that what is kept of it is not known.
	if resp.Status >= 500 && a.retryStatus(resp.Status) && x.Out.Method.Safe() && x.Out.Body == nil &&
		a.again(ctx, x, "status", true) {
		// The place at the next origin comes first: without one this answer is what there is.
		old := a.slot
		v.Now = a.stage.now(x)
		a.tried.add(old.origin)
		slot, err := a.pool.Pick(*v, &a.tried)
		if err == nil {
			if resp.Body != nil {
				resp.Body.Close(errRetried)
			}
			old.Release(Failed)
			a.take(x, slot)
			return nil
		}
		a.endRetry()
	}
	if resp.Body != nil {
		a.inner, a.whole, a.left = resp.Body, false, resp.ContentLength
		resp.Body = (*answer)(a)
	}
	return resp
}

func (a *attempt) retryStatus(status int) bool {
	for _, s := range a.pool.view.Load().spec.Retries.Statuses {
		if s == status {
			return true
		}
	}
	return false
}

// place picks a slot. When all that has room was tried it waits a moment and forgets the tries.
func (a *attempt) place(ctx context.Context, x *stage.Exchange, v *Visitor) error {
	slot, err := a.pick(ctx, x, v)
	if errors.Is(err, ErrTried) {
		a.tried.reset()
		if !a.pause(ctx, x) {
			a.endRetry()
			return err
		}
		v.Now = a.stage.now(x)
		slot, err = a.pick(ctx, x, v)
	}
	if errors.Is(err, ErrFull) {
		x.Mark(name, "full")
		if slot, err = a.queue(ctx, x, v); err == nil {
			x.Full = fullWaited
		}
	}
	if err == nil {
		a.take(x, slot)
		return nil
	}
	a.endRetry()
	switch {
	case errors.Is(err, ErrNone):
		return errNoOrigin
	case errors.Is(err, errGone):
		return err
	}
	if v.Background {
		return a.stage.full[0] // nobody was sent away
	}
	a.pool.counters.refused.Inc()
	a.pool.history.away[v.Class].Add(1)
	return a.stage.full[0] // what it is told is decided above the cache
}

// pick picks a slot, and may wait for a moment in place of being sent on.
func (a *attempt) pick(ctx context.Context, x *stage.Exchange, v *Visitor) (Slot, error) {
	if !x.StandIn || v.Class == protectedClass {
		v.wait = mayWait
	}
	slot, err := a.pool.Pick(*v, &a.tried)
	if err == errWait {
		slot, err = a.linger(ctx, x, v, &slot)
	}
	v.wait = neverWaits
	return slot, err
}

// pause waits before a try at an origin that failed this request before: longer each time.
func (a *attempt) pause(ctx context.Context, x *stage.Exchange) bool {
	x.MayBlock()
	d := 10 * time.Millisecond << min(a.tries, 4)
	if x.Replayed() {
		x.Pass(d)
		return true
	}
	defer x.Lap()
	return sleep(ctx, d/2+rand.N(d))
}

// take holds a slot and says so in the trail.
func (a *attempt) take(x *stage.Exchange, slot Slot) {
	a.slot, a.held = slot, true
	w := a.pool.view.Load()
	for i := range slot.skipped {
		if r := slot.skipped[i]; r != ReasonNone && i < len(w.tiers) {
			x.MarkDetail(name, r.String(), w.tiers[i].state.name)
		}
	}
	if slot.Panicked {
		x.Mark(name, "panic")
	}
	slot.count(w)
	x.Spilled, x.Spill = slot.Spilled, slot.Spill()
	slot.tier.counters.tries.Inc()
	x.MarkDetail(name, slot.Reason.String(), slot.tier.name)
}

// aim tells the last handler where the try goes and until when.
func (a *attempt) aim(x *stage.Exchange, now int64) {
	x.Tries++
	a.tries++
	x.Tier, x.Origin, x.Target = a.slot.tier.name, a.slot.origin.address, a.slot.origin.target()
	x.Sent, x.Deadline = false, time.Time{}
	if until := a.tell(x, now); until != 0 {
		x.Deadline = a.stage.at(until)
	}
	x.Wait = a.wait
	a.result = Abandoned
	a.replay.Rewind()
}

// release gives the place back, once.
func (a *attempt) release() {
	if a.held {
		a.held = false
		if r := a.stage.cfg.Replay; r != nil {
			slot, result := a.slot, a.result
			r.Hold(func() { slot.Release(result) })
			return
		}
		a.slot.Release(a.result)
	}
}

// End implements message.Ender: the answer's last byte left, or it was given up.
func (a *attempt) End(message.Outcome) {
	if a.inner != nil && !a.whole && a.result == Succeeded {
		a.result = Abandoned
	}
	a.release()
	a.endRetry()
	a.tried.reset()
	a.replay.end()
	if a.winner != nil {
		a.winner.end()
		a.winner = nil
	}
	a.pool, a.slot, a.inner = nil, Slot{}, nil
}

// answer is the body of an answer on its way: its end gives the place back.
type answer attempt

// Ready implements message.Prompt.
func (b *answer) Ready() bool {
	p, ok := b.inner.(message.Prompt)
	return ok && p.Ready()
}

// Next implements message.Body.
func (b *answer) Next(ctx context.Context) ([]byte, error) {
	if b.inner == nil {
		return nil, errAnswerClosed
	}
	p, err := b.inner.Next(ctx)
	if b.left -= int64(len(p)); b.left == 0 && err == nil && b.result == Succeeded {
		(*attempt)(b).release() // the origin is done, however long the visitor takes
	}
	switch {
	case err == nil:
	case err == io.EOF:
		b.whole = true
	case b.result != Succeeded:
	case ctx.Err() != nil:
		b.result = Abandoned
	default:
		b.result = Failed
	}
	return p, err
}

// Close implements message.Body.
func (b *answer) Close(cause error) {
	if b.inner == nil {
		return
	}
	b.inner.Close(cause)
	b.inner = nil
	if !b.whole && b.result == Succeeded {
		b.result = Abandoned
	}
	(*attempt)(b).release()
}
