package tenant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
)

// Bounds of sessions.
const (
	sessionLife  = 12 * time.Hour
	sessionIdle  = time.Hour
	sessionTouch = 5 * time.Minute // how exact the idle time is: a use is written down so often at most
	maxSessions  = 16              // of a user; one more ends that which was used longest ago
	maxAgent     = 256
)

// KindSession is what rights to see and end others' sessions are of. Sessions are no documents.
const KindSession = "Session"

// Session is a user who logged in: what he does until it ends needs no password.
type Session struct {
	ID       string     `json:"id"`
	Login    string     `json:"login"`
	Provider string     `json:"provider,omitempty"` // organization/name of the identity provider; empty: by password
	Source   netip.Addr `json:"source"`
	Agent    string     `json:"agent,omitempty"` // what the browser says it is
	Created  time.Time  `json:"created"`
	Used     time.Time  `json:"used"`    // to some minutes
	Expires  time.Time  `json:"expires"` // unless it is used before; never beyond 12 hours after Created
}

// End is when it ends at the latest, however often it is used.
func (s Session) End() time.Time { return s.Created.Add(sessionLife) }

// keptSession is a session in the store.
type keptSession struct {
	Session
	Hash string `json:"hash"`
}

// SessionRequest says from where a session is opened.
type SessionRequest struct {
	Source   netip.Addr
	Agent    string
	Provider ProviderRef // of who logged in by one
}

// space is where an organization's things of a kind are kept for a while: so each has the store's bound for itself.
func space(kind, org string) string { return kind + "/" + org }

func owner(org, login string) string { return org + "/" + login }

const (
	spaceSession    = "session"
	spaceInvitation = "invitation"
)

// OpenSession makes a session for who just logged in, and gives its text, which is for the browser's cookie alone. It ends
// after an hour without use, after 12 hours, with the user's password, and when it is revoked.
func (s *Service) OpenSession(ctx context.Context, actor Actor, q SessionRequest) (text string, se Session, err error) {
	if actor.Token != nil {
		return "", se, fmt.Errorf("%w: a token has no session", ErrDenied)
	}
	made := auth.NewToken(actor.Organization)
	_, err = s.store.Update(ctx, store.Change{Author: actor.String()}, func(tx *store.Tx) error {
		var u User
		if _, err := read(ctx, &tx.Reader, userKey(actor.Organization, actor.Login), &u); err != nil || u.Disabled || u.Service {
			return errors.Join(ErrLogin, ignoreNotFound(err))
		}
		list, err := sessions(ctx, &tx.Reader, actor.Organization, actor.Login)
		if err != nil {
			return err
		}
		for len(list) >= maxSessions {
			idle := 0
			for i, o := range list {
				if o.Used.Before(list[idle].Used) {
					idle = i
				}
			}
			if _, err := tx.Forget(ctx, space(spaceSession, actor.Organization), list[idle].ID); err != nil {
				return err
			}
			list = append(list[:idle], list[idle+1:]...)
		}
		se = Session{
			ID: made.ID, Login: actor.Login, Provider: q.Provider.String(), Source: q.Source, Agent: clean(q.Agent, maxAgent),
			Created: tx.Now(), Used: tx.Now(), Expires: tx.Now().Add(sessionIdle),
		}
		return keepSession(ctx, tx, actor.Organization, keptSession{se, auth.HashSecret(made.Secret)})
	})
	if err != nil {
		return "", Session{}, err
	}
	return made.String(), se, nil
}

// clean keeps what a stranger's program says of itself to what can be shown.
func clean(s string, most int) string {
	b := make([]byte, 0, min(len(s), most))
	for i := range min(len(s), most) {
		if c := s[i]; c >= ' ' && c < 0x7f {
			b = append(b, c)
		}
	}
	return string(b)
}

func keepSession(ctx context.Context, tx *store.Tx, org string, k keptSession) error {
	b, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("tenant: %w", err)
	}
	return tx.Keep(ctx, store.Ephemeral{Space: space(spaceSession, org), Name: k.ID, Owner: owner(org, k.Login), Expires: k.Expires, Body: b})
}

func readSession(ctx context.Context, r *store.Reader, org, id string) (k keptSession, err error) {
	e, err := r.Ephemeral(ctx, space(spaceSession, org), id)
	if err != nil {
		return k, err
	}
	if err := json.Unmarshal(e.Body, &k); err != nil {
		return k, fmt.Errorf("tenant: session %s is damaged: %w", id, err)
	}
	return k, nil
}

func sessions(ctx context.Context, r *store.Reader, org, login string) (list []Session, err error) {
	kept, err := r.Ephemera(ctx, space(spaceSession, org), owner(org, login))
	for _, e := range kept {
		var k keptSession
		if err := json.Unmarshal(e.Body, &k); err != nil {
			return nil, fmt.Errorf("tenant: session %s is damaged: %w", e.Name, err)
		}
		list = append(list, k.Session)
	}
	return list, err
}

// ResumeSession finds out whose a session is, and counts as a use of it. auth.ErrToken says that it ended, or never was.
func (s *Service) ResumeSession(ctx context.Context, text string) (Actor, error) {
	t, err := auth.ParseToken(text)
	if err != nil {
		return Actor{}, err
	}
	var k keptSession
	var now time.Time
	check := func(r *store.Reader) error {
		now = r.Now()
		if k, err = readSession(ctx, r, t.Organization, t.ID); err != nil {
			return err
		}
		var u User
		if _, err := read(ctx, r, userKey(t.Organization, k.Login), &u); err != nil {
			return err
		}
		if !auth.SameSecret(k.Hash, t.Secret) || u.Disabled {
			return auth.ErrToken
		}
		return providerStands(ctx, r, k.Provider)
	}
	if err := s.store.View(ctx, check); err != nil {
		return Actor{}, endedOr(err)
	}
	if now.Sub(k.Used) >= sessionTouch {
		_, err := s.store.Update(ctx, store.Change{Author: k.Login + "@" + t.Organization}, func(tx *store.Tx) error {
			if err := check(&tx.Reader); err != nil {
				return err
			}
			k.Used, k.Expires = now, now.Add(sessionIdle)
			if end := k.Created.Add(sessionLife); k.Expires.After(end) {
				k.Expires = end
			}
			return keepSession(ctx, tx, t.Organization, k)
		})
		// A store that takes no changes now still says who he is: the next use is written down.
		if err != nil && !errors.Is(err, store.ErrBusy) && !errors.Is(err, store.ErrFull) {
			return Actor{}, endedOr(err)
		}
	}
	return Actor{Organization: t.Organization, Login: k.Login, Session: k.ID}, nil
}

// Stands says that what an actor came in by, a session or a token, has not ended meanwhile; else auth.ErrToken. It is no use of
// it: who only listens does not keep a session alive.
func (s *Service) Stands(ctx context.Context, r *store.Reader, actor Actor) error {
	if t := actor.Token; t != nil {
		var now Token
		_, err := read(ctx, r, tokenKey(actor.Organization, t.ID), &now)
		if err == nil && !now.Expires.After(r.Now()) {
			err = auth.ErrToken
		}
		return endedOr(err)
	}
	if actor.Session == "" {
		return nil
	}
	k, err := readSession(ctx, r, actor.Organization, actor.Session)
	if err == nil {
		err = providerStands(ctx, r, k.Provider)
	}
	return endedOr(err)
}

func endedOr(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return auth.ErrToken
	}
	return err
}

// Sessions lists a user's sessions: his own, or those of one whom the actor manages.
func (s *Service) Sessions(ctx context.Context, actor Actor, org, login string) (list []Session, err error) {
	fn := func(r *store.Reader) error {
		list, err = sessions(ctx, r, org, login)
		return err
	}
	if actor.Organization == org && actor.Login == login && actor.Token == nil {
		return list, s.store.View(ctx, fn)
	}
	err = s.view(ctx, actor, Access{VerbRead, KindSession, org, ""}, fn)
	return list, err
}

// EndSession ends one session: one's own, or that of one whom the actor manages.
func (s *Service) EndSession(ctx context.Context, actor Actor, org, id string) error {
	return s.change(ctx, act{actor: actor, organization: org, action: "session.end", target: id}, func(tx *store.Tx) error {
		k, err := readSession(ctx, &tx.Reader, org, id)
		if err != nil {
			return deny(err, actor, org)
		}
		if actor.Organization != org || actor.Login != k.Login || actor.Token != nil {
			if err := s.Authorize(ctx, &tx.Reader, actor, Access{VerbDelete, KindSession, org, ""}); err != nil {
				return err
			}
		}
		_, err = tx.Forget(ctx, space(spaceSession, org), id)
		return err
	})
}

// EndSessions ends all sessions of a user but the one that the actor does it from, and gives how many.
func (s *Service) EndSessions(ctx context.Context, actor Actor, org, login string) (n int64, err error) {
	err = s.change(ctx, act{actor: actor, organization: org, action: "session.end.all", target: login}, func(tx *store.Tx) error {
		if actor.Organization != org || actor.Login != login || actor.Token != nil {
			if err := s.Authorize(ctx, &tx.Reader, actor, Access{VerbDelete, KindSession, org, ""}); err != nil {
				return err
			}
		}
		n, err = tx.ForgetOf(ctx, space(spaceSession, org), owner(org, login), actor.Session)
		return err
	})
	return n, err
}

// logOut ends what lets a user in without his password: all sessions but one, and links to set a new password.
func logOut(ctx context.Context, tx *store.Tx, org, login, but string) error {
	_, err1 := tx.ForgetOf(ctx, space(spaceSession, org), owner(org, login), but)
	_, err2 := tx.ForgetOf(ctx, space(spaceInvitation, org), owner(org, login), "")
	return errors.Join(err1, err2)
}
