package tenant

import (
	"context"
	"fmt"

	"github.com/relais-edge/relais/internal/control/store"
)

// Enter says whether the actor may do anything at all in an organization or in one of its projects, or ErrDenied: who may
// not is told nothing of what is there, not even that it is.
func (s *Service) Enter(ctx context.Context, r *store.Reader, actor Actor, org string) error {
	projects := []string{""}
	if actor.Token != nil && actor.Token.Project != "" {
		projects = []string{actor.Token.Project}
	}
	if org != "" && org[0] != '~' && actor.Token == nil {
		err := each(ctx, r, store.Query{Organization: org, Kind: KindBinding, Prefix: bindingPrefix(actor)}, func(d store.Document) error {
			if d.Project != "" {
				projects = append(projects, d.Project)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, p := range projects {
		rules, err := s.rulesOf(ctx, r, actor, org, p)
		if err != nil || len(rules) > 0 {
			return err
		}
	}
	return fmt.Errorf("%w: %s in organization %s", ErrDenied, actor, org)
}

// Tree gives an organization's place: the names from the operator down to itself.
func Tree(ctx context.Context, r *store.Reader, org string) (path []string, err error) {
	o, _, err := organization(ctx, r, org)
	return o.Path, err
}

// HasProject says whether an organization has a project.
func HasProject(ctx context.Context, r *store.Reader, org, project string) (bool, error) {
	_, err := r.Get(ctx, projectKey(org, project))
	return err == nil, ignoreNotFound(err)
}
