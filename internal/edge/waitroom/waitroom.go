package waitroom

import (
	"context"
	"log/slog"
	"sync"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/budget"
	"github.com/relais-edge/relais/internal/edge/seal"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// name of the stage, in trails.
const name = "room"

// Pools are what rooms let visitors into; the balance stage is it.
type Pools interface {
	// Space says how many places a pool has free for visitors without a basket, of how many (0 when it has no
	// bound), and how many requests a second it takes now. Found is false for a pool that does not run.
	Space(pool bundle.Key) (free, limit int64, perSecond float64, found bool)
}

// Secrets keeps secrets that the edge makes for itself; seal.Dir does.
type Secrets interface {
	// Secrets returns the secrets of that name, at least 16 bytes each, of which the first signs.
	Secrets(name string) ([][]byte, error)
}

// Config is what the stage must be told.
type Config struct {
	Slot stage.Slot
	// Dir keeps the lines over restarts; empty keeps none.
	Dir string
	// Secrets may be nil; then every document must give its secret.
	Secrets Secrets
	// Pools may be nil; then rooms without newPerMinute let in what they find room for.
	Pools  Pools
	Logger *slog.Logger
}

// Stage holds the rooms of all sites. Its rooms outlive changes of their documents.
type Stage struct {
	cfg     Config
	tickets *budget.Table
	passes  *budget.Table
	spread  *budget.Spread // of passes
	guests  *budget.Spread // of places that other edges gave
	clock   *seal.Clock
	metrics metrics

	mu    sync.Mutex
	rooms map[string]*room // by site and name
}

type metrics struct {
	requests *observe.Family[observe.Counter]
	waiting  *observe.Family[observe.Gauge]
}

// Bounds of the stage.
const (
	maxSeries = 100_000
	// MaxRooms that this edge keeps a line for; what is beyond has no room, and says so.
	MaxRooms   = 10_000
	budgetSets = 1 << 12
	// A pass is good for passPlaces networks or programs at a time, of which one that is not used for passWindow
	// makes room.
	passPlaces = 4
	passWindow = 10 * time.Minute
	// claimsEvery is how many ticks lie between two writings of who came: five seconds.
	claimsEvery = 20
	// tick is how often lines move.
	tick = 250 * time.Millisecond
	// placeLife is how long a place is kept for somebody who does not ask for it.
	placeLife = 3600
)

// What is counted.
const (
	outWaits = iota
	outComes
	outFull
	outCapped
	outExempt
	outCopied
	outCount
)

var outcomes = [outCount]string{"waits", "comes", "full", "capped", "exempt", "copied"}

// New returns the stage. It starts nothing; lines move with Run.
func New(cfg Config, r *observe.Registry) *Stage {
	return &Stage{
		cfg: cfg, tickets: budget.New(budgetSets), passes: budget.New(budgetSets), rooms: map[string]*room{}, clock: seal.NewClock(nil),
		spread: budget.NewSpread(budgetSets, passPlaces, passWindow), guests: budget.NewSpread(budgetSets, 1, placeLife*time.Second),
		metrics: metrics{
			r.Counters("relais_waiting_room_total", "Requests that a waiting room decided about, by what it did.", maxSeries, "site", "room", "outcome"),
			r.Gauges("relais_waiting_room_waiting", "Visitors in the line of a waiting room, those who left among them.", maxSeries, "site", "room"),
		},
	}
}

// room is a line with its present document.
type room struct {
	key     string
	line    *line
	waiting observe.Gauge
	saved   kept // what its file holds; for Run alone

	mu     sync.Mutex
	policy *policy
}

// errWaits is what a request gets that would need an origin while others wait. It is as a full pool to the stages
// above: a stored answer may stand in, and the room answers what is left.
var errWaits = &stage.Error{
	Code: "destination_unavailable", Side: stage.SideEdge, Status: 503, RetryAfter: 5 * time.Second, Err: stage.ErrFull,
}

// find returns the room of x and whether it acts; nil where there is none.
func (s *Stage) find(x *stage.Exchange) (*policy, v1.Mode) {
	pt, _ := x.Site.Parts[s.cfg.Slot].(*part)
	if pt == nil {
		return nil, v1.ModeOff
	}
	p := pt.routes[x.Route.Index]
	if p == nil {
		return nil, v1.ModeOff
	}
	return p, p.gate.Mode(x)
}

// Name implements stage.Stage.
func (s *Stage) Name() string { return name }

// Serve implements stage.Stage, above the cache: it holds the line of rooms that are always on, and gives a pass to
// who was called.
func (s *Stage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	p, mode := s.find(x)
	if p == nil || mode == v1.ModeOff {
		return next.Serve(ctx, x)
	}
	always := p.always && p.inHours(x.Start)
	if !always && !p.room.line.open() && !p.carries(x) {
		return next.Serve(ctx, x)
	}
	if x.Visitor.Exempt() {
		return s.exempt(ctx, x, p, next)
	}
	v := s.look(x, p)
	if !v.in && always {
		if mode == v1.ModeShadow {
			x.Mark(name, "would-wait")
			return next.Serve(ctx, x)
		}
		return s.hold(x, p, v), nil
	}
	if v.in && x.Visitor.Class == stage.Anonymous {
		// So that it is not held by a shared fetch of one who was not let in.
		x.Visitor.Class = stage.Known
	}
	resp, err := next.Serve(ctx, x)
	if v.in && resp != nil && mode == v1.ModeEnforce && x.Full != "room" {
		s.welcome(x, p, v, resp)
	}
	return resp, err
}

func (s *Stage) exempt(ctx context.Context, x *stage.Exchange, p *policy, next stage.Handler) (*message.Response, error) {
	if p.room.line.open() {
		p.metrics[outExempt].Inc()
		x.Mark(name, "exempt")
	}
	return next.Serve(ctx, x)
}

// Line is the step below the cache: while visitors wait in a room of kind overflow, nobody else gets past them to
// an origin.
func (s *Stage) Line() stage.Stage { return (*below)(s) }

type below Stage

// Name implements stage.Stage.
func (b *below) Name() string { return name }

// Serve implements stage.Stage.
func (b *below) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	s := (*Stage)(b)
	p, mode := s.find(x)
	if p == nil || mode == v1.ModeOff || p.always || !p.room.line.open() || x.Visitor.Exempt() {
		return next.Serve(ctx, x)
	}
	if s.look(x, p).in {
		return next.Serve(ctx, x)
	}
	if mode == v1.ModeShadow {
		x.Mark(name, "would-wait")
		return next.Serve(ctx, x)
	}
	x.Mark(name, "line")
	return nil, errWaits
}

// Answer gives the room's page to one for whom no tier had room, or who would get past those who wait. Nil means
// that there is no room for x, or none that acts.
func (s *Stage) Answer(x *stage.Exchange, pool bundle.Key) *message.Response {
	p, mode := s.find(x)
	if p == nil || mode != v1.ModeEnforce || x.Visitor.Exempt() || p.always && !p.inHours(x.Start) {
		return nil
	}
	if pool != "" {
		p.room.note(pool)
	}
	v := s.look(x, p)
	if v.in {
		p.room.line.full.Add(1)
		p.metrics[outFull].Inc()
		if v.first {
			p.room.line.release(v.number)
		}
	}
	return s.hold(x, p, v)
}

// note remembers a pool that was full, so that the line follows it.
func (r *room) note(pool bundle.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.policy.pools {
		if k == pool {
			return
		}
	}
	if len(r.policy.pools) < maxPools {
		r.policy.pools = append(r.policy.pools[:len(r.policy.pools):len(r.policy.pools)], pool)
	}
}

// maxPools of a room are followed.
const maxPools = 16

// mayBeShared says whether a cache in front of the edge may keep an answer (RFC 9111 section 3).
func mayBeShared(f *message.Fields) bool {
	v := f.Get(message.CacheControl)
	return v == nil && (f.Has(message.Expires) || f.Has(message.LastModified)) || v != nil && !has(v, "private") && !has(v, "no-store")
}

// has finds a word in a list of directives.
func has(line []byte, word string) bool {
	for i := 0; i+len(word) <= len(line); i++ {
		if message.EqualFold(line[i:i+len(word)], word) {
			return true
		}
	}
	return false
}

// Run moves the lines and writes them until ctx ends, and once more then.
func (s *Stage) Run(ctx context.Context) error {
	t := time.NewTicker(tick)
	defer t.Stop()
	last, n := time.Now(), 0
	failing := false
	for {
		select {
		case <-ctx.Done():
			return s.saveAll(true, true)
		case <-t.C:
		}
		now := time.Now()
		dt := min(now.Sub(last), time.Second)
		last = now
		n++
		for _, r := range s.all() {
			r.step(s.cfg.Pools, dt, now)
			if n%4 == 0 {
				r.line.second(s.clock.Unix(now))
				r.waiting.Set(float64(r.line.waiting()))
			}
		}
		if n%4 == 0 {
			err := s.saveAll(false, n%claimsEvery == 0)
			if err != nil && !failing && s.cfg.Logger != nil {
				s.cfg.Logger.Error("waiting room: the line cannot be written, so that a restart begins a new one", "err", err)
			}
			failing = err != nil
		}
	}
}

func (s *Stage) all() []*room {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*room, 0, len(s.rooms))
	for _, r := range s.rooms {
		out = append(out, r)
	}
	return out
}

func (s *Stage) saveAll(last, claims bool) error {
	var first error
	for _, r := range s.all() {
		err := r.save(s.cfg.Dir, last)
		if claims && s.cfg.Dir != "" && err == nil {
			err = r.line.saveClaims(r.path(s.cfg.Dir) + claimsEnd)
		}
		if err != nil && first == nil {
			first = err
		}
	}
	return first
}

// step moves the room's line on.
func (r *room) step(pools Pools, dt time.Duration, now time.Time) {
	r.mu.Lock()
	p := r.policy
	var list []bundle.Key
	if p != nil {
		list = p.pools
	}
	r.mu.Unlock()
	if p == nil || p.always && p.begins.After(now) {
		return
	}
	sp := space{free: 1}
	if pools != nil {
		for _, key := range list {
			free, limit, perSecond, found := pools.Space(key)
			if !found {
				continue
			}
			sp.takes += perSecond
			if limit > 0 {
				sp.free = min(sp.free, float64(free)/float64(limit))
			}
		}
	}
	r.line.step(dt, sp, p.most)
}
