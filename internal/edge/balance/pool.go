package balance

import (
	"math"
	"reflect"
	"strconv"
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

	zone  string // of this edge; set before the first update
	awake atomic.Bool
	stir  func(*Pool) // has the pool watched; nil in tests that watch themselves

	mu     sync.Mutex // guards what follows, and the making of views
	spec   *v1.OriginPoolSpec
	plan   []plannedTier
	tiers  map[string]*tier
	byAddr map[string]*origin
	unused int64 // clock when a sweep first found the pool unused; 0 when it is used

	ticks    uint64 // of observe
	lastUse  int64
	lastSent [maxTiers]uint64
	scratch  [2 * peersLooked]float64
}

// origin is the state of one server. Its counters outlive a change of the spec.
type origin struct {
	address  string
	opened   atomic.Pointer[stage.Target] // a change of the pool's connection opens another one, while requests are served
	inFlight atomic.Int64
	most     atomic.Int64 // bounds inFlight when the origin is slower than its peers
	answers  atomic.Uint64
	took     atomic.Uint64 // ns, all answers
	fails    atomic.Int32  // in a row
	slow     atomic.Bool   // much slower than its peers
	_        [24]byte      // keeps the counters of two origins on two cache lines
	check    *check        // nil without active checks; guarded by Pool.mu, like what follows
	pace     pace
	in       atomic.Pointer[tier] // that counts the reports
	report   report

	ejectedUntil int64
	ejections    int64 // lately, for the growing time
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
	members  []member // of weight above 0
	weight   int64    // of all members
	adaptive bool     // the tier's limit is found
	table    *maglev  // only for consistent-hash
}

// member is an origin and its weight in a tier.
type member struct {
	o      *origin
	weight int64
}

// view is a pool at one moment: the spec and who is well. It does not change.
type view struct {
	spec     *v1.OriginPoolSpec
	tiers    []tierView
	changeAt int64 // clock of the first end of an ejection
	sticky   bool
	remember bool // some tier but the last has a limit
	panicked bool // nobody is well, so all are used
}

func newPool(key bundle.Key, clock func() int64, origins Origins, m *metrics) *Pool {
	p := &Pool{key: key, clock: clock, origins: origins, metrics: m, tiers: map[string]*tier{}, byAddr: map[string]*origin{}}
	p.view.Store(&view{changeAt: math.MaxInt64})
	return p
}

// update makes spec what the pool does. Origins and tiers that stay keep their state, those
// that go finish what they have. An error leaves the pool as it was.
func (p *Pool) update(spec *v1.OriginPoolSpec, checks *checks) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unused = 0
	if p.spec == spec || p.spec != nil && reflect.DeepEqual(p.spec, spec) {
		return nil
	}
	opened, err := p.openNew(spec)
	if err != nil {
		return err
	}
	reopen := p.spec != nil && !reflect.DeepEqual(p.spec.Connection, spec.Connection)
	for _, o := range p.byAddr {
		o.marked = false
	}
	for address, t := range opened {
		o := p.byAddr[address]
		if o == nil {
			o = &origin{address: address}
			o.most.Store(math.MaxInt64)
			p.byAddr[address] = o
		} else if reopen {
			p.origins.Close(o.target())
		}
		o.opened.Store(&t)
	}
	p.spec = spec
	p.makePlan()
	for address, o := range p.byAddr {
		if !o.marked {
			checks.leave(o.check, p)
			p.origins.Close(o.target())
			o.report.forget(o.in.Swap(nil))
			delete(p.byAddr, address)
			continue
		}
		old := o.check
		o.check = checks.join(p, o.address)
		checks.leave(old, p)
	}
	p.look(p.clock())
	return nil
}

// openNew opens targets for the origins of spec that have none, or for all when the way to
// speak to them changed.
func (p *Pool) openNew(spec *v1.OriginPoolSpec) (map[string]stage.Target, error) {
	all := p.spec == nil || !reflect.DeepEqual(p.spec.Connection, spec.Connection)
	opened := map[string]stage.Target{}
	for i := range spec.Tiers {
		for _, so := range spec.Tiers[i].Origins {
			if opened[so.Address] != nil || !all && p.byAddr[so.Address] != nil {
				continue
			}
			t, err := p.origins.Open(p.key, so.Address, &spec.Connection)
			if err != nil {
				for _, t := range opened {
					p.origins.Close(t)
				}
				return nil, err
			}
			opened[so.Address] = t
		}
	}
	return opened, nil
}

// makePlan builds the plan from the spec and marks the origins in use.
func (p *Pool) makePlan() {
	used := map[string]*tier{}
	p.plan = make([]plannedTier, 0, len(p.spec.Tiers))
	ranks := ranked(p.spec.Tiers, p.zone)
	for i, at := range ranks {
		st := &p.spec.Tiers[at]
		name := st.Name
		if name == "" {
			name = "tier-" + strconv.Itoa(at)
		}
		t := p.tiers[name]
		if t == nil || used[name] != nil {
			t = newTier(name, p.metrics.tier(p.key, name))
		}
		used[name] = t
		pt := plannedTier{state: t, capacity: st.Capacity, adaptive: st.Capacity.Adaptive != "off" && (i < len(ranks)-1 || st.Capacity.Adaptive == "on")}
		for _, so := range st.Origins {
			o := p.byAddr[so.Address]
			if o.marked = true; o.in.Load() != t {
				o.report.forget(o.in.Swap(t))
			}
			if w := int64(v1.Value(so.Weight)); w > 0 {
				pt.members = append(pt.members, member{o, w})
				pt.weight += w
			}
		}
		if p.spec.Algorithm == v1.ConsistentHash {
			pt.table = newMaglev(pt.members)
		}
		p.plan = append(p.plan, pt)
	}
	for name, t := range p.tiers {
		if used[name] != t {
			p.metrics.forgetTier(p.key, t)
		}
	}
	p.tiers = used
}

// refresh makes a new view, because somebody's health changed or an ejection is over.
func (p *Pool) refresh(now int64) *view {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.look(now)
}

// look makes the view of now. The lock is held.
func (p *Pool) look(now int64) *view {
	v := &view{spec: p.spec, changeAt: math.MaxInt64, sticky: p.spec.Stickiness.On != "none"}
	for _, o := range p.byAddr {
		if o.ejectedUntil > now {
			v.changeAt = min(v.changeAt, o.ejectedUntil)
		}
	}
	v.panicked = true
	for i := range p.plan {
		if p.plan[i].anyWell(now) {
			v.panicked = false
			break
		}
	}
	v.tiers = make([]tierView, len(p.plan))
	for i := range p.plan {
		t := &p.plan[i]
		v.tiers[i] = t.view(p.spec.Algorithm, now, v.panicked)
		v.remember = v.remember || i < len(p.plan)-1 && (t.adaptive || v1.Value(t.capacity.InFlight) > 0)
		if well := len(v.tiers[i].members) > 0 && !v.panicked; well && t.adaptive && t.state.begun && !t.state.well {
			t.state.limiter.comeBack()
			t.mark()
		}
		t.state.turn(len(v.tiers[i].members) > 0 && !v.panicked, now)
	}
	p.view.Store(v)
	return v
}

func (t *plannedTier) anyWell(now int64) bool {
	for _, m := range t.members {
		if m.o.well(now) {
			return true
		}
	}
	return false
}

// eject takes o out for a while, unless too many of its tier are out already.
func (p *Pool) eject(t *tier, o *origin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock()
	spec := p.spec.Health.Passive
	if now < o.ejectedUntil || !p.mayEject(t, now) {
		return
	}
	base := int64(spec.Ejection)
	if now-o.ejectedUntil > 10*base {
		o.ejections = 0
	}
	o.ejections = min(o.ejections+1, 10)
	o.ejectedUntil = now + base*o.ejections
	t.counters.ejections.Inc()
	p.look(now)
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

// close gives everything back. Requests under way end by themselves.
func (p *Pool) close(checks *checks) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.byAddr {
		checks.leave(o.check, p)
		o.check = nil
		p.origins.Close(o.target())
	}
	for _, t := range p.tiers {
		p.metrics.forgetTier(p.key, t)
	}
}
