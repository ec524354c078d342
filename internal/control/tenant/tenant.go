// Package tenant is who may do what, and how much of it: the tree of organizations with their projects, users, roles,
// tokens, guardrails, plans and quotas. Everything is a document of control/store, and every change is in the audit log,
// in one transaction.
package tenant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant/audit"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
)

// Kinds of the documents that this room writes. Nobody else writes them.
const (
	KindOrganization = "Organization"
	KindChild        = "Child" // in the parent: that there is such an organization
	KindProject      = "Project"
	KindUser         = "User"
	KindRole         = "Role"
	KindBinding      = "Binding"
	KindToken        = "ApiToken"
	KindGuardrails   = "Guardrails"
	KindPlan         = "Plan"
	KindCounter      = "Counter"
	KindProvider     = "IdentityProvider"
	KindIdentity     = "Identity" // which user somebody is whom a provider names
	KindBrand        = "Brand"    // written by tenant/brand
	KindStanding     = "Standing"
	KindBudget       = "Budget"   // written by control/usage
	KindPopCosts     = "PopCosts" // written by control/usage
	KindUsage        = "Usage"    // no document: what is asked for by who reads usage
	KindInvoice      = "Invoice"  // no document
)

// quotaOrganization holds the counters: in organizations of their own they would be revisions of these. No organization of
// a tenant begins with a tilde.
const quotaOrganization = "~quota"

// Bounds.
const (
	maxDepth    = 8
	maxLabel    = 63
	maxTitle    = 256
	maxLogin    = 128
	maxBindings = 64  // of one user in one organization
	maxRules    = 64  // of a role or token
	maxWords    = 128 // kinds or verbs of a rule
	maxDevices  = 16  // known devices of a user
	maxBounds   = 256 // of an organization's guardrails
	maxMetrics  = 64  // of a plan
)

var (
	// ErrDenied says that the actor may not; it does not say whether what he asked for exists.
	ErrDenied = errors.New("not allowed")
	// ErrInvalid says that an argument is not well formed.
	ErrInvalid = errors.New("not well formed")
	// ErrInUse says that something still belongs to it.
	ErrInUse = errors.New("still in use")
)

// Store is what tenancy needs of control/store.
type Store interface {
	View(ctx context.Context, fn func(*store.Reader) error) error
	Update(ctx context.Context, c store.Change, fn func(*store.Tx) error) (store.Commit, error)
}

// Service does what tenants ask for.
type Service struct {
	store  Store
	vault  *secret.Vault
	hasher *auth.Hasher
	logins *auth.Throttle // wrong passwords
	codes  *auth.Throttle // wrong second factors, of those who know the password
	issuer string
	clock  func() time.Time // of the throttles

	loopback bool
	denials  *denials
}

// Config is what a Service is made of.
type Config struct {
	Store  Store
	Vault  *secret.Vault
	Hasher *auth.Hasher
	Logins *auth.Throttle   // nil: the defaults
	Codes  *auth.Throttle   // nil: strict, 20 wrong codes an hour from unknown devices
	Issuer string           // shown by authenticator programs
	Clock  func() time.Time // nil: time.Now
	// Loopback lets identity providers be on this machine, and without TLS there: for tests.
	Loopback bool
}

// New makes a Service.
func New(c Config) *Service {
	s := &Service{
		store: c.Store, vault: c.Vault, hasher: c.Hasher, logins: c.Logins, codes: c.Codes, issuer: c.Issuer, clock: c.Clock,
		loopback: c.Loopback, denials: newDenials(),
	}
	if s.logins == nil {
		s.logins = auth.NewThrottle(auth.ThrottleConfig{})
	}
	if s.codes == nil {
		s.codes = auth.NewThrottle(auth.ThrottleConfig{Attacked: 20, Strict: true})
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	return s
}

// Actor is who does something: a user, perhaps through a token, which allows less.
type Actor struct {
	Organization string // home of the user
	Login        string
	Token        *Grant // nil: the user himself
	Session      string // id of the session that he is in; empty: none
}

// Grant is what a token allows of what its user may.
type Grant struct {
	ID           string
	Organization string // and those below it
	Project      string // empty: all
	Rules        []Rule
	Expires      time.Time
}

// String is how the actor stands in revisions and the audit log.
func (a Actor) String() string {
	s := a.Login + "@" + a.Organization
	if a.Token != nil {
		s += " by token " + a.Token.ID
	}
	return s
}

// act is one change: who, what, to what, why.
type act struct {
	actor        Actor
	organization string // whose audit log tells of it
	action       string
	target       string
	reason       string
	details      any
}

// Change does fn for another room and writes it to the organization's audit log, in one transaction. An attempt that ends
// with ErrDenied is written to that of the actor's own.
func (s *Service) Change(ctx context.Context, actor Actor, org, action, target string, details any, fn func(tx *store.Tx) error) error {
	return s.change(ctx, act{actor: actor, organization: org, action: action, target: target, details: details}, fn)
}

// change does fn and writes it to the audit log, in one transaction.
func (s *Service) change(ctx context.Context, a act, fn func(tx *store.Tx) error) error {
	_, err := s.store.Update(ctx, store.Change{Author: a.actor.String(), Reason: a.reason}, func(tx *store.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return s.record(ctx, tx, a)
	})
	return s.denied(ctx, a, err)
}

func (s *Service) record(ctx context.Context, tx *store.Tx, a act) error {
	e := audit.Entry{Organization: a.organization, Actor: a.actor.String(), Action: a.action, Target: a.target, Reason: a.reason}
	if a.details != nil {
		b, err := json.Marshal(a.details)
		if err != nil {
			return fmt.Errorf("tenant: %w", err)
		}
		e.Details = b
	}
	_, err := audit.Append(ctx, tx, e)
	return err
}

// read decodes a document.
func read(ctx context.Context, r *store.Reader, key store.Key, into any) (revision int64, err error) {
	d, err := r.Get(ctx, key)
	if err != nil {
		return 0, err
	}
	return d.Revision, decodeBody(d, into)
}

func decodeBody(d store.Document, into any) error {
	if err := json.Unmarshal(d.Body, into); err != nil {
		return fmt.Errorf("tenant: %s is damaged: %w", d.Key, err)
	}
	return nil
}

func write(ctx context.Context, tx *store.Tx, key store.Key, v any, expect store.Expect) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("tenant: %w", err)
	}
	_, err = tx.Put(ctx, key, b, expect)
	return err
}

// each calls fn with every document of a list, page by page.
func each(ctx context.Context, r *store.Reader, q store.Query, fn func(store.Document) error) error {
	for {
		p, err := r.List(ctx, q)
		if err != nil {
			return err
		}
		for _, d := range p.Documents {
			if err := fn(d); err != nil {
				return err
			}
		}
		if q.Cursor = p.Next; q.Cursor == "" {
			return nil
		}
	}
}

// checkLabel holds a name against what documents allow (api/v1): lower-case letters, digits, - and .
func checkLabel(what, s string) error {
	ok := s != "" && len(s) <= maxLabel && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-.") == "" && strings.Trim(s, "-.") == s
	for i := range len(s) {
		ok = ok && (s[i] == '-' || s[i] == '.' || s[i] >= '0' && s[i] <= '9' || s[i] >= 'a' && s[i] <= 'z')
	}
	if !ok {
		return fmt.Errorf("%w: %s %q; use at most %d lower-case letters, digits, - and ., beginning and ending with a letter or a digit", ErrInvalid, what, s, maxLabel)
	}
	return nil
}

func checkLogin(s string) error {
	ok := s != "" && len(s) <= maxLogin
	for i := range len(s) {
		ok = ok && (strings.IndexByte("-._+@", s[i]) >= 0 || s[i] >= '0' && s[i] <= '9' || s[i] >= 'a' && s[i] <= 'z')
	}
	if !ok {
		return fmt.Errorf("%w: login %q; use at most %d lower-case letters, digits, - . _ + and @", ErrInvalid, s, maxLogin)
	}
	return nil
}
