package change

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/audit"
	"github.com/relais-edge/relais/internal/document"
)

// request is what somebody asks for.
type request struct {
	actor   tenant.Actor
	org     string
	action  string // of the audit log
	target  string
	options Options
	revert  bool // the verb is revert, whatever becomes of documents
	ops     func(*state) ([]*op, error)
}

// op is what becomes of one document.
type op struct {
	id
	project string
	doc     v1.Document // with defaults; nil: deleted
	written v1.Document // as it was written, secrets in clear
	expect  store.Expect
	set     *document.Set // where it was written, and
	index   int           // at which place; -1: nowhere
	ring    *keyring
	former  *store.Document // nil: it did not exist
	body    []byte          // to be kept; nil: deleted
	action  Action
}

// plan is a change that was found good on a state.
type plan struct {
	state *state
	ops   []*op
}

// run checks a change outside of a transaction, where it keeps nobody waiting, and writes it inside of one: what may have
// changed in between is checked again there.
func (s *Service) run(ctx context.Context, q request) (*Result, error) {
	var p *plan
	err := s.Store.View(ctx, func(r *store.Reader) (err error) {
		p, err = s.plan(ctx, r, q)
		return err
	})
	if err != nil {
		return nil, err
	}
	var result *Result
	commit, err := s.Store.Update(ctx, store.Change{Author: q.actor.String(), Reason: q.options.Reason}, func(tx *store.Tx) error {
		own, operators, err := revisions(ctx, &tx.Reader, p.state.path)
		if err != nil {
			return err
		}
		if own != p.state.revision || operators != p.state.operators {
			if p, err = s.plan(ctx, &tx.Reader, q); err != nil {
				return err
			}
		} else if err := s.permit(ctx, &tx.Reader, q, p); err != nil {
			return err
		}
		if result, err = s.write(ctx, tx, q, p); err != nil {
			return err
		}
		result.Revision = own
		if q.options.Also != nil && !q.options.DryRun {
			if err := q.options.Also(ctx, tx, result); err != nil {
				return err
			}
		}
		if q.options.DryRun {
			return errDryRun
		}
		return nil
	})
	if err != nil && !errors.Is(err, errDryRun) {
		return nil, err
	}
	if n := commit.Revisions[q.org]; n > 0 && result.Changed() > 0 {
		result.Revision = n
	}
	return result, nil
}

// plan finds out what becomes of each document, and whether it may. What it refuses it refuses before it has told the
// actor anything of what others made.
func (s *Service) plan(ctx context.Context, r *store.Reader, q request) (*plan, error) {
	if err := s.Tenant.Enter(ctx, r, q.actor, q.org); err != nil {
		return nil, err
	}
	st, err := load(ctx, r, q.org)
	if err != nil {
		return nil, err
	}
	ops, err := q.ops(st)
	if err != nil {
		return nil, err
	}
	if q.options.Prune {
		ops = append(ops, prune(st, ops)...)
	}
	if len(ops) == 0 {
		return nil, &ProblemsError{[]document.Problem{{File: "request", What: "holds no documents", Fix: "give at least one"}}}
	}
	if len(ops) > MaxDocuments {
		return nil, &store.LimitError{What: "documents of one change", Have: int64(len(ops)), Most: MaxDocuments}
	}
	p := &plan{st, ops}
	if err := s.seal(q.org, ops); err != nil {
		return nil, err
	}
	if err := s.permit(ctx, r, q, p); err != nil {
		return nil, err
	}
	if err := s.check(ctx, r, p); err != nil {
		return nil, err
	}
	return p, nil
}

// prune deletes what is not among the ops.
func prune(st *state, ops []*op) (more []*op) {
	for key, d := range st.docs {
		if !slices.ContainsFunc(ops, func(o *op) bool { return o.id == key }) {
			more = append(more, &op{id: key, project: d.Project, expect: store.Any, index: -1, former: d})
		}
	}
	slices.SortFunc(more, func(a, b *op) int {
		return strings.Compare(string(a.kind)+"/"+a.name, string(b.kind)+"/"+b.name)
	})
	return more
}

// decode reads what somebody sent.
func (s *Service) decode(st *state, files []document.File, o Options) ([]*op, error) {
	rings := &rings{service: s, state: st, of: map[id]*keyring{}}
	set, problems := document.Decode(files, rings.fill)
	if rings.err != nil {
		return nil, rings.err
	}
	if len(problems) > 0 {
		return nil, &ProblemsError{problems}
	}
	ops := make([]*op, 0, len(set.Documents))
	for i, d := range set.Documents {
		kind, m := d.Meta()
		x := &op{id: id{kind, m.Name}, project: m.Project, doc: d, written: set.Written[i], expect: store.Any, set: set, index: i}
		x.former, x.ring = st.docs[x.id], rings.of[x.id]
		if _, w := x.written.Meta(); w.Revision > 0 {
			x.expect, w.Revision = store.Expect(w.Revision), 0
		}
		m.Revision = 0
		if o.Expect != nil {
			x.expect = *o.Expect
		}
		ops = append(ops, x)
	}
	return ops, nil
}

// rings are the secrets of the documents that are sent, opened where they are asked for.
type rings struct {
	service *Service
	state   *state
	mu      sync.Mutex // documents are decoded side by side
	of      map[id]*keyring
	err     error
}

// fill gives a document its organization and the secrets that it kept.
func (g *rings) fill(d v1.Document) []v1.Problem {
	kind, m := d.Meta()
	if m.Organization == "" {
		m.Organization = g.state.org
	}
	has := false
	v1.Secrets(d, func(_, text string) string { has = true; return text })
	if !has {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	key := id{kind, m.Name}
	if g.of[key] == nil {
		var kept [][]byte
		if old := g.state.docs[key]; old != nil {
			kept = append(kept, old.Body)
		}
		ring, err := g.service.ring(g.state.org, key, kept...)
		if err != nil {
			g.err = err
			return nil
		}
		g.of[key] = ring
	}
	return g.of[key].fill(d)
}

// former finds out what was at a revision and is not so now.
func (s *Service) former(ctx context.Context, st *state, to int64) ([]*op, error) {
	var ops []*op
	for cursor := ""; ; {
		list, next, err := st.reader.Diff(ctx, st.org, st.revision, to, cursor, 0)
		if err != nil {
			return nil, err
		}
		for _, d := range list {
			if !ours(d.Kind) {
				continue
			}
			x, err := s.restore(st, d)
			if err != nil {
				return nil, err
			}
			ops = append(ops, x...)
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	// A document that moved between projects is a difference in each: where it shall be counts.
	stays := map[id]bool{}
	for _, o := range ops {
		stays[o.id] = stays[o.id] || o.doc != nil
	}
	ops = slices.DeleteFunc(ops, func(o *op) bool { return o.doc == nil && stays[o.id] })
	if len(ops) == 0 {
		return nil, fmt.Errorf("%w: the documents are as they were at revision %d", tenant.ErrInvalid, to)
	}
	return ops, nil
}

// restore makes a document what it was.
func (s *Service) restore(st *state, d store.Difference) ([]*op, error) {
	x := &op{id: id{v1.Kind(d.Kind), d.Name}, project: d.Project, expect: store.Any, index: -1}
	x.former = st.docs[x.id]
	if d.After == nil {
		if x.former == nil || x.former.Project != d.Project {
			return nil, nil // it is elsewhere
		}
		return []*op{x}, nil
	}
	kept := [][]byte{d.After}
	if x.former != nil {
		kept = append(kept, x.former.Body)
	}
	var err error
	if x.ring, err = s.ring(st.org, x.id, kept...); err != nil {
		return nil, err
	}
	for _, to := range []*v1.Document{&x.doc, &x.written} {
		if *to, err = typed(d.Kind, d.After); err != nil {
			return nil, err
		}
		if err := x.ring.open(*to); err != nil {
			return nil, err
		}
	}
	v1.Default(x.doc)
	return []*op{x}, nil
}

// seal makes the bodies that are kept, and finds out which differ from those that are.
func (s *Service) seal(org string, ops []*op) error {
	for _, o := range ops {
		if o.written == nil {
			o.action = Deleted
			continue
		}
		if o.ring == nil {
			ring, err := s.ring(org, o.id)
			if err != nil {
				return err
			}
			o.ring = ring
		}
		// The written document is kept in clear no longer than it is needed.
		if err := o.ring.close(o.written); err != nil {
			return err
		}
		body, err := document.JSON(o.written)
		if err != nil {
			return err
		}
		o.body, o.ring = body, nil
		switch {
		case o.former == nil:
			o.action = Created
		case o.former.Project == o.project && bytes.Equal(o.former.Body, body):
			o.action = Unchanged
		default:
			o.action = Updated
		}
	}
	return nil
}

// write puts a plan into the store.
func (s *Service) write(ctx context.Context, tx *store.Tx, q request, p *plan) (*Result, error) {
	result := &Result{Organization: q.org, DryRun: q.options.DryRun, Changes: make([]Change, 0, len(p.ops))}
	uses := uses{}
	for _, o := range p.ops {
		c, err := o.change()
		if err != nil {
			return nil, err
		}
		result.Changes = append(result.Changes, c)
		if err := o.put(ctx, tx, q.org); err != nil {
			return nil, err
		}
		if err := uses.count(o); err != nil {
			return nil, err
		}
	}
	if err := uses.take(ctx, tx, q.org); err != nil {
		return nil, err
	}
	pending, err := s.pending(ctx, &tx.Reader, p)
	if err != nil {
		return nil, err
	}
	result.Pending = pending
	if result.Changed() == 0 {
		return result, nil
	}
	return result, record(ctx, tx, q, result)
}

func (o *op) key(org, project string) store.Key {
	return store.Key{Organization: org, Project: project, Kind: string(o.kind), Name: o.name}
}

func (o *op) put(ctx context.Context, tx *store.Tx, org string) error {
	at := o.project
	if o.former != nil {
		at = o.former.Project
	}
	former := o.key(org, at)
	switch {
	case o.action == Unchanged:
		return tx.Check(ctx, former, o.expect)
	case o.action == Deleted && o.former == nil && o.expect == store.Any:
		return fmt.Errorf("%s %s: %w", o.kind, o.name, store.ErrNotFound)
	case o.action == Deleted:
		return tx.Delete(ctx, former, o.expect)
	case at != o.project: // it moves to another project
		if err := tx.Delete(ctx, former, o.expect); err != nil {
			return err
		}
		_, err := tx.Put(ctx, o.key(org, o.project), o.body, store.Absent)
		return err
	}
	_, err := tx.Put(ctx, former, o.body, o.expect)
	return err
}

// change tells what differs, secrets by what stands for them.
func (o *op) change() (Change, error) {
	c := Change{Kind: o.kind, Name: o.name, Project: o.project, Action: o.action}
	if o.action == Unchanged {
		return c, nil
	}
	var before []byte
	if o.former != nil {
		before = o.former.Body
	}
	fields, err := fieldsOf(o.kind, before, o.body)
	c.Fields = fields
	return c, err
}

func fieldsOf(kind v1.Kind, before, after []byte) ([]Field, error) {
	var sides [2][]byte
	for i, body := range [][]byte{before, after} {
		if body == nil {
			continue
		}
		shown, err := Show(kind, body)
		if err != nil {
			return nil, err
		}
		sides[i] = shown
	}
	if before == nil || after == nil {
		return []Field{{Path: "", Before: sides[0], After: sides[1]}}, nil
	}
	list, err := store.DiffFields(sides[0], sides[1])
	if err != nil {
		return nil, err
	}
	fields := make([]Field, 0, min(len(list), maxFields))
	for _, f := range list[:min(len(list), maxFields)] {
		fields = append(fields, Field{f.Path, f.Before, f.After})
	}
	return fields, nil
}

// record writes the audit entry: which documents, not what is in them.
func record(ctx context.Context, tx *store.Tx, q request, r *Result) error {
	told := map[string]any{"documents": r.Changed()}
	var names []string
	for _, c := range r.Changes {
		if c.Action != Unchanged && len(names) < maxTold {
			names = append(names, string(c.Action)+" "+string(c.Kind)+" "+c.Name)
		}
	}
	told["changes"] = names
	details, err := json.Marshal(told)
	if err != nil {
		return fmt.Errorf("change: %w", err)
	}
	_, err = audit.Append(ctx, tx, audit.Entry{Organization: q.org, Actor: q.actor.String(), Action: q.action, Target: q.target, Reason: q.options.Reason, Details: details})
	return err
}
