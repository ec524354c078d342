package api

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/audit"
)

// Name is the name of something of an organization.
type Name struct {
	Name string `json:"name"`
}

// documents lists what tenancy keeps of a kind, each as shown makes it: what proves or keeps secret is left out there.
func documents[T any](ctx context.Context, a *API, org, kind string, p PageQuery, shown func(d store.Document) (T, error)) (*output[list[T]], error) {
	items, next := []T{}, ""
	err := a.store.View(ctx, func(r *store.Reader) error {
		if err := a.tenant.Authorize(ctx, r, actor(ctx), tenant.Access{Verb: tenant.VerbRead, Kind: kind, Organization: org}); err != nil {
			return err
		}
		found, err := r.List(ctx, store.Query{Organization: org, Kind: kind, Cursor: p.Cursor, Limit: p.Limit})
		if err != nil {
			return err
		}
		for _, d := range found.Documents {
			it, err := shown(d)
			if err != nil {
				return fmt.Errorf("%s: %w", d.Key, err)
			}
			items = append(items, it)
		}
		next = found.Next
		return nil
	})
	return listed(items, next, err)
}

// plainly gives a document as it is kept.
func plainly[T any](d store.Document) (v T, err error) {
	return v, json.Unmarshal(d.Body, &v)
}

type listInput struct {
	OrgPath
	PageQuery
}

type nameBody struct {
	OrgPath
	Body Name
}

type ThingPath struct {
	OrgPath
	Name string `path:"name" maxLength:"253" doc:"Its name"`
}

func done(err error) (*none, error) { return &none{}, err }

func (a *API) treeRoutes() {
	add(a, route{method: "GET", path: "/organizations/{org}", id: "get-organization", tag: "organizations", summary: "An organization"},
		func(ctx context.Context, in *OrgPath) (*output[tenant.Organization], error) {
			o, err := a.tenant.Organization(ctx, actor(ctx), in.Org)
			return &output[tenant.Organization]{o}, err
		})
	add(a, route{method: "DELETE", path: "/organizations/{org}", id: "delete-organization", tag: "organizations", summary: "Remove an organization that is empty", status: 204},
		func(ctx context.Context, in *OrgPath) (*none, error) {
			return done(a.tenant.DeleteOrganization(ctx, actor(ctx), in.Org))
		})
	add(a, route{method: "GET", path: "/organizations/{org}/children", id: "list-children", tag: "organizations", summary: "The organizations right below"},
		func(ctx context.Context, in *listInput) (*output[list[Name]], error) {
			names, next, err := a.tenant.Children(ctx, actor(ctx), in.Org, in.Cursor, in.Limit)
			items := make([]Name, len(names))
			for i, n := range names {
				items[i] = Name{n}
			}
			return listed(items, next, err)
		})
	add(a, route{method: "POST", path: "/organizations/{org}/children", id: "create-organization", tag: "organizations", summary: "Make an organization below", status: 201},
		func(ctx context.Context, in *struct {
			OrgPath
			Body struct {
				Name  string `json:"name" maxLength:"63" doc:"Unique for all time"`
				Title string `json:"title,omitempty" maxLength:"256"`
			}
		},
		) (*none, error) {
			return done(a.tenant.CreateOrganization(ctx, actor(ctx), in.Org, in.Body.Name, in.Body.Title))
		})
	add(a, route{method: "GET", path: "/organizations/{org}/projects", id: "list-projects", tag: "organizations", summary: "Projects"},
		func(ctx context.Context, in *listInput) (*output[list[Name]], error) {
			return documents(ctx, a, in.Org, tenant.KindProject, in.PageQuery, plainly[Name])
		})
	add(a, route{method: "POST", path: "/organizations/{org}/projects", id: "create-project", tag: "organizations", summary: "Make a project", status: 201},
		func(ctx context.Context, in *nameBody) (*none, error) {
			return done(a.tenant.CreateProject(ctx, actor(ctx), in.Org, in.Body.Name))
		})
	add(a, route{method: "DELETE", path: "/organizations/{org}/projects/{name}", id: "delete-project", tag: "organizations", summary: "Remove a project that is empty", status: 204},
		func(ctx context.Context, in *ThingPath) (*none, error) {
			return done(a.tenant.DeleteProject(ctx, actor(ctx), in.Org, in.Name))
		})
	add(a, route{method: "GET", path: "/organizations/{org}/audit", id: "list-audit", tag: "organizations", summary: "Who did what, the oldest first"},
		func(ctx context.Context, in *struct {
			OrgPath
			After int64 `query:"after" minimum:"0" doc:"Entries after this one"`
			Limit int   `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Entries of a page, at most"`
		},
		) (*output[list[audit.Entry]], error) {
			var items []audit.Entry
			err := a.store.View(ctx, func(r *store.Reader) (err error) {
				if err := a.tenant.Authorize(ctx, r, actor(ctx), tenant.Access{Verb: tenant.VerbRead, Kind: "Audit", Organization: in.Org}); err != nil {
					return err
				}
				items, err = audit.Entries(ctx, r, in.Org, in.After, in.Limit)
				return err
			})
			return listed(items, "", err)
		})
}
