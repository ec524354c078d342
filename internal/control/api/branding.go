package api

import (
	"context"
	"errors"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/brand"
)

// ShownBrand is a brand, and whose it is.
type ShownBrand struct {
	Brand brand.Brand `json:"brand"`
	Of    string      `json:"of,omitempty" doc:"Organization whose brand it is; absent: nobody's, it is ours"`
}

func (a *API) brandRoutes() {
	add(a, route{method: "GET", path: "/brand", id: "show-brand", tag: "brand", summary: "What the console shows under the host that is asked for", public: true},
		func(ctx context.Context, _ *struct{}) (*output[ShownBrand], error) {
			b, of, err := a.brand.BrandOfHost(ctx, callOf(ctx).host)
			if errors.Is(err, brand.ErrNoHost) {
				b, err = brand.Ours(), nil
			}
			return &output[ShownBrand]{ShownBrand{b, of}}, err
		})
	add(a, route{method: "GET", path: "/organizations/{org}/brand", id: "get-brand", tag: "brand", summary: "What the organization shows: its own brand, or that of the nearest above"},
		func(ctx context.Context, in *OrgPath) (*output[ShownBrand], error) {
			err := a.store.View(ctx, func(r *store.Reader) error {
				return a.tenant.Authorize(ctx, r, actor(ctx), tenant.Access{Verb: tenant.VerbRead, Kind: tenant.KindBrand, Organization: in.Org})
			})
			if err != nil {
				return nil, err
			}
			b, of, err := a.brand.Brand(ctx, in.Org)
			return &output[ShownBrand]{ShownBrand{b, of}}, err
		})
	add(a, route{method: "PUT", path: "/organizations/{org}/brand", id: "put-brand", tag: "brand", summary: "Make or replace the organization's brand", status: 204},
		func(ctx context.Context, in *struct {
			OrgPath
			Body brand.Brand
		},
		) (*none, error) {
			return done(a.brand.Put(ctx, actor(ctx), in.Org, in.Body))
		})
	add(a, route{method: "DELETE", path: "/organizations/{org}/brand", id: "delete-brand", tag: "brand", summary: "Show the brand of the organization above again", status: 204},
		func(ctx context.Context, in *OrgPath) (*none, error) {
			return done(a.brand.Delete(ctx, actor(ctx), in.Org))
		})
}
