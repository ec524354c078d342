package tenant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
)

// Verb is what is done to documents of a kind.
type Verb string

// The verbs.
const (
	VerbRead   Verb = "read"
	VerbWrite  Verb = "write" // make or change
	VerbDelete Verb = "delete"
	VerbRevert Verb = "revert" // roll back, roll out
	VerbPurge  Verb = "purge"  // what is cached of a site
)

// Roles that every organization has.
const (
	RoleAdmin   = "admin"   // everything, in the organization and below
	RoleEditor  = "editor"  // documents, but nothing of tenancy
	RoleViewer  = "viewer"  // reads all but secrets
	RoleBilling = "billing" // plans, usage and invoices
)

// Rule allows verbs on kinds; "*" is all.
type Rule struct {
	Verbs []Verb   `json:"verbs"`
	Kinds []string `json:"kinds"`
}

// Role is a set of rules, for its organization and those below.
type Role struct {
	Rules []Rule `json:"rules"`
}

// Access is what an actor wants to do.
type Access struct {
	Verb         Verb
	Kind         string
	Organization string
	Project      string // empty: of the organization itself
}

// Binding gives a user a role in an organization and those below, or in one of its projects.
type Binding struct {
	User     string     `json:"user"`
	Home     string     `json:"home"` // organization of the user
	Role     string     `json:"role"`
	Expires  *time.Time `json:"expires,omitempty"`
	Provider string     `json:"provider,omitempty"` // organization/name of the identity provider that asserted it
}

func roleKey(org, name string) store.Key {
	return store.Key{Organization: org, Kind: KindRole, Name: name}
}

func bindingKey(org, project string, of Actor, role string) store.Key {
	return store.Key{Organization: org, Project: project, Kind: KindBinding, Name: bindingPrefix(of) + role}
}

// bindingPrefix begins the names of a user's bindings; neither part holds a slash.
func bindingPrefix(of Actor) string { return of.Organization + "/" + of.Login + "/" }

// tenancyKinds are those that only an admin, or a role that names them, may touch.
func tenancyKinds() []string {
	return []string{
		KindOrganization, KindChild, KindProject, KindUser, KindRole, KindBinding, KindToken, KindGuardrails, KindPlan, KindCounter,
		KindProvider, KindIdentity, KindSession, KindBrand, KindStanding, KindBudget, KindPopCosts, KindUsage, KindInvoice,
		"Secret", "HostnameClaim", "Audit",
	}
}

// Reserved says that documents of the kind are written by the control plane's rooms alone, not as documents.
func Reserved(kind string) bool { return slices.Contains(tenancyKinds(), kind) }

// builtin gives the rules of a role that every organization has.
func builtin(name string) ([]Rule, bool) {
	switch name {
	case RoleAdmin:
		return []Rule{{[]Verb{"*"}, []string{"*"}}}, true
	case RoleEditor:
		return []Rule{{[]Verb{"*"}, []string{"document"}}, {[]Verb{VerbRead}, []string{KindProject, "HostnameClaim"}}}, true
	case RoleViewer:
		return []Rule{{[]Verb{VerbRead}, []string{"document", KindProject, KindOrganization, KindGuardrails, KindPlan, "HostnameClaim", "Audit"}}}, true
	case RoleBilling:
		return []Rule{{[]Verb{VerbRead}, []string{KindOrganization, KindPlan, KindUsage, KindInvoice, KindBudget, KindStanding}}}, true
	}
	return nil, false
}

// allows says whether a rule covers a verb on a kind. The kind "document" stands for all that are not tenancy's.
func (r Rule) allows(v Verb, kind string) bool {
	verb := slices.Contains(r.Verbs, "*") || slices.Contains(r.Verbs, v)
	return verb && (slices.Contains(r.Kinds, "*") || slices.Contains(r.Kinds, kind) || slices.Contains(r.Kinds, "document") && kind != "*" && !Reserved(kind))
}

func allow(rules []Rule, v Verb, kind string) bool {
	return slices.ContainsFunc(rules, func(r Rule) bool { return r.allows(v, kind) })
}

// covers says whether rules allow all that others allow. A star is covered by a star alone.
func covers(rules, others []Rule) bool {
	for _, o := range others {
		for _, v := range o.Verbs {
			for _, k := range o.Kinds {
				if !allow(rules, v, k) {
					return false
				}
			}
		}
	}
	return true
}

func checkRules(rules []Rule) error {
	if len(rules) == 0 || len(rules) > maxRules {
		return &store.LimitError{What: "rules", Have: int64(len(rules)), Most: maxRules}
	}
	for _, r := range rules {
		if len(r.Verbs) == 0 || len(r.Kinds) == 0 || len(r.Verbs) > maxWords || len(r.Kinds) > maxWords {
			return fmt.Errorf("%w: a rule names 1 to %d verbs and kinds", ErrInvalid, maxWords)
		}
		for _, v := range r.Verbs {
			if !slices.Contains([]Verb{VerbRead, VerbWrite, VerbDelete, VerbRevert, VerbPurge, "*"}, v) {
				return fmt.Errorf("%w: there is no verb %q", ErrInvalid, v)
			}
		}
		for _, k := range r.Kinds {
			if k == "" || len(k) > maxLabel {
				return fmt.Errorf("%w: %q is no kind", ErrInvalid, k)
			}
		}
	}
	return nil
}

// Authorize says whether the actor may, or ErrDenied. Rights come from bindings in the organization and in those above it,
// never from below or beside; a token allows no more than its own rules, in its own part of the tree.
func (s *Service) Authorize(ctx context.Context, r *store.Reader, actor Actor, a Access) error {
	rules, err := s.rulesOf(ctx, r, actor, a.Organization, a.Project)
	if err != nil {
		return err
	}
	denied := fmt.Errorf("%w: %s may not %s %s in organization %s", ErrDenied, actor, a.Verb, a.Kind, a.Organization)
	if !allow(rules, a.Verb, a.Kind) || actor.Token != nil && !allow(actor.Token.Rules, a.Verb, a.Kind) {
		return denied
	}
	return nil
}

// rulesOf collects the rules of the user's bindings that hold in a project of an organization. It is empty where the
// organization does not exist, where the user does not or is disabled, and outside of the token's part of the tree.
func (s *Service) rulesOf(ctx context.Context, r *store.Reader, actor Actor, org, project string) ([]Rule, error) {
	o, _, err := organization(ctx, r, org)
	if err != nil {
		return nil, ignoreNotFound(err)
	}
	if t := actor.Token; t != nil && (!slices.Contains(o.Path, t.Organization) || t.Project != "" && (t.Organization != org || t.Project != project)) {
		return nil, nil
	}
	var u User
	if _, err := read(ctx, r, userKey(actor.Organization, actor.Login), &u); err != nil || u.Disabled {
		return nil, ignoreNotFound(err)
	}
	var rules []Rule
	for i, at := range o.Path {
		err := each(ctx, r, store.Query{Organization: at, Kind: KindBinding, Prefix: bindingPrefix(actor)}, func(d store.Document) error {
			if d.Project != "" && (at != org || d.Project != project) {
				return nil
			}
			var b Binding
			if err := decodeBody(d, &b); err != nil {
				return err
			}
			if b.Expires != nil && !b.Expires.After(r.Now()) {
				return nil
			}
			more, err := resolve(ctx, r, o.Path[:i+1], b.Role)
			rules = append(rules, more...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return rules, nil
}

func ignoreNotFound(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// resolve finds a role by name: a built-in one, or the nearest in the organization that binds it and those above. One that
// is gone allows nothing.
func resolve(ctx context.Context, r *store.Reader, path []string, name string) ([]Rule, error) {
	if rules, ok := builtin(name); ok {
		return rules, nil
	}
	for _, at := range slices.Backward(path) {
		var role Role
		_, err := read(ctx, r, roleKey(at, name), &role)
		if !errors.Is(err, store.ErrNotFound) {
			return role.Rules, err
		}
	}
	return nil, nil
}

// PutRole makes or changes a role. Nobody gives what he does not have.
func (s *Service) PutRole(ctx context.Context, actor Actor, org, name string, role Role) error {
	if err := errors.Join(checkLabel("role", name), checkRules(role.Rules)); err != nil {
		return err
	}
	if _, is := builtin(name); is {
		return fmt.Errorf("%w: every organization has a role %s", ErrInvalid, name)
	}
	return s.change(ctx, act{actor: actor, organization: org, action: "role.put", target: name, details: role}, func(tx *store.Tx) error {
		if err := s.authorizeGrant(ctx, tx, actor, Access{VerbWrite, KindRole, org, ""}, role.Rules); err != nil {
			return err
		}
		return write(ctx, tx, roleKey(org, name), role, store.Any)
	})
}

// authorizeGrant also asks that the actor, and his token, have all that he gives.
func (s *Service) authorizeGrant(ctx context.Context, tx *store.Tx, actor Actor, a Access, rules []Rule) error {
	if err := s.Authorize(ctx, &tx.Reader, actor, a); err != nil {
		return err
	}
	own, err := s.rulesOf(ctx, &tx.Reader, actor, a.Organization, a.Project)
	if err != nil {
		return err
	}
	if !covers(own, rules) || actor.Token != nil && !covers(actor.Token.Rules, rules) {
		return fmt.Errorf("%w: %s would give more than he has in organization %s", ErrDenied, actor, a.Organization)
	}
	return nil
}

// Bind gives a user a role in an organization and those below it, or in one project. The user is of that organization or
// of one below; one from above is let in only for a time, as support is. Others are not.
func (s *Service) Bind(ctx context.Context, actor Actor, org, project string, of Actor, role string, expires *time.Time) error {
	details := map[string]any{"role": role, "project": project, "expires": expires}
	return s.change(ctx, act{actor: actor, organization: org, action: "binding.create", target: of.String(), details: details}, func(tx *store.Tx) error {
		o, _, err := organization(ctx, &tx.Reader, org)
		if err != nil {
			return deny(err, actor, org)
		}
		rules, err := resolve(ctx, &tx.Reader, o.Path, role)
		if err != nil {
			return err
		}
		if err := s.authorizeGrant(ctx, tx, actor, Access{VerbWrite, KindBinding, org, project}, rules); err != nil {
			return err
		}
		if len(rules) == 0 {
			return fmt.Errorf("%w: there is no role %q", ErrInvalid, role)
		}
		if project != "" {
			if _, err := tx.Get(ctx, projectKey(org, project)); err != nil {
				return err
			}
		}
		if err := mayBind(ctx, tx, o, of, expires); err != nil {
			return err
		}
		n := 0
		err = each(ctx, &tx.Reader, store.Query{Organization: org, Kind: KindBinding, Prefix: bindingPrefix(of)}, func(store.Document) error {
			n++
			return nil
		})
		if err != nil || n >= maxBindings {
			return errors.Join(err, limitOver("bindings of a user", n, maxBindings))
		}
		return write(ctx, tx, bindingKey(org, project, of, role), Binding{User: of.Login, Home: of.Organization, Role: role, Expires: expires}, store.Any)
	})
}

func limitOver(what string, have, most int) error {
	if have < most {
		return nil
	}
	return &store.LimitError{What: what, Have: int64(have) + 1, Most: int64(most)}
}

// deny hides from a stranger whether an organization exists.
func deny(err error, actor Actor, org string) error {
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: %s in organization %s", ErrDenied, actor, org)
	}
	return err
}

func mayBind(ctx context.Context, tx *store.Tx, o Organization, of Actor, expires *time.Time) error {
	home, _, err := organization(ctx, &tx.Reader, of.Organization)
	if err == nil {
		_, err = tx.Get(ctx, userKey(of.Organization, of.Login))
	}
	stranger := fmt.Errorf("%w: there is no user %s for organization %s", ErrInvalid, of, o.Name)
	if errors.Is(err, store.ErrNotFound) {
		return stranger
	}
	if err != nil {
		return err
	}
	if expires != nil && !expires.After(tx.Now()) {
		return fmt.Errorf("%w: it expired at %s", ErrInvalid, expires)
	}
	switch {
	case slices.Contains(home.Path, o.Name):
		return nil
	case slices.Contains(o.Path, home.Name) && expires != nil:
		return nil
	case slices.Contains(o.Path, home.Name):
		return fmt.Errorf("%w: %s is of an organization above; give an end", ErrInvalid, of)
	}
	return stranger
}

// Unbind takes a role from a user. The operator keeps an admin.
func (s *Service) Unbind(ctx context.Context, actor Actor, org, project string, of Actor, role string) error {
	return s.change(ctx, act{actor: actor, organization: org, action: "binding.delete", target: of.String(), details: map[string]any{"role": role, "project": project}}, func(tx *store.Tx) error {
		o, _, err := organization(ctx, &tx.Reader, org)
		if err != nil {
			return deny(err, actor, org)
		}
		rules, err := resolve(ctx, &tx.Reader, o.Path, role)
		if err != nil {
			return err
		}
		if err := s.authorizeGrant(ctx, tx, actor, Access{VerbDelete, KindBinding, org, project}, rules); err != nil {
			return err
		}
		d, err := tx.Get(ctx, bindingKey(org, project, of, role))
		if err != nil {
			return err
		}
		if err := tx.Delete(ctx, d.Key, store.Any); err != nil {
			return err
		}
		return keepsAdmin(ctx, tx, o)
	})
}

// keepsAdmin refuses a change after which nobody could ever manage the operator.
func keepsAdmin(ctx context.Context, tx *store.Tx, o Organization) error {
	if o.Parent() != "" {
		return nil // who stands above can mend it
	}
	found := false
	none := ""
	err := each(ctx, &tx.Reader, store.Query{Organization: o.Name, Project: &none, Kind: KindBinding}, func(d store.Document) error {
		var b Binding
		if err := decodeBody(d, &b); err != nil {
			return err
		}
		var u User
		if b.Role != RoleAdmin || b.Expires != nil || b.Home != o.Name {
			return nil
		}
		if _, err := read(ctx, &tx.Reader, userKey(b.Home, b.User), &u); err != nil {
			return ignoreNotFound(err)
		}
		found = found || !u.Disabled && !u.Service
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("%w: the operator would have no admin left", ErrInUse)
	}
	return err
}
