package trial

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Bounds of what is remembered of a site.
const (
	maxGroups  = 128
	maxNames   = 32
	maxReasons = 16
	// Enough is how many pages have to be compared before anything is said to be safe.
	Enough = 200
)

// evidence is what was found of one site. It outlives changes of the site.
type evidence struct {
	mu      sync.Mutex
	groups  map[groupKey]*group
	skipped map[string]int64
}

type groupKey struct{ route, paths string }

type group struct {
	compared, equal, attributed int64
	cookies                     map[string]*CookieEvidence
	reasons                     map[difference]int64
	forbidden, sets             int64
}

func newEvidence() *evidence {
	return &evidence{groups: map[groupKey]*group{}, skipped: map[string]int64{}}
}

// skip counts a page that could not be compared.
func (e *evidence) skip(why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.skipped) < maxReasons || e.skipped[why] > 0 {
		e.skipped[why]++
	}
}

// finding is what came of one page.
type finding struct {
	key     groupKey
	equal   bool
	why     difference // of one that is not equal and not explained by a cookie
	seen    []cookie   // those of the request
	changed []string   // which were tried and changed the page
	session []string   // which may have changed it, and were not sent again
	tried   []string   // which were tried
	sets    string     // the name of a cookie that the page for nobody sets
	forbids bool       // the origin does not want it stored
}

// add notes a finding.
func (e *evidence) add(f *finding) {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.groups[f.key]
	if g == nil {
		if len(e.groups) >= maxGroups {
			f.key = groupKey{paths: "(others)"}
			g = e.groups[f.key]
		}
		if g == nil {
			g = &group{cookies: map[string]*CookieEvidence{}, reasons: map[difference]int64{}}
			e.groups[f.key] = g
		}
	}
	switch {
	case f.equal:
		g.compared++
		g.equal++
		for _, c := range f.seen {
			g.cookie(c.name, func(c *CookieEvidence) { c.Seen++ })
		}
	case len(f.changed) > 0 || len(f.session) > 0:
		g.attributed++
		for _, n := range f.tried {
			g.cookie(n, func(c *CookieEvidence) { c.Seen++ })
		}
		for _, n := range f.changed {
			g.cookie(n, func(c *CookieEvidence) { c.Changed++ })
		}
		for _, n := range f.session {
			g.cookie(n, func(c *CookieEvidence) { c.Seen++; c.Changed++; c.Session = true })
		}
	default:
		g.compared++
		g.reason(f.why)
	}
	if f.sets != "" {
		g.sets++
		g.reason(difference{reasonCookie, f.sets})
	}
	if f.forbids {
		g.forbidden++
	}
}

func (g *group) cookie(name string, f func(*CookieEvidence)) {
	c := g.cookies[name]
	if c == nil {
		if len(g.cookies) >= maxNames {
			return
		}
		c = &CookieEvidence{Name: name}
		g.cookies[name] = c
	}
	f(c)
}

func (g *group) reason(d difference) {
	if len(g.reasons) < maxReasons || g.reasons[d] > 0 {
		g.reasons[d]++
	}
}

// CookieEvidence is what was found of a cookie.
type CookieEvidence struct {
	Name string `json:"name"`
	// Seen is in how many pages it was known whether it mattered, and Changed in how many it did.
	Seen    int64 `json:"seen"`
	Changed int64 `json:"changed"`
	// Session says that it looks like that of a session: it was not sent again, and is what is left to have
	// changed the page.
	Session bool `json:"session,omitempty"`
}

// Against is a reason not to cache.
type Against struct {
	// Reason is token (made anew for each request), content or set-cookie.
	Reason string `json:"reason"`
	Where  string `json:"where"`
	Count  int64  `json:"count"`
}

// Finding is what was found of a part of a site.
type Finding struct {
	Route string `json:"route"`
	Paths string `json:"paths"`
	// Compared are pages with those for nobody, but for those that a cookie explains; Equal of them were equal.
	Compared int64 `json:"compared"`
	Equal    int64 `json:"equal"`
	// ByCookie are pages that differed because of a cookie.
	ByCookie int64            `json:"byCookie"`
	Cookies  []CookieEvidence `json:"cookies,omitempty"`
	Against  []Against        `json:"against,omitempty"`
	// Forbidden are pages that the origin does not want stored (no-store, private).
	Forbidden int64 `json:"forbidden,omitempty"`
	// Safe says that it would be safe to cache for visitors without the cookies that matter.
	Safe   bool   `json:"safe"`
	Says   string `json:"says"`
	Policy string `json:"policy,omitempty"` // lines of a CachePolicy, where it is safe
}

// Report of a site.
type Report struct {
	Site     string           `json:"site"`
	Findings []Finding        `json:"findings"`
	Skipped  map[string]int64 `json:"skipped,omitempty"` // pages that could not be compared, by why
}

// report tells what was found, the most compared first.
func (e *evidence) report(site string) Report {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := Report{Site: site, Findings: []Finding{}, Skipped: maps.Clone(e.skipped)}
	for k, g := range e.groups {
		out.Findings = append(out.Findings, g.finding(k))
	}
	slices.SortFunc(out.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.Compared, a.Compared), strings.Compare(a.Paths, b.Paths), strings.Compare(a.Route, b.Route))
	})
	return out
}

func (g *group) finding(k groupKey) Finding {
	f := Finding{Route: k.route, Paths: k.paths, Compared: g.compared, Equal: g.equal, ByCookie: g.attributed, Forbidden: g.forbidden}
	for _, c := range g.cookies {
		f.Cookies = append(f.Cookies, *c)
	}
	slices.SortFunc(f.Cookies, func(a, b CookieEvidence) int {
		return cmp.Or(cmp.Compare(b.Changed, a.Changed), cmp.Compare(b.Seen, a.Seen), strings.Compare(a.Name, b.Name))
	})
	for d, n := range g.reasons {
		f.Against = append(f.Against, Against{d.reason, d.where, n})
	}
	slices.SortFunc(f.Against, func(a, b Against) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Reason+a.Where, b.Reason+b.Where))
	})
	f.Safe = g.compared >= Enough && g.equal == g.compared && g.sets == 0 && k.paths != "(others)"
	f.Says = f.words()
	if f.Safe {
		f.Policy = f.lines()
	}
	return f
}

// words is the verdict for people.
func (f *Finding) words() string {
	var b strings.Builder
	switch {
	case f.Safe:
		fmt.Fprintf(&b, "would be safe to cache %s for anonymous visitors: ", f.Paths)
	case f.Compared > f.Equal || len(f.Against) > 0:
		fmt.Fprintf(&b, "not safe to cache %s: ", f.Paths)
	default:
		fmt.Fprintf(&b, "too early to say of %s (%d pages are wanted): ", f.Paths, Enough)
	}
	fmt.Fprintf(&b, "%s of %s equal", thousands(f.Equal), thousands(f.Compared))
	for _, a := range f.Against {
		switch a.Reason {
		case reasonToken:
			fmt.Fprintf(&b, "; a token or nonce at %q in %s", a.Where, thousands(a.Count))
		case reasonCookie:
			fmt.Fprintf(&b, "; the origin sets cookie %s in %s", a.Where, thousands(a.Count))
		default:
			fmt.Fprintf(&b, "; differs at %q in %s", a.Where, thousands(a.Count))
		}
	}
	for _, c := range f.Cookies {
		if c.Changed == 0 {
			continue
		}
		fmt.Fprintf(&b, "; cookie %s changes %.0f %%", c.Name, 100*float64(c.Changed)/float64(max(c.Seen, 1)))
		if c.Session {
			b.WriteString(" (by exclusion: it looks like a session's and was not sent again)")
		}
	}
	if f.Forbidden > 0 {
		fmt.Fprintf(&b, "; the origin forbids to store %s", thousands(f.Forbidden))
	}
	return b.String()
}

// lines are those of a policy that would do it.
func (f *Finding) lines() string {
	var b strings.Builder
	prefix, below := strings.CutSuffix(f.Paths, "/*")
	how := "exact"
	if below {
		how = "prefix"
	}
	name := strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower("html"+prefix)), "-")
	fmt.Fprintf(&b, "# for a route with match: [{path: {%s: %q}}] and cache: %s\n", how, prefix, name)
	if f.Forbidden > 0 {
		b.WriteString("# the origin sends no-store or private: have it send CDN-Cache-Control: max-age=60 beside\n")
	}
	fmt.Fprintf(&b, "apiVersion: relais/v1\nkind: CachePolicy\nmetadata: {name: %s}\nspec:\n  defaultTTL: 60s\n", name)
	var names []string
	for _, c := range f.Cookies {
		if c.Changed > 0 {
			names = append(names, fmt.Sprintf("%q", c.Name))
		}
	}
	if len(names) > 0 {
		fmt.Fprintf(&b, "  key: {cookies: [%s]} # visitors with another value, or none, never share a page\n", strings.Join(names, ", "))
	}
	return b.String()
}

// thousands writes a number with commas.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
