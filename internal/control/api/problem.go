package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/relais-edge/relais/internal/control/change"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
	"github.com/relais-edge/relais/internal/control/tenant/claim"
	"github.com/relais-edge/relais/internal/control/tenant/oidc"
	"github.com/relais-edge/relais/internal/document"
)

// typePrefix begins the URI of each type of problem.
const typePrefix = "urn:relais:problem:"

// Problem is every answer that is no success (RFC 9457).
type Problem struct {
	Type      string             `json:"type" doc:"URI of the type: what a program tells problems apart by"`
	Title     string             `json:"title" doc:"The type in words"`
	Status    int                `json:"status"`
	Detail    string             `json:"detail,omitempty" doc:"What is wrong this time"`
	Instance  string             `json:"instance" doc:"URI of this answer; the control plane's log has it too"`
	RequestID string             `json:"requestId"`
	Problems  []document.Problem `json:"problems,omitempty" doc:"Each thing that is wrong, with its place and how to mend it"`
	wait      int                // seconds until it may be tried again; 0: nothing is known
}

// Error is the detail.
func (p *Problem) Error() string { return p.Title + ": " + p.Detail }

// GetStatus is what huma asks for.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is that of RFC 9457.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// GetHeaders is what huma writes beside it.
func (p *Problem) GetHeaders() http.Header {
	if p.wait == 0 {
		return nil
	}
	return http.Header{"Retry-After": {strconv.Itoa(p.wait)}}
}

func newProblem(status int, kind, title, detail string) *Problem {
	return &Problem{Type: typePrefix + kind, Title: title, Status: status, Detail: detail}
}

// kind is an error and the problem that it becomes.
type kind struct {
	err    error
	status int
	name   string
	title  string
	wait   int
}

func kinds() []kind {
	return []kind{
		{tenant.ErrCodeWanted, 401, "code-wanted", "A code of the second factor is wanted", 0},
		{tenant.ErrCode, 401, "code-wrong", "The code is wrong, or was used before", 0},
		{tenant.ErrLogin, 401, "login-wrong", "Organization, login or password are wrong", 0},
		{auth.ErrToken, 401, "token-wrong", "The token is none, or has ended", 0},
		{oidc.ErrState, 409, "login-state", "The login is not under way in this browser", 0},
		{oidc.ErrRefused, 403, "login-refused", "The identity provider let nobody in", 0},
		{oidc.ErrProof, 403, "login-unproved", "The identity provider did not prove who this is", 0},
		{oidc.ErrDown, 502, "provider-down", "The identity provider does not answer as it should", 0},
		{oidc.ErrBusy, 503, "busy", "Too much is going on", 5},
		{tenant.ErrFederated, 403, "no-way-in", "The account of the identity provider has no way in", 0},
		{auth.ErrPassword, 422, "password", "The password cannot be taken", 0},
		{auth.ErrBusy, 503, "busy", "Too much is going on", 1},
		{tenant.ErrInvitation, 410, "link-ended", "The link is not valid any more", 0},
		{tenant.ErrInUse, 409, "in-use", "Something still belongs to it", 0},
		{claim.ErrNoProof, 409, "proof-not-found", "The proof was not found", 0},
		{claim.ErrName, 422, "name", "No host name that can be claimed", 0},
		{tenant.ErrInvalid, 422, "invalid", "Not well formed", 0},
		{store.ErrInvalid, 422, "invalid", "Not well formed", 0},
		{store.ErrCursor, 400, "cursor", "The cursor is not of this list", 0},
		{store.ErrPruned, 410, "pruned", "The history does not reach back so far", 0},
		{store.ErrNotFound, 404, "not-found", "There is no such thing", 0},
		{store.ErrBusy, 503, "busy", "Too much is going on", 1},
		{store.ErrUncertain, 503, "uncertain", "It is not known whether the change was made", 0},
		{store.ErrFull, 507, "full", "There is no room left", 0},
		{store.ErrUnavailable, 503, "unavailable", "The database cannot be reached", 5},
		{context.DeadlineExceeded, 503, "late", "It took too long", 1},
		{context.Canceled, 503, "gone", "The request was given up", 0},
	}
}

// problemOf turns an error into what a client is told. What is denied is told alike, whether what was asked for exists or
// not; of what is our own fault only the number of the request is told.
func (a *API) problemOf(ctx context.Context, err error) *Problem {
	p := a.classify(ctx, err)
	p.RequestID = requestID(ctx)
	p.Instance = "urn:relais:request:" + p.RequestID
	return p
}

func (a *API) classify(ctx context.Context, err error) *Problem {
	var (
		p        *Problem
		docs     *change.ProblemsError
		conflict *store.ConflictError
		limit    *store.LimitError
		quota    *tenant.QuotaError
		taken    *claim.TakenError
		wait     *tenant.WaitError
	)
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &docs):
		p = newProblem(422, "documents", "The documents are wrong, and nothing was changed", docs.Error())
		p.Problems = docs.Problems
		return p
	case errors.Is(err, tenant.ErrDenied):
		return newProblem(403, "denied", "Not allowed", "the token or user may not do this, or there is no such thing for it")
	case errors.As(err, &conflict):
		if conditional(ctx) {
			return newProblem(412, "changed", "It is not at the revision that was expected", conflict.Error())
		}
		return newProblem(409, "conflict", "It is not as it was expected", conflict.Error())
	case errors.As(err, &quota):
		return newProblem(409, "quota", "The plan allows no more", quota.Error())
	case errors.As(err, &limit):
		return newProblem(422, "limit", "A bound would be exceeded", limit.Error())
	case errors.As(err, &taken):
		return newProblem(409, "taken", "The name is not free", taken.Error())
	case errors.As(err, &wait):
		p = newProblem(429, "wait", "Too many wrong tries", wait.Error())
		p.wait = max(int(wait.Wait.Seconds()), 1)
		return p
	}
	for _, k := range kinds() {
		if errors.Is(err, k.err) {
			p = newProblem(k.status, k.name, k.title, err.Error())
			if k.err == oidc.ErrDown || k.err == oidc.ErrProof { // asked by strangers: what our network said is for the log
				a.logger.Warn("a login by a provider failed", "request", requestID(ctx), "err", err)
				p.Detail = k.err.Error()
			}
			p.wait = k.wait
			return p
		}
	}
	a.logger.Error("a request failed", "request", requestID(ctx), "err", err)
	return newProblem(500, "internal", "Something is wrong with the control plane", "tell its operator the id of the request")
}

// transform turns huma's own errors, of requests that are not well formed, into problems.
func (a *API) transform(hc huma.Context, _ string, v any) (any, error) {
	m, is := v.(*huma.ErrorModel)
	if !is {
		return v, nil
	}
	name, title := "request", "The request is not well formed"
	if m.Status >= 500 {
		name, title = "internal", "Something is wrong with the control plane"
		a.logger.Error("a request failed", "request", requestID(hc.Context()), "err", m.Detail)
		m.Detail = "tell its operator the id of the request"
		m.Errors = nil
	}
	p := newProblem(m.Status, name, title, m.Detail)
	for _, e := range m.Errors {
		field, _ := strings.CutPrefix(e.Location, "body.")
		p.Problems = append(p.Problems, document.Problem{File: "request", Field: field, What: e.Message})
	}
	p.RequestID = requestID(hc.Context())
	p.Instance = "urn:relais:request:" + p.RequestID
	return p, nil
}

// notOffered answers for what this control plane does not do.
func notOffered(what string) *Problem {
	return newProblem(http.StatusNotImplemented, "not-offered", "This control plane does not offer it", fmt.Sprintf("%s are not part of it, or are switched off", what))
}
