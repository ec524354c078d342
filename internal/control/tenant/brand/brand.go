// Package brand is what an organization's people see in place of our name: on the console, at the login, and in the frame of
// the edge's own pages.
package brand

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/claim"
)

// name is that of the one document of an organization.
const name = "brand"

// Bounds, bytes unless it is said.
const (
	maxTitle = 64
	maxText  = 300
	maxHosts = 16 // of the console
	maxURL   = 512
	maxMail  = 254
)

// ErrNoHost says that a host is no organization's console.
var ErrNoHost = errors.New("this host is nobody's console")

// Brand is how an organization, and those below it that have none of their own, show themselves. It is shown to everybody.
type Brand struct {
	Title   string   `json:"title"`
	Logo    *Logo    `json:"logo,omitempty"`
	Colors  *Colors  `json:"colors,omitempty"` // nil: ours
	Dark    *Colors  `json:"dark,omitempty"`   // for who prefers dark pages; nil: Colors, or ours
	Hosts   []string `json:"hosts,omitempty"`  // under which the console is this organization's; claimed by it
	Support Support  `json:"support"`
	Pages   Texts    `json:"pages"`
}

// Support is whom to ask.
type Support struct {
	Mail string `json:"mail,omitempty"`
	URL  string `json:"url,omitempty"` // https
}

// Texts are what the edge's own pages say around what happened, in the languages that they have. It is text, not markup:
// who writes it into a page escapes it.
type Texts struct {
	English Frame `json:"en"`
	French  Frame `json:"fr"`
}

// Frame is one language's: a line above the page's heading and one below the page.
type Frame struct {
	Head string `json:"head,omitempty"`
	Foot string `json:"foot,omitempty"`
}

// Config is what a Service is made of.
type Config struct {
	Store  tenant.Store
	Tenant *tenant.Service
}

// Service keeps brands.
type Service struct{ Config }

// New makes a Service.
func New(c Config) *Service { return &Service{c} }

func key(org string) store.Key {
	return store.Key{Organization: org, Kind: tenant.KindBrand, Name: name}
}

// Put makes or changes an organization's brand. The logo is kept as it was checked: an SVG as it is, a PNG written anew.
func (s *Service) Put(ctx context.Context, actor tenant.Actor, org string, b Brand) error {
	if err := b.check(); err != nil {
		return err
	}
	details := map[string]any{"title": b.Title, "hosts": b.Hosts}
	return s.Tenant.Change(ctx, actor, org, "brand.put", name, details, func(tx *store.Tx) error {
		if err := s.authorize(ctx, &tx.Reader, actor, tenant.VerbWrite, org); err != nil {
			return err
		}
		for _, h := range b.Hosts {
			may, err := claim.May(ctx, &tx.Reader, org, h)
			if err != nil {
				return err
			}
			if !may {
				return fmt.Errorf("%w: host %s; claim and prove it first", tenant.ErrInvalid, h)
			}
		}
		body, err := json.Marshal(b)
		if err != nil {
			return fmt.Errorf("brand: %w", err)
		}
		_, err = tx.Put(ctx, key(org), body, store.Any)
		return err
	})
}

// Delete takes an organization's brand away: it shows that of the one above again.
func (s *Service) Delete(ctx context.Context, actor tenant.Actor, org string) error {
	return s.Tenant.Change(ctx, actor, org, "brand.delete", name, nil, func(tx *store.Tx) error {
		if err := s.authorize(ctx, &tx.Reader, actor, tenant.VerbDelete, org); err != nil {
			return err
		}
		if _, err := tx.Get(ctx, key(org)); err != nil {
			return err
		}
		return tx.Delete(ctx, key(org), store.Any)
	})
}

func (s *Service) authorize(ctx context.Context, r *store.Reader, actor tenant.Actor, v tenant.Verb, org string) error {
	return s.Tenant.Authorize(ctx, r, actor, tenant.Access{Verb: v, Kind: tenant.KindBrand, Organization: org})
}

// Brand gives what an organization shows: its own, or that of the nearest above it that has one, whole, so that nobody's logo
// stands beside another's support; else ours. Of gives whose it is; empty for ours. One that does not exist shows ours.
func (s *Service) Brand(ctx context.Context, org string) (b Brand, of string, err error) {
	err = s.Store.View(ctx, func(r *store.Reader) error {
		b, of, err = find(ctx, r, org)
		return err
	})
	return b, of, err
}

func find(ctx context.Context, r *store.Reader, org string) (b Brand, of string, err error) {
	path, err := tenant.PathOf(ctx, r, org)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return b, "", err
	}
	for _, at := range slices.Backward(path) {
		b, err := read(ctx, r, at)
		if err == nil {
			return b, at, nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return b, "", err
		}
	}
	return Ours(), "", nil
}

func read(ctx context.Context, r *store.Reader, org string) (b Brand, err error) {
	d, err := r.Get(ctx, key(org))
	if err != nil {
		return b, err
	}
	if err := json.Unmarshal(d.Body, &b); err != nil {
		return b, fmt.Errorf("brand: %s is damaged: %w", d.Key, err)
	}
	return b, nil
}

// Ours is the brand of who has none.
func Ours() Brand { return Brand{Title: "Relais"} }

// BrandOfHost gives the organization whose console a host is, and what it shows; ErrNoHost where it is nobody's. A host works
// as long as the organization's claim to it does.
func (s *Service) BrandOfHost(ctx context.Context, host string) (b Brand, org string, err error) {
	n, err := claim.ParseName(host)
	if err != nil || n.Wildcard {
		return b, "", ErrNoHost
	}
	err = s.Store.View(ctx, func(r *store.Reader) error {
		if org, err = claim.Holder(ctx, r, n.Domain); err != nil {
			return err
		}
		if org == "" {
			return ErrNoHost
		}
		b, err = read(ctx, r, org)
		if errors.Is(err, store.ErrNotFound) || err == nil && !slices.Contains(b.Hosts, n.Domain) {
			return ErrNoHost
		}
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		err = ErrNoHost
	}
	if err != nil {
		return Brand{}, "", err
	}
	return b, org, nil
}

// check holds a brand against its bounds, and brings hosts and logo into the form that is kept.
func (b *Brand) check() error {
	bad := func(field, why string) error { return fmt.Errorf("%w: brand: %s %s", tenant.ErrInvalid, field, why) }
	if b.Title == "" {
		return bad("title", "is missing")
	}
	for _, t := range []struct {
		field, text string
		most        int
	}{
		{"title", b.Title, maxTitle},
		{"pages.en.head", b.Pages.English.Head, maxText},
		{"pages.en.foot", b.Pages.English.Foot, maxText},
		{"pages.fr.head", b.Pages.French.Head, maxText},
		{"pages.fr.foot", b.Pages.French.Foot, maxText},
		{"support.mail", b.Support.Mail, maxMail},
		{"support.url", b.Support.URL, maxURL},
	} {
		if len(t.text) > t.most || !plain(t.text) {
			return bad(t.field, fmt.Sprintf("has more than %d bytes, or characters that are not shown", t.most))
		}
	}
	if m := b.Support.Mail; m != "" {
		user, domain, ok := strings.Cut(m, "@")
		if !ok || user == "" || !strings.Contains(domain, ".") || strings.ContainsAny(m, " \"'<>(),;:\\?&%") || strings.Contains(domain, "@") {
			return bad("support.mail", "is no address, as help@example.com")
		}
	}
	if t := b.Support.URL; t != "" {
		u, err := url.Parse(t)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
			return bad("support.url", "is no https URL")
		}
	}
	for field, c := range map[string]*Colors{"colors": b.Colors, "dark": b.Dark} {
		if c == nil {
			continue
		}
		if why := c.check(); why != "" {
			return bad(field, why)
		}
	}
	if b.Logo != nil {
		logo, err := b.Logo.checked()
		if err != nil {
			return bad("logo", err.Error())
		}
		b.Logo = logo
	}
	return b.checkHosts()
}

func (b *Brand) checkHosts() error {
	if len(b.Hosts) > maxHosts {
		return &store.LimitError{What: "console hosts of a brand", Have: int64(len(b.Hosts)), Most: maxHosts}
	}
	hosts := make([]string, 0, len(b.Hosts))
	for _, h := range b.Hosts {
		n, err := claim.ParseName(h)
		if err != nil {
			return err
		}
		if n.Wildcard {
			return fmt.Errorf("%w: brand: hosts: %s has a star; a console has names", tenant.ErrInvalid, n)
		}
		if !slices.Contains(hosts, n.Domain) {
			hosts = append(hosts, n.Domain)
		}
	}
	b.Hosts = hosts
	return nil
}

// plain keeps out what is not seen and changes how other text is: control characters, and those that turn its direction
// (Unicode 23.2).
func plain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029'
	})
}
