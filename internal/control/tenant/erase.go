package tenant

import (
	"context"
	"errors"
	"fmt"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant/audit"
)

// erasePage is how many revisions one change of an erasure prunes.
const erasePage = 5000

// Erase forgets what an organization was that DeleteOrganization removed: the history of its documents, users and tokens, what
// was kept of it for a while, what messages to it say, its users' bindings elsewhere, and what its audit log says. What stays
// is in internal/control/DESIGN.md. It works in several changes; after an error it may be called again.
func (s *Service) Erase(ctx context.Context, actor Actor, org string) error {
	parent := ""
	err := s.store.View(ctx, func(r *store.Reader) error {
		var o Organization
		_, err := read(ctx, r, organizationKey(org), &o)
		if errors.Is(err, store.ErrNotFound) || err == nil && o.Parent() == "" {
			return fmt.Errorf("%w: %s on organization %s", ErrDenied, actor, org)
		}
		parent = o.Parent()
		if err == nil {
			err = s.Authorize(ctx, r, actor, Access{VerbDelete, KindOrganization, parent, ""})
		}
		if err == nil && !o.Deleted {
			err = fmt.Errorf("%w: delete organization %s first", ErrInUse, org)
		}
		return err
	})
	if err != nil {
		return s.Denied(ctx, actor, org, "organization.erase", "", err)
	}
	var upTo, revision int64
	err = s.change(ctx, act{actor: actor, organization: parent, action: "organization.erase", target: org}, func(tx *store.Tx) error {
		// Asked again: rights may have gone meanwhile, and the page above was another moment.
		if err := s.Authorize(ctx, &tx.Reader, actor, Access{VerbDelete, KindOrganization, parent, ""}); err != nil {
			return err
		}
		if upTo, err = s.eraseFirst(ctx, tx, actor, org); err != nil {
			return err
		}
		state, err := tx.Reader.Organization(ctx, org)
		revision = state.Revision + 1 // the one that is being made
		return err
	})
	if err != nil {
		return err
	}
	return s.eraseRest(ctx, actor, org, upTo, revision)
}

// eraseFirst does what is little, in the change that the audit logs tell of.
func (s *Service) eraseFirst(ctx context.Context, tx *store.Tx, actor Actor, org string) (upTo int64, err error) {
	var o Organization
	revision, err := read(ctx, &tx.Reader, organizationKey(org), &o)
	if err != nil || !o.Deleted {
		return 0, errors.Join(err, fmt.Errorf("%w: organization %s is not deleted", ErrInUse, org))
	}
	var keys []store.Key
	err = each(ctx, &tx.Reader, store.Query{Kind: KindBinding, Prefix: org + "/"}, func(d store.Document) error {
		keys = append(keys, d.Key)
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, k := range keys {
		if err := errors.Join(tx.Delete(ctx, k, store.Any), tx.EraseHistory(ctx, k)); err != nil {
			return 0, err
		}
	}
	if _, err := tx.ForgetOwners(ctx, org+"/"); err != nil {
		return 0, err
	}
	if err := tx.EraseMessages(ctx, org); err != nil {
		return 0, err
	}
	// The name, its place in the tree and that it is no more: so that nobody ever gets it.
	bare := Organization{Name: o.Name, Path: o.Path, Deleted: true}
	if err := write(ctx, tx, organizationKey(org), bare, store.Expect(revision)); err != nil {
		return 0, err
	}
	return audit.Erase(ctx, tx, org, actor.String())
}

// eraseRest goes through what may be much, page by page.
func (s *Service) eraseRest(ctx context.Context, actor Actor, org string, upTo, revision int64) error {
	change := store.Change{Author: actor.String(), Reason: "erasure of " + org}
	for after := int64(0); after < upTo; {
		before := after
		_, err := s.store.Update(ctx, change, func(tx *store.Tx) (err error) {
			after, err = audit.EraseUpTo(ctx, tx, org, before, upTo)
			return err
		})
		if err != nil {
			return err
		}
		if after == before { // the rest was trimmed
			break
		}
	}
	// Counters and the index of host names are of nobody who reads what they were.
	for _, at := range []struct {
		org  string
		upTo int64
	}{{org, revision}, {quotaOrganization, 0}, {HostnamesOrganization, 0}} {
		if err := s.prune(ctx, change, at.org, at.upTo); err != nil {
			return err
		}
	}
	return nil
}

// HostnamesOrganization is where tenant/claim keeps its index.
const HostnamesOrganization = "~hostnames"

// prune forgets an organization's history up to a revision; 0: the newest.
func (s *Service) prune(ctx context.Context, c store.Change, org string, upTo int64) error {
	for {
		more := false
		_, err := s.store.Update(ctx, c, func(tx *store.Tx) error {
			state, err := tx.Reader.Organization(ctx, org)
			if err != nil || state.Revision == 0 {
				return err
			}
			if upTo == 0 {
				upTo = state.Revision
			}
			to := min(state.Pruned+erasePage, upTo)
			more = to < upTo
			return tx.Prune(ctx, org, to)
		})
		if err != nil || !more {
			return err
		}
	}
}
