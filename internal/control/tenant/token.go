package tenant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
)

// maxTokenLife is how far ahead a token may expire: one that nobody knows of any more ends by itself.
const maxTokenLife = 400 * 24 * time.Hour

// Token is what is kept of a token: it does what its rules allow and its user may, in a part of the tree.
type Token struct {
	ID      string    `json:"id"`
	Hash    string    `json:"hash"` // of its secret
	Title   string    `json:"title,omitempty"`
	User    string    `json:"user"` // whose rights it has, of the organization that keeps it
	Scope   string    `json:"scope"`
	Project string    `json:"project,omitempty"`
	Rules   []Rule    `json:"rules"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// TokenRequest is what a new token shall be.
type TokenRequest struct {
	User    string // empty: the actor's own; else a service of the actor's organization
	Title   string
	Scope   string // organization; empty: the actor's
	Project string // empty: all
	Rules   []Rule
	Expires time.Time
}

func tokenKey(org, id string) store.Key {
	return store.Key{Organization: org, Kind: KindToken, Name: id}
}

// CreateToken makes a token, whose text is shown once. Nobody makes one that may more than himself.
func (s *Service) CreateToken(ctx context.Context, actor Actor, q TokenRequest) (text string, err error) {
	if q.User == "" {
		q.User = actor.Login
	}
	if q.Scope == "" {
		q.Scope = actor.Organization
	}
	if len(q.Title) > maxTitle {
		return "", &store.LimitError{What: "bytes of title", Have: int64(len(q.Title)), Most: maxTitle}
	}
	if err := checkRules(q.Rules); err != nil {
		return "", err
	}
	made := auth.NewToken(actor.Organization)
	org := actor.Organization
	err = s.change(ctx, act{actor: actor, organization: org, action: "token.create", target: made.ID, details: q}, func(tx *store.Tx) error {
		if !q.Expires.After(tx.Now()) || q.Expires.After(tx.Now().Add(maxTokenLife)) {
			return fmt.Errorf("%w: a token expires, within %d days", ErrInvalid, maxTokenLife/(24*time.Hour))
		}
		if err := s.mayHaveToken(ctx, tx, actor, q); err != nil {
			return err
		}
		if _, err := Use(ctx, tx, org, MetricTokens, 1); err != nil {
			return err
		}
		return write(ctx, tx, tokenKey(org, made.ID), Token{
			ID: made.ID, Hash: auth.HashSecret(made.Secret), Title: q.Title, User: q.User, Scope: q.Scope, Project: q.Project,
			Rules: q.Rules, Created: tx.Now(), Expires: q.Expires.UTC(),
		}, store.Absent)
	})
	if err != nil {
		return "", err
	}
	return made.String(), nil
}

// mayHaveToken asks that the actor has, where the token will be used, all that it allows.
func (s *Service) mayHaveToken(ctx context.Context, tx *store.Tx, actor Actor, q TokenRequest) error {
	if q.User != actor.Login {
		var u User
		if _, err := read(ctx, &tx.Reader, userKey(actor.Organization, q.User), &u); err != nil || !u.Service {
			return errors.Join(ignoreNotFound(err), fmt.Errorf("%w: %s is no service of organization %s", ErrInvalid, q.User, actor.Organization))
		}
		if err := s.Authorize(ctx, &tx.Reader, actor, Access{VerbWrite, KindToken, actor.Organization, ""}); err != nil {
			return err
		}
	}
	if t := actor.Token; t != nil && q.Expires.After(t.Expires) {
		return fmt.Errorf("%w: the token would outlive the one that makes it", ErrDenied)
	}
	own, err := s.rulesOf(ctx, &tx.Reader, actor, q.Scope, q.Project)
	if err != nil {
		return err
	}
	if t := actor.Token; t != nil && !(covers(t.Rules, q.Rules) && allow(t.Rules, VerbWrite, KindToken)) || !covers(own, q.Rules) {
		return fmt.Errorf("%w: the token would allow more than %s may in organization %s", ErrDenied, actor, q.Scope)
	}
	return nil
}

// Authenticate finds out whose a token is. What it may is asked at each use, of the bindings of then.
func (s *Service) Authenticate(ctx context.Context, text string) (Actor, error) {
	t, err := auth.ParseToken(text)
	if err != nil {
		return Actor{}, err
	}
	var kept Token
	var u User
	now := time.Time{}
	err = s.store.View(ctx, func(r *store.Reader) error {
		now = r.Now()
		if _, err := read(ctx, r, tokenKey(t.Organization, t.ID), &kept); err != nil {
			return err
		}
		_, err := read(ctx, r, userKey(t.Organization, kept.User), &u)
		return err
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Actor{}, err
	}
	if err != nil || !auth.SameSecret(kept.Hash, t.Secret) || !kept.Expires.After(now) || u.Disabled {
		return Actor{}, auth.ErrToken
	}
	return Actor{Organization: t.Organization, Login: kept.User, Token: &Grant{kept.ID, kept.Scope, kept.Project, kept.Rules, kept.Expires}}, nil
}

// RevokeToken ends a token: the user's own, or one of the organization by who may delete tokens.
func (s *Service) RevokeToken(ctx context.Context, actor Actor, org, id string) error {
	return s.change(ctx, act{actor: actor, organization: org, action: "token.revoke", target: id}, func(tx *store.Tx) error {
		var t Token
		_, err := read(ctx, &tx.Reader, tokenKey(org, id), &t)
		if err != nil {
			return deny(err, actor, org)
		}
		own := actor.Organization == org && t.User == actor.Login && (actor.Token == nil || actor.Token.ID == id)
		if !own {
			if err := s.Authorize(ctx, &tx.Reader, actor, Access{VerbDelete, KindToken, org, ""}); err != nil {
				return err
			}
		}
		if _, err := Use(ctx, tx, org, MetricTokens, -1); err != nil {
			return err
		}
		return tx.Delete(ctx, tokenKey(org, id), store.Any)
	})
}

// Tokens lists an organization's tokens, without what proves them: all of them to who may read tokens, else one's own.
func (s *Service) Tokens(ctx context.Context, actor Actor, org, cursor string, limit int) (list []Token, next string, err error) {
	err = s.store.View(ctx, func(r *store.Reader) error {
		denied := s.Authorize(ctx, r, actor, Access{VerbRead, KindToken, org, ""})
		if denied != nil && (!errors.Is(denied, ErrDenied) || actor.Organization != org || actor.Token != nil) {
			return denied
		}
		p, err := r.List(ctx, store.Query{Organization: org, Kind: KindToken, Cursor: cursor, Limit: limit})
		for _, d := range p.Documents {
			var t Token
			if err := decodeBody(d, &t); err != nil {
				return err
			}
			t.Hash = ""
			list = append(list, t)
		}
		next = p.Next
		if denied != nil {
			list = slices.DeleteFunc(list, func(t Token) bool { return t.User != actor.Login })
		}
		return err
	})
	return list, next, s.Denied(ctx, actor, org, "read "+KindToken, "", err)
}

// ExpireTokens removes tokens that expired, a page at a time; the leader calls it now and then. It gives how many went.
func (s *Service) ExpireTokens(ctx context.Context, lease *store.Lease) (n int, err error) {
	q := store.Query{Kind: KindToken, Limit: 200}
	for {
		var page store.Page
		gone := 0
		_, err := s.store.Update(ctx, store.Change{Author: "expiry of tokens", Lease: lease}, func(tx *store.Tx) error {
			if page, err = tx.List(ctx, q); err != nil {
				return err
			}
			for _, d := range page.Documents {
				var t Token
				if err := decodeBody(d, &t); err != nil {
					return err
				}
				if t.Expires.After(tx.Now()) {
					continue
				}
				gone++
				if err := tx.Delete(ctx, d.Key, store.Expect(d.Revision)); err != nil {
					return err
				}
				if _, err := Use(ctx, tx, d.Organization, MetricTokens, -1); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return n, err
		}
		n += gone
		if q.Cursor = page.Next; q.Cursor == "" {
			return n, nil
		}
	}
}
