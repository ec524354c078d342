package bundle

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Check says what is wrong with the bundle of one organization that came from elsewhere: it is of this format, every
// key is the organization's, every list is in the order of its keys, and what a site names is there. What the specs hold
// was checked when they were documents.
func (b *Bundle) Check(organization string) error {
	if b.Format != Format {
		return fmt.Errorf("the bundle has format %d; this version reads format %d", b.Format, Format)
	}
	if organization == "" || b.Organization != organization {
		return fmt.Errorf("the bundle is of organization %.64q, and not of %.64q", b.Organization, organization)
	}
	o := owner(organization + "/")
	if err := errors.Join(
		inOrder(o, "listeners", b.Listeners, func(l *Listener) Key { return l.Key }),
		inOrder(o, "services", b.Services, func(s *Service) Key { return s.Key }),
		inOrder(o, "certificates", b.Certificates, func(c *Certificate) Key { return c.Key }),
		inOrder(o, "sites", b.Sites, func(s **Site) Key { return keyOf(*s) }),
		inOrder(o, "hosts", b.Hosts, func(h *CertificateHosts) Key { return h.Site }),
	); err != nil {
		return err
	}
	for i := range b.Listeners {
		l := &b.Listeners[i]
		if len(l.Hosts) > 0 {
			return fmt.Errorf("listener %s shows certificates of sites, which come when bundles are merged", l.Key)
		}
		if err := o.all(l.Certificates); err != nil {
			return fmt.Errorf("listener %s: %w", l.Key, err)
		}
	}
	for i := range b.Services {
		if b.Services[i].Pool == nil {
			return fmt.Errorf("service %s has no pool", b.Services[i].Key)
		}
	}
	for _, s := range b.Sites {
		if err := s.whole(); err != nil {
			return fmt.Errorf("site %s: %w", s.Key, err)
		}
	}
	return b.checkHosts(o)
}

// checkHosts has certificates shown for the host names of the site that names them, and for no other.
func (b *Bundle) checkHosts(o owner) error {
	for i := range b.Hosts {
		h := &b.Hosts[i]
		at, there := slices.BinarySearchFunc(b.Sites, h.Site, func(s *Site, k Key) int { return cmp.Compare(s.Key, k) })
		if !there {
			return fmt.Errorf("certificates are named by %.320q, which is no site of the bundle", h.Site)
		}
		s := b.Sites[at]
		if !slices.Equal(h.Hostnames, OwnHostnames(s.Hostnames)) || !slices.Equal(h.Listeners, s.Listeners) {
			return fmt.Errorf("certificates of site %s are for other hosts or listeners than its own", s.Key)
		}
		if err := o.all(h.Certificates); err != nil {
			return fmt.Errorf("certificates of site %s: %w", s.Key, err)
		}
	}
	return nil
}

func keyOf(s *Site) Key {
	if s == nil {
		return ""
	}
	return s.Key
}

// owner is an organization and a slash.
type owner string

func (o owner) has(k Key) error {
	if name, is := strings.CutPrefix(string(k), string(o)); !is || name == "" || strings.Contains(name, "/") {
		return fmt.Errorf("%.320q is no name of organization %.64q", string(k), strings.TrimSuffix(string(o), "/"))
	}
	return nil
}

func (o owner) all(keys []Key) error {
	for _, k := range keys {
		if err := o.has(k); err != nil {
			return err
		}
	}
	return nil
}

// inOrder checks the keys of a list, each of which is there once.
func inOrder[T any](o owner, what string, list []T, key func(*T) Key) error {
	for i := range list {
		k := key(&list[i])
		if err := o.has(k); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if i > 0 && k <= key(&list[i-1]) {
			return fmt.Errorf("%s: %s is not in the order of the keys, or there twice", what, k)
		}
	}
	return nil
}

// whole says whether a site has all that its routes name.
func (s *Site) whole() error {
	for i := range s.Routes {
		r := &s.Routes[i]
		err := errors.Join(
			has(s.Pools, r.Pool, "pool"), has(s.Access, r.Access, "access"), has(s.JWT, r.JWT, "jwt"), has(s.API, r.API, "api"),
			has(s.WAF, r.WAF, "waf"), has(s.Visitors, r.Visitor, "visitor"), has(s.Rooms, r.WaitingRoom, "waitingRoom"),
			has(s.Bots, r.Bots, "bots"), has(s.Caches, r.Cache, "cache"), has(s.Images, r.Images, "images"),
		)
		for _, name := range r.RateLimits {
			err = cmp.Or(err, has(s.RateLimits, name, "rateLimits"))
		}
		for j := range r.Pools {
			err = cmp.Or(err, has(s.Pools, r.Pools[j].Pool, "pools"))
		}
		if r.Mirror != nil {
			err = cmp.Or(err, has(s.Pools, r.Mirror.Pool, "mirror"))
		}
		if err != nil {
			return fmt.Errorf("route %d: %w", i+1, err)
		}
	}
	return nil
}

func has[S any](specs map[string]*S, name, field string) error {
	if name != "" && specs[name] == nil {
		return fmt.Errorf("%s: %.320q is not in the bundle", field, name)
	}
	return nil
}
