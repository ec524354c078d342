package api

import (
	"context"
	"crypto/subtle"
	"net/http"
	"time"

	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/oidc"
)

const (
	// stateCookie holds the state of a login by a provider in the browser that began it. The provider's answer is a navigation
	// from another site, which carries no Strict cookie.
	stateCookie = "__Host-relais-login"
	stateLife   = 10 * time.Minute
)

// Choice is a provider by which one can log in.
type Choice struct {
	Name  string `json:"name"`
	Title string `json:"title,omitempty"`
	URL   string `json:"url" doc:"Path to which a browser goes to log in"`
}

// sentOn is an answer that sends a browser elsewhere.
type sentOn struct {
	Status    int
	Location  string        `header:"Location"`
	SetCookie []http.Cookie `header:"Set-Cookie"`
}

func heldState(state string, life time.Duration) http.Cookie {
	return http.Cookie{Name: stateCookie, Value: state, Path: "/", MaxAge: int(life / time.Second), Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

func (a *API) federatedRoutes() {
	add(a, route{method: "GET", path: "/login/{org}", id: "list-logins", tag: "session", summary: "The providers by which users of an organization can log in", public: true},
		func(ctx context.Context, in *OrgPath) (*output[list[Choice]], error) {
			if a.oidc == nil {
				return nil, notOffered("logins by providers")
			}
			found, err := a.tenant.Choices(ctx, in.Org)
			items := make([]Choice, len(found))
			for i, c := range found {
				items[i] = Choice{c.Name, c.Title, "/v1/login/" + in.Org + "/" + c.Name}
			}
			return listed(items, "", err)
		})
	add(a, route{method: "GET", path: "/login/{org}/{name}", id: "begin-login", tag: "session", summary: "Send a browser to a provider, to log in to the organization", status: 303, public: true},
		func(ctx context.Context, in *ThingPath) (*sentOn, error) {
			redirect, err := a.callback(ctx, in.Org, in.Name)
			if err != nil {
				return nil, err
			}
			to, state, err := a.oidc.Begin(ctx, in.Org, in.Name, redirect)
			return &sentOn{http.StatusSeeOther, to, []http.Cookie{heldState(state, stateLife)}}, err
		})
	add(a, route{method: "GET", path: "/login/{org}/{name}/callback", id: "finish-login", tag: "session", summary: "Where a provider sends a browser back to; it is logged in, and sent to the console", status: 303, public: true, anyQuery: true}, a.finishLogin)
	add(a, route{method: "POST", path: "/session/providers/{name}", id: "link-login", tag: "session", summary: "Log in by a provider from now on: gives the address that the browser goes to"},
		func(ctx context.Context, in *struct {
			Name string `path:"name" maxLength:"63" doc:"Its name"`
		},
		) (*linkOutput, error) {
			who := actor(ctx)
			redirect, err := a.callback(ctx, who.Organization, in.Name)
			if err != nil {
				return nil, err
			}
			to, state, err := a.oidc.BeginLink(ctx, who, in.Name, redirect)
			out := &linkOutput{SetCookie: heldState(state, stateLife)}
			out.Body.URL = to
			return out, err
		})
}

type linkOutput struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
	Body      struct {
		URL string `json:"url"`
	}
}

type callbackInput struct {
	ThingPath
	State   string `query:"state" doc:"As the login began with"`
	Code    string `query:"code"`
	Issuer  string `query:"iss" doc:"RFC 9207"`
	Refusal string `query:"error" doc:"Why the provider let nobody in"`
	Held    string `cookie:"__Host-relais-login" doc:"The state, of the browser that began"`
}

// finishLogin lets in who comes back to the browser that he began with: a link with somebody else's state, which would log
// him in as that one, finds another cookie or none.
func (a *API) finishLogin(ctx context.Context, in *callbackInput) (*sentOn, error) {
	if in.Held == "" || subtle.ConstantTimeCompare([]byte(in.Held), []byte(in.State)) != 1 {
		return nil, oidc.ErrState
	}
	base, err := a.base(ctx)
	if err != nil {
		return nil, err
	}
	c := callOf(ctx)
	who, err := a.oidc.Finish(ctx, oidc.Callback{
		State: in.State, Code: in.Code, Issuer: in.Issuer, Refusal: in.Refusal, Redirect: callbackAt(base, in.Org, in.Name), Source: c.source,
	})
	if err != nil {
		return nil, err
	}
	text, se, err := a.tenant.OpenSession(ctx, who.Actor, tenant.SessionRequest{Source: c.source, Agent: c.agent, Provider: who.Provider})
	return &sentOn{http.StatusSeeOther, base + "/", []http.Cookie{sessionCookie(text, se.End()), heldState("", -time.Second)}}, err
}

// callback is the address that a provider sends back to: it names the provider where it is kept, not who logs in.
func (a *API) callback(ctx context.Context, org, provider string) (string, error) {
	base, err := a.base(ctx)
	if err != nil {
		return "", err
	}
	ref, _, _, err := a.tenant.FindProvider(ctx, org, provider)
	return callbackAt(base, ref.Organization, ref.Name), err
}

func callbackAt(base, org, provider string) string {
	return base + "/v1/login/" + org + "/" + provider + "/callback"
}

// base is how the control plane was reached: a console's host, where the request is for one, else the address that it was
// configured with. What else a request says of its host is not believed.
func (a *API) base(ctx context.Context) (string, error) {
	if a.oidc == nil {
		return "", notOffered("logins by providers")
	}
	if a.brand != nil {
		if _, _, err := a.brand.BrandOfHost(ctx, callOf(ctx).host); err == nil {
			return "https://" + callOf(ctx).host, nil
		}
	}
	if a.url == "" {
		return "", newProblem(http.StatusNotImplemented, "not-offered", "This control plane does not offer it", "logins by providers need the control plane's own address; its operator sets --url")
	}
	return a.url, nil
}
