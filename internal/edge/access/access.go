package access

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"runtime"
	"sync"
	"weak"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// maxSeries bounds the series of the stage's counter: three for each site.
const maxSeries = 30_000

var errDenied = &stage.Error{Code: "http_request_denied", Side: stage.SideTenant, Status: 403}

// Stage is the access stage.
type Stage struct {
	slot    stage.Slot
	places  Places
	report  func(msg string, args ...any)
	counter *observe.Family[observe.Counter]

	mu sync.Mutex
	// shared finds the policy that another site made of the same specification.
	shared map[*v1.AccessPolicySpec]weak.Pointer[policy]
}

// Places says where addresses are; *geo.Places is one.
type Places interface {
	// Find gives the country as two letters, empty when it is not known, and the number of the autonomous system,
	// 0 when it is not known.
	Find(a netip.Addr) (country string, asn uint32)
}

// Config is what does not depend on a site.
type Config struct {
	Slot stage.Slot
	// Places is nil without a database: no address is in any country then.
	Places Places
	// Report is told of policies that ask for places where there is no database; nil for nobody.
	Report func(msg string, args ...any)
}

// New returns the stage. Its metric is relais_access_requests_total by site and outcome
// (pass, deny, would-deny).
func New(cfg Config, r *observe.Registry) *Stage {
	if cfg.Report == nil {
		cfg.Report = func(string, ...any) {}
	}
	return &Stage{
		slot: cfg.Slot, places: cfg.Places, report: cfg.Report,
		counter: r.Counters("relais_access_requests_total",
			"Requests that an access policy judged, by what became of them.", maxSeries, "site", "outcome"),
		shared: map[*v1.AccessPolicySpec]weak.Pointer[policy]{},
	}
}

// Name implements stage.Stage.
func (s *Stage) Name() string { return "access" }

// part is what the stage made of a site: the policy of each route, nil where there is none.
type part struct {
	routes  []*policy
	named   map[string]*policy
	specs   map[string]*v1.AccessPolicySpec // what they were made of
	metrics [len(outcomes)]observe.Counter
}

const (
	pass = iota
	deny
	wouldDeny
)

var outcomes = [...]string{"pass", "deny", "would-deny"}

// Compile implements stage.Compiler. A policy that did not change is taken from old.
func (s *Stage) Compile(site *snapshot.Site, old stage.Part) (stage.Part, error) {
	before, _ := old.(*part)
	now := &part{specs: site.Spec.Access}
	var err error
	now.routes, now.named, err = stage.Policies(site, v1.KindAccessPolicy, func(r *v1.Route) string { return r.Access }, site.Spec.Access,
		func(name string, spec *v1.AccessPolicySpec) (*policy, error) { return s.find(name, spec, before) })
	if err != nil {
		return nil, fmt.Errorf("access: %w", err)
	}
	used := len(now.named) > 0
	stage.Series(s.counter, site, outcomes[:], now.metrics[:], used, before != nil)
	if !used {
		return nil, nil
	}
	return now, nil
}

func (s *Stage) find(name string, spec *v1.AccessPolicySpec, before *part) (*policy, error) {
	if before != nil && before.named[name] != nil {
		if was := before.specs[name]; was == spec || reflect.DeepEqual(was, spec) {
			return before.named[name], nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.shared[spec].Value(); p != nil {
		return p, nil
	}
	p, err := compile(name, spec)
	if err != nil {
		return nil, err
	}
	if p.places && s.places == nil {
		s.report("an AccessPolicy names countries or asns, and there is no database: no address is in any; give relais serve --geoip FILE", "policy", name)
	}
	s.shared[spec] = weak.Make(p)
	runtime.AddCleanup(p, s.forget, spec)
	return p, nil
}

// forget drops a policy that nothing uses any more.
func (s *Stage) forget(spec *v1.AccessPolicySpec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shared[spec].Value() == nil {
		delete(s.shared, spec)
	}
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
	rule := p.decide(x, s.places)
	outcome := pass
	if p.deny[rule] {
		outcome = deny
		if mode == v1.ModeShadow {
			outcome = wouldDeny
		}
	}
	pt.metrics[outcome].Inc()
	x.MarkDetail("access", outcomes[outcome], p.details[rule])
	if outcome == deny {
		return nil, errDenied
	}
	return next.Serve(ctx, x)
}
