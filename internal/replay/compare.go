package replay

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Kind is a kind of difference.
type Kind string

// The kinds, in the order in which a request meets what they are about.
const (
	KindSite        Kind = "site"
	KindRoute       Kind = "route"
	KindAccess      Kind = "access"
	KindVisitor     Kind = "visitor"
	KindMaintenance Kind = "maintenance"
	KindLimit       Kind = "limit"
	KindWAF         Kind = "waf"       // refused or not, or would be
	KindWAFRules    Kind = "waf-rules" // the same verdict from other rules
	KindWAFScore    Kind = "waf-score" // the same rules, another score or threshold
	KindCache       Kind = "cache"
	KindStored      Kind = "stored" // whether the answer is stored, and for how long
	KindPool        Kind = "pool"
	KindTier        Kind = "tier"
	KindOrigin      Kind = "origin"
	KindFull        Kind = "full"       // what became of a request for which no tier had room
	KindSent        Kind = "sent"       // the request line that the origin gets
	KindSentFields  Kind = "sentFields" // its fields
	KindStatus      Kind = "status"
	KindCode        Kind = "code" // of the error page
	KindFields      Kind = "fields"
)

// Kinds are all kinds, in order.
var Kinds = [...]Kind{
	KindSite, KindRoute, KindAccess, KindVisitor, KindMaintenance, KindLimit, KindWAF, KindWAFRules, KindWAFScore,
	KindCache, KindStored, KindPool, KindTier, KindOrigin, KindFull, KindSent, KindSentFields, KindStatus, KindCode, KindFields,
}

// Difference is one thing that two revisions do differently with a request.
type Difference struct {
	Kind   Kind   `json:"kind"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// Compare lists what is different. When only one of the two lets a request past a stage, what follows is a
// consequence: of that only the status is listed.
func Compare(a, b *Result) []Difference {
	var d []Difference
	add := func(k Kind, before, after string) bool {
		if before == after {
			return false
		}
		d = append(d, Difference{k, or(before), or(after)})
		return true
	}
	// reached says that both came as far as a stage; there one of them may have been refused.
	same := stopped(a) == stopped(b)
	last := min(stopped(a), stopped(b))
	reached := func(s stop) bool { return same || s <= last }
	add(KindSite, a.Site, b.Site)
	add(KindRoute, a.Route, b.Route)
	if reached(stopAccess) {
		add(KindAccess, judged(a.Access), judged(b.Access))
	}
	if same {
		add(KindVisitor, a.Visitor, b.Visitor)
	}
	if reached(stopMaintenance) {
		add(KindMaintenance, a.Maintenance, b.Maintenance)
	}
	if reached(stopLimit) {
		add(KindLimit, judged(a.Limit), judged(b.Limit))
	}
	if reached(stopWAF) {
		compareWAF(a, b, add)
	}
	if same {
		compareDelivery(a, b, add)
	}
	status := add(KindStatus, a.status(), b.status())
	if same {
		add(KindCode, a.Code, b.Code)
		if !status {
			addFields(KindFields, a.AnswerFields, b.AnswerFields, add)
		}
	}
	return d
}

func compareDelivery(a, b *Result, add func(Kind, string, string) bool) {
	add(KindCache, a.cached(), b.cached())
	add(KindFull, a.Full, b.Full)
	if a.Sent == "" || b.Sent == "" { // the cache, or who had room, says why
		return
	}
	add(KindStored, a.storing(), b.storing())
	if !add(KindPool, a.Pool, b.Pool) && !add(KindTier, a.placed(), b.placed()) {
		add(KindOrigin, a.Origin, b.Origin)
	}
	add(KindSent, a.Sent, b.Sent)
	addFields(KindSentFields, a.SentFields, b.SentFields, add)
}

func compareWAF(a, b *Result, add func(Kind, string, string) bool) {
	if judged(a.WAF) != judged(b.WAF) && add(KindWAF, a.waf(b), b.waf(a)) || a.Verdict == nil && b.Verdict == nil {
		return
	}
	if add(KindWAFRules, a.rules(), b.rules()) {
		return
	}
	if a.Verdict != nil && b.Verdict != nil && len(a.Verdict.Rules) > 0 {
		add(KindWAFScore, a.score(), b.score())
	}
}

// judged makes no difference between a request that a stage let pass and one that it was not asked about.
func judged(code string) string {
	if code == "pass" || code == "excluded" {
		return ""
	}
	return code
}

func or(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// stop is a stage before the cache that may refuse a request, in the order in which it meets them.
type stop int

const (
	stopRoute stop = iota
	stopAccess
	stopMaintenance
	stopLimit
	stopWAF
	stopNone
)

// stopped is where a request was refused before the cache.
func stopped(r *Result) stop {
	switch {
	case r.Route == "":
		return stopRoute
	case r.Access == "deny":
		return stopAccess
	case r.Maintenance == "closed":
		return stopMaintenance
	case r.Limit == "deny":
		return stopLimit
	case r.WAF == "deny", r.WAF == "oversize", r.WAF == "overloaded" && r.Code != "", r.WAF == "failed" && r.Code != "":
		return stopWAF
	}
	return stopNone
}

// shownRules is how many rules a difference names.
const shownRules = 6

// waf is the outcome, and with it the rules that the other side does not have when it differs.
func (r *Result) waf(other *Result) string {
	if r.WAF == other.WAF || r.Verdict == nil || len(r.Verdict.Rules) == 0 {
		return r.WAF
	}
	return r.WAF + " by " + r.rules()
}

func (r *Result) rules() string {
	if r.Verdict == nil {
		return ""
	}
	list := slices.Compact(slices.Sorted(slices.Values(r.Verdict.Rules)))
	var b strings.Builder
	for i, id := range list {
		if i == shownRules {
			fmt.Fprintf(&b, " and %d more", len(list)-i)
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(strconv.Itoa(id))
	}
	return b.String()
}

func (r *Result) score() string {
	if r.Verdict == nil {
		return ""
	}
	return fmt.Sprintf("%d of %d", r.Verdict.Score, r.Verdict.Threshold)
}

func (r *Result) cached() string { return join(r.Cache, r.Forward) }

// storing says whether and how long the answer is stored. Of one that is taken from the cache, what is left
// depends on when it was stored.
func (r *Result) storing() string {
	switch {
	case !r.Stored:
		return "not stored"
	case r.TTL < 0:
		return "stored"
	}
	return "stored, ttl " + ttlText(r.TTL)
}

func (r *Result) placed() string {
	if r.Spill == "" {
		return r.Tier
	}
	return r.Tier + " (" + r.Spill + ")"
}

func (r *Result) status() string {
	if r.Assumed {
		return strconv.Itoa(r.Status) + " (assumed)"
	}
	return strconv.Itoa(r.Status)
}

// addFields lists the fields that only one side has, or that have another value.
func addFields(k Kind, a, b []string, add func(Kind, string, string) bool) {
	if slices.Equal(a, b) {
		return
	}
	add(k, missing(a, b), missing(b, a))
}

// shownFields bounds the fields that a difference names, and maxShown the length of each.
const (
	shownFields = 3
	maxShown    = 120
)

// missing names what of a is not in b; both are sorted.
func missing(a, b []string) string {
	var out []string
	for _, f := range a {
		if _, there := slices.BinarySearch(b, f); !there {
			if len(out) == shownFields {
				out = append(out, "…")
				break
			}
			if len(f) > maxShown {
				f = strings.ToValidUTF8(f[:maxShown], "") + "…"
			}
			out = append(out, f)
		}
	}
	return strings.Join(out, ", ")
}
