package ratelimit

import (
	"context"
	"fmt"
	"hash/maphash"
	"strconv"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// maxSeries bounds the series of the stage's counter: four for each site.
const maxSeries = 40_000

// DefaultEntries is the number of keys that are counted at once where a Config says nothing:
// 12 MiB.
const DefaultEntries = 1 << 19

// Config is what does not depend on a site.
type Config struct {
	// Entries is how many keys are counted at once, at least; 0 means DefaultEntries.
	Entries int
	// Clock tells the time at which the stage begins; time.Now by default.
	Clock func() time.Time
	// Bus carries what shared limits took between edges, and Secret is what their keys are hashed with, the same for
	// all edges. Without a Bus shared limits count what this edge sees.
	Bus    Bus
	Secret [2]uint64
}

// Stage is the rate limit stage.
type Stage struct {
	slot    stage.Slot
	counter *observe.Family[observe.Counter]
	table   *table
	local   hasher
	shared  hasher
	bus     Bus
	ledger  ledger
	lost    observe.Counter
	epoch   time.Time
}

// New returns the stage. Its metrics are relais_ratelimit_requests_total by site and outcome
// (pass, spared, would-deny, deny) and relais_ratelimit_evictions_total by state (idle, busy).
func New(slot stage.Slot, cfg Config, r *observe.Registry) *Stage {
	if cfg.Entries <= 0 {
		cfg.Entries = DefaultEntries
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	ev := r.Counters("relais_ratelimit_evictions_total",
		"Keys that gave their place to another: idle ones, and busy ones whose count was lost.", 2, "state")
	s := &Stage{
		slot: slot,
		counter: r.Counters("relais_ratelimit_requests_total",
			"Requests under a rate limit, by what became of them.", maxSeries, "site", "outcome"),
		table: newTable(cfg.Entries, ev.With("idle"), ev.With("busy")),
		bus:   cfg.Bus,
		lost:  r.Counters("relais_ratelimit_untold_total", "Keys of shared limits whose requests could not be told to other edges.", 1).With(),
		// Times are told from a moment before the start, so that the first one is not 0.
		epoch: cfg.Clock().Add(-time.Hour),
	}
	s.local = hasher{seed: maphash.MakeSeed()}
	s.shared = s.local
	if cfg.Bus != nil {
		secret := cfg.Secret
		s.shared = hasher{secret: &secret}
	}
	return s
}

// Name implements stage.Stage.
func (s *Stage) Name() string { return "ratelimit" }

const (
	pass = iota
	spared
	wouldDeny
	deny
)

var outcomes = [...]string{"pass", "spared", "would-deny", "deny"}

// limit is a compiled RateLimit. It does not change.
type limit struct {
	gate   stage.Gate
	scope  stage.Scope
	rate   rate
	per    time.Duration
	keys   []key
	json   bool // one of keys is a field of a body
	hasher *hasher
	shared bool
	hash   uint64
	spare  bool
	// ceiling of a visitor that is spared; its requests are 0 when there is none.
	ceiling  rate
	statuses *statuses // of the answers that count; nil when requests do
	name     string
	detail   string // of a refusal
	policy   string // its item of RateLimit-Policy
}

// part is what the stage made of a site: the limits of each route.
type part struct {
	routes  [][]*limit
	metrics [len(outcomes)]observe.Counter
}

// Compile implements stage.Compiler. What was counted is in the stage's table, so nothing is
// taken from old but its series.
func (s *Stage) Compile(site *snapshot.Site, old stage.Part) (stage.Part, error) {
	before, _ := old.(*part)
	now := &part{routes: make([][]*limit, len(site.Routes))}
	named := map[string]*limit{}
	for i := range site.Routes {
		for _, name := range site.Routes[i].Spec.RateLimits {
			l := named[name]
			if l == nil {
				spec := site.Spec.RateLimits[name]
				if spec == nil {
					return nil, fmt.Errorf("ratelimit: site %s, route %s names RateLimit %s, which the bundle does not hold", site.Key, site.Routes[i].Name, name)
				}
				var err error
				if l, err = s.compile(string(site.Key), name, spec); err != nil {
					return nil, fmt.Errorf("ratelimit: site %s: %w", site.Key, err)
				}
				named[name] = l
			}
			now.routes[i] = append(now.routes[i], l)
		}
	}
	used := len(named) > 0
	for i, o := range outcomes {
		if used {
			now.metrics[i] = s.counter.With(string(site.Key), o)
		}
		if before != nil {
			s.counter.Forget(string(site.Key), o)
		}
	}
	if !used {
		return nil, nil
	}
	return now, nil
}

// most is the largest number of requests or burst that a document may have.
const most = 1_000_000_000

func (s *Stage) compile(site, name string, spec *v1.RateLimitSpec) (*limit, error) {
	per := spec.Per.Std()
	if per == 0 {
		per = time.Second
	}
	switch {
	case spec.Requests < 1 || spec.Requests > most:
		return nil, fmt.Errorf("RateLimit %s: requests is %d; write a number from 1 to %d", name, spec.Requests, most)
	case spec.Burst < 0 || spec.Burst > most:
		return nil, fmt.Errorf("RateLimit %s: burst is %d; write a number from 0 to %d", name, spec.Burst, most)
	case per < time.Millisecond || per > 24*time.Hour:
		return nil, fmt.Errorf("RateLimit %s: per is %s; write a time from 1ms to 24h", name, per)
	}
	for _, k := range append([]v1.RateLimitKey{spec.Key}, spec.Keys...) {
		if (k.On == "header" || k.On == "cookie" || k.On == "json") && k.Name == "" {
			return nil, fmt.Errorf("RateLimit %s: key.name is missing; name the %s that is counted", name, k.On)
		}
	}
	l := &limit{
		gate:  stage.NewGate(spec.Protection),
		scope: stage.NewScope(spec.Path, spec.Methods),
		rate:  newRate(spec.Requests, per, spec.Burst),
		per:   per,
		keys:  newKeys(spec.Key, spec.Keys),
		spare: len(spec.Statuses) == 0,
		name:  `"` + name + `"`,
	}
	if spec.SpareBaskets != nil {
		l.spare = *spec.SpareBaskets
	}
	l.hasher = &s.local
	if l.shared = spec.Shared && s.bus != nil; l.shared {
		l.hasher = &s.shared
	}
	for i := range l.keys {
		l.json = l.json || l.keys[i].on == onJSON
	}
	if factor := v1.Value(spec.BasketCeiling); spec.BasketCeiling != nil && factor > 0 {
		l.ceiling = newRate(min(spec.Requests*factor, most), per, min(int(l.rate.burst)*factor, most))
	}
	if len(spec.Statuses) > 0 {
		l.statuses = newStatuses(spec.Statuses)
	}
	l.hash = limitHash(l.hasher, site, name, &l.rate)
	l.detail = fmt.Sprintf("%s: more than %d in %s, burst %d", name, spec.Requests, per, l.rate.burst)
	l.policy = l.name + ";q=" + strconv.Itoa(spec.Requests)
	if per%time.Second == 0 { // the window is in whole seconds
		l.policy += ";w=" + strconv.Itoa(int(per/time.Second))
	}
	return l, nil
}

// local is what the stage keeps in an exchange.
type local struct {
	err    stage.Error
	fields message.Fields
	told   []told
	body   peeked
	values [maxKeys][]byte
	counts []counted
}

// maxKeys bounds the parts of a key.
const maxKeys = 4

// counted is a limit under which a request counts only if its answer has one of some statuses.
type counted struct {
	limit *limit
	key   uint64
	told  int // index of what the visitor is told of it; -1 for nothing
}

// told is what a visitor is told of a limit.
type told struct {
	limit   *limit
	verdict verdict
}

// Serve implements stage.Stage.
func (s *Stage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	pt, _ := x.Site.Parts[s.slot].(*part)
	if pt == nil {
		return next.Serve(ctx, x)
	}
	limits := pt.routes[x.Route.Index]
	if len(limits) == 0 {
		return next.Serve(ctx, x)
	}
	mem, _ := x.Local[s.slot].(*local)
	if mem == nil {
		mem = &local{}
		x.Local[s.slot] = mem
	}
	mem.told, mem.counts, mem.body.src = mem.told[:0], mem.counts[:0], nil
	now := int64(x.Start.Sub(s.epoch))
	for _, l := range limits {
		if err := s.ask(ctx, x, pt, l, mem, now); err != nil {
			s.settle(mem, 0, now) // it was never asked
			return nil, err
		}
	}
	r, err := s.serve(ctx, x, next, mem, now)
	if r != nil && len(mem.told) > 0 {
		tell(&r.Fields, mem.told)
	}
	return r, err
}

// ask counts x under a limit; an error refuses it.
func (s *Stage) ask(ctx context.Context, x *stage.Exchange, pt *part, l *limit, mem *local, now int64) error {
	mode := l.gate.Mode(x)
	if mode == v1.ModeOff || !l.scope.Holds(x) {
		return nil
	}
	v, err := s.take(ctx, x, l, mem, now)
	if err != nil {
		return err
	}
	spare := x.Measures.Pardoned
	if !spare && l.spare && x.Visitor.Class == stage.Protected {
		spare = l.ceiling.requests == 0 || s.table.take(mix(l.hash, onBasket, x.Visitor.Key), &l.ceiling, now).ok
	}
	outcome := pass
	switch {
	case v.ok:
	case spare:
		outcome = spared
	case mode == v1.ModeShadow:
		outcome = wouldDeny
	default:
		outcome = deny
	}
	pt.metrics[outcome].Inc()
	if outcome == pass {
		x.Mark("ratelimit", outcomes[pass])
	} else {
		x.MarkDetail("ratelimit", outcomes[outcome], l.detail)
	}
	if mode == v1.ModeEnforce && !spare {
		if n := len(mem.counts); n > 0 && mem.counts[n-1].limit == l {
			mem.counts[n-1].told = len(mem.told)
		}
		mem.told = append(mem.told, told{l, v})
	}
	if outcome != deny {
		return nil
	}
	mem.fields.Reset()
	tell(&mem.fields, mem.told)
	mem.err = stage.Error{
		Code: "http_request_denied", Side: stage.SideTenant, Status: 429,
		RetryAfter: max(time.Second, ceil(v.wait)), Fields: &mem.fields,
	}
	return &mem.err
}

// take counts x under a limit. Where the answer decides if it counts, it counts until the answer is there.
func (s *Stage) take(ctx context.Context, x *stage.Exchange, l *limit, mem *local, now int64) (verdict, error) {
	var values [][]byte
	if l.json {
		text, err := mem.peek(ctx, x)
		if err != nil {
			return verdict{}, err
		}
		values = mem.values[:len(l.keys)]
		for i := range l.keys {
			if values[i] = nil; l.keys[i].on == onJSON && text != nil {
				values[i] = jsonField(text, l.keys[i].name)
			}
		}
	}
	key := hashKeys(l.keys, l.hasher, l.hash, x, values)
	if l.statuses != nil {
		v := s.table.reserve(key, &l.rate, now)
		if v.ok {
			mem.counts = append(mem.counts, counted{l, key, -1})
		}
		return v, nil
	}
	v := s.table.take(key, &l.rate, now)
	if v.ok && l.shared {
		s.ledger.note(key, &l.rate, l.per)
	}
	return v, nil
}

// serve asks the next stage, and settles what is under way however that ends: a panic may not hold a place for good.
func (s *Stage) serve(ctx context.Context, x *stage.Exchange, next stage.Handler, mem *local, now int64) (r *message.Response, err error) {
	if len(mem.counts) == 0 {
		return next.Serve(ctx, x)
	}
	status := 500
	defer func() { s.settle(mem, status, now) }()
	if r, err = next.Serve(ctx, x); err != nil {
		status = stage.AsError(err).Status
	} else if r != nil {
		status = r.Status
	}
	return r, err
}

// settle counts a request that came at now under the limits by status that its own is one of, and no more under the
// others; 0 is that of one that was not asked.
func (s *Stage) settle(mem *local, status int, now int64) {
	for i := range mem.counts {
		c := &mem.counts[i]
		l := c.limit
		counts := status != 0 && l.statuses.has(status)
		s.table.settle(c.key, &l.rate, counts, now)
		switch {
		case !counts && c.told >= 0:
			v := &mem.told[c.told].verdict
			v.left, v.reset = min(v.left+1, l.rate.burst), max(0, v.reset-time.Duration(l.rate.step.ns))
		case counts && l.shared:
			s.ledger.note(c.key, &l.rate, l.per)
		}
	}
	mem.counts = mem.counts[:0]
}

// statuses is a set of status codes.
type statuses [10]uint64

// newStatuses compiles codes such as 401, and classes such as 4xx.
func newStatuses(list []string) *statuses {
	set := &statuses{}
	for _, t := range list {
		if len(t) == 3 && t[1:] == "xx" {
			for n := range 100 {
				set.add(int(t[0]-'0')*100 + n)
			}
		} else if n, err := strconv.Atoi(t); err == nil {
			set.add(n)
		}
	}
	return set
}

func (s *statuses) add(n int) {
	if n >= 0 && n < 640 {
		s[n/64] |= 1 << (n % 64)
	}
}

func (s *statuses) has(n int) bool { return n >= 0 && n < 640 && s[n/64]&(1<<(n%64)) != 0 }

// tell adds the fields of draft-ietf-httpapi-ratelimit-headers-10 sections 3 and 4.
func tell(f *message.Fields, list []told) {
	f.Begin(message.RateLimitPolicy)
	for i := range list {
		if i > 0 {
			f.Append(", ")
		}
		f.Append(list[i].limit.policy)
	}
	f.End()
	f.Begin(message.RateLimit)
	for i := range list {
		if i > 0 {
			f.Append(", ")
		}
		f.Append(list[i].limit.name)
		f.Append(";r=")
		f.AppendInt(int64(list[i].verdict.left))
		f.Append(";t=")
		f.AppendInt(int64(ceil(list[i].verdict.reset) / time.Second))
	}
	f.End()
}

// ceil rounds up to whole seconds.
func ceil(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}
