package api

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/control/tenant"
)

// LinkBody asks for a one-time link.
type LinkBody struct {
	Purpose string `json:"purpose" enum:"invite,reset" doc:"invite makes the user where there is none; reset is for one who has a password"`
	Hours   int    `json:"hours,omitempty" minimum:"1" maximum:"168" doc:"How long it holds; absent: 72 for an invitation, 1 for a reset, which may have 24"`
}

// Link is what lets a user set his password, once.
type Link struct {
	Link string `json:"link" doc:"Shown once; POST /v1/links/redeem takes it"`
}

// Invited is whose a link is.
type Invited struct {
	Organization string `json:"organization"`
	Login        string `json:"login"`
	Reset        bool   `json:"reset,omitempty" doc:"The user had a password before"`
}

// ProviderBody is an OpenID provider. Its secret is written and never read.
type ProviderBody struct {
	Name         string               `json:"name,omitempty" readOnly:"true"`
	Title        string               `json:"title,omitempty" maxLength:"256"`
	Issuer       string               `json:"issuer" maxLength:"512" doc:"https URL, as the provider writes it itself"`
	ClientID     string               `json:"clientId" maxLength:"512"`
	ClientSecret string               `json:"clientSecret,omitempty" maxLength:"1024" writeOnly:"true" doc:"Never shown. Absent: the former one, for the same issuer and client; of a new provider: a public client"`
	Scopes       []string             `json:"scopes,omitempty" maxItems:"16" doc:"Beside openid; absent: email and profile"`
	Domains      []string             `json:"domains,omitempty" maxItems:"64" doc:"Of the verified e-mail address; absent: any"`
	CreateUsers  bool                 `json:"createUsers,omitempty"`
	Roles        []tenant.RoleMapping `json:"roles,omitempty"`
	Disabled     bool                 `json:"disabled,omitempty"`
}

func showProvider(name string, p tenant.Provider) ProviderBody {
	return ProviderBody{
		Name: name, Title: p.Title, Issuer: p.Issuer, ClientID: p.ClientID, Scopes: p.Scopes, Domains: p.Domains,
		CreateUsers: p.CreateUsers, Roles: p.Roles, Disabled: p.Disabled,
	}
}

func (p ProviderBody) kept() tenant.Provider {
	return tenant.Provider{
		Title: p.Title, Issuer: p.Issuer, ClientID: p.ClientID, Scopes: p.Scopes, Domains: p.Domains,
		CreateUsers: p.CreateUsers, Roles: p.Roles, Disabled: p.Disabled,
	}
}

// accessRoutes are how users get in: sessions, one-time links and identity providers.
func (a *API) accessRoutes() {
	a.sessionRoutes()
	a.linkRoutes()
	a.providerRoutes()
}

func (a *API) sessionRoutes() {
	add(a, route{method: "GET", path: "/organizations/{org}/users/{name}/sessions", id: "list-sessions", tag: "session", summary: "From where a user is logged in: oneself, or one whom one manages"},
		func(ctx context.Context, in *ThingPath) (*output[list[tenant.Session]], error) {
			items, err := a.tenant.Sessions(ctx, actor(ctx), in.Org, in.Name)
			return listed(items, "", err)
		})
	add(a, route{method: "DELETE", path: "/organizations/{org}/users/{name}/sessions", id: "end-sessions", tag: "session", summary: "Log a user out everywhere, but for the session that asks", status: 204},
		func(ctx context.Context, in *ThingPath) (*none, error) {
			_, err := a.tenant.EndSessions(ctx, actor(ctx), in.Org, in.Name)
			return done(err)
		})
	add(a, route{method: "DELETE", path: "/organizations/{org}/sessions/{name}", id: "end-session", tag: "session", summary: "End one session, by its id", status: 204},
		func(ctx context.Context, in *ThingPath) (*none, error) {
			return done(a.tenant.EndSession(ctx, actor(ctx), in.Org, in.Name))
		})
}

func (a *API) linkRoutes() {
	add(a, route{method: "POST", path: "/organizations/{org}/users/{name}/links", id: "create-link", tag: "users", summary: "A link by which a user sets his password, once; a later one ends the former", status: 201},
		func(ctx context.Context, in *struct {
			ThingPath
			Body LinkBody
		},
		) (*output[Link], error) {
			offer, life := a.tenant.Invite, time.Duration(in.Body.Hours)*time.Hour
			if in.Body.Purpose == "reset" {
				offer = a.tenant.OfferReset
			}
			text, err := offer(ctx, actor(ctx), in.Org, in.Name, life)
			return &output[Link]{Link{text}}, err
		})
	add(a, route{method: "POST", path: "/links/show", id: "show-link", tag: "session", summary: "Whose a one-time link is", public: true},
		func(ctx context.Context, in *struct {
			Body struct {
				Link string `json:"link" maxLength:"512"`
			}
		},
		) (*output[Invited], error) {
			who, reset, err := a.tenant.Invited(ctx, in.Body.Link)
			return &output[Invited]{Invited{who.Organization, who.Login, reset}}, err
		})
	add(a, route{method: "POST", path: "/links/redeem", id: "redeem-link", tag: "session", summary: "Set the password that a one-time link allows to set, and log in with it afterwards", public: true},
		func(ctx context.Context, in *struct {
			Body struct {
				Link     string `json:"link" maxLength:"512"`
				Password string `json:"password" maxLength:"1024"`
			}
		},
		) (*output[Invited], error) {
			who, err := a.tenant.Redeem(ctx, in.Body.Link, in.Body.Password)
			return &output[Invited]{Invited{Organization: who.Organization, Login: who.Login}}, err
		})
}

func (a *API) providerRoutes() {
	add(a, route{method: "GET", path: "/organizations/{org}/providers", id: "list-providers", tag: "users", summary: "The organization's identity providers, without their secrets"},
		func(ctx context.Context, in *OrgPath) (*output[list[ProviderBody]], error) {
			all, err := a.tenant.Providers(ctx, actor(ctx), in.Org)
			items := make([]ProviderBody, 0, len(all))
			for name, p := range all {
				items = append(items, showProvider(name, p))
			}
			slices.SortFunc(items, func(x, y ProviderBody) int { return strings.Compare(x.Name, y.Name) })
			return listed(items, "", err)
		})
	add(a, route{method: "GET", path: "/organizations/{org}/providers/{name}", id: "get-provider", tag: "users", summary: "An identity provider, without its secret"},
		func(ctx context.Context, in *ThingPath) (*output[ProviderBody], error) {
			all, err := a.tenant.Providers(ctx, actor(ctx), in.Org)
			if err != nil {
				return nil, err
			}
			p, is := all[in.Name]
			if !is {
				return nil, newProblem(404, "not-found", "There is no such thing", fmt.Sprintf("the organization has no provider %q", in.Name))
			}
			return &output[ProviderBody]{showProvider(in.Name, p)}, nil
		})
	add(a, route{method: "PUT", path: "/organizations/{org}/providers/{name}", id: "put-provider", tag: "users", summary: "Make or change an identity provider", status: 204},
		func(ctx context.Context, in *struct {
			ThingPath
			Body ProviderBody
		},
		) (*none, error) {
			return done(a.tenant.PutProvider(ctx, actor(ctx), in.Org, in.Name, in.Body.kept(), in.Body.ClientSecret))
		})
	add(a, route{method: "DELETE", path: "/organizations/{org}/providers/{name}", id: "delete-provider", tag: "users", summary: "Remove an identity provider; sessions by it end at once", status: 204},
		func(ctx context.Context, in *ThingPath) (*none, error) {
			return done(a.tenant.DeleteProvider(ctx, actor(ctx), in.Org, in.Name))
		})
}
