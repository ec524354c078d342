package change

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/claim"
	"github.com/relais-edge/relais/internal/document"
)

// operatorOnly are kinds that open ports, name places or move changes: they are of the operator's organization alone.
func operatorOnly(k v1.Kind) bool {
	switch k {
	case v1.KindListener, v1.KindService, v1.KindPop, v1.KindPlacement, v1.KindRolloutPolicy:
		return true
	}
	return false
}

// permit asks whether the actor may do all of it, and holds it against the guardrails. It is asked again in the
// transaction: a right may be gone by then.
func (s *Service) permit(ctx context.Context, r *store.Reader, q request, p *plan) error {
	for _, o := range p.ops {
		for _, a := range o.accesses(q) {
			if err := s.Tenant.Authorize(ctx, r, q.actor, a); err != nil {
				return err
			}
		}
	}
	rails, err := tenant.LoadRails(ctx, r, q.org)
	if err != nil {
		return err
	}
	var problems []document.Problem
	for _, o := range p.ops {
		if o.doc == nil || o.action == Unchanged {
			continue
		}
		body, err := json.Marshal(o.doc)
		if err != nil {
			return fmt.Errorf("change: %w", err)
		}
		list, err := rails.Check(string(o.kind), body)
		if err != nil {
			return err
		}
		for _, v := range list {
			problems = append(problems, o.problem(v.Path, v.Why, "keep to the bounds that "+v.Organization+" has set"))
		}
		if o.project != "" {
			there, err := tenant.HasProject(ctx, r, q.org, o.project)
			if err != nil {
				return err
			}
			if !there {
				problems = append(problems, o.problem("metadata.project", fmt.Sprintf("there is no project %q", o.project), "make it first, or leave the field out"))
			}
		}
	}
	if len(problems) > 0 {
		return &ProblemsError{problems}
	}
	return nil
}

func (o *op) accesses(q request) []tenant.Access {
	verb := tenant.VerbWrite
	switch {
	case q.revert:
		verb = tenant.VerbRevert
	case o.doc == nil:
		verb = tenant.VerbDelete
	}
	list := []tenant.Access{{Verb: verb, Kind: string(o.kind), Organization: q.org, Project: o.project}}
	if o.former != nil && o.former.Project != o.project {
		list = append(list, tenant.Access{Verb: tenant.VerbDelete, Kind: string(o.kind), Organization: q.org, Project: o.former.Project})
	}
	return list
}

// problem is of a document of the change; the path may be of JSON, with dots before indexes.
func (o *op) problem(path, what, fix string) document.Problem {
	v := v1.Problem{Field: bracketed(path), What: what, Fix: fix}
	if o.index >= 0 {
		return o.set.Place(o.index, v)
	}
	return document.Problem{Document: string(o.kind) + " " + o.name, Field: v.Field, What: what, Fix: fix}
}

// bracketed writes spec.routes.0.pool as spec.routes[0].pool.
func bracketed(path string) string {
	parts := strings.Split(path, ".")
	out := parts[0]
	for _, p := range parts[1:] {
		if p != "" && strings.Trim(p, "0123456789") == "" {
			out += "[" + p + "]"
			continue
		}
		out += "." + p
	}
	return out
}

// check finds what is wrong with the documents as they would be.
func (s *Service) check(ctx context.Context, r *store.Reader, p *plan) error {
	var problems []document.Problem
	for _, o := range p.ops {
		if o.doc == nil || o.action == Unchanged {
			continue
		}
		problems = append(problems, o.rules(p.state)...)
		if why, is := s.Unserved[o.kind]; is {
			problems = append(problems, o.problem("kind", "is "+string(o.kind)+", which this control plane does not put in service", why))
		}
		if o.index < 0 { // it was valid once, perhaps to an older program
			for _, v := range v1.Validate(o.doc) {
				problems = append(problems, o.problem(v.Field, v.What, v.Fix))
			}
		}
	}
	if len(problems) > 0 {
		return &ProblemsError{problems}
	}
	docs, err := p.state.after(p.ops)
	if err != nil {
		return err
	}
	from := map[v1.Document]*op{}
	for _, o := range p.ops {
		if o.doc != nil {
			from[o.doc] = o
		}
	}
	for _, f := range s.Compile(docs) {
		if o := from[f.Document]; o != nil {
			problems = append(problems, o.problem(f.Field, f.What, f.Fix))
			continue
		}
		kind, m := f.Document.Meta()
		problems = append(problems, document.Problem{Document: string(kind) + " " + m.Organization + "/" + m.Name, Field: f.Field, What: f.What, Fix: f.Fix})
	}
	problems = append(problems, switches(docs, from)...)
	used, err := listenersInUse(ctx, r, p)
	if err != nil {
		return err
	}
	if problems = append(problems, used...); len(problems) > 0 {
		return &ProblemsError{problems}
	}
	return nil
}

// rules are those of who may write what, which a document by itself does not know.
func (o *op) rules(st *state) (problems []document.Problem) {
	_, m := o.doc.Meta()
	if m.Organization != st.org {
		problems = append(problems, o.problem("metadata.organization", fmt.Sprintf("is %q, and the request is for %q", m.Organization, st.org), "leave it out, or ask for the other organization"))
	}
	if st.operator() {
		return problems
	}
	if operatorOnly(o.kind) {
		problems = append(problems, o.problem("kind", string(o.kind)+" opens ports, names places or moves changes, which only the operator's organization may", "use what the operator offers: sites are served on its Listeners"))
	}
	v1.Walk(o.written, func(path string, f *v1.Field, _ reflect.Value) {
		if f.Local {
			problems = append(problems, o.problem(path, "names something of the machine or the network that serves, which only the operator's organization may", "leave it out"))
		}
	})
	if k, is := o.doc.(*v1.KillSwitch); is && k.Spec.Everywhere {
		problems = append(problems, o.problem("spec.everywhere", "only the operator's switches may be everywhere", "leave it out; the switch holds for the sites of your organization"))
	}
	return problems
}

// switches finds KillSwitches that name sites that there are not.
func switches(docs []v1.Document, from map[v1.Document]*op) (problems []document.Problem) {
	sites := map[string]bool{}
	for _, d := range docs {
		if kind, m := d.Meta(); kind == v1.KindSite {
			sites[m.Name] = true
		}
	}
	for _, d := range docs {
		k, is := d.(*v1.KillSwitch)
		if !is {
			continue
		}
		for i, n := range k.Spec.Sites {
			if sites[n] {
				continue
			}
			o := from[d]
			if o == nil {
				o = &op{id: id{v1.KindKillSwitch, k.Metadata.Name}, index: -1}
			}
			problems = append(problems, o.problem(fmt.Sprintf("spec.sites[%d]", i), fmt.Sprintf("there is no Site %q", n), "name one that there is, or take the name out"))
		}
	}
	return problems
}

// listenersInUse finds sites of other organizations that name a Listener that would go.
func listenersInUse(ctx context.Context, r *store.Reader, p *plan) (problems []document.Problem, err error) {
	gone := map[string]*op{}
	for _, o := range p.ops {
		if o.kind == v1.KindListener && o.doc == nil && o.former != nil {
			gone[o.name] = o
		}
	}
	if len(gone) == 0 || !p.state.operator() {
		return nil, nil
	}
	err = each(ctx, r, store.Query{Kind: string(v1.KindSite)}, func(d store.Document) error {
		if d.Organization == p.state.org {
			return nil // compile has looked
		}
		doc, err := typed(d.Kind, d.Body)
		if err != nil {
			return err
		}
		site, _ := doc.(*v1.Site)
		names := slices.Clone(site.Spec.Listeners)
		for _, r := range site.Spec.Routes {
			names = append(names, r.Listeners...)
		}
		for _, n := range names {
			if o := gone[n]; o != nil {
				problems = append(problems, o.problem("metadata.name", "Site "+d.Organization+"/"+d.Name+" is served on it", "let that site name another Listener first"))
				delete(gone, n)
			}
		}
		return nil
	})
	return problems, err
}

// uses is what a change takes of the plans, or gives back.
type uses map[string]int64

func (u uses) count(o *op) error {
	if o.action == Unchanged {
		return nil
	}
	for i, body := range [][]byte{o.formerBody(), o.body} {
		if body == nil {
			continue
		}
		d, err := typed(string(o.kind), body)
		if err != nil {
			return err
		}
		sign := int64(2*i - 1)
		u[tenant.MetricDocuments] += sign
		switch d := d.(type) {
		case *v1.Site:
			u[tenant.MetricSites] += sign
			u[MetricRules] += sign * int64(len(d.Spec.Routes))
		case *v1.WafPolicy:
			u[MetricRules] += sign * int64(len(d.Spec.Exclusions))
		case *v1.RateLimit:
			u[MetricRules] += sign
		}
	}
	return nil
}

func (o *op) formerBody() []byte {
	if o.former == nil {
		return nil
	}
	return o.former.Body
}

func (u uses) take(ctx context.Context, tx *store.Tx, org string) error {
	for _, metric := range []string{tenant.MetricDocuments, tenant.MetricSites, MetricRules} {
		if _, err := tenant.Use(ctx, tx, org, metric, u[metric]); err != nil {
			return err
		}
	}
	return nil
}

// pending lists the host names of changed sites that are not proved.
func (s *Service) pending(ctx context.Context, r *store.Reader, p *plan) (list []Pending, err error) {
	for _, o := range p.ops {
		site, is := o.doc.(*v1.Site)
		if !is {
			continue
		}
		for _, h := range site.Spec.Hostnames {
			ok, fix, err := mayServe(ctx, r, p.state.org, p.state.operator(), h)
			if err != nil {
				return nil, err
			}
			if !ok {
				list = append(list, Pending{o.name, h, fix})
			}
		}
	}
	return list, nil
}

// mayServe says whether an organization's sites are served under a name: it proved it, or it is the operator and nobody
// else did.
func mayServe(ctx context.Context, r *store.Reader, org string, operator bool, pattern string) (ok bool, fix string, err error) {
	if operator {
		if strings.HasPrefix(pattern, "*") {
			return true, "", nil // a name that somebody proved is more exact, and so comes first
		}
		holder, err := claim.Holder(ctx, r, pattern)
		if errors.Is(err, claim.ErrName) {
			return true, "", nil // such as localhost, which nobody can claim
		}
		return holder == "" || holder == org, "another organization has proved that it is its own", err
	}
	ok, err = claim.May(ctx, r, org, pattern)
	if errors.Is(err, claim.ErrName) {
		return false, "no name that can be proved; only the operator's sites may have it", nil
	}
	return ok, "claim it (relais claim create " + pattern + "), publish the proof that the answer names, and prove it (relais claim prove " + pattern + ")", err
}
