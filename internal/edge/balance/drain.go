package balance

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/stage"
)

// Bounds of what a visitor who is sent away is told to wait, before it is spread.
const (
	leastAway = time.Second
	mostAway  = 60 * time.Second
	// unknownAway is told as long as nothing was measured.
	unknownAway = 2 * time.Second
	// awayShare of the places that come free is given to those who come back; the rest is for new ones.
	awayShare = 0.5
	// spread is how much later than estimated some are told to come, in percent.
	spread = 50
)

// drain measures how fast a pool takes visitors, and gives those who are sent away a time to come back: each
// a later one, as fast as they could be let in. So a crowd comes back as a row.
type drain struct {
	all, general atomic.Uint64 // visitors let in a second: all, and those without a basket; bits of a float64
	// turn is the clock at which the last one who was sent away is to come back.
	turn atomic.Int64
	// What look saw last.
	at               int64
	sent, withBasket uint64
}

// look takes in what was let in since the last look, about a second ago. It is called by one goroutine.
func (d *drain) look(now int64, sent, withBasket uint64) {
	first := d.at == 0
	seconds := float64(now-d.at) / 1e9
	if first || seconds <= 0 {
		d.at, d.sent, d.withBasket = now, sent, withBasket
		return
	}
	// Tiers come and go with documents, so that the sums may fall.
	n, baskets := float64(sent-min(sent, d.sent)), float64(withBasket-min(withBasket, d.withBasket))
	d.at, d.sent, d.withBasket = now, sent, withBasket
	keep := math.Exp2(-seconds) // half is forgotten in a second
	for _, r := range [...]struct {
		to   *atomic.Uint64
		rate float64
	}{{&d.all, n / seconds}, {&d.general, max(0, n-baskets) / seconds}} {
		old := math.Float64frombits(r.to.Load())
		r.to.Store(math.Float64bits(r.rate + keep*(old-r.rate)))
	}
}

// away is when there will be room for one who is sent away now, as estimated: a second at least, a minute at most.
func (d *drain) away(now int64, class stage.Class) time.Duration {
	rate := math.Float64frombits(d.general.Load())
	if class == protectedClass {
		// They are let in first, so that only others with a basket stand before them.
		rate = math.Float64frombits(d.all.Load())
		if rate <= 0 {
			return unknownAway
		}
		return min(max(time.Duration(1e9/rate), leastAway), mostAway)
	}
	if rate <= 0 {
		if d.all.Load() == 0 {
			return unknownAway
		}
		return mostAway // only visitors with a basket are let in
	}
	step := int64(1e9 / (rate * awayShare))
	for {
		old := d.turn.Load()
		turn := min(max(old, now)+min(step, int64(mostAway)), now+int64(mostAway))
		if d.turn.CompareAndSwap(old, turn) {
			return max(time.Duration(turn-now), leastAway)
		}
	}
}
