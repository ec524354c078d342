package api

import (
	"context"
	"fmt"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
)

// User is what is shown of one.
type User struct {
	Login        string `json:"login"`
	Service      bool   `json:"service,omitempty" doc:"A program: it has tokens and no password"`
	Disabled     bool   `json:"disabled,omitempty"`
	SecondFactor bool   `json:"secondFactor,omitempty"`
}

func showUser(d store.Document) (User, error) {
	u, err := plainly[tenant.User](d)
	return User{u.Login, u.Service, u.Disabled, u.TOTP != nil}, err
}

// BindingBody gives a user a role.
type BindingBody struct {
	User         string     `json:"user" maxLength:"128"`
	Organization string     `json:"organization,omitempty" maxLength:"63" doc:"Where the user is at home; absent: this organization"`
	Role         string     `json:"role" maxLength:"63" doc:"admin, editor, viewer, billing, or a role of the organization or one above"`
	Project      string     `json:"project,omitempty" maxLength:"63" doc:"Absent: the whole organization and those below it"`
	Expires      *time.Time `json:"expires,omitempty" doc:"Asked for of users from above"`
}

func (b BindingBody) of(org string) tenant.Actor {
	if b.Organization == "" {
		b.Organization = org
	}
	return tenant.Actor{Organization: b.Organization, Login: b.User}
}

// NamedRole is a role with its name.
type NamedRole struct {
	Name string `json:"name"`
	tenant.Role
}

func (a *API) userRoutes() {
	add(a, route{method: "GET", path: "/organizations/{org}/users", id: "list-users", tag: "users", summary: "Users and services"},
		func(ctx context.Context, in *listInput) (*output[list[User]], error) {
			return documents(ctx, a, in.Org, tenant.KindUser, in.PageQuery, showUser)
		})
	add(a, route{method: "POST", path: "/organizations/{org}/users", id: "create-user", tag: "users", summary: "Make a user without any right, or a service", status: 201},
		func(ctx context.Context, in *struct {
			OrgPath
			Body struct {
				Login    string `json:"login" maxLength:"128"`
				Password string `json:"password,omitempty" maxLength:"1024"`
				Service  bool   `json:"service,omitempty"`
			}
		},
		) (*none, error) {
			return done(a.tenant.CreateUser(ctx, actor(ctx), in.Org, in.Body.Login, in.Body.Password, in.Body.Service))
		})
	add(a, route{method: "DELETE", path: "/organizations/{org}/users/{name}", id: "delete-user", tag: "users", summary: "Remove a user with his rights and tokens", status: 204},
		func(ctx context.Context, in *ThingPath) (*none, error) {
			return done(a.tenant.DeleteUser(ctx, actor(ctx), in.Org, in.Name))
		})
	add(a, route{method: "PUT", path: "/organizations/{org}/users/{name}/password", id: "set-password", tag: "users", summary: "Change one's own password, or set another's", status: 204},
		func(ctx context.Context, in *struct {
			ThingPath
			Body struct {
				Former   string `json:"former,omitempty" maxLength:"1024" doc:"One's own former one"`
				Password string `json:"password" maxLength:"1024"`
			}
		},
		) (*none, error) {
			return done(a.tenant.SetPassword(ctx, actor(ctx), in.Org, in.Name, in.Body.Former, in.Body.Password))
		})
	add(a, route{method: "PUT", path: "/organizations/{org}/users/{name}/disabled", id: "disable-user", tag: "users", summary: "Keep a user and his tokens out, or let him in again", status: 204},
		func(ctx context.Context, in *struct {
			ThingPath
			Body struct {
				Disabled bool `json:"disabled"`
			}
		},
		) (*none, error) {
			return done(a.tenant.SetDisabled(ctx, actor(ctx), in.Org, in.Name, in.Body.Disabled))
		})
	add(a, route{method: "GET", path: "/organizations/{org}/roles", id: "list-roles", tag: "users", summary: "Roles that were made here"},
		func(ctx context.Context, in *listInput) (*output[list[NamedRole]], error) {
			return documents(ctx, a, in.Org, tenant.KindRole, in.PageQuery, func(d store.Document) (NamedRole, error) {
				role, err := plainly[tenant.Role](d)
				return NamedRole{d.Name, role}, err
			})
		})
	add(a, route{method: "PUT", path: "/organizations/{org}/roles/{name}", id: "put-role", tag: "users", summary: "Make or change a role; nobody gives what he does not have", status: 204},
		func(ctx context.Context, in *struct {
			ThingPath
			Body tenant.Role
		},
		) (*none, error) {
			return done(a.tenant.PutRole(ctx, actor(ctx), in.Org, in.Name, in.Body))
		})
	a.bindingRoutes()
	a.tokenRoutes()
}

func (a *API) bindingRoutes() {
	add(a, route{method: "GET", path: "/organizations/{org}/bindings", id: "list-bindings", tag: "users", summary: "Who has which role"},
		func(ctx context.Context, in *listInput) (*output[list[BindingBody]], error) {
			return documents(ctx, a, in.Org, tenant.KindBinding, in.PageQuery, func(d store.Document) (BindingBody, error) {
				b, err := plainly[tenant.Binding](d)
				return BindingBody{b.User, b.Home, b.Role, d.Project, b.Expires}, err
			})
		})
	add(a, route{method: "POST", path: "/organizations/{org}/bindings", id: "bind", tag: "users", summary: "Give a user a role", status: 204},
		func(ctx context.Context, in *struct {
			OrgPath
			Body BindingBody
		},
		) (*none, error) {
			return done(a.tenant.Bind(ctx, actor(ctx), in.Org, in.Body.Project, in.Body.of(in.Org), in.Body.Role, in.Body.Expires))
		})
	add(a, route{method: "POST", path: "/organizations/{org}/bindings/remove", id: "unbind", tag: "users", summary: "Take a role from a user", status: 204},
		func(ctx context.Context, in *struct {
			OrgPath
			Body BindingBody
		},
		) (*none, error) {
			return done(a.tenant.Unbind(ctx, actor(ctx), in.Org, in.Body.Project, in.Body.of(in.Org), in.Body.Role))
		})
}

// TokenBody is what a new token shall be.
type TokenBody struct {
	User    string        `json:"user,omitempty" maxLength:"128" doc:"A service of the organization; absent: oneself"`
	Title   string        `json:"title,omitempty" maxLength:"256"`
	Scope   string        `json:"scope,omitempty" maxLength:"63" doc:"Organization, with those below it; absent: this one"`
	Project string        `json:"project,omitempty" maxLength:"63"`
	Rules   []tenant.Rule `json:"rules" doc:"What it may, of what its user may"`
	Expires time.Time     `json:"expires" doc:"Within 400 days"`
}

// Made is a token that was made.
type Made struct {
	Token string `json:"token" doc:"Shown once"`
}

func (a *API) tokenRoutes() {
	add(a, route{method: "GET", path: "/organizations/{org}/tokens", id: "list-tokens", tag: "users", summary: "Tokens, without what proves them"},
		func(ctx context.Context, in *listInput) (*output[list[tenant.Token]], error) {
			return listed(a.tenant.Tokens(ctx, actor(ctx), in.Org, in.Cursor, in.Limit))
		})
	add(a, route{method: "POST", path: "/organizations/{org}/tokens", id: "create-token", tag: "users", summary: "Make a token; its text is shown once", status: 201},
		func(ctx context.Context, in *struct {
			OrgPath
			Body TokenBody
		},
		) (*output[Made], error) {
			who, b := actor(ctx), in.Body
			if who.Organization != in.Org {
				return nil, fmt.Errorf("%w: tokens are of the organization where their user is at home", tenant.ErrDenied)
			}
			text, err := a.tenant.CreateToken(ctx, who, tenant.TokenRequest{User: b.User, Title: b.Title, Scope: b.Scope, Project: b.Project, Rules: b.Rules, Expires: b.Expires})
			return &output[Made]{Made{text}}, err
		})
	add(a, route{method: "DELETE", path: "/organizations/{org}/tokens/{name}", id: "revoke-token", tag: "users", summary: "End a token, by its id", status: 204},
		func(ctx context.Context, in *ThingPath) (*none, error) {
			return done(a.tenant.RevokeToken(ctx, actor(ctx), in.Org, in.Name))
		})
}
