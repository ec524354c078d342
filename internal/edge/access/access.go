package access

import (
	"context"
	"fmt"
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
	counter *observe.Family[observe.Counter]

	mu sync.Mutex
	// shared finds the policy that another site made of the same specification.
	shared map[*v1.AccessPolicySpec]weak.Pointer[policy]
}

// New returns the stage. Its metric is relais_access_requests_total by site and outcome
// (pass, deny, would-deny).
func New(slot stage.Slot, r *observe.Registry) *Stage {
	return &Stage{
		slot: slot,
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
	named   map[string]named
	metrics [len(outcomes)]observe.Counter
}

type named struct {
	spec   *v1.AccessPolicySpec
	policy *policy
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
	now := &part{routes: make([]*policy, len(site.Routes)), named: map[string]named{}}
	for i := range site.Routes {
		name := site.Routes[i].Spec.Access
		if name == "" {
			continue
		}
		n, ok := now.named[name]
		if !ok {
			spec := site.Spec.Access[name]
			if spec == nil {
				return nil, fmt.Errorf("access: site %s, route %s names AccessPolicy %s, which the bundle does not hold", site.Key, site.Routes[i].Name, name)
			}
			p, err := s.find(name, spec, before)
			if err != nil {
				return nil, fmt.Errorf("access: site %s: %w", site.Key, err)
			}
			n = named{spec, p}
			now.named[name] = n
		}
		now.routes[i] = n.policy
	}
	used := len(now.named) > 0
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

func (s *Stage) find(name string, spec *v1.AccessPolicySpec, before *part) (*policy, error) {
	if before != nil {
		if o, ok := before.named[name]; ok && (o.spec == spec || reflect.DeepEqual(o.spec, spec)) {
			return o.policy, nil
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
	rule := p.decide(x)
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
