package api

import (
	"context"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
)

// Fleet is what is done with the places: rollouts and their undoing, purges, enrolment. Who may has been asked before.
type Fleet interface {
	// Pops tells how the places are.
	Pops(ctx context.Context) ([]PopStatus, error)
	// Enrol makes a text that lets one place in, once, until the time.
	Enrol(ctx context.Context, actor tenant.Actor, pop string) (text string, until time.Time, err error)
	// Rollouts tells of an organization's changes on their way, the newest first.
	Rollouts(ctx context.Context, org string) ([]Rollout, error)
	// Steer goes on with, holds or undoes a rollout.
	Steer(ctx context.Context, actor tenant.Actor, org, id, action, reason string) error
	// Purge tells the places to fetch anew, and gives the receipt as far as it is.
	Purge(ctx context.Context, actor tenant.Actor, org string, p PurgeBody) (Receipt, error)
}

// PopStatus is how a place is.
type PopStatus struct {
	Name     string    `json:"name"`
	Seen     time.Time `json:"seen" doc:"When it was last heard of"`
	Revision int64     `json:"revision" doc:"Of the manifest that it serves"`
	Healthy  bool      `json:"healthy"`
	Problem  string    `json:"problem,omitempty"`
}

// Rollout is a change on its way through the places.
type Rollout struct {
	ID       string    `json:"id"`
	Revision int64     `json:"revision"`
	State    string    `json:"state" enum:"waiting,going,held,done,undone"`
	Ring     string    `json:"ring,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Changed  time.Time `json:"changed"`
}

// PurgeBody says what is fetched anew. Site is given, or all is of the whole organization.
type PurgeBody struct {
	Site     string   `json:"site,omitempty" maxLength:"253"`
	URLs     []string `json:"urls,omitempty" maxItems:"1000"`
	Tags     []string `json:"tags,omitempty" maxItems:"1000"`
	Hosts    []string `json:"hosts,omitempty" maxItems:"1000"`
	Prefixes []string `json:"prefixes,omitempty" maxItems:"1000"`
	All      bool     `json:"all,omitempty"`
	AnyQuery bool     `json:"anyQuery,omitempty"`
	Soft     bool     `json:"soft,omitempty"`
}

// Receipt tells which places have a purge.
type Receipt struct {
	Number int64 `json:"number"`
	Pops   []Ack `json:"pops"`
}

// Ack is what one place says of a purge.
type Ack struct {
	Pop  string     `json:"pop"`
	Done bool       `json:"done"`
	At   *time.Time `json:"at,omitempty"`
}

// allowed asks for a right, and then that there are places at all: so who may not is not told.
func (a *API) allowed(ctx context.Context, verb tenant.Verb, kind, org string) error {
	return a.change.Allowed(ctx, actor(ctx), tenant.Access{Verb: verb, Kind: kind, Organization: org})
}

func (a *API) withFleet(ctx context.Context, verb tenant.Verb, kind, org string, operator bool) error {
	if err := a.allowed(ctx, verb, kind, org); err != nil {
		return err
	}
	if operator {
		err := a.store.View(ctx, func(r *store.Reader) error {
			path, err := tenant.Tree(ctx, r, org)
			if err == nil && len(path) > 1 {
				err = tenant.ErrDenied
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if a.fleet == nil {
		return notOffered("places")
	}
	return nil
}

func (a *API) fleetRoutes() {
	add(a, route{method: "GET", path: "/organizations/{org}/pops", id: "list-pops", tag: "fleet", summary: "How the operator's places are"},
		func(ctx context.Context, in *OrgPath) (*output[list[PopStatus]], error) {
			if err := a.withFleet(ctx, tenant.VerbRead, string(v1.KindPop), in.Org, true); err != nil {
				return nil, err
			}
			items, err := a.fleet.Pops(ctx)
			return listed(items, "", err)
		})
	add(a, route{method: "POST", path: "/organizations/{org}/pops/{name}/enrol", id: "enrol-pop", tag: "fleet", summary: "A text that lets a place in, once", status: 201},
		func(ctx context.Context, in *ThingPath) (*output[struct {
			Token   string    `json:"token"`
			Expires time.Time `json:"expires"`
		}], error,
		) {
			out := &output[struct {
				Token   string    `json:"token"`
				Expires time.Time `json:"expires"`
			}]{}
			err := a.withFleet(ctx, tenant.VerbWrite, string(v1.KindPop), in.Org, true)
			if err == nil {
				out.Body.Token, out.Body.Expires, err = a.fleet.Enrol(ctx, actor(ctx), in.Name)
			}
			return out, err
		})
	add(a, route{method: "GET", path: "/organizations/{org}/rollouts", id: "list-rollouts", tag: "fleet", summary: "Changes on their way, the newest first"},
		func(ctx context.Context, in *OrgPath) (*output[list[Rollout]], error) {
			if err := a.withFleet(ctx, tenant.VerbRead, "document", in.Org, false); err != nil {
				return nil, err
			}
			items, err := a.fleet.Rollouts(ctx, in.Org)
			return listed(items, "", err)
		})
	add(a, route{method: "POST", path: "/organizations/{org}/rollouts/{name}", id: "steer-rollout", tag: "fleet", summary: "Go on with, hold, expedite or undo a change on its way", status: 204},
		func(ctx context.Context, in *struct {
			ThingPath
			Body struct {
				Action string `json:"action" enum:"continue,hold,undo,expedite"`
				Reason string `json:"reason,omitempty" maxLength:"1024"`
			}
		},
		) (*none, error) {
			err := a.withFleet(ctx, tenant.VerbRevert, "document", in.Org, false)
			if err == nil {
				err = a.fleet.Steer(ctx, actor(ctx), in.Org, in.Name, in.Body.Action, in.Body.Reason)
			}
			return done(err)
		})
	add(a, route{method: "POST", path: "/organizations/{org}/purges", id: "purge", tag: "fleet", summary: "Have stored answers fetched anew, at every place", status: 202},
		func(ctx context.Context, in *struct {
			OrgPath
			Body PurgeBody
		},
		) (*output[Receipt], error) {
			out := &output[Receipt]{}
			err := a.withFleet(ctx, tenant.VerbPurge, string(v1.KindSite), in.Org, false)
			if err == nil {
				out.Body, err = a.fleet.Purge(ctx, actor(ctx), in.Org, in.Body)
			}
			return out, err
		})
}
