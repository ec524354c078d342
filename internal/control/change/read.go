package change

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/document"
)

// Item is a document as readers see it.
type Item struct {
	Document json.RawMessage `json:"document" doc:"As it was written, with metadata.revision; secrets are shown by what stands for them, which may be sent back"`
	Kind     v1.Kind         `json:"kind"`
	Name     string          `json:"name"`
	Project  string          `json:"project,omitempty"`
	Revision int64           `json:"revision"`
	Created  time.Time       `json:"created"`
	Updated  time.Time       `json:"updated"`
	Pending  []Pending       `json:"pending,omitempty" doc:"Host names of a Site that are not served before they are proved"`
}

// Show gives a kept body for readers: every secret is shown by what stands for it.
func Show(kind v1.Kind, body []byte) ([]byte, error) {
	d, err := typed(string(kind), body)
	if err != nil {
		return nil, err
	}
	hide(d)
	return document.JSON(d)
}

func (s *Service) item(ctx context.Context, r *store.Reader, path []string, d store.Document) (Item, error) {
	doc, err := typed(d.Kind, d.Body)
	if err != nil {
		return Item{}, err
	}
	hide(doc)
	_, m := doc.Meta()
	m.Revision = int(d.Revision)
	body, err := document.JSON(doc)
	if err != nil {
		return Item{}, err
	}
	it := Item{Document: body, Kind: v1.Kind(d.Kind), Name: d.Name, Project: d.Project, Revision: d.Revision, Created: d.Created, Updated: d.Updated}
	if site, is := doc.(*v1.Site); is {
		for _, h := range site.Spec.Hostnames {
			ok, fix, err := mayServe(ctx, r, d.Organization, len(path) == 1, h)
			if err != nil {
				return Item{}, err
			}
			if !ok {
				it.Pending = append(it.Pending, Pending{d.Name, h, fix})
			}
		}
	}
	return it, nil
}

// find reads a document of any project, or store.ErrNotFound.
func find(ctx context.Context, r *store.Reader, org string, kind v1.Kind, name string) (store.Document, error) {
	key := store.Key{Organization: org, Kind: string(kind), Name: name}
	d, err := r.Get(ctx, key)
	if !errors.Is(err, store.ErrNotFound) {
		return d, err
	}
	var projects []string
	err = each(ctx, r, store.Query{Organization: org, Kind: tenant.KindProject}, func(d store.Document) error {
		projects = append(projects, d.Name)
		return nil
	})
	if err != nil {
		return store.Document{}, err
	}
	for _, key.Project = range projects {
		if d, err = r.Get(ctx, key); !errors.Is(err, store.ErrNotFound) {
			return d, err
		}
	}
	return store.Document{}, fmt.Errorf("%s %s: %w", kind, name, store.ErrNotFound)
}

// Get reads a document. ErrDenied where the actor may not read it, whether it is there or not.
func (s *Service) Get(ctx context.Context, actor tenant.Actor, org string, kind v1.Kind, name string) (it Item, err error) {
	err = s.Store.View(ctx, func(r *store.Reader) error {
		d, path, err := s.readable(ctx, r, actor, org, kind, name)
		if err != nil {
			return err
		}
		it, err = s.item(ctx, r, path, d)
		return err
	})
	return it, err
}

func (s *Service) readable(ctx context.Context, r *store.Reader, actor tenant.Actor, org string, kind v1.Kind, name string) (store.Document, []string, error) {
	if err := s.Tenant.Enter(ctx, r, actor, org); err != nil {
		return store.Document{}, nil, err
	}
	d, missing := find(ctx, r, org, kind, name)
	if missing != nil && !errors.Is(missing, store.ErrNotFound) {
		return d, nil, missing
	}
	a := tenant.Access{Verb: tenant.VerbRead, Kind: string(kind), Organization: org, Project: d.Project}
	if err := s.Tenant.Authorize(ctx, r, actor, a); err != nil {
		return d, nil, err
	}
	path, err := tenant.Tree(ctx, r, org)
	return d, path, errors.Join(missing, err)
}

// Query says which documents a list holds.
type Query struct {
	Kind    v1.Kind // empty: all
	Project string  // empty: all
	Cursor  string
	Limit   int
}

// List reads a page of documents, by project, kind and name. A page may be short, or empty, and have a next one.
func (s *Service) List(ctx context.Context, actor tenant.Actor, org string, q Query) (items []Item, next string, err error) {
	items = []Item{}
	err = s.Store.View(ctx, func(r *store.Reader) error {
		kind := string(q.Kind)
		if kind == "" {
			kind = "document"
		}
		if err := s.Tenant.Authorize(ctx, r, actor, tenant.Access{Verb: tenant.VerbRead, Kind: kind, Organization: org, Project: q.Project}); err != nil {
			return err
		}
		path, err := tenant.Tree(ctx, r, org)
		if err != nil {
			return err
		}
		sq := store.Query{Organization: org, Kind: string(q.Kind), Cursor: q.Cursor, Limit: q.Limit}
		if q.Project != "" {
			sq.Project = &q.Project
		}
		p, err := r.List(ctx, sq)
		if err != nil {
			return err
		}
		for _, d := range p.Documents {
			if !ours(d.Kind) {
				continue
			}
			it, err := s.item(ctx, r, path, d)
			if err != nil {
				return err
			}
			items = append(items, it)
		}
		next = p.Next
		return nil
	})
	return items, next, err
}

// Past is a revision in which a document changed.
type Past struct {
	Revision int64           `json:"revision"`
	Time     time.Time       `json:"time"`
	Author   string          `json:"author"`
	Reason   string          `json:"reason,omitempty"`
	Document json.RawMessage `json:"document,omitempty" doc:"Absent: it was deleted"`
}

// History tells what became of one document, the newest first.
func (s *Service) History(ctx context.Context, actor tenant.Actor, org string, kind v1.Kind, name, cursor string, limit int) (list []Past, next string, err error) {
	list = []Past{}
	err = s.Store.View(ctx, func(r *store.Reader) error {
		d, _, err := s.readable(ctx, r, actor, org, kind, name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		key := store.Key{Organization: org, Project: d.Project, Kind: string(kind), Name: name} // one that was deleted was of no project, or is not found
		changes, n, err := r.History(ctx, key, cursor, limit)
		if err != nil {
			return err
		}
		next = n
		for _, c := range changes {
			v, err := r.Revision(ctx, org, c.Revision)
			if err != nil {
				return err
			}
			p := Past{Revision: c.Revision, Time: v.Time, Author: v.Author, Reason: v.Reason}
			if c.Body != nil {
				if p.Document, err = Show(kind, c.Body); err != nil {
					return err
				}
			}
			list = append(list, p)
		}
		return nil
	})
	return list, next, err
}

// Revision is one change of an organization.
type Revision struct {
	Number  int64     `json:"number"`
	Time    time.Time `json:"time"`
	Author  string    `json:"author"`
	Reason  string    `json:"reason,omitempty"`
	Changes int64     `json:"changes"`
}

// Revisions lists an organization's changes, the newest first: those of users and roles too, which have numbers of the
// same row.
func (s *Service) Revisions(ctx context.Context, actor tenant.Actor, org, cursor string, limit int) (list []Revision, next string, err error) {
	list = []Revision{}
	err = s.Store.View(ctx, func(r *store.Reader) error {
		if err := s.Tenant.Authorize(ctx, r, actor, tenant.Access{Verb: tenant.VerbRead, Kind: "document", Organization: org}); err != nil {
			return err
		}
		revisions, n, err := r.Revisions(ctx, org, cursor, limit)
		for _, v := range revisions {
			list = append(list, Revision{v.Number, v.Time, v.Author, v.Reason, v.Changes})
		}
		next = n
		return err
	})
	return list, next, err
}

// Diff tells which documents differ between two revisions, and in what; to 0 is the newest.
func (s *Service) Diff(ctx context.Context, actor tenant.Actor, org string, from, to int64, cursor string, limit int) (list []Change, next string, err error) {
	list = []Change{}
	err = s.Store.View(ctx, func(r *store.Reader) error {
		if err := s.Tenant.Authorize(ctx, r, actor, tenant.Access{Verb: tenant.VerbRead, Kind: "document", Organization: org}); err != nil {
			return err
		}
		if to == 0 {
			o, err := r.Organization(ctx, org)
			if err != nil {
				return err
			}
			to = o.Revision
		}
		page, n, err := r.Diff(ctx, org, from, to, cursor, limit)
		if err != nil {
			return err
		}
		next = n
		for _, d := range page {
			if !ours(d.Kind) {
				continue
			}
			c := Change{Kind: v1.Kind(d.Kind), Name: d.Name, Project: d.Project, Action: Updated}
			switch {
			case d.Before == nil:
				c.Action = Created
			case d.After == nil:
				c.Action = Deleted
			}
			if c.Fields, err = fieldsOf(c.Kind, d.Before, d.After); err != nil {
				return err
			}
			list = append(list, c)
		}
		return nil
	})
	return list, next, err
}

// Export writes an organization's documents, or those of one project, as relais serve -f reads them: secrets as what stands
// for them. Applied to the same organization they change nothing.
func (s *Service) Export(ctx context.Context, actor tenant.Actor, org, project string) ([]byte, error) {
	var docs []v1.Document
	err := s.Store.View(ctx, func(r *store.Reader) error {
		if err := s.Tenant.Authorize(ctx, r, actor, tenant.Access{Verb: tenant.VerbRead, Kind: "document", Organization: org, Project: project}); err != nil {
			return err
		}
		q := store.Query{Organization: org}
		if project != "" {
			q.Project = &project
		}
		return each(ctx, r, q, func(d store.Document) error {
			if !ours(d.Kind) {
				return nil
			}
			doc, err := typed(d.Kind, d.Body)
			if err != nil {
				return err
			}
			hide(doc)
			docs = append(docs, doc)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	order := v1.Kinds()
	slices.SortStableFunc(docs, func(a, b v1.Document) int {
		ka, _ := a.Meta()
		kb, _ := b.Meta()
		return slices.Index(order, ka) - slices.Index(order, kb)
	})
	var out bytes.Buffer
	for i, d := range docs {
		if i > 0 {
			out.WriteString("---\n")
		}
		b, err := document.YAML(d)
		if err != nil {
			return nil, err
		}
		out.Write(b)
	}
	return out.Bytes(), nil
}

// Told says what a row of the history did to a document; false where it is not of a document.
func Told(c store.DocumentChange) (Change, bool) {
	what := Change{Kind: v1.Kind(c.Kind), Name: c.Name, Project: c.Project, Action: Updated}
	switch {
	case c.Former == 0:
		what.Action = Created
	case c.Body == nil:
		what.Action = Deleted
	}
	return what, ours(c.Kind)
}
