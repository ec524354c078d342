// Package change is the one way by which documents change: decoded strictly, allowed, in bounds, counted, compiled with all
// that belongs to the organization, and written with history and audit in one transaction, or not at all.
package change

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/compile"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
	"github.com/relais-edge/relais/internal/document"
)

// Bounds.
const (
	// MaxDocuments that one change takes.
	MaxDocuments = 2000
	// maxTold are the documents that an audit entry names.
	maxTold = 100
	// maxFields of a document's difference are told.
	maxFields = 200
)

// Metrics of plans that are counted here, beside tenant.MetricSites and tenant.MetricDocuments.
const (
	// MetricRules counts routes of Sites, exclusions of WafPolicies, and RateLimits.
	MetricRules = "rules"
)

// Config is what a Service is made of.
type Config struct {
	Store  tenant.Store
	Tenant *tenant.Service
	Vault  *secret.Vault
	// Compile finds what is wrong between documents; nil: compile.Compile. It does not change them.
	Compile func([]v1.Document) []compile.Problem
	// Unserved are kinds that nothing puts in service, each with why: who writes one would wait for what never happens.
	Unserved map[v1.Kind]string
}

// Service changes and reads documents.
type Service struct{ Config }

// New makes a Service.
func New(c Config) *Service {
	if c.Compile == nil {
		c.Compile = func(docs []v1.Document) []compile.Problem {
			_, problems := compile.Compile(docs)
			return problems
		}
	}
	return &Service{c}
}

// Options say how a change is made.
type Options struct {
	// DryRun checks everything, tells what would change, and changes nothing.
	DryRun bool
	// Reason stands in the revision and in the audit log.
	Reason string
	// Expect is the revision at which every document is expected, beside what metadata.revision of each says; nil: any.
	// store.Absent: none of them exists.
	Expect *store.Expect
	// Prune deletes what exists and is not given, of the kinds that are documents: the organization then has exactly these.
	Prune bool
	// Also runs in the transaction, once everything is written.
	Also func(ctx context.Context, tx *store.Tx, r *Result) error
}

// Ref names a document, at a revision where that is not 0.
type Ref struct {
	Kind     v1.Kind
	Name     string
	Revision int64
}

// Action is what a change does to a document.
type Action string

// The actions.
const (
	Created   Action = "created"
	Updated   Action = "updated"
	Deleted   Action = "deleted"
	Unchanged Action = "unchanged"
)

// Field is a field that differs. Secrets are shown by what stands for them, never by what they are.
type Field struct {
	Path   string          `json:"path" doc:"JSON pointer (RFC 6901)"`
	Before json.RawMessage `json:"before,omitempty" doc:"Absent: it was not there"`
	After  json.RawMessage `json:"after,omitempty" doc:"Absent: it is not there"`
}

// Change is what becomes of a document.
type Change struct {
	Kind    v1.Kind `json:"kind"`
	Name    string  `json:"name"`
	Project string  `json:"project,omitempty"`
	Action  Action  `json:"action" enum:"created,updated,deleted,unchanged"`
	Fields  []Field `json:"fields,omitempty" doc:"What differs; at most 200"`
}

// Pending is a host name that is not served, because the organization has not proved that it is its own.
type Pending struct {
	Site     string `json:"site"`
	Hostname string `json:"hostname"`
	Fix      string `json:"fix"`
}

// Result is what a change did, or would do.
type Result struct {
	Organization string    `json:"organization"`
	Revision     int64     `json:"revision" doc:"Of the organization after the change; the present one where nothing changed or in a dry run"`
	DryRun       bool      `json:"dryRun,omitempty"`
	Changes      []Change  `json:"changes"`
	Pending      []Pending `json:"pending,omitempty" doc:"Host names that are not served before they are proved"`
}

// Changed counts the documents that are not as before.
func (r *Result) Changed() (n int) {
	for _, c := range r.Changes {
		if c.Action != Unchanged {
			n++
		}
	}
	return n
}

// ProblemsError says what is wrong with documents; nothing was changed.
type ProblemsError struct{ Problems []document.Problem }

// Error tells the first one.
func (e *ProblemsError) Error() string {
	if len(e.Problems) == 0 {
		return "the documents are wrong"
	}
	s := strings.TrimPrefix(e.Problems[0].String(), ": ")
	if n := len(e.Problems) - 1; n > 0 {
		s += fmt.Sprintf(" (and %d more)", n)
	}
	return s
}

// errDryRun ends a transaction that shall change nothing.
var errDryRun = errors.New("dry run")

// Apply makes or changes documents. Their organization is org, or absent.
func (s *Service) Apply(ctx context.Context, actor tenant.Actor, org string, files []document.File, o Options) (*Result, error) {
	return s.run(ctx, request{actor: actor, org: org, action: "documents.apply", options: o, ops: func(st *state) ([]*op, error) {
		return s.decode(st, files, o)
	}})
}

// Delete removes documents. What others still name cannot be removed.
func (s *Service) Delete(ctx context.Context, actor tenant.Actor, org string, refs []Ref, o Options) (*Result, error) {
	return s.run(ctx, request{actor: actor, org: org, action: "documents.delete", options: o, ops: func(st *state) ([]*op, error) {
		ops := make([]*op, 0, len(refs))
		for _, r := range refs {
			expect := store.Any
			if r.Revision > 0 {
				expect = store.Expect(r.Revision)
			}
			if o.Expect != nil {
				expect = *o.Expect
			}
			x := &op{id: id{r.Kind, r.Name}, expect: expect, index: -1, former: st.docs[id{r.Kind, r.Name}]}
			if x.former != nil {
				x.project = x.former.Project
			}
			ops = append(ops, x)
		}
		return ops, nil
	}})
}

// Rollback makes the organization's documents again what they were at a revision, as a new one. Users, roles and whatever
// else is not a document stay as they are.
func (s *Service) Rollback(ctx context.Context, actor tenant.Actor, org string, to int64, o Options) (*Result, error) {
	if o.Reason == "" {
		o.Reason = fmt.Sprintf("back to revision %d", to)
	}
	return s.run(ctx, request{actor: actor, org: org, action: "documents.rollback", options: o, revert: true, target: fmt.Sprint(to), ops: func(st *state) ([]*op, error) {
		return s.former(ctx, st, to)
	}})
}
