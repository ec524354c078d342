package balance

import (
	"container/heap"
	"math"
	"math/rand/v2"

	v1 "github.com/relais-edge/relais/api/v1"
)

const (
	// smallTier is the number of origins up to which least-request looks at all of them.
	smallTier = 8
	// maxSchedule bounds the order that weighted round-robin goes through.
	maxSchedule = 1 << 14
	// hashProbes is how many places of the table consistent-hash looks at.
	hashProbes = 16
	// hashSlack is how many requests an origin may have whatever its share: a few requests
	// must not make a key move.
	hashSlack = 8
)

// chooser is how an origin is chosen among the members of a tierView. It does not change.
type chooser struct {
	algorithm v1.Algorithm
	draws     []alias  // weighted draws; nil when all weights are equal
	schedule  []uint16 // weighted round-robin; nil when all weights are equal
	table     *maglev  // consistent-hash over all members of the plan
	all       []member // of the plan, by the table's numbers
	up        []bool   // which of all are members of the view
	weight    int64    // of the members of the view; consistent-hash only
}

func newChooser(a v1.Algorithm, members []member, t *plannedTier, panicked bool, now int64) chooser {
	c := chooser{algorithm: a}
	equal := true
	for _, m := range members {
		equal = equal && m.weight == members[0].weight
	}
	if !equal {
		var sum int64
		for _, m := range members {
			sum += m.weight
		}
		c.draws = newAliases(members, sum)
		if a == v1.RoundRobin {
			c.schedule = newSchedule(members, sum)
		}
	}
	if a == v1.ConsistentHash {
		c.table, c.all, c.up = t.table, t.members, make([]bool, len(t.members))
		for i, m := range t.members {
			if c.up[i] = panicked || m.o.well(now); c.up[i] {
				c.weight += m.weight
			}
		}
	}
	return c
}

// choose returns an origin of t that was not tried; there is one. It does not allocate.
func (c *chooser) choose(t *tierView, hash uint64, tried *Tried) *origin {
	switch c.algorithm {
	case v1.RoundRobin:
		return c.roundRobin(t, tried)
	case v1.Random:
		return c.random(t.members, tried)
	case v1.First:
		return firstUntried(t.members, 0, tried)
	case v1.ConsistentHash:
		return c.byHash(t, hash, tried)
	}
	return c.leastRequest(t.members, tried)
}

func (c *chooser) roundRobin(t *tierView, tried *Tried) *origin {
	n := uint64(len(t.members))
	if c.schedule != nil {
		n = uint64(len(c.schedule))
	}
	i := 0
	for range tried.n + 1 {
		i = int(t.state.turns.Add(1) % n)
		if c.schedule != nil {
			i = int(c.schedule[i])
		}
		if o := t.members[i].o; !tried.has(o) {
			return o
		}
	}
	return firstUntried(t.members, i, tried)
}

func (c *chooser) random(members []member, tried *Tried) *origin {
	i := c.draw(members, rand.Uint64())
	for range tried.n {
		if !tried.has(members[i].o) {
			break
		}
		i = c.draw(members, rand.Uint64())
	}
	return firstUntried(members, i, tried)
}

// draw turns a random number into a member, by weight.
func (c *chooser) draw(members []member, r uint64) int {
	i := int(r >> 32 * uint64(len(members)) >> 32)
	if c.draws != nil && uint32(r) >= c.draws[i].keep {
		i = int(c.draws[i].other)
	}
	return i
}

// leastRequest takes the least busy of a small tier, and of a large one the less busy of two
// drawn by chance: that is nearly as even, and does not send every request of every edge to the
// origin that just became free.
func (c *chooser) leastRequest(members []member, tried *Tried) *origin {
	if len(members) == 1 {
		return members[0].o
	}
	if len(members) <= smallTier {
		return least(members, tried)
	}
	a, b := &members[c.draw(members, rand.Uint64())], &members[c.draw(members, rand.Uint64())]
	if tried.n > 0 {
		if tried.has(a.o) {
			a = b
		}
		if tried.has(a.o) {
			return c.random(members, tried)
		}
		if tried.has(b.o) {
			b = a
		}
	}
	if busier(a, b) {
		return b.o
	}
	return a.o
}

// least returns the least busy member; the search starts anywhere, so that ties are shared.
func least(members []member, tried *Tried) *origin {
	var best *member
	i := int(rand.Uint64() % uint64(len(members)))
	for range members {
		m := &members[i]
		if (best == nil || busier(best, m)) && (tried.n == 0 || !tried.has(m.o)) {
			best = m
		}
		if i++; i == len(members) {
			i = 0
		}
	}
	return best.o
}

// busier compares what one more request would make of both.
func busier(a, b *member) bool {
	return (a.o.inFlight.Load()+1)*b.weight > (b.o.inFlight.Load()+1)*a.weight
}

// byHash is consistent hashing with bounded load: the origin of the key, unless it is a quarter
// busier than its share and has some requests to show for it; then the next one that the key
// leads to.
func (c *chooser) byHash(t *tierView, hash uint64, tried *Tried) *origin {
	busy := t.state.inFlight.Load()
	h := mix(hash)
	for range hashProbes {
		i := c.table.at(h)
		if c.up[i] {
			m := &c.all[i]
			bound := busy*5*m.weight/(4*c.weight) + hashSlack
			if m.o.inFlight.Load() < bound && !tried.has(m.o) {
				return m.o
			}
		}
		h = mix(h)
	}
	return c.leastRequest(t.members, tried)
}

// firstUntried returns the first member at or after i, in a ring, that was not tried.
func firstUntried(members []member, i int, tried *Tried) *origin {
	for range members {
		if !tried.has(members[i].o) {
			return members[i].o
		}
		if i++; i == len(members) {
			i = 0
		}
	}
	return members[i].o
}

// alias is a place of Walker's alias method: a draw that lands here stays with probability
// keep/2^32, and goes to other else.
type alias struct {
	keep  uint32
	other uint16
}

func newAliases(members []member, sum int64) []alias {
	n := len(members)
	table, left := make([]alias, n), make([]float64, n)
	var small, large []int
	for i, m := range members {
		table[i] = alias{math.MaxUint32, uint16(i)}
		left[i] = float64(m.weight) * float64(n) / float64(sum)
		if left[i] < 1 {
			small = append(small, i)
		} else {
			large = append(large, i)
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		table[s] = alias{uint32(left[s] * math.MaxUint32), uint16(l)}
		if left[l] -= 1 - left[s]; left[l] < 1 {
			large, small = large[:len(large)-1], append(small, l)
		}
	}
	return table
}

// newSchedule is an order in which each member appears by its weight and evenly spread: each
// time the member comes whose next appearance is due first.
func newSchedule(members []member, sum int64) []uint16 {
	g := members[0].weight
	for _, m := range members {
		g = gcd(g, m.weight)
	}
	n := sum / g
	if n > maxSchedule {
		n = max(maxSchedule, int64(len(members)))
	}
	q := make(dueHeap, len(members))
	for i, m := range members {
		every := float64(sum) / float64(m.weight)
		q[i] = due{every / 2, every, uint16(i)}
	}
	heap.Init(&q)
	order := make([]uint16, n)
	for i := range order {
		order[i] = q[0].member
		q[0].at += q[0].every
		heap.Fix(&q, 0)
	}
	return order
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

type due struct {
	at, every float64
	member    uint16
}

type dueHeap []due

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	return h[i].member < h[j].member
}
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)   { *h = append(*h, x.(due)) }
func (h *dueHeap) Pop() any     { panic("balance: a schedule only moves members") }
