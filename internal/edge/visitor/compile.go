package visitor

import (
	"errors"
	"fmt"
	"slices"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// minSecret is the fewest bytes of a secret.
const minSecret = 16

// part is what the stage made of a site: the policy of each route, nil where there is none.
type part struct {
	routes  []*policy
	names   []string // of all its cookies, also of policies that are off
	hash    uint64   // of the site
	metrics [len(outcomes)]observe.Counter
}

// policy is a compiled VisitorPolicy. It does not change.
type policy struct {
	gate     stage.Gate
	cookie   string
	codec    *codec
	basket   []stage.Scope
	ordered  []stage.Scope
	lifetime int64 // in seconds
	grace    int64 // in seconds
	tiers    []tier
}

// tier is a tier of one of the site's pools; a cookie holds its hash.
type tier struct {
	hash uint32
	name string
}

// The steps towards an order that a request can be.
const (
	stepNone    = int(stage.StepBrowse)
	stepBasket  = int(stage.StepBasket)
	stepOrdered = int(stage.StepOrder)
)

// step says which step x is; where both lists match it is the later one.
func (p *policy) step(x *stage.Exchange) int {
	for i := range p.ordered {
		if p.ordered[i].Holds(x) {
			return stepOrdered
		}
	}
	for i := range p.basket {
		if p.basket[i].Holds(x) {
			return stepBasket
		}
	}
	return stepNone
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
	now := &part{routes: make([]*policy, len(site.Routes))}
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
			if p, err = s.compile(site, name, spec); err != nil {
				return nil, fmt.Errorf("visitor: site %s: VisitorPolicy %s: %w", site.Key, name, err)
			}
			named[name] = p
			if !slices.Contains(now.names, p.cookie) {
				now.names = append(now.names, p.cookie)
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

func (s *Stage) compile(site *snapshot.Site, name string, spec *v1.VisitorPolicySpec) (*policy, error) {
	p := &policy{
		gate:     stage.NewGate(spec.Protection),
		cookie:   spec.Cookie,
		basket:   scopes(spec.Basket),
		ordered:  scopes(spec.Ordered),
		lifetime: int64(spec.Lifetime.Std().Seconds()),
		grace:    int64(v1.Value(spec.Grace).Std().Seconds()),
		tiers:    tiers(site.Spec),
	}
	if p.cookie == "" {
		return nil, errors.New("cookie has no name")
	}
	if p.lifetime < 1 {
		return nil, fmt.Errorf("lifetime is %s; write at least 1m", spec.Lifetime)
	}
	secret := []byte(spec.Secret)
	if len(secret) == 0 {
		if s.secrets == nil {
			return nil, errors.New("secret is missing, and this edge has no directory to keep one in; give at least 16 bytes")
		}
		var err error
		if secret, err = s.secrets.Secret("visitor"); err != nil {
			return nil, err
		}
	}
	if len(secret) < minSecret {
		return nil, fmt.Errorf("secret has %d bytes; give at least %d", len(secret), minSecret)
	}
	p.codec = newCodec(secret, string(site.Key), p.cookie)
	return p, nil
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
