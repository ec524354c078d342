package hub

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/control/rollout"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
)

// rules read Pops, Placements and RolloutPolicies. Pops and Placements are the operator's; a RolloutPolicy holds for its
// organization and those below it.
type rules struct{}

// Concerns implements rollout.Rules.
func (rules) Concerns(kind string) bool {
	switch kind {
	case string(v1.KindPop), string(v1.KindPlacement), string(v1.KindRolloutPolicy), tenant.KindOrganization:
		return true
	}
	return false
}

// Urgent implements rollout.Rules.
func (rules) Urgent(kind string) bool { return kind == string(v1.KindKillSwitch) }

// book is what was read, for a Rulebook.
type book struct {
	operator   string
	paths      map[string][]string // of organizations: the operator first
	placements []*v1.Placement     // the first that chooses holds
	policies   map[string][]*v1.RolloutPolicy

	mu   sync.Mutex
	made map[string]*rollout.Policy
}

// Read implements rollout.Rules.
func (rules) Read(ctx context.Context, r *store.Reader) (*rollout.Rulebook, error) {
	b := &book{paths: map[string][]string{}, policies: map[string][]*v1.RolloutPolicy{}, made: map[string]*rollout.Policy{}}
	err := each(ctx, r, store.Query{Kind: tenant.KindOrganization}, func(d store.Document) error {
		var o tenant.Organization
		if err := json.Unmarshal(d.Body, &o); err != nil {
			return fmt.Errorf("%w: %s: %w", store.ErrDamaged, d.Key, err)
		}
		if b.paths[o.Name] = o.Path; len(o.Path) == 1 {
			b.operator = o.Name
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := &rollout.Rulebook{Policy: b.policy, Serves: b.serves}
	err = documents(ctx, r, store.Query{Organization: b.operator, Kind: string(v1.KindPop)}, func(d *v1.Pop) {
		labels := map[string]string{"region": d.Spec.Region}
		for k, v := range d.Metadata.Labels {
			labels[k] = v
		}
		out.Pops = append(out.Pops, rollout.Pop{Name: d.Metadata.Name, Region: d.Spec.Region, Labels: labels, Draining: d.Spec.Draining})
	})
	if err == nil {
		err = documents(ctx, r, store.Query{Organization: b.operator, Kind: string(v1.KindPlacement)}, func(d *v1.Placement) { b.placements = append(b.placements, d) })
	}
	if err == nil {
		err = documents(ctx, r, store.Query{Kind: string(v1.KindRolloutPolicy)}, func(d *v1.RolloutPolicy) {
			org := d.Metadata.Organization
			b.policies[org] = append(b.policies[org], d)
		})
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out.Pops, func(x, y rollout.Pop) int { return cmp.Compare(x.Name, y.Name) })
	slices.SortFunc(b.placements, func(x, y *v1.Placement) int {
		return cmp.Or(y.Spec.Priority-x.Spec.Priority, cmp.Compare(x.Metadata.Name, y.Metadata.Name))
	})
	return out, nil
}

// platform is the operator's organization.
func platform(ctx context.Context, r *store.Reader) (name string, err error) {
	err = each(ctx, r, store.Query{Kind: tenant.KindOrganization}, func(d store.Document) error {
		var o tenant.Organization
		if err := json.Unmarshal(d.Body, &o); err != nil {
			return fmt.Errorf("%w: %s: %w", store.ErrDamaged, d.Key, err)
		}
		if len(o.Path) == 1 {
			name = o.Name
		}
		return nil
	})
	return name, err
}

// each walks through all pages of a list.
func each(ctx context.Context, r *store.Reader, q store.Query, do func(store.Document) error) error {
	for {
		page, err := r.List(ctx, q)
		if err != nil {
			return err
		}
		for _, d := range page.Documents {
			if err := do(d); err != nil {
				return err
			}
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return nil
		}
	}
}

// documents reads documents of a kind, with their defaults. They were checked when they were written.
func documents[T any, D interface {
	*T
	v1.Document
}](ctx context.Context, r *store.Reader, q store.Query, do func(D),
) error {
	return each(ctx, r, q, func(d store.Document) error {
		doc := D(new(T))
		if err := json.Unmarshal(d.Body, doc); err != nil {
			return errors.Join(store.ErrDamaged, fmt.Errorf("%s: %w", d.Key, err))
		}
		_, m := doc.Meta()
		m.Organization, m.Name = d.Organization, d.Name
		v1.Default(doc)
		do(doc)
		return nil
	})
}

// serves says whether a PoP serves an organization: the first Placement that chooses it decides, and without any all do.
func (b *book) serves(org string, p *rollout.Pop) bool {
	for _, d := range b.placements {
		if !b.of(d.Spec.Organizations, org) {
			continue
		}
		for k, v := range d.Spec.PopLabels {
			if p.Labels[k] != v {
				return false
			}
		}
		for k, v := range d.Spec.ExceptPopLabels {
			if p.Labels[k] == v {
				return false
			}
		}
		return true
	}
	return true
}

// of says whether a list names an organization or one above it; an empty one names all. The platform's own is served
// everywhere: it has the listeners.
func (b *book) of(names []string, org string) bool {
	if org == b.operator {
		return slices.Contains(names, org)
	}
	if len(names) == 0 {
		return true
	}
	return slices.ContainsFunc(b.paths[org], func(above string) bool { return above != b.operator && slices.Contains(names, above) })
}

// policy of an organization: the nearest above it that names it, or that names nobody.
func (b *book) policy(org string) *rollout.Policy {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.made[org]; p != nil {
		return p
	}
	p := rollout.DefaultPolicy()
	path := b.paths[org]
	for i := len(path) - 1; i >= 0; i-- {
		if d := choose(b.policies[path[i]], org); d != nil {
			p = rollout.PolicyOf(&d.Spec)
			break
		}
	}
	b.made[org] = &p
	return &p
}

// choose finds the policy that names an organization, else the first that names nobody.
func choose(list []*v1.RolloutPolicy, org string) (general *v1.RolloutPolicy) {
	for _, d := range list {
		if slices.Contains(d.Spec.Organizations, org) {
			return d
		}
		if len(d.Spec.Organizations) == 0 && general == nil {
			general = d
		}
	}
	return general
}
