package balance

import (
	"context"
	"sync"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// coldFactor is how many times hedge.atLeast is waited while too few times are known for a percentile.
const coldFactor = 10

// copied is a copy of a request that is sent beside another one. It has an exchange of its own, since both
// are under way at once.
type copied struct {
	x      stage.Exchange
	slot   Slot
	stage  *Stage
	cancel context.CancelFunc

	mu   sync.Mutex
	done bool // resp and err are there
	lost bool // nobody wants them
	resp *message.Response
	err  error
}

// send sends the request to the origin of the slot. In a pool with hedge, the first try of a request that
// does no harm may become two.
func (a *attempt) send(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	if !a.slot.hedged || x.Visitor.Background || x.Replayed() || a.tries != 1 || !x.Out.Method.Safe() || x.Out.Body != nil || x.Out.Has(message.Upgrade) {
		return next.Serve(ctx, x)
	}
	h := a.pool.view.Load().spec.Retries.Hedge
	if h == nil {
		return next.Serve(ctx, x)
	}
	return a.race(ctx, x, h, next)
}

// race sends a copy, and another one to another origin when its answer takes longer than most. The first
// good answer is x's, and the slot of its try a's; the other copy is ended.
func (a *attempt) race(ctx context.Context, x *stage.Exchange, h *v1.HedgeSpec, next stage.Handler) (*message.Response, error) {
	x.MayBlock()
	ended := make(chan *copied, 2)
	first := a.copy(x, a.slot)
	a.held = false // the copy has it
	first.start(ctx, next, ended)
	after := time.Duration(a.pool.times.after.Load())
	if after == 0 {
		after = coldFactor * h.AtLeast.Std()
	}
	timer := time.NewTimer(max(after, h.AtLeast.Std()))
	defer timer.Stop()
	var second, other *copied
	for {
		select {
		case <-timer.C:
			if second = a.second(x, first); second != nil {
				defer a.pool.retries.under.Add(-1)
				second.start(ctx, next, ended)
			}
			continue
		case <-ctx.Done():
			// The copies see it too, and give their places back.
			first.leave()
			if second != nil {
				second.leave()
			}
			return nil, &stage.Error{Code: "client_gone", Side: stage.SideClient, Status: 499, Close: true, Err: context.Cause(ctx)}
		case c := <-ended:
			if second != nil && other == nil && !c.good() {
				other = c // the other copy may do better
				continue
			}
			return a.won(x, c, first, second)
		}
	}
}

// second makes the second copy; nil when there is no budget, no time or no other origin for it.
func (a *attempt) second(x *stage.Exchange, first *copied) *copied {
	now := a.stage.clock()
	if a.deadline != 0 && now >= a.deadline || !a.pool.mayRetry() {
		a.pool.counters.hedgeDenied.Inc()
		return nil
	}
	tried := &a.tried
	tried.add(first.slot.origin)
	slot, err := a.pool.Pick(Visitor{
		Class: x.Visitor.Class, Key: x.Visitor.Key, Tier: x.Visitor.Tier, Hash: hashOf(x, a.pool.view.Load().spec), Now: now,
		Source: x.Visitor.Source, Network: x.Visitor.Network,
	}, tried)
	tried.reset()
	if err != nil {
		a.pool.retries.under.Add(-1)
		a.pool.counters.hedgeDenied.Inc()
		return nil
	}
	x.Lap()
	x.MarkDetail(name, "hedge", slot.origin.address)
	slot.tier.counters.tries.Inc()
	x.Tries++
	c := a.copy(x, slot)
	if until := a.tell(&c.x, now); until != 0 {
		c.x.Deadline = a.stage.at(until)
	}
	return c
}

// copy makes a copy of x for a slot.
func (a *attempt) copy(x *stage.Exchange, slot Slot) *copied {
	c, _ := a.stage.copies.Get().(*copied)
	if c == nil {
		c = &copied{}
	}
	x.ForkInto(&c.x)
	c.x.Out.CopyFrom(&x.Out)
	c.x.Forwarding, c.x.Pool, c.x.Deadline, c.x.Shared = x.Forwarding, x.Pool, x.Deadline, x.Shared
	c.x.Tier, c.x.Origin, c.x.Target = slot.tier.name, slot.origin.address, slot.origin.target()
	c.slot, c.stage = slot, a.stage
	c.done, c.lost, c.resp, c.err = false, false, nil, nil
	return c
}

// start sends the copy.
func (c *copied) start(ctx context.Context, next stage.Handler, ended chan<- *copied) {
	cctx, cancel := context.WithCancel(ctx)
	c.cancel = cancel
	go func() {
		resp, err := next.Serve(cctx, &c.x)
		c.mu.Lock()
		c.done, c.resp, c.err = true, resp, err
		lost := c.lost
		c.mu.Unlock()
		if lost {
			c.giveUp()
			return
		}
		ended <- c
	}()
}

// good says whether the answer is worth being taken while another one may come.
func (c *copied) good() bool { return c.err == nil && !failing(c.resp.Status) }

// leave ends a copy that nobody wants any more: now, or when its goroutine comes back.
func (c *copied) leave() {
	c.cancel()
	c.mu.Lock()
	c.lost = true
	done := c.done
	c.mu.Unlock()
	if done {
		c.giveUp()
	}
}

// giveUp gives back what a copy that was left has. That it took so long is known of its origin.
func (c *copied) giveUp() {
	out := Abandoned
	if c.err != nil {
		if e := stage.AsError(c.err); e.Side == stage.SideOrigin && e.Code != "connection_limit_reached" {
			out = Failed
		}
	} else if failing(c.resp.Status) {
		out = Failed
	}
	c.slot.answered(c.stage.clock())
	c.slot.Release(out)
	c.end()
}

// end closes what is open and keeps the memory for another copy.
func (c *copied) end() {
	if c.resp != nil && c.resp.Body != nil {
		c.resp.Body.Close(errRetried)
	}
	c.x.End(message.Outcome{})
	c.cancel()
	s := c.stage
	c.slot, c.resp, c.err, c.stage = Slot{}, nil, nil, nil
	s.copies.Put(c)
}

// won makes a copy's answer that of x.
func (a *attempt) won(x *stage.Exchange, c, first, second *copied) (*message.Response, error) {
	switch {
	case second == nil:
	case c == second:
		a.pool.counters.hedgeWon.Inc()
		first.leave()
	default:
		a.pool.counters.hedgeLost.Inc()
		second.leave()
	}
	a.slot, a.held = c.slot, true
	x.Tier, x.Origin, x.Target, x.Spilled, x.Sent = c.x.Tier, c.x.Origin, c.x.Target, c.slot.Spilled, c.x.Sent
	x.Tries += c.x.Tries // what the last handler sent again
	for _, m := range c.x.Trail.Marks() {
		x.MarkDetail(m.Stage, m.Code, m.Detail)
	}
	x.Lap()
	if second != nil && c == second {
		x.MarkDetail(name, "hedge-won", c.x.Origin)
	}
	resp, err := c.resp, c.err
	if err != nil {
		c.end()
		return nil, err
	}
	a.winner = c
	return resp, nil
}

// failing says whether a status says that the origin cannot.
func failing(status int) bool { return status == 502 || status == 503 || status == 504 }
