// Package api is the control plane's HTTP API: documents, tenancy, and what is done to the places, as OpenAPI describes it.
// It decides nothing by itself: what may be done is asked of change, tenant and claim.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/relais-edge/relais/internal/control/change"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/brand"
	"github.com/relais-edge/relais/internal/control/tenant/claim"
	"github.com/relais-edge/relais/internal/control/tenant/oidc"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
	"github.com/relais-edge/relais/internal/document"
)

// Bounds.
const (
	maxBody       = 16 << 20
	maxHeader     = 32 << 10
	headTime      = 10 * time.Second
	bodyTime      = time.Minute
	answerTime    = 2 * time.Minute
	idleTime      = 2 * time.Minute
	perSource     = 1200 // requests a minute of an address
	perActor      = 600  // of a token or user
	perStranger   = 60   // of an address, before anybody logged in: what makes work
	limiterRows   = 20_000
	maxConcurrent = 256 // requests at a time, beside watchers
)

// Pruner forgets history.
type Pruner interface {
	Prune(ctx context.Context, c store.Change, organization string, before int64) error
}

// Config is what an API is made of. Store is the one that all the services were made with.
type Config struct {
	Store   *Marking
	Pruner  Pruner
	Vault   *secret.Vault
	Tenant  *tenant.Service
	Claims  *claim.Service
	Change  *change.Service
	OIDC    *oidc.Service // nil: nobody logs in by a provider
	Brand   *brand.Service
	URL     string // own address, such as https://control.example.com, for providers to send back to; empty: under consoles' hosts alone
	Fleet   Fleet  // nil: no places are attached
	Logger  *slog.Logger
	Version string
	Clock   func() time.Time // of the rate limits; nil: time.Now
}

// API answers requests.
type API struct {
	store     *Marking
	pruner    Pruner
	vault     *secret.Vault
	tenant    *tenant.Service
	claims    *claim.Service
	change    *change.Service
	oidc      *oidc.Service
	brand     *brand.Service
	url       string
	fleet     Fleet
	logger    *slog.Logger
	huma      huma.API
	handler   http.Handler
	sources   *limiter
	actors    *limiter
	strangers *limiter
	turns     turns
	places    chan struct{}
	watchers  watchers
}

// New makes an API.
func New(c Config) *API {
	clock := c.Clock
	if clock == nil {
		clock = time.Now
	}
	a := &API{
		store: c.Store, pruner: c.Pruner, vault: c.Vault, tenant: c.Tenant, claims: c.Claims, change: c.Change, oidc: c.OIDC, brand: c.Brand, url: strings.TrimSuffix(c.URL, "/"), fleet: c.Fleet, logger: c.Logger,
		sources: newLimiter(perSource, limiterRows, clock), actors: newLimiter(perActor, limiterRows, clock), strangers: newLimiter(perStranger, limiterRows, clock),
		turns: turns{of: map[string]*turn{}}, places: make(chan struct{}, maxConcurrent), watchers: watchers{of: map[string]int{}},
	}
	if a.logger == nil {
		a.logger = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	a.huma = humago.New(mux, a.describe(c.Version))
	a.routes()
	a.finishDescription()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a.refuse(w, r, newProblem(http.StatusNotFound, "no-route", "There is no such address", "GET /v1/openapi.json describes those there are"))
	})
	a.handler = a.guard(mux)
	return a
}

// describe begins the OpenAPI document.
func (a *API) describe(version string) huma.Config {
	if version == "" {
		version = "dev"
	}
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Relais control plane", Version: version,
				Description: "Documents are those that relais serve -f reads. Every error is a problem (RFC 9457). What changes something takes an Idempotency-Key: the same request under the same key is made once, for 24 hours.",
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", schemaName),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"token":   {Type: "http", Scheme: "bearer", Description: "An API token, or what login gave"},
					"session": {Type: "apiKey", In: "cookie", Name: cookieName, Description: "Set by login; what changes something then needs the field " + csrfHeader + " too"},
				},
			},
		},
		OpenAPIPath: "/v1/openapi", Formats: map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat: "application/json", RejectUnknownQueryParameters: true,
		Transformers: []huma.Transformer{a.transform},
	}
}

// schemaName tells the two problems apart: the answer, and each thing that it lists.
func schemaName(t reflect.Type, hint string) string {
	if t == typeOf[document.Problem]() {
		return "DocumentProblem"
	}
	return huma.DefaultSchemaNamer(t, hint)
}

// finishDescription lets the description say what the answers are: huma's own errors go out as Problem.
func (a *API) finishDescription() {
	o := a.huma.OpenAPI()
	problem := o.Components.Schemas.Schema(typeOf[Problem](), true, "Problem")
	for _, item := range o.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Put, item.Post, item.Delete, item.Patch} {
			if op == nil {
				continue
			}
			for status := range op.Responses {
				if status >= "400" && status != "default" {
					delete(op.Responses, status)
				}
			}
			op.Responses["default"] = &huma.Response{Description: "A problem", Content: map[string]*huma.MediaType{"application/problem+json": {Schema: problem}}}
		}
	}
	delete(o.Components.Schemas.Map(), "ErrorModel")
	delete(o.Components.Schemas.Map(), "ErrorDetail")
}

// OpenAPI is the description of the API, as JSON.
func (a *API) OpenAPI() ([]byte, error) { return a.huma.OpenAPI().MarshalJSON() }

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.handler.ServeHTTP(w, r) }

// Server is an HTTP server with the API's bounds; the caller gives it a listener and TLS.
func (a *API) Server() *http.Server {
	return &http.Server{
		Handler: a, ReadHeaderTimeout: headTime, ReadTimeout: bodyTime, WriteTimeout: answerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(a.logger.Handler(), slog.LevelDebug),
	}
}

func (a *API) routes() {
	a.documentRoutes()
	a.historyRoutes()
	a.loginRoutes()
	a.treeRoutes()
	a.userRoutes()
	a.accessRoutes()
	a.federatedRoutes()
	a.brandRoutes()
	a.boundRoutes()
	a.claimRoutes()
	a.fleetRoutes()
	a.watchRoutes()
}

// route is one operation.
type route struct {
	method, path, id, tag, summary string
	status                         int
	public                         bool
	anyQuery                       bool // others add parameters of their own
}

// add registers an operation; its errors become problems.
func add[I, O any](a *API, q route, fn func(ctx context.Context, in *I) (*O, error)) {
	op := huma.Operation{
		Method: q.method, Path: "/v1" + q.path, OperationID: q.id, Summary: q.summary, Tags: []string{q.tag}, DefaultStatus: q.status,
		MaxBodyBytes: maxBody, BodyReadTimeout: bodyTime, SkipValidateParams: q.anyQuery,
	}
	if !q.public {
		op.Security = []map[string][]string{{"token": {}}, {"session": {}}}
	}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := fn(ctx, in)
		if err != nil {
			return nil, a.problemOf(ctx, a.denied(ctx, q.id, err))
		}
		return out, nil
	})
}

// denied has a denial told in the log of who asked, whichever room said it. It is no part of the request under a key: who
// gets the right later may ask again.
func (a *API) denied(ctx context.Context, operation string, err error) error {
	c := callOf(ctx)
	if c.actor == nil {
		return err
	}
	return a.tenant.Denied(context.WithValue(ctx, tryKey{}, (*try)(nil)), *c.actor, c.org, operation, c.path, err)
}

// OrgPath is the path of what belongs to an organization.
type OrgPath struct {
	Org string `path:"org" maxLength:"63" doc:"Name of the organization"`
}

// PageQuery is a part of a list.
type PageQuery struct {
	Cursor string `query:"cursor" maxLength:"4096" doc:"Of the page before: its next"`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Entries of a page, at most"`
}

// list is a page's answer.
type list[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty" doc:"Cursor of the next page; absent at the end. A page may be short and have a next one"`
}

// output is an answer with a body.
type output[T any] struct{ Body T }

// none is an answer without one.
type none struct{}

func listed[T any](items []T, next string, err error) (*output[list[T]], error) {
	if items == nil {
		items = []T{}
	}
	return &output[list[T]]{list[T]{items, next}}, err
}
