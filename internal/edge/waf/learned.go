package waf

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/waf/learn"
	"github.com/relais-edge/relais/internal/snapshot"
)

// Learned is what the firewall learned of a site.
type Learned struct {
	Site string `json:"site"`
	// Orders of visitors with a basket since the start.
	Orders    uint64          `json:"orders"`
	Policies  []LearnedPolicy `json:"policies"`
	Proposals []Proposal      `json:"proposals"`
	Findings  []learn.Finding `json:"findings"`
}

// LearnedPolicy is a policy of the site in service.
type LearnedPolicy struct {
	Name     string            `json:"name"`
	Revision string            `json:"revision"`
	Spec     *v1.WafPolicySpec `json:"spec"`
}

// Proposal is an exclusion for a policy, with what speaks for it and what it loses.
type Proposal struct {
	Policy    string          `json:"policy"`
	Exclusion v1.WafExclusion `json:"exclusion"`
	// YAML is the exclusion as a line of the policy's exclusions.
	YAML string `json:"yaml"`
	Wide string `json:"wide,omitempty"`
	// Covered is how many of the buyers brought values of the exclusion's shapes only.
	Covered  int            `json:"covered,omitempty"`
	Evidence learn.Evidence `json:"evidence"`
	// Proof is nil until the exclusion was replayed (Prover).
	Proof *Proof `json:"proof,omitempty"`
}

// LearnedKeys lists the sites of which something is known.
func (s *Stage) LearnedKeys() []string {
	keys := s.book.Keys()
	slices.Sort(keys)
	return keys
}

// Learned returns what is known of a site.
func (s *Stage) Learned(site *snapshot.Site, now time.Time) *Learned {
	out := &Learned{Site: string(site.Key), Policies: []LearnedPolicy{}, Proposals: []Proposal{}, Findings: []learn.Finding{}}
	pt, _ := site.Parts[s.slot].(*part)
	if pt == nil || pt.memory == nil {
		return out
	}
	seen := map[string]bool{}
	for _, p := range pt.routes {
		if p == nil || seen[p.name] {
			continue
		}
		seen[p.name] = true
		out.Policies = append(out.Policies, LearnedPolicy{p.name, p.revision, site.Spec.WAF[p.name]})
		if !p.learning.on {
			continue
		}
		list := pt.memory.Proposals(now, p.name, p.learning.terms)
		for i := range list {
			if x := proposal(&list[i]); pt.engine.uncover(&x.Exclusion, site.Spec.WAF[p.name], now) {
				x.YAML = Line(&x.Exclusion)
				out.Proposals = append(out.Proposals, x)
			}
		}
	}
	slices.SortStableFunc(out.Policies, func(a, b LearnedPolicy) int { return cmp.Compare(a.Name, b.Name) })
	var findings []learn.Finding
	findings, out.Orders = pt.memory.Findings(now)
	out.Findings = append(out.Findings, findings...)
	return out
}

func proposal(p *learn.Proposal) Proposal {
	x := v1.WafExclusion{Target: p.Target, Shapes: p.Shapes, Path: p.Path, Exact: p.Exact, Methods: p.Methods}
	for _, r := range p.Rules {
		x.Rules = append(x.Rules, strconv.Itoa(r))
	}
	return Proposal{Policy: p.Policy, Exclusion: x, Wide: p.Wide, Covered: p.Covered, Evidence: p.Evidence}
}

// uncover takes the rules out of x that the policy excludes already where x would. It is false
// when none is left.
func (e *engine) uncover(x *v1.WafExclusion, spec *v1.WafPolicySpec, now time.Time) bool {
	for i := range spec.Exclusions {
		have := &spec.Exclusions[i]
		if !covers(have, x, now) {
			continue
		}
		ids, err := e.numbers(have.Rules, have.Tags)
		if err != nil {
			continue
		}
		x.Rules = slices.DeleteFunc(x.Rules, func(r string) bool {
			n, _ := strconv.Atoi(r)
			return slices.Contains(ids, n)
		})
	}
	return len(x.Rules) > 0
}

// covers says that have holds wherever x would, whatever their rules.
func covers(have, x *v1.WafExclusion, now time.Time) bool {
	switch {
	case have.Expires != nil && !now.Before(have.Expires.Time),
		have.Target != "" && !strings.EqualFold(have.Target, x.Target),
		have.Exact && (!x.Exact || have.Path != x.Path),
		len(have.Shapes) > 0 && (len(x.Shapes) == 0 || slices.ContainsFunc(x.Shapes, func(s string) bool { return !slices.Contains(have.Shapes, s) })):
		return false
	}
	if p := strings.TrimSuffix(have.Path, "/"); p != "" && !have.Exact && x.Path != p && !strings.HasPrefix(x.Path, p+"/") {
		return false
	}
	return len(have.Methods) == 0 || !slices.ContainsFunc(x.Methods, func(m string) bool { return !slices.Contains(have.Methods, m) })
}
