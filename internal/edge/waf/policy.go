package waf

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/waf/screen"
	"github.com/relais-edge/relais/internal/stage"

	"github.com/corazawaf/coraza/v3/types/variables"
)

// policy is a compiled WafPolicy: the overlay on the engine. It does not change.
type policy struct {
	gate        stage.Gate
	blocking    []string // levels, as the rule set reads them
	detection   []string
	threshold   []string
	outbound    []string // the threshold of answers
	bodyBytes   int
	answerBytes int           // 0: answers are not examined
	reject      bool          // a body beyond bodyBytes
	open        bool          // what cannot be judged passes
	cpu         time.Duration // of evaluations in a second
	bounded     bool          // what is beyond it is not evaluated
	spent       *spent
	rules       []ownRule
	exclusions  []exclusion
	shaped      []shaped       // exclusions that ask for the shape of a value
	screen      *screen.Screen // nil: every request is the engine's
	learning    learning
	candidate   *candidate // what may follow; nil for nothing
	name        string     // name and digest of the document, once it is in a site
	revision    string
}

// exclusion takes rules, or a target of them, out of the transactions in its scope.
type exclusion struct {
	scope   stage.Scope
	exact   string // the whole path; empty for all in the scope
	expires int64  // Unix time in nanoseconds
	all     bool   // nothing is examined
	// rules go whole, or, when narrow is set, only their target.
	rules    screen.RuleSet
	narrow   bool
	variable variables.RuleVariable
	key      string
	keyRx    *regexp.Regexp
	// counted says that one of the rules counts the variable: without the target it may match
	// where it did not.
	counted bool
	exempt  screen.Exemption // what the screen is told
}

// maxBody is the most that a document may have examined.
const maxBody = 16 << 20

// compile makes a policy of a document, with what may follow it.
func (e *engine) compile(spec *v1.WafPolicySpec) (*policy, error) {
	p, err := e.deciding(spec)
	if err == nil && spec.Candidate != nil {
		if p.candidate, err = e.candidate(p, spec); err != nil {
			return nil, fmt.Errorf("candidate: %w", err)
		}
	}
	return p, err
}

// deciding makes a policy without what may follow.
func (e *engine) deciding(spec *v1.WafPolicySpec) (*policy, error) {
	paranoia, threshold, body := max(spec.Paranoia, 1), spec.InboundThreshold, v1.Value(spec.BodyBytes)
	detection := spec.DetectionParanoia
	outbound, answer := spec.OutboundThreshold, v1.Value(spec.ResponseBytes)
	if threshold == 0 {
		threshold = 5
	}
	if outbound == 0 {
		outbound = 4
	}
	if detection == 0 {
		detection = paranoia
	}
	switch {
	case paranoia > 4:
		return nil, fmt.Errorf("paranoia is %d; write a number from 1 to 4", paranoia)
	case detection < paranoia || detection > 4:
		return nil, fmt.Errorf("detectionParanoia is %d; write a number from paranoia (%d) to 4", detection, paranoia)
	case threshold < 1:
		return nil, fmt.Errorf("inboundThreshold is %d; write at least 1", threshold)
	case answer < 0 || answer > maxAnswer:
		return nil, fmt.Errorf("responseBytes is %s; write at most 1MiB", answer)
	case outbound < 1:
		return nil, fmt.Errorf("outboundThreshold is %d; write at least 1", outbound)
	case body < 0 || body > maxBody:
		return nil, fmt.Errorf("bodyBytes is %s; write at most 16MiB", body)
	}
	p := &policy{
		gate:        stage.NewGate(spec.Protection),
		blocking:    []string{strconv.Itoa(paranoia)},
		detection:   []string{strconv.Itoa(detection)},
		threshold:   []string{strconv.Itoa(threshold)},
		outbound:    []string{strconv.Itoa(outbound)},
		bodyBytes:   int(body),
		answerBytes: int(answer),
		reject:      spec.Oversize == "reject",
		open:        spec.OnFailure == "open",
		cpu:         spec.CPU.Std(),
		spent:       new(spent),
		screen:      e.screen(detection), // rules between the levels match without blocking
		learning:    newLearning(&spec.Learning),
		revision:    revision(spec),
	}
	if p.bounded = p.cpu > 0; !p.bounded {
		p.cpu = fairCPU()
	}
	for i := range spec.Rules {
		r, err := newRule(&spec.Rules[i])
		if err != nil {
			return nil, err
		}
		p.rules = append(p.rules, r)
	}
	for i := range spec.Exclusions {
		x, err := e.exclusion(&spec.Exclusions[i])
		if err != nil {
			return nil, fmt.Errorf("exclusions[%d]: %w", i, err)
		}
		if shapes := spec.Exclusions[i].Shapes; len(shapes) > 0 {
			if !x.narrow {
				return nil, fmt.Errorf("exclusions[%d]: shapes without a target", i)
			}
			p.shaped = append(p.shaped, shaped{x, slices.Sorted(slices.Values(shapes))})
			continue
		}
		if p.screen != nil && x.narrow {
			x.counted = p.screen.Counted(x.variable.Name(), x.rules)
			x.exempt = screen.NewExemption(x.rules, x.variable.Name(), x.key, x.keyRx)
		}
		p.exclusions = append(p.exclusions, x)
	}
	p.exclusions = slices.Clip(p.exclusions)
	return p, nil
}

func (e *engine) exclusion(spec *v1.WafExclusion) (exclusion, error) {
	x := exclusion{scope: stage.NewScope(spec.Path, spec.Methods), expires: math.MaxInt64}
	if spec.Expires != nil {
		x.expires = spec.Expires.UnixNano()
	}
	if spec.Exact {
		x.exact = spec.Path
	}
	var err error
	if x.rules, err = e.pick(spec.Rules, spec.Tags); err != nil {
		return x, err
	}
	if spec.Target == "" {
		x.all = len(spec.Rules) == 0 && len(spec.Tags) == 0
		return x, nil
	}
	x.narrow = true
	x.variable, x.key, x.keyRx, err = parseTarget(spec.Target)
	return x, err
}

// pick returns the detection rules with one of the ids or of the tags; all when there are none.
func (e *engine) pick(rules, tags []string) (screen.RuleSet, error) {
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
	name = strings.ToUpper(name)
	if name == "REQUEST_XML" { // the trail's name; the rules look at XML
		name, key, has = "XML", "", false
	}
	if v, err = variables.Parse(name); err != nil {
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

// apply puts the overlay for x on a transaction; rules are the engine's.
func (p *policy) apply(tx transaction, x *stage.Exchange, rules []rule) {
	vars := tx.Variables().TX()
	vars.Set("blocking_paranoia_level", p.blocking)
	vars.Set("detection_paranoia_level", p.detection)
	vars.Set("inbound_anomaly_score_threshold", p.threshold)
	for i := range p.exclusions {
		e := &p.exclusions[i]
		if !e.holds(x) {
			continue
		}
		for i := range e.rules.All() {
			switch id := rules[i].id; {
			case e.narrow:
				tx.RemoveRuleTargetByID(id, e.variable, e.key, e.keyRx)
			case id == ruleBehindSkip:
				for _, v := range variablesBehindSkip {
					tx.RemoveRuleTargetByID(id, v, "", nil)
				}
			default:
				tx.RemoveRuleByID(id)
			}
		}
	}
}

func (e *exclusion) holds(x *stage.Exchange) bool {
	return (e.expires == math.MaxInt64 || x.Start.UnixNano() < e.expires) && e.scope.HoldsAsSent(x) && (e.exact == "" || e.exact == string(x.Path))
}

// overlay tells the screen of the exclusions that hold for x. It is false when one of them may
// make a rule match that does not match without: then nothing can be proved.
func (p *policy) overlay(x *stage.Exchange, o *screen.Overlay) bool {
	o.Reset()
	for i := range p.exclusions {
		e := &p.exclusions[i]
		if !e.holds(x) {
			continue
		}
		if e.counted {
			return false
		}
		if e.narrow {
			o.Exempt(&e.exempt)
		} else {
			o.Remove(e.rules)
		}
	}
	return true
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
