package tenant

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
)

// Bounds of identity providers.
const (
	maxProviders = 16 // of an organization
	maxMappings  = 32 // of a provider
	maxDomains   = 64
	maxScopes    = 16
	maxURL       = 512
	maxClaim     = 256 // bytes of a claim's name or value
)

// Provider is an OpenID provider that says who an organization's users are, and those of the organizations below.
type Provider struct {
	Title       string        `json:"title,omitempty"`
	Issuer      string        `json:"issuer"` // https URL, as the provider writes it itself
	ClientID    string        `json:"clientId"`
	Secret      *secret.Body  `json:"secret,omitempty"`  // closed by the vault; nil: a public client
	Scopes      []string      `json:"scopes,omitempty"`  // beside openid; none: email and profile
	Domains     []string      `json:"domains,omitempty"` // of the verified e-mail address; none: any, or no address at all
	CreateUsers bool          `json:"createUsers,omitempty"`
	Roles       []RoleMapping `json:"roles,omitempty"`
	Disabled    bool          `json:"disabled,omitempty"`
}

// RoleMapping gives a role to whom the provider asserts a claim. The role is held for a day, and anew at each login.
type RoleMapping struct {
	Claim        string `json:"claim,omitempty"` // a name, or names with dots into objects; empty: everybody
	Value        string `json:"value,omitempty"` // that the claim has, or that is in its list
	Organization string `json:"organization"`    // that of the provider, or one below
	Project      string `json:"project,omitempty"`
	Role         string `json:"role"`
}

// ProviderRef names a provider.
type ProviderRef struct {
	Organization string `json:"organization"`
	Name         string `json:"name"`
}

// String is organization/name; empty for none.
func (p ProviderRef) String() string {
	if p == (ProviderRef{}) {
		return ""
	}
	return p.Organization + "/" + p.Name
}

func (p ProviderRef) key() store.Key {
	return store.Key{Organization: p.Organization, Kind: KindProvider, Name: p.Name}
}

// PutProvider makes or changes a provider. An empty secret keeps the former one, for the same issuer and client alone; of a new
// provider it says that the client is public. Nobody maps to a role that he could not give.
func (s *Service) PutProvider(ctx context.Context, actor Actor, org, name string, p Provider, clientSecret string) error {
	if err := errors.Join(checkLabel("provider", name), s.checkProvider(p)); err != nil {
		return err
	}
	ref := ProviderRef{org, name}
	p.Secret = nil
	if clientSecret != "" {
		closed, err := s.vault.Close(ref.key(), []byte(clientSecret))
		if err != nil {
			return err
		}
		p.Secret = &closed
	}
	shown := p
	shown.Secret = nil
	return s.change(ctx, act{actor: actor, organization: org, action: "provider.put", target: name, details: shown}, func(tx *store.Tx) error {
		if err := s.Authorize(ctx, &tx.Reader, actor, Access{VerbWrite, KindProvider, org, ""}); err != nil {
			return err
		}
		for _, m := range p.Roles {
			if err := s.mayMap(ctx, tx, actor, org, m); err != nil {
				return err
			}
		}
		var former Provider
		_, err := read(ctx, &tx.Reader, ref.key(), &former)
		switch {
		case errors.Is(err, store.ErrNotFound):
			list, err := tx.List(ctx, store.Query{Organization: org, Kind: KindProvider})
			if err != nil || len(list.Documents) >= maxProviders {
				return errors.Join(err, limitOver("identity providers of an organization", len(list.Documents), maxProviders))
			}
		case err != nil:
			return err
		case p.Secret == nil && former.Secret != nil && (former.Issuer != p.Issuer || former.ClientID != p.ClientID):
			return fmt.Errorf("%w: another issuer or client needs its own secret", ErrInvalid)
		case p.Secret == nil:
			p.Secret = former.Secret
		}
		return write(ctx, tx, ref.key(), p, store.Any)
	})
}

// mayMap asks that the actor could bind the role himself, in the provider's organization or below.
func (s *Service) mayMap(ctx context.Context, tx *store.Tx, actor Actor, org string, m RoleMapping) error {
	o, _, err := organization(ctx, &tx.Reader, m.Organization)
	if err != nil {
		return deny(err, actor, m.Organization)
	}
	if !slices.Contains(o.Path, org) {
		return fmt.Errorf("%w: organization %s is not below %s", ErrDenied, m.Organization, org)
	}
	rules, err := resolve(ctx, &tx.Reader, o.Path, m.Role)
	if err != nil {
		return err
	}
	if err := s.authorizeGrant(ctx, tx, actor, Access{VerbWrite, KindBinding, m.Organization, m.Project}, rules); err != nil {
		return err
	}
	if len(rules) == 0 {
		return fmt.Errorf("%w: there is no role %q", ErrInvalid, m.Role)
	}
	if m.Project != "" {
		_, err = tx.Get(ctx, projectKey(m.Organization, m.Project))
	}
	return err
}

func (s *Service) checkProvider(p Provider) error {
	if err := checkIssuer(p.Issuer, s.loopback); err != nil {
		return err
	}
	bad := func(why string) error { return fmt.Errorf("%w: the identity provider %s", ErrInvalid, why) }
	switch {
	case len(p.Title) > maxTitle:
		return bad("has too long a title")
	case p.ClientID == "" || len(p.ClientID) > maxClaim || clean(p.ClientID, maxClaim) != p.ClientID:
		return bad("needs the client's id, of at most 256 printable characters")
	case len(p.Scopes) > maxScopes || len(p.Domains) > maxDomains || len(p.Roles) > maxMappings:
		return bad(fmt.Sprintf("has more than %d scopes, %d domains or %d mapped roles", maxScopes, maxDomains, maxMappings))
	}
	for _, sc := range p.Scopes { // RFC 6749 section 3.3
		if sc == "" || len(sc) > maxLabel || strings.ContainsAny(sc, " \"\\") || clean(sc, maxLabel) != sc {
			return bad(fmt.Sprintf("has a scope %q that is none", sc))
		}
	}
	for _, d := range p.Domains {
		if len(d) > 253 || !strings.Contains(d, ".") || strings.Trim(d, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
			return bad(fmt.Sprintf("has a domain %q; write it in lower-case A-labels, as example.com", d))
		}
	}
	for _, m := range p.Roles {
		if len(m.Claim) > maxClaim || len(m.Value) > maxClaim || (m.Claim == "") != (m.Value == "") {
			return bad("maps a role with a claim without a value, or a value without a claim, or one that is too long")
		}
	}
	return nil
}

// checkIssuer takes https URLs of hosts (OpenID Connect Discovery section 3). What an address may be reached is for who
// dials it to ask; here are only those kept out that never can.
func checkIssuer(s string, loopback bool) error {
	bad := func(why string) error {
		return fmt.Errorf("%w: issuer %q %s; give the https URL that the provider shows as its issuer", ErrInvalid, s[:min(len(s), maxURL)], why)
	}
	u, err := url.Parse(s)
	switch {
	case len(s) > maxURL || err != nil:
		return bad("is no URL")
	case u.Hostname() == "" || u.Opaque != "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		return bad("has no host, or more than a host and a path")
	case u.Scheme == "http" && loopback && isLoopback(u.Hostname()):
		return nil
	case u.Scheme != "https":
		return bad("is not https")
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil && !(loopback && isLoopback(u.Hostname())) {
		return bad("is an address")
	}
	if !strings.Contains(strings.TrimSuffix(u.Hostname(), "."), ".") && !(loopback && isLoopback(u.Hostname())) {
		return bad("is not a public name")
	}
	return nil
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// DeleteProvider removes a provider. Sessions by it end at once; roles that it gave end within a day; users stay, and with
// them who they are, should it come back.
func (s *Service) DeleteProvider(ctx context.Context, actor Actor, org, name string) error {
	return s.change(ctx, act{actor: actor, organization: org, action: "provider.delete", target: name}, func(tx *store.Tx) error {
		if err := s.Authorize(ctx, &tx.Reader, actor, Access{VerbDelete, KindProvider, org, ""}); err != nil {
			return err
		}
		d, err := tx.Get(ctx, ProviderRef{org, name}.key())
		if err != nil {
			return err
		}
		return tx.Delete(ctx, d.Key, store.Any)
	})
}

// Providers lists an organization's own providers by name, without their secrets.
func (s *Service) Providers(ctx context.Context, actor Actor, org string) (list map[string]Provider, err error) {
	list = map[string]Provider{}
	err = s.view(ctx, actor, Access{VerbRead, KindProvider, org, ""}, func(r *store.Reader) error {
		return each(ctx, r, store.Query{Organization: org, Kind: KindProvider}, func(d store.Document) error {
			var p Provider
			err := decodeBody(d, &p)
			p.Secret = nil
			list[d.Name] = p
			return err
		})
	})
	return list, err
}

// Choice is a provider as a page for who wants to log in shows it.
type Choice struct {
	ProviderRef
	Title string
}

// Choices lists the providers by which users of an organization can log in: its own, then those above it. Of one that does
// not exist there are none.
func (s *Service) Choices(ctx context.Context, org string) (list []Choice, err error) {
	err = s.store.View(ctx, func(r *store.Reader) error {
		o, _, err := organization(ctx, r, org)
		if err != nil {
			return ignoreNotFound(err)
		}
		taken := map[string]bool{}
		for _, at := range slices.Backward(o.Path) {
			err := each(ctx, r, store.Query{Organization: at, Kind: KindProvider}, func(d store.Document) error {
				var p Provider
				if err := decodeBody(d, &p); err != nil {
					return err
				}
				if !p.Disabled && !taken[d.Name] {
					list = append(list, Choice{ProviderRef{at, d.Name}, p.Title})
				}
				taken[d.Name] = true
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return list, err
}

// FindProvider gives the provider of a name by which users of an organization log in, the nearest upward, with its client's
// secret; store.ErrNotFound where there is none, or it is disabled.
func (s *Service) FindProvider(ctx context.Context, org, name string) (ref ProviderRef, p Provider, clientSecret string, err error) {
	err = s.store.View(ctx, func(r *store.Reader) error {
		o, _, err := organization(ctx, r, org)
		if err != nil {
			return err
		}
		for _, at := range slices.Backward(o.Path) {
			ref = ProviderRef{at, name}
			if _, err = read(ctx, r, ref.key(), &p); !errors.Is(err, store.ErrNotFound) {
				break
			}
		}
		if err == nil && p.Disabled {
			err = fmt.Errorf("identity provider %s: %w", ref, store.ErrNotFound)
		}
		return err
	})
	if err == nil && p.Secret != nil {
		var b []byte
		b, err = s.vault.Open(ref.key(), *p.Secret)
		clientSecret = string(b)
	}
	return ref, p, clientSecret, err
}

// providerStands says with store.ErrNotFound that a session's provider is no more.
func providerStands(ctx context.Context, r *store.Reader, ref string) error {
	if ref == "" {
		return nil
	}
	org, name, _ := strings.Cut(ref, "/")
	var p Provider
	_, err := read(ctx, r, ProviderRef{org, name}.key(), &p)
	if err == nil && p.Disabled {
		err = store.ErrNotFound
	}
	return err
}

// RotateProviders closes the secrets of providers anew for the vault's newest key, and gives how many.
func (s *Service) RotateProviders(ctx context.Context, author string) (n int, err error) {
	return secret.Renew(ctx, s.store, KindProvider, author, func(ctx context.Context, tx *store.Tx, d store.Document) (int, error) {
		var p Provider
		if err := decodeBody(d, &p); err != nil || p.Secret == nil || !s.vault.Outdated(*p.Secret) {
			return 0, err
		}
		raw, err := s.vault.Open(d.Key, *p.Secret)
		if err == nil {
			*p.Secret, err = s.vault.Close(d.Key, raw)
		}
		if err != nil {
			return 0, err
		}
		return 1, write(ctx, tx, d.Key, p, store.Expect(d.Revision))
	})
}
