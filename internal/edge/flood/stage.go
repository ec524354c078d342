package flood

import (
	"context"
	"errors"
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/budget"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// Tiers says how full the first tiers of a site's pools are: 1 where one begins to send new visitors on, or away.
type Tiers interface {
	Busy(site *snapshot.Site) float64
}

// Config is what the stage must be told. Zero values other than Slot mean the default.
type Config struct {
	Slot stage.Slot
	// Tiers say how full they are; nil for a stage that knows none.
	Tiers Tiers
	// Challenger of suspects; nil leaves that step out.
	Challenger stage.Challenger
	// Denier drops the packets of those whom step drop refuses again and again; nil where there is no packet filter.
	Denier Denier
	// Load says how hard the processors are pressed.
	Load func() observe.Load
	// Sites that are watched at once; DefaultSites.
	Sites int
}

// Stage is the flood stage.
type Stage struct {
	cfg       Config
	seed      maphash.Seed
	metrics   *metrics
	unwatched observe.Counter
	urls      urls
	sources   sources
	callbacks *budget.Table
	tick      atomic.Uint32
	pardons   pardons
	denials   denials
	refusal   [steps]*stage.Error
	gate      gate

	mu    sync.Mutex
	sites map[bundle.Key]*site
}

// New returns the stage. It starts nothing; detection begins with Run. Its metrics are relais_flood_step,
// relais_flood_distance, relais_flood_requests_total, relais_flood_harmed_total, relais_flood_taken_back_total,
// relais_flood_denials_total and relais_flood_unwatched_total.
func New(cfg Config, r *observe.Registry) *Stage {
	if cfg.Sites <= 0 {
		cfg.Sites = DefaultSites
	}
	s := &Stage{
		cfg: cfg, seed: maphash.MakeSeed(), metrics: newMetrics(r), sites: map[bundle.Key]*site{},
		callbacks: budget.New(callbackSets),
	}
	s.unwatched = r.Counters("relais_flood_unwatched_total", "Sites with a FloodPolicy that are not watched, as too many are.", 1).With()
	s.denials.open(r)
	s.tick.Store(1)
	s.gate.stage = s
	for i := range s.refusal {
		s.refusal[i] = &stage.Error{
			Code: "http_request_denied", Side: stage.SideTenant, Status: 429, RetryAfter: 5 * time.Second, Tarpit: tarpit,
			Err: errors.New("flood: step " + Step(i).String()),
		}
	}
	return s
}

// Name implements stage.Stage.
func (s *Stage) Name() string { return name }

const name = "flood"

// Run looks at what came twice a second, until ctx ends.
func (s *Stage) Run(ctx context.Context) error {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-t.C:
			s.look(now)
		}
	}
}

// tarpit is for how long a suspect's refusal is held back.
const tarpit = 2 * time.Second

// agingTicks is in how many ticks all counts of URLs are halved: five minutes.
const agingTicks = 600

// The processors count as saturated from processorFull of their time, or when what is ready waits for processorLate.
const (
	processorFull = 0.85
	processorLate = 20 * time.Millisecond
)

// look does what is done in one tick.
func (s *Stage) look(now time.Time) {
	n := s.tick.Add(1)
	s.urls.age(agingTicks)
	load := s.cfg.Load()
	busy := max(load.Share/processorFull, float64(load.Delay)/float64(processorLate))
	for _, st := range s.all() {
		tiers := 0.0
		if sn := st.last.Load(); sn != nil && s.cfg.Tiers != nil {
			tiers = s.cfg.Tiers.Busy(sn)
		}
		st.tick(now, n, tiers, busy)
		st.counters.strange.Set(st.report.strange)
	}
	s.denials.tell(s.cfg.Denier, now)
	s.pardons.sweep(now)
}

func (s *Stage) all() []*site {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*site, 0, len(s.sites))
	for _, st := range s.sites {
		list = append(list, st)
	}
	return list
}

// local is what the stage keeps in an exchange.
type local struct {
	traits traits
	v      *verdicts
	site   *site
	score  int
}

func (s *Stage) memory(x *stage.Exchange) *local {
	m, _ := x.Local[s.cfg.Slot].(*local)
	if m == nil {
		m = &local{}
		x.Local[s.cfg.Slot] = m
	}
	return m
}

// Serve implements stage.Stage: it notes what comes, decides who is a suspect, and refuses those that shall not
// even be looked up in the cache.
func (s *Stage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	n := s.tick.Load()
	if x.Visitor.Class != stage.Anonymous || x.Visitor.Bot != "" {
		s.fine(x, n, true)
	}
	pt, _ := x.Site.Parts[s.cfg.Slot].(*part)
	if pt == nil || pt.policy.mode == v1.ModeOff || x.Measures.Pardoned || pt.policy.trusted.has(x.Client) {
		return next.Serve(ctx, x)
	}
	st := pt.site
	if st.used.Load() != n {
		s.use(st, n)
	}
	m := s.memory(x)
	m.site, m.score = st, 0
	m.traits = s.read(x, st.hash, n)
	for d, c := range m.traits.cell {
		st.now[d][c].Add(1)
	}
	if x.Visitor.Class != stage.Anonymous {
		st.good.Add(1)
	}
	m.v = st.verdict.Load()
	if m.v.step != Calm {
		if resp, err := s.meet(x, pt.policy, m, n); resp != nil || err != nil {
			return resp, err
		}
	}
	resp, err := next.Serve(ctx, x)
	s.note(x, m, resp, err)
	return resp, err
}

// use notes that a site has requests, and watches it again when its place was given to another.
func (s *Stage) use(st *site, n uint32) {
	st.used.Store(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sites[st.key] == nil && (len(s.sites) < s.cfg.Sites || s.dropOldest()) {
		s.sites[st.key] = st
	}
}

// meet takes the measures of the step that the site is in.
func (s *Stage) meet(x *stage.Exchange, p *policy, m *local, n uint32) (*message.Response, error) {
	v := m.v
	spared := x.Visitor.Exempt() && s.withinCeiling(x, m, n)
	switch {
	case v.shadow:
	case !spared && v.step >= Stale:
		x.Measures.Stale = true
		if v.step >= Cache && p.narrow != nil && p.narrow.apply(x) {
			m.site.act(x, Cache, v)
			x.MarkDetail(name, "narrowed", v.why)
		}
	}
	if spared || v.step < Challenge {
		return nil, nil
	}
	if !s.suspect(x, m) {
		if v.step == Drop {
			s.fine(x, n, false)
		}
		return nil, nil
	}
	m.site.suspects.Add(1)
	if v.step == Drop && v.early {
		return s.drop(x, m, n)
	}
	if v.shadow {
		return s.refuse(x, m, v.step)
	}
	// What is stored costs little and is not refused to anybody; the gate below the cache does the rest.
	x.Measures.Suspect = true
	return nil, nil
}

// drop refuses a suspect, and remembers it.
func (s *Stage) drop(x *stage.Exchange, m *local, n uint32) (*message.Response, error) {
	if !m.v.shadow {
		s.offend(x, m.site.key, n)
	}
	return s.refuse(x, m, Drop)
}

// The ceiling of a visitor with a basket: 20 requests a second, 60 at once. Beyond it the others' rules hold.
const (
	ceilingRate  = 40
	ceilingBurst = 60
	ceilingSalt  = 0x5bd1e9955bd1e995
)

// A provider sends its callbacks from few addresses, and many at once when it was down. All have proved who they are.
const (
	callbackRate  = 1000 // a second, of one provider to one site
	callbackBurst = 10_000
	callbackSets  = 1 << 8
)

// withinCeiling says whether an exempt visitor sends no more than such may.
func (s *Stage) withinCeiling(x *stage.Exchange, m *local, n uint32) bool {
	if x.Visitor.Callback {
		return s.callbacks.Take(mix(x.Visitor.Key^m.site.hash), budget.Per(callbackRate, time.Second).Burst(callbackBurst), x.Start)
	}
	return s.sources.take(mix(x.Visitor.Key^m.site.hash^ceilingSalt), n, ceilingRate, ceilingBurst)
}

// suspect says whether a request speaks for an attack.
func (s *Stage) suspect(x *stage.Exchange, m *local) bool {
	v := m.v
	if v.hand {
		return x.Visitor.Class == stage.Anonymous && !m.traits.file
	}
	m.score = v.score.of(&m.traits)
	if s.sources.done(blameHash(s.seed, x.Client), s.tick.Load()) {
		m.score += blameBits * bit
	}
	bound := v.theta
	if x.Visitor.Class != stage.Anonymous || s.cfg.Challenger != nil && s.cfg.Challenger.Passed(x) {
		bound += bonusBits * bit
	}
	return m.score >= bound
}

// Blame notes that a client did to HTTP or to TLS what no browser does: its requests are suspects sooner, while a
// site is under attack. The listeners call it.
func (s *Stage) Blame(client netip.Addr) {
	s.sources.see(blameHash(s.seed, client), s.tick.Load(), false, false)
}

const (
	blameSalt = 0x2545f4914f6cdd1d
	blameBits = 2
)

func blameHash(seed maphash.Seed, a netip.Addr) uint64 {
	h, _ := addresses(seed, a, blameSalt)
	return h
}

// refuse ends a request that step acted on; in mode shadow it only says so.
func (s *Stage) refuse(x *stage.Exchange, m *local, step Step) (*message.Response, error) {
	m.site.act(x, step, m.v)
	if m.v.shadow {
		x.MarkDetail(name, wouldCodes[step], m.v.why)
		return nil, nil
	}
	x.MarkDetail(name, codes[step], m.v.why)
	return nil, s.refusal[step]
}

var (
	codes      = [steps]string{Cache: "narrow", Challenge: "challenge", Limit: "limit", Drop: "drop"}
	wouldCodes = [steps]string{Cache: "would-narrow", Challenge: "would-challenge", Limit: "would-limit", Drop: "would-drop"}
)

// act counts that a step acted on x.
func (st *site) act(x *stage.Exchange, step Step, v *verdicts) {
	if v.shadow {
		st.counters.would[step].Inc()
	} else {
		st.counters.acted[step].Inc()
	}
	if step > Cache && x.Visitor.Class != stage.Anonymous {
		st.harmed[step].Add(1)
		st.counters.harmed[step].Inc()
	}
}

// note counts what became of a request.
func (s *Stage) note(x *stage.Exchange, m *local, resp *message.Response, err error) {
	st, status := m.site, 0
	switch {
	case err != nil:
		if errors.Is(err, stage.ErrFull) {
			st.full.Add(1)
			return
		}
		e := stage.AsError(err)
		if e.Side == stage.SideTenant {
			return // ours
		}
		status = e.Status
	default:
		status = resp.Status
		if x.Full != "" {
			st.full.Add(1)
		}
	}
	asked := x.Tries > 0
	if asked {
		st.asked.Add(1)
		st.took.Add(uint64(max(0, x.Now().Sub(x.Start))))
	}
	st.now[onOutcome][outcomeCell(status, asked)].Add(1)
}

// gate is the stage below the cache, where a request is known to cost something.
type gate struct{ stage *Stage }

// Gate is a step of its own, below the cache: suspects that nothing stored answers are challenged or limited there.
func (s *Stage) Gate() stage.Stage { return &s.gate }

// Name implements stage.Stage.
func (g *gate) Name() string { return name }

// Serve implements stage.Stage.
func (g *gate) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	if !x.Measures.Suspect {
		return next.Serve(ctx, x)
	}
	s := g.stage
	m := s.memory(x)
	if m.v.step == Drop {
		if resp, err := s.drop(x, m, s.tick.Load()); resp != nil || err != nil {
			return resp, err
		}
	}
	if m.v.challenge && s.cfg.Challenger != nil && !s.cfg.Challenger.Passed(x) {
		if resp := s.cfg.Challenger.Challenge(x, 0); resp != nil {
			m.site.act(x, Challenge, m.v)
			x.MarkDetail(name, codes[Challenge], m.v.why)
			return resp, nil
		}
	}
	if m.v.step >= Limit && !s.within(x, m) {
		if resp, err := s.refuse(x, m, Limit); resp != nil || err != nil {
			return resp, err
		}
	}
	return next.Serve(ctx, x)
}

// Salts keep the limits' records apart from those of how sources behave.
const (
	addressSalt = 0x9ddfea08eb382d69
	groupSalt   = 0xc3a5c85c97cb3127
)

// within says whether a suspect is within the limits of its address, its network and its browser.
func (s *Stage) within(x *stage.Exchange, m *local) bool {
	pt, n := x.Site.Parts[s.cfg.Slot].(*part), s.tick.Load()
	p := pt.policy
	// A visitor as a whole, for ten seconds: no visit is completed if one request in ten is refused at random.
	if mix(m.traits.source^uint64(n/20)) > m.v.fair[m.traits.cell[onAgent]] {
		return false
	}
	return s.sources.take(mix(m.traits.source^addressSalt), n, p.addressR, 8) &&
		s.sources.take(mix(m.traits.group^groupSalt), n, p.groupR, 40)
}

// hashKey hashes a site's key.
func hashKey(seed maphash.Seed, key string) uint64 { return mix(maphash.String(seed, key)) }
