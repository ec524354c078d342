package tenant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/usage/price"
)

// What plans may limit. An organization's use is its own and that of all below it.
const (
	MetricOrganizations = "organizations"
	MetricProjects      = "projects"
	MetricUsers         = "users"
	MetricTokens        = "tokens"
	MetricSites         = "sites"
	MetricHostnames     = "hostnames"
	MetricDocuments     = "documents"
	MetricRequests      = "requests" // of a period, by the meter
	MetricBytes         = "bytes"    // of a period, by the meter
	MetricOrders        = "orders"   // of a period, by the meter
)

// AtLimit is what happens at a limit.
type AtLimit string

// What happens at a limit.
const (
	Refuse  AtLimit = "refuse"  // no more
	Warn    AtLimit = "warn"    // goes on, and is told
	Bill    AtLimit = "bill"    // goes on, and what is over is billed
	Degrade AtLimit = "degrade" // goes on, and is served by the plan's lesser service
)

// TopicQuota is the topic of messages that tell of a limit that is near or reached.
const TopicQuota = "quota"

// Limit is one limit of a plan.
type Limit struct {
	Most    int64   `json:"most"`
	AtLimit AtLimit `json:"atLimit"`
	WarnAt  int     `json:"warnAt,omitempty"` // per cent of Most from which it is told; 0: 80
}

// Plan is what an organization may have. What it does not name has no limit.
type Plan struct {
	Title  string           `json:"title,omitempty"`
	Limits map[string]Limit `json:"limits"`
	Prices *price.List      `json:"prices,omitempty"` // of what the meter counts; nil: not for sale
}

// PlanRef names a plan of an organization above.
type PlanRef struct {
	Organization string `json:"organization"`
	Name         string `json:"name"`
}

// Decision is what a limit makes of a use.
type Decision struct {
	Allowed bool
	Over    int64   // beyond the limit after this use
	State   AtLimit // empty below the limit
	Near    bool    // from WarnAt
}

// Decide holds a use against a limit. Everything that counts comes through here: what tenants make, and what they serve.
func Decide(l Limit, used, add int64) Decision {
	after := used + add
	d := Decision{Allowed: true, Over: max(after-l.Most, 0)}
	warnAt := l.WarnAt
	if warnAt <= 0 {
		warnAt = 80
	}
	d.Near = after >= l.Most || float64(after) >= float64(l.Most)*float64(warnAt)/100
	if after > l.Most || after == l.Most && add == 0 {
		d.State = l.AtLimit
		// Giving back is never refused, even where it does not suffice.
		d.Allowed = l.AtLimit != Refuse || add <= 0
	}
	return d
}

// QuotaError says that a plan allows no more.
type QuotaError struct {
	Organization string // whose plan it is: the tenant's own, or one above it
	Metric       string
	Used, Most   int64
	own          bool
}

// Error tells a tenant of his own plan; of one above him only that it is used up.
func (e *QuotaError) Error() string {
	if e.own {
		return fmt.Sprintf("the plan of %s allows %d %s, and %d are in use", e.Organization, e.Most, e.Metric, e.Used)
	}
	return fmt.Sprintf("an organization above has no %s left in its plan; ask who sold it to you", e.Metric)
}

// Notice tells of a limit that is near or reached, once each time that it is crossed.
type Notice struct {
	Organization string  `json:"organization"`
	Metric       string  `json:"metric"`
	Used         int64   `json:"used"`
	Most         int64   `json:"most"`
	State        AtLimit `json:"state,omitempty"` // empty: near, or below it again
	Over         int64   `json:"over,omitempty"`
}

// counter is an organization's use of a metric, with all below it.
type counter struct {
	Used int64 `json:"used"`
	// Period is that of a metric of the meter, such as 2026-11; empty for what tenants make.
	Period string  `json:"period,omitempty"`
	Near   bool    `json:"near,omitempty"`
	State  AtLimit `json:"state,omitempty"`
}

func counterKey(org, metric string) store.Key {
	return store.Key{Organization: quotaOrganization, Kind: KindCounter, Name: org + "/" + metric}
}

func planKey(org, name string) store.Key {
	return store.Key{Organization: org, Kind: KindPlan, Name: name}
}

// Use counts what an organization takes or, below 0, gives back, in the transaction that makes or removes it. The plans of
// the organization and of all above it are asked; *QuotaError where one refuses. Crossing a limit is told in the outbox.
func Use(ctx context.Context, tx *store.Tx, org, metric string, add int64) ([]Decision, error) {
	if add == 0 {
		return nil, nil
	}
	o, _, err := organization(ctx, &tx.Reader, org)
	if err != nil {
		return nil, err
	}
	var all []Decision
	for _, at := range slices.Backward(o.Path) {
		d, err := useAt(ctx, tx, at, metric, add, at == org)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// Meter counts what an organization was served in a period, for it and each above it. What was served is counted whatever
// the plans say: the decisions tell what is to be done from now on, and crossing a limit is told in the outbox. Periods are
// compared as texts, such as 2026-11; what comes late for one that is over is no longer held against a limit.
func Meter(ctx context.Context, tx *store.Tx, org, metric, period string, add int64) ([]Decision, error) {
	if add < 0 || period == "" {
		return nil, fmt.Errorf("%w: the meter counts up, and within a period", ErrInvalid)
	}
	o, _, err := organization(ctx, &tx.Reader, org)
	if err != nil {
		return nil, err
	}
	var all []Decision
	for _, at := range slices.Backward(o.Path) {
		var c counter
		if _, err := read(ctx, &tx.Reader, counterKey(at, metric), &c); ignoreNotFound(err) != nil {
			return nil, err
		}
		switch {
		case period < c.Period:
			continue
		case period > c.Period:
			c = counter{Period: period, Near: c.Near, State: c.State} // that it is below its limit again is told
		}
		l, limited, err := limitOf(ctx, &tx.Reader, at, metric)
		if err != nil {
			return nil, err
		}
		d := Decision{Allowed: true}
		if limited {
			d = Decide(l, c.Used, add)
		}
		if err := keepCount(ctx, tx, at, metric, c, l, d, add); err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

func useAt(ctx context.Context, tx *store.Tx, org, metric string, add int64, own bool) (Decision, error) {
	var c counter
	if _, err := read(ctx, &tx.Reader, counterKey(org, metric), &c); ignoreNotFound(err) != nil {
		return Decision{}, err
	}
	l, limited, err := limitOf(ctx, &tx.Reader, org, metric)
	if err != nil {
		return Decision{}, err
	}
	d := Decision{Allowed: true}
	if limited {
		d = Decide(l, c.Used, add)
	}
	if !d.Allowed {
		return d, &QuotaError{org, metric, c.Used, l.Most, own}
	}
	return d, keepCount(ctx, tx, org, metric, c, l, d, add)
}

// keepCount writes a counter as it is after a use, and tells of a limit that is crossed.
func keepCount(ctx context.Context, tx *store.Tx, org, metric string, c counter, l Limit, d Decision, add int64) error {
	next := counter{Used: max(c.Used+add, 0), Period: c.Period, Near: d.Near, State: d.State}
	if next.Near != c.Near || next.State != c.State {
		b, err := json.Marshal(Notice{org, metric, next.Used, l.Most, d.State, d.Over})
		if err != nil {
			return fmt.Errorf("tenant: %w", err)
		}
		if err := tx.Emit(ctx, TopicQuota, org, b); err != nil {
			return err
		}
	}
	return write(ctx, tx, counterKey(org, metric), next, store.Any)
}

// limitOf finds an organization's limit of a metric.
func limitOf(ctx context.Context, r *store.Reader, org, metric string) (l Limit, limited bool, err error) {
	o, _, err := organization(ctx, r, org)
	if err != nil || o.Plan == nil {
		return l, false, err
	}
	var p Plan
	if _, err := read(ctx, r, planKey(o.Plan.Organization, o.Plan.Name), &p); err != nil {
		return l, false, fmt.Errorf("the plan of %s: %w", org, err)
	}
	l, limited = p.Limits[metric]
	return l, limited, nil
}

// release takes an organization that ends out of the counts of those above it.
func release(ctx context.Context, tx *store.Tx, org string) error {
	o, _, err := organization(ctx, &tx.Reader, org)
	if err != nil {
		return err
	}
	return each(ctx, &tx.Reader, store.Query{Organization: quotaOrganization, Kind: KindCounter, Prefix: org + "/"}, func(d store.Document) error {
		var c counter
		if err := decodeBody(d, &c); err != nil {
			return err
		}
		metric := d.Name[len(org)+1:]
		if c.Period != "" { // what was served stays served
			return tx.Delete(ctx, d.Key, store.Any)
		}
		for _, at := range o.Path[:len(o.Path)-1] {
			if _, err := useAt(ctx, tx, at, metric, -c.Used, false); err != nil {
				return err
			}
		}
		return tx.Delete(ctx, d.Key, store.Any)
	})
}

// PlanOf reads the plan that an organization has; ok is false where it has none.
func PlanOf(ctx context.Context, r *store.Reader, org string) (p Plan, ref PlanRef, ok bool, err error) {
	o, _, err := organization(ctx, r, org)
	if err != nil || o.Plan == nil {
		return p, ref, false, err
	}
	if _, err := read(ctx, r, planKey(o.Plan.Organization, o.Plan.Name), &p); err != nil {
		return p, ref, false, fmt.Errorf("the plan of %s: %w", org, err)
	}
	return p, *o.Plan, true, nil
}

// PutPlan makes or changes a plan, for the organizations below. Those who have it have its new limits at once.
func (s *Service) PutPlan(ctx context.Context, actor Actor, org, name string, p Plan) error {
	if err := errors.Join(checkLabel("plan", name), p.check()); err != nil {
		return err
	}
	return s.change(ctx, act{actor: actor, organization: org, action: "plan.put", target: name, details: p}, func(tx *store.Tx) error {
		if err := s.Authorize(ctx, &tx.Reader, actor, Access{VerbWrite, KindPlan, org, ""}); err != nil {
			return err
		}
		return write(ctx, tx, planKey(org, name), p, store.Any)
	})
}

func (p Plan) check() error {
	if len(p.Limits) > maxMetrics || len(p.Title) > maxTitle {
		return &store.LimitError{What: "limits of a plan", Have: int64(len(p.Limits)), Most: maxMetrics}
	}
	if p.Prices != nil {
		if err := p.Prices.Check(); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	for m, l := range p.Limits {
		switch {
		case m == "" || len(m) > maxLabel:
			return fmt.Errorf("%w: %q is no metric", ErrInvalid, m)
		case l.Most < 0 || l.WarnAt < 0 || l.WarnAt > 100:
			return fmt.Errorf("%w: limit of %s: most is 0 or more, warnAt 0 to 100", ErrInvalid, m)
		case !slices.Contains([]AtLimit{Refuse, Warn, Bill, Degrade}, l.AtLimit):
			return fmt.Errorf("%w: limit of %s: atLimit is refuse, warn, bill or degrade", ErrInvalid, m)
		}
	}
	return nil
}

// DeletePlan removes a plan that no organization has.
func (s *Service) DeletePlan(ctx context.Context, actor Actor, org, name string) error {
	return s.change(ctx, act{actor: actor, organization: org, action: "plan.delete", target: name}, func(tx *store.Tx) error {
		if err := s.Authorize(ctx, &tx.Reader, actor, Access{VerbDelete, KindPlan, org, ""}); err != nil {
			return err
		}
		d, err := tx.Get(ctx, planKey(org, name))
		if err != nil {
			return err
		}
		err = each(ctx, &tx.Reader, store.Query{Kind: KindOrganization}, func(d store.Document) error {
			var o Organization
			if err := decodeBody(d, &o); err != nil {
				return err
			}
			if o.Plan != nil && *o.Plan == (PlanRef{org, name}) {
				return fmt.Errorf("%w: an organization has plan %s", ErrInUse, name)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Delete(ctx, d.Key, store.Any)
	})
}

// AssignPlan gives an organization a plan of one above it, by who manages it from above; nobody changes his own.
func (s *Service) AssignPlan(ctx context.Context, actor Actor, org string, plan PlanRef) error {
	parent, err := s.parentOf(ctx, actor, org)
	if err != nil {
		return err
	}
	return s.change(ctx, act{actor: actor, organization: parent, action: "plan.assign", target: org, details: plan}, func(tx *store.Tx) error {
		o, revision, err := s.belowAuthorized(ctx, tx, actor, org)
		if err != nil {
			return err
		}
		if plan.Organization == org || !slices.Contains(o.Path, plan.Organization) {
			return fmt.Errorf("%w: plan %s is not of an organization above %s", ErrInvalid, plan.Name, org)
		}
		if _, err := tx.Get(ctx, planKey(plan.Organization, plan.Name)); err != nil {
			return err
		}
		o.Plan = &plan
		return write(ctx, tx, organizationKey(org), o, store.Expect(revision))
	})
}

// Usage gives an organization's use of a metric, and its limit where there is one.
func (s *Service) Usage(ctx context.Context, actor Actor, org, metric string) (used int64, l *Limit, err error) {
	err = s.view(ctx, actor, Access{VerbRead, KindPlan, org, ""}, func(r *store.Reader) error {
		var c counter
		if _, err := read(ctx, r, counterKey(org, metric), &c); ignoreNotFound(err) != nil {
			return err
		}
		limit, limited, err := limitOf(ctx, r, org, metric)
		if used = c.Used; limited {
			l = &limit
		}
		return err
	})
	return used, l, err
}
