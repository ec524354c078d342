package balance

import (
	"math"
	"sync/atomic"
	"time"
)

// reserve follows how many places visitors with a basket need in a tier at once, so that others
// do not fill what those will want a moment later. Its own atomics are written by Pick, the rest
// with the pool's lock held.
type reserve struct {
	most  atomic.Int64  // in flight for visitors with a basket, since the last look
	away  atomic.Uint64 // visitors whose basket is here and who had to go elsewhere
	seen  uint64        // of away
	peak  float64       // of most, slowly forgotten
	extra float64       // for those who had to go, slowly forgotten
	at    int64
}

// reserveTime is how long a peak is kept: half of it is forgotten then.
const reserveTime = 30 * time.Second

// saw notes that n visitors with a basket are in flight.
func (r *reserve) saw(n int64) {
	for m := r.most.Load(); n > m; m = r.most.Load() {
		if r.most.CompareAndSwap(m, n) {
			return
		}
	}
}

// look takes what was seen into account. Now is how many are in flight.
func (r *reserve) look(now, baskets int64) {
	half := math.Exp2(-float64(now-r.at) / float64(reserveTime))
	r.at = now
	r.peak, r.extra = max(float64(r.most.Swap(baskets)), r.peak*half), r.extra*half
	if a := r.away.Load(); a != r.seen {
		r.extra += float64(a - r.seen)
		r.seen = a
	}
	if r.peak+r.extra < 0.5 {
		r.peak, r.extra = 0, 0
	}
}

// wanted is how many places to keep: a quarter more than the peak, since they come by chance.
func (r *reserve) wanted() float64 {
	if r.peak == 0 && r.extra == 0 {
		return 0
	}
	return 1.25*r.peak + r.extra + 1
}
