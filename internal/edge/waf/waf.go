package waf

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// maxSeries bounds the series of the stage's counter: one for each outcome of a site.
const maxSeries = 80_000

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
}

// The errors of the stage.
var (
	errDenied     = &stage.Error{Code: "http_request_denied", Side: stage.SideTenant, Status: 403}
	errTooLarge   = &stage.Error{Code: "http_request_denied", Side: stage.SideTenant, Status: 413, Err: errors.New("the body is longer than the WafPolicy's bodyBytes")}
	errOverloaded = &stage.Error{Code: "waf_overloaded", Side: stage.SideEdge, Status: 503, RetryAfter: time.Second}
	errFailed     = &stage.Error{Code: "waf_failed", Side: stage.SideEdge, Status: 503, RetryAfter: time.Second}
)

// Stage is the firewall stage.
type Stage struct {
	slot    stage.Slot
	cfg     Config
	counter *observe.Family[observe.Counter]
	seconds observe.Histogram
	bodies  bodies
	common  chan struct{} // places for everybody
	basket  chan struct{} // places for visitors with a basket
	heavy   chan struct{} // leave to take a place with a heavy body: half the CPUs

	mu     sync.Mutex
	engine *engine
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
	s := &Stage{
		slot: slot,
		cfg:  cfg,
		counter: r.Counters("relais_waf_requests_total",
			"Requests under a WAF policy, by what became of them.", maxSeries, "site", "outcome"),
		seconds: r.Histograms("relais_waf_seconds", "Time of an evaluation, without reading the body and waiting for a place.", 1,
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}).With(),
		common: make(chan struct{}, cfg.Concurrent),
		basket: make(chan struct{}, cfg.Concurrent),
		heavy:  make(chan struct{}, max(1, min(cfg.Concurrent, runtime.GOMAXPROCS(0)/2))),
	}
	s.bodies.limit = cfg.BodyMemory
	return s
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
)

var outcomes = [...]string{"pass", "excluded", "would-deny", "deny", "oversize", "overloaded", "failed"}

// part is what the stage made of a site: the policy of each route, nil where there is none.
type part struct {
	engine  *engine
	routes  []*policy
	metrics [len(outcomes)]observe.Counter
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

// rules returns the engine, compiled at the first call.
func (s *Stage) rules() (*engine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine == nil {
		e, err := newEngine()
		if err != nil {
			return nil, fmt.Errorf("waf: %w", err)
		}
		s.engine = e
	}
	return s.engine, nil
}

// Compile implements stage.Compiler.
func (s *Stage) Compile(site *snapshot.Site, old stage.Part) (stage.Part, error) {
	before, _ := old.(*part)
	now := &part{routes: make([]*policy, len(site.Routes))}
	named := map[string]*policy{}
	for i := range site.Routes {
		name := site.Routes[i].Spec.WAF
		if name == "" {
			continue
		}
		p, ok := named[name]
		if !ok {
			spec := site.Spec.WAF[name]
			if spec == nil {
				return nil, fmt.Errorf("waf: site %s, route %s names WafPolicy %s, which the bundle does not hold", site.Key, site.Routes[i].Name, name)
			}
			var err error
			if now.engine, err = s.rules(); err != nil {
				return nil, err
			}
			if p, err = now.engine.compile(spec); err != nil {
				return nil, fmt.Errorf("waf: site %s: WafPolicy %s: %w", site.Key, name, err)
			}
			named[name] = p
		}
		now.routes[i] = p
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

// Serve implements stage.Stage.
func (s *Stage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	pt, _ := x.Site.Parts[s.slot].(*part)
	if pt == nil {
		return next.Serve(ctx, x)
	}
	p := pt.routes[x.Route.Index]
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
	x.MayBlock()
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
	body, cut, err := s.read(ctx, p, x, basket)
	switch {
	case err == errTooLarge:
		return oversize, "the body is longer than " + v1.Size(p.bodyBytes).String(), err
	case err == errMemory:
		return overloaded, "no memory for bodies", errOverloaded
	case err != nil:
		return pass, "", err
	}
	at, ok := s.enter(ctx, wait, basket, len(body) >= heavy)
	if !ok {
		if err := ctx.Err(); err != nil {
			return pass, "", err
		}
		if basket {
			return overloaded, "no place for an evaluation; a visitor with a basket passes", nil
		}
		return overloaded, "no place for an evaluation", errOverloaded
	}
	start := x.Lap()
	v, err := pt.engine.evaluate(p, x, body, cut)
	at.leave()
	s.seconds.Observe((x.Lap() - start).Seconds())
	switch {
	case err != nil && basket:
		return failed, err.Error() + "; a visitor with a basket passes", nil
	case err != nil:
		return failed, err.Error(), errFailed
	case v.deny:
		return deny, v.detail, errDenied
	}
	return pass, v.detail, nil
}

// place is leave to evaluate: what is given back after it.
type place struct{ general, heavy <-chan struct{} }

func (p place) leave() {
	<-p.general
	if p.heavy != nil {
		<-p.heavy
	}
}

// enter waits for a place; ok is false when there was none in time.
func (s *Stage) enter(ctx context.Context, wait time.Duration, basket, big bool) (p place, ok bool) {
	if !big {
		select {
		case s.common <- struct{}{}:
			return place{general: s.common}, true
		default:
		}
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	if big {
		select {
		case s.heavy <- struct{}{}:
			p.heavy = s.heavy
		case <-t.C:
			return place{}, false
		case <-ctx.Done():
			return place{}, false
		}
	}
	var own chan struct{} // nil: never ready
	if basket {
		own = s.basket
	}
	select {
	case s.common <- struct{}{}:
		p.general = s.common
		return p, true
	case own <- struct{}{}:
		p.general = own
		return p, true
	case <-t.C:
	case <-ctx.Done():
	}
	if big {
		<-s.heavy
	}
	return place{}, false
}

// read takes from the body what is examined and puts one that replays it into x.In.
func (s *Stage) read(ctx context.Context, p *policy, x *stage.Exchange, basket bool) (body []byte, cut bool, err error) {
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
	r, err := s.bodies.read(ctx, in.Body, p.bodyBytes, basket)
	if r == nil {
		return nil, false, err
	}
	in.Body = r
	x.OnEnd(r)
	if err != nil {
		return nil, false, err
	}
	more := len(r.prefix) > p.bodyBytes
	if more && p.reject {
		return nil, true, errTooLarge
	}
	body = r.prefix[:min(len(r.prefix), p.bodyBytes)]
	if textless(in.Get(message.ContentType)) {
		return nil, true, nil
	}
	return body, more, nil
}
