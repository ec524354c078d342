package balance

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// retryFloor is the number of retries under way that a pool may always have, so that the
// budget of a quiet pool is not 0.
const retryFloor = 3

// maxBudgetStep is the longest step of the wait for the budget; the steps double from 5 ms.
const maxBudgetStep = 160 * time.Millisecond

// budget bounds the retries under way.
type budget struct{ under atomic.Int64 }

func (b *budget) take(limit int64) bool {
	for {
		n := b.under.Load()
		if n >= limit {
			return false
		}
		if b.under.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// mayRetry takes from the pool's budget: retries under way are a share of tries under way.
func (p *Pool) mayRetry() bool {
	w := p.view.Load()
	var active int64
	for i := range w.tiers {
		active += w.tiers[i].state.inFlight.Load()
	}
	most := max(retryFloor, int64(float64(active)*v1.Value(w.spec.Retries.Budget).Fraction()))
	if n := int64(w.spec.Retries.InFlight); n > 0 {
		most = min(most, n)
	}
	return p.retries.take(most)
}

// again says whether the request may be sent once more, and counts the retry if so. Answered
// says that an origin gave an answer, if a bad one.
func (a *attempt) again(ctx context.Context, x *stage.Exchange, why string, answered bool) bool {
	if ctx.Err() != nil || x.Visitor.Background || a.tries > v1.Value(a.pool.view.Load().spec.Retries.Attempts) {
		return false
	}
	x.Lap()
	if a.deadline != 0 && a.stage.now(x) >= a.deadline {
		return false
	}
	key := len(x.Out.Get(message.IdempotencyKey)) > 0
	if (x.Sent || answered) && !x.Out.Method.Idempotent() && !key || !a.replay.repeatable() {
		return false
	}
	switch {
	case a.pool.mayRetry():
		a.counted = true
	case key && x.Visitor.Class == stage.Protected && !a.extra:
		// An order that names itself may be repeated without harm, and is worth more than the
		// budget: one try above it.
		a.extra = true
	case !answered && a.awaitBudget(ctx, x):
		a.counted = true
	default:
		a.pool.counters.denied.Inc()
		x.MarkDetail(name, "retry-denied", why)
		return false
	}
	a.pool.counters.retries.Inc()
	x.MarkDetail(name, "retry", why)
	return true
}

// awaitBudget waits for the budget, a third of a second at most. When an origin dies, all that it
// had in hand fails at once, which may be more than the budget allows at once; when everything
// is down the wait is short enough to be honest.
func (a *attempt) awaitBudget(ctx context.Context, x *stage.Exchange) bool {
	if x.Replayed() {
		return false // time would have to pass for others too
	}
	x.MayBlock()
	defer x.Lap()
	for d := 5 * time.Millisecond; d <= maxBudgetStep; d *= 2 {
		if a.deadline != 0 && a.stage.clock()+int64(d) >= a.deadline || !sleep(ctx, d/2+rand.N(d)) {
			return false
		}
		if a.pool.mayRetry() {
			return true
		}
	}
	return false
}

// sleep waits; false when ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// endRetry gives back what a retry took from the budget.
func (a *attempt) endRetry() {
	if a.counted {
		a.counted = false
		a.pool.retries.under.Add(-1)
	}
}
