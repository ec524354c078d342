package api

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"runtime/debug"
	"strings"

	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
)

const (
	cookieName = "__Host-relais"
	// csrfHeader is a field that no other site's page can send without asking first, which it is never allowed.
	csrfHeader = "Relais-Request"
)

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

// call is what is known of a request.
type call struct {
	id          string
	conditional bool
	actor       *tenant.Actor
	host        string // as the client says, without a port
	org, path   string // that the request is about, where it names one
	source      netip.Addr
	agent       string
}

type callKey struct{}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	if c == nil {
		return &call{}
	}
	return c
}

func requestID(ctx context.Context) string { return callOf(ctx).id }

func conditional(ctx context.Context) bool { return callOf(ctx).conditional }

func actorOf(ctx context.Context) (tenant.Actor, bool) {
	if c := callOf(ctx); c.actor != nil {
		return *c.actor, true
	}
	return tenant.Actor{}, false
}

// actor is who asks; guard has let in nobody without one.
func actor(ctx context.Context) tenant.Actor {
	a, _ := actorOf(ctx)
	return a
}

func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// public says what needs no token.
func public(r *http.Request) bool {
	p := r.URL.Path
	return costly(r) || (p == "/v1/brand" || strings.HasPrefix(p, "/v1/openapi")) && safe(r.Method)
}

// costly says what anybody may ask and makes work all the same: hashes, questions to others, and guesses.
func costly(r *http.Request) bool {
	p := r.URL.Path
	if strings.HasPrefix(p, "/v1/login/") {
		return safe(r.Method)
	}
	switch p {
	case "/v1/login", "/v1/links/show", "/v1/links/redeem":
		return r.Method == http.MethodPost
	default:
		return false
	}
}

// guard is what every request goes through, before anything of it is believed.
func (a *API) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{id: auth.NewSecret()[:22], source: source(r), agent: r.UserAgent()}
		c.path, c.host = r.URL.Path, r.Host
		if host, _, err := net.SplitHostPort(r.Host); err == nil {
			c.host = host
		}
		if rest, is := strings.CutPrefix(c.path, "/v1/organizations/"); is {
			c.org, _, _ = strings.Cut(rest, "/")
		}
		c.conditional = r.Header.Get("If-Match") != "" || r.Header.Get("If-None-Match") != ""
		r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
		h := w.Header()
		h.Set("Request-Id", c.id)
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		defer func() {
			if v := recover(); v != nil {
				if v == http.ErrAbortHandler { //nolint:errorlint // it is this very value
					panic(v)
				}
				a.logger.Error("a request panicked", "request", c.id, "panic", v, "stack", string(debug.Stack()))
				a.refuse(w, r, newProblem(500, "internal", "Something is wrong with the control plane", "tell its operator the id of the request"))
			}
		}()
		if p := a.sources.allow(h, "source", c.source.String()); p != nil {
			a.refuse(w, r, p)
			return
		}
		if costly(r) {
			if p := a.strangers.allow(h, "stranger", c.source.String()); p != nil {
				a.refuse(w, r, p)
				return
			}
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if err := a.authenticate(r, c); err != nil {
			h.Set("WWW-Authenticate", `Bearer realm="relais"`)
			a.refuse(w, r, err)
			return
		}
		if c.actor != nil {
			if p := a.actors.allow(h, "actor", c.actor.String()); p != nil {
				a.refuse(w, r, p)
				return
			}
		}
		if !strings.HasSuffix(r.URL.Path, "/watch") { // those have a bound of their own
			select {
			case a.places <- struct{}{}:
				defer func() { <-a.places }()
			default:
				p := newProblem(503, "busy", "Too much is going on", "try again")
				p.wait = 1
				a.refuse(w, r, p)
				return
			}
		}
		a.once(w, r, next)
	})
}

// source is the address that a request comes from; of IPv6 its network, which one customer has.
func source(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.IPv6Unspecified()
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return addr
}

// authenticate finds out who asks. A request with a session's cookie must have been made by our own page.
func (a *API) authenticate(r *http.Request, c *call) error {
	if public(r) {
		return nil
	}
	text, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !bearer {
		cookie, err := r.Cookie(cookieName)
		if err != nil {
			return newProblem(401, "token-missing", "Who asks is not known", "send Authorization: Bearer with a token; relais login gets one")
		}
		if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" || !safe(r.Method) && r.Header.Get(csrfHeader) == "" {
			return newProblem(403, "other-site", "The request may have been made by another site", "send the field "+csrfHeader+": 1 from a page of this control plane")
		}
		text = cookie.Value
	}
	actor, err := a.tenant.Authenticate(r.Context(), text)
	if errors.Is(err, auth.ErrToken) {
		actor, err = a.tenant.ResumeSession(r.Context(), text)
	}
	if err != nil {
		return err
	}
	c.actor = &actor
	return nil
}

// refuse answers with a problem.
func (a *API) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := a.problemOf(r.Context(), err)
	for k, v := range p.GetHeaders() {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

func bodyProblem(err error) error {
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		return newProblem(413, "too-large", "The body is too large", "send less at once; at most 16 MiB are taken")
	}
	return newProblem(400, "body", "The body could not be read", "send it whole")
}
