package api

import (
	"context"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
)

// Fleet is what is done with the places. Who may has been asked before.
type Fleet interface {
	Places
	Rollouts
	Purges
}

// Places are the operator's PoPs.
type Places interface {
	// Pops tells how the places are.
	Pops(ctx context.Context) ([]PopStatus, error)
	// Enrol makes a text that lets one place in, once, until the time.
	Enrol(ctx context.Context, actor tenant.Actor, pop string) (text string, until time.Time, err error)
	// RevokePop ends what a place proves itself with, and its texts that were not used.
	RevokePop(ctx context.Context, actor tenant.Actor, pop, reason string) error
}

// Rollouts are changes on their way.
type Rollouts interface {
	// Rollouts tells of an organization's changes on their way, the newest first.
	Rollouts(ctx context.Context, org string) ([]Rollout, error)
	// RolloutEvents tells what happened to them after a number, the oldest first.
	RolloutEvents(ctx context.Context, org string, after int64, limit int) ([]RolloutEvent, error)
	// Steer goes on with, holds or undoes a rollout.
	Steer(ctx context.Context, actor tenant.Actor, org, id, action, reason string) error
}

// Purges are told to all places.
type Purges interface {
	// Purge tells the places to fetch anew, waits as long for those that are heard of, and gives the receipt as far as it is.
	Purge(ctx context.Context, actor tenant.Actor, org string, p PurgeBody, wait time.Duration) (Receipt, error)
	// Receipt tells who obeys a purge of the organization.
	Receipt(ctx context.Context, org string, number int64) (Receipt, error)
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
	Pops     int       `json:"pops,omitempty" doc:"So many have it"`
	Of       int       `json:"of,omitempty" doc:"So many shall have it"`
	Until    time.Time `json:"until,omitzero" doc:"Time until which the ring is watched; absent before all of it have the change"`
	Reason   string    `json:"reason,omitempty"`
	Changed  time.Time `json:"changed"`
}

// RolloutEvent is what happened to a change on its way.
type RolloutEvent struct {
	Number   int64     `json:"number"`
	Time     time.Time `json:"time"`
	Kind     string    `json:"kind"`
	Revision int64     `json:"revision"`
	Text     string    `json:"text"`
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
	Number int64     `json:"number"`
	Time   time.Time `json:"time"`
	Done   bool      `json:"done" doc:"All obey that are heard of"`
	Blind  bool      `json:"blind,omitempty" doc:"This control plane has not heard of the places for long enough to say"`
	Pops   []Ack     `json:"pops"`
}

// Ack is how one place stands to a purge.
type Ack struct {
	Pop   string     `json:"pop"`
	State string     `json:"state" enum:"obeys,waiting,away"`
	At    *time.Time `json:"at,omitempty" doc:"When it was first heard to obey"`
	Seen  time.Time  `json:"seen" doc:"When it was last heard of"`
}

// maxPurgeWait bounds how long an answer waits for places.
const maxPurgeWait = 30 * time.Second

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
	add(a, route{method: "DELETE", path: "/organizations/{org}/pops/{name}/certificates", id: "revoke-pop", tag: "fleet", summary: "Let a place in no more, until it joins anew", status: 204},
		func(ctx context.Context, in *struct {
			ThingPath
			Reason string `query:"reason" maxLength:"1024" doc:"Stands in the audit log"`
		},
		) (*none, error) {
			err := a.withFleet(ctx, tenant.VerbDelete, string(v1.KindPop), in.Org, true)
			if err == nil {
				err = a.fleet.RevokePop(ctx, actor(ctx), in.Name, in.Reason)
			}
			return done(err)
		})
	a.rolloutRoutes()
	a.purgeRoutes()
}

func (a *API) rolloutRoutes() {
	add(a, route{method: "GET", path: "/organizations/{org}/rollout-events", id: "list-rollout-events", tag: "fleet", summary: "What happened to changes on their way, the oldest first"},
		func(ctx context.Context, in *struct {
			OrgPath
			After int64 `query:"after" minimum:"0" doc:"Number of the last event that is known"`
			Limit int   `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Events of a page, at most"`
		},
		) (*output[list[RolloutEvent]], error) {
			if err := a.withFleet(ctx, tenant.VerbRead, "document", in.Org, false); err != nil {
				return nil, err
			}
			items, err := a.fleet.RolloutEvents(ctx, in.Org, in.After, in.Limit)
			return listed(items, "", err)
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
}

func (a *API) purgeRoutes() {
	add(a, route{method: "POST", path: "/organizations/{org}/purges", id: "purge", tag: "fleet", summary: "Have stored answers fetched anew, at every place", status: 202},
		func(ctx context.Context, in *struct {
			OrgPath
			Wait int `query:"wait" minimum:"0" maximum:"30" doc:"Seconds that the answer waits, at most, until all places obey that are heard of"`
			Body PurgeBody
		},
		) (*output[Receipt], error) {
			out := &output[Receipt]{}
			err := a.withFleet(ctx, tenant.VerbPurge, string(v1.KindSite), in.Org, false)
			if err == nil {
				out.Body, err = a.fleet.Purge(ctx, actor(ctx), in.Org, in.Body, min(time.Duration(in.Wait)*time.Second, maxPurgeWait))
			}
			return out, err
		})
	add(a, route{method: "GET", path: "/organizations/{org}/purges/{number}", id: "get-purge", tag: "fleet", summary: "Which places obey a purge"},
		func(ctx context.Context, in *struct {
			OrgPath
			Number int64 `path:"number" minimum:"1" doc:"Of the purge, as its answer told"`
		},
		) (*output[Receipt], error) {
			out := &output[Receipt]{}
			err := a.withFleet(ctx, tenant.VerbRead, string(v1.KindSite), in.Org, false)
			if err == nil {
				out.Body, err = a.fleet.Receipt(ctx, in.Org, in.Number)
			}
			return out, err
		})
}
