package tenant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
)

// State says how an organization is served.
type State string

// The states, the better first. In none of them is an order lost: a suspended organization's sites are closed as by
// maintenance, which lets those who have a basket go on.
const (
	Active    State = "active"
	Degraded  State = "degraded"  // by the plan's lesser service
	Suspended State = "suspended" // closed to new visitors
)

// ByBudget is who changed a standing when it was the meter, as the organization's owner had chosen.
const ByBudget = "budget"

// Standing is how an organization is served, and why.
type Standing struct {
	State   State     `json:"state"`
	Below   bool      `json:"below,omitempty"` // it holds for the organizations below, too
	By      string    `json:"by"`
	Reason  string    `json:"reason,omitempty"`
	Period  string    `json:"period,omitempty"` // of a budget: with it the standing ends
	Since   time.Time `json:"since"`
	Holder  string    `json:"-"` // the organization whose standing it is
	Version int64     `json:"-"` // revision of the document; 0: there is none
}

func standingKey(org string) store.Key {
	return store.Key{Organization: org, Kind: KindStanding, Name: "standing"}
}

// OwnStanding reads what is set for an organization itself; Active where nothing is.
func OwnStanding(ctx context.Context, r *store.Reader, org string) (s Standing, err error) {
	s.Version, err = read(ctx, r, standingKey(org), &s)
	if errors.Is(err, store.ErrNotFound) {
		s, err = Standing{State: Active}, nil
	}
	s.Holder = org
	return s, err
}

// StandingOf says how an organization is to be served: the worst of its own standing and of those above it that hold below.
// An organization that was deleted is suspended.
func StandingOf(ctx context.Context, r *store.Reader, org string) (Standing, error) {
	o, _, err := organization(ctx, r, org)
	if err != nil {
		if o.Deleted {
			return Standing{State: Suspended, Reason: "the organization was deleted", Holder: org}, nil
		}
		return Standing{}, err
	}
	worst := Standing{State: Active, Holder: org}
	rank := []State{Active, Degraded, Suspended}
	for _, at := range slices.Backward(o.Path) {
		s, err := OwnStanding(ctx, r, at)
		if err != nil {
			return Standing{}, err
		}
		if (at == org || s.Below) && slices.Index(rank, s.State) > slices.Index(rank, worst.State) {
			worst = s
		}
	}
	return worst, nil
}

// SetStanding writes a standing in a transaction; that it may be is for the caller to know. Active removes it. The new
// revision of the organization is what tells the rest.
func SetStanding(ctx context.Context, tx *store.Tx, org string, s Standing) error {
	if s.State == Active {
		return tx.Delete(ctx, standingKey(org), store.Any)
	}
	if s.State != Degraded && s.State != Suspended || len(s.Reason) > maxTitle {
		return fmt.Errorf("%w: a standing of %q, with a reason of %d bytes", ErrInvalid, s.State, len(s.Reason))
	}
	s.Since = tx.Now()
	return write(ctx, tx, standingKey(org), s, store.Any)
}

// Suspend closes an organization to new visitors, or degrades it, by who manages it from above.
func (s *Service) Suspend(ctx context.Context, actor Actor, org string, state State, below bool, reason string) error {
	if reason == "" {
		return fmt.Errorf("%w: a suspension has a reason, which its owner is shown", ErrInvalid)
	}
	parent, err := s.parentOf(ctx, actor, org)
	if err != nil {
		return err
	}
	st := Standing{State: state, Below: below, By: actor.String(), Reason: reason}
	return s.change(ctx, act{actor: actor, organization: parent, action: "organization." + string(state), target: org, reason: reason, details: st}, func(tx *store.Tx) error {
		if _, _, err := s.belowAuthorized(ctx, tx, actor, org); err != nil {
			return err
		}
		if state != Degraded && state != Suspended {
			return fmt.Errorf("%w: the state is degraded or suspended", ErrInvalid)
		}
		return SetStanding(ctx, tx, org, st)
	})
}

// Resume ends a suspension. What was set from above is ended from above; what an owner's budget did, by the owner, too.
func (s *Service) Resume(ctx context.Context, actor Actor, org string) error {
	return s.change(ctx, act{actor: actor, organization: org, action: "organization.resume", target: org}, func(tx *store.Tx) error {
		now, err := OwnStanding(ctx, &tx.Reader, org)
		if err != nil {
			return err
		}
		if now.By == ByBudget {
			err = s.Authorize(ctx, &tx.Reader, actor, Access{VerbWrite, KindBudget, org, ""})
		} else {
			_, _, err = s.belowAuthorized(ctx, tx, actor, org)
		}
		if err != nil {
			return err
		}
		return SetStanding(ctx, tx, org, Standing{State: Active})
	})
}
