package apiguard

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/openapi"
)

// maxRows bounds a table.
const maxRows = 512

// table counts requests by method and template.
type table struct {
	since time.Time

	mu    sync.Mutex
	rows  map[string]*row // by method, a space and the template
	buf   []byte
	found int // rows that are of no document
	// others counts requests that got no row.
	others, evicted uint64
	unchecked       []string
}

// row is one endpoint. Its counts are added without a lock.
type row struct {
	method, template string
	inDocument       bool
	seen             atomic.Uint64
	status           [6]atomic.Uint64 // by hundreds
	maybe            uint64           // how much of seen may belong to rows that are gone; guarded by the table
	last             atomic.Int64     // Unix seconds
}

func newTable(now time.Time) *table { return &table{since: now, rows: map[string]*row{}} }

// table gives the table of a site's policy.
func (s *Stage) table(site, policy string) *table {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := site + "\x00" + policy
	t := s.tables[key]
	if t == nil {
		t = newTable(time.Now())
		s.tables[key] = t
	}
	return t
}

// keep forgets the tables of a site's policies that are gone.
func (s *Stage) keep(site string, now *part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.tables {
		if of, policy, _ := strings.Cut(key, "\x00"); of == site && (now.named[policy] == nil || now.named[policy].table == nil) {
			delete(s.tables, key)
		}
	}
}

// Forget drops the tables of sites that there are no more.
func (s *Stage) Forget(there func(site string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.tables {
		if of, _, _ := strings.Cut(key, "\x00"); !there(of) {
			delete(s.tables, key)
		}
	}
}

// hit is one request's answer, and when it came, in Unix seconds.
type hit struct {
	status int
	now    int64
}

func (r *row) count(status int, now int64) {
	r.seen.Add(1)
	r.status[min(max(status/100, 0), 5)].Add(1)
	if r.last.Load() < now {
		r.last.Store(now)
	}
}

// documented makes rows for the operations of a document, beside the bound of those that are found, and gives them.
// Rows that were of another document, and were asked for, are found ones now.
func (t *table) documented(api *openapi.API) []*row {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, r := range t.rows {
		if r.inDocument = false; r.seen.Load() == 0 {
			delete(t.rows, key)
		}
	}
	var out []*row
	t.unchecked = nil
	if api != nil {
		t.unchecked = api.Unchecked
		out = make([]*row, len(api.Operations))
		for i, o := range api.Operations {
			key := o.Method + " " + o.Template
			r := t.rows[key]
			if r == nil {
				r = &row{method: o.Method, template: o.Template}
				t.rows[key] = r
			}
			r.inDocument = true
			out[i] = r
		}
	}
	t.trim()
	return out
}

// trim gives up the rows that are found beyond the bound, those with the fewest requests first.
func (t *table) trim() {
	var found []*row
	for _, r := range t.rows {
		if !r.inDocument {
			found = append(found, r)
		}
	}
	if t.found = len(found); t.found <= maxRows {
		return
	}
	slices.SortFunc(found, func(a, b *row) int {
		if a.good() != b.good() {
			if a.good() {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.seen.Load(), a.seen.Load())
	})
	for _, r := range found[maxRows:] {
		delete(t.rows, r.method+" "+r.template)
		t.evicted++
	}
	t.found = maxRows
}

// maxMethod bounds the name of a method in a row.
const maxMethod = 16

// count counts a request that has no row of a document: one that is counted already costs no allocation.
func (t *table) count(method, path []byte, template string, h hit) {
	t.mu.Lock()
	t.buf = append(append(t.buf[:0], method[:min(len(method), maxMethod)]...), ' ')
	if template != "" {
		t.buf = append(t.buf, template...)
	} else {
		t.buf = appendTemplate(t.buf, path)
	}
	r := t.rows[string(t.buf)]
	if r == nil {
		r = t.enter(string(t.buf), h.status)
	}
	t.mu.Unlock()
	if r != nil {
		r.count(h.status, h.now)
	}
}

// enterEvery is how many requests without a row bring about a look for one to give up: the look is long, and who
// asks for paths that nobody has must not make it be taken each time.
const enterEvery = 8

// enter makes a row, in place of the one with the fewest requests when the table is full. One that was only
// answered with errors goes before one that was not, and makes no room for itself at the cost of that: who looks
// for holes washes nothing away. It is nil when there is no row for the request.
func (t *table) enter(key string, status int) *row {
	method, template, _ := strings.Cut(key, " ")
	r := &row{method: method, template: template}
	if t.found >= maxRows {
		if t.others++; t.others%enterEvery != 0 {
			return nil
		}
		least := t.least()
		if status >= 400 && least.good() {
			return nil
		}
		delete(t.rows, least.method+" "+least.template)
		t.evicted++
		t.found--
		r.maybe = least.seen.Load()
		r.seen.Store(r.maybe)
	}
	t.rows[key] = r
	t.found++
	return r
}

func (t *table) least() (least *row) {
	for _, o := range t.rows {
		switch {
		case o.inDocument:
		case least == nil, least.good() && !o.good(), least.good() == o.good() && o.seen.Load() < least.seen.Load():
			least = o
		}
	}
	return least
}

// good says whether somebody got an answer that was no error.
func (r *row) good() bool { return r.status[2].Load()+r.status[3].Load() > 0 }

// Endpoint is one row of a table.
type Endpoint struct {
	Method   string `json:"method"`
	Template string `json:"template"`
	// Documented says that the OpenAPI document has it.
	Documented bool   `json:"documented"`
	Requests   uint64 `json:"requests"`
	// Uncertain is how many of Requests may belong to endpoints that gave way.
	Uncertain uint64 `json:"uncertain,omitempty"`
	// Status are answers by class: none, 1xx, 2xx, 3xx, 4xx, 5xx.
	Status [6]uint64 `json:"status"`
	Last   time.Time `json:"last,omitzero"`
}

// Report is what is known of the endpoints under a policy.
type Report struct {
	Site   string    `json:"site"`
	Policy string    `json:"policy"`
	Since  time.Time `json:"since"`
	// Unchecked names what of the OpenAPI document is not held against requests.
	Unchecked []string `json:"unchecked,omitempty"`
	// GaveWay is how many rows were given up for others.
	GaveWay uint64 `json:"gaveWay,omitempty"`
	// Others counts requests that got no row since the table is full.
	Others    uint64     `json:"others,omitempty"`
	Endpoints []Endpoint `json:"endpoints"`
}

// Endpoints lists what is known of a site, the most used first; ok is false when the site has no ApiPolicy with
// discovery, or nobody asked for it yet.
func (s *Stage) Endpoints(site string) (reports []Report, ok bool) {
	s.mu.Lock()
	var keys []string
	for key := range s.tables {
		if of, _, _ := strings.Cut(key, "\x00"); of == site {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	tables := make([]*table, len(keys))
	for i, k := range keys {
		tables[i] = s.tables[k]
	}
	s.mu.Unlock()
	for i, t := range tables {
		_, policy, _ := strings.Cut(keys[i], "\x00")
		r := t.report()
		r.Site, r.Policy = site, policy
		reports = append(reports, r)
	}
	return reports, len(reports) > 0
}

func (t *table) report() Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := Report{Since: t.since, GaveWay: t.evicted, Others: t.others, Unchecked: t.unchecked, Endpoints: []Endpoint{}}
	for _, o := range t.rows {
		e := Endpoint{Method: o.method, Template: o.template, Documented: o.inDocument, Requests: o.seen.Load(), Uncertain: o.maybe}
		for i := range o.status {
			e.Status[i] = o.status[i].Load()
		}
		if at := o.last.Load(); at > 0 {
			e.Last = time.Unix(at, 0).UTC()
		}
		r.Endpoints = append(r.Endpoints, e)
	}
	slices.SortFunc(r.Endpoints, func(a, b Endpoint) int {
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Template, b.Template), cmp.Compare(a.Method, b.Method))
	})
	return r
}
