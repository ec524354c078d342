package tenant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant/audit"
)

// Bounds of what is told of attempts that were denied.
const (
	deniedWindow   = time.Hour
	deniedOfActor  = 20  // entries of an actor in a window
	deniedOfOrg    = 200 // of all actors of an organization
	deniedTracked  = 4096
	maxDeniedBytes = 256 // of each text that the actor gave
)

// DenialCounts are what became of attempts that were denied.
type DenialCounts struct {
	Told      uint64 // each in an entry of its own
	Summed    uint64 // in the count of an entry for many
	Strangers uint64 // of who is no user: in no log
	Lost      uint64 // not told: the store did not take it, or who tried was forgotten for want of room
}

// denials bounds what each actor, and each organization, has in its audit log of what it was denied. It is in memory:
// what is counted and not yet told ends with the process.
type denials struct {
	mu     sync.Mutex
	actors map[string]*denial
	orgs   map[string]*denial
	counts DenialCounts
}

// denial is what an actor, or the actors of an organization, were denied in a window.
type denial struct {
	actor  Actor
	since  time.Time
	told   int
	silent uint64 // since then, without an entry
}

func newDenials() *denials {
	return &denials{actors: map[string]*denial{}, orgs: map[string]*denial{}}
}

// allow says whether an attempt gets an entry, and gives what a window that ended leaves to be told.
func (d *denials) allow(a Actor, now time.Time) (tell bool, left uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	who := d.at(d.actors, a.Login+"@"+a.Organization, a, now)
	org := d.at(d.orgs, a.Organization, a, now)
	for _, x := range []*denial{who, org} {
		if now.Sub(x.since) >= deniedWindow {
			if x == who {
				left = x.silent
			}
			*x = denial{actor: x.actor, since: now}
		}
	}
	if who.told >= deniedOfActor || org.told >= deniedOfOrg {
		who.silent++
		return false, left
	}
	who.told++
	org.told++
	return true, left
}

func (d *denials) at(m map[string]*denial, key string, a Actor, now time.Time) *denial {
	if x := m[key]; x != nil {
		return x
	}
	if len(m) >= deniedTracked {
		oldest := ""
		for k, x := range m {
			if oldest == "" || x.since.Before(m[oldest].since) {
				oldest = k
			}
		}
		d.counts.Lost += m[oldest].silent
		delete(m, oldest)
	}
	x := &denial{actor: Actor{Organization: a.Organization, Login: a.Login}, since: now}
	m[key] = x
	return x
}

// ended takes what windows that ended leave to be told, and forgets them.
func (d *denials) ended(now time.Time) (list []denial) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, x := range d.actors {
		if now.Sub(x.since) >= deniedWindow {
			delete(d.actors, k)
			if x.silent > 0 {
				list = append(list, *x)
			}
		}
	}
	for k, x := range d.orgs {
		if now.Sub(x.since) >= deniedWindow {
			delete(d.orgs, k)
		}
	}
	return list
}

func (d *denials) count(fn func(*DenialCounts)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fn(&d.counts)
}

// Denials gives the counts of this process.
func (s *Service) Denials() (c DenialCounts) {
	s.denials.count(func(d *DenialCounts) { c = *d })
	return c
}

// Denied writes an attempt that ended with ErrDenied to the log of the actor's own organization, and gives err. Whoever asks
// Authorize outside of this room calls it with what that said; what was told already is not told again. The log of who was aimed at is not touched: a stranger
// cannot fill it.
func (s *Service) Denied(ctx context.Context, actor Actor, org, action, target string, err error) error {
	return s.denied(ctx, act{actor: actor, organization: org, action: action, target: target}, err)
}

func (s *Service) denied(ctx context.Context, a act, err error) error {
	var before *toldError
	if !errors.Is(err, ErrDenied) || errors.As(err, &before) || a.actor.Login == "" || a.actor.Organization == "" {
		return err
	}
	s.tellOrCount(ctx, a)
	return &toldError{err}
}

// toldError is a denial that the log knows of: so whoever stands further out may give Denied all that it hears.
type toldError struct{ error }

func (e *toldError) Unwrap() error { return e.error }

func (s *Service) tellOrCount(ctx context.Context, a act) {
	exists, known := false, s.store.View(ctx, func(r *store.Reader) error {
		var u User
		_, err := read(ctx, r, userKey(a.actor.Organization, a.actor.Login), &u)
		return errors.Join(err, disabledError(u))
	})
	if exists = known == nil; !exists {
		s.denials.count(func(c *DenialCounts) { c.Strangers++ })
		return
	}
	tell, left := s.denials.allow(a.actor, s.clock())
	if left > 0 {
		s.tellSum(ctx, a.actor, left)
	}
	if tell {
		s.tellDenied(ctx, a)
	}
}

func disabledError(u User) error {
	if u.Disabled {
		return ErrDenied
	}
	return nil
}

// tellDenied writes one attempt down, also when who made it went away meanwhile.
func (s *Service) tellDenied(ctx context.Context, a act) {
	clip := func(s string) string { return s[:min(len(s), maxDeniedBytes)] }
	details := map[string]string{"organization": clip(a.organization), "action": clip(a.action)}
	told := s.append(ctx, a.actor, "denied", clip(a.target), details)
	s.denials.count(func(c *DenialCounts) { tally(told, 1, &c.Told, &c.Lost) })
}

func (s *Service) tellSum(ctx context.Context, actor Actor, n uint64) {
	told := s.append(ctx, actor, "denied.more", "", map[string]uint64{"attempts": n})
	s.denials.count(func(c *DenialCounts) { tally(told, n, &c.Summed, &c.Lost) })
}

func tally(told bool, n uint64, yes, no *uint64) {
	if told {
		*yes += n
	} else {
		*no += n
	}
}

// append writes an entry alone to the log of the actor's organization.
func (s *Service) append(ctx context.Context, actor Actor, action, target string, details any) bool {
	b, err := json.Marshal(details)
	if err != nil {
		return false
	}
	ctx = context.WithoutCancel(ctx)
	_, err = s.store.Update(ctx, store.Change{Author: actor.String()}, func(tx *store.Tx) error {
		// One that was erased meanwhile gets no new entries.
		if _, _, err := organization(ctx, &tx.Reader, actor.Organization); err != nil {
			return err
		}
		_, err := audit.Append(ctx, tx, audit.Entry{Organization: actor.Organization, Actor: actor.String(), Action: action, Target: target, Details: b})
		return err
	})
	return err == nil
}

// TellDenials writes one entry, with the count, for each actor whose hour ended with more attempts than are told one by one.
// Every process calls it some times an hour, and once before it ends with all set, which does not wait for the hour.
func (s *Service) TellDenials(ctx context.Context, all bool) {
	now := s.clock()
	if all {
		now = now.Add(deniedWindow)
	}
	for _, d := range s.denials.ended(now) {
		s.tellSum(ctx, d.actor, d.silent)
	}
}

// view reads what the actor may, and tells of one who may not.
func (s *Service) view(ctx context.Context, actor Actor, a Access, fn func(r *store.Reader) error) error {
	err := s.store.View(ctx, func(r *store.Reader) error {
		if err := s.Authorize(ctx, r, actor, a); err != nil {
			return err
		}
		return fn(r)
	})
	return s.Denied(ctx, actor, a.Organization, fmt.Sprintf("%s %s", a.Verb, a.Kind), a.Project, err)
}
