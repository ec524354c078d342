// Package balance chooses where a request goes: the tier by what is in flight and by who asks,
// the origin in it by the pool's algorithm, and another one when a try failed and may be
// repeated. It knows who is well from active checks and from what requests show.
package balance

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// name of the stage, in trails.
const name = "balance"

// Origins is how origins are reached; package origin implements it.
type Origins interface {
	// Open makes a target for an address of a pool. It connects nothing yet. An error says what
	// in spec cannot work.
	Open(pool bundle.Key, address string, spec *v1.ConnectionSpec) (stage.Target, error)
	// Close says that no new request will come; requests under way are not disturbed.
	Close(t stage.Target)
	// Probe makes the active check that spec asks for on a connection of its own, with host as the
	// authority; an error says why it failed. It works on a closed target too.
	Probe(ctx context.Context, t stage.Target, host string, spec *v1.HealthSpec) error
	// Resolve looks up an origin with expand or srv: each of what it returns has an address, and of SRV
	// records a weight. Resolvers are the DNS servers; none means the system's.
	Resolve(ctx context.Context, o *v1.Origin, resolvers []string) ([]v1.Origin, error)
}

// Config is what the stage must be told. Zero values other than Slot mean the default.
type Config struct {
	Slot stage.Slot
	// ReplayMemory is how many bytes all kept request bodies may take together; 64 MiB.
	ReplayMemory int64
	// Where says which edge this is.
	Where Where
	// Room answers visitors for whom there is no room; nil for a page.
	Room Room
	// Grace is how long a pool is kept after a sweep found it unused; 1 minute.
	Grace time.Duration
	// Replay is set in a stage that serves recorded requests in virtual time; nil otherwise.
	Replay Replay
}

// Stage is the balance stage.
type Stage struct {
	cfg     Config
	origins Origins
	epoch   time.Time
	metrics *metrics
	checks  *checks
	names   *names
	copies  sync.Pool // of *copied, for hedging
	bodies  bodyMemory
	full    [fullErrors]*stage.Error // by seconds
	stirred chan *Pool               // begin to be watched
	awake   []*Pool                  // are watched, in a replay

	mu    sync.Mutex
	pools map[bundle.Key]*Pool
}

// New returns the stage. It starts nothing; health checks begin with Run.
func New(cfg Config, origins Origins, reg *observe.Registry) *Stage {
	if cfg.ReplayMemory <= 0 {
		cfg.ReplayMemory = 64 << 20
	}
	if cfg.Grace <= 0 {
		cfg.Grace = time.Minute
	}
	s := &Stage{cfg: cfg, origins: origins, epoch: time.Now(), metrics: newMetrics(reg), pools: map[bundle.Key]*Pool{}, stirred: make(chan *Pool, 256)}
	if cfg.Replay != nil {
		s.epoch = cfg.Replay.Now()
	}
	s.checks = newChecks(origins, s.metrics.checks)
	s.names = newNames(origins, s.checks, s.metrics.lookups)
	s.bodies.limit, s.bodies.refused = cfg.ReplayMemory, s.metrics.unreplayable
	for i := range s.full {
		s.full[i] = &stage.Error{
			Code: "destination_unavailable", Side: stage.SideEdge, Status: 503,
			RetryAfter: time.Duration(i+1) * time.Second, Err: ErrFull,
		}
	}
	return s
}

// Name implements stage.Stage.
func (s *Stage) Name() string { return name }

// clock is monotonic and counts nanoseconds since the stage was made. It starts at one second,
// so that 0 is before everything.
func (s *Stage) clock() int64 {
	if s.cfg.Replay != nil {
		return s.clockOf(s.cfg.Replay.Now())
	}
	return int64(time.Since(s.epoch) + time.Second)
}

// now is the time of x's last lap on the stage's clock.
func (s *Stage) now(x *stage.Exchange) int64 { return int64(x.Now().Sub(s.epoch) + time.Second) }

// clockOf is a time on the stage's clock.
func (s *Stage) clockOf(t time.Time) int64 { return int64(t.Sub(s.epoch) + time.Second) }

// at turns a reading of the clock into a time.
func (s *Stage) at(clock int64) time.Time { return s.epoch.Add(time.Duration(clock) - time.Second) }

// part is what a site has of the stage: its pools, by name in order.
type part struct{ pools []namedPool }

type namedPool struct {
	name string
	pool *Pool
}

func (p *part) find(name string) *Pool {
	lo, hi := 0, len(p.pools)
	for lo < hi {
		mid := (lo + hi) / 2
		if p.pools[mid].name == name {
			return p.pools[mid].pool
		}
		if p.pools[mid].name < name {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return nil
}

// Compile implements stage.Compiler: it finds or makes the pools that the site names. A pool that
// runs already takes the new spec in place. Old is not needed, since pools are held by key.
func (s *Stage) Compile(site *snapshot.Site, _ stage.Part) (stage.Part, error) {
	if len(site.Spec.Pools) == 0 {
		return nil, nil
	}
	p := &part{pools: make([]namedPool, 0, len(site.Spec.Pools))}
	for poolName, spec := range site.Spec.Pools {
		pool, err := s.pool(bundle.NewKey(site.Organization, poolName), spec)
		if err != nil {
			return nil, err
		}
		p.pools = append(p.pools, namedPool{poolName, pool})
	}
	slices.SortFunc(p.pools, func(a, b namedPool) int { return strings.Compare(a.name, b.name) })
	return p, nil
}

// pool finds or makes a pool and has it do what spec says. The stage is not locked while a pool is made,
// so that a large one holds up nobody who wants another.
func (s *Stage) pool(key bundle.Key, spec *v1.OriginPoolSpec) (*Pool, error) {
	s.mu.Lock()
	p := s.pools[key]
	if p == nil {
		p = newPool(key, s.clock, s.origins, s.metrics)
		p.stir = s.stir
		p.where, p.names = s.cfg.Where, s.names
		p.counters = s.metrics.pool(key)
		s.pools[key] = p
	}
	p.unused.Store(0)
	s.mu.Unlock()
	if p.view.Load().large {
		return p, nil // the sweep that follows brings it to the spec, while requests go on with the old one
	}
	err := p.update(spec, s.checks)
	if err == nil {
		return p, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pools[key] == p && p.blank() {
		s.metrics.forgetPool(key)
		delete(s.pools, key)
	}
	return nil, err
}

// all lists the pools.
func (s *Stage) all() []*Pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.pools))
}

// Prepare makes ready, before the documents are in service, what no request shall wait for: it looks up the
// names of origins that are found by DNS, for three seconds at most, and builds pools that are new and
// large, or have such names.
func (s *Stage) Prepare(ctx context.Context, pools iter.Seq2[bundle.Key, *v1.OriginPoolSpec]) error {
	var list []*v1.OriginPoolSpec
	var keys []bundle.Key
	seen := map[*v1.OriginPoolSpec]bool{}
	for key, spec := range pools {
		n, named := 0, false
		for i := range spec.Tiers {
			n += len(spec.Tiers[i].Origins)
			named = named || slices.ContainsFunc(spec.Tiers[i].Origins, func(o v1.Origin) bool { return o.Expand || o.SRV != "" })
		}
		if seen[spec] || !named && n <= largeTier {
			continue
		}
		seen[spec] = true
		list, keys = append(list, spec), append(keys, key)
	}
	s.names.warm(ctx, list)
	for i, spec := range list {
		s.mu.Lock()
		there := s.pools[keys[i]] != nil
		s.mu.Unlock()
		if there {
			continue
		}
		if _, err := s.pool(keys[i], spec); err != nil {
			return err
		}
	}
	return nil
}

// Sweep tells the stage which pools the sites in service name, and their specs; call it after
// each swap. A pool that runs takes the spec given here, so that a site that was built late
// from an old snapshot cannot leave an old spec behind. A pool that is not named is dropped
// when it has not been named or compiled for the time Config.Grace: with its health, its
// checks and its idle connections. Requests under way end in peace.
func (s *Stage) Sweep(live iter.Seq2[bundle.Key, *v1.OriginPoolSpec]) error {
	named := map[*Pool]*v1.OriginPoolSpec{}
	s.mu.Lock()
	for key, spec := range live {
		if p := s.pools[key]; p != nil && named[p] == nil {
			p.unused.Store(0)
			named[p] = spec
		}
	}
	now := s.clock()
	for _, p := range s.pools {
		if named[p] == nil {
			p.leaveUnused(now)
		}
	}
	s.drop(now)
	s.mu.Unlock()
	var first error
	for p, spec := range named {
		if err := p.update(spec, s.checks); err != nil && first == nil {
			first = err
		}
	}
	s.names.prune()
	return first
}

// drop forgets the pools whose time is over. The lock is held.
func (s *Stage) drop(now int64) {
	for key, p := range s.pools {
		if p.unusedFor(now) >= s.cfg.Grace {
			p.close(s.checks)
			s.metrics.forgetPool(key)
			delete(s.pools, key)
		}
	}
}

// tick does what is due each second beside the requests.
func (p *Pool) tick(now int64) {
	w := p.view.Load()
	var sent, withBasket uint64
	for i := range w.tiers {
		t := w.tiers[i].state
		sent, withBasket = sent+t.sent.Load(), withBasket+t.tally.basket.Load()
	}
	p.drain.look(now, sent, withBasket)
	if w.counts {
		p.outliers(now)
	}
	if w.hedged {
		p.times.tick(v1.Value(w.spec.Retries.Hedge.Percentile).Fraction())
	}
}

// Run makes active checks, and once a second looks for pools to drop and shows the gauges,
// until ctx ends.
func (s *Stage) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.checks.run(ctx) })
	wg.Go(func() { s.watch(ctx) })
	wg.Go(func() { s.names.run(ctx) })
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.mu.Lock()
			s.drop(s.clock())
			s.mu.Unlock()
			for _, p := range s.all() {
				p.tick(s.clock())
				p.show()
			}
		}
	}
}
