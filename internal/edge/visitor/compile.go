package visitor

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/budget"
	"github.com/relais-edge/relais/internal/edge/seal"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// part is what the stage made of a site: the policy of each route, nil where there is none.
type part struct {
	routes  []*policy
	names   []string // of all its cookies, also of policies that are off
	headers []string // of all its tokens for programs
	hash    uint64   // of the site
	speaks  map[string]*atomic.Bool
	metrics [len(outcomes)]observe.Counter
}

// policy is a compiled VisitorPolicy. It does not change.
type policy struct {
	gate      stage.Gate
	cookie    string
	header    string // for programs without cookies
	funnel    string // in which the origin says how far the visitor is
	codec     *codec
	steps     [stage.StepOrder + 1][]stage.Scope
	lifetime  int64 // in seconds
	grace     int64 // in seconds
	tiers     []tier
	mint      [2]budget.Rate // of a source, by a path and by the origin's word
	mintNet   [2]budget.Rate // of its network
	credit    int
	callbacks []callback
	speaks    *atomic.Bool // the origin has used funnel; it outlives changes
}

// tier is a tier of one of the site's pools; a cookie holds its hash.
type tier struct {
	hash uint32
	name string
}

// step says which step x is; where several lists match it is the latest.
func (p *policy) step(x *stage.Exchange) stage.Step {
	for step := stage.StepOrder; step > stage.StepBrowse; step-- {
		for i := range p.steps[step] {
			if p.steps[step][i].HoldsAsSent(x) { // a step gives rights
				return step
			}
		}
	}
	return stage.StepBrowse
}

func (p *policy) tierName(hash uint32) string {
	if hash != 0 {
		for i := range p.tiers {
			if p.tiers[i].hash == hash {
				return p.tiers[i].name
			}
		}
	}
	return ""
}

// hashName hashes the name of a pool or tier; 0 only for no name.
func hashName(s string) uint32 {
	if s == "" {
		return 0
	}
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return max(h, 1)
}

// Compile implements stage.Compiler.
func (s *Stage) Compile(site *snapshot.Site, old stage.Part) (stage.Part, error) {
	before, _ := old.(*part)
	now := &part{routes: make([]*policy, len(site.Routes)), speaks: map[string]*atomic.Bool{}}
	for _, c := range []byte(site.Key) {
		now.hash = (now.hash ^ uint64(c)) * 0x100000001b3
	}
	named := map[string]*policy{}
	for i := range site.Routes {
		name := site.Routes[i].Spec.Visitor
		if name == "" {
			continue
		}
		p := named[name]
		if p == nil {
			spec := site.Spec.Visitors[name]
			if spec == nil {
				return nil, fmt.Errorf("visitor: site %s, route %s names VisitorPolicy %s, which the bundle does not hold", site.Key, site.Routes[i].Name, name)
			}
			var err error
			if p, err = s.compile(site, spec); err != nil {
				return nil, fmt.Errorf("visitor: site %s: VisitorPolicy %s: %w", site.Key, name, err)
			}
			named[name] = p
			if before != nil {
				p.speaks = before.speaks[name]
			}
			if p.speaks == nil {
				p.speaks = &atomic.Bool{}
			}
			now.speaks[name] = p.speaks
			if !slices.Contains(now.names, p.cookie) {
				now.names = append(now.names, p.cookie)
			}
			if p.header != "" && !slices.Contains(now.headers, p.header) {
				now.headers = append(now.headers, p.header)
			}
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

func (s *Stage) compile(site *snapshot.Site, spec *v1.VisitorPolicySpec) (*policy, error) {
	p := &policy{
		gate: stage.NewGate(spec.Protection), cookie: spec.Cookie, header: spec.Header, funnel: spec.OriginHeader,
		lifetime: int64(spec.Lifetime.Std().Seconds()), grace: int64(v1.Value(spec.Grace).Std().Seconds()),
		tiers: tiers(site.Spec), credit: v1.Value(spec.Minting.OrderCredit),
	}
	p.steps[stage.StepBasket], p.steps[stage.StepCheckout], p.steps[stage.StepOrder] = scopes(spec.Basket), scopes(spec.Checkout), scopes(spec.Ordered)
	for i, n := range [...]int{spec.Minting.PerMinute, spec.Minting.ConfirmedPerMinute} {
		p.mint[i], p.mintNet[i] = budget.PerMinute(n), budget.PerMinute(n*networkShare)
	}
	if p.cookie == "" {
		return nil, errors.New("cookie has no name")
	}
	if p.lifetime < 1 {
		return nil, fmt.Errorf("lifetime is %s; write at least 1m", spec.Lifetime)
	}
	secrets, err := s.secretsOf(spec)
	if err != nil {
		return nil, err
	}
	p.codec = newCodec(string(site.Key), p.cookie, secrets...)
	for i := range spec.Callbacks {
		c, err := newCallback(&spec.Callbacks[i])
		if err != nil {
			return nil, fmt.Errorf("callbacks[%d]: %w", i, err)
		}
		p.callbacks = append(p.callbacks, c)
	}
	return p, nil
}

// networkShare is how many times as many baskets as a source its network gets.
const networkShare = 4

// secretsOf are the secrets of a policy, of which the first signs.
func (s *Stage) secretsOf(spec *v1.VisitorPolicySpec) ([][]byte, error) {
	if spec.Secret == "" {
		if s.secrets == nil {
			return nil, errors.New("secret is missing, and this edge has no directory to keep one in; give at least 16 bytes")
		}
		return s.secrets.Secrets("visitor")
	}
	var list [][]byte
	for _, t := range append([]string{spec.Secret}, spec.PreviousSecrets...) {
		if len(t) < seal.MinSecret {
			return nil, fmt.Errorf("secret has %d bytes; give at least %d", len(t), seal.MinSecret)
		}
		list = append(list, []byte(t))
	}
	return list, nil
}

func scopes(list []v1.StageMatch) []stage.Scope {
	var out []stage.Scope
	for i := range list {
		methods := list[i].Methods
		if len(methods) == 0 {
			methods = []string{"POST"}
		}
		out = append(out, stage.NewScope(list[i].Path, methods))
	}
	return out
}

// tiers lists the names of the tiers of all pools.
func tiers(site *bundle.Site) (out []tier) {
	for _, p := range site.Pools {
		for i := range p.Tiers {
			n := p.Tiers[i].Name
			if n != "" && !slices.ContainsFunc(out, func(t tier) bool { return t.name == n }) {
				out = append(out, tier{hashName(n), n})
			}
		}
	}
	return out
}
