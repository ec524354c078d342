package balance

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/stage"
)

// Baskets cost nothing to fill, so whoever keeps many of them is one visitor where places are few: visitors with a
// basket compete for the last places, and for turns in the line, by where they come from.
const (
	// holdingCells is how many sources are told apart at once, roughly; a row of them takes 4 KiB.
	holdingCells = 1 << 10
	// networkHolds is how many times as much as an address its network may have.
	networkHolds = 4
	// rivalTime is for how long there are rivals after visitors of two addresses came.
	rivalTime = time.Minute
	// fewHeld requests of a source at once are no more than one visitor's.
	fewHeld = 4
	// unitShare is the part of a tier's limit that counts as one request of a source.
	unitShare = 64
)

// source is where a visitor with a basket comes from. The zero source counts for nothing.
type source struct{ address, network uint64 }

func (v *Visitor) source() source { return source{v.Source, v.Network} }

// holdings counts what the sources of visitors with a basket have of a pool: places, and turns in its line. It is a
// count-min sketch that is exact but for collisions in both rows, of a size that does not depend on how many there are.
type holdings struct {
	seed uint64
	rows [2][holdingCells]atomic.Int32
}

func newHoldings() *holdings { return &holdings{seed: rand.Uint64()} }

// networkSalt keeps networks apart from addresses.
const networkSalt = 0x2545f4914f6cdd1d

// cells are those of a key, one in each row.
func (c *holdings) cells(key uint64) (a, b *atomic.Int32) {
	h := mix(key ^ c.seed)
	return &c.rows[0][h%holdingCells], &c.rows[1][h>>32%holdingCells]
}

// add counts n more of a source, or less.
func (c *holdings) add(s source, n int32) {
	a, b := c.cells(s.address)
	a.Add(n)
	b.Add(n)
	a, b = c.cells(s.network ^ networkSalt)
	a.Add(n)
	b.Add(n)
}

// has is how much a source has: its address, or a part of its network.
func (c *holdings) has(s source) int64 {
	a, b := c.cells(s.address)
	own := min(a.Load(), b.Load())
	a, b = c.cells(s.network ^ networkSalt)
	return int64(max(own, min(a.Load(), b.Load())/networkHolds, 0))
}

// rivals says whether visitors come from more than one address, with a basket or without. Where all come from one,
// there is nobody to keep places for, or nobody tells them apart.
type rivals struct {
	last atomic.Uint64 // the address that came last, and
	when atomic.Int64  // the pool's clock when it was last another one; 0 is never
}

func (r *rivals) note(address uint64, now int64) {
	if when := r.when.Load(); address == 0 || when != 0 && now-when < int64(time.Second) {
		return
	}
	if last := r.last.Swap(address); last != 0 && last != address {
		r.when.Store(max(now, 1))
	}
}

// none says that there is one address only.
func (r *rivals) none(now int64) bool {
	when := r.when.Load()
	return when == 0 || now-when >= int64(rivalTime)
}

// holds is how much the source of v has of the pool.
func (p *Pool) holds(v *Visitor) int64 {
	if v.Class != protectedClass || v.Source == 0 {
		return 0
	}
	if c := p.holdings.Load(); c != nil {
		return c.has(v.source())
	}
	return 0
}

// count counts a place, or a turn in the line, of v: from when half of a tier is taken, as there is nothing to share
// before. What it returns is to be given back to uncount.
func (p *Pool) count(v *Visitor, full bool) source {
	if v.Class != protectedClass || v.Source == 0 {
		return source{}
	}
	c := p.holdings.Load()
	if c == nil {
		if !full {
			return source{}
		}
		p.holdings.CompareAndSwap(nil, newHoldings())
		c = p.holdings.Load()
	}
	c.add(v.source(), 1)
	return v.source()
}

func (p *Pool) uncount(s source) {
	if s != (source{}) {
		p.holdings.Load().add(s, -1)
	}
}

// half says whether half of the tier's places for everybody are taken.
func (t *tier) half() bool { return t.inFlight.Load()+t.others.Load() >= t.marks.Load().general/2 }

// unit is how many requests of a source count as one.
func (m *marks) unit() int64 { return max(1, m.limit/unitShare) }

// forBasket is the bound for a visitor with a basket whose source has so much already: it leaves as many places to
// those who have less, half of the reserve at most.
func (m *marks) forBasket(held int64) int64 {
	if held == 0 {
		return m.basket
	}
	return m.basket - min(held/m.unit(), (m.basket-m.general+1)/2)
}

// room says how much a source may have for one of its visitors to find a place now: less than the result.
func (p *Pool) room() (most int64) {
	w := p.view.Load()
	for i := range w.tiers {
		if len(w.tiers[i].members) == 0 {
			continue
		}
		t := w.tiers[i].state
		m := t.marks.Load()
		free := m.basket - t.inFlight.Load() - t.others.Load()
		switch {
		case free <= 0:
		case free > (m.basket-m.general+1)/2:
			return math.MaxInt64
		default:
			most = max(most, free*m.unit())
		}
	}
	return most
}

// Ranks of those of one level who wait. A level is that of how much their source has.
const (
	rankOrder  = iota
	rankProved // at the checkout, or with a basket that the origin confirmed
	rankPath   // with a basket of which a path tells
	rankCount
)

// rank is the place of a visitor with a basket among those who wait; who has the lower one is served first. Who has
// next to nothing is of one level with all such, and each further one is of twice as much.
func (p *Pool) rank(x *stage.Exchange, held int64) uint32 {
	unit := int64(1)
	w := p.view.Load()
	for i := range w.tiers {
		if m := w.tiers[i].state.marks.Load(); m.limit != math.MaxInt64 {
			unit = max(unit, m.unit())
		}
	}
	level, rank := uint32(bits.Len64(uint64(held/unit/fewHeld))), uint32(rankPath)
	switch near := x.Visitor.Near(); {
	case near == stage.StepOrder:
		rank = rankOrder
	case near == stage.StepCheckout || x.Visitor.Confirmed:
		rank = rankProved
	}
	return level*rankCount + rank
}
