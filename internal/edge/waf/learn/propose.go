package learn

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Evidence is what is known of a finding, or of several together.
type Evidence struct {
	// Buyers are visitors who ordered after a hit, each from another network; Refused those of
	// them whose request was denied, or would have been, with an order that the origin named.
	Buyers  int `json:"buyers"`
	Refused int `json:"refused"`
	// Baskets are visitors with a basket who were hit.
	Baskets int `json:"baskets"`
	// Hits are requests of everybody, Denied those that the score refused, or would have, and
	// Networks about how many networks they came from.
	Hits     uint64    `json:"hits"`
	Denied   uint64    `json:"denied"`
	Networks int       `json:"networks"`
	Score    int       `json:"score"` // the most that a rule added
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
}

// Finding is what is known of a rule at a place.
type Finding struct {
	Key
	Evidence
	Demoted *time.Time `json:"demotedUntil,omitempty"`
}

// Proposal is an exclusion that the evidence asks for.
type Proposal struct {
	Policy string `json:"policy"`
	Rules  []int  `json:"rules"`
	Target string `json:"target,omitempty"`
	// Shapes are those of the values that buyers brought; empty when they have none in common.
	Shapes []string `json:"shapes,omitempty"`
	// Covered is how many of the buyers brought values of these shapes only.
	Covered int      `json:"covered,omitempty"`
	Path    string   `json:"path"`
	Exact   bool     `json:"exact,omitempty"` // the path itself, not what lies below
	Methods []string `json:"methods"`
	// Wide says why the exclusion is wider than a rule, a target and a path; empty when it is not.
	Wide     string   `json:"wide,omitempty"`
	Evidence Evidence `json:"evidence"`
}

// Findings lists what is known, those with most buyers first, and how many orders there were.
func (s *Site) Findings(now time.Time) (list []Finding, orders uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.findings {
		f.prune(now)
		x := Finding{Key: f.key, Evidence: f.evidence()}
		if now.Before(f.demoted) {
			at := f.demoted
			x.Demoted = &at
		}
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b Finding) int {
		return cmp.Or(b.Buyers-a.Buyers, cmp.Compare(b.Hits, a.Hits), strings.Compare(a.Policy, b.Policy), strings.Compare(a.Path, b.Path), a.Rule-b.Rule, strings.Compare(a.Target, b.Target), strings.Compare(a.Method, b.Method))
	})
	return list, s.orders
}

func (f *finding) evidence() Evidence {
	all, refused := f.behind(time.Time{})
	return Evidence{
		Buyers: all, Refused: refused, Baskets: f.baskets + f.basketsBefore, Hits: f.hits, Denied: f.denied,
		Networks: f.networks.about(), Score: f.score, First: f.first, Last: f.last,
	}
}

// Proposals lists the exclusions of a policy that the evidence asks for by t, the narrowest that do: a rule,
// a target, a path and a method; of several paths that lie below one only when none of them has
// buyers enough alone. Rules with the same scope are one exclusion.
func (s *Site) Proposals(now time.Time, policy string, t Terms) (out []Proposal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	type group struct {
		rule           int
		target, method string
	}
	rest := map[group][]*finding{}
	for _, f := range s.findings {
		f.prune(now)
		if f.denied == 0 || f.key.Policy != policy {
			continue // below the threshold: it costs nobody anything
		}
		if len(f.buyers) >= t.Buyers && f.share() >= t.Share {
			out = append(out, f.propose(t))
		} else if len(f.buyers) > 0 {
			g := group{f.key.Rule, f.key.Target, f.key.Method}
			rest[g] = append(rest[g], f)
		}
	}
	for _, list := range rest {
		if p, ok := together(list, t); ok {
			out = append(out, p)
		}
	}
	out = join(out, func(a, b *Proposal) bool {
		return alike(a, b) && slices.Equal(a.Methods, b.Methods)
	})
	return join(out, func(a, b *Proposal) bool {
		return alike(a, b) && slices.Equal(a.Rules, b.Rules)
	})
}

// alike says whether two proposals may become one: both hold for the same place and target, and either both for every value or both for some
// shapes, not too many.
func alike(a, b *Proposal) bool {
	return a.Policy == b.Policy && a.Target == b.Target && a.Path == b.Path && a.Exact == b.Exact &&
		(len(a.Shapes) == 0) == (len(b.Shapes) == 0) && len(union(a.Shapes, b.Shapes)) <= MaxProposed
}

const (
	wideTarget = "no target can be named, so the rules are out for the whole request"
	widePath   = "the buyers came by several paths, so it holds for what lies below their common one"
	wideID     = "the path holds an id, so it holds for all below"
	wideShape  = "what the buyers wrote has no shape in common, so it holds for every value"
	wideSite   = "the paths have nothing in common, so it holds for the whole site"
)

func (f *finding) propose(t Terms) Proposal {
	path, exact, whole := Scope(f.key.Path)
	p := Proposal{
		Policy: f.key.Policy, Rules: []int{f.key.Rule}, Target: f.key.Target, Path: path, Exact: exact,
		Methods: []string{f.key.Method}, Evidence: f.evidence(),
	}
	switch {
	case whole:
		p.Wide = wideSite
	case f.key.Target == "":
		p.Wide = wideTarget
	case !exact:
		p.Wide = wideID
	}
	if f.key.Target == "" {
		return p
	}
	if shapes, covered := f.recurring(); covered >= t.Buyers {
		p.Shapes, p.Covered = shapes, covered
	} else if p.Wide == "" {
		p.Wide = wideShape
	}
	return p
}

// together is the proposal of findings that differ in the path alone.
func together(list []*finding, t Terms) (Proposal, bool) {
	slices.SortFunc(list, func(a, b *finding) int { return strings.Compare(a.key.Path, b.key.Path) })
	var all finding
	all.key = list[0].key
	all.first = list[0].first
	for _, f := range list {
		for _, b := range f.buyers {
			all.bought(b)
		}
		all.join(f)
		all.hits += f.hits
		all.denied += f.denied
		all.baskets += f.baskets + f.basketsBefore
		all.score = max(all.score, f.score)
		for i := range all.networks {
			all.networks[i] |= f.networks[i]
		}
		if f.first.Before(all.first) {
			all.first = f.first
		}
		if f.last.After(all.last) {
			all.last = f.last
		}
		all.key.Path = common(all.key.Path, f.key.Path)
	}
	if len(list) < 2 || len(all.buyers) < t.Buyers || all.share() < t.Share {
		return Proposal{}, false
	}
	p := all.propose(t)
	p.Exact = false
	if p.Wide == "" || p.Wide == wideID {
		p.Wide = widePath
	}
	return p, true
}

// common is the longest path, by elements, below which both lie, as a pattern.
func common(a, b string) string {
	if a == b {
		return a
	}
	x, y := strings.Split(strings.TrimSuffix(a, "/*"), "/"), strings.Split(strings.TrimSuffix(b, "/*"), "/")
	n := 0
	for n < len(x) && n < len(y) && x[n] == y[n] && x[n] != "*" {
		n++
	}
	return strings.Join(x[:n], "/") + "/*"
}

// join makes one of proposals that are alike, adding their rules and methods; the evidence is
// that of the one with fewest buyers, so that it says too little rather than too much.
func join(list []Proposal, alike func(a, b *Proposal) bool) (out []Proposal) {
	slices.SortFunc(list, func(a, b Proposal) int {
		return cmp.Or(b.Evidence.Buyers-a.Evidence.Buyers, strings.Compare(a.Policy, b.Policy), strings.Compare(a.Path, b.Path), strings.Compare(a.Target, b.Target), slices.Compare(a.Rules, b.Rules), slices.Compare(a.Methods, b.Methods))
	})
next:
	for i := range list {
		p := &list[i]
		for j := range out {
			if o := &out[j]; alike(o, p) {
				o.Rules = union(o.Rules, p.Rules)
				o.Shapes, o.Covered = union(o.Shapes, p.Shapes), min(o.Covered, p.Covered)
				o.Methods = union(o.Methods, p.Methods)
				e := p.Evidence
				e.First, e.Last = earlier(o.Evidence.First, e.First), later(o.Evidence.Last, e.Last)
				o.Evidence = e
				continue next
			}
		}
		out = append(out, *p)
	}
	return out
}

func union[T cmp.Ordered](a, b []T) []T {
	a = append(slices.Clone(a), b...)
	slices.Sort(a)
	return slices.Compact(a)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
