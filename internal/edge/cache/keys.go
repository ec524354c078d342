package cache

import (
	"cmp"
	"slices"
	"strings"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
)

// What speaks for proposing a parameter: so many pairs of answers that are the same, values and paths.
const (
	enoughPairs  = 16
	enoughValues = 8
	enoughPaths  = 2
)

// KeyReport is what the traffic of a CachePolicy says of the parameters in its key, since Began.
type KeyReport struct {
	Site   string    `json:"site"`
	Policy string    `json:"policy"`
	Began  time.Time `json:"began"`
	// Query, Key are the policy's key.query and key.parameters.
	Query string   `json:"query"`
	Key   []string `json:"parameters,omitempty"`
	// LookedUp are requests of the whole site, HitRatio those among them that cost no origin anything, and WouldBe the
	// ratio with those that the proposal, or one like it, would have added.
	LookedUp int64   `json:"lookedUp"`
	HitRatio float64 `json:"hitRatio"`
	WouldBe  float64 `json:"hitRatioWouldBe"`
	Spare    int64   `json:"spare"`
	// Propose are parameters to leave out of the key; QueryWould and KeyWould the policy's fields then.
	Propose    []string `json:"propose,omitempty"`
	QueryWould string   `json:"queryWouldBe,omitempty"`
	KeyWould   []string `json:"parametersWouldBe,omitempty"`
	// Evidence by parameter, those with most to gain first.
	Evidence []Evidence `json:"evidence"`
	// Echoes are what came back in answers, and is in no key.
	Echoes []Echo `json:"echoes,omitempty"`
}

// Evidence is what is known of a parameter. Of a pair of answers both were of one path, fetched within five minutes and
// the lifetime of the first.
type Evidence struct {
	Name string `json:"name"`
	// Verdict is propose, watch (not enough is known), counts (an answer changed with it) or left-out (it is in no key).
	Verdict string `json:"verdict"`
	// Marketing says that it is one of @marketing.
	Marketing bool `json:"marketing,omitempty"`
	// Same are pairs of answers that were the same though it differed; Values and Paths of how many values and
	// paths, by an estimate.
	Same   int64 `json:"same"`
	Values int   `json:"values"`
	Paths  int   `json:"paths"`
	// Differ are pairs that were not the same, and differed in nothing else; Mixed those that differed in more.
	Differ int64 `json:"differ"`
	Mixed  int64 `json:"mixed"`
	// Spare are fetches that would have been hits without it, and without others; Alone those without it alone.
	Spare int64 `json:"spare"`
	Alone int64 `json:"alone"`
	// The first answer that changed with it: the path, and the value that made it another.
	Path  string `json:"path,omitempty"`
	Value string `json:"value,omitempty"`
}

// Echo is something of a request that came back in its answer, so that the answer was not stored.
type Echo struct {
	Kind  string    `json:"kind"` // cookie, parameter or header
	Name  string    `json:"name"`
	Path  string    `json:"path"` // the last one
	Times int64     `json:"times"`
	Last  time.Time `json:"last"`
}

// Keys tells what was learned of parameters, of one site or, when it is empty, of all.
func (s *Stage) Keys(site string) []KeyReport {
	s.learner.mu.Lock()
	var list []*learned
	for _, d := range s.learner.all {
		if site == "" || d.site == site {
			list = append(list, d)
		}
	}
	s.learner.mu.Unlock()
	out := []KeyReport{}
	for _, d := range list {
		if r := d.report(); len(r.Evidence) > 0 || len(r.Echoes) > 0 || site != "" {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b KeyReport) int {
		return cmp.Or(strings.Compare(a.Site, b.Site), strings.Compare(a.Policy, b.Policy))
	})
	return out
}

func (d *learned) report() KeyReport {
	key := d.key.Load()
	k := newKeyer(key)
	good, looked := d.stats.looked()
	d.mu.Lock()
	defer d.mu.Unlock()
	r := KeyReport{
		Site: d.site, Policy: d.policy, Began: d.began, Query: cmp.Or(key.Query, "all"), Key: key.Parameters,
		LookedUp: looked - d.looked, Spare: d.spare, Evidence: []Evidence{}, Echoes: slices.Clone(d.echoes),
	}
	if r.LookedUp > 0 {
		r.HitRatio = float64(good-d.good) / float64(r.LookedUp)
		r.WouldBe = float64(min(good-d.good+d.spare, r.LookedUp)) / float64(r.LookedUp)
	}
	for _, n := range d.names {
		r.Evidence = append(r.Evidence, n.evidence(k))
	}
	slices.SortFunc(r.Evidence, func(a, b Evidence) int {
		return cmp.Or(cmp.Compare(b.Spare, a.Spare), cmp.Compare(b.Same, a.Same), strings.Compare(a.Name, b.Name))
	})
	r.propose(k)
	return r
}

func (n *seenName) evidence(k *keyer) Evidence {
	e := Evidence{
		Name: n.name, Marketing: isMarketing(n.name), Verdict: "watch",
		Same: n.same, Values: n.values.count(), Paths: n.paths.count(), Differ: n.against, Mixed: n.mixed,
		Spare: n.spare, Alone: n.alone, Path: n.path, Value: n.b,
	}
	switch {
	case n.against > 0:
		e.Verdict = "counts"
	case k.query == "none" || (k.query == "listed" || k.query == "except") && !k.counts([]byte(n.name)):
		e.Verdict = "left-out"
	case !plain(n.name) || 4*n.mixed > n.same:
	case n.same >= enoughPairs && e.Values >= enoughValues && e.Paths >= enoughPaths, e.Marketing && n.same > 0:
		e.Verdict = "propose"
	}
	return e
}

// plain says whether a name can stand in a policy as it is.
func plain(name string) bool {
	return name != "" && name[0] != '@' && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == '*' })
}

func isMarketing(name string) bool {
	return slices.ContainsFunc(marketing[:], func(q parameter) bool { return q.is([]byte(name)) })
}

// propose makes the proposal: @marketing stands for those in it, unless an answer changed with one of them.
func (r *KeyReport) propose(k *keyer) {
	whole := !slices.ContainsFunc(r.Evidence, func(e Evidence) bool { return e.Marketing && e.Verdict == "counts" })
	for _, e := range r.Evidence {
		name := e.Name
		if e.Marketing && whole && k.query != "listed" {
			name = v1.MarketingParameters
		}
		if e.Verdict == "propose" && !slices.Contains(r.Propose, name) {
			r.Propose = append(r.Propose, name)
		}
	}
	slices.Sort(r.Propose)
	switch {
	case len(r.Propose) == 0:
	case k.query == "listed":
		r.QueryWould, r.KeyWould = "listed", slices.DeleteFunc(slices.Clone(r.Key), func(p string) bool { return slices.Contains(r.Propose, p) })
		if len(r.KeyWould) == 0 {
			r.QueryWould = "none"
		} else if len(r.KeyWould) == len(r.Key) { // they are there by how they begin
			r.Propose, r.QueryWould, r.KeyWould = nil, "", nil
		}
	default:
		r.QueryWould, r.KeyWould = "except", r.Propose
		if k.query == "except" {
			r.KeyWould = append(slices.Clone(r.Key), r.Propose...)
		}
	}
}
