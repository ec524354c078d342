package balance

import (
	"math"
	"sync/atomic"

	v1 "github.com/relais-edge/relais/api/v1"
)

const (
	// smallTier is the number of origins up to which least-request looks at all of them.
	smallTier = 8
	// hashProbes is how many places of the table consistent-hash looks at.
	hashProbes = 16
	// hashSlack is how many requests an origin may have whatever its share: a few requests
	// must not make a key move.
	hashSlack = 8
	// takeTries is how often an origin is chosen anew because the chosen one was filled meanwhile.
	takeTries = 3
)

// group is a set of members and what it takes to draw one by weight. It does not change.
type group struct {
	members  []member
	weight   int64
	draws    []alias  // weighted draws; nil when all weights are equal
	schedule []uint16 // weighted round-robin; nil when all weights are equal
	bounded  bool     // some member has a limit of its own
}

func newGroup(a v1.Algorithm, members []member) group {
	g := group{members: members}
	equal := true
	for _, m := range members {
		g.weight += m.weight
		equal = equal && m.weight == members[0].weight
		g.bounded = g.bounded || m.limit > 0
	}
	if !equal {
		g.draws = newAliases(members, g.weight)
		if a == v1.RoundRobin {
			g.schedule = newSchedule(members, g.weight)
		}
	}
	return g
}

// chooser is how an origin is chosen among the members of a tierView. It does not change.
type chooser struct {
	algorithm v1.Algorithm
	group
	near   group     // those of the edge's zone; empty without preference
	stay   uint32    // which share of 2^32 of the requests stays in the zone
	table  hashTable // consistent-hash over all members of the plan
	all    []member  // of the plan, by the table's numbers
	up     []bool    // which of all are members of the view
	sum    int64     // weight of those; consistent-hash only
	nowish bool      // the algorithm goes by the time
}

func newChooser(spec *v1.OriginPoolSpec, members []member, t *plannedTier, panicked bool, now int64) chooser {
	c := chooser{algorithm: spec.Algorithm, group: newGroup(spec.Algorithm, members), nowish: spec.Algorithm == v1.PeakEWMA}
	if c.algorithm == v1.ConsistentHash {
		c.table, c.all, c.up = t.table, t.members, make([]bool, len(t.members))
		for i, m := range t.members {
			if c.up[i] = panicked || m.o.well(now); c.up[i] {
				c.sum += m.weight
			}
		}
	}
	return c
}

// take chooses an origin of t for v that was not tried and takes a place at it; nil when all that are
// left are full. It does not allocate.
func (c *chooser) take(t *tierView, v *Visitor, tried *Tried) *origin {
	for range takeTries {
		m := c.choose(t, v, tried)
		if m == nil {
			return nil
		}
		n := m.o.inFlight.Add(1)
		if m.limit == 0 || n <= m.limit && !v.Background || n <= m.limit/2 {
			return m.o
		}
		m.o.inFlight.Add(-1)
		if v.Background {
			return nil
		}
	}
	return nil
}

// usable says whether a member may be sent the request.
func (m *member) usable(tried *Tried) bool {
	return (tried.n == 0 || !tried.has(m.o)) && (m.limit == 0 || m.o.inFlight.Load() < m.limit)
}

func (c *chooser) choose(t *tierView, v *Visitor, tried *Tried) *member {
	if len(c.near.members) > 0 && (c.stay == math.MaxUint32 || uint32(v.chance()) < c.stay) {
		if m := c.among(&c.near, &t.state.near, t, v, tried); m != nil && t.hasRoom(m) {
			return m
		}
	}
	return c.among(&c.group, &t.state.turns, t, v, tried)
}

// among chooses in one group.
func (c *chooser) among(g *group, turns *atomic.Uint64, t *tierView, v *Visitor, tried *Tried) *member {
	switch c.algorithm {
	case v1.RoundRobin:
		return g.inTurn(turns.Add(1), tried)
	case v1.Random:
		return g.random(v, tried)
	case v1.First:
		return g.firstUsable(0, tried)
	case v1.ConsistentHash:
		return c.byHash(t, v, tried)
	}
	return c.least(g, v, tried)
}

// inTurn is weighted round-robin.
func (g *group) inTurn(turn uint64, tried *Tried) *member {
	if g.schedule == nil {
		return g.firstUsable(int(turn%uint64(len(g.members))), tried)
	}
	i := 0
	for k := range tried.n + 1 {
		i = int(g.schedule[(turn+uint64(k))%uint64(len(g.schedule))])
		if m := &g.members[i]; m.usable(tried) {
			return m
		}
	}
	return g.firstUsable(i, tried)
}

func (g *group) random(v *Visitor, tried *Tried) *member {
	i := g.draw(v.chance())
	for range tried.n {
		if g.members[i].usable(tried) {
			break
		}
		i = g.draw(v.chance())
	}
	return g.firstUsable(i, tried)
}

// draw turns a random number into a member, by weight.
func (g *group) draw(r uint64) int {
	i := int(r >> 32 * uint64(len(g.members)) >> 32)
	if g.draws != nil && uint32(r) >= g.draws[i].keep {
		i = int(g.draws[i].other)
	}
	return i
}

// least takes the least busy of a small group, and of a large one the less busy of two drawn by chance:
// that is nearly as even, and does not send every request of every edge to the origin that just became
// free. What busy means says the algorithm.
func (c *chooser) least(g *group, v *Visitor, tried *Tried) *member {
	if len(g.members) <= smallTier {
		return c.leastOfAll(g, v, tried)
	}
	r := v.chance()
	a := &g.members[g.draw(r)]
	b := &g.members[g.draw(mix(r))]
	if tried.n > 0 || g.bounded {
		if !a.usable(tried) {
			a = b
		}
		if !a.usable(tried) {
			return g.random(v, tried)
		}
		if !b.usable(tried) {
			b = a
		}
	}
	if c.busier(a, b, v.Now) {
		return b
	}
	return a
}

// leastOfAll begins the search anywhere, so that ties are shared.
func (c *chooser) leastOfAll(g *group, v *Visitor, tried *Tried) *member {
	if len(g.members) == 1 && tried.n == 0 && !g.bounded {
		return &g.members[0]
	}
	var best *member
	i := int(v.chance() % uint64(len(g.members)))
	for range g.members {
		m := &g.members[i]
		if m.usable(tried) && (best == nil || c.busier(best, m, v.Now)) {
			best = m
		}
		if i++; i == len(g.members) {
			i = 0
		}
	}
	return best
}

// busier compares what one more request would make of both.
func (c *chooser) busier(a, b *member, now int64) bool {
	if c.nowish {
		return a.cost(now)*float64(b.weight) > b.cost(now)*float64(a.weight)
	}
	return (a.o.inFlight.Load()+1)*b.weight > (b.o.inFlight.Load()+1)*a.weight
}

// byHash is consistent hashing with bounded load: the origin of the key, unless it is a quarter
// busier than its share and has some requests to show for it; then the next one that the key
// leads to.
func (c *chooser) byHash(t *tierView, v *Visitor, tried *Tried) *member {
	busy := t.state.inFlight.Load()
	at := c.table.begin(v.Hash)
	for range hashProbes {
		i := c.table.member(at)
		if c.up[i] {
			m := &c.all[i]
			// Below five quarters of its share of what is busy, and the slack.
			if (m.o.inFlight.Load()-hashSlack)*4*c.sum < busy*5*m.weight && m.usable(tried) {
				return m
			}
		}
		at = c.table.next(at, i)
	}
	return c.least(&c.group, v, tried)
}

// firstUsable returns the first member at or after i, in a ring; nil when there is none.
func (g *group) firstUsable(i int, tried *Tried) *member {
	for range g.members {
		if m := &g.members[i]; m.usable(tried) {
			return m
		}
		if i++; i == len(g.members) {
			i = 0
		}
	}
	return nil
}
