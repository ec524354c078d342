package compile

import (
	"cmp"
	"iter"
	"slices"
	"strconv"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// siteCompiler gathers what one site needs.
type siteCompiler struct {
	*compiler
	doc *v1.Site
	out *bundle.Site
}

// site compiles a site. Its routes are copies; what they point to is shared with the document.
func (c *compiler) site(d *v1.Site) *bundle.Site {
	s := siteCompiler{c, d, &bundle.Site{
		Key:       keyOf(d),
		Hostnames: d.Spec.Hostnames,
		Routes:    slices.Clone(d.Spec.Routes),
		HTTPS:     d.Spec.HTTPS, Maintenance: d.Spec.Maintenance, Challenge: d.Spec.Challenge, ErrorPages: d.Spec.ErrorPages,
	}}
	s.out.Listeners = s.listenerKeys(whole, d.Spec.Listeners)
	s.https()
	s.policies(whole, &d.Spec.Policies)
	if name := d.Spec.Flood; name != "" {
		if f, _, ok := resolve(c, c.floods, d, name, ref{whole, "flood", alone, ""}); ok {
			s.out.Flood = &f.Spec
		}
	}
	for i := range s.out.Routes {
		s.route(i, &s.out.Routes[i])
		s.loop(i, &s.out.Routes[i])
	}
	return s.out
}

func (s *siteCompiler) route(i int, r *v1.Route) {
	if r.Name == "" {
		r.Name = "route-" + strconv.Itoa(i+1)
	}
	s.policies(i, &r.Policies)
	inherit(&r.Policies, &s.doc.Spec.Policies)
	r.Compression = cmp.Or(r.Compression, s.doc.Spec.Compression)
	r.EarlyHints = cmp.Or(r.EarlyHints, s.doc.Spec.EarlyHints)
	if keys := s.listenerKeys(i, r.Listeners); len(keys) > 0 {
		r.Listeners = make([]string, len(keys))
		for j, k := range keys {
			r.Listeners[j] = string(k)
		}
	}
	pool := func(d *v1.OriginPool) *v1.OriginPoolSpec { return &d.Spec }
	use(s, &s.out.Pools, s.pools, r.Pool, ref{i, "pool", alone, ""}, pool)
	for j := range r.Pools {
		use(s, &s.out.Pools, s.pools, r.Pools[j].Pool, ref{i, "pools", j, ".pool"}, pool)
	}
	if r.Mirror != nil {
		use(s, &s.out.Pools, s.pools, r.Mirror.Pool, ref{i, "mirror", alone, ".pool"}, pool)
	}
}

// https finds the port to which requests in clear are sent: that of a TLS listener of the site, 443
// before others. Without such a listener TLS must be somewhere in front.
func (s *siteCompiler) https() {
	h := &s.out.HTTPS
	if !h.Redirect || h.Port != 0 {
		return
	}
	port := bundle.HTTPSPort(s.listenerSpecs(), s.out.Listeners)
	if port == 0 {
		s.problem(s.doc, "spec.https.redirect", "leads to https, and no listener with tls and a fixed port serves the site",
			"add a Listener with tls, or give https.port if TLS ends in front of the edge")
	}
	if !s.open {
		h.Port = port
	}
}

func (c *compiler) listenerSpecs() iter.Seq2[bundle.Key, *v1.ListenerSpec] {
	return func(yield func(bundle.Key, *v1.ListenerSpec) bool) {
		for key, d := range c.listenerDocs {
			if !yield(key, &d.Spec) {
				return
			}
		}
	}
}

// inherit gives a route the site's policies where it names none of its own. Rate limits add up.
func inherit(r, site *v1.Policies) {
	r.Access = cmp.Or(r.Access, site.Access)
	r.JWT = cmp.Or(r.JWT, site.JWT)
	r.API = cmp.Or(r.API, site.API)
	r.WAF = cmp.Or(r.WAF, site.WAF)
	r.Visitor = cmp.Or(r.Visitor, site.Visitor)
	r.WaitingRoom = cmp.Or(r.WaitingRoom, site.WaitingRoom)
	r.Bots = cmp.Or(r.Bots, site.Bots)
	r.Cache = cmp.Or(r.Cache, site.Cache)
	r.Images = cmp.Or(r.Images, site.Images)
	switch {
	case len(site.RateLimits) == 0:
	case len(r.RateLimits) == 0:
		r.RateLimits = site.RateLimits
	default:
		all := slices.Clone(site.RateLimits)
		for _, name := range r.RateLimits {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
		r.RateLimits = all
	}
}

func (s *siteCompiler) policies(route int, p *v1.Policies) {
	use(s, &s.out.Access, s.access, p.Access, ref{route, "access", alone, ""}, func(d *v1.AccessPolicy) *v1.AccessPolicySpec { return &d.Spec })
	use(s, &s.out.JWT, s.jwts, p.JWT, ref{route, "jwt", alone, ""}, func(d *v1.JwtPolicy) *v1.JwtPolicySpec { return &d.Spec })
	use(s, &s.out.API, s.apis, p.API, ref{route, "api", alone, ""}, func(d *v1.ApiPolicy) *v1.ApiPolicySpec { return &d.Spec })
	use(s, &s.out.WAF, s.wafs, p.WAF, ref{route, "waf", alone, ""}, func(d *v1.WafPolicy) *v1.WafPolicySpec { return &d.Spec })
	use(s, &s.out.Visitors, s.visitors, p.Visitor, ref{route, "visitor", alone, ""}, func(d *v1.VisitorPolicy) *v1.VisitorPolicySpec { return &d.Spec })
	use(s, &s.out.Rooms, s.rooms, p.WaitingRoom, ref{route, "waitingRoom", alone, ""}, func(d *v1.WaitingRoom) *v1.WaitingRoomSpec { return &d.Spec })
	use(s, &s.out.Bots, s.bots, p.Bots, ref{route, "bots", alone, ""}, func(d *v1.BotPolicy) *v1.BotPolicySpec { return &d.Spec })
	use(s, &s.out.Caches, s.caches, p.Cache, ref{route, "cache", alone, ""}, func(d *v1.CachePolicy) *v1.CachePolicySpec { return &d.Spec })
	use(s, &s.out.Images, s.images, p.Images, ref{route, "images", alone, ""}, func(d *v1.ImagePolicy) *v1.ImagePolicySpec { return &d.Spec })
	for j, name := range p.RateLimits {
		use(s, &s.out.RateLimits, s.rateLimits, name, ref{route, "rateLimits", j, ""}, func(d *v1.RateLimit) *v1.RateLimitSpec { return &d.Spec })
	}
}

// use puts the spec of a named document into one of the site's maps.
func use[T v1.Document, S any](s *siteCompiler, into *map[string]*S, t table[T], name string, at ref, spec func(T) *S) {
	if name == "" || (*into)[name] != nil {
		return
	}
	d, _, ok := resolve(s.compiler, t, s.doc, name, at)
	if !ok {
		return
	}
	if *into == nil {
		*into = make(map[string]*S, 1)
	}
	(*into)[name] = spec(d)
}

func (s *siteCompiler) listenerKeys(route int, names []string) []bundle.Key {
	var keys []bundle.Key
	for j, name := range names {
		if _, key, ok := resolve(s.compiler, s.listenerDocs, s.doc, name, ref{route, "listeners", j, ""}); ok {
			keys = append(keys, key)
		}
	}
	return keys
}
