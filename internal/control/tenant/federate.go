package tenant

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
)

const (
	// assertedLife is how long a role is held that a provider asserted. It is written anew at a login when less than a
	// session's life is left, so that it outlasts the session and not every login is a change of the organization.
	assertedLife = 24 * time.Hour
	// maxSubject is the bound of OpenID Connect Core section 2.
	maxSubject = 255
)

// ErrFederated says that a provider proved who somebody is, and that he has no way in here; its text says why.
var ErrFederated = errors.New("this account of the identity provider has no way in")

// Assertion is what a provider proved of somebody.
type Assertion struct {
	Provider ProviderRef
	Issuer   string
	Subject  string
	Email    string
	Verified bool // the address
	Login    string
	Claims   map[string]any
}

// Identity is which user of an organization somebody is whom a provider names, and the roles that he has by that.
type Identity struct {
	Issuer  string     `json:"issuer"`
	Subject string     `json:"subject"`
	Login   string     `json:"login"`
	Granted []Asserted `json:"granted,omitempty"`
}

// Asserted is a role that somebody has because a provider said so.
type Asserted struct {
	Provider     ProviderRef `json:"provider"`
	Organization string      `json:"organization"`
	Project      string      `json:"project,omitempty"`
	Role         string      `json:"role"`
}

// identityKey is of issuer and subject alone: an address of e-mail can be given to another person.
func identityKey(org, issuer, subject string) store.Key {
	sum := sha256.Sum256([]byte(issuer + "\x00" + subject))
	return store.Key{Organization: org, Kind: KindIdentity, Name: hex.EncodeToString(sum[:])}
}

// LoginAsserted lets in whom a provider of the organization, or of one above it, proved: the user who is linked with issuer and
// subject, or a new one where the provider makes users. With link set, the assertion is linked with that user, who is logged
// in. Roles that the provider no longer asserts are taken away. No second factor is asked: that is the provider's.
func (s *Service) LoginAsserted(ctx context.Context, org string, a Assertion, source netip.Addr, link *Actor) (actor Actor, err error) {
	if a.Subject == "" || len(a.Subject) > maxSubject {
		return actor, fmt.Errorf("%w: the provider names nobody", ErrFederated)
	}
	if link != nil && (link.Token != nil || link.Organization != org) {
		return actor, fmt.Errorf("%w: only who is logged in himself is linked, in his own organization", ErrDenied)
	}
	details := map[string]any{"source": source.String(), "provider": a.Provider.String()}
	entry := act{actor: Actor{Organization: org, Login: "somebody"}, organization: org, action: "login", details: details}
	_, err = s.store.Update(ctx, store.Change{Author: "identity provider " + a.Provider.String()}, func(tx *store.Tx) error {
		p, o, err := admits(ctx, tx, org, a)
		if err != nil {
			return err
		}
		i, revision, made, err := s.identify(ctx, tx, org, p, a, link)
		if err != nil {
			return err
		}
		actor = Actor{Organization: org, Login: i.Login}
		var u User
		if _, err := read(ctx, &tx.Reader, userKey(org, i.Login), &u); err != nil || u.Disabled || u.Service {
			return errors.Join(fmt.Errorf("%w: user %s is disabled or no more", ErrFederated, i.Login), ignoreNotFound(err))
		}
		former := slices.Clone(i.Granted)
		given, taken, err := asserted(ctx, tx, o, p, a, &i)
		if err != nil {
			return err
		}
		details["made"], details["linked"], details["given"], details["taken"] = made, link != nil, given, taken
		entry.actor, entry.target = actor, i.Login
		if revision == 0 || !slices.Equal(former, i.Granted) {
			if err := write(ctx, tx, identityKey(org, a.Issuer, a.Subject), i, store.Expect(revision)); err != nil {
				return err
			}
		}
		return s.record(ctx, tx, entry)
	})
	if err != nil {
		return Actor{}, err
	}
	return actor, nil
}

// admits asks, in the transaction that lets in, whether the provider still does.
func admits(ctx context.Context, tx *store.Tx, org string, a Assertion) (p Provider, o Organization, err error) {
	o, _, err = organization(ctx, &tx.Reader, org)
	if err == nil {
		_, err = read(ctx, &tx.Reader, a.Provider.key(), &p)
	}
	if err != nil {
		return p, o, errors.Join(fmt.Errorf("%w: the provider is no more", ErrFederated), ignoreNotFound(err))
	}
	if p.Disabled || p.Issuer != a.Issuer || !slices.Contains(o.Path, a.Provider.Organization) {
		return p, o, fmt.Errorf("%w: the provider is disabled, or another", ErrFederated)
	}
	if len(p.Domains) == 0 {
		return p, o, nil
	}
	at := strings.LastIndexByte(a.Email, '@')
	if at < 1 || !a.Verified || !slices.Contains(p.Domains, strings.ToLower(a.Email[at+1:])) {
		return p, o, fmt.Errorf("%w: its e-mail address is not verified, or not of a domain that is let in", ErrFederated)
	}
	return p, o, nil
}

// identify finds which user the assertion is of, links it, or makes one. Revision is 0 where the identity is new.
func (s *Service) identify(ctx context.Context, tx *store.Tx, org string, p Provider, a Assertion, link *Actor) (i Identity, revision int64, made bool, err error) {
	revision, err = read(ctx, &tx.Reader, identityKey(org, a.Issuer, a.Subject), &i)
	switch {
	case err == nil && link != nil && i.Login != link.Login:
		return i, 0, false, fmt.Errorf("%w: this account of the identity provider is another user's", ErrInUse)
	case !errors.Is(err, store.ErrNotFound):
		return i, revision, false, err
	}
	i = Identity{Issuer: a.Issuer, Subject: a.Subject}
	if link != nil {
		i.Login = link.Login
		return i, 0, false, nil
	}
	if !p.CreateUsers {
		return i, 0, false, fmt.Errorf("%w: it is linked with no user of %s; log in otherwise and link it", ErrFederated, org)
	}
	if i.Login, err = freeLogin(ctx, tx, org, a); err != nil {
		return i, 0, false, err
	}
	if _, err := Use(ctx, tx, org, MetricUsers, 1); err != nil {
		return i, 0, false, err
	}
	return i, 0, true, write(ctx, tx, userKey(org, i.Login), User{Login: i.Login}, store.Absent)
}

// freeLogin names a new user after what the provider says, and never takes over a user of that name.
func freeLogin(ctx context.Context, tx *store.Tx, org string, a Assertion) (string, error) {
	mark := identityKey(org, a.Issuer, a.Subject).Name[:12]
	var names []string
	wanted := []string{a.Login}
	if a.Verified {
		wanted = []string{a.Email, a.Login}
	}
	for _, n := range wanted {
		if n = strings.ToLower(n); len(n) <= maxLogin-len(mark)-1 && checkLogin(n) == nil {
			names = append(names, n, n+"-"+mark)
		}
	}
	for _, n := range append(names, "oidc-"+mark) {
		_, err := tx.Get(ctx, userKey(org, n))
		if errors.Is(err, store.ErrNotFound) {
			return n, nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("%w: no login is free for it", ErrFederated)
}

// asserted gives the roles that the provider asserts now, and takes away those that it gave and asserts no more. A role that
// a person gave is left as it is. Other providers' roles are theirs to take.
func asserted(ctx context.Context, tx *store.Tx, home Organization, p Provider, a Assertion, i *Identity) (given, taken []Asserted, err error) {
	of := Actor{Organization: home.Name, Login: i.Login}
	var now []Asserted
	for _, m := range p.Roles {
		g := Asserted{a.Provider, m.Organization, m.Project, m.Role}
		if !claims(a.Claims, m) || slices.Contains(now, g) {
			continue
		}
		may, err := mayAssert(ctx, tx, home, m)
		if err != nil {
			return nil, nil, err
		}
		if may {
			now = append(now, g)
		}
	}
	var others []Asserted
	for _, g := range i.Granted {
		switch {
		case g.Provider != a.Provider:
			others = append(others, g)
		case !slices.Contains(now, g):
			taken = append(taken, g)
			if err := takeAsserted(ctx, tx, of, g); err != nil {
				return nil, nil, err
			}
		}
	}
	for _, g := range now {
		wrote, err := giveAsserted(ctx, tx, of, g)
		if err != nil {
			return nil, nil, err
		}
		if wrote {
			given = append(given, g)
		}
	}
	if len(others) > maxBindings {
		others = others[len(others)-maxBindings:]
	}
	i.Granted = append(others, now...)
	return given, taken, nil
}

// mayAssert holds a mapping against the tree as Bind would: beside the user's home nothing is given.
func mayAssert(ctx context.Context, tx *store.Tx, home Organization, m RoleMapping) (bool, error) {
	o, _, err := organization(ctx, &tx.Reader, m.Organization)
	if err != nil {
		return false, ignoreNotFound(err)
	}
	if !slices.Contains(home.Path, o.Name) && !slices.Contains(o.Path, home.Name) {
		return false, nil
	}
	if m.Project != "" {
		_, err := tx.Get(ctx, projectKey(m.Organization, m.Project))
		return err == nil, ignoreNotFound(err)
	}
	return true, nil
}

func giveAsserted(ctx context.Context, tx *store.Tx, of Actor, g Asserted) (wrote bool, err error) {
	key := bindingKey(g.Organization, g.Project, of, g.Role)
	var b Binding
	_, err = read(ctx, &tx.Reader, key, &b)
	if ignoreNotFound(err) != nil {
		return false, err
	}
	if err == nil {
		byPerson := b.Provider == "" && (b.Expires == nil || b.Expires.After(tx.Now()))
		lasts := b.Provider == g.Provider.String() && b.Expires != nil && b.Expires.After(tx.Now().Add(sessionLife))
		if byPerson || lasts {
			return false, nil
		}
	} else {
		n := 0
		err := each(ctx, &tx.Reader, store.Query{Organization: g.Organization, Kind: KindBinding, Prefix: bindingPrefix(of)}, func(store.Document) error {
			n++
			return nil
		})
		if err != nil || n >= maxBindings {
			return false, errors.Join(err, limitOver("bindings of a user", n, maxBindings))
		}
	}
	end := tx.Now().Add(assertedLife)
	return true, write(ctx, tx, key, Binding{User: of.Login, Home: of.Organization, Role: g.Role, Expires: &end, Provider: g.Provider.String()}, store.Any)
}

func takeAsserted(ctx context.Context, tx *store.Tx, of Actor, g Asserted) error {
	key := bindingKey(g.Organization, g.Project, of, g.Role)
	var b Binding
	_, err := read(ctx, &tx.Reader, key, &b)
	if err != nil || b.Provider != g.Provider.String() {
		return ignoreNotFound(err) // a person took or gave it meanwhile
	}
	return tx.Delete(ctx, key, store.Any)
}

// claims says whether the claim that a mapping names has its value: as it is, or in a list.
func claims(all map[string]any, m RoleMapping) bool {
	if m.Claim == "" {
		return true
	}
	v, ok := all[m.Claim]
	if !ok { // names may hold dots themselves, so they come first
		v = all
		for _, part := range strings.Split(m.Claim, ".") {
			o, _ := v.(map[string]any)
			v = o[part]
		}
	}
	switch v := v.(type) {
	case string:
		return v == m.Value
	case []any:
		return slices.Contains(v, any(m.Value))
	}
	return false
}
