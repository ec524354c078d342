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
}

// Stage is the rate limit stage.
type Stage struct {
	slot    stage.Slot
	counter *observe.Family[observe.Counter]
	table   *table
	seed    maphash.Seed
	epoch   time.Time
}

// New returns the stage. Its metrics are relais_ratelimit_requests_total by site and outcome
// (pass, spared, would-deny, deny) and relais_ratelimit_evictions_total by state (idle, busy).
func New(slot stage.Slot, cfg Config, r *observe.Registry) *Stage {
	if cfg.Entries <= 0 {
		cfg.Entries = DefaultEntries
	}
	ev := r.Counters("relais_ratelimit_evictions_total",
		"Keys that gave their place to another: idle ones, and busy ones whose count was lost.", 2, "state")
	return &Stage{
		slot: slot,
		counter: r.Counters("relais_ratelimit_requests_total",
			"Requests under a rate limit, by what became of them.", maxSeries, "site", "outcome"),
		table: newTable(cfg.Entries, ev.With("idle"), ev.With("busy")),
		seed:  maphash.MakeSeed(),
		// Times are told from a moment before the start, so that the first one is not 0.
		epoch: time.Now().Add(-time.Hour),
	}
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
	key    key
	hash   uint64
	spare  bool
	name   string
	detail string // of a refusal
	policy string // its item of RateLimit-Policy
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
	case (spec.Key.On == "header" || spec.Key.On == "cookie") && spec.Key.Name == "":
		return nil, fmt.Errorf("RateLimit %s: key.name is missing; name the %s that is counted", name, spec.Key.On)
	}
	l := &limit{
		gate:  stage.NewGate(spec.Protection),
		scope: stage.NewScope(spec.Path, spec.Methods),
		rate:  newRate(spec.Requests, per, spec.Burst),
		key:   newKey(spec.Key),
		spare: spec.SpareBaskets == nil || *spec.SpareBaskets,
		name:  `"` + name + `"`,
	}
	l.hash = limitHash(s.seed, site, name, &l.rate)
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
	mem.told = mem.told[:0]
	now := int64(x.Start.Sub(s.epoch))
	for _, l := range limits {
		if err := s.ask(x, pt, l, mem, now); err != nil {
			return nil, err
		}
	}
	r, err := next.Serve(ctx, x)
	if r != nil && len(mem.told) > 0 {
		tell(&r.Fields, mem.told)
	}
	return r, err
}

// ask counts x under a limit; an error refuses it.
func (s *Stage) ask(x *stage.Exchange, pt *part, l *limit, mem *local, now int64) error {
	mode := l.gate.Mode(x)
	if mode == v1.ModeOff || !l.scope.Holds(x) {
		return nil
	}
	v := s.table.take(l.key.hash(s.seed, l.hash, x), &l.rate, now)
	spare := l.spare && x.Visitor.Class == stage.Protected
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
