package change

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
)

// shared is the organization in whose name compile looks for the listeners that all may use.
const shared = "default"

// id names a document in its organization: a name is unique over its projects.
type id struct {
	kind v1.Kind
	name string
}

// state is an organization's documents at one moment, and the operator's listeners.
type state struct {
	reader    *store.Reader
	org       string
	path      []string // from the operator down
	revision  int64    // of the organization
	operators int64    // revision of the operator
	docs      map[id]*store.Document
	platform  []v1.Document
}

// operator says whether it is the organization that owns the places.
func (st *state) operator() bool { return len(st.path) == 1 }

// ours says whether documents of the kind are changed here.
func ours(kind string) bool { return v1.New(v1.Kind(kind)) != nil }

func load(ctx context.Context, r *store.Reader, org string) (*state, error) {
	path, err := tenant.Tree(ctx, r, org)
	if err != nil {
		return nil, err
	}
	st := &state{reader: r, org: org, path: path, docs: map[id]*store.Document{}}
	if st.revision, st.operators, err = revisions(ctx, r, path); err != nil {
		return nil, err
	}
	err = each(ctx, r, store.Query{Organization: org}, func(d store.Document) error {
		if ours(d.Kind) {
			st.docs[id{v1.Kind(d.Kind), d.Name}] = &d
		}
		return nil
	})
	if err != nil || st.operator() {
		return st, err
	}
	err = each(ctx, r, store.Query{Organization: path[0], Kind: string(v1.KindListener)}, func(d store.Document) error {
		doc, err := typed(d.Kind, d.Body)
		if err != nil {
			return err
		}
		l, _ := doc.(*v1.Listener)
		l.Metadata.Organization = shared
		if l.Spec.TLS != nil {
			l.Spec.TLS.Certificates = nil // they are not the tenant's to see, nor to be blamed for
		}
		v1.Default(l)
		st.platform = append(st.platform, l)
		return nil
	})
	return st, err
}

func revisions(ctx context.Context, r *store.Reader, path []string) (own, operators int64, err error) {
	o, err := r.Organization(ctx, path[len(path)-1])
	if err != nil {
		return 0, 0, err
	}
	p, err := r.Organization(ctx, path[0])
	return o.Revision, p.Revision, err
}

func each(ctx context.Context, r *store.Reader, q store.Query, fn func(store.Document) error) error {
	for {
		p, err := r.List(ctx, q)
		if err != nil {
			return err
		}
		for _, d := range p.Documents {
			if err := fn(d); err != nil {
				return err
			}
		}
		if q.Cursor = p.Next; q.Cursor == "" {
			return nil
		}
	}
}

// typed reads a document as it is kept: without defaults, its secrets closed.
func typed(kind string, body []byte) (v1.Document, error) {
	d := v1.New(v1.Kind(kind))
	if d == nil {
		return nil, fmt.Errorf("change: %s is no kind of documents", kind)
	}
	if err := json.Unmarshal(body, d); err != nil {
		return nil, fmt.Errorf("change: a kept %s is damaged: %w", kind, err)
	}
	return d, nil
}

// after gives the documents as they would be after a change, defaults filled in, in a fixed order.
func (st *state) after(ops []*op) ([]v1.Document, error) {
	touched := make(map[id]*op, len(ops))
	for _, o := range ops {
		touched[o.id] = o
	}
	docs := slices.Clone(st.platform)
	for key, d := range st.docs {
		if touched[key] != nil {
			continue
		}
		doc, err := typed(d.Kind, d.Body)
		if err != nil {
			return nil, err
		}
		v1.Default(doc)
		docs = append(docs, doc)
	}
	for _, o := range ops {
		if o.doc != nil {
			docs = append(docs, o.doc)
		}
	}
	return docs, nil
}
