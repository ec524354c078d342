// Package enrol keeps join tokens, the certificates that were issued, and those that were revoked, in the control plane's
// store: a token is burnt in the transaction that keeps its certificate.
package enrol

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant/audit"
	"github.com/relais-edge/relais/internal/identity"
)

// Organization is the one that keeps what is here: no tenant can be called so.
const Organization = "~enrol"

// Kinds of documents.
const (
	kindToken        = "JoinToken"
	kindCertificates = "Certificates"
	kindRevoked      = "Revoked"
)

// Bounds.
const (
	maxTokens       = 1000 // that are kept at once, used ones for a day
	maxCertificates = 64   // of one PoP that have not ended
	maxTokenLife    = 7 * 24 * time.Hour
	keepTokens      = 24 * time.Hour // after their end, so that a person sees what became of them
)

var (
	// ErrInvalid says that what is asked for is not well formed.
	ErrInvalid = errors.New("not well formed")
	// ErrRevoked says that a PoP was revoked: it joins again with a new token.
	ErrRevoked = errors.New("the PoP was revoked; it can join again with a new token")
)

// Store is what this room needs of control/store.
type Store interface {
	View(ctx context.Context, fn func(*store.Reader) error) error
	Update(ctx context.Context, c store.Change, fn func(*store.Tx) error) (store.Commit, error)
}

// Service keeps tokens and certificates. It implements identity.Tokens.
type Service struct{ store Store }

// New is a service over a store.
func New(s Store) *Service { return &Service{s} }

// Token is what is known of a token.
type Token struct {
	ID      string    `json:"id"`
	Pop     string    `json:"pop"`
	Author  string    `json:"author"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Hash    string    `json:"hash"` // of the secret, hexadecimal
	// Of a token that was used:
	Used   time.Time `json:"used,omitzero"`
	Key    string    `json:"key,omitempty"`    // pin of the key, hexadecimal
	Answer []byte    `json:"answer,omitempty"` // for as long as it may be asked for again; not with Tokens
}

// certificates are those of a PoP that have not ended.
type certificates struct {
	Revoked bool               `json:"revoked,omitempty"`
	List    []identity.Revoked `json:"list"`
}

func key(kind, name string) store.Key {
	return store.Key{Organization: Organization, Kind: kind, Name: name}
}

// NewToken makes a token with which one machine can become the PoP, until it expires. URLs are where control planes
// answer, and pin is that of the root (identity.Pin).
func (s *Service) NewToken(ctx context.Context, author, pop string, life time.Duration, urls []string, pin [sha256.Size]byte) (identity.Token, error) {
	if !identity.ValidName(pop) {
		return identity.Token{}, fmt.Errorf("%w: %q is no name of a PoP; use a-z, 0-9 and hyphens inside, 63 at most", ErrInvalid, pop)
	}
	if life <= 0 || life > maxTokenLife {
		return identity.Token{}, fmt.Errorf("%w: a token lives for %s at most, and not %s", ErrInvalid, maxTokenLife, life)
	}
	made, err := identity.NewToken(urls, pin)
	if err != nil {
		return identity.Token{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	hash := made.Hash()
	_, err = s.store.Update(ctx, store.Change{Author: author, Reason: "a token for PoP " + pop}, func(tx *store.Tx) error {
		if err := s.makeRoom(ctx, tx); err != nil {
			return err
		}
		t := Token{ID: made.ID, Pop: pop, Author: author, Created: tx.Now(), Expires: tx.Now().Add(life), Hash: hex.EncodeToString(hash[:])}
		return errors.Join(put(ctx, tx, key(kindToken, t.ID), t, store.Absent), note(ctx, tx, author, "pop.token.create", pop, t.ID))
	})
	return made, err
}

// makeRoom removes tokens that ended long ago.
func (s *Service) makeRoom(ctx context.Context, tx *store.Tx) error {
	page, err := tx.List(ctx, store.Query{Organization: Organization, Kind: kindToken, Limit: maxTokens})
	if err != nil {
		return err
	}
	kept := len(page.Documents)
	for _, d := range page.Documents {
		var t Token
		if err := json.Unmarshal(d.Body, &t); err != nil {
			return fmt.Errorf("enrol: %s: %w", d.Key, err)
		}
		if tx.Now().Sub(t.Expires) < keepTokens {
			continue
		}
		if err := tx.Delete(ctx, d.Key, store.Any); err != nil {
			return err
		}
		kept--
	}
	if kept >= maxTokens {
		return &store.LimitError{What: "join tokens", Have: int64(kept) + 1, Most: maxTokens}
	}
	return nil
}

// Tokens lists what is known of tokens, in the order of their ids.
func (s *Service) Tokens(ctx context.Context) (list []Token, err error) {
	err = s.store.View(ctx, func(r *store.Reader) error {
		page, err := r.List(ctx, store.Query{Organization: Organization, Kind: kindToken, Limit: maxTokens})
		for _, d := range page.Documents {
			var t Token
			if err := json.Unmarshal(d.Body, &t); err != nil {
				return fmt.Errorf("enrol: %s: %w", d.Key, err)
			}
			t.Answer = nil
			list = append(list, t)
		}
		return err
	})
	return list, err
}

// DropToken takes a token back.
func (s *Service) DropToken(ctx context.Context, author, id string) error {
	_, err := s.store.Update(ctx, store.Change{Author: author, Reason: "token taken back"}, func(tx *store.Tx) error {
		var t Token
		if _, err := get(ctx, tx, key(kindToken, id), &t); err != nil {
			return err
		}
		return errors.Join(tx.Delete(ctx, key(kindToken, id), store.Any), note(ctx, tx, author, "pop.token.delete", t.Pop, id))
	})
	return err
}

// Redeem implements identity.Tokens.
func (s *Service) Redeem(ctx context.Context, q identity.Redemption, issue func(pop string) (identity.Issued, []byte, error)) (answer []byte, err error) {
	if !identity.ValidName(q.ID) {
		return nil, identity.ErrToken
	}
	_, err = s.store.Update(ctx, store.Change{Author: "token " + q.ID, Reason: "a machine joins"}, func(tx *store.Tx) error {
		answer = nil
		var t Token
		found, err := get(ctx, tx, key(kindToken, q.ID), &t)
		if errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("%w (unknown)", identity.ErrToken)
		}
		if err != nil {
			return err
		}
		if subtle.ConstantTimeCompare([]byte(t.Hash), []byte(hex.EncodeToString(q.Hash[:]))) != 1 {
			return fmt.Errorf("%w (wrong secret)", identity.ErrToken)
		}
		keyText := hex.EncodeToString(q.Key[:])
		if !t.Used.IsZero() {
			if t.Key != keyText || tx.Now().Sub(t.Used) >= identity.RetryTime {
				return fmt.Errorf("%w (used at %s)", identity.ErrToken, t.Used.UTC().Format(time.RFC3339))
			}
			answer = t.Answer
			return nil
		}
		if !tx.Now().Before(t.Expires) {
			return fmt.Errorf("%w (expired)", identity.ErrToken)
		}
		issued, text, err := issue(t.Pop)
		if err != nil {
			return err
		}
		t.Used, t.Key, t.Answer = tx.Now(), keyText, text
		answer = text
		return errors.Join(
			put(ctx, tx, key(kindToken, t.ID), t, store.Expect(found)),
			keep(ctx, tx, issued, true),
			note(ctx, tx, "token "+t.ID, "pop.join", t.Pop, issued.Serial))
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// Record keeps a certificate that was issued as another one ends. ErrRevoked: the PoP shall have none.
func (s *Service) Record(ctx context.Context, issued identity.Issued) error {
	_, err := s.store.Update(ctx, store.Change{Author: issued.Identity.String(), Reason: "a certificate renewed"}, func(tx *store.Tx) error {
		return keep(ctx, tx, issued, false)
	})
	return err
}

// keep adds a certificate to those of its PoP. One that joins anew is no longer revoked; its former certificates stay so.
func keep(ctx context.Context, tx *store.Tx, issued identity.Issued, joins bool) error {
	var c certificates
	k := key(kindCertificates, issued.Identity.Name)
	found, err := get(ctx, tx, k, &c)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if !joins && (c.Revoked || found == 0) {
		return fmt.Errorf("%w: %s", ErrRevoked, issued.Identity.Name)
	}
	c.Revoked, c.List = false, current(c.List, tx.Now())
	if len(c.List) >= maxCertificates {
		return &store.LimitError{What: "certificates of PoP " + issued.Identity.Name, Have: int64(len(c.List)) + 1, Most: maxCertificates}
	}
	c.List = append(c.List, identity.Revoked{Serial: issued.Serial, Until: issued.NotAfter})
	return put(ctx, tx, k, c, store.Expect(found))
}

func current(list []identity.Revoked, now time.Time) []identity.Revoked {
	return slices.DeleteFunc(list, func(r identity.Revoked) bool { return !now.Before(r.Until) })
}

// Revoke takes back all certificates of a PoP, and its tokens that were not used. store.ErrNotFound: it never joined.
func (s *Service) Revoke(ctx context.Context, author, pop, reason string) error {
	_, err := s.store.Update(ctx, store.Change{Author: author, Reason: reason}, func(tx *store.Tx) error {
		var c certificates
		k := key(kindCertificates, pop)
		if _, err := get(ctx, tx, k, &c); err != nil {
			return err
		}
		var all certificates
		found, err := get(ctx, tx, key(kindRevoked, "list"), &all)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		all.List = append(current(all.List, tx.Now()), current(c.List, tx.Now())...)
		if len(all.List) > identity.MaxRevoked {
			return &store.LimitError{What: "certificates that are revoked", Have: int64(len(all.List)), Most: identity.MaxRevoked}
		}
		return errors.Join(
			put(ctx, tx, key(kindRevoked, "list"), all, store.Expect(found)),
			put(ctx, tx, k, certificates{Revoked: true}, store.Any),
			dropTokens(ctx, tx, pop),
			note(ctx, tx, author, "pop.revoke", pop, reason))
	})
	return err
}

// dropTokens removes what a PoP could still join with.
func dropTokens(ctx context.Context, tx *store.Tx, pop string) error {
	page, err := tx.List(ctx, store.Query{Organization: Organization, Kind: kindToken, Limit: maxTokens})
	if err != nil {
		return err
	}
	for _, d := range page.Documents {
		var t Token
		if err := json.Unmarshal(d.Body, &t); err != nil {
			return fmt.Errorf("enrol: %s: %w", d.Key, err)
		}
		if t.Pop != pop {
			continue
		}
		if err := tx.Delete(ctx, d.Key, store.Any); err != nil {
			return err
		}
	}
	return nil
}

// Revoked is what identity.CA.RevokedList signs: certificates that were revoked and have not ended, and a number that grows
// with each change, also over the restoring of a backup, as it is the time of the change in microseconds. 0: none ever was.
func (s *Service) Revoked(ctx context.Context) (number uint64, list []identity.Revoked, err error) {
	err = s.store.View(ctx, func(r *store.Reader) error {
		d, err := r.Get(ctx, key(kindRevoked, "list"))
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		var c certificates
		if err := json.Unmarshal(d.Body, &c); err != nil {
			return fmt.Errorf("enrol: %s: %w", d.Key, err)
		}
		number, list = uint64(d.Updated.UnixMicro()), current(c.List, r.Now())
		return nil
	})
	return number, list, err
}

type getter interface {
	Get(ctx context.Context, k store.Key) (store.Document, error)
}

func get(ctx context.Context, r getter, k store.Key, into any) (revision int64, err error) {
	d, err := r.Get(ctx, k)
	if err != nil {
		return 0, err
	}
	if err := json.Unmarshal(d.Body, into); err != nil {
		return 0, fmt.Errorf("enrol: %s: %w", k, err)
	}
	return d.Revision, nil
}

func put(ctx context.Context, tx *store.Tx, k store.Key, what any, expect store.Expect) error {
	body, err := json.Marshal(what)
	if err != nil {
		return fmt.Errorf("enrol: %s: %w", k, err)
	}
	_, err = tx.Put(ctx, k, body, expect)
	return err
}

// note writes a line of the audit log, in the same transaction.
func note(ctx context.Context, tx *store.Tx, actor, action, pop, detail string) error {
	details, err := json.Marshal(map[string]string{"detail": detail})
	if err != nil {
		return err
	}
	_, err = audit.Append(ctx, tx, audit.Entry{Organization: Organization, Actor: actor, Action: action, Target: pop, Details: details})
	return err
}
