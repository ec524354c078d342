package waf

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/waf/learn"

	"github.com/corazawaf/coraza/v3/types"
)

// maxHits bounds the hits of a request that are told.
const maxHits = 64

// hit is a rule that matched a target, with what it added to the score.
type hit struct {
	learn.Hit
	data []datum // the values that it matched
	many bool    // more of them than data holds
}

// saw notes a value that the rule matched.
func (h *hit) saw(d types.MatchData) {
	if len(h.data) == maxHitShapes {
		h.many = true
		return
	}
	h.data = append(h.data, datum{d.Key(), shapeOf(d.Value())})
}

// hits lists what matched and counts at a paranoia level: each detection rule with each target
// that an exclusion can name.
func (e *engine) hits(tx transaction, level int) (out []hit) {
	for _, m := range tx.MatchedRules() {
		id := m.Rule().ID()
		r := e.rule(id)
		if r == nil || m.Message() == "" || r.level > level {
			continue
		}
		start := len(out)
		datas := m.MatchedDatas()
		deepest, added := 0, 0
		for _, d := range datas {
			deepest = max(deepest, d.ChainLevel())
		}
		for _, d := range datas {
			if d.ChainLevel() == deepest {
				added += severity(m.Rule().Severity())
			}
			if d.ChainLevel() != 0 {
				continue
			}
			h := hit{Hit: learn.Hit{Rule: id, Target: exclusionTarget(d)}}
			h.saw(d)
			if r.counted {
				h.Target = ""
			}
			if deepest == 0 {
				h.Score = severity(m.Rule().Severity())
			}
			if i := slices.IndexFunc(out[start:], func(o hit) bool { return o.Target == h.Target }); i >= 0 {
				out[start+i].Score += h.Score
				out[start+i].saw(d)
			} else if len(out) < maxHits {
				out = append(out, h)
			}
		}
		if deepest > 0 && len(out) > start {
			// Which of several targets the chain would do without cannot be told.
			if len(out) > start+1 {
				out = out[:start+1]
				out[start].Target = ""
			}
			out[start].Score = added
		}
	}
	return out
}

// severity is what the rule set adds to the score for a match of a rule.
func severity(s types.RuleSeverity) int {
	switch s {
	case types.RuleSeverityCritical:
		return 5
	case types.RuleSeverityError:
		return 4
	case types.RuleSeverityWarning:
		return 3
	case types.RuleSeverityNotice:
		return 2
	}
	return 0
}

// numbered finds the numbers that JSON arrays put into the names of arguments.
var numbered = regexp.MustCompile(`\.\d+(\.|$)`)

// exclusionTarget is a matched variable as an exclusion names it; empty where none can.
func exclusionTarget(d types.MatchData) string {
	name, key := d.Variable().Name(), d.Key()
	switch name {
	case "TX", "UNKNOWN", "RULE", "MATCHED_VARS", "MATCHED_VAR", "MATCHED_VARS_NAMES", "MATCHED_VAR_NAME":
		return ""
	}
	if len(key) > maxKey {
		return ""
	}
	switch {
	case strings.HasSuffix(name, "XML"):
		return "XML" // as the rules call it; its keys are XPath
	case key == "" && strings.HasPrefix(name, "ARGS") && !strings.HasSuffix(name, "_SIZE"):
		return name + ":/^$/" // an argument without a name, not all of them
	case key == "":
		return name
	case numbered.MatchString(key):
		return name + ":/^" + anyNumber(key) + "$/"
	case key[0] == '/' && key[len(key)-1] == '/':
		return name + ":/^" + regexp.QuoteMeta(key) + "$/"
	}
	return name + ":" + key
}

// maxKey bounds the key of a target, and its expression stays below what a document may hold.
const maxKey = 100

// anyNumber is an expression for a key with any number in the place of each of its own.
func anyNumber(key string) string {
	parts := strings.Split(key, ".")
	for i, p := range parts {
		if _, err := strconv.ParseUint(p, 10, 64); err == nil && i > 0 {
			parts[i] = `\d+`
		} else {
			parts[i] = regexp.QuoteMeta(p)
		}
	}
	return strings.Join(parts, `\.`)
}

// learnable are the hits as they are remembered.
func learnable(hits []hit) []learn.Hit {
	out := make([]learn.Hit, len(hits))
	for i := range hits {
		out[i] = hits[i].Hit
		out[i].Shapes = hits[i].shapes()
	}
	return out
}

// shapes are those of the values that were matched; nil when one has none.
func (h *hit) shapes() (out []string) {
	if h.many {
		return nil
	}
	for _, d := range h.data {
		if d.shape == "" {
			return nil
		}
		if !slices.Contains(out, d.shape) {
			out = append(out, d.shape)
		}
	}
	return out
}

// smallest lists the fewest exclusions with which a request with these hits stays below the
// threshold. Direct is a rule that denied whatever the score; 0 is none.
func smallest(hits []hit, threshold, direct int, method, path string) (out []v1.WafExclusion) {
	if direct != 0 {
		rules := []string{strconv.Itoa(direct)}
		if direct == ruleParse { // which 200003 says again of a multipart body
			rules = append(rules, strconv.Itoa(ruleMultipart))
		}
		return []v1.WafExclusion{{Rules: rules, Path: path, Exact: true, Methods: []string{method}}}
	}
	total := 0
	for i := range hits {
		total += hits[i].Score
	}
	hits = slices.Clone(hits)
	slices.SortStableFunc(hits, func(a, b hit) int { return b.Score - a.Score })
	n := 0
	for ; n < len(hits) && total >= threshold; n++ {
		total -= hits[n].Score
	}
	return grouped(hits[:n], method, path)
}

// grouped makes one exclusion for each target.
func grouped(hits []hit, method, path string) (out []v1.WafExclusion) {
	slices.SortStableFunc(hits, func(a, b hit) int { return cmp.Or(strings.Compare(a.Target, b.Target), a.Rule-b.Rule) })
	for i, h := range hits {
		id := strconv.Itoa(h.Rule)
		if n := len(out); i > 0 && hits[i-1].Target == h.Target {
			if !slices.Contains(out[n-1].Rules, id) {
				out[n-1].Rules = append(out[n-1].Rules, id)
			}
			continue
		}
		out = append(out, v1.WafExclusion{Rules: []string{id}, Target: h.Target, Path: path, Exact: true, Methods: []string{method}})
	}
	return out
}

// Line writes an exclusion as one line of YAML, an item of a WafPolicy's exclusions.
func Line(x *v1.WafExclusion) string {
	var b strings.Builder
	b.WriteString("{rules: [")
	for i, r := range x.Rules {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quoted(r))
	}
	b.WriteByte(']')
	if x.Target != "" {
		b.WriteString(", target: " + quoted(x.Target))
	}
	if len(x.Shapes) > 0 {
		b.WriteString(", shapes: [")
		for i, s := range x.Shapes {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(quoted(s))
		}
		b.WriteByte(']')
	}
	if x.Path != "" {
		b.WriteString(", path: " + quoted(x.Path))
	}
	if x.Exact {
		b.WriteString(", exact: true")
	}
	if len(x.Methods) > 0 {
		b.WriteString(", methods: [" + strings.Join(x.Methods, ", ") + "]")
	}
	if x.Expires != nil {
		b.WriteString(", expires: " + quoted(x.Expires.UTC().Format("2006-01-02T15:04:05Z07:00")))
	}
	b.WriteByte('}')
	return b.String()
}

// quoted writes a text as YAML in double quotes, which is how JSON writes it.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 || r == 0xfeff:
			b.WriteString(`\u` + pad4(strconv.FormatInt(int64(r), 16)))
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func pad4(s string) string { return "0000"[min(len(s), 4):] + s }
