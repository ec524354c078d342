package learn

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/observe"
)

// Bounds of what is kept.
const (
	// MaxFindings bounds the findings of a site, and AllFindings those of all sites.
	MaxFindings = 256
	AllFindings = 16_384
	// MaxVisits bounds the visitors of a site who were hit and have not ordered yet, AllVisits
	// those of all sites.
	MaxVisits = 4_096
	AllVisits = 65_536
	// MaxHits bounds the findings of one visitor, and the hits of one request that are looked at.
	MaxHits = 16
	// MaxShapes bounds the shapes of values that a finding knows, and MaxOneHit those of one hit.
	MaxShapes = 24
	MaxOneHit = 4
	// MaxProposed bounds the shapes of a proposal.
	MaxProposed = 64
	// MaxBuyers bounds the buyers of a finding; more of them change nothing.
	MaxBuyers = 64
	// MaxSites bounds the sites with something to remember.
	MaxSites = 20_000

	maxPath   = 128
	maxTarget = 128
)

// Visit is how long a hit waits for an order of its visitor, Window how long a buyer counts.
const (
	Visit  = 6 * time.Hour
	Window = 14 * 24 * time.Hour
)

// Hit is a rule that matched a target of a request. Target is as an exclusion's: ARGS:q, or empty
// for the rule as a whole.
type Hit struct {
	Rule   int
	Target string
	// Score is what the match added to the request's.
	Score int
	// Shapes are what the values looked like that were matched, without what they said; nil where one has none.
	Shapes []string
}

// Visitor is who sent a request. Only Basket makes it count.
type Visitor struct {
	ID      uint64 // of its signed cookie
	Network uint64 // Network of its address
	Basket  bool
}

// Network is the network of an address, as a number: an IPv4 /24 or an IPv6 /48.
func Network(a netip.Addr) uint64 {
	a = a.Unmap()
	bits := 48
	if a.Is4() {
		bits = 24
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return 0
	}
	b := p.Addr().As16()
	return hash(b[:])
}

func hash[T ~[]byte | ~string](b T) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(b) {
		h = (h ^ uint64(b[i])) * 0x100000001b3
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// Order is a number for what the origin calls an order; 0 only for no name.
func Order(name []byte) uint64 {
	if len(name) == 0 {
		return 0
	}
	return max(hash(name), 1)
}

// Terms are what a policy asks before it believes.
type Terms struct {
	// Buyers is how many different visitors must have ordered after a hit.
	Buyers int
	// Share, of 1, is how many of the visitors with a basket who were hit must have ordered.
	Share float64
	// Lifetime of a demotion; Most of a site at a time. Zero Most means that nothing is demoted.
	Lifetime time.Duration
	Most     int
}

// Events that are counted.
const (
	evHit = iota
	evOrder
	evBuyer
	evLost
	evDemoted
	evRenewed
	evEnded
	evNoRoom
)

var events = [...]string{"hit", "order", "buyer", "lost", "demoted", "renewed", "ended", "no-room"}

// Book is what is remembered of all sites.
type Book struct {
	counters [len(events)]observe.Counter
	findings atomic.Int64
	visits   atomic.Int64
	demoted  atomic.Int64

	mu    sync.Mutex
	sites map[string]*Site
}

// New returns an empty book. Its metrics are relais_waf_learning_total by event (hit, order and
// buyer; lost, what was forgotten for want of room; demoted, renewed, ended and no-room of
// demotions) and relais_waf_demotions, those in force.
func New(r *observe.Registry) *Book {
	b := &Book{sites: map[string]*Site{}}
	f := r.Counters("relais_waf_learning_total", "What the firewall learned of visitors with a basket, and what it had to forget.", len(events), "event")
	for i, e := range events {
		b.counters[i] = f.With(e)
	}
	r.GaugeFunc("relais_waf_demotions", "Rules that only log for a route, because they hit too many buyers.", func() float64 { return float64(b.demoted.Load()) })
	return b
}

// Site returns what is remembered of a site, by its key; nil when there are too many sites.
func (b *Book) Site(key string) *Site {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.sites[key]
	if s == nil && len(b.sites) < MaxSites {
		s = &Site{book: b, findings: map[Key]*finding{}, visits: map[uint64]*visit{}}
		b.sites[key] = s
	}
	return s
}

// Forget drops what is remembered of the sites that are not to be kept. What is still under way for one of
// them teaches nothing any more.
func (b *Book) Forget(keep func(key string) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, s := range b.sites {
		if !keep(key) {
			s.drop()
			delete(b.sites, key)
		}
	}
}

// Keys lists the sites of which something is remembered.
func (b *Book) Keys() (keys []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, s := range b.sites {
		if !s.empty() {
			keys = append(keys, k)
		}
	}
	return keys
}
