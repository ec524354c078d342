package waf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/hold"
	"github.com/relais-edge/relais/internal/edge/waf/learn"
	"github.com/relais-edge/relais/internal/edge/waf/screen"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// maxSeries bounds the series of the stage's counter: one for each outcome of a site.
const maxSeries = 100_000

// heavy is the size of an examined body from which an evaluation takes tens of milliseconds and
// needs one of few places of its own, so that such bodies do not hold up everybody else.
const heavy = 4 << 10

// Config is what does not depend on a site. Zero fields have defaults.
type Config struct {
	// Concurrent is how many evaluations run at a time, and again as many for visitors with a
	// basket; 0 means four for each CPU.
	Concurrent int
	// Wait is how long a request waits for its evaluation, a hundred times as long as in mode
	// shadow; 0 means 5 s.
	Wait time.Duration
	// BodyMemory bounds the bytes of all bodies in memory; 0 means 256 MiB.
	BodyMemory int64
	// Burst is how much CPU time of evaluations a source may use at once; 0 means 5 s.
	Burst time.Duration
	// Sample is of how many requests that the screen proved clean one is evaluated all the same,
	// beside it; 0 means 10,000.
	Sample int
	// Logger is told of proofs that were wrong; nil for nobody.
	Logger *slog.Logger
	// ScreenMemory is for values whose answer the screen knows, at each paranoia level that is used; 0 means the
	// screen's own default, less than 0 that it remembers none.
	ScreenMemory int
}

// The errors of the stage.
var (
	errDenied     = &stage.Error{Code: "http_request_denied", Side: stage.SideTenant, Status: 403}
	errTooLarge   = &stage.Error{Code: "http_request_denied", Side: stage.SideTenant, Status: 413, Err: errors.New("the body is longer than the WafPolicy's bodyBytes")}
	errOverloaded = &stage.Error{Code: "waf_overloaded", Side: stage.SideEdge, Status: 503, RetryAfter: time.Second}
	errOverBudget = &stage.Error{Code: "waf_over_budget", Side: stage.SideClient, Status: 429, RetryAfter: 5 * time.Second}
	errOverCPU    = &stage.Error{Code: "waf_over_budget", Side: stage.SideTenant, Status: 503, RetryAfter: time.Second}
	errFailed     = &stage.Error{Code: "waf_failed", Side: stage.SideEdge, Status: 503, RetryAfter: time.Second}
)

// Stage is the firewall stage.
type Stage struct {
	slot    stage.Slot
	cfg     Config
	counter *observe.Family[observe.Counter]
	seconds observe.Histogram
	bodies  *hold.Bodies
	common  chan struct{} // places for everybody
	basket  chan struct{} // places for visitors with a basket
	heavy   chan struct{} // leave to take a place with a heavy body: half the CPUs
	sheets  sync.Pool     // of *sheet
	busy    chan struct{} // leave for sites that use much: half the places
	over    chan struct{} // leave for sources over their budget: half the CPUs
	lined   atomic.Int32  // who waits for that
	budgets *budgets
	samples chan *sample // requests that were proved clean, for Run
	doubted atomic.Pointer[[]Doubt]

	screens    [screenVerdicts]observe.Counter
	proofs     [len(proofOutcomes)]observe.Counter
	answers    [len(answerOutcomes)]observe.Counter
	unexamined [2]observe.Counter // for a basket, by onFailure
	book       *learn.Book
	compared   *observe.Family[observe.Counter] // by candidates

	mu         sync.Mutex
	engine     *engine
	candidates map[string][]*candidate // by site
}

// New returns the stage; the rules are compiled by Prepare or at the first Compile that needs
// them. Its metrics are relais_waf_requests_total by site and outcome and relais_waf_seconds,
// the time of an evaluation.
func New(slot stage.Slot, cfg Config, r *observe.Registry) *Stage {
	if cfg.Concurrent <= 0 {
		cfg.Concurrent = 4 * runtime.GOMAXPROCS(0)
	}
	if cfg.Wait <= 0 {
		cfg.Wait = 5 * time.Second
	}
	if cfg.BodyMemory <= 0 {
		cfg.BodyMemory = 256 << 20
	}
	if cfg.Sample <= 0 {
		cfg.Sample = defaultSample
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Stage{
		slot: slot,
		cfg:  cfg,
		counter: r.Counters("relais_waf_requests_total",
			"Requests under a WAF policy, by what became of them.", maxSeries, "site", "outcome"),
		seconds: r.Histograms("relais_waf_seconds", "Time of an evaluation, without reading the body and waiting for a place.", 1,
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}).With(),
		common:  make(chan struct{}, cfg.Concurrent),
		basket:  make(chan struct{}, cfg.Concurrent),
		heavy:   make(chan struct{}, max(1, min(cfg.Concurrent, runtime.GOMAXPROCS(0)/2))),
		busy:    make(chan struct{}, max(1, cfg.Concurrent/2)),
		over:    make(chan struct{}, max(1, min(cfg.Concurrent, runtime.GOMAXPROCS(0)/2))),
		samples: make(chan *sample, 1),
	}
	s.bodies = hold.New(cfg.BodyMemory, r.Counters("relais_waf_bodies_refused_total",
		"Bodies that were not kept whole, since all memory for them was used (memory), or an organization had its part of it (part).", 2, "why"))
	s.sheets.New = func() any { return &sheet{} }
	s.metrics(r)
	s.book = learn.New(r)
	return s
}

// metrics makes the counters that do not depend on a site.
func (s *Stage) metrics(r *observe.Registry) {
	screened := r.Counters("relais_waf_screen_total", "Requests by what the screen before the engine said of them; all but clean are the engine's.",
		len(s.screens), "verdict")
	for i := range screen.Reasons {
		s.screens[i] = screened.With(screen.Reason(i).String())
	}
	s.screens[screenOff], s.screens[screenFailed], s.screens[screenDoubted] = screened.With("off"), screened.With("failed"), screened.With("doubted")
	s.screens[screenVain] = screened.With("vain")
	proofs := r.Counters("relais_waf_proofs_total", "Requests that the screen proved clean and that were evaluated all the same, beside the request; one that is wrong switches the screen off where the rule is in force.",
		len(s.proofs), "outcome")
	for i, o := range proofOutcomes {
		s.proofs[i] = proofs.With(o)
	}
	r.GaugeFunc("relais_waf_doubted_rules", "Rules of which a proof of the screen was wrong.", func() float64 { return float64(len(s.Doubts())) })
	passed := r.Counters("relais_waf_unexamined_total", "Requests that could not be judged and passed, by why.", len(s.unexamined), "why")
	s.unexamined[0], s.unexamined[1] = passed.With("basket"), passed.With("policy")
	s.compared = r.Counters("relais_waf_candidate_total",
		"Requests that a policy's candidate judged as well, by what it would have done otherwise.", maxSeries, "site", "result")
	s.candidates = map[string][]*candidate{}
	s.answerMetrics(r)
	s.budgets = newBudgets(s.cfg.Burst, r.Counters("relais_waf_budget_lost_total", "Sources whose use of evaluations was forgotten for another's.", 1).With())
}

// Name implements stage.Stage.
func (s *Stage) Name() string { return "waf" }

const (
	pass = iota
	excluded
	wouldDeny
	deny
	oversize
	overloaded
	failed
	demoted
	overBudget
	overCPU
)

var outcomes = [...]string{"pass", "excluded", "would-deny", "deny", "oversize", "overloaded", "failed", "demoted", "over-budget", "over-cpu"}

// detailOverCPU is the detail of a request or an answer that is not evaluated because its site used up its CPU time.
const detailOverCPU = "this site has used up the CPU time that its policy has for evaluations"

// part is what the stage made of a site: the policy of each route, nil where there is none.
type part struct {
	engine  *engine
	routes  []*policy
	metrics [len(outcomes)]observe.Counter
	results [len(comparisons)]observe.Counter // of candidates
	bodies  *hold.Account
	memory  *learn.Site // nil when no policy learns
}

// Prepare compiles the rules when a site of b needs them, so that no first request waits for
// that. Call it before b is served.
func (s *Stage) Prepare(ctx context.Context, b *bundle.Bundle) error {
	for _, site := range b.Sites {
		for _, p := range site.WAF {
			if p.Mode == v1.ModeOff {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			_, err := s.rules()
			return err
		}
	}
	return nil
}

// Sweep forgets what was learned of sites that are not in b. Call it once b is served.
func (s *Stage) Sweep(b *bundle.Bundle) {
	keys := make(map[string]bool, len(b.Sites))
	for _, site := range b.Sites {
		keys[string(site.Key)] = true
	}
	s.book.Forget(func(key string) bool { return keys[key] })
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.candidates, func(key string, _ []*candidate) bool { return !keys[key] })
}

// rules returns the engine, compiled at the first call.
func (s *Stage) rules() (*engine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine == nil {
		e, err := newEngine()
		if err != nil {
			return nil, fmt.Errorf("waf: %w", err)
		}
		e.memory = s.cfg.ScreenMemory
		s.engine = e
	}
	return s.engine, nil
}

// Compile implements stage.Compiler.
func (s *Stage) Compile(site *snapshot.Site, old stage.Part) (stage.Part, error) {
	before, _ := old.(*part)
	organization, _ := site.Key.Split()
	now := &part{bodies: s.bodies.Account(organization)}
	routes, named, err := stage.Policies(site, v1.KindWafPolicy, func(r *v1.Route) string { return r.WAF }, site.Spec.WAF,
		func(name string, spec *v1.WafPolicySpec) (p *policy, err error) {
			if now.engine, err = s.rules(); err != nil {
				return nil, err
			}
			if p, err = now.engine.compile(spec); err != nil {
				return nil, err
			}
			p.name = name
			p.spent = before.spentBy(name)
			p.candidate.follow(p, before.candidateOf(name))
			if p.learning.on && now.memory == nil {
				now.memory = s.book.Site(string(site.Key))
			}
			return p, nil
		})
	if err != nil {
		return nil, fmt.Errorf("waf: %w", err)
	}
	now.routes = routes
	s.keep(site, before, now, named)
	used := len(named) > 0
	stage.Series(s.counter, site, outcomes[:], now.metrics[:], used, before != nil)
	if !used {
		return nil, nil
	}
	return now, nil
}

// spentBy is the account of a policy, which outlives a change of the documents.
func (pt *part) spentBy(name string) *spent {
	if pt != nil {
		for _, p := range pt.routes {
			if p != nil && p.name == name {
				return p.spent
			}
		}
	}
	return new(spent)
}

// Serve implements stage.Stage.
func (s *Stage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	pt, _ := x.Site.Parts[s.slot].(*part)
	if pt == nil {
		return next.Serve(ctx, x)
	}
	r, err := s.serve(ctx, pt, x, next)
	if x.Visitor.Step == stage.StepOrder && r != nil {
		pt.ordered(x, r)
	}
	return r, err
}

func (s *Stage) serve(ctx context.Context, pt *part, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	p := pt.policy(x)
	if p == nil {
		return next.Serve(ctx, x)
	}
	mode := p.gate.Mode(x)
	if mode == v1.ModeOff {
		return next.Serve(ctx, x)
	}
	if p.excluded(x) {
		pt.count(x, excluded, "an exclusion without rules and target holds")
		return next.Serve(ctx, x)
	}
	wait := s.cfg.Wait
	if mode == v1.ModeShadow {
		wait /= 100 // who only watches holds nobody up
	}
	outcome, detail, err := s.judge(ctx, pt, p, x, wait)
	if err != nil && outcome == pass { // the body failed: not our verdict
		return nil, err
	}
	if err != nil && mode == v1.ModeShadow {
		if outcome == deny || outcome == oversize {
			outcome = wouldDeny
		}
		err = nil
	}
	pt.count(x, outcome, detail)
	if err != nil {
		return nil, err
	}
	return next.Serve(ctx, x)
}

func (pt *part) count(x *stage.Exchange, outcome int, detail string) {
	pt.metrics[outcome].Inc()
	x.MarkDetail("waf", outcomes[outcome], detail)
}

// judge reads what is examined of the body and evaluates the request. An error refuses the
// request; with outcome pass it is the body's own.
func (s *Stage) judge(ctx context.Context, pt *part, p *policy, x *stage.Exchange, wait time.Duration) (outcome int, detail string, err error) {
	basket := x.Visitor.Class == stage.Protected
	waits := x.In.Body != nil
	if waits {
		x.MayBlock()
	}
	body, cut, err := pt.read(ctx, p, x, basket)
	switch {
	case err == errTooLarge:
		return oversize, "the body is longer than " + v1.Size(p.bodyBytes).String(), err
	case errors.Is(err, hold.ErrMemory):
		return s.unjudged(&question{policy: p, x: x}, overloaded, err.Error(), errOverloaded)
	case err != nil:
		return pass, "", err
	}
	r := s.sheets.Get().(*sheet)
	defer s.put(r)
	r.fill(x, body, cut)
	if len(p.rules) > 0 {
		if own, err := p.asked(x, r, false); err != nil {
			return s.unjudged(&question{policy: p, x: x}, failed, err.Error(), errFailed)
		} else if own != nil {
			x.Lap()
			x.MarkDetail("waf", "policy", p.name+", revision "+p.revision)
			if p.candidate.chosen(x) {
				s.compare(&question{part: pt, policy: p, x: x, sheet: r, cut: cut}, &opinion{deny: true, rules: []string{own.name}})
			}
			return deny, "rule " + own.name + " of the policy's own", errDenied
		}
	}
	clean, vain := s.clean(p, x, r)
	if clean {
		s.sample(pt, p, x, r, cut)
		if p.candidate.chosen(x) {
			s.compare(&question{part: pt, policy: p, x: x, sheet: r, cut: cut}, &opinion{})
		}
		return pass, "", nil
	}
	if !waits {
		x.MayBlock()
	}
	q := &question{part: pt, policy: p, x: x, sheet: r, cut: cut, wait: wait, vain: vain}
	outcome, detail, err = s.ask(ctx, q)
	if (outcome == deny || outcome == demoted || outcome == pass && err == nil) && p.candidate.chosen(x) {
		s.compare(q, opinionOf(&q.verdict))
	}
	return outcome, detail, err
}

// ask has the engine evaluate a request, once there is a place for it.
func (s *Stage) ask(ctx context.Context, q *question) (outcome int, detail string, err error) {
	x, basket := q.x, q.x.Visitor.Class == stage.Protected
	w := want{wait: q.wait, basket: basket, big: len(q.sheet.Body) >= heavy}
	counts := !basket && !x.Replayed()
	var source uint64
	if counts {
		source = s.budgets.source(x.Client)
		w.over = s.budgets.over(source, s.budgets.now())
	}
	if counts && q.policy.spent.over(s.budgets.now(), q.policy.cpu) {
		if q.policy.bounded {
			return s.unjudged(q, overCPU, detailOverCPU, errOverCPU)
		}
		w.busy = true
	}
	at, outcome := s.enter(ctx, w)
	switch {
	case outcome != pass && ctx.Err() != nil:
		return pass, "", ctx.Err()
	case outcome == overBudget:
		return s.unjudged(q, overBudget, "this client's address has used up its share of evaluations", errOverBudget)
	case outcome != pass:
		return s.unjudged(q, overloaded, "no place for an evaluation", errOverloaded)
	}
	start := x.Lap()
	v, used, err := q.judged()
	q.verdict = v
	at.leave()
	now := s.budgets.now()
	if counts {
		s.budgets.use(source, now, used)
	}
	q.policy.spent.use(now, used, q.policy.cpu)
	s.seconds.Observe((x.Lap() - start).Seconds())
	switch {
	case err != nil:
		return s.unjudged(q, failed, err.Error(), errFailed)
	case v.deny:
		return deny, v.detail, errDenied
	case v.demoted:
		return demoted, v.detail, nil
	}
	return pass, v.detail, nil
}

func (s *Stage) put(r *sheet) {
	r.clear()
	s.sheets.Put(r)
}

// read takes from the body what is examined and puts one that replays it into x.In.
func (pt *part) read(ctx context.Context, p *policy, x *stage.Exchange, basket bool) (body []byte, cut bool, err error) {
	in := x.In
	if in.Body == nil || in.ContentLength == 0 || in.Has(message.Upgrade) || in.Method == message.CONNECT {
		return nil, false, nil
	}
	if message.IsGRPC(&in.Fields) && in.Proto >= message.HTTP2 {
		return nil, true, nil // both sides talk at once: to hold it would be to stop it
	}
	if p.reject && in.ContentLength > int64(p.bodyBytes) {
		return nil, true, errTooLarge
	}
	if !p.reject && (p.bodyBytes == 0 || textless(in.Get(message.ContentType))) {
		return nil, true, nil
	}
	r, err := pt.bodies.Read(ctx, in.Body, p.bodyBytes, basket)
	if r == nil {
		return nil, false, err
	}
	in.Body = r
	x.OnEnd(r)
	if err != nil {
		return nil, false, err
	}
	held, _ := r.Held()
	more := len(held) > p.bodyBytes
	if more && p.reject {
		return nil, true, errTooLarge
	}
	body = held[:min(len(held), p.bodyBytes)]
	if textless(in.Get(message.ContentType)) {
		return nil, true, nil
	}
	return body, more, nil
}
