package balance

import (
	"math"
	"sync"
	"sync/atomic"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/stage"
)

// maxTiers is the most tiers a pool may have (api/v1 says the same).
const maxTiers = 16

// Pool is a pool as it runs. It outlives changes of its spec and is shared by all sites that
// name it. All methods may be called at once.
type Pool struct {
	key      bundle.Key
	clock    func() int64 // monotonic, nanoseconds
	origins  Origins
	metrics  *metrics
	counters poolCounters

	view    atomic.Pointer[view]
	mem     atomic.Pointer[residents]
	retries budget
	times   histogram   // until the heads of answers, for hedging
	remade  atomic.Bool // a view is being made beside the requests

	line     line  // those who wait for a place
	drain    drain // how fast places come free
	rivals   rivals
	holdings atomic.Pointer[holdings] // nil until places become few

	awake atomic.Bool
	stir  func(*Pool) // has the pool watched; nil in tests that watch themselves

	unused atomic.Int64 // clock when a sweep first found the pool unused; 0 when it is used

	where Where  // set before the first update
	names *names // set before the first update; nil when no origin is found by DNS

	mu      sync.Mutex // guards what follows, and the making of views
	spec    *v1.OriginPoolSpec
	plan    []plannedTier
	kind    string // of its active checks
	tiers   map[string]*tier
	byAddr  map[string]*origin
	closed  bool
	weighAt int64 // clock of the next look for outliers

	ticks    uint64 // of observe
	lastUse  int64
	lastSent [maxTiers]uint64
	scratch  [2 * peersLooked]float64
	history  history
}

// origin is the state of one server. Its counters outlive a change of the spec.
type origin struct {
	address  string
	opened   atomic.Pointer[stage.Target] // a change of the pool's connection opens another one, while requests are served
	inFlight atomic.Int64
	most     atomic.Int64  // bounds inFlight when the origin is slower than its peers
	took     atomic.Uint64 // what answers took times what they usually take, in units of weightUnit
	due      atomic.Uint64 // ns, that answers of their kinds usually take
	squares  atomic.Uint64 // of the same, in the units of took
	asked    asked         // requests whose answers have not begun
	prompt   atomic.Int32  // of its last answers that tell, those in a row that were not slow; while it is slow
	telling  atomic.Int64  // ns that an answer usually takes at least for that
	latency  ewma          // with peak-ewma only
	fails    atomic.Int32  // in a row
	ejecting atomic.Bool   // it is being ejected beside the requests
	slow     atomic.Bool   // much slower than its peers
	// Of this interval, where the pool looks for outliers:
	good, bad, heads atomic.Uint32
	headTime         atomic.Int64         // until the heads of answers, together
	served, failed   atomic.Uint32        // good heads of answers, and faults, where there are active checks; they wrap
	in               atomic.Pointer[tier] // that counts the reports
	report           report
	_                [64]byte // keeps the counters of two origins on two cache lines

	check *check // nil without active checks; guarded by Pool.mu, like what follows
	host  string // for checks, when its name is not its address
	zone  string
	pace  pace

	ejectedUntil int64
	ejections    int64 // lately, for the growing time
	since        int64 // clock when it came, or came back
	was          bool  // it was well when the last view was made
	marked       bool  // used by the spec that is being applied
}

// target is where the origin is reached.
func (o *origin) target() stage.Target { return *o.opened.Load() }

// well says whether the origin may be chosen. The pool's lock is held.
func (o *origin) well(now int64) bool {
	return now >= o.ejectedUntil && (o.check == nil || o.check.up.Load())
}

// plannedTier is what the spec alone decides about a tier.
type plannedTier struct {
	state    *tier
	capacity v1.Capacity
	adaptive bool      // the tier's limit is found
	reported bool      // what origins report bounds it
	rare     float64   // how many of the visitors with a basket may find it full
	members  []member  // of weight above 0
	table    hashTable // only for consistent-hash
}

// member is an origin and its weight in a tier.
type member struct {
	o      *origin
	weight int64
	limit  int64 // requests in flight; 0 is no limit
}

// view is a pool at one moment: the spec and who is well. It does not change.
type view struct {
	spec     *v1.OriginPoolSpec
	tiers    []tierView
	changeAt int64 // clock of the first end of an ejection, or of the next step of a slow start
	sticky   bool
	remember bool // some tier but the last has a limit
	panicked bool // nobody is well, so all are used
	large    bool // too large to be made anew while a request waits
	timed    bool // the algorithm wants to know how long answers take
	counts   bool // outliers are looked for
	checked  bool // there are active checks
	hedged   bool
	kinds    bool // times are looked at, so requests are told apart
}

func newPool(key bundle.Key, clock func() int64, origins Origins, m *metrics) *Pool {
	p := &Pool{key: key, clock: clock, origins: origins, metrics: m, tiers: map[string]*tier{}, byAddr: map[string]*origin{}}
	p.view.Store(&view{changeAt: math.MaxInt64})
	return p
}

// refresh makes a new view, because somebody's health changed or an ejection is over.
func (p *Pool) refresh(now int64) *view {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.look(now)
}

// look makes the view of now. The lock is held.
func (p *Pool) look(now int64) *view {
	passive := &p.spec.Health.Passive
	v := &view{
		spec: p.spec, changeAt: math.MaxInt64, sticky: p.spec.Stickiness.On != "none", timed: p.spec.Algorithm == v1.PeakEWMA,
		counts: passive.SuccessRate > 0 || passive.LatencyFactor > 0, hedged: p.spec.Retries.Hedge != nil,
		checked: active(&p.spec.Health),
	}
	v.panicked = p.census(v, now)
	v.tiers = make([]tierView, len(p.plan))
	for i := range p.plan {
		t := &p.plan[i]
		v.tiers[i] = t.view(p.spec, p.where.Zone, now, v.panicked)
		v.kinds = v.kinds || t.adaptive || len(t.members) > 1
		v.large = v.large || len(t.members) > largeTier || len(v.tiers[i].schedule) > largeSchedule
		v.remember = v.remember || i < len(p.plan)-1 && (t.reported || v1.Value(t.capacity.InFlight) > 0)
		if well := len(v.tiers[i].members) > 0 && !v.panicked; well && t.adaptive && t.state.begun && !t.state.well {
			t.state.limiter.comeBack()
			t.mark()
		}
		t.state.turn(len(v.tiers[i].members) > 0 && !v.panicked, now)
	}
	p.view.Store(v)
	return v
}

// eject takes o out for a while, unless too many of its tier are out already.
func (p *Pool) eject(t *tier, o *origin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock()
	if p.takeOut(t, o, now) {
		p.look(now)
	}
}

// takeOut notes that o is ejected, and says whether it is from now on. The lock is held.
func (p *Pool) takeOut(t *tier, o *origin, now int64) bool {
	if now < o.ejectedUntil || !p.mayEject(t, now) {
		return false
	}
	base := int64(p.spec.Health.Passive.Ejection)
	if now-o.ejectedUntil > 10*base {
		o.ejections = 0
	}
	o.ejections = min(o.ejections+1, 10)
	o.ejectedUntil = now + base*o.ejections
	t.counters.ejections.Inc()
	return true
}

// mayEject says whether one more origin of t may be out. One always may, unless the share is
// 0: a tier of a single origin gives way to the next tier then, and the panic rule of the
// pool keeps at least somebody in use.
func (p *Pool) mayEject(t *tier, now int64) bool {
	for i := range p.plan {
		if p.plan[i].state != t {
			continue
		}
		share := v1.Value(p.spec.Health.Passive.MaxEjected).Fraction()
		if share <= 0 {
			return false
		}
		out := 0
		for _, m := range p.plan[i].members {
			if now < m.o.ejectedUntil {
				out++
			}
		}
		return out < max(1, int(share*float64(len(p.plan[i].members))))
	}
	return false
}

// blank says whether the pool never had a spec.
func (p *Pool) blank() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.spec == nil
}

// close gives everything back. Requests under way end by themselves.
func (p *Pool) close(checks *checks) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.metrics.places.take(-p.history.places)
	p.names.leave(p, nil)
	for _, o := range p.byAddr {
		checks.leave(o.check, p, o)
		o.check = nil
		p.origins.Close(o.target())
	}
	for _, t := range p.tiers {
		t.dismiss()
		p.metrics.forgetTier(p.key, t)
	}
}
