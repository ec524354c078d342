package compile

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// loop is an origin of a pool at which one of the edge's own listeners receives.
type loop struct {
	address, tier string
	listener      bundle.Key
}

// loops finds those of a pool, once for all sites that name it.
func (c *compiler) loops(p *v1.OriginPoolSpec) []loop {
	if found, ok := c.looped[p]; ok {
		return found
	}
	if c.looped == nil {
		c.looped = map[*v1.OriginPoolSpec][]loop{}
	}
	var found []loop
	for i := range p.Tiers {
		for j := range p.Tiers[i].Origins {
			address := p.Tiers[i].Origins[j].Address
			for key, d := range c.listenerDocs {
				if receives(d.Spec.Address, address) {
					found = append(found, loop{address, p.Tiers[i].Name, key})
				}
			}
		}
	}
	slices.SortFunc(found, func(a, b loop) int { return strings.Compare(string(a.listener), string(b.listener)) })
	c.looped[p] = found
	return found
}

// receives says whether who receives on an address is reached at another one from this machine.
func receives(listener, address string) bool {
	at := strings.LastIndexByte(listener, ':')
	if at < 0 || !strings.HasSuffix(address, listener[at:]) || listener[at:] == ":0" {
		return false
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	own := strings.Trim(listener[:at], "[]")
	if host == own {
		return true
	}
	a, err := netip.ParseAddr(host)
	local := host == "localhost" || err == nil && (a.Unmap().IsLoopback() || a.IsUnspecified())
	return local && (own == "" || own == "::" || own == "0.0.0.0")
}

// loop refuses a route that leads back to the site that it is of: each request would come round until
// connections are used up.
func (s *siteCompiler) loop(i int, r *v1.Route) {
	if r.Filters.Rewrite != nil {
		return // it comes back for another site, or another route
	}
	for _, p := range poolsOf(r) {
		spec := s.out.Pools[p]
		if spec == nil {
			continue
		}
		for _, l := range s.loops(spec) {
			if len(s.out.Listeners) == 0 || slices.Contains(s.out.Listeners, l.listener) {
				s.problem(s.doc, "spec.routes["+strconv.Itoa(i)+"].pool", "OriginPool "+p+" has the origin "+l.address+" (tier "+l.tier+"), where Listener "+
					string(l.listener)+" of this site receives: requests would go in a circle", "name the server behind this edge, or other listeners in the site")
				return
			}
		}
	}
}

// poolsOf lists the pools to which a route leads as the request came.
func poolsOf(r *v1.Route) []string {
	names := make([]string, 0, 1+len(r.Pools))
	if r.Pool != "" {
		names = append(names, r.Pool)
	}
	for i := range r.Pools {
		if r.Pools[i].Filters.Rewrite == nil {
			names = append(names, r.Pools[i].Pool)
		}
	}
	return names
}
