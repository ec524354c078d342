package usage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/audit"
	"github.com/relais-edge/relais/internal/usage"
	"github.com/relais-edge/relais/internal/usage/invoice"
	"github.com/relais-edge/relais/internal/usage/price"
)

// ErrNoPrices says that an organization has no plan with prices.
var ErrNoPrices = errors.New("the organization has no plan with prices")

// Invoice makes the invoice of an organization for a month: what it and all below it used, by the prices of its plan, issued by
// whose plan that is. Until the month is over and its last day is closed, it is an estimate. The same month gives the same
// invoice, with what came late in it: what was issued before is for the caller to keep.
func (s *Service) Invoice(ctx context.Context, actor tenant.Actor, org, id string, month invoice.Month) (v *invoice.Invoice, err error) {
	err = s.store.View(ctx, func(r *store.Reader) error {
		if err := s.tenants.Authorize(ctx, r, actor, tenant.Access{Verb: tenant.VerbRead, Kind: tenant.KindInvoice, Organization: org}); err != nil {
			return err
		}
		v, _, err = s.invoice(ctx, r, org, id, month)
		return err
	})
	return v, err
}

func (s *Service) invoice(ctx context.Context, r *store.Reader, org, id string, month invoice.Month) (*invoice.Invoice, []invoice.Use, error) {
	plan, ref, ok, err := tenant.PlanOf(ctx, r, org)
	if err != nil {
		return nil, nil, err
	}
	if !ok || plan.Prices == nil {
		return nil, nil, fmt.Errorf("%w: %s", ErrNoPrices, org)
	}
	orgs, err := subtree(ctx, r, org)
	if err != nil {
		return nil, nil, err
	}
	in := invoice.Input{
		ID: id, Issuer: invoice.Party{ID: ref.Organization}, Account: invoice.Party{ID: org, Title: orgs[0].Title}, Month: month,
		Prices: *plan.Prices, Regions: s.regions, Titles: map[string]string{},
	}
	if issuer, err := organizationOf(ctx, r, ref.Organization); err == nil {
		in.Issuer.Title = issuer.Title
	}
	for _, o := range orgs {
		in.Titles[o.Name] = o.Title
	}
	if in.Use, err = monthOf(ctx, r, orgs, month); err != nil {
		return nil, nil, err
	}
	v, err := invoice.Make(in)
	return v, in.Use, err
}

// monthOf reads what organizations used in a month.
func monthOf(ctx context.Context, r *store.Reader, orgs []tenant.Organization, month invoice.Month) (list []invoice.Use, err error) {
	for _, o := range orgs {
		part, err := useOf(ctx, r, o.Name, usage.DayOf(month.Start()), usage.DayOf(month.End()))
		if err != nil {
			return nil, err
		}
		list = append(list, part...)
	}
	return list, nil
}

func organizationOf(ctx context.Context, r *store.Reader, name string) (o tenant.Organization, err error) {
	d, err := r.Get(ctx, store.Key{Organization: name, Kind: tenant.KindOrganization, Name: name})
	if err != nil {
		return o, err
	}
	return o, json.Unmarshal(d.Body, &o)
}

// Resale is what a reseller pays, and what those right below him pay him.
type Resale struct {
	Pays   *invoice.Invoice   `json:"pays"` // nil: he has no plan with prices
	Earns  []*invoice.Invoice `json:"earns"`
	Margin price.Amount       `json:"margin"` // what he earns without what he pays
}

// Resale prices what a reseller's organizations used twice: by his plan, and by the plans that he gave to those right below him.
func (s *Service) Resale(ctx context.Context, actor tenant.Actor, reseller string, month invoice.Month) (out Resale, err error) {
	err = s.store.View(ctx, func(r *store.Reader) error {
		if err := s.tenants.Authorize(ctx, r, actor, tenant.Access{Verb: tenant.VerbRead, Kind: tenant.KindInvoice, Organization: reseller}); err != nil {
			return err
		}
		out.Pays, _, err = s.invoice(ctx, r, reseller, reseller+"-"+month.String(), month)
		if err != nil && !errors.Is(err, ErrNoPrices) {
			return err
		}
		if out.Pays != nil {
			out.Margin = -out.Pays.Due
		}
		out.Earns, _, err = s.children(ctx, r, reseller, month)
		for _, v := range out.Earns {
			if err == nil && out.Pays != nil && v.Currency != out.Pays.Currency {
				err = fmt.Errorf("%w: %s pays in %s and is paid in %s", invoice.ErrInvalid, reseller, out.Pays.Currency, v.Currency)
			}
			if err == nil {
				out.Margin, err = out.Margin.Add(v.Due)
			}
		}
		return err
	})
	return out, err
}

// children makes the invoices of those right below an organization who have plans of it, and gives the use of each, also of
// those who pay nothing or were deleted: it cost what it cost.
func (s *Service) children(ctx context.Context, r *store.Reader, org string, month invoice.Month) (list []*invoice.Invoice, uses map[string][]invoice.Use, err error) {
	all, err := subtree(ctx, r, org)
	if err != nil {
		return nil, nil, err
	}
	uses = map[string][]invoice.Use{}
	for _, o := range all {
		if o.Parent() != org {
			continue
		}
		v, use, err := s.invoice(ctx, r, o.Name, o.Name+"-"+month.String(), month)
		switch {
		case errors.Is(err, ErrNoPrices) || o.Deleted && isGone(err):
			below := slices.DeleteFunc(slices.Clone(all), func(x tenant.Organization) bool { return !slices.Contains(x.Path, o.Name) })
			use, err = monthOf(ctx, r, below, month)
		case err == nil && v.Issuer == org:
			list = append(list, v)
		}
		if err != nil {
			return nil, nil, err
		}
		uses[o.Name] = use
	}
	return list, uses, nil
}

const costsName = "costs"

// PutCosts says what PoPs cost the operator. Nobody below may read it.
func (s *Service) PutCosts(ctx context.Context, actor tenant.Actor, operator string, costs map[string]invoice.Cost) error {
	if len(costs) > maxAccounts {
		return &store.LimitError{What: "PoPs with costs", Have: int64(len(costs)), Most: maxAccounts}
	}
	for pop, c := range costs {
		if c.Hour < 0 || c.Gigabyte < 0 || c.Hour > 1_000_000*price.One || c.Gigabyte > 1_000_000*price.One {
			return fmt.Errorf("%w: the costs of %s are not between 0 and 1000000", invoice.ErrInvalid, pop)
		}
	}
	return s.change(ctx, actor, operator, "costs.put", operator, costs, func(tx *store.Tx) error {
		if err := s.tenants.Authorize(ctx, &tx.Reader, actor, tenant.Access{Verb: tenant.VerbWrite, Kind: tenant.KindPopCosts, Organization: operator}); err != nil {
			return err
		}
		return putJSON(ctx, tx, store.Key{Organization: operator, Kind: tenant.KindPopCosts, Name: costsName}, costs)
	})
}

// Margins sets what those right below the operator pay against what his PoPs cost, by PoP and by organization.
func (s *Service) Margins(ctx context.Context, actor tenant.Actor, operator string, month invoice.Month) (list []invoice.Margin, err error) {
	err = s.store.View(ctx, func(r *store.Reader) error {
		if err := s.tenants.Authorize(ctx, r, actor, tenant.Access{Verb: tenant.VerbRead, Kind: tenant.KindPopCosts, Organization: operator}); err != nil {
			return err
		}
		d, err := r.Get(ctx, store.Key{Organization: operator, Kind: tenant.KindPopCosts, Name: costsName})
		if err != nil {
			return fmt.Errorf("what PoPs cost: %w", err)
		}
		var costs map[string]invoice.Cost
		if err := json.Unmarshal(d.Body, &costs); err != nil {
			return fmt.Errorf("usage: %s is damaged: %w", d.Key, err)
		}
		invoices, uses, err := s.children(ctx, r, operator, month)
		if err != nil {
			return err
		}
		list, err = invoice.Margins(month, costs, invoices, uses)
		return err
	})
	return list, err
}

// change does fn and writes it to the audit log, in one transaction.
func (s *Service) change(ctx context.Context, actor tenant.Actor, org, action, target string, details any, fn func(*store.Tx) error) error {
	_, err := s.store.Update(ctx, store.Change{Author: actor.String()}, func(tx *store.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		e := audit.Entry{Organization: org, Actor: actor.String(), Action: action, Target: target}
		if details != nil {
			b, err := json.Marshal(details)
			if err != nil {
				return fmt.Errorf("usage: %w", err)
			}
			e.Details = b
		}
		_, err := audit.Append(ctx, tx, e)
		return err
	})
	return err
}

func putJSON(ctx context.Context, tx *store.Tx, key store.Key, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("usage: %w", err)
	}
	_, err = tx.Put(ctx, key, b, store.Any)
	return err
}
