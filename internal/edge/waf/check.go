package waf

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// Problem is an exclusion that does nothing, or everything, by the rules that there are.
type Problem struct {
	Site   string
	Policy string
	Field  string // such as spec.exclusions[0].rules[1]
	What   string
	Fix    string
}

// String is the problem in one line.
func (p *Problem) String() string {
	return fmt.Sprintf("WafPolicy %s: %s %s; %s", p.Policy, p.Field, p.What, p.Fix)
}

// Check looks for exclusions in b that match nothing or everything: rules, tags and targets that
// the rule set does not know or look at. Documents cannot say so themselves, because the rule set
// changes with the program; for the same reason such a document is served all the same. It looks
// at up to most exclusions, each policy of an organization once.
func (t *Trial) Check(b *bundle.Bundle, most int) (out []Problem) {
	seen := map[*v1.WafPolicySpec]bool{}
	for _, site := range b.Sites {
		for _, name := range slices.Sorted(maps.Keys(site.WAF)) {
			spec := site.WAF[name]
			if seen[spec] {
				continue
			}
			seen[spec] = true
			for field, list := range exclusionsOf(spec) {
				for i := range list {
					if most--; most < 0 {
						return out
					}
					for _, p := range t.engine.check(&list[i]) {
						p.Site, p.Policy, p.Field = string(site.Key), name, fmt.Sprintf("spec.%s[%d]%s", field, i, p.Field)
						out = append(out, p)
					}
				}
			}
		}
	}
	return out
}

// exclusionsOf lists the exclusions of a policy by the field that they are in.
func exclusionsOf(spec *v1.WafPolicySpec) iter.Seq2[string, []v1.WafExclusion] {
	return func(yield func(string, []v1.WafExclusion) bool) {
		if yield("exclusions", spec.Exclusions) && spec.Candidate != nil {
			yield("candidate.exclusions", spec.Candidate.Exclusions)
		}
	}
}

// Check looks for such exclusions in a bundle that is in service.
func (s *Stage) Check(b *bundle.Bundle, most int) []Problem {
	s.mu.Lock()
	e := s.engine
	s.mu.Unlock()
	if e == nil { // no policy is in force
		return nil
	}
	return (&Trial{e}).Check(b, most)
}

// Excludes says whether a policy of b has exclusions, so that there is something to check.
func Excludes(b *bundle.Bundle) bool {
	for _, site := range b.Sites {
		for _, spec := range site.WAF {
			for _, list := range exclusionsOf(spec) {
				if len(list) > 0 {
					return true
				}
			}
		}
	}
	return false
}

func (e *engine) check(x *v1.WafExclusion) (out []Problem) {
	add := func(field, what, fix string) { out = append(out, Problem{Field: field, What: what, Fix: fix}) }
	for i, r := range x.Rules {
		ids, err := e.numbers([]string{r}, nil)
		switch {
		case err != nil:
			add(fmt.Sprintf(".rules[%d]", i), err.Error(), "write an id or a range")
		case len(ids) == 0:
			add(fmt.Sprintf(".rules[%d]", i), fmt.Sprintf("%q is no detection rule of %s, so it excludes nothing", r, e.version), "look the id up with relais explain, or remove it")
		}
	}
	for i, g := range x.Tags {
		if ids, _ := e.numbers(nil, []string{g}); len(ids) == 0 {
			add(fmt.Sprintf(".tags[%d]", i), fmt.Sprintf("%q is on no detection rule of %s, so it excludes nothing", g, e.version), "write one such as attack-sqli")
		}
	}
	ids, err := e.numbers(x.Rules, x.Tags)
	if err != nil || len(ids) == 0 {
		return out
	}
	if x.Target == "" {
		if len(ids) == len(e.rules) {
			add("", "takes every rule out of force", "name fewer rules or a target; to look at nothing, write mode: off in a policy for that route")
		}
		return out
	}
	v, key, rx, err := parseTarget(x.Target)
	if err != nil {
		add(".target", err.Error(), "write one such as ARGS:description")
		return out
	}
	for i, s := range x.Shapes {
		if !isShape(s) {
			fix := "write it as relais waf proposals does"
			if is := shapeOf(s); is != "" {
				fix = "write " + quoted(is)
			}
			add(fmt.Sprintf(".shapes[%d]", i), fmt.Sprintf("%q is the shape of no value", s), fix)
		}
	}
	looks := slices.ContainsFunc(ids, func(id int) bool { return slices.Contains(e.rule(id).variables, v.Name()) })
	switch {
	case !looks:
		add(".target", fmt.Sprintf("none of the rules looks at %s, so it excludes nothing%s", v.Name(), instead(v.Name())), "write the target as relais explain shows it")
	case rx != nil && rx.MatchString("") && rx.MatchString("a") && rx.MatchString("zz.9-"):
		add(".target", fmt.Sprintf("%q holds for every name", x.Target), "write "+v.Name()+" alone if that is meant")
	case key == "" && rx == nil && len(ids) == len(e.rules) && (x.Path == "" || x.Path == "/"):
		add(".target", "is out of force for every rule, name and path", "name the argument, the rules or a path")
	}
	return out
}

// numbers lists the detection rules with one of the ids or of the tags; all when there are none.
func (e *engine) numbers(rules, tags []string) ([]int, error) {
	set, err := e.pick(rules, tags)
	if err != nil {
		return nil, err
	}
	var ids []int
	for i := range set.All() {
		ids = append(ids, e.rules[i].id)
	}
	return ids, nil
}

// instead names the variable that is meant by another one.
func instead(name string) string {
	if base, ok := strings.CutSuffix(strings.TrimSuffix(name, "_NAMES"), "_GET"); ok {
		return "; the rules look at " + base
	}
	if base, ok := strings.CutSuffix(strings.TrimSuffix(name, "_NAMES"), "_POST"); ok {
		return "; the rules look at " + base
	}
	return ""
}
