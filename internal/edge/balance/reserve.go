package balance

import (
	"math"
	"sync/atomic"
	"time"
)

// reserve follows what share of a tier visitors with a basket need, so that others do not take the
// place that one of them will want a moment later. All but away belongs to the pool's lock.
type reserve struct {
	away   atomic.Uint64 // requests of visitors with a basket that found the tier full
	wanted float64       // places for visitors with a basket, lately
	last   load          // of the tier, and
	gone   uint64        // of away, at the last look
	at     int64
}

const (
	// reserveTime is how far back wanted reaches.
	reserveTime = 5 * time.Second
	// sentOnRare and refusedRare are how many of the visitors with a basket may find a tier full, where
	// another tier is after it and where none is.
	sentOnRare  = 0.1
	refusedRare = 0.01
)

// look takes into account how many places visitors with a basket have, and what those who found none
// would have had: as much as the others for each request (Little's law).
func (r *reserve) look(now, baskets int64, c load) {
	away := r.away.Load()
	wanted := float64(baskets)
	if missed := float64(away - r.gone); missed > 0 {
		wanted += float64(c.inFlight) * missed / (missed + float64(c.sent-r.last.sent))
	}
	keep := math.Exp(-float64(now-r.at) / float64(reserveTime))
	if r.wanted = keep*r.wanted + (1-keep)*wanted; r.wanted < 0.01 {
		r.wanted = 0
	}
	r.last, r.gone, r.at = c, away, now
}

// places is how many of a tier's places to keep: those of trunk reservation. Above the bound of the
// others only visitors with a basket come, while all leave, so that each further place is taken
// less often than the one before, by the share that baskets have of the tier (F. P. Kelly, Loss
// Networks, Annals of Applied Probability 1, 1991). A few places do, however large the tier is.
func (r *reserve) places(limit, rare float64) float64 {
	if r.wanted == 0 {
		return 0
	}
	return math.Log(rare) / math.Log(min(r.wanted/limit, 0.9))
}
