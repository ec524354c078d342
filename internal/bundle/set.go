package bundle

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"iter"
	"maps"
	"reflect"
	"slices"

	v1 "github.com/relais-edge/relais/api/v1"
)

// Set are the bundles that several organizations have at a PoP, and what they make together. One of them, the platform,
// has the listeners. It is not safe for concurrent use; a Clone is another set.
type Set struct {
	platform string
	tenants  map[string]*tenant
	seed     maphash.Seed
	// claims are who has a host name, by the name; shards that a clone has too are copied before they change.
	claims    [claimShards]map[string]*claim
	own       [claimShards]bool
	contested map[string]bool // names of which organizations more than one want
}

const claimShards = 256

// tenant is what one organization has. It does not change.
type tenant struct {
	given *Bundle
	// What the last Merge made of sites: those that were given, and what they became, side by side.
	from, to []*Site
	holders  map[Key]*holder
}

// holder is a site that wants host names.
type holder struct {
	site      Key
	listeners []Key // empty means all
}

func (h *holder) organization() string {
	o, _ := h.site.Split()
	return o
}

// claim is a list of who wants a host name, in the order in which they came. It does not change.
type claim struct {
	holder *holder
	next   *claim
}

// Conflict is a host name that two organizations want on one listener.
type Conflict struct {
	Hostname string
	Site     Key // which does without
	By       Key // which has it, as its organization had it first
}

// MaxConflicts bounds what Merge tells of conflicts; those beyond it hold all the same.
const MaxConflicts = 1000

// NewSet makes a set without bundles. Listeners and services are the platform's alone.
func NewSet(platform string) *Set {
	return &Set{platform: platform, tenants: map[string]*tenant{}, seed: maphash.MakeSeed(), contested: map[string]bool{}}
}

// Clone gives a set with the same bundles. What changes in one does not in the other.
func (s *Set) Clone() *Set {
	s.own = [claimShards]bool{}
	n := *s
	n.tenants, n.contested = maps.Clone(s.tenants), maps.Clone(s.contested)
	return &n
}

// Len is the number of organizations.
func (s *Set) Len() int { return len(s.tenants) }

// Replace puts the bundle of an organization in the place of the one that it had; nil removes it. The set keeps the
// bundle, which is not changed; of sites that are equal it keeps those that it has. On error the set is what it was.
func (s *Set) Replace(organization string, b *Bundle) error {
	if b != nil {
		if err := b.Check(organization); err != nil {
			return err
		}
		if organization != s.platform && len(b.Listeners)+len(b.Services) > 0 {
			return fmt.Errorf("the bundle of %q opens ports, and ports belong to the organization %q", organization, s.platform)
		}
	}
	old := s.tenants[organization]
	if old == nil {
		old = &tenant{given: &Bundle{}}
	}
	next := &tenant{given: &Bundle{}, from: old.from, to: old.to, holders: map[Key]*holder{}}
	if b != nil {
		next.given = kept(b, old.given)
	}
	d := &difference{gone: map[string][]*holder{}, come: map[string][]*holder{}}
	d.between(old, next)
	for host, gone := range d.gone {
		s.claim(host, gone, d.come[host])
		delete(d.come, host)
	}
	for host, come := range d.come {
		s.claim(host, nil, come)
	}
	if b == nil {
		delete(s.tenants, organization)
		return nil
	}
	s.tenants[organization] = next
	return nil
}

// kept is a bundle in which the sites that it has in common with the one before are those.
func kept(b, before *Bundle) *Bundle {
	out := *b
	out.Sites = slices.Clone(b.Sites)
	rest := before.Sites
	for i, site := range out.Sites {
		if was := next(&rest, site.Key); was != nil && (was == site || reflect.DeepEqual(was, site)) {
			out.Sites[i] = was
		}
	}
	return &out
}

// next finds a site in a list by its key, where the keys that are looked for ascend; nil when it is not there.
func next(rest *[]*Site, key Key) *Site {
	for len(*rest) > 0 && (*rest)[0].Key < key {
		*rest = (*rest)[1:]
	}
	if len(*rest) > 0 && (*rest)[0].Key == key {
		return (*rest)[0]
	}
	return nil
}

// difference are the claims that end and begin when a bundle takes the place of another, by host name.
type difference struct{ gone, come map[string][]*holder }

// between finds them, and gives the next tenant its holders.
func (d *difference) between(old, next *tenant) {
	for _, site := range old.given.Sites {
		at, there := slices.BinarySearchFunc(next.given.Sites, site.Key, bySite)
		if there && sameClaims(next.given.Sites[at], site) {
			next.holders[site.Key] = old.holders[site.Key]
			continue
		}
		for _, h := range site.Hostnames {
			d.gone[h] = append(d.gone[h], old.holders[site.Key])
		}
	}
	for _, site := range next.given.Sites {
		if next.holders[site.Key] != nil {
			continue
		}
		by := &holder{site.Key, site.Listeners}
		next.holders[site.Key] = by
		for _, h := range site.Hostnames {
			d.come[h] = append(d.come[h], by)
		}
	}
}

func bySite(s *Site, k Key) int { return cmp.Compare(s.Key, k) }

func sameClaims(a, b *Site) bool {
	return a == b || slices.Equal(a.Hostnames, b.Hostnames) && slices.Equal(a.Listeners, b.Listeners)
}

// claim changes who wants a host name. An organization stays at its place in the line if it wants the name on no
// listener more than before; else it goes to the end, so that nobody loses what he had.
func (s *Set) claim(host string, gone, come []*holder) {
	var line []*holder
	shard := s.shard(host)
	for c := shard[host]; c != nil; c = c.next {
		if !slices.Contains(gone, c.holder) {
			line = append(line, c.holder)
			continue
		}
		if i := slices.IndexFunc(come, func(h *holder) bool { return within(h.listeners, c.holder.listeners) }); i >= 0 {
			line = append(line, come[i])
			come = slices.Concat(come[:i], come[i+1:])
		}
	}
	line = append(line, come...)
	delete(s.contested, host)
	if len(line) == 0 {
		delete(shard, host)
		return
	}
	var list *claim
	for _, h := range slices.Backward(line) {
		list = &claim{h, list}
		if h.organization() != line[0].organization() {
			s.contested[host] = true
		}
	}
	shard[host] = list
}

// shard gives the claims in which a host name is, to be changed.
func (s *Set) shard(host string) map[string]*claim {
	i := maphash.String(s.seed, host) % claimShards
	if !s.own[i] {
		if s.own[i] = true; s.claims[i] == nil {
			s.claims[i] = map[string]*claim{}
		} else {
			s.claims[i] = maps.Clone(s.claims[i])
		}
	}
	return s.claims[i]
}

// within says whether all listeners of a list are in another; an empty one means all there are.
func within(a, b []Key) bool {
	return len(b) == 0 || len(a) > 0 && !slices.ContainsFunc(a, func(k Key) bool { return !slices.Contains(b, k) })
}

// meet says whether two lists have a listener in common.
func meet(a, b []Key) bool {
	return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(k Key) bool { return slices.Contains(b, k) })
}

// conflicts finds the host names that sites do without, and tells of them in the order of the names.
func (s *Set) conflicts() (lost map[Key][]string, told []Conflict) {
	lost = map[Key][]string{}
	for _, host := range slices.Sorted(maps.Keys(s.contested)) {
		var have []*holder
		for c := s.claims[maphash.String(s.seed, host)%claimShards][host]; c != nil; c = c.next {
			h := c.holder
			i := slices.IndexFunc(have, func(w *holder) bool {
				return w.organization() != h.organization() && meet(w.listeners, h.listeners)
			})
			if i < 0 {
				have = append(have, h)
				continue
			}
			lost[h.site] = append(lost[h.site], host)
			if len(told) < MaxConflicts {
				told = append(told, Conflict{host, h.site, have[i].site})
			}
		}
	}
	return lost, told
}

// Merge joins the bundles to one of several organizations, each list in the order of its keys: the platform's listeners
// show every organization's certificates, and sites get the port of https. What did not change since the last Merge has
// the same pointers. It is not to be changed.
func (s *Set) Merge() (*Bundle, []Conflict) {
	b := &Bundle{Format: Format}
	if p := s.tenants[s.platform]; p != nil {
		b.Listeners, b.Services = slices.Clone(p.given.Listeners), p.given.Services
	}
	m := &merge{listeners: b.Listeners}
	m.port = HTTPSPort(m.specs(), nil)
	for i := range b.Listeners {
		if b.Listeners[i].Spec.TLS != nil {
			m.secure = append(m.secure, &b.Listeners[i])
		}
	}
	var told []Conflict
	m.lost, told = s.conflicts()
	for _, org := range s.inOrder() {
		t := *s.tenants[org]
		t.to = m.sites(&t)
		t.from = t.given.Sites
		s.tenants[org] = &t
		b.Sites = append(b.Sites, t.to...)
		b.Certificates = append(b.Certificates, t.given.Certificates...)
		m.hosts(t.given.Hosts)
	}
	return b, told
}

// inOrder are the organizations in the order of the keys of what they have.
func (s *Set) inOrder() []string {
	return slices.SortedFunc(maps.Keys(s.tenants), func(a, b string) int { return cmp.Compare(a+"/", b+"/") })
}

type merge struct {
	listeners []Listener
	secure    []*Listener // those with TLS
	port      int         // of https, of sites that every listener serves
	lost      map[Key][]string
}

func (m *merge) specs() iter.Seq2[Key, *v1.ListenerSpec] {
	return func(yield func(Key, *v1.ListenerSpec) bool) {
		for i := range m.listeners {
			if !yield(m.listeners[i].Key, &m.listeners[i].Spec) {
				return
			}
		}
	}
}

// sites are a tenant's as they are served; those that are as at the last time have the same pointers.
func (m *merge) sites(t *tenant) []*Site {
	out := make([]*Site, len(t.given.Sites))
	at := 0
	for i, site := range t.given.Sites {
		for at < len(t.from) && t.from[at].Key < site.Key {
			at++
		}
		var was *Site
		if at < len(t.from) && t.from[at] == site {
			was = t.to[at]
		}
		out[i] = m.site(site, was)
	}
	return out
}

// site is what is served of a site; was is what it became before.
func (m *merge) site(s, was *Site) *Site {
	port := s.HTTPS.Port
	if s.HTTPS.Redirect && port == 0 {
		if port = m.port; len(s.Listeners) > 0 {
			port = HTTPSPort(m.specs(), s.Listeners)
		}
	}
	names := without(s.Hostnames, m.lost[s.Key])
	if port == s.HTTPS.Port && len(names) == len(s.Hostnames) {
		return s
	}
	if was != nil && was.HTTPS.Port == port && slices.Equal(was.Hostnames, names) {
		return was
	}
	c := *s
	c.HTTPS.Port, c.Hostnames = port, names
	return &c
}

// without leaves names out of a list, which it shares where there are none.
func without(names, lost []string) []string {
	if len(lost) == 0 {
		return names
	}
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(lost, n) })
}

// hosts has the listeners show the certificates that sites name, but for host names that they do without.
func (m *merge) hosts(list []CertificateHosts) {
	for i := range list {
		h := &list[i]
		names := without(h.Hostnames, m.lost[h.Site])
		if len(names) == 0 {
			continue
		}
		for _, l := range m.secure {
			if len(h.Listeners) == 0 || slices.Contains(h.Listeners, l.Key) {
				l.Hosts = append(l.Hosts, CertificateHosts{Hostnames: names, Certificates: h.Certificates})
			}
		}
	}
}
