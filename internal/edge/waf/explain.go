package waf

import (
	"slices"
	"strconv"
	"strings"

	"github.com/relais-edge/relais/internal/stage"

	"github.com/corazawaf/coraza/v3/types"
)

// Bounds of a detail.
const (
	shownRules = 3
	maxMessage = 80
	maxTarget  = 64
	maxSample  = 64
)

// explain writes what matched, such as
//
//	score 15 ≥ 5: 942100 SQL Injection Attack Detected via libinjection (ARGS:q); 2 more; sample "1' or"
//
// It is empty when no detection rule matched. Rules below from are not told.
func (e *engine) explain(tx transaction, it *types.Interruption, score string, from int) string {
	var b strings.Builder
	var sample string
	n := 0
	for _, m := range tx.MatchedRules() {
		id := m.Rule().ID()
		if id < from || e.rule(id) == nil || m.Message() == "" {
			continue
		}
		if n++; n > shownRules {
			continue
		}
		if n == 1 {
			sample = sampleOf(m)
			b.WriteString(score)
		} else {
			b.WriteString("; ")
		}
		b.WriteString(strconv.Itoa(id) + " " + cut(clean(m.Message(), false), maxMessage))
		if t := targetOf(m); t != "" {
			b.WriteString(" (" + t + ")")
		}
	}
	switch {
	case n == 0 && it == nil:
		return ""
	case n == 0:
		return "rule " + strconv.Itoa(it.RuleID)
	case n > shownRules:
		b.WriteString("; " + strconv.Itoa(n-shownRules) + " more")
	}
	if sample != "" {
		b.WriteString("; sample " + strconv.Quote(sample))
	}
	return b.String()
}

// score compares the score in a variable with the threshold.
func (e *engine) score(tx transaction, variable, threshold string) string {
	score := 0
	if v := tx.Variables().TX().Get(variable); len(v) > 0 {
		score, _ = strconv.Atoi(v[0])
	}
	sign := " < "
	if t, _ := strconv.Atoi(threshold); score >= t {
		sign = " ≥ "
	}
	return "score " + strconv.Itoa(score) + sign + threshold + ": "
}

// first is the variable that a rule matched, by name and key.
func first(m types.MatchedRule) (name, key, value string) {
	for _, d := range m.MatchedDatas() {
		if n := d.Variable().Name(); n != "TX" && n != "UNKNOWN" {
			return n, d.Key(), d.Value()
		}
	}
	return "", "", ""
}

func targetOf(m types.MatchedRule) string {
	name, key, _ := first(m)
	if key != "" {
		name += ":" + cut(clean(key, false), maxTarget)
	}
	return name
}

// secrets are parts of names whose values are not shown.
var secrets = [...]string{"pass", "pwd", "secret", "token", "auth", "session", "card", "cvv", "cvc", "iban", "key", "pin", "csrf"}

// sampleOf returns what a rule matched, redacted: nothing of cookies, of whole bodies and of
// variables whose names sound secret, and no digit of longer numbers.
func sampleOf(m types.MatchedRule) string {
	name, key, value := first(m)
	key = strings.ToLower(key)
	if strings.HasPrefix(name, "REQUEST_COOKIES") || name == "REQUEST_BODY" || name == "RESPONSE_BODY" || key == "cookie" ||
		slices.ContainsFunc(secrets[:], func(s string) bool { return strings.Contains(key, s) }) {
		return "(hidden)"
	}
	if _, after, ok := strings.Cut(m.Data(), "Matched Data: "); ok {
		if found, _, ok := strings.Cut(after, " found within "); ok && found != "" {
			value = found
		}
	}
	return cut(clean(value, true), maxSample)
}

// clean makes what came from outside fit for a log: no control characters, valid UTF-8, and,
// with hide, each digit of four or more in a row as #.
func clean(s string, hide bool) string {
	if len(s) > 4*maxSample {
		s = s[:4*maxSample]
	}
	b := []byte(strings.ToValidUTF8(s, "?"))
	run := 0
	for i := 0; i <= len(b); i++ {
		if i < len(b) && b[i] >= '0' && b[i] <= '9' {
			run++
			continue
		}
		if hide && run >= 4 {
			for j := i - run; j < i; j++ {
				b[j] = '#'
			}
		}
		run = 0
		if i < len(b) && (b[i] < ' ' || b[i] == 0x7f) {
			b[i] = '.'
		}
	}
	return string(b)
}

// cut shortens s to at most n bytes without breaking a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-3], "") + "…"
}

// found is all that matched, for a replay.
func (e *engine) found(tx transaction, p *policy, deny bool) *stage.Verdict {
	v := &stage.Verdict{Deny: deny}
	v.Threshold, _ = strconv.Atoi(p.threshold[0])
	if s := tx.Variables().TX().Get("blocking_inbound_anomaly_score"); len(s) > 0 {
		v.Score, _ = strconv.Atoi(s[0])
	}
	for _, m := range tx.MatchedRules() {
		if id := m.Rule().ID(); e.rule(id) != nil && m.Message() != "" {
			v.Rules = append(v.Rules, id)
		}
	}
	return v
}
