// Package share keeps the flood of one organization off the processors of the others.
//
// While the processors are saturated, what the edge can serve is shared among the organizations by max-min
// fairness: who asks for less than an equal part has all of it, and what is left goes to the others in equal parts.
// Requests beyond an organization's part are refused at once, before the firewall, the cache and an origin are
// spent on them, and of it the suspects of a FloodPolicy before all others. Visitors with a basket, callbacks and verified
// bots come first within the part, and get no more than it: who they are is said by the organization's own documents,
// which could say so of a flood. Only whom a person spared (relais unblock) is served beyond it. What can be served is not configured: it is what was served
// while what came was not kept waiting, found again ten times a second: the sign of saturation is how long what the
// kernel has ready waits (observe.Load), as a share of processor time says little where others use them too, and
// the goal is a wait that the other organizations' visitors do not feel. Without saturation, or with one
// organization alone, nobody is refused: an attack is then the matter of the site's own FloodPolicy, tiers
// and waiting room.
//
// The unit is a request, dear or cheap. An organization whose requests are dearer than others' so gets more of the
// processors than an equal part, and never all.
package share

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// name of the stage, in trails.
const name = "share"

const (
	tickEvery = 100 * time.Millisecond
	// badDelay is the wait of the ready from which the processors are saturated, or goodDelay where the process
	// uses full of their time. While they are, goodDelay is what parts are made for: some four such waits are in
	// one answer from an origin.
	badDelay, goodDelay = 20 * time.Millisecond, 3 * time.Millisecond
	// They no longer are saturated when all that comes is served and takes less than easy, easeTicks in a row.
	full, easy = 0.9, 0.5
	easeTicks  = 100
	// room is the share of the processors' time that is used: the rest is for what comes in bursts, as the collector's
	// work does. Each tick changes the capacity by pace of what is missing to it.
	room, pace = 0.7, 0.1
	// A step back leaves stepBack of what was served, and is waited for.
	stepBack, restTicks = 0.75, 3
	// keep is what is left of a mean after a tick: half after 200 ms.
	keep = 0.7
	// least is a part that nobody is bounded below, in requests a second.
	least = 50.0
	// maxOrganizations are watched apart; the rest share one part.
	maxOrganizations = 10_000
	// idleTicks after its last request an organization counts as not there: five minutes.
	idleTicks = 3000
)

// Config is what the stage must be told.
type Config struct {
	Slot stage.Slot
	// Load says how hard the processors are pressed.
	Load func() observe.Load
}

// Stage is the stage. It implements stage.Stage and stage.Compiler.
type Stage struct {
	cfg     Config
	refused *observe.Family[observe.Counter]
	shared  observe.Gauge
	rest    *tenant // of the organizations beyond maxOrganizations
	budget  budget  // Run's own

	mu      sync.Mutex
	tenants map[string]*tenant
}

var (
	_ stage.Stage    = (*Stage)(nil)
	_ stage.Compiler = (*Stage)(nil)
)

// tenant is an organization.
type tenant struct {
	arrived atomic.Uint64 // requests, ever
	turned  atomic.Uint64 // of them refused
	step    atomic.Int64  // nanoseconds between requests that it may send; unbounded while it is not bounded
	next    atomic.Int64  // when the next may come, were they even, in nanoseconds since 1970
	refused observe.Counter

	// Of Run alone.
	seen, gone uint64  // of arrived and of turned at the last tick
	demand     float64 // requests a tick, as a mean
	idle       int     // ticks without a request
}

// unbounded is the step of who is not bounded.
const unbounded = 0

// What may come at once of a bounded organization: so much time's worth, or so many.
const (
	burstTime  = int64(10 * time.Millisecond)
	burstCount = 8
)

// take says whether a request at that time is within the organization's part (GCRA: what comes is spread over the
// time, as a burst of one organization's requests is a wait for all others). Who comes first may run ahead of the
// part by a burst more, for which the others then wait, and no farther.
func (t *tenant) take(at time.Time, first bool) bool {
	step := t.step.Load()
	if step == unbounded {
		return true
	}
	now, burst := at.UnixNano(), max(burstTime, burstCount*step)
	latest := now
	if first {
		latest += burst
	}
	for {
		old := t.next.Load()
		due := max(old, now-burst)
		if due > latest {
			return false
		}
		if t.next.CompareAndSwap(old, due+step) {
			return true
		}
	}
}

// bound gives the organization so many requests a tick.
func (t *tenant) bound(part float64) {
	t.step.Store(max(1, int64(float64(tickEvery)/part)))
}

// New returns the stage. It starts nothing; nobody is bounded before Run. Its metric is relais_share_refused_total.
func New(cfg Config, r *observe.Registry) *Stage {
	s := &Stage{cfg: cfg, tenants: map[string]*tenant{}}
	s.refused = r.Counters("relais_share_refused_total", "Requests that were refused because their organization had had its part of saturated processors.", maxOrganizations+1, "organization")
	s.shared = r.Gauges("relais_share_capacity", "Requests a second that are shared among the organizations; 0 while nobody is bounded.", 1).With()
	s.rest = s.tenant("")
	s.rest.idle = idleTicks
	return s
}

func (s *Stage) tenant(organization string) *tenant {
	return &tenant{refused: s.refused.With(organization)}
}

// Name implements stage.Stage.
func (s *Stage) Name() string { return name }

// Compile implements stage.Compiler. The part of a site is its organization.
func (s *Stage) Compile(site *snapshot.Site, _ stage.Part) (stage.Part, error) {
	organization, _ := site.Key.Split()
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tenants[organization]
	switch {
	case t != nil:
		t.idle = 0
	case len(s.tenants) < maxOrganizations:
		t = s.tenant(organization)
		s.tenants[organization] = t
	default:
		t = s.rest
	}
	return t, nil
}

// errShare refuses a request.
var errShare = &stage.Error{
	Code: "connection_limit_reached", Side: stage.SideTenant, Status: 503, RetryAfter: 2 * time.Second, Tarpit: time.Second,
	Err: errors.New("the processors are saturated, and the organization has had its part of them"),
}

// Serve implements stage.Stage.
func (s *Stage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	t, _ := x.Site.Parts[s.cfg.Slot].(*tenant)
	if t == nil {
		return next.Serve(ctx, x)
	}
	t.arrived.Add(1)
	switch {
	case t.step.Load() == unbounded:
		return next.Serve(ctx, x)
	case x.Measures.Pardoned: // by a person, who is of no tenant
		x.Mark(name, "exempt")
		return next.Serve(ctx, x)
	case x.Visitor.Exempt():
		if t.take(x.Start, true) {
			x.Mark(name, "first")
			return next.Serve(ctx, x)
		}
	case !x.Measures.Suspect && t.take(x.Start, false):
		return next.Serve(ctx, x)
	}
	t.turned.Add(1)
	t.refused.Inc()
	x.Mark(name, "over")
	return nil, errShare
}

// Run gives each organization its part, ten times a second, until ctx ends.
func (s *Stage) Run(ctx context.Context) error {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			s.look()
		}
	}
}

// look does what is done in one tick.
func (s *Stage) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	active := make([]*tenant, 0, 16)
	came, served := 0.0, 0.0
	for _, t := range s.tenants {
		t.count(&came, &served)
		if t.idle < idleTicks {
			active = append(active, t)
		}
	}
	if s.rest.count(&came, &served); s.rest.idle < idleTicks {
		active = append(active, s.rest)
	}
	capacity, pressed := s.budget.turn(s.cfg.Load(), came, served)
	s.shared.Set(capacity / tickEvery.Seconds())
	if !pressed || len(active) < 2 {
		for _, t := range active {
			t.step.Store(unbounded)
		}
		return
	}
	fair(active, capacity)
}

// count takes what came since the last tick into the mean, and adds it, and what of it was served, to the sums.
func (t *tenant) count(came, served *float64) {
	arrived, turned := t.arrived.Load(), t.turned.Load()
	n, gone := arrived-t.seen, turned-t.gone
	t.seen, t.gone = arrived, turned
	t.demand = t.demand*keep + float64(n)*(1-keep)
	if t.idle++; n > 0 {
		t.idle = 0
	}
	*came += float64(n)
	*served += float64(n - min(gone, n))
}

// budget finds how many requests a tick can be served without a wait.
type budget struct {
	busy, came, served float64 // means
	delay              float64 // the same, in seconds
	capacity           float64 // 0 while nobody is bounded
	rest               int     // ticks until the last step back is felt
	easy               int     // ticks in a row in which all that came could have been served
}

// turn takes one tick.
func (b *budget) turn(load observe.Load, came, served float64) (capacity float64, pressed bool) {
	b.busy = b.busy*keep + load.Share*(1-keep)
	b.delay = (b.delay + min(load.Delay, 2*badDelay).Seconds()) / 2 // a second's wait is no reason to be slow to see that it is over
	b.came = b.came*keep + came*(1-keep)
	b.served = b.served*keep + served*(1-keep)
	wait := b.delay / goodDelay.Seconds()
	switch {
	case b.capacity == 0 && b.delay < badDelay.Seconds() && (b.busy < full || wait < 1):
		return 0, false
	case b.capacity == 0:
		b.capacity, b.easy, b.rest = b.served, 0, 0
	}
	b.adapt(wait)
	if b.easy++; wait >= 1 || b.served < 0.98*b.came || b.busy*b.came >= easy*b.served {
		b.easy = 0
	}
	if b.easy >= easeTicks {
		b.capacity = 0
		return 0, false
	}
	return b.capacity, true
}

// adapt looks for the capacity that uses the processors up to room, more slowly the nearer it is; a wait at which that
// is not enough, since others use them too, is a good step back. A wait while there is room is the collector's, or a
// burst, and soon over.
func (b *budget) adapt(wait float64) {
	if b.rest > 0 { // the last step back is not felt yet
		b.rest--
		return
	}
	if step := (room - b.busy) * pace; b.delay >= badDelay.Seconds() || wait >= 1 && step <= 0 {
		b.capacity, b.rest = min(b.capacity, b.served)*stepBack, restTicks
	} else if step <= 0 {
		b.capacity *= 1 + step
	} else if b.capacity < 2*b.served { // as far as is used
		b.capacity *= 1 + step*max(0, 1-2*wait)
	}
	b.capacity = max(b.capacity, 1)
}

// fair bounds the tenants to parts of a capacity, by max-min fairness. It changes the order of the list.
func fair(list []*tenant, capacity float64) {
	slices.SortFunc(list, func(a, b *tenant) int {
		switch {
		case a.demand < b.demand:
			return -1
		case a.demand > b.demand:
			return 1
		}
		return 0
	})
	for i, t := range list {
		part := max(capacity/float64(len(list)-i), least*tickEvery.Seconds())
		if t.demand <= part {
			capacity -= t.demand
			t.step.Store(unbounded)
			continue
		}
		capacity -= part
		t.bound(part)
	}
}
