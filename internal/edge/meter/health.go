package meter

import (
	"iter"
	"math"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/stage"
)

// health is how an organization's visitors fare, since the process began. All sites of it share one, so that a site that goes
// leaves its counts behind. Who counts adds from the top to the bottom and who reads does so from the bottom to the top: a part is
// never more than its whole.
type health struct {
	latency [fleet.Buckets]atomic.Int64 // all requests
	errors  atomic.Int64
	known   atomic.Int64
	blocked atomic.Int64 // of known
	lookups atomic.Int64
	misses  atomic.Int64 // of lookups
}

// healthOf gives an organization's, a new one where there is none. The meter's lock is held.
func (m *Meter) healthOf(organization string) *health {
	h := m.organizations[organization]
	if h == nil {
		h = &health{}
		m.organizations[organization] = h
	}
	return h
}

// Answered counts a request whose answer begins. Its time is that of the exchange's last Lap: what takes time calls that, and
// no clock is read here.
func (m *Meter) Answered(x *stage.Exchange, status int) {
	if x.Site == nil {
		return
	}
	c, _ := x.Site.Parts[m.slot].(*cells)
	if c == nil || c.health == nil {
		return
	}
	h := c.health
	h.latency[m.classes.of(x.Now().Sub(x.Start))].Add(1)
	if status >= 500 {
		h.errors.Add(1)
	}
	if x.Visitor.Exempt() {
		h.known.Add(1)
		if Refused(x) {
			h.blocked.Add(1)
		}
	}
	switch x.CacheStatus {
	case "", "bypass":
	case "hit", "stale", "collapsed":
		h.lookups.Add(1)
	default: // miss, revalidated, expired, pass: it cost an origin something, as the cache's own statistics have it
		h.lookups.Add(1)
		h.misses.Add(1)
	}
}

// Sample is what was counted of an organization since the process began, or since it had no sites; zero of one that is not known.
func (m *Meter) Sample(organization string) (s fleet.Sample) {
	m.mu.Lock()
	h := m.organizations[organization]
	m.mu.Unlock()
	if h == nil {
		return s
	}
	s.Misses = h.misses.Load()
	s.Lookups = h.lookups.Load()
	s.Blocked = h.blocked.Load()
	s.Known = h.known.Load()
	s.Errors = h.errors.Load()
	for i := range s.Latency {
		s.Latency[i] = h.latency[i].Load()
		s.Requests += s.Latency[i]
	}
	return s
}

// Sweep forgets the counts of organizations that have no sites any more.
func (m *Meter) Sweep(have iter.Seq[string]) {
	left := map[string]struct{}{}
	for o := range have {
		left[o] = struct{}{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for o := range m.organizations {
		if _, ok := left[o]; !ok {
			delete(m.organizations, o)
		}
	}
}

// classes find the fleet's bucket of a time without a logarithm: by the number of its bits, and a step or few from there.
type classes struct {
	upTo  [fleet.Buckets]time.Duration // the longest time of each
	first [65]uint8                    // the bucket of the shortest time that has so many bits
}

func newClasses() *classes {
	c := &classes{}
	bucket := func(d time.Duration) int { return fleet.Bucket(float64(d) / float64(time.Millisecond)) }
	for b := range c.upTo {
		d := time.Duration(fleet.Bound(b) * float64(time.Millisecond))
		for bucket(d) > b { // bounds are rounded
			d--
		}
		for b < fleet.Buckets-1 && bucket(d+1) <= b {
			d++
		}
		c.upTo[b] = d
	}
	c.upTo[fleet.Buckets-1] = math.MaxInt64
	for n := 1; n < 64; n++ {
		c.first[n] = uint8(bucket(1 << (n - 1)))
	}
	return c
}

// of gives the bucket of d.
func (c *classes) of(d time.Duration) int {
	d = max(d, 0) // the clock of a replay may stand still, and none is to go back
	b := int(c.first[bits.Len64(uint64(d))])
	for d > c.upTo[b] {
		b++
	}
	return b
}
