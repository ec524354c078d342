package api

import (
	"context"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/claim"
)

// NamedPlan is a plan with its name.
type NamedPlan struct {
	Name string `json:"name"`
	tenant.Plan
}

// NamedRails are an organization's bounds: its own, or those that who stands above imposed on it.
type NamedRails struct {
	Name string `json:"name" enum:"own,imposed"`
	tenant.Guardrails
}

// Use is an organization's use of what plans may limit, with all below it.
type Use struct {
	Used  int64         `json:"used"`
	Limit *tenant.Limit `json:"limit,omitempty" doc:"Absent: none of its own plan"`
}

func (a *API) boundRoutes() {
	add(a, route{method: "GET", path: "/organizations/{org}/plans", id: "list-plans", tag: "plans", summary: "Plans for the organizations below"},
		func(ctx context.Context, in *listInput) (*output[list[NamedPlan]], error) {
			return documents(ctx, a, in.Org, tenant.KindPlan, in.PageQuery, func(d store.Document) (NamedPlan, error) {
				p, err := plainly[tenant.Plan](d)
				return NamedPlan{d.Name, p}, err
			})
		})
	add(a, route{method: "PUT", path: "/organizations/{org}/plans/{name}", id: "put-plan", tag: "plans", summary: "Make or change a plan", status: 204},
		func(ctx context.Context, in *struct {
			ThingPath
			Body tenant.Plan
		},
		) (*none, error) {
			return done(a.tenant.PutPlan(ctx, actor(ctx), in.Org, in.Name, in.Body))
		})
	add(a, route{method: "DELETE", path: "/organizations/{org}/plans/{name}", id: "delete-plan", tag: "plans", summary: "Remove a plan that nobody has", status: 204},
		func(ctx context.Context, in *ThingPath) (*none, error) {
			return done(a.tenant.DeletePlan(ctx, actor(ctx), in.Org, in.Name))
		})
	add(a, route{method: "PUT", path: "/organizations/{org}/plan", id: "assign-plan", tag: "plans", summary: "Give an organization a plan of one above it", status: 204},
		func(ctx context.Context, in *struct {
			OrgPath
			Body tenant.PlanRef
		},
		) (*none, error) {
			return done(a.tenant.AssignPlan(ctx, actor(ctx), in.Org, in.Body))
		})
	add(a, route{method: "GET", path: "/organizations/{org}/usage/{name}", id: "get-usage", tag: "plans", summary: "Use of a metric, such as sites, and its limit"},
		func(ctx context.Context, in *ThingPath) (*output[Use], error) {
			used, l, err := a.tenant.Usage(ctx, actor(ctx), in.Org, in.Name)
			return &output[Use]{Use{used, l}}, err
		})
	add(a, route{method: "GET", path: "/organizations/{org}/guardrails", id: "list-guardrails", tag: "plans", summary: "Bounds: its own, and those imposed on it"},
		func(ctx context.Context, in *listInput) (*output[list[NamedRails]], error) {
			return documents(ctx, a, in.Org, tenant.KindGuardrails, in.PageQuery, func(d store.Document) (NamedRails, error) {
				g, err := plainly[tenant.Guardrails](d)
				return NamedRails{d.Name, g}, err
			})
		})
	for _, imposed := range []bool{false, true} {
		name, summary := "own", "Replace an organization's own bounds"
		if imposed {
			name, summary = "imposed", "Replace the bounds that who stands above imposes"
		}
		add(a, route{method: "PUT", path: "/organizations/{org}/guardrails/" + name, id: "put-guardrails-" + name, tag: "plans", summary: summary, status: 204},
			func(ctx context.Context, in *struct {
				OrgPath
				Body tenant.Guardrails
			},
			) (*none, error) {
				return done(a.tenant.SetGuardrails(ctx, actor(ctx), in.Org, imposed, in.Body))
			})
	}
}

// Claim is a claim with how it is proved.
type Claim struct {
	claim.Claim
	Record *Record `json:"record,omitempty" doc:"The TXT record that proves it"`
	Page   *Record `json:"page,omitempty" doc:"The page that proves it"`
}

// Record is what must be found where.
type Record struct {
	At    string `json:"at"`
	Value string `json:"value"`
}

func showClaim(c claim.Claim) Claim {
	out := Claim{Claim: c}
	if c.Method == claim.HTTP {
		at, value := c.Page()
		out.Page = &Record{at, value}
	} else {
		at, value := c.Record()
		out.Record = &Record{at, value}
	}
	return out
}

func (a *API) claimRoutes() {
	add(a, route{method: "GET", path: "/organizations/{org}/claims", id: "list-claims", tag: "claims", summary: "Host names that the organization claims"},
		func(ctx context.Context, in *listInput) (*output[list[Claim]], error) {
			return documents(ctx, a, in.Org, claim.Kind, in.PageQuery, func(d store.Document) (Claim, error) {
				c, err := plainly[claim.Claim](d)
				return showClaim(c), err
			})
		})
	add(a, route{method: "POST", path: "/organizations/{org}/claims", id: "create-claim", tag: "claims", summary: "Claim a host name; the answer names the proof to publish", status: 201},
		func(ctx context.Context, in *struct {
			OrgPath
			Body struct {
				Name   string       `json:"name" maxLength:"1024" doc:"shop.example.com, or *.example.com"`
				Method claim.Method `json:"method,omitempty" enum:"dns,http" default:"dns"`
			}
		},
		) (*output[Claim], error) {
			c, err := a.claims.Create(ctx, actor(ctx), in.Org, in.Body.Name, in.Body.Method)
			return &output[Claim]{showClaim(c)}, err
		})
	add(a, route{method: "POST", path: "/organizations/{org}/claims/{name}/prove", id: "prove-claim", tag: "claims", summary: "Look for the proof, and put the name in force"},
		func(ctx context.Context, in *ThingPath) (*output[Claim], error) {
			c, err := a.claims.Prove(ctx, actor(ctx), in.Org, in.Name)
			return &output[Claim]{showClaim(c)}, err
		})
	add(a, route{method: "DELETE", path: "/organizations/{org}/claims/{name}", id: "release-claim", tag: "claims", summary: "End a claim; the name is not served any more", status: 204},
		func(ctx context.Context, in *ThingPath) (*none, error) {
			return done(a.claims.Release(ctx, actor(ctx), in.Org, in.Name))
		})
}
