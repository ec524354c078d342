package tenant

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
)

// User is somebody, or some program, of an organization.
type User struct {
	Login    string       `json:"login"`
	Service  bool         `json:"service,omitempty"`  // a program: it has tokens and no password
	Password string       `json:"password,omitempty"` // argon2id, PHC form
	Disabled bool         `json:"disabled,omitempty"`
	TOTP     *secret.Body `json:"totp,omitempty"`    // closed by the vault
	Pending  *secret.Body `json:"pending,omitempty"` // a second factor that was not confirmed yet
	Step     int64        `json:"step,omitempty"`    // of the last one-time code that was taken
	Recovery []string     `json:"recovery,omitempty"`
	Devices  []string     `json:"devices,omitempty"` // hashes; the newest last
}

func userKey(org, login string) store.Key {
	return store.Key{Organization: org, Kind: KindUser, Name: login}
}

// CreateUser makes a user without any right; Bind gives them. A password is not given for a service.
func (s *Service) CreateUser(ctx context.Context, actor Actor, org, login, password string, service bool) error {
	u := User{Login: login, Service: service}
	err := checkLogin(login)
	switch {
	case err != nil:
		return err
	case service && password != "":
		return fmt.Errorf("%w: a service has no password; make a token", ErrInvalid)
	case !service:
		if u.Password, err = s.newPassword(ctx, actor, org, login, password); err != nil {
			return err
		}
	}
	return s.change(ctx, act{actor: actor, organization: org, action: "user.create", target: login}, func(tx *store.Tx) error {
		if err := s.Authorize(ctx, &tx.Reader, actor, Access{VerbWrite, KindUser, org, ""}); err != nil {
			return err
		}
		if _, err := Use(ctx, tx, org, MetricUsers, 1); err != nil {
			return err
		}
		return write(ctx, tx, userKey(org, login), u, store.Absent)
	})
}

// newPassword hashes a password for somebody, before the transaction; the work is not done for those who may not ask.
func (s *Service) newPassword(ctx context.Context, actor Actor, org, login, password string) (string, error) {
	if err := auth.CheckPassword(password, login); err != nil {
		return "", err
	}
	self := actor.Organization == org && actor.Login == login && actor.Token == nil
	if !self {
		err := s.store.View(ctx, func(r *store.Reader) error {
			return s.Authorize(ctx, r, actor, Access{VerbWrite, KindUser, org, ""})
		})
		if err != nil {
			return "", s.Denied(ctx, actor, org, "user.password", login, err)
		}
	}
	return s.hasher.Hash(ctx, password)
}

// SetPassword changes a user's own password, of which he shows the former one, or sets that of a user whom the actor
// manages. Devices, and second factors where a manager does it, are forgotten, and all other sessions end; tokens stay.
func (s *Service) SetPassword(ctx context.Context, actor Actor, org, login, former, password string) error {
	self := actor.Organization == org && actor.Login == login
	if self {
		if actor.Token != nil {
			return fmt.Errorf("%w: a token changes no password", ErrDenied)
		}
		if err := s.checkFormer(ctx, org, login, former); err != nil {
			return s.Denied(ctx, actor, org, "user.password", login, err)
		}
	}
	hash, err := s.newPassword(ctx, actor, org, login, password)
	if err != nil {
		return err
	}
	return s.changeUser(ctx, actor, org, login, "user.password", self, func(tx *store.Tx, u *User) error {
		if u.Service {
			return fmt.Errorf("%w: a service has no password", ErrInvalid)
		}
		u.Password, u.Devices = hash, nil
		if !self {
			u.TOTP, u.Pending, u.Recovery = nil, nil, nil
		}
		return logOut(ctx, tx, org, login, actor.Session)
	})
}

func (s *Service) checkFormer(ctx context.Context, org, login, former string) error {
	var u User
	err := s.store.View(ctx, func(r *store.Reader) error {
		_, err := read(ctx, r, userKey(org, login), &u)
		return ignoreNotFound(err)
	})
	if err != nil {
		return err
	}
	ok, _, err := s.hasher.Verify(ctx, u.Password, former)
	if err == nil && !ok {
		err = fmt.Errorf("%w: the former password is another", ErrDenied)
	}
	return err
}

// changeUser changes a user in one transaction. A manager may touch only users who have no more rights than himself: else
// he could become one who has.
func (s *Service) changeUser(ctx context.Context, actor Actor, org, login, action string, self bool, fn func(*store.Tx, *User) error) error {
	return s.change(ctx, act{actor: actor, organization: org, action: action, target: login}, func(tx *store.Tx) error {
		if !self {
			if err := s.authorizeOver(ctx, tx, actor, org, login, VerbWrite); err != nil {
				return err
			}
		}
		var u User
		revision, err := read(ctx, &tx.Reader, userKey(org, login), &u)
		if err != nil {
			return err
		}
		if self && u.Disabled {
			return fmt.Errorf("%w: %s is disabled", ErrDenied, actor)
		}
		if err := fn(tx, &u); err != nil {
			return err
		}
		if err := write(ctx, tx, userKey(org, login), u, store.Expect(revision)); err != nil || !u.Disabled {
			return err
		}
		o, _, err := organization(ctx, &tx.Reader, org)
		if err != nil {
			return err
		}
		return keepsAdmin(ctx, tx, o)
	})
}

func (s *Service) authorizeOver(ctx context.Context, tx *store.Tx, actor Actor, org, login string, v Verb) error {
	theirs, err := s.rulesOf(ctx, &tx.Reader, Actor{Organization: org, Login: login}, org, "")
	if err != nil {
		return err
	}
	return s.authorizeGrant(ctx, tx, actor, Access{v, KindUser, org, ""}, theirs)
}

// SetDisabled keeps a user, and his tokens, out or lets him in again.
func (s *Service) SetDisabled(ctx context.Context, actor Actor, org, login string, disabled bool) error {
	action := "user.enable"
	if disabled {
		action = "user.disable"
	}
	return s.changeUser(ctx, actor, org, login, action, false, func(tx *store.Tx, u *User) error {
		u.Disabled, u.Devices = disabled, nil
		return logOut(ctx, tx, org, login, "")
	})
}

// DeleteUser removes a user with his bindings in his organization, and his tokens.
func (s *Service) DeleteUser(ctx context.Context, actor Actor, org, login string) error {
	return s.change(ctx, act{actor: actor, organization: org, action: "user.delete", target: login}, func(tx *store.Tx) error {
		if err := s.authorizeOver(ctx, tx, actor, org, login, VerbDelete); err != nil {
			return err
		}
		o, _, err := organization(ctx, &tx.Reader, org)
		if err != nil {
			return err
		}
		d, err := tx.Get(ctx, userKey(org, login))
		if err != nil {
			return err
		}
		of := Actor{Organization: org, Login: login}
		keys := []store.Key{d.Key}
		// Bindings in other organizations name a user that is no more; if somebody gets the login again, he must not have
		// them. They are few: looked for by kind.
		err = each(ctx, &tx.Reader, store.Query{Kind: KindBinding, Prefix: bindingPrefix(of)}, func(d store.Document) error {
			keys = append(keys, d.Key)
			return nil
		})
		if err != nil {
			return err
		}
		if err := logOut(ctx, tx, org, login, ""); err != nil {
			return err
		}
		err = each(ctx, &tx.Reader, store.Query{Organization: org, Kind: KindIdentity}, func(d store.Document) error {
			var i Identity
			err := decodeBody(d, &i)
			if i.Login == login {
				keys = append(keys, d.Key)
			}
			return err
		})
		if err != nil {
			return err
		}
		tokens := 0
		err = each(ctx, &tx.Reader, store.Query{Organization: org, Kind: KindToken}, func(d store.Document) error {
			var t Token
			err := decodeBody(d, &t)
			if t.User == login {
				keys = append(keys, d.Key)
				tokens++
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, k := range keys {
			if err := tx.Delete(ctx, k, store.Any); err != nil {
				return err
			}
		}
		if _, err := Use(ctx, tx, org, MetricTokens, int64(-tokens)); err != nil {
			return err
		}
		if _, err := Use(ctx, tx, org, MetricUsers, -1); err != nil {
			return err
		}
		return keepsAdmin(ctx, tx, o)
	})
}

// BeginTOTP makes a secret for a user's second factor, which counts once ConfirmTOTP saw a code of it. The URI is shown to
// the user alone.
func (s *Service) BeginTOTP(ctx context.Context, actor Actor) (uri string, err error) {
	if actor.Token != nil {
		return "", fmt.Errorf("%w: a token has no second factor", ErrDenied)
	}
	key, raw := userKey(actor.Organization, actor.Login), auth.NewTOTP()
	closed, err := s.vault.Close(key, raw)
	if err != nil {
		return "", err
	}
	err = s.changeUser(ctx, actor, actor.Organization, actor.Login, "user.totp.begin", true, func(_ *store.Tx, u *User) error {
		if u.TOTP != nil {
			return fmt.Errorf("%w: there is a second factor; take it away first", ErrInUse)
		}
		u.Pending = &closed
		return nil
	})
	return auth.TOTPURI(s.issuer, actor.Login, raw), err
}

// ConfirmTOTP puts the second factor in force, and gives recovery codes, which are shown once.
func (s *Service) ConfirmTOTP(ctx context.Context, actor Actor, code string) (recovery []string, err error) {
	if actor.Token != nil {
		return nil, fmt.Errorf("%w: a token has no second factor", ErrDenied)
	}
	codes, hashes := auth.NewRecoveryCodes()
	err = s.changeUser(ctx, actor, actor.Organization, actor.Login, "user.totp.confirm", true, func(tx *store.Tx, u *User) error {
		if u.Pending == nil {
			return fmt.Errorf("%w: begin first", ErrInvalid)
		}
		raw, err := s.vault.Open(userKey(actor.Organization, actor.Login), *u.Pending)
		if err != nil {
			return err
		}
		step, ok := auth.CheckTOTP(raw, code, tx.Now(), u.Step)
		if !ok {
			return ErrCode
		}
		u.TOTP, u.Pending, u.Step, u.Recovery = u.Pending, nil, step, hashes
		return nil
	})
	if err != nil {
		return nil, err
	}
	return codes, nil
}

// RemoveTOTP takes the second factor away from a user: the user himself with a code, or who manages him.
func (s *Service) RemoveTOTP(ctx context.Context, actor Actor, org, login, code string) error {
	self := actor.Organization == org && actor.Login == login
	if self && actor.Token != nil {
		return fmt.Errorf("%w: a token takes no second factor away", ErrDenied)
	}
	return s.changeUser(ctx, actor, org, login, "user.totp.remove", self, func(tx *store.Tx, u *User) error {
		if self {
			if err := s.secondFactor(userKey(org, login), u, code, tx); err != nil {
				return err
			}
		}
		u.TOTP, u.Pending, u.Recovery = nil, nil, nil
		return nil
	})
}

// RotateTOTP closes users' second factors anew for the vault's newest key, and gives how many users had one.
func (s *Service) RotateTOTP(ctx context.Context, author string) (n int, err error) {
	return secret.Renew(ctx, s.store, KindUser, author, s.rotateTOTP)
}

func (s *Service) rotateTOTP(ctx context.Context, tx *store.Tx, d store.Document) (int, error) {
	var u User
	if err := decodeBody(d, &u); err != nil {
		return 0, err
	}
	changed := 0
	for _, b := range []*secret.Body{u.TOTP, u.Pending} {
		if b == nil || !s.vault.Outdated(*b) {
			continue
		}
		raw, err := s.vault.Open(d.Key, *b)
		if err == nil {
			*b, err = s.vault.Close(d.Key, raw)
		}
		if err != nil {
			return 0, err
		}
		changed = 1
	}
	if changed == 0 {
		return 0, nil
	}
	return 1, write(ctx, tx, d.Key, u, store.Expect(d.Revision))
}

// forget drops a recovery code that was used.
func (u *User) forget(i int) { u.Recovery = slices.Delete(slices.Clone(u.Recovery), i, i+1) }

// secondFactor takes a one-time code or a recovery code, each once.
func (s *Service) secondFactor(key store.Key, u *User, code string, tx *store.Tx) error {
	if u.TOTP == nil {
		return nil
	}
	if code == "" {
		return ErrCodeWanted
	}
	raw, err := s.vault.Open(key, *u.TOTP)
	if err != nil {
		return err
	}
	if step, ok := auth.CheckTOTP(raw, code, tx.Now(), u.Step); ok {
		u.Step = step
		return nil
	}
	if i := auth.CheckRecoveryCode(u.Recovery, code); i >= 0 {
		u.forget(i)
		return nil
	}
	return ErrCode
}

var (
	// ErrCodeWanted says that the password was right and a code of the second factor is wanted.
	ErrCodeWanted = errors.New("a code of the second factor is wanted")
	// ErrCode says that the code is wrong, or was used before.
	ErrCode = errors.New("the code is wrong, or was used before")
)
