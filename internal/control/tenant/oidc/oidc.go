// Package oidc logs people in by OpenID providers of organizations: the authorization code flow of OpenID Connect Core
// section 3.1 with PKCE (RFC 7636). It has no HTTP of its own; the API sends people to a URL and brings back what they came with.
package oidc

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	upstream "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/relais-edge/relais/internal/control/egress"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
)

// Bounds.
const (
	pendingLife  = 10 * time.Minute // from Begin to Finish
	usualPending = 2000             // logins that began, of the providers of one organization
	maxRedirect  = 512
	maxCode      = 4096
	maxIDToken   = 32 << 10
	skew         = time.Minute // between the provider's clock and ours
)

var (
	// ErrState says that the login was not begun here, began too long ago, or was finished already.
	ErrState = errors.New("this login is not under way; begin again")
	// ErrRefused says that the provider did not let the person in.
	ErrRefused = errors.New("the identity provider refused the login")
	// ErrProof says that what the provider sent proves nothing.
	ErrProof = errors.New("what the identity provider sent does not prove who this is")
	// ErrDown says that the provider is not there, too slow, or answers what is none of its business.
	ErrDown = errors.New("the identity provider does not answer as it should; try again later, or log in otherwise")
	// ErrBusy says that too many logins are under way.
	ErrBusy = errors.New("too many logins by this organization's identity providers are under way; try again")
)

// Config is what a Service is made of.
type Config struct {
	Store    tenant.Store
	Tenant   *tenant.Service
	Clock    func() time.Time        // nil: time.Now
	Timeout  time.Duration           // of one login's questions to the provider; 10 s
	Allowed  func(a netip.Addr) bool // addresses that may be asked beside public ones; nil: none
	Loopback bool                    // providers may be on this machine, without TLS there: for tests
	Roots    *x509.CertPool          // nil: the system's
	Pending  int64                   // logins that began, of the providers of one organization; 2,000
}

// Service logs people in.
type Service struct {
	store    tenant.Store
	tenant   *tenant.Service
	clock    func() time.Time
	timeout  time.Duration
	loopback bool
	pending  int64
	client   *http.Client

	mu     sync.Mutex
	known  map[string]*issuer
	counts Counts
}

// Counts are what became of logins in this process.
type Counts struct {
	Begun    uint64
	Busy     uint64 // refused, because too many are under way
	In       uint64
	State    uint64 // ended with ErrState
	Refused  uint64
	Unproved uint64
	Down     uint64
	Denied   uint64 // proved, and without a way in
}

// New makes a Service.
func New(c Config) *Service {
	s := &Service{store: c.Store, tenant: c.Tenant, clock: c.Clock, timeout: c.Timeout, loopback: c.Loopback, pending: c.Pending, known: map[string]*issuer{}}
	if s.clock == nil {
		s.clock = time.Now
	}
	if s.pending <= 0 {
		s.pending = usualPending
	}
	if s.timeout <= 0 {
		s.timeout = 10 * time.Second
	}
	allowed := c.Allowed
	if c.Loopback {
		allowed = func(a netip.Addr) bool { return a.IsLoopback() || c.Allowed != nil && c.Allowed(a) }
	}
	transport := egress.Transport(allowed, s.timeout)
	if c.Roots != nil {
		transport.TLSClientConfig = &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12}
	}
	s.client = &http.Client{
		Timeout: s.timeout, Transport: egress.Secure(transport, c.Loopback, maxAnswer),
		// What a provider says of itself is where it says it is: who follows it elsewhere asks somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s
}

// Counts gives the counts of this process.
func (s *Service) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

func (s *Service) count(fn func(*Counts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(&s.counts)
}

// pending is a login that began.
type pending struct {
	Organization string             `json:"organization"` // of who logs in
	Provider     tenant.ProviderRef `json:"provider"`
	Issuer       string             `json:"issuer"`
	Client       string             `json:"client"`
	Redirect     string             `json:"redirect"`
	Nonce        string             `json:"nonce"`
	Verifier     string             `json:"verifier"`
	Link         *tenant.Actor      `json:"link,omitempty"`
	Began        time.Time          `json:"began"`
}

func space(org string) string { return "oidc/" + org }

// Callback is with what somebody came back from a provider.
type Callback struct {
	State    string
	Code     string
	Issuer   string // the parameter iss (RFC 9207), where there is one
	Refusal  string // the parameter error, where there is one
	Redirect string // the URL that he came to, without its query
	Source   netip.Addr
}

// Login is who came in. OpenSession takes Provider, so that the session ends with it.
type Login struct {
	tenant.Actor
	Provider tenant.ProviderRef
}

// Begin gives the URL to which somebody is sent who wants to log in to an organization by one of its providers, or of one
// above it, and a state, which the API keeps in a cookie of that browser: a callback whose state is not the cookie's is
// somebody else's login. Redirect is where he comes back to. Its path holds the provider as /ORGANIZATION/NAME/, so that no
// provider is given what is another's (RFC 9700 section 4.4.2).
func (s *Service) Begin(ctx context.Context, org, provider, redirect string) (to, state string, err error) {
	return s.begin(ctx, org, provider, redirect, nil)
}

// BeginLink is Begin for who is logged in, and wants to log in by the provider from now on.
func (s *Service) BeginLink(ctx context.Context, actor tenant.Actor, provider, redirect string) (to, state string, err error) {
	if actor.Token != nil {
		return "", "", fmt.Errorf("%w: a token is linked with nobody", tenant.ErrDenied)
	}
	return s.begin(ctx, actor.Organization, provider, redirect, &actor)
}

func (s *Service) begin(ctx context.Context, org, provider, redirect string, link *tenant.Actor) (to, state string, err error) {
	ref, p, _, err := s.tenant.FindProvider(ctx, org, provider)
	if err != nil {
		return "", "", err
	}
	if err := s.checkRedirect(redirect, ref); err != nil {
		return "", "", err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	i, err := s.discover(ctx, p.Issuer)
	if err != nil {
		s.count(func(c *Counts) { c.Down++ })
		return "", "", err
	}
	secret := auth.NewSecret()
	state = ref.Organization + "." + secret
	began := pending{
		Organization: org, Provider: ref, Issuer: p.Issuer, Client: p.ClientID, Redirect: redirect,
		Nonce: auth.NewSecret(), Verifier: oauth2.GenerateVerifier(), Link: link, Began: s.clock(),
	}
	b, err := json.Marshal(began)
	if err != nil {
		return "", "", fmt.Errorf("oidc: %w", err)
	}
	room := func(r *store.Reader) error {
		n, err := r.CountEphemera(ctx, space(ref.Organization), "")
		if err == nil && n >= s.pending {
			err = ErrBusy
		}
		return err
	}
	if err = s.store.View(ctx, room); err == nil { // who fills the room takes no writers' lock then
		_, err = s.store.Update(ctx, store.Change{Author: "login by " + ref.String()}, func(tx *store.Tx) error {
			if err := room(&tx.Reader); err != nil {
				return err
			}
			return tx.Keep(ctx, store.Ephemeral{
				Space: space(ref.Organization), Name: auth.HashSecret(secret), Owner: ref.String(), Expires: tx.Now().Add(pendingLife), Body: b,
			})
		})
	}
	if err != nil {
		if errors.Is(err, ErrBusy) {
			s.count(func(c *Counts) { c.Busy++ })
		}
		return "", "", err
	}
	s.count(func(c *Counts) { c.Begun++ })
	c := config(p, "", i, redirect)
	return c.AuthCodeURL(state, upstream.Nonce(began.Nonce), oauth2.S256ChallengeOption(began.Verifier)), state, nil
}

func (s *Service) checkRedirect(redirect string, ref tenant.ProviderRef) error {
	u, err := url.Parse(redirect)
	if err != nil || len(redirect) > maxRedirect || u.RawQuery != "" || u.Fragment != "" || egress.CheckURL(u, s.loopback) != nil ||
		!strings.Contains(u.Path+"/", "/"+ref.String()+"/") {
		return fmt.Errorf("%w: a redirect is an https URL without a query whose path holds /%s/", tenant.ErrInvalid, ref)
	}
	return nil
}

// config is the client at a provider.
func config(p tenant.Provider, secret string, i *issuer, redirect string) *oauth2.Config {
	scopes := p.Scopes
	if len(scopes) == 0 {
		scopes = []string{"email", "profile"}
	}
	return &oauth2.Config{
		ClientID: p.ClientID, ClientSecret: secret, RedirectURL: redirect, Scopes: append([]string{upstream.ScopeOpenID}, scopes...),
		Endpoint: oauth2.Endpoint{AuthURL: i.meta.Authorization, TokenURL: i.meta.Token, AuthStyle: i.meta.style(secret)},
	}
}

// take ends a pending login, for one callback: a second one with the same state finds nothing.
func (s *Service) take(ctx context.Context, c Callback) (p pending, err error) {
	at := strings.LastIndexByte(c.State, '.') // names of organizations may hold dots
	if at < 1 || len(c.State) > 256 || !utf8.ValidString(c.State) || strings.ContainsFunc(c.State, unicode.IsControl) {
		return p, ErrState
	}
	org, secret := c.State[:at], c.State[at+1:]
	// Looked for first without the lock of all writers: anybody may come with a made-up state.
	err = s.store.View(ctx, func(r *store.Reader) error {
		_, err := r.Ephemeral(ctx, space(org), auth.HashSecret(secret))
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return p, ErrState
	}
	if err != nil {
		return p, err
	}
	_, err = s.store.Update(ctx, store.Change{Author: "login by a provider of " + org}, func(tx *store.Tx) error {
		name := auth.HashSecret(secret)
		e, err := tx.Ephemeral(ctx, space(org), name)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(e.Body, &p); err != nil {
			return fmt.Errorf("oidc: a login that began is damaged: %w", err)
		}
		_, err = tx.Forget(ctx, space(org), name)
		return err
	})
	if errors.Is(err, store.ErrNotFound) { // another callback was first
		err = ErrState
	}
	if err == nil && c.Redirect != p.Redirect {
		err = fmt.Errorf("%w: it came back to another provider's address", ErrState)
	}
	return p, err
}

// Finish lets in who came back, once for each login that began. The errors are those above, tenant.ErrFederated, and the store's.
func (s *Service) Finish(ctx context.Context, c Callback) (Login, error) {
	in, err := s.finish(ctx, c)
	s.count(func(n *Counts) {
		switch {
		case err == nil:
			n.In++
		case errors.Is(err, ErrState):
			n.State++
		case errors.Is(err, ErrRefused):
			n.Refused++
		case errors.Is(err, ErrProof):
			n.Unproved++
		case errors.Is(err, ErrDown):
			n.Down++
		case errors.Is(err, tenant.ErrFederated):
			n.Denied++
		}
	})
	return in, err
}

func (s *Service) finish(ctx context.Context, c Callback) (in Login, err error) {
	began, err := s.take(ctx, c)
	if err != nil {
		return in, err
	}
	ref, p, secret, err := s.tenant.FindProvider(ctx, began.Organization, began.Provider.Name)
	if errors.Is(err, store.ErrNotFound) || err == nil && (ref != began.Provider || p.Issuer != began.Issuer || p.ClientID != began.Client) {
		return in, fmt.Errorf("%w: the provider was changed meanwhile", ErrState)
	}
	if err != nil {
		return in, err
	}
	asking, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	i, err := s.discover(asking, p.Issuer)
	if err != nil {
		return in, err
	}
	switch {
	case c.Issuer != "" && c.Issuer != p.Issuer, c.Issuer == "" && i.meta.SaysIssuer: // RFC 9207 section 2.4
		return in, fmt.Errorf("%w: it came back from another provider", ErrState)
	case c.Refusal != "":
		return in, fmt.Errorf("%w: %q", ErrRefused, c.Refusal[:min(len(c.Refusal), 100)])
	case c.Code == "" || len(c.Code) > maxCode:
		return in, fmt.Errorf("%w: it sent no code", ErrRefused)
	}
	leave, err := i.enter(asking)
	if err != nil {
		return in, err
	}
	defer leave()
	a, err := s.prove(asking, began, p, secret, i, c.Code)
	if err != nil {
		return in, err
	}
	actor, err := s.tenant.LoginAsserted(ctx, began.Organization, a, c.Source, began.Link)
	return Login{actor, ref}, err
}

// prove exchanges the code, and checks the token that comes for it.
func (s *Service) prove(ctx context.Context, began pending, p tenant.Provider, secret string, i *issuer, code string) (a tenant.Assertion, err error) {
	ctx = upstream.ClientContext(ctx, s.client)
	t, err := config(p, secret, i, began.Redirect).Exchange(ctx, code, oauth2.VerifierOption(began.Verifier))
	if err != nil {
		var said *oauth2.RetrieveError
		if errors.As(err, &said) && said.Response.StatusCode/100 == 4 && said.Response.StatusCode != http.StatusTooManyRequests {
			return a, fmt.Errorf("%w: it does not take the code (%q)", ErrRefused, said.ErrorCode)
		}
		return a, fmt.Errorf("%w: %w", ErrDown, err)
	}
	raw, _ := t.Extra("id_token").(string)
	if raw == "" || len(raw) > maxIDToken {
		return a, fmt.Errorf("%w: its ID token has %d bytes", ErrProof, len(raw))
	}
	keys := &keySet{remote: i.keys}
	// The algorithms are ours: a token that says HS256 would be checked with a key that everybody knows, and one that says
	// none not at all.
	verifier := upstream.NewVerifier(p.Issuer, keys, &upstream.Config{ClientID: p.ClientID, SupportedSigningAlgs: algorithms(), Now: s.clock})
	id, err := verifier.Verify(ctx, raw)
	if err != nil {
		if keys.down {
			return a, fmt.Errorf("%w: %w", ErrDown, err)
		}
		return a, fmt.Errorf("%w: %w", ErrProof, err)
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return a, fmt.Errorf("%w: %w", ErrProof, err)
	}
	if err := s.check(began, p, id, claims, t.AccessToken); err != nil {
		return a, err
	}
	a = tenant.Assertion{Provider: began.Provider, Issuer: p.Issuer, Subject: id.Subject, Claims: claims}
	a.Email, _ = claims["email"].(string)
	a.Login, _ = claims["preferred_username"].(string)
	a.Verified = claims["email_verified"] == true || claims["email_verified"] == "true" // some providers write texts
	return a, nil
}

// check is what the library leaves to us (OpenID Connect Core section 3.1.3.7).
func (s *Service) check(began pending, p tenant.Provider, id *upstream.IDToken, claims map[string]any, access string) error {
	party, hasParty := claims["azp"]
	now := s.clock()
	switch {
	case subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(began.Nonce)) != 1:
		return fmt.Errorf("%w: its nonce is another login's", ErrProof)
	case hasParty && party != p.ClientID, !hasParty && len(id.Audience) > 1:
		return fmt.Errorf("%w: it is for another client", ErrProof)
	case id.IssuedAt.After(now.Add(skew)) || id.IssuedAt.Before(began.Began.Add(-skew)):
		return fmt.Errorf("%w: it was issued at %s, not during this login", ErrProof, id.IssuedAt.UTC().Format(time.RFC3339))
	case !id.Expiry.After(now):
		return fmt.Errorf("%w: it expired", ErrProof)
	case id.AccessTokenHash != "" && id.VerifyAccessToken(access) != nil:
		return fmt.Errorf("%w: it came with another access token", ErrProof)
	}
	return nil
}
