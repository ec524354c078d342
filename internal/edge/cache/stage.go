package cache

import (
	"cmp"
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/edge/cache/store"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// Defaults of Config.
const (
	DefaultMaxBytes      = 256 << 20
	DefaultMaxFills      = 8192
	DefaultMaxBackground = 64
)

const (
	// maxVariants bounds the flights under one key, and the variants that people are told of.
	maxVariants = 32
	// passFor is how long requests for a key do not wait for each other, after an answer under
	// it could not be stored.
	passFor = 60 * time.Second
	// retryAfter is how long a stale object is served without asking an origin that just failed.
	retryAfter = 2 * time.Second
)

// Config configures a Stage. The zero value of a field but Slot means its default.
type Config struct {
	// Slot is the stage's place in sites and exchanges.
	Slot stage.Slot
	// MaxBytes is the memory for what is stored, keys and heads included; at least MinBytes. An index and
	// sketches of requests come to it, some two hundredths, copies of what is asked for most, a 128th, and
	// notes, at most a sixteenth.
	MaxBytes int64
	// Disk is where answers outlive the process; its zero value is none.
	Disk Disk
	// Quotas are the bounds of organizations, by their names; that of AnyOrg is each one's that is not named.
	Quotas map[string]Quota
	// MaxFills bounds the fetches for several clients at once; beyond it each client fetches for itself.
	MaxFills int
	// MaxBackground bounds validations of answers that were served stale meanwhile.
	MaxBackground int
	// Name is what the cache is called in Cache-Status; relais by default.
	Name string
	// Clock tells the time; time.Now by default.
	Clock func() time.Time
	// Purges keeps purges over restarts; by default memory does, until the end of the process.
	Purges purge.Log
	// PurgeKeys is how many purged things are told apart; purge.DefaultKeys by default.
	PurgeKeys int
	// Witness hears of purges and of the last answers before them; by default nobody does.
	Witness Witness
	// Logger hears of purges that cannot be kept; by default nobody does.
	Logger *slog.Logger
	// Metrics counts what the stage does; by default nobody sees the counts.
	Metrics *observe.Registry
}

// Stage stores answers and serves them again. It implements stage.Stage and stage.Compiler.
type Stage struct {
	cfg   Config
	tiers *store.Tiers
	notes *store.Store[note]
	front front
	m     *metrics
	forks sync.Pool
	// buffered counts bytes of bodies that are on their way.
	buffered atomic.Int64
	epochs   epochs
	purges   *purge.Epochs
	purging  sync.Mutex // so that purges hold in the order of their numbers
	sealed   bool       // under purging
	sites    sites
	learner  learner
	top      *top
	// searches says that an answer had a No-Vary-Search.
	searches atomic.Bool
	ranges   ranging
	stores   counts
	points   [64]sync.Mutex
	seen     *seenTable
	blocks   sync.Pool // of *[readBlock]byte
	// sentFiles is how many bytes of bodies were left to the kernel to send from their files.
	sentFiles atomic.Int64
	maxBody   int64
	yield     chan struct{} // closed when another process is to have the disk
	// attachFailures counts how often the disk could not be had.
	attachFailures atomic.Int64
	attachSaid     string // of who runs

	mu         sync.Mutex
	flights    map[store.Hash]*flight
	running    map[*flight]struct{} // joinable or not
	background int
	closed     bool
	idle       chan struct{} // closed when the stage is and nothing runs
}

// New returns a stage. It starts nothing; work begins with requests, and Close ends it. An error says that there
// is not the memory, or too little of it. What is wrong with the disk is no error: the stage goes on without.
func New(cfg Config) (*Stage, error) {
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, DefaultMaxBytes)
	cfg.MaxFills = cmp.Or(cfg.MaxFills, DefaultMaxFills)
	cfg.MaxBackground = cmp.Or(cfg.MaxBackground, DefaultMaxBackground)
	cfg.Name = cmp.Or(cfg.Name, "relais")
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = observe.New()
	}
	if cfg.Purges == nil {
		cfg.Purges = purge.NewMemory(1 << 16)
	}
	s := &Stage{
		cfg:     cfg,
		notes:   store.New[note](min(max(cfg.MaxBytes/16, 1<<16), 16<<20)),
		front:   newFront(cfg.MaxBytes),
		seen:    new(seenTable),
		yield:   make(chan struct{}),
		flights: map[store.Hash]*flight{},
		running: map[*flight]struct{}{},
		idle:    make(chan struct{}),
		purges:  purge.NewEpochs(cmp.Or(cfg.PurgeKeys, purge.DefaultKeys)),
		top:     newTop(),
		learner: learner{seed: maphash.MakeSeed()},
	}
	if err := s.openTiers(); err != nil {
		return nil, err
	}
	s.blocks.New = func() any { return new([readBlock]byte) }
	s.replay()
	s.forks.New = func() any { return new(stage.Exchange) }
	s.m = newMetrics(cfg.Metrics, s)
	return s, nil
}

// Name implements stage.Stage.
func (s *Stage) Name() string { return "cache" }

// Stats tells what is stored.
func (s *Stage) Stats() store.TiersStats { return s.tiers.Stats() }

// local is what the stage keeps in an exchange from one request to the next.
type local struct {
	key      []byte
	selected []byte
	hash     store.Hash
	control  semantics.Control
	now      time.Time
	rule     *rule
	// hint is how answers under the key vary, as far as is known.
	hint []byte
	tee  tee
	// watch looks at what comes from the origin.
	watch *watch
	// aliased says that key is that of a No-Vary-Search rule, not the request's own.
	aliased bool
	ranging rangeEnd
	scratch []byte
	// born is the number of the last purge when the request was looked up, and stores how much was stored
	// under its hash.
	born   uint64
	stores uint32
	// found is what the look-up found, second what a later one did, and more records of flights; armed says
	// that they are let go at the exchange's end.
	found, second *found
	more          []*hold
	armed         bool
	body          piecewise
	leaving       departure
	tagged        []uint64 // of leaving
}

func (s *Stage) local(x *stage.Exchange) *local {
	l, _ := x.Local[s.cfg.Slot].(*local)
	if l == nil {
		l = new(local)
		x.Local[s.cfg.Slot] = l
	}
	return l
}

func (s *Stage) partOf(x *stage.Exchange) *part {
	if x.Site == nil || int(s.cfg.Slot) >= len(x.Site.Parts) {
		return nil
	}
	p, _ := x.Site.Parts[s.cfg.Slot].(*part)
	return p
}

// ruleOf is the rule of x's route, or nil.
func (p *part) ruleOf(x *stage.Exchange) *rule {
	if x.Route != nil && x.Route.Index < len(p.routes) {
		return p.routes[x.Route.Index]
	}
	return nil
}

// Serve implements stage.Stage.
func (s *Stage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	p := s.partOf(x)
	if p == nil {
		return next.Serve(ctx, x)
	}
	r := p.ruleOf(x)
	if !x.In.Method.Safe() {
		if string(x.In.MethodName()) == "PURGE" {
			return s.servePurge(ctx, x, r)
		}
		return s.unsafe(ctx, x, next, p)
	}
	if r == nil {
		return next.Serve(ctx, x)
	}
	r.normal.apply(&x.In.Fields, x.Visitor.Background)
	if why := notForUs(x.In); why != "" {
		return s.bypass(ctx, x, next, r, why)
	}
	if d := r.detourOf(x); d != nil {
		return s.goAround(ctx, x, next, r, d)
	}
	l := s.local(x)
	l.rule = r
	l.now = s.now(x)
	l.control = semantics.Control{}
	if x.In.Has(message.CacheControl) || x.In.Has(message.Pragma) {
		l.control = semantics.ParseRequest(x.In)
		if l.control.Has(semantics.NoStore) {
			return s.bypass(ctx, x, next, r, "no-store")
		}
	}
	l.key = r.append(l.key[:0], x)
	l.hash = s.tiers.HashOf(l.key)
	return s.lookup(ctx, x, next, l)
}

// now is the time of x's last lap.
func (s *Stage) now(x *stage.Exchange) time.Time {
	if x.Start.IsZero() {
		return s.cfg.Clock()
	}
	return x.Now()
}

// lookup answers from the store where it may, and asks the origin where it must.
func (s *Stage) lookup(ctx context.Context, x *stage.Exchange, next stage.Handler, l *local) (*message.Response, error) {
	l.born, l.stores = s.purges.Last(), s.stores.at(l.hash)
	l.aliased = false
	if resp := s.quick(x, l); resp != nil {
		return resp, nil
	}
	f := l.reuse(&l.found)
	o, verdict, seen := s.find(l, x, f, false)
	if !seen && s.alias(l, x) {
		l.stores = s.stores.at(l.hash)
		o, verdict, seen = s.find(l, x, f, false)
	}
	l.hint = l.rule.selector
	if seen && f.hint != nil {
		l.hint = f.hint
	}
	if o != nil && verdict.Soft > 0 {
		o = s.soften(l, o, softLife(o, verdict))
	} else if o == nil && verdict.Hard > 0 {
		l.rule.site.dead.Add(1)
	}
	var why forward
	if o == nil {
		why = s.missed(l, x, seen)
	} else {
		use := o.Use(&l.control, l.now)
		// Of a partial answer what is asked for may be missing, and nothing validates a part.
		lacks := o.partial() && (use == semantics.Background || !o.serves(x.In, l.now))
		switch {
		case lacks && use == semantics.Fresh:
			why = fwdPartial
		case lacks:
			why = fwdStale
		case use == semantics.Fresh:
			s.offer(x, l, f, o)
			return s.hit(x, l, o, resultHit, ""), nil
		case use == semantics.Stale:
			return s.hit(x, l, o, resultStale, "max-stale"), nil
		case use == semantics.Background && !x.Visitor.Background: // who waits for nobody is the one to validate
			if rests, _ := s.resting(l.key, o, l.now); !rests {
				s.refresh(ctx, x, next, l, o)
			}
			return s.hit(x, l, o, resultStale, "stale-while-revalidate"), nil
		case use == semantics.Refresh:
			why = fwdRequest
		default:
			why = fwdStale
			if rests, full := s.resting(l.key, o, l.now); rests && o.spare(l.now) {
				if full {
					x.Full = fullStale
					return s.hit(x, l, o, resultStale, "no-room"), nil
				}
				return s.hit(x, l, o, resultStale, "stale-if-error"), nil
			}
		}
	}
	if o != nil && x.Measures.Stale && o.standsInForRoom(l.now) {
		if rests, _ := s.resting(l.key, o, l.now); !rests {
			s.refresh(ctx, x, next, l, o)
		}
		return s.hit(x, l, o, resultStale, "flood"), nil
	}
	x.Shared = !x.Measures.Suspect && l.now.UnixNano() >= s.passUntil(l.hash, l.key)
	if l.control.Has(semantics.OnlyIfCached) {
		x.Mark("cache", "only-if-cached")
		return nil, errNotCached
	}
	if x.Measures.Suspect { // nobody shares its fate, and it fills nothing
		return s.pass(ctx, x, next, l, resultPass, why)
	}
	if x.In.Method == message.HEAD {
		return s.head(ctx, x, next, l, o, why)
	}
	if o == nil && (x.In.Has(message.Authorization) || !x.Shared) {
		return s.pass(ctx, x, next, l, resultPass, why)
	}
	x.Shared = true
	if (o == nil || o.partial()) && semantics.WantsPart(&x.In.Fields) && !s.flying(l, x) && s.ranges.enter(l, x) {
		// The whole may be much more than the client wants: the part goes through, and is stored.
		return s.pass(ctx, x, next, l, resultPass, why)
	}
	return s.fetch(ctx, x, next, l, o, why)
}

// flying says whether a fetch runs whose answer x may have a part of.
func (s *Stage) flying(l *local, x *stage.Exchange) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for fl := s.flights[l.hash]; fl != nil; fl = fl.next {
		if fl.fits(l, x) {
			return true
		}
	}
	return false
}

// errNotCached answers only-if-cached (RFC 9111 section 5.2.1.7).
var errNotCached = &stage.Error{
	Code: "only_if_cached", Side: stage.SideClient, Status: 504,
	Err: errors.New("the request asked for a stored answer only, and there is none that may be used"),
}

// Quiet waits until no fetch runs. It is for a replay, in which origins answer at once: it looks again and
// again, and would never end while an origin is slow.
func (s *Stage) Quiet() {
	for {
		s.mu.Lock()
		n := len(s.running)
		s.mu.Unlock()
		if n == 0 {
			return
		}
		runtime.Gosched()
	}
}

// Close waits for fetches that outlive their clients. When ctx ends it cancels what is left,
// waits for that, and returns ctx's error. Requests that come later are not collapsed.
func (s *Stage) Close(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		if len(s.running) == 0 {
			close(s.idle)
		}
	}
	s.mu.Unlock()
	select {
	case <-s.idle:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for fl := range s.running {
		fl.cancel()
	}
	s.mu.Unlock()
	<-s.idle
	return context.Cause(ctx)
}
