package waf

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/stage"

	"github.com/corazawaf/coraza/v3/types/variables"
)

// policy is a compiled WafPolicy: the overlay on the engine. It does not change.
type policy struct {
	gate       stage.Gate
	paranoia   []string // as the rule set reads it
	threshold  []string
	bodyBytes  int
	reject     bool // a body beyond bodyBytes
	exclusions []exclusion
}

// exclusion takes rules, or a target of them, out of the transactions in its scope.
type exclusion struct {
	scope   stage.Scope
	expires int64 // Unix time in nanoseconds
	all     bool  // nothing is examined
	rules   []int
	// targets are the rules of which only the target goes.
	targets  []int
	variable variables.RuleVariable
	key      string
	keyRx    *regexp.Regexp
}

// maxBody is the most that a document may have examined.
const maxBody = 16 << 20

func (e *engine) compile(spec *v1.WafPolicySpec) (*policy, error) {
	paranoia, threshold, body := max(spec.Paranoia, 1), spec.InboundThreshold, v1.Value(spec.BodyBytes)
	if threshold == 0 {
		threshold = 5
	}
	switch {
	case paranoia > 4:
		return nil, fmt.Errorf("paranoia is %d; write a number from 1 to 4", paranoia)
	case threshold < 1:
		return nil, fmt.Errorf("inboundThreshold is %d; write at least 1", threshold)
	case body < 0 || body > maxBody:
		return nil, fmt.Errorf("bodyBytes is %s; write at most 16MiB", body)
	}
	p := &policy{
		gate:      stage.NewGate(spec.Protection),
		paranoia:  []string{strconv.Itoa(paranoia)},
		threshold: []string{strconv.Itoa(threshold)},
		bodyBytes: int(body),
		reject:    spec.Oversize == "reject",
	}
	for i := range spec.Exclusions {
		x, err := e.exclusion(&spec.Exclusions[i])
		if err != nil {
			return nil, fmt.Errorf("exclusions[%d]: %w", i, err)
		}
		p.exclusions = append(p.exclusions, x)
	}
	return p, nil
}

func (e *engine) exclusion(spec *v1.WafExclusion) (exclusion, error) {
	x := exclusion{scope: stage.NewScope(spec.Path, spec.Methods), expires: math.MaxInt64}
	if spec.Expires != nil {
		x.expires = spec.Expires.UnixNano()
	}
	ids, err := e.pick(spec.Rules, spec.Tags)
	if err != nil {
		return x, err
	}
	if spec.Target == "" {
		x.rules = ids
		x.all = len(spec.Rules) == 0 && len(spec.Tags) == 0
		return x, nil
	}
	if x.variable, x.key, x.keyRx, err = parseTarget(spec.Target); err != nil {
		return x, err
	}
	x.targets = ids
	return x, nil
}

// pick lists the detection rules with one of the ids or of the tags; all when there are none.
func (e *engine) pick(rules, tags []string) ([]int, error) {
	ranges := make([][2]int, len(rules))
	for i, s := range rules {
		from, to, ok := strings.Cut(s, "-")
		if !ok {
			to = from
		}
		a, err1 := strconv.Atoi(strings.TrimSpace(from))
		b, err2 := strconv.Atoi(strings.TrimSpace(to))
		if err1 != nil || err2 != nil || a < 1 || a > b {
			return nil, fmt.Errorf("rules[%d]: %q is not a rule; write an id or a range, such as 942100 or 942100-942199", i, s)
		}
		ranges[i] = [2]int{a, b}
	}
	every := len(rules) == 0 && len(tags) == 0
	return e.find(func(r *rule) bool {
		return every ||
			slices.ContainsFunc(ranges, func(g [2]int) bool { return r.id >= g[0] && r.id <= g[1] }) ||
			slices.ContainsFunc(tags, func(t string) bool { return slices.Contains(r.tags, t) })
	}), nil
}

// parseTarget reads VARIABLE, VARIABLE:key or VARIABLE:/expression/.
func parseTarget(s string) (v variables.RuleVariable, key string, rx *regexp.Regexp, err error) {
	name, key, has := strings.Cut(s, ":")
	if v, err = variables.Parse(strings.ToUpper(name)); err != nil {
		return v, "", nil, fmt.Errorf("target %q: there is no variable %s; write one as the trail shows it, such as ARGS:description or REQUEST_COOKIES:prefs", s, name)
	}
	if !has {
		return v, "", nil, nil
	}
	if key == "" {
		return v, "", nil, fmt.Errorf("target %q has a colon and no name after it", s)
	}
	if n := len(key); n > 1 && key[0] == '/' && key[n-1] == '/' {
		if rx, err = regexp.Compile("(?i)" + key[1:n-1]); err != nil || n == 2 {
			return v, "", nil, errors.Join(fmt.Errorf("target %q does not hold an expression between its slashes", s), err)
		}
		return v, "", rx, nil
	}
	return v, strings.ToLower(key), nil, nil
}

// apply puts the overlay for x on a transaction.
func (p *policy) apply(tx transaction, x *stage.Exchange) {
	vars := tx.Variables().TX()
	vars.Set("blocking_paranoia_level", p.paranoia)
	vars.Set("detection_paranoia_level", p.paranoia)
	vars.Set("inbound_anomaly_score_threshold", p.threshold)
	for i := range p.exclusions {
		e := &p.exclusions[i]
		if !e.holds(x) {
			continue
		}
		for _, id := range e.rules {
			tx.RemoveRuleByID(id)
		}
		for _, id := range e.targets {
			tx.RemoveRuleTargetByID(id, e.variable, e.key, e.keyRx)
		}
	}
}

func (e *exclusion) holds(x *stage.Exchange) bool {
	return (e.expires == math.MaxInt64 || x.Start.UnixNano() < e.expires) && e.scope.Holds(x)
}

// excluded says whether x is not examined at all.
func (p *policy) excluded(x *stage.Exchange) bool {
	for i := range p.exclusions {
		if e := &p.exclusions[i]; e.all && e.holds(x) {
			return true
		}
	}
	return false
}
