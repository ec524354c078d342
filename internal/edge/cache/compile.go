package cache

import (
	"cmp"
	"errors"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/edge/cache/store"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// part is what the stage makes of a site.
type part struct {
	routes []*rule // by the route's index; nil where nothing is stored
	keyers []*keyer
	mark   *purge.Mark
	site   *siteState
}

// rule is a CachePolicy as it runs.
type rule struct {
	semantics.Policy
	*keyer
	maxObject int64
	guarded   bool
	tellsKey  bool // in Cache-Status
	showTags  bool // to visitors
	mark      *purge.Mark
	site      *siteState
	name      string
	org       *store.Org
	purge     *purgeGuard // nil where nobody may use PURGE
	detours   []detour
	normal    normal
	cookies   []string // of the key
	learned   *learned // nil where nothing is
	// careful is Policy for paths that servers may read in different ways.
	careful semantics.Policy
	watched bool // when answers leave is noted
}

// targetsOf is the target list of a policy (RFC 9213 section 2.2).
func targetsOf(names []string) []semantics.Target {
	if len(names) == 0 {
		return []semantics.Target{semantics.NewTarget("CDN-Cache-Control")}
	}
	list := make([]semantics.Target, 0, len(names))
	for _, n := range names {
		list = append(list, semantics.NewTarget(n))
	}
	return list
}

// Compile implements stage.Compiler. What is stored is the stage's own and outlives sites.
func (s *Stage) Compile(site *snapshot.Site, _ stage.Part) (stage.Part, error) {
	p := &part{routes: make([]*rule, len(site.Routes)), mark: s.purges.Mark(string(site.Key)), site: s.sites.of(string(site.Key))}
	rules := map[string]*rule{}
	for i := range site.Routes {
		name := site.Routes[i].Spec.Cache
		if name == "" {
			continue
		}
		r := rules[name]
		if r == nil {
			spec := site.Spec.Caches[name]
			if spec == nil {
				return nil, errors.New("route " + site.Routes[i].Name + ": CachePolicy " + name + " is not in the site's bundle")
			}
			r = s.newRule(spec)
			org, _ := site.Key.Split()
			r.mark, r.site, r.name, r.org = p.mark, p.site, name, s.bound(s.tiers.Org(org))
			if r.learned = s.learner.of(string(site.Key), name, s.cfg.Clock(), p.site); r.learned != nil {
				r.learned.key.Store(&spec.Key)
			}
			rules[name] = r
			p.addKeyer(r.keyer)
		}
		p.routes[i] = r
	}
	if len(rules) == 0 {
		return nil, nil
	}
	return p, nil
}

func (s *Stage) newRule(spec *v1.CachePolicySpec) *rule {
	r := &rule{
		Policy: semantics.Policy{
			DefaultTTL: spec.DefaultTTL.Std(), MaxTTL: spec.MaxTTL.Std(),
			WhileRevalidate: spec.StaleWhileRevalidate.Std(), IfError: spec.StaleIfError.Std(),
			CookiesByAnyLifetime: spec.SetCookie == "standard", Disconnected: spec.StaleDisconnected.Std(),
			Targets: targetsOf(spec.TargetedFields),
		},
		guarded:   spec.Guard != "off",
		tellsKey:  spec.StatusKey,
		showTags:  spec.Tags == "show",
		purge:     newPurgeGuard(spec.Purge),
		detours:   newDetours(spec.Bypass),
		normal:    newNormal(&spec.Key),
		cookies:   spec.Key.Cookies,
		watched:   spec.Feed != nil && s.cfg.Witness != nil,
		keyer:     newKeyer(&spec.Key),
		maxObject: min(int64(cmp.Or(spec.MaxObject, 64<<20)), s.maxBody),
	}
	r.careful = r.Policy
	r.careful.ExplicitOnly = r.guarded
	return r
}

func (p *part) addKeyer(k *keyer) {
	for _, o := range p.keyers {
		if o.sameKeys(k) {
			return
		}
	}
	p.keyers = append(p.keyers, k)
}
