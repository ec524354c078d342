package cache

import (
	"fmt"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// Reason is one sentence of an explanation, with the rule that it comes from.
type Reason struct {
	Words string `json:"words"`
	Rule  string `json:"rule,omitempty"` // such as RFC 9111 section 4.1, or a field of the CachePolicy
}

// Why explains what a request would get, without asking an origin or changing what is stored.
type Why struct {
	Site   string `json:"site"`
	Route  string `json:"route"`
	Policy string `json:"policy,omitempty"`
	Key    string `json:"key,omitempty"`
	// Result is hit, stale, miss, revalidate, pass, bypass or refused.
	Result string `json:"result"`
	// Forward is why it goes to the origin, as Cache-Status says it (RFC 9211 section 2.2).
	Forward string   `json:"fwd,omitempty"`
	Reasons []Reason `json:"reasons"`
	Stored  *Stored  `json:"stored,omitempty"` // the answer that was looked at
}

func (w *Why) say(rule, words string, args ...any) {
	w.Reasons = append(w.Reasons, Reason{fmt.Sprintf(words, args...), rule})
}

// Why explains x, whose route was found.
func (s *Stage) Why(x *stage.Exchange) *Why {
	w := &Why{Site: string(x.Site.Key), Route: x.Route.Name, Result: "bypass", Forward: "bypass", Reasons: []Reason{}}
	r := s.ruleFor(x)
	if r == nil {
		w.say("cache of the route or site", "The route %s names no CachePolicy, so that nothing of it is stored.", x.Route.Name)
		return w
	}
	w.Policy = r.name
	if !x.In.Method.Safe() {
		w.Forward = "method"
		w.say("RFC 9111 section 4", "%s may change things: it goes to the origin, and its success invalidates the URL (section 4.4).", x.In.MethodName())
		return w
	}
	if words, rule := bypassed(x); words != "" {
		w.say(rule, "%s", words)
		return w
	}
	if d := r.detourOf(x); d != nil {
		w.say("bypass of the CachePolicy", "A rule of the policy matches it: %s. It goes to the origin, and its answer is not stored.", d.words)
		return w
	}
	l := s.probe(x, r)
	if l.control.Has(semantics.NoStore) {
		w.Forward = "request"
		w.say("RFC 9111 section 5.2.1.5", "The request says Cache-Control: no-store, so that it is not looked up.")
		return w
	}
	s.explainLookup(w, l, x)
	return w
}

// bypassed says why a request is not looked up.
func bypassed(x *stage.Exchange) (words, rule string) {
	switch notForUs(x.In) {
	case "method":
		return fmt.Sprintf("Answers to %s are not stored, only those to GET and HEAD.", x.In.MethodName()), "RFC 9111 section 3"
	case "body":
		return "The request has a body, and a GET with one means nothing that can be in the key.", "RFC 9110 section 9.3.1"
	case "upgrade":
		return "The request wants another protocol (Upgrade).", "RFC 9110 section 7.8"
	case "precondition":
		return "If-Match and If-Unmodified-Since are for the origin to judge.", "RFC 9111 section 4.3.2"
	}
	return "", ""
}

// explainLookup goes the way of lookup.
func (s *Stage) explainLookup(w *Why, l *local, x *stage.Exchange) {
	defer l.End(message.Outcome{})
	o, _, seen := s.find(l, x, l.reuse(&l.found), true)
	if !seen && s.alias(l, x) {
		w.say("No-Vary-Search", "An earlier answer of this path said which parameters do not count; the key is made by that rule.")
		o, _, seen = s.find(l, x, l.reuse(&l.found), true)
	}
	_, w.Key = splitKey(l.key)
	if !seen {
		w.Result, w.Forward = "miss", "uri-miss"
		w.say("RFC 9211 section 2.2", "Nothing is stored under the key: it was not asked for since the start, could not be stored, or had to leave for room.")
	} else if o == nil {
		s.explainVariant(w, l, x)
	}
	if o != nil {
		s.explainUse(w, l, o, x)
	}
	if w.Result != "miss" && w.Result != "revalidate" {
		return
	}
	switch {
	case l.control.Has(semantics.OnlyIfCached):
		w.Result, w.Forward = "refused", ""
		w.say("RFC 9111 section 5.2.1.7", "The request says only-if-cached: it gets a 504.")
	case o == nil && x.In.Has(message.Authorization):
		w.Result = "pass"
		w.say("RFC 9111 section 3.5", "The request has Authorization: it goes to the origin for itself, and its answer is stored only if it says public, s-maxage or must-revalidate.")
	case l.now.UnixNano() < s.passUntil(l.hash, l.key):
		w.Result = "pass"
		w.say("request collapsing", "An answer under this key could not be stored; until %s its requests go to the origin at once and wait for nobody.", clock(time.Unix(0, s.passUntil(l.hash, l.key))))
	}
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05 MST") }

// explainVariant says why none of the answers under l's key is for x.
func (s *Stage) explainVariant(w *Why, l *local, x *stage.Exchange) {
	var dead, other *Stored
	var want []string
	route, n := "", 0
	at := placeOf(x, l.key, l.aliased)
	s.eachStored(l, x, func(o *object) bool {
		n++
		switch {
		case o.route != x.Route.Name:
			route = o.route
		case o.headOnly && x.In.Method != message.HEAD:
		case !o.isFor(l, x):
			if other == nil {
				st := s.stored(l, x, o)
				other = &st
				want = semantics.Describe(o.selector, semantics.AppendSelected(nil, o.selector, &x.In.Fields))
			}
		case dead == nil && purged(l.rule.mark, o, &at).Hard > o.born:
			st := s.stored(l, x, o)
			dead = &st
		}
		return true
	})
	w.Result, w.Forward = "miss", forwardNames[s.missed(l, x, true)]
	switch {
	case dead != nil:
		w.Stored = dead
		w.say("purge", "An answer is stored, and was %s.", purgeWords(dead.Purge))
	case other != nil:
		w.Stored = other
		for i, have := range other.For {
			if i < len(want) && want[i] != have {
				w.say("RFC 9111 section 4.1", "%d variants are stored of late, and none is for this request: by Vary or the policy's key the newest is for %q, and the request has %q.", n, have, want[i])
			}
		}
	case route != "":
		w.say("key", "What is stored under the key was asked for by the route %s, which may lead to another origin.", route)
	case n == 0:
		w.say("RFC 9111 section 4.1", "Answers under the key vary by Vary or the policy's key, and none is stored for this request.")
	default:
		w.say("RFC 9111 section 4.3.5", "Only an answer to HEAD is stored.")
	}
}

// purgeWords tells of a purge.
func purgeWords(e *purge.Entry) string {
	if e.Kind == 0 {
		return fmt.Sprintf("purged (number %d, of which the log no longer tells)", e.Number)
	}
	how := "purged"
	if e.Soft {
		how = "purged softly"
	}
	what := strings.TrimSpace(e.Kind.String() + " " + e.Host + e.Value)
	return fmt.Sprintf("%s by %s at %s, number %d", how, what, e.Time.UTC().Format(time.RFC3339), e.Number)
}

// explainUse says whether the object may be used.
func (s *Stage) explainUse(w *Why, l *local, o *object, x *stage.Exchange) {
	st := s.stored(l, x, o)
	st.Used = true
	w.Stored = &st
	life := o.Life
	at := placeOf(x, l.key, l.aliased)
	if v := purged(l.rule.mark, o, &at); v.Soft > 0 {
		life.Lifetime = softLife(o, v).life
	}
	age, left := life.Age(l.now), life.Lifetime-life.Age(l.now)
	if st.State == "purged softly" {
		w.say("purge", "The answer was %s: it is stale since then.", purgeWords(st.Purge))
	}
	use := life.Use(&l.control, l.now)
	lacks := o.partial() && (use == semantics.Background || !o.serves(x.In, l.now))
	w.Forward = ""
	switch {
	case lacks:
		w.Result, w.Forward = "miss", "partial"
		w.say("RFC 9111 section 3.3", "Only a part is stored, %d bytes of %d, and what is asked for is not all in it.", st.Kept, st.Size)
	case use == semantics.Fresh:
		w.Result = "hit"
		w.say("RFC 9111 section 4.2", "The stored answer is %.0f s old and lives %.0f s: it is fresh for another %.0f s.", age.Seconds(), life.Lifetime.Seconds(), left.Seconds())
	case use == semantics.Stale:
		w.Result = "stale"
		w.say("RFC 9111 section 5.2.1.2", "The stored answer is stale for %.0f s, and the request says that it takes such (max-stale).", -left.Seconds())
	case use == semantics.Background:
		w.Result = "stale"
		w.say("RFC 5861 section 3", "The stored answer is stale for %.0f s, within its stale-while-revalidate of %.0f s: it is served, and validated meanwhile.", -left.Seconds(), life.While.Seconds())
	case use == semantics.Refresh:
		w.Result, w.Forward = "revalidate", "request"
		w.say("RFC 9111 section 5.2.1", "The stored answer is fresh, but the request wants a newer one (no-cache, max-age, min-fresh or Pragma).")
	default:
		s.explainStale(w, l, o, life)
	}
}

// explainStale says why a stale object is not used at once.
func (s *Stage) explainStale(w *Why, l *local, o *object, life semantics.Life) {
	w.Result, w.Forward = "revalidate", "stale"
	age := life.Age(l.now)
	switch {
	case life.NoCache:
		w.say("RFC 9111 section 5.2.2.4", "The stored answer is validated at each use (no-cache, a Vary or tags without end, or fields that could not be read).")
	case age < life.Lifetime:
		w.say("RFC 9111 section 5.2.1", "The stored answer is fresh, but older than the request allows.")
	default:
		w.say("RFC 9111 section 4.2", "The stored answer is %.0f s old and lived %.0f s: it is stale.", age.Seconds(), life.Lifetime.Seconds())
		if life.NoStale {
			w.say("RFC 9111 section 4.2.4", "It may not be used stale (must-revalidate, proxy-revalidate, s-maxage or no-cache).")
		}
	}
	if rests, _ := s.resting(l.key, o, l.now); rests && (life.UsableOnError(l.now) || life.UsableDisconnected(l.now)) {
		w.Result, w.Forward = "stale", ""
		w.say("RFC 5861 section 4", "The origin failed only just now, and the answer may stand in (stale-if-error).")
		return
	}
	if o.fields.Has(message.ETag) || o.fields.Has(message.LastModified) {
		w.say("RFC 9111 section 4.3", "It has a validator: the origin is asked whether it is still good.")
	}
}
