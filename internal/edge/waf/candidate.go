package waf

import (
	"cmp"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/waf/screen"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// A candidate is judged by beside the request, so its part is small: of the CPU time that its policy has a quarter, and only
// while more than half of the places for evaluations are free.
const (
	candidateCPU    = 4
	candidatePlaces = 2
	// maxDiffering bounds the rules that are told apart; others are counted together.
	maxDiffering = 64
)

// Results of comparisons.
const (
	agreed = iota
	newlyDenied
	newlyPassed
	notCompared // there was no time or place for an evaluation, or it failed
)

var comparisons = [...]string{"agreed", "would-deny", "would-pass", "skipped"}

// candidate is what may follow a policy.
type candidate struct {
	policy *policy
	share  uint64 // of 2^32 requests
	from   int64  // Unix time in nanoseconds when it decides
	before string // digest of what decides now
	spent  *spent // for comparisons
	cpu    time.Duration
	diff   *diff
}

// diff is how a candidate differed.
type diff struct {
	since   time.Time
	results [len(comparisons)]atomic.Uint64

	mu     sync.Mutex
	rules  map[string]*Differing
	others Differing
}

// Differing is how often a rule made a difference.
type Differing struct {
	// Rule is its id, or the name of one of the policy's own; empty for all that are not told apart.
	Rule string `json:"rule"`
	// WouldDeny are requests that the candidate would refuse, and WouldPass those that it would let through.
	WouldDeny uint64 `json:"wouldDeny"`
	WouldPass uint64 `json:"wouldPass"`
	// Example is the id of the last one, for relais explain.
	Example string `json:"example"`
}

// Candidate is how a policy's candidate did so far.
type Candidate struct {
	Site   string `json:"site"`
	Policy string `json:"policy"`
	// Revision is the digest of the policy as it would be, RuleSet the rule set's version.
	Revision string `json:"revision"`
	RuleSet  string `json:"ruleSet"`
	// From is when it decides; nil when a person is to say so.
	From     *time.Time `json:"from,omitempty"`
	Deciding bool       `json:"deciding,omitempty"`
	Since    time.Time  `json:"since"`
	// Agreed, WouldDeny and WouldPass are requests that both judged, Skipped those that the candidate could not.
	Agreed    uint64      `json:"agreed"`
	WouldDeny uint64      `json:"wouldDeny"`
	WouldPass uint64      `json:"wouldPass"`
	Skipped   uint64      `json:"skipped"`
	Rules     []Differing `json:"rules"`
}

// promoted is a policy's document with its candidate in force.
func promoted(spec *v1.WafPolicySpec) *v1.WafPolicySpec {
	out, n := *spec, spec.Candidate
	out.Candidate = nil
	if n.Paranoia > 0 {
		out.Paranoia = n.Paranoia
		out.DetectionParanoia = 0
		if d := spec.DetectionParanoia; d > n.Paranoia {
			out.DetectionParanoia = d
		}
	}
	if n.InboundThreshold > 0 {
		out.InboundThreshold = n.InboundThreshold
	}
	if n.Rules != nil {
		out.Rules = n.Rules
	}
	if n.Exclusions != nil {
		out.Exclusions = n.Exclusions
	}
	return &out
}

func (e *engine) candidate(p *policy, spec *v1.WafPolicySpec) (*candidate, error) {
	now := *spec
	now.Candidate = nil
	c := &candidate{from: math.MaxInt64, before: revision(&now), spent: new(spent), cpu: p.cpu / candidateCPU, share: 1 << 32 / 10}
	if n := spec.Candidate; n.From != nil {
		c.from = n.From.UnixNano()
	}
	if share := spec.Candidate.Share; share != nil {
		c.share = uint64(max(0, min(1, share.Fraction())) * (1 << 32))
	}
	c.diff = &diff{since: time.Now(), rules: map[string]*Differing{}}
	var err error
	c.policy, err = e.deciding(promoted(spec))
	return c, err
}

// follow makes c, which may be nil, the candidate of a policy of a site. Before is the one that it had until now: what was counted
// stays while both sides of the comparison are the same.
func (c *candidate) follow(p *policy, before *candidate) {
	if c == nil {
		return
	}
	c.policy.name, c.policy.spent = p.name, p.spent
	if before != nil {
		c.spent = before.spent
		if before.before == c.before && before.policy.revision == c.policy.revision {
			c.diff = before.diff
		}
	}
}

func (pt *part) candidateOf(name string) *candidate {
	if pt != nil {
		for _, p := range pt.routes {
			if p != nil && p.name == name {
				return p.candidate
			}
		}
	}
	return nil
}

// policy is the one that decides for x; nil where there is none.
func (pt *part) policy(x *stage.Exchange) *policy {
	p := pt.routes[x.Route.Index]
	if p != nil && p.candidate != nil && x.Start.UnixNano() >= p.candidate.from {
		return p.candidate.policy
	}
	return p
}

// keep remembers the candidates of a site for Candidates, and its series.
func (s *Stage) keep(site *snapshot.Site, before, now *part, named map[string]*policy) {
	var list []*candidate
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if c := named[name].candidate; c != nil {
			list = append(list, c)
		}
	}
	key := string(site.Key)
	had := before != nil && slices.ContainsFunc(before.routes, func(p *policy) bool { return p != nil && p.candidate != nil })
	stage.Series(s.compared, site, comparisons[:], now.results[:], len(list) > 0, had)
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.candidates, key); len(list) > 0 {
		s.candidates[key] = list
	}
}

// opinion is a verdict with the rules that it is made of.
type opinion struct {
	deny   bool
	rules  []string
	detail string
}

func opinionOf(v *verdict) *opinion {
	o := &opinion{deny: v.deny, detail: v.detail}
	if v.direct != 0 {
		o.rules = append(o.rules, strconv.Itoa(v.direct))
	}
	for i := range v.hits {
		if id := strconv.Itoa(v.hits[i].Rule); !slices.Contains(o.rules, id) {
			o.rules = append(o.rules, id)
		}
	}
	return o
}

// chosen says whether the candidate, which may be nil, judges x, too.
func (c *candidate) chosen(x *stage.Exchange) bool {
	return c != nil && !x.Replayed() && uint64(rand.Uint32()) < c.share
}

// compare has a request judged by the candidate, and notes where it would do otherwise. Is is what the policy says; it stays so.
func (s *Stage) compare(q *question, is *opinion) {
	c, x := q.policy.candidate, q.x
	would := s.consult(q, c)
	result := agreed
	switch {
	case would == nil:
		result = notCompared
	case would.deny && !is.deny:
		result = newlyDenied
		c.diff.note(only(would.rules, is.rules), newlyDenied, x)
		x.MarkDetail("waf-candidate", comparisons[newlyDenied], would.detail)
	case is.deny && !would.deny:
		result = newlyPassed
		c.diff.note(only(is.rules, would.rules), newlyPassed, x)
		x.MarkDetail("waf-candidate", comparisons[newlyPassed], "by revision "+c.policy.revision+" of "+c.policy.name)
	}
	c.diff.results[result].Add(1)
	q.part.results[result].Inc()
}

// consult is what the candidate says; nil when it could not be asked.
func (s *Stage) consult(q *question, c *candidate) *opinion {
	x := q.x
	own, err := c.policy.asked(x, q.sheet, true)
	switch {
	case err != nil:
		return nil
	case own != nil:
		return &opinion{true, []string{own.name}, "rule " + own.name + " of the candidate's own"}
	case c.policy.excluded(x) || s.screened(c.policy, x, q.sheet) == int(screen.Clean):
		return &opinion{}
	}
	now := s.budgets.now()
	if c.spent.over(now, c.cpu) || x.Visitor.Class != stage.Protected && s.budgets.over(s.budgets.source(x.Client), now) ||
		len(s.common) >= max(1, cap(s.common)/candidatePlaces) {
		return nil
	}
	select {
	case s.common <- struct{}{}:
	default:
		return nil
	}
	x.MayBlock()
	runtime.LockOSThread() // the clock is the thread's
	start := cpuTime()
	v, err := q.part.weighed(c.policy, x, q.sheet, q.cut)
	used := cpuTime() - start
	runtime.UnlockOSThread()
	<-s.common
	c.spent.use(now, used, c.cpu)
	x.Lap()
	if err != nil {
		return nil
	}
	return opinionOf(&v)
}

// only are those of list that are not in other; all when there are none: then it is the threshold that differs.
func only(list, other []string) []string {
	out := slices.DeleteFunc(slices.Clone(list), func(r string) bool { return slices.Contains(other, r) })
	if len(out) == 0 {
		return list
	}
	return out
}

// note counts a difference for the rules that make it.
func (d *diff) note(rules []string, result int, x *stage.Exchange) {
	id := x.ID.String()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range rules {
		r := d.rules[name]
		if r == nil {
			if r = &d.others; len(d.rules) < maxDiffering {
				r = &Differing{Rule: name}
				d.rules[name] = r
			}
		}
		if r.Example = id; result == newlyDenied {
			r.WouldDeny++
		} else {
			r.WouldPass++
		}
	}
}

// list are the rules that made a difference, the most frequent first.
func (d *diff) list() []Differing {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []Differing{}
	for _, r := range d.rules {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b Differing) int {
		return cmp.Or(cmp.Compare(b.WouldDeny+b.WouldPass, a.WouldDeny+a.WouldPass), strings.Compare(a.Rule, b.Rule))
	})
	if d.others.Example != "" {
		out = append(out, d.others)
	}
	return out
}

// Candidates lists how the candidates of policies did, of a site or, with an empty key, of all.
func (s *Stage) Candidates(key string, now time.Time) []Candidate {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Candidate{}
	for _, site := range slices.Sorted(maps.Keys(s.candidates)) {
		if key != "" && key != site {
			continue
		}
		for _, c := range s.candidates[site] {
			n := Candidate{
				Site: site, Policy: c.policy.name, Revision: c.policy.revision, RuleSet: s.engine.version, Since: c.diff.since,
				Deciding: now.UnixNano() >= c.from, Rules: c.diff.list(),
				Agreed: c.diff.results[agreed].Load(), WouldDeny: c.diff.results[newlyDenied].Load(),
				WouldPass: c.diff.results[newlyPassed].Load(), Skipped: c.diff.results[notCompared].Load(),
			}
			if c.from != math.MaxInt64 {
				at := time.Unix(0, c.from).UTC()
				n.From = &at
			}
			out = append(out, n)
		}
	}
	return out
}
