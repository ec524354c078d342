package access

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/stage"
)

// maxRules is more than a document may have.
const maxRules = 1 << 14

// policy is a compiled AccessPolicy. It does not change.
type policy struct {
	gate stage.Gate
	// deny says of each rule what it decides; the last is the default.
	deny []bool
	// details say of each rule, and of the default, what a trail shows.
	details []string
	// plain holds the rules with neither path nor method; its values are indexes of them.
	plain      *table
	plainRules []int
	// scoped are the other rules, in order.
	scoped []scoped
	places bool // a rule asks where an address is
}

// scoped is a rule with more than addresses.
type scoped struct {
	index     int
	deny      bool
	scope     stage.Scope
	any       bool // no addresses: every address
	table     *table
	countries []string // sorted
	asns      []uint32 // sorted
	cert      *certificate
}

// place is where a request comes from, once somebody asked.
type place struct {
	known   bool
	country string
	asn     uint32
}

// inScope says whether the rule's path and methods fit: what allows asks the path as it was sent alone.
func (s *scoped) inScope(x *stage.Exchange) bool {
	if s.deny {
		return s.scope.Holds(x)
	}
	return s.scope.HoldsAsSent(x)
}

// holds says whether a request matches all parts of the rule.
func (s *scoped) holds(x *stage.Exchange, at *place, places Places) bool {
	if !s.inScope(x) || !s.any && s.table.find(x.Client) == none {
		return false
	}
	if len(s.countries) > 0 || len(s.asns) > 0 {
		if !at.known && places != nil {
			at.country, at.asn = places.Find(x.Client)
		}
		at.known = true
		if len(s.countries) > 0 && !among(s.countries, at.country) || len(s.asns) > 0 && !among(s.asns, at.asn) {
			return false
		}
	}
	return s.cert == nil || s.cert.holds(x)
}

func among[T cmp.Ordered](sorted []T, v T) bool {
	_, ok := slices.BinarySearch(sorted, v)
	return ok
}

func compile(name string, spec *v1.AccessPolicySpec) (*policy, error) {
	if len(spec.Rules) > maxRules {
		return nil, fmt.Errorf("%d rules; at most %d can be compiled", len(spec.Rules), maxRules)
	}
	p := &policy{gate: stage.NewGate(spec.Protection)}
	var lists [][]netip.Prefix
	end := len(spec.Rules) // the first rule that matches all, or the default
	for i := range spec.Rules {
		r := &spec.Rules[i]
		p.add(r.Action == "deny", fmt.Sprintf("rule %d of %s", i+1, name))
		nets, err := networks(r.Addresses)
		if err != nil {
			return nil, fmt.Errorf("rules[%d].addresses: %w", i, err)
		}
		s := stage.NewScope(r.Path, r.Methods)
		located := len(r.Countries) > 0 || len(r.ASNs) > 0
		switch {
		case i > end:
		case !s.All() || located || r.ClientCertificate != nil:
			c := scoped{index: i, deny: r.Action == "deny", scope: s, any: len(nets) == 0, countries: slices.Sorted(slices.Values(r.Countries))}
			for _, n := range r.ASNs {
				c.asns = append(c.asns, uint32(n))
			}
			slices.Sort(c.asns)
			if r.ClientCertificate != nil {
				c.cert = newCertificate(r.ClientCertificate)
			}
			p.places = p.places || located
			if !c.any {
				c.table = newTable([][]netip.Prefix{nets})
			}
			p.scoped = append(p.scoped, c)
		case len(nets) == 0:
			end = i
		default:
			lists = append(lists, nets)
			p.plainRules = append(p.plainRules, i)
		}
	}
	p.add(spec.Default == "deny", "default of "+name)
	p.plain = newTable(lists)
	p.plainRules = append(p.plainRules, end)
	return p, nil
}

func (p *policy) add(deny bool, detail string) {
	p.deny, p.details = append(p.deny, deny), append(p.details, detail)
}

// decide returns the index of the rule that decides.
func (p *policy) decide(x *stage.Exchange, places Places) int {
	v := p.plain.find(x.Client)
	if v == none {
		v = int16(len(p.plainRules) - 1)
	}
	best := p.plainRules[v]
	var at place
	for i := range p.scoped {
		s := &p.scoped[i]
		if s.index > best {
			break
		}
		if s.holds(x, &at, places) {
			return s.index
		}
	}
	return best
}

// networks reads networks and single addresses; IPv4 in IPv6 form becomes IPv4.
func networks(list []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(list))
	for i, s := range list {
		p, err := network(s)
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", i, err)
		}
		out = append(out, p)
	}
	return out, nil
}

func network(s string) (netip.Prefix, error) {
	host, length, has := strings.Cut(s, "/")
	a, err := netip.ParseAddr(host)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%q is not a network; write one such as 192.0.2.0/24 or 2001:db8::/32", s)
	}
	bits := a.BitLen()
	if has {
		n, err := strconv.ParseUint(length, 10, 8)
		if err != nil || int(n) > bits {
			return netip.Prefix{}, fmt.Errorf("%q has a length that is not a number from 0 to %d", s, bits)
		}
		bits = int(n)
	}
	if a.Is4In6() && bits >= 96 {
		a, bits = a.Unmap(), bits-96
	}
	return netip.PrefixFrom(a, bits), nil
}
