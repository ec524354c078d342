package usage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/usage/invoice"
	"github.com/relais-edge/relais/internal/usage/price"
)

// TopicBudget is the topic of messages that tell of a threshold that was crossed.
const TopicBudget = "budget"

// Action is what happens at the whole of a budget.
type Action string

// The actions. In none is an order lost: who is suspended is closed to new visitors, and baskets go on.
const (
	Alert   Action = "alert"
	Degrade Action = "degrade"
	// Suspend is only for the organization's own people to choose: no meter and no reseller closes a shop whose owner did
	// not want that.
	Suspend Action = "suspend"
)

const (
	maxThresholds = 16
	budgetName    = "budget"
)

// Budget is what an organization, with all below it, wants to spend in a month at most, by the prices of its plan.
type Budget struct {
	Amount     price.Amount `json:"amount"`
	Currency   string       `json:"currency"`
	Thresholds []int        `json:"thresholds"` // per cent, each told once a month
	Action     Action       `json:"action"`     // at 100 per cent
	By         string       `json:"by"`         // who chose it; filled in
}

// BudgetAlert tells of a threshold.
type BudgetAlert struct {
	Organization string       `json:"organization"`
	Month        string       `json:"month"`
	Threshold    int          `json:"threshold"` // per cent
	Spent        price.Amount `json:"spent"`
	Amount       price.Amount `json:"amount"`
	Currency     string       `json:"currency"`
	Action       Action       `json:"action,omitempty"` // that was taken
}

func (b *Budget) check() error {
	switch {
	case b.Amount <= 0 || b.Amount > 9_000_000*price.One:
		return fmt.Errorf("%w: a budget is above 0, and at most 9000000", invoice.ErrInvalid)
	case len(b.Thresholds) == 0 || len(b.Thresholds) > maxThresholds:
		return fmt.Errorf("%w: a budget has 1 to %d thresholds", invoice.ErrInvalid, maxThresholds)
	case b.Action != Alert && b.Action != Degrade && b.Action != Suspend:
		return fmt.Errorf("%w: the action is alert, degrade or suspend", invoice.ErrInvalid)
	}
	for i, n := range b.Thresholds {
		if n < 1 || n > 1000 || slices.Contains(b.Thresholds[:i], n) {
			return fmt.Errorf("%w: thresholds are per cents from 1 to 1000, each once", invoice.ErrInvalid)
		}
	}
	return nil
}

func budgetKey(org string) store.Key {
	return store.Key{Organization: org, Kind: tenant.KindBudget, Name: budgetName}
}

// PutBudget sets an organization's budget. What its action did this month is undone where the new one is not used up.
func (s *Service) PutBudget(ctx context.Context, actor tenant.Actor, org string, b Budget) error {
	if err := b.check(); err != nil {
		return err
	}
	if b.Action == Suspend && (actor.Organization != org || actor.Token != nil) {
		return fmt.Errorf("%w: only a user of %s himself may have it suspended by a budget", tenant.ErrDenied, org)
	}
	b.By = actor.String()
	return s.change(ctx, actor, org, "budget.put", org, b, func(tx *store.Tx) error {
		if err := s.tenants.Authorize(ctx, &tx.Reader, actor, tenant.Access{Verb: tenant.VerbWrite, Kind: tenant.KindBudget, Organization: org}); err != nil {
			return err
		}
		month := invoice.MonthOf(tx.Now()).String()
		// What it cost so far is told anew, by the new amount.
		if _, err := tx.Exec(ctx, "forget alerts", "DELETE FROM usage_told WHERE organization = $1 AND month = $2", org, month); err != nil {
			return err
		}
		return errors.Join(putJSON(ctx, tx, budgetKey(org), b), lift(ctx, tx, org))
	})
}

// DeleteBudget removes a budget, and what its action did.
func (s *Service) DeleteBudget(ctx context.Context, actor tenant.Actor, org string) error {
	return s.change(ctx, actor, org, "budget.delete", org, nil, func(tx *store.Tx) error {
		if err := s.tenants.Authorize(ctx, &tx.Reader, actor, tenant.Access{Verb: tenant.VerbWrite, Kind: tenant.KindBudget, Organization: org}); err != nil {
			return err
		}
		return errors.Join(tx.Delete(ctx, budgetKey(org), store.Any), lift(ctx, tx, org))
	})
}

// lift ends a standing that a budget set.
func lift(ctx context.Context, tx *store.Tx, org string) error {
	now, err := tenant.OwnStanding(ctx, &tx.Reader, org)
	if err != nil || now.By != tenant.ByBudget {
		return err
	}
	return tenant.SetStanding(ctx, tx, org, tenant.Standing{State: tenant.Active})
}

// Budgets holds what organizations spent this month against their budgets, tells of each threshold once, and does what their
// budgets say; a new month ends what the budget of the last one did. The leader calls it every few minutes. An organization
// whose costs cannot be made out keeps the others from nothing; the errors are joined.
func (s *Service) Budgets(ctx context.Context, lease *store.Lease, now time.Time) error {
	var failed []error
	q := store.Query{Kind: tenant.KindBudget}
	for {
		var page store.Page
		err := s.store.View(ctx, func(r *store.Reader) (err error) {
			page, err = r.List(ctx, q)
			return err
		})
		if err != nil {
			return errors.Join(append(failed, err)...)
		}
		for _, d := range page.Documents {
			if err := s.watch(ctx, lease, d.Organization, invoice.MonthOf(now)); err != nil {
				failed = append(failed, fmt.Errorf("the budget of %s: %w", d.Organization, err))
			}
		}
		if q.Cursor = page.Next; q.Cursor == "" || ctx.Err() != nil {
			return errors.Join(failed...)
		}
	}
}

func (s *Service) watch(ctx context.Context, lease *store.Lease, org string, month invoice.Month) error {
	var v *invoice.Invoice
	err := s.store.View(ctx, func(r *store.Reader) (err error) {
		v, _, err = s.invoice(ctx, r, org, "estimate", month)
		return err
	})
	if err != nil {
		return err
	}
	_, err = s.store.Update(ctx, job("budget", lease), func(tx *store.Tx) error {
		d, err := tx.Get(ctx, budgetKey(org)) // as it is now
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		var b Budget
		if err == nil {
			err = json.Unmarshal(d.Body, &b)
		}
		if err != nil {
			return err
		}
		if b.Currency != v.Currency {
			return fmt.Errorf("%w: it is in %s, and the plan in %s", invoice.ErrInvalid, b.Currency, v.Currency)
		}
		return errors.Join(endOld(ctx, tx, org, month), s.crossed(ctx, tx, org, month, b, v.Exact))
	})
	return err
}

// endOld ends what the budget of an earlier month did.
func endOld(ctx context.Context, tx *store.Tx, org string, month invoice.Month) error {
	now, err := tenant.OwnStanding(ctx, &tx.Reader, org)
	if err != nil || now.By != tenant.ByBudget || now.Period >= month.String() {
		return err
	}
	return tenant.SetStanding(ctx, tx, org, tenant.Standing{State: tenant.Active})
}

// crossed tells of the thresholds that were crossed and not told, and acts at the whole.
func (s *Service) crossed(ctx context.Context, tx *store.Tx, org string, month invoice.Month, b Budget, spent price.Amount) error {
	steps := slices.Clone(b.Thresholds)
	if !slices.Contains(steps, 100) {
		steps = append(steps, 100)
	}
	slices.Sort(steps)
	for _, t := range steps {
		at, err := b.Amount.Of(int64(t), 100)
		if err != nil || spent < at {
			return err
		}
		fresh, err := tx.Exec(ctx, "note an alert", "INSERT INTO usage_told (organization, month, threshold, time) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
			org, month.String(), t, tx.Now().UnixMicro())
		if err != nil {
			return err
		}
		if fresh == 0 {
			continue
		}
		a := BudgetAlert{Organization: org, Month: month.String(), Threshold: t, Spent: spent, Amount: b.Amount, Currency: b.Currency}
		if t == 100 {
			if a.Action, err = act(ctx, tx, org, month, b); err != nil {
				return err
			}
		}
		body, err := json.Marshal(a)
		if err != nil {
			return fmt.Errorf("usage: %w", err)
		}
		if err := tx.Emit(ctx, TopicBudget, org, body); err != nil {
			return err
		}
	}
	return nil
}

// act does what a budget says. What people set is left as it is.
func act(ctx context.Context, tx *store.Tx, org string, month invoice.Month, b Budget) (Action, error) {
	state, ok := map[Action]tenant.State{Degrade: tenant.Degraded, Suspend: tenant.Suspended}[b.Action]
	if !ok {
		return Alert, nil
	}
	now, err := tenant.OwnStanding(ctx, &tx.Reader, org)
	if err != nil || now.State != tenant.Active && now.By != tenant.ByBudget {
		return Alert, err
	}
	return b.Action, tenant.SetStanding(ctx, tx, org, tenant.Standing{
		State: state, By: tenant.ByBudget, Period: month.String(), Reason: "the budget of " + b.Amount.String() + " " + b.Currency + " is used up; set by " + b.By,
	})
}
