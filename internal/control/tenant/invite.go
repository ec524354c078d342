package tenant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
)

// How long a user may take to set his password, and at most.
const (
	inviteLife, maxInviteLife = 72 * time.Hour, 7 * 24 * time.Hour
	resetLife, maxResetLife   = time.Hour, 24 * time.Hour
)

// ErrInvitation says that a one-time link is not valid (any more); it says no more to whom it may be.
var ErrInvitation = errors.New("the link is not valid any more; ask for a new one")

// invitation lets somebody set a user's password once.
type invitation struct {
	Hash  string `json:"hash"` // of its secret
	Login string `json:"login"`
	Reset bool   `json:"reset,omitempty"`
	By    Actor  `json:"by"` // who must still be allowed to when it is used
}

// Invite makes a user without a password, or takes one who never set his, and gives the text of a one-time link by which
// he sets it, once, within life (0: 72 hours; at most 7 days). A later one ends the former. Bind gives rights.
func (s *Service) Invite(ctx context.Context, actor Actor, org, login string, life time.Duration) (text string, err error) {
	if err := checkLogin(login); err != nil {
		return "", err
	}
	return s.offer(ctx, actor, org, login, "user.invite", life, func(tx *store.Tx) error {
		var u User
		_, err := read(ctx, &tx.Reader, userKey(org, login), &u)
		switch {
		case err == nil && (u.Service || u.Password != "" || u.Disabled):
			return fmt.Errorf("%w: user %s of %s has a password, is a service, or is disabled", ErrInUse, login, org)
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		if _, err := Use(ctx, tx, org, MetricUsers, 1); err != nil {
			return err
		}
		return write(ctx, tx, userKey(org, login), User{Login: login}, store.Absent)
	})
}

// OfferReset gives the text of a one-time link by which a user whom the actor manages sets a new password, within life (0:
// an hour; at most 24). Until he does, the former one holds. His second factor stays: who steals the link has not got it.
func (s *Service) OfferReset(ctx context.Context, actor Actor, org, login string, life time.Duration) (text string, err error) {
	return s.offer(ctx, actor, org, login, "user.reset", life, func(tx *store.Tx) error {
		var u User
		if _, err := read(ctx, &tx.Reader, userKey(org, login), &u); err != nil {
			return err
		}
		if u.Service || u.Disabled {
			return fmt.Errorf("%w: user %s of %s is a service, or disabled", ErrInvalid, login, org)
		}
		return nil
	})
}

func (s *Service) offer(ctx context.Context, actor Actor, org, login, action string, life time.Duration, fn func(tx *store.Tx) error) (text string, err error) {
	reset := action == "user.reset"
	usual, most := inviteLife, maxInviteLife
	if reset {
		usual, most = resetLife, maxResetLife
	}
	if life == 0 {
		life = usual
	}
	if life < 0 || life > most {
		return "", fmt.Errorf("%w: the link holds at most %s", ErrInvalid, most)
	}
	made := auth.NewToken(org)
	err = s.change(ctx, act{actor: actor, organization: org, action: action, target: login, details: map[string]string{"link": made.ID}}, func(tx *store.Tx) error {
		if err := s.authorizeOver(ctx, tx, actor, org, login, VerbWrite); err != nil {
			return err
		}
		if err := fn(tx); err != nil {
			return err
		}
		if _, err := tx.ForgetOf(ctx, space(spaceInvitation, org), owner(org, login), ""); err != nil {
			return err
		}
		b, err := json.Marshal(invitation{auth.HashSecret(made.Secret), login, reset, actor})
		if err != nil {
			return fmt.Errorf("tenant: %w", err)
		}
		return tx.Keep(ctx, store.Ephemeral{
			Space: space(spaceInvitation, org), Name: made.ID, Owner: owner(org, login), Expires: tx.Now().Add(life), Body: b,
		})
	})
	if err != nil {
		return "", err
	}
	return made.String(), nil
}

// Invited says whose a link is, for the page that asks for the password; ErrInvitation where it is none.
func (s *Service) Invited(ctx context.Context, text string) (who Actor, reset bool, err error) {
	t, err := auth.ParseToken(text)
	if err != nil {
		return who, false, ErrInvitation
	}
	var i invitation
	err = s.store.View(ctx, func(r *store.Reader) error {
		i, err = readInvitation(ctx, r, t)
		return err
	})
	return Actor{Organization: t.Organization, Login: i.Login}, i.Reset, err
}

func readInvitation(ctx context.Context, r *store.Reader, t auth.Token) (i invitation, err error) {
	e, err := r.Ephemeral(ctx, space(spaceInvitation, t.Organization), t.ID)
	if err != nil {
		return i, errors.Join(ErrInvitation, ignoreNotFound(err))
	}
	if err := json.Unmarshal(e.Body, &i); err != nil {
		return i, fmt.Errorf("tenant: invitation %s is damaged: %w", t.ID, err)
	}
	if !auth.SameSecret(i.Hash, t.Secret) {
		return invitation{}, ErrInvitation
	}
	return i, nil
}

// Redeem sets the password that a link allows to set, once. Who made the link must still be allowed to: a link does not
// outlive its maker's rights. A password that cannot be taken leaves the link as it is.
func (s *Service) Redeem(ctx context.Context, text, password string) (Actor, error) {
	who, _, err := s.Invited(ctx, text)
	if err != nil {
		return Actor{}, err
	}
	if err := auth.CheckPassword(password, who.Login); err != nil {
		return Actor{}, err
	}
	hash, err := s.hasher.Hash(ctx, password)
	if err != nil {
		return Actor{}, err
	}
	t, err := auth.ParseToken(text)
	if err != nil {
		return Actor{}, ErrInvitation
	}
	org, login := who.Organization, who.Login
	err = s.change(ctx, act{actor: who, organization: org, action: "user.redeem", target: login, details: map[string]string{"link": t.ID}}, func(tx *store.Tx) error {
		i, err := readInvitation(ctx, &tx.Reader, t)
		if err != nil {
			return err
		}
		if err := s.authorizeOver(ctx, tx, i.By, org, login, VerbWrite); err != nil {
			return notDenied(err)
		}
		var u User
		revision, err := read(ctx, &tx.Reader, userKey(org, login), &u)
		if err != nil || u.Disabled || u.Service || !i.Reset && u.Password != "" {
			return errors.Join(ErrInvitation, ignoreNotFound(err))
		}
		u.Password, u.Devices = hash, nil
		if err := write(ctx, tx, userKey(org, login), u, store.Expect(revision)); err != nil {
			return err
		}
		return logOut(ctx, tx, org, login, "") // and the link
	})
	if err != nil {
		return Actor{}, err
	}
	return who, nil
}

// notDenied keeps from who holds a link that its maker lost his rights.
func notDenied(err error) error {
	if errors.Is(err, ErrDenied) {
		return ErrInvitation
	}
	return err
}
