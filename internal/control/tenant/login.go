package tenant

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
)

// ErrLogin says that organization, login or password are wrong, and not which.
var ErrLogin = errors.New("organization, login or password are wrong")

// WaitError says that a source tried too often.
type WaitError struct{ Wait time.Duration }

// Error says how long.
func (e *WaitError) Error() string {
	return fmt.Sprintf("too many wrong tries; try again in %s", e.Wait.Round(time.Second))
}

// Credentials are what somebody shows to log in.
type Credentials struct {
	Organization string
	Login        string
	Password     string
	Code         string // of the second factor, or a recovery code; empty where none is asked for
	Device       string // what Login gave to this device before; empty on a new one
	Source       netip.Addr
}

// Login proves who somebody is. It gives a secret for the device to keep: with it, wrong tries of others from other devices
// do not slow it down. Errors: ErrLogin, ErrCodeWanted, ErrCode, *WaitError, and those of the store.
func (s *Service) Login(ctx context.Context, c Credentials) (actor Actor, device string, err error) {
	key := userKey(c.Organization, c.Login)
	var u User
	if checkLabel("organization", c.Organization) == nil && checkLogin(c.Login) == nil {
		err = s.store.View(ctx, func(r *store.Reader) error {
			_, err := read(ctx, r, key, &u)
			return ignoreNotFound(err)
		})
		if err != nil {
			return Actor{}, "", err
		}
	}
	try := auth.Attempt{Account: key.String()[:min(len(key.String()), 256)], Source: c.Source, Device: u.device(c.Device)}
	if wait := s.logins.Begin(try, s.clock()); wait > 0 {
		return Actor{}, "", &WaitError{wait}
	}
	kept := u.Password
	if u.Disabled {
		kept = ""
	}
	ok, outdated, err := s.hasher.Verify(ctx, kept, c.Password)
	if err != nil {
		return Actor{}, "", err
	}
	actor = Actor{Organization: c.Organization, Login: c.Login}
	if !ok {
		return Actor{}, "", errors.Join(ErrLogin, s.tellOfGuessing(ctx, actor, try, u))
	}
	s.logins.Passed(try)
	rehash := ""
	if outdated {
		if rehash, err = s.hasher.Hash(ctx, c.Password); err != nil {
			return Actor{}, "", err
		}
	}
	if device, err = s.admit(ctx, actor, c, u.Password, rehash, try); err != nil {
		return Actor{}, "", err
	}
	return actor, device, nil
}

// admit checks the second factor and writes the login down. What was verified must still be so.
func (s *Service) admit(ctx context.Context, actor Actor, c Credentials, verified, rehash string, try auth.Attempt) (device string, err error) {
	key := userKey(c.Organization, c.Login)
	factor := try
	begun := false
	err = s.change(ctx, act{actor: actor, organization: c.Organization, action: "login", target: c.Login, details: map[string]string{"source": c.Source.String()}}, func(tx *store.Tx) error {
		var u User
		revision, err := read(ctx, &tx.Reader, key, &u)
		if err != nil || u.Password != verified || u.Disabled {
			return errors.Join(ErrLogin, ignoreNotFound(err))
		}
		if u.TOTP != nil && c.Code != "" {
			// A recovery code is too long to guess, so it gets past a throttle that one-time codes do not.
			wait := s.codes.Begin(factor, s.clock())
			if wait > 0 && auth.CheckRecoveryCode(u.Recovery, c.Code) < 0 {
				return &WaitError{wait}
			}
			begun = wait == 0
		}
		if err := s.secondFactor(key, &u, c.Code, tx); err != nil {
			return err
		}
		if rehash != "" {
			u.Password = rehash
		}
		device = c.Device
		if u.device(c.Device) == "" {
			device = auth.NewSecret()
			u.Devices = append(u.Devices, auth.HashSecret(device))
			u.Devices = u.Devices[max(0, len(u.Devices)-maxDevices):]
		}
		return write(ctx, tx, key, u, store.Expect(revision))
	})
	if err == nil && begun {
		s.codes.Passed(factor)
	}
	return device, err
}

// device is the hash of a device's secret, where it is one of the user's.
func (u User) device(secret string) string {
	if secret == "" || len(secret) > 128 {
		return ""
	}
	if h := auth.HashSecret(secret); slices.Contains(u.Devices, h) {
		return h
	}
	return ""
}

// tellOfGuessing writes to the audit log when a source begins to be slowed down, not at every wrong try: a log that
// strangers fill is no log.
func (s *Service) tellOfGuessing(ctx context.Context, actor Actor, try auth.Attempt, u User) error {
	if u.Login == "" || s.logins.Wrong(try) != guessing {
		return nil
	}
	return s.change(ctx, act{
		actor: Actor{Organization: actor.Organization, Login: "somebody"}, organization: actor.Organization, action: "login.wrong", target: actor.Login,
		details: map[string]any{"source": try.Source.String(), "tries": guessing},
	}, func(*store.Tx) error { return nil })
}

// guessing is the number of wrong tries in a row that is worth a line.
const guessing = 5
