package change

import (
	"context"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
	"github.com/relais-edge/relais/internal/document"
)

// Served gives an organization's documents as they are put in service: defaults filled in, secrets in clear, and without
// the host names that it has not proved. A site without any name left is not among them. It is for who compiles; what it
// gives must be sealed before it is kept or sent.
func (s *Service) Served(ctx context.Context, r *store.Reader, org string) (docs []v1.Document, pending []Pending, err error) {
	st, err := load(ctx, r, org)
	if err != nil {
		return nil, nil, err
	}
	for key, kept := range st.docs {
		d, err := typed(kept.Kind, kept.Body)
		if err != nil {
			return nil, nil, err
		}
		ring, err := s.ring(org, key)
		if err == nil {
			err = ring.open(d)
		}
		if err != nil {
			return nil, nil, err
		}
		more, err := proved(ctx, r, st, d)
		if err != nil {
			return nil, nil, err
		}
		pending = append(pending, more...)
		if site, is := d.(*v1.Site); is && len(site.Spec.Hostnames) == 0 {
			continue
		}
		v1.Default(d)
		docs = append(docs, d)
	}
	return docs, pending, nil
}

// proved takes the names out of a document that are not its organization's.
func proved(ctx context.Context, r *store.Reader, st *state, d v1.Document) (pending []Pending, err error) {
	_, m := d.Meta()
	filter := func(names []string) (kept []string, err error) {
		for _, n := range names {
			ok, fix, err := mayServe(ctx, r, st.org, st.operator(), n)
			if err != nil {
				return nil, err
			}
			if ok {
				kept = append(kept, n)
			} else {
				pending = append(pending, Pending{m.Name, n, fix})
			}
		}
		return kept, nil
	}
	switch d := d.(type) {
	case *v1.Site:
		d.Spec.Hostnames, err = filter(d.Spec.Hostnames)
	case *v1.Certificate: // no authority is asked for a name of somebody else
		if d.Spec.ACME != nil {
			d.Spec.ACME.Hostnames, err = filter(d.Spec.ACME.Hostnames)
		}
		if d.Spec.Internal != nil && err == nil {
			d.Spec.Internal.Hostnames, err = filter(d.Spec.Internal.Hostnames)
		}
		pending = nil // sites tell of theirs
	}
	return pending, err
}

// RotateSecrets closes the documents' secrets anew for the vault's newest key, and gives how many documents had one.
func (s *Service) RotateSecrets(ctx context.Context, author string) (n int, err error) {
	for _, kind := range v1.Kinds() {
		more, err := secret.Renew(ctx, s.Store, string(kind), author, s.rotate)
		if n += more; err != nil {
			return n, err
		}
	}
	return n, nil
}

func (s *Service) rotate(ctx context.Context, tx *store.Tx, d store.Document) (int, error) {
	outdated := false
	doc, err := typed(d.Kind, d.Body)
	if err != nil {
		return 0, err
	}
	v1.Secrets(doc, func(_, text string) string {
		if x, ok := parseSealed(text); ok && s.Vault.Outdated(x.body) {
			outdated = true
		}
		return text
	})
	if !outdated {
		return 0, nil
	}
	ring, err := s.ring(d.Organization, id{v1.Kind(d.Kind), d.Name})
	if err == nil {
		err = ring.open(doc)
	}
	if err == nil {
		err = ring.close(doc)
	}
	if err != nil {
		return 0, err
	}
	body, err := document.JSON(doc)
	if err != nil {
		return 0, err
	}
	_, err = tx.Put(ctx, d.Key, body, store.Expect(d.Revision))
	return 1, err
}

// Allowed says whether the actor may do something to documents of a kind; for who acts on them by other ways, such as
// purges.
func (s *Service) Allowed(ctx context.Context, actor tenant.Actor, a tenant.Access) error {
	return s.Store.View(ctx, func(r *store.Reader) error { return s.Tenant.Authorize(ctx, r, actor, a) })
}
