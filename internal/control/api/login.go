package api

import (
	"context"
	"net/http"
	"time"

	"github.com/relais-edge/relais/internal/control/tenant"
)

type loginInput struct {
	Body struct {
		Organization string `json:"organization" maxLength:"63"`
		Login        string `json:"login" maxLength:"128"`
		Password     string `json:"password" maxLength:"1024"`
		Code         string `json:"code,omitempty" maxLength:"64" doc:"Of the second factor, or a recovery code"`
		Device       string `json:"device,omitempty" maxLength:"128" doc:"What login gave to this device before"`
	}
}

// LoggedIn is what login gives.
type LoggedIn struct {
	Token   string    `json:"token" doc:"Stands for the user until it expires; send it as Authorization: Bearer"`
	Expires time.Time `json:"expires" doc:"At the latest: it ends after an hour without use, and with the password"`
	Device  string    `json:"device" doc:"To be kept by the device, so that others' wrong tries do not slow it down"`
}

// Who is who asks.
type Who struct {
	Organization string     `json:"organization"`
	Login        string     `json:"login"`
	Token        string     `json:"token,omitempty" doc:"Id of the API token"`
	Scope        string     `json:"scope,omitempty" doc:"The part of the tree that the token is for"`
	Project      string     `json:"project,omitempty"`
	Expires      *time.Time `json:"expires,omitempty"`
}

type loginOutput struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
	Body      LoggedIn
}

func sessionCookie(text string, until time.Time) http.Cookie {
	return http.Cookie{Name: cookieName, Value: text, Path: "/", Expires: until, Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode}
}

func (a *API) loginRoutes() {
	add(a, route{method: "POST", path: "/login", id: "login", tag: "session", summary: "Log in with a password", public: true},
		func(ctx context.Context, in *loginInput) (*loginOutput, error) {
			c := callOf(ctx)
			b := in.Body
			who, device, err := a.tenant.Login(ctx, tenant.Credentials{Organization: b.Organization, Login: b.Login, Password: b.Password, Code: b.Code, Device: b.Device, Source: c.source})
			if err != nil {
				return nil, err
			}
			text, se, err := a.tenant.OpenSession(ctx, who, tenant.SessionRequest{Source: c.source, Agent: c.agent})
			return &loginOutput{sessionCookie(text, se.End()), LoggedIn{text, se.End(), device}}, err
		})
	add(a, route{method: "POST", path: "/logout", id: "logout", tag: "session", summary: "End the session", status: 204},
		func(ctx context.Context, _ *struct{}) (*struct {
			SetCookie http.Cookie `header:"Set-Cookie"`
		}, error,
		) {
			out := &struct {
				SetCookie http.Cookie `header:"Set-Cookie"`
			}{sessionCookie("", time.Unix(1, 0))}
			if who := actor(ctx); who.Session != "" {
				return out, a.tenant.EndSession(ctx, who, who.Organization, who.Session)
			}
			return out, nil
		})
	add(a, route{method: "GET", path: "/session", id: "session", tag: "session", summary: "Who asks"},
		func(ctx context.Context, _ *struct{}) (*output[Who], error) {
			x := actor(ctx)
			w := Who{Organization: x.Organization, Login: x.Login}
			if t := x.Token; t != nil {
				w.Token, w.Scope, w.Project, w.Expires = t.ID, t.Organization, t.Project, &t.Expires
			}
			return &output[Who]{w}, nil
		})
	add(a, route{method: "POST", path: "/session/totp", id: "begin-totp", tag: "session", summary: "Make a second factor, which counts once it is confirmed"},
		func(ctx context.Context, _ *struct{}) (*output[struct {
			URI string `json:"uri" doc:"For an authenticator program"`
		}], error,
		) {
			out := &output[struct {
				URI string `json:"uri" doc:"For an authenticator program"`
			}]{}
			var err error
			out.Body.URI, err = a.tenant.BeginTOTP(ctx, actor(ctx))
			return out, err
		})
	add(a, route{method: "POST", path: "/session/totp/confirm", id: "confirm-totp", tag: "session", summary: "Put the second factor in force; gives recovery codes, once"},
		func(ctx context.Context, in *struct {
			Body struct {
				Code string `json:"code" maxLength:"64"`
			}
		},
		) (*output[list[string]], error) {
			codes, err := a.tenant.ConfirmTOTP(ctx, actor(ctx), in.Body.Code)
			return listed(codes, "", err)
		})
}
