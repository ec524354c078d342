package balance

import v1 "github.com/relais-edge/relais/api/v1"

// The drill: 200 orders and 15,000 other requests a second in virtual time, over the real pools of four edges that
// know nothing of each other, through what goes wrong in the life of a shop. -scenes runs a minute of each.

// The scale. Home takes 20,000 requests a second, overflow twice that.
const (
	drillOrders     = 200
	drillBackground = 15_000
	drillRate       = drillOrders + drillBackground
	// drillBuys makes one of 76 requests an order: a visit is six requests, and three more with an order.
	drillBuys = 0.086
)

// book is what buyers were told, and the ledger behind the origins: an order with a key that it has is not
// written again.
type book struct {
	next      uint64
	told      map[uint64]bool // orders that ended, and whether their buyer has the confirmation
	ledger    map[uint64]int  // rows
	worked    map[uint64]int  // how often an origin worked on it
	opened    int
	confirmed int
}

func newBook() *book {
	return &book{told: map[uint64]bool{}, ledger: map[uint64]int{}, worked: map[uint64]int{}}
}

func (b *book) open() uint64 {
	b.next++
	b.opened++
	return b.next
}

func (b *book) write(key uint64) {
	if b.worked[key]++; b.ledger[key] == 0 {
		b.ledger[key]++
	}
}

func (b *book) close(key uint64, ok bool) {
	b.told[key] = ok
	if ok {
		b.confirmed++
	}
}

// verdict compares: lost are orders whose buyers never got the confirmation, missing those that were
// confirmed and are not in the ledger exactly once, open those of which nobody knows the end.
func (b *book) verdict() (lost, missing, open, repeated int) {
	for key, ok := range b.told {
		switch {
		case !ok:
			lost++
		case b.ledger[key] != 1:
			missing++
		}
	}
	for _, n := range b.worked {
		if n > 1 {
			repeated++
		}
	}
	return lost, missing, b.opened - len(b.told), repeated
}

// lose ends an edge as a crash does: connections break, origins work on what they have, and the
// visitors come again at other edges.
func (w *world) lose(edge int) (broken int) {
	w.edges[edge].alive = false
	for id := range int32(len(w.requests)) {
		r := &w.requests[id]
		if r.refs == 0 || r.visitor < 0 || int(r.edge) != edge || r.answered || r.gone {
			continue
		}
		r.answered, r.gone, r.held = true, true, false // its place went with the edge
		w.again(id, 50*ms+w.rng.Int64N(450*ms))
		broken++
	}
	return broken
}

// reload puts a changed document in service at every edge: origins go and come, weights, the algorithm, the
// health and the retries change.
func (w *world) reload(turn int) {
	algorithms := []v1.Algorithm{v1.RoundRobin, v1.PeakEWMA, v1.Random, v1.LeastRequest}
	for _, e := range w.edges {
		spec := w.spec()
		spec.Algorithm = algorithms[turn%len(algorithms)]
		spec.Retries.Attempts = new(2 + turn%3)
		spec.Health.Passive.ConsecutiveFailures = new(5 + turn%3)
		home := spec.Tiers[0].Origins
		out := turn % len(home)
		home[(out+1)%len(home)].Weight = new(2)
		spec.Tiers[0].Origins = append(home[:out:out], home[out+1:]...) // it finishes what it has
		if err := e.update(spec, e.checks); err != nil {
			panic(err)
		}
	}
}

// drillScene is the world of the drill. Trouble lasts from s.from to s.to; after s.to+3 s nobody comes any more, and what is
// open comes to its end.
func drillScene(name string) scene {
	from, to := 4*second, 12*second
	if *allScenes {
		from, to = 10*second, 55*second
	}
	const rate = float64(drillRate)
	s := scene{
		name: name, service: exponential, seed: *sceneSeed, warm: second, from: from, to: to, end: to + 15*second,
		tiers: []simTier{{"home", 10, 40, 5 * ms}, {"overflow", 20, 40, 30 * ms}}, buys: drillBuys, book: newBook(), peak: rate,
	}
	s.rate = func(t int64) float64 {
		if t > to+3*second {
			return 0
		}
		return rate
	}
	return s
}

// spikeTo has more visitors come while there is trouble.
func (s *scene) spikeTo(factor float64) {
	calm := s.rate
	s.peak *= factor
	s.rate = func(t int64) float64 {
		if t >= s.from && t < s.to {
			return factor * calm(t)
		}
		return calm(t)
	}
}
