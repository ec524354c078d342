package tenant

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
)

// Organization is an operator, a reseller or a seller: what stands above it manages it, never what stands beside.
type Organization struct {
	Name    string   `json:"name"`
	Title   string   `json:"title,omitempty"`
	Path    []string `json:"path"` // from the operator to itself
	Plan    *PlanRef `json:"plan,omitempty"`
	Deleted bool     `json:"deleted,omitempty"` // its name is never given to another
}

// Parent is the organization above; empty for the operator.
func (o Organization) Parent() string {
	if len(o.Path) < 2 {
		return ""
	}
	return o.Path[len(o.Path)-2]
}

func organizationKey(name string) store.Key {
	return store.Key{Organization: name, Kind: KindOrganization, Name: name}
}

func childKey(parent, name string) store.Key {
	return store.Key{Organization: parent, Kind: KindChild, Name: name}
}

// organization reads one that is not deleted, or store.ErrNotFound.
func organization(ctx context.Context, r *store.Reader, name string) (o Organization, revision int64, err error) {
	if name == "" || name[0] == '~' {
		return o, 0, fmt.Errorf("organization %q: %w", name, store.ErrNotFound)
	}
	revision, err = read(ctx, r, organizationKey(name), &o)
	if err == nil && o.Deleted {
		err = fmt.Errorf("organization %s: %w", name, store.ErrNotFound)
	}
	return o, revision, err
}

// PathOf gives the organizations from the operator to one, or store.ErrNotFound.
func PathOf(ctx context.Context, r *store.Reader, name string) ([]string, error) {
	o, _, err := organization(ctx, r, name)
	if err != nil {
		return nil, err
	}
	return o.Path, nil
}

// Setup makes the operator and its first user, who may do everything, in an empty store.
func (s *Service) Setup(ctx context.Context, operator, login, password string) (Actor, error) {
	if err := errors.Join(checkLabel("organization", operator), checkLogin(login)); err != nil {
		return Actor{}, err
	}
	if err := auth.CheckPassword(password, login); err != nil {
		return Actor{}, err
	}
	hash, err := s.hasher.Hash(ctx, password)
	if err != nil {
		return Actor{}, err
	}
	actor := Actor{Organization: operator, Login: login}
	err = s.change(ctx, act{actor: actor, organization: operator, action: "setup", target: operator}, func(tx *store.Tx) error {
		p, err := tx.List(ctx, store.Query{Kind: KindOrganization, Limit: 1})
		if err != nil {
			return err
		}
		if len(p.Documents) > 0 {
			return fmt.Errorf("%w: the operator exists already", ErrDenied)
		}
		return errors.Join(
			write(ctx, tx, organizationKey(operator), Organization{Name: operator, Path: []string{operator}}, store.Absent),
			write(ctx, tx, userKey(operator, login), User{Login: login, Password: hash}, store.Absent),
			write(ctx, tx, bindingKey(operator, "", actor, RoleAdmin), Binding{User: actor.Login, Home: operator, Role: RoleAdmin}, store.Absent),
		)
	})
	return actor, err
}

// CreateOrganization makes an organization below a parent. Names are unique in the whole store.
func (s *Service) CreateOrganization(ctx context.Context, actor Actor, parent, name, title string) error {
	if err := checkLabel("organization", name); err != nil {
		return err
	}
	if len(title) > maxTitle {
		return &store.LimitError{What: "bytes of title", Have: int64(len(title)), Most: maxTitle}
	}
	return s.change(ctx, act{actor: actor, organization: parent, action: "organization.create", target: name}, func(tx *store.Tx) error {
		if err := s.Authorize(ctx, &tx.Reader, actor, Access{VerbWrite, KindOrganization, parent, ""}); err != nil {
			return err
		}
		above, _, err := organization(ctx, &tx.Reader, parent)
		if err != nil {
			return err
		}
		if len(above.Path) >= maxDepth {
			return &store.LimitError{What: "organizations above one another", Have: int64(len(above.Path)) + 1, Most: maxDepth}
		}
		if _, err := Use(ctx, tx, parent, MetricOrganizations, 1); err != nil {
			return err
		}
		o := Organization{Name: name, Title: title, Path: append(slices.Clone(above.Path), name)}
		if err := write(ctx, tx, organizationKey(name), o, store.Absent); err != nil {
			return err
		}
		return write(ctx, tx, childKey(parent, name), map[string]string{"name": name}, store.Absent)
	})
}

// DeleteOrganization removes an organization with its users and tokens, once it has no organizations below it, no projects
// and no documents of its own. Its name is never given to another, so that nothing that was meant for it reaches one.
func (s *Service) DeleteOrganization(ctx context.Context, actor Actor, name string) error {
	parent, err := s.parentOf(ctx, actor, name)
	if err != nil {
		return err
	}
	return s.change(ctx, act{actor: actor, organization: parent, action: "organization.delete", target: name}, func(tx *store.Tx) error {
		o, revision, err := s.belowAuthorized(ctx, tx, actor, name)
		if err != nil {
			return err
		}
		gone := []string{
			KindUser, KindRole, KindBinding, KindToken, KindGuardrails, KindPlan, KindProvider, KindIdentity, KindBrand,
			KindStanding, KindBudget, KindPopCosts,
		}
		var keys []store.Key
		err = each(ctx, &tx.Reader, store.Query{Organization: name}, func(d store.Document) error {
			switch {
			case d.Kind == KindOrganization:
			case slices.Contains(gone, d.Kind):
				keys = append(keys, d.Key)
			default:
				return fmt.Errorf("%w: %s belongs to organization %s", ErrInUse, d.Key, name)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, k := range keys {
			if err := tx.Delete(ctx, k, store.Any); err != nil {
				return err
			}
		}
		if _, err := tx.ForgetOwners(ctx, name+"/"); err != nil {
			return err
		}
		if err := release(ctx, tx, name); err != nil {
			return err
		}
		if _, err := Use(ctx, tx, o.Parent(), MetricOrganizations, -1); err != nil {
			return err
		}
		o.Deleted, o.Plan = true, nil
		return errors.Join(tx.Delete(ctx, childKey(o.Parent(), name), store.Any), write(ctx, tx, organizationKey(name), o, store.Expect(revision)))
	})
}

// parentOf finds whose audit log tells of what is done to an organization from above.
func (s *Service) parentOf(ctx context.Context, actor Actor, name string) (parent string, err error) {
	err = s.store.View(ctx, func(r *store.Reader) error {
		o, _, err := organization(ctx, r, name)
		if errors.Is(err, store.ErrNotFound) || err == nil && o.Parent() == "" {
			return fmt.Errorf("%w: %s on organization %s", ErrDenied, actor, name)
		}
		parent = o.Parent()
		return err
	})
	return parent, s.Denied(ctx, actor, name, "manage "+KindOrganization, "", err)
}

// belowAuthorized reads an organization that the actor manages from above.
func (s *Service) belowAuthorized(ctx context.Context, tx *store.Tx, actor Actor, name string) (Organization, int64, error) {
	o, revision, err := organization(ctx, &tx.Reader, name)
	if err != nil || o.Parent() == "" {
		return o, 0, errors.Join(err, fmt.Errorf("%w: organization %s is nobody's to change", ErrDenied, name))
	}
	return o, revision, s.Authorize(ctx, &tx.Reader, actor, Access{VerbWrite, KindOrganization, o.Parent(), ""})
}

// Organization reads one.
func (s *Service) Organization(ctx context.Context, actor Actor, name string) (o Organization, err error) {
	err = s.view(ctx, actor, Access{VerbRead, KindOrganization, name, ""}, func(r *store.Reader) error {
		o, _, err = organization(ctx, r, name)
		return err
	})
	return o, err
}

// Children lists the organizations right below one, by name.
func (s *Service) Children(ctx context.Context, actor Actor, parent, cursor string, limit int) (names []string, next string, err error) {
	err = s.view(ctx, actor, Access{VerbRead, KindOrganization, parent, ""}, func(r *store.Reader) error {
		p, err := r.List(ctx, store.Query{Organization: parent, Kind: KindChild, Cursor: cursor, Limit: limit})
		for _, d := range p.Documents {
			names = append(names, d.Name)
		}
		next = p.Next
		return err
	})
	return names, next, err
}

func projectKey(org, name string) store.Key {
	return store.Key{Organization: org, Kind: KindProject, Name: name}
}

// CreateProject makes a project, which groups an organization's documents.
func (s *Service) CreateProject(ctx context.Context, actor Actor, org, name string) error {
	if err := checkLabel("project", name); err != nil {
		return err
	}
	return s.change(ctx, act{actor: actor, organization: org, action: "project.create", target: name}, func(tx *store.Tx) error {
		if err := s.Authorize(ctx, &tx.Reader, actor, Access{VerbWrite, KindProject, org, ""}); err != nil {
			return err
		}
		if _, err := Use(ctx, tx, org, MetricProjects, 1); err != nil {
			return err
		}
		return write(ctx, tx, projectKey(org, name), map[string]string{"name": name}, store.Absent)
	})
}

// DeleteProject removes a project that holds no documents.
func (s *Service) DeleteProject(ctx context.Context, actor Actor, org, name string) error {
	return s.change(ctx, act{actor: actor, organization: org, action: "project.delete", target: name}, func(tx *store.Tx) error {
		if err := s.Authorize(ctx, &tx.Reader, actor, Access{VerbDelete, KindProject, org, ""}); err != nil {
			return err
		}
		d, err := tx.Get(ctx, projectKey(org, name))
		if err != nil {
			return err
		}
		var bindings []store.Key
		err = each(ctx, &tx.Reader, store.Query{Organization: org, Project: &name}, func(d store.Document) error {
			if d.Kind != KindBinding {
				return fmt.Errorf("%w: %s belongs to project %s", ErrInUse, d.Key, name)
			}
			bindings = append(bindings, d.Key)
			return nil
		})
		if err != nil {
			return err
		}
		for _, k := range append(bindings, d.Key) {
			if err := tx.Delete(ctx, k, store.Any); err != nil {
				return err
			}
		}
		_, err = Use(ctx, tx, org, MetricProjects, -1)
		return err
	})
}
