package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	upstream "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/relais-edge/relais/internal/control/egress"
)

// Bounds of what is asked of providers and known of them.
const (
	maxAnswer  = 256 << 10 // bytes of an answer: discovery, keys, tokens
	maxIssuers = 1024
	maxAtOnce  = 8 // logins of one issuer that ask it at a time
	metaLife   = time.Hour
	metaStale  = 24 * time.Hour   // what is known serves so long while the provider does not answer
	metaRetry  = 10 * time.Second // after it did not answer
)

// issuer is what is known of a provider. A slow one has its own places, and takes nobody else's.
type issuer struct {
	meta metadata
	keys *upstream.RemoteKeySet // asks anew for a key that it does not know

	turn    chan struct{} // one asks at a time what the provider says of itself
	slots   chan struct{}
	fetched time.Time
	tried   time.Time // the last time without an answer
	used    time.Time
}

// metadata is what a provider says of itself (OpenID Connect Discovery section 3).
type metadata struct {
	Authorization string   `json:"authorization_endpoint"`
	Token         string   `json:"token_endpoint"`
	Keys          string   `json:"jwks_uri"`
	AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
	SaysIssuer    bool     `json:"authorization_response_iss_parameter_supported"`
}

// style is how the client shows its secret. It is decided and not tried out, because a code is taken once.
func (m metadata) style(secret string) oauth2.AuthStyle {
	if secret == "" || len(m.AuthMethods) > 0 && !slices.Contains(m.AuthMethods, "client_secret_basic") {
		return oauth2.AuthStyleInParams
	}
	return oauth2.AuthStyleInHeader
}

// algorithms are the signatures that are taken, all with a public key.
func algorithms() []string {
	return []string{
		upstream.RS256, upstream.RS384, upstream.RS512, upstream.PS256, upstream.PS384, upstream.PS512,
		upstream.ES256, upstream.ES384, upstream.ES512, upstream.EdDSA,
	}
}

// keySet remembers whether a signature was not checked because the provider's keys could not be had.
type keySet struct {
	remote upstream.KeySet
	down   bool
}

// VerifySignature implements the library's KeySet.
func (k *keySet) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	b, err := k.remote.VerifySignature(ctx, jwt)
	k.down = err != nil && strings.HasPrefix(err.Error(), "fetching keys") // its only mark
	return b, err
}

// entry finds or makes an issuer's place in the table.
func (s *Service) entry(name string) *issuer {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.known[name]
	if i == nil {
		if len(s.known) >= maxIssuers {
			oldest := ""
			for n, o := range s.known {
				if oldest == "" || o.used.Before(s.known[oldest].used) {
					oldest = n
				}
			}
			delete(s.known, oldest)
		}
		i = &issuer{turn: make(chan struct{}, 1), slots: make(chan struct{}, maxAtOnce)}
		s.known[name] = i
	}
	i.used = s.clock()
	return i
}

// enter takes a place among those who ask a provider.
func (i *issuer) enter(ctx context.Context) (leave func(), err error) {
	select {
	case i.slots <- struct{}{}:
		return func() { <-i.slots }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: too many wait for it", ErrDown)
	}
}

// discover gives what is known of an issuer, and asks where that is nothing or old. It gives a copy, which does not change.
func (s *Service) discover(ctx context.Context, name string) (*issuer, error) {
	at := s.entry(name)
	select {
	case at.turn <- struct{}{}:
		defer func() { <-at.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: too many wait for it", ErrDown)
	}
	now := s.clock()
	age := now.Sub(at.fetched)
	if at.keys != nil && age < metaLife {
		return at.copy(), nil
	}
	err := errors.New("it did not answer a moment ago")
	if at.tried.IsZero() || now.Sub(at.tried) >= metaRetry {
		if err = s.ask(ctx, at, name); err == nil {
			at.fetched, at.tried = now, time.Time{}
			return at.copy(), nil
		}
		at.tried = now
	}
	if at.keys != nil && age < metaStale {
		return at.copy(), nil
	}
	return nil, fmt.Errorf("%w: %w", ErrDown, err)
}

func (i *issuer) copy() *issuer { return &issuer{meta: i.meta, keys: i.keys, slots: i.slots} }

// ask reads what the provider says of itself. The keys are had anew with it, so that one that it took away is not taken for
// longer than what is known of it.
func (s *Service) ask(ctx context.Context, at *issuer, name string) error {
	p, err := upstream.NewProvider(upstream.ClientContext(ctx, s.client), name)
	if err != nil {
		return err
	}
	var m metadata
	if err := p.Claims(&m); err != nil {
		return err
	}
	for _, to := range []string{m.Authorization, m.Token, m.Keys} {
		u, err := url.Parse(to)
		if err == nil {
			err = egress.CheckURL(u, s.loopback)
		}
		if err != nil {
			return fmt.Errorf("it names %q: %w", to[:min(len(to), 200)], err)
		}
	}
	at.meta = m
	at.keys = upstream.NewRemoteKeySet(upstream.ClientContext(context.WithoutCancel(ctx), s.client), m.Keys)
	return nil
}
