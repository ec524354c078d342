package stage

import (
	"fmt"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
)

// Policies makes the policies that a site's routes name, each once: of tells the name that a route has, kind what is named, and
// compile makes a policy of its document. Routes has that of each route, nil where it names none. An error names the site and the
// policy.
func Policies[S, P any](site *snapshot.Site, kind v1.Kind, of func(*v1.Route) string, specs map[string]*S, compile func(name string, spec *S) (*P, error)) (routes []*P, named map[string]*P, err error) {
	routes, named = make([]*P, len(site.Routes)), map[string]*P{}
	for i := range site.Routes {
		name := of(site.Routes[i].Spec)
		if name == "" {
			continue
		}
		p := named[name]
		if p == nil {
			spec := specs[name]
			if spec == nil {
				return nil, nil, fmt.Errorf("site %s, route %s names %s %s, which the bundle does not hold", site.Key, site.Routes[i].Name, kind, name)
			}
			if p, err = compile(name, spec); err != nil {
				return nil, nil, fmt.Errorf("site %s: %s %s: %w", site.Key, kind, name, err)
			}
			named[name] = p
		}
		routes[i] = p
	}
	return routes, named, nil
}

// Series fills now with a site's counters of a family, one for each outcome, if it is used, and gives those back that the part
// before it had. What both have is not forgotten in between.
func Series(f *observe.Family[observe.Counter], site *snapshot.Site, outcomes []string, now []observe.Counter, used, before bool) {
	for i, o := range outcomes {
		if used {
			now[i] = f.With(string(site.Key), o)
		}
		if before {
			f.Forget(string(site.Key), o)
		}
	}
}
