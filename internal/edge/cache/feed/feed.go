package feed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/observe"
)

// Receipt is what a Purger did. Numbers are those of the things, in their order, and rise.
type Receipt struct {
	Numbers []uint64
	Holds   time.Time
	// Kept is false when the purges hold but would be forgotten by a restart.
	Kept bool
}

// Purger purges for the feed.
type Purger interface {
	// Mapping is that of a site; an error when it is not served here or has no feed.
	Mapping(site string) (*Mapping, error)
	// Check says why a thing cannot be purged, or nil.
	Check(site string, t Thing) error
	// Purge purges up to MaxThings things that were checked. It returns when they hold and are kept.
	Purge(ctx context.Context, site string, things []Thing, soft bool) (*Receipt, error)
}

// MaxThings bounds one call of Purge.
const MaxThings = 1000

const (
	maxSites   = 1024
	keepNames  = 1 << 20 // of all sites together
	maxLabel   = 80
	maxSeries  = 1024
	maxRefused = 20
	// aheadBy is how far the time of an event may be ahead of our clock.
	aheadBy = time.Second
)

// Ack says what became of the lines of a request. All but Refused were taken, and need not be sent again.
type Ack struct {
	Lines int `json:"lines"`
	// Purged is how many events purged, Repeated were taken before, Older were overtaken by a newer one.
	Purged   int `json:"purged"`
	Repeated int `json:"repeated"`
	Older    int `json:"older"`
	Refused  int `json:"refused"`
	// Reasons are the first few of what was refused.
	Reasons []Refusal `json:"reasons,omitempty"`
	// Holds is from when all of it holds.
	Holds time.Time `json:"holds"`
}

// Refusal says what is wrong with a line; the first line is 1.
type Refusal struct {
	Line int    `json:"line"`
	Why  string `json:"why"`
}

// Feed takes events.
type Feed struct {
	purger Purger
	orders *orders
	seed   maphash.Seed
	m      *metrics

	mu    sync.Mutex
	sites map[string]*site
}

// site is the feed of a site.
type site struct {
	key  string
	take sync.Mutex // one batch at a time, so that events keep their order

	lags *lags
	m    siteMetrics

	mu   sync.Mutex
	sums Sums
	last time.Time
}

// Sums are counts since the start.
type Sums struct {
	Events   int64 `json:"events"`
	Purged   int64 `json:"purged"`
	Repeated int64 `json:"repeated"`
	Older    int64 `json:"older"`
	Refused  int64 `json:"refused"`
	// Ahead are events from the future: their time was taken to be that of their coming.
	Ahead int64 `json:"ahead"`
}

// Status is how the feed of a site is.
type Status struct {
	Site string `json:"site"`
	Sums
	LastEvent *time.Time `json:"lastEvent,omitempty"`
	Lag       Lag        `json:"lag"`
}

type metrics struct {
	events *observe.Family[observe.Counter]
	lag    *observe.Family[observe.Gauge]
	held   observe.Histogram
	late   *observe.Family[observe.Counter]
}

type siteMetrics struct {
	purged, repeated, older, refused observe.Counter
}

// New returns a feed. It starts nothing.
func New(purger Purger, r *observe.Registry) *Feed {
	return &Feed{purger: purger, orders: newOrders(keepNames), seed: maphash.MakeSeed(), sites: map[string]*site{}, m: &metrics{
		events: r.Counters("relais_cache_feed_events_total", "Events of the price and stock feed, by what became of them.", 4*maxSeries, "site", "result"),
		lag:    r.Gauges("relais_cache_feed_lag_seconds", "For how long prices left that were no longer true: of the last events, and the oldest of five minutes.", 4*maxSeries, "site", "of"),
		held: r.Histograms("relais_cache_feed_held_seconds", "From the time of an event until its purge held.", 1,
			[]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60, 600}).With(),
		late: r.Counters("relais_cache_feed_late_total", "Answers that left although a purge of the feed, which held, named them.", maxSeries, "site"),
	}}
}

var errSites = fmt.Errorf("more than %d sites have a feed in this edge", maxSites)

// site finds or makes the state of a site; nil where there are too many.
func (f *Feed) site(key string, make bool) *site {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sites[key]
	if s == nil && make && len(f.sites) < maxSites {
		s = &site{key: key, lags: newLags(f.m.late.With(key)), m: siteMetrics{
			purged: f.m.events.With(key, "purged"), repeated: f.m.events.With(key, "repeated"),
			older: f.m.events.With(key, "older"), refused: f.m.events.With(key, "refused"),
		}}
		f.sites[key] = s
	}
	return s
}

// numbered is an event with its line.
type numbered struct {
	*parsed
	line   int
	things []Thing
}

// Take takes the events of up to MaxLines lines; def is the key of the site of those that name none, and key
// makes a key of a name. It returns when all that was taken holds and is kept. After an error nothing is known
// of those that are not in the Ack, and all are to be sent again.
func (f *Feed) Take(ctx context.Context, def string, key func(string) string, lines [][]byte) (*Ack, error) {
	if len(lines) > MaxLines {
		return nil, fmt.Errorf("%d lines are more than %d in one request", len(lines), MaxLines)
	}
	ack := &Ack{}
	now := time.Now()
	bySite := map[string][]numbered{}
	var sites []string
	for i, line := range lines {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		ack.Lines++
		p, err := parse(line, now)
		at := def
		if err == nil && p.Site != "" {
			at = key(p.Site)
		}
		if err == nil && at == "" {
			err = errors.New("names no site, and the request does neither")
		}
		if err != nil {
			ack.refuse(i+1, err)
			continue
		}
		if bySite[at] == nil {
			sites = append(sites, at)
		}
		bySite[at] = append(bySite[at], numbered{parsed: p, line: i + 1})
	}
	for _, at := range sites {
		if err := f.takeSite(ctx, at, bySite[at], ack, now); err != nil {
			return ack, err
		}
	}
	if ack.Holds.IsZero() {
		ack.Holds = now
	}
	return ack, nil
}

func (a *Ack) refuse(line int, err error) {
	a.Refused++
	if len(a.Reasons) < maxRefused {
		a.Reasons = append(a.Reasons, Refusal{line, err.Error()})
	}
}

// takeSite takes the events of one site.
func (f *Feed) takeSite(ctx context.Context, key string, list []numbered, ack *Ack, now time.Time) error {
	m, err := f.purger.Mapping(key)
	s := f.site(key, err == nil)
	if err == nil && s == nil {
		err = errSites
	}
	if err != nil {
		for i := range list {
			ack.refuse(list[i].line, err)
		}
		return nil
	}
	s.take.Lock()
	defer s.take.Unlock()
	var sums Sums
	sums.Events = int64(len(list))
	refused := ack.Refused
	// Of several events of one name in a batch the newest is what counts.
	latest := map[string]order{}
	var fresh []numbered
	for i := range list {
		e := &list[i]
		name := e.name()
		v := f.orders.judge(key, name, e.order)
		if l, ok := latest[name]; ok && v == newer {
			v = e.order.against(l)
		}
		switch v {
		case same:
			ack.Repeated++
			sums.Repeated++
			continue
		case older:
			ack.Older++
			sums.Older++
			continue
		}
		if err := f.prepare(key, m, e); err != nil {
			ack.refuse(e.line, err)
			continue
		}
		if e.at.After(now.Add(aheadBy)) {
			sums.Ahead++
		}
		if e.at.After(now) {
			e.at = now
		}
		if !e.order.none {
			latest[name] = e.order
		}
		fresh = append(fresh, *e)
	}
	sums.Refused = int64(ack.Refused - refused)
	for len(fresh) > 0 && err == nil {
		n, things := 0, []Thing(nil)
		for n < len(fresh) && len(things)+len(fresh[n].things) <= MaxThings {
			things = append(things, fresh[n].things...)
			n++
		}
		if err = f.purge(ctx, s, fresh[:n], things, m.Soft, ack); err == nil {
			sums.Purged += int64(n)
		}
		fresh = fresh[n:]
	}
	s.count(&sums, now)
	return err
}

// cut shortens a name for people.
func cut(name string) string {
	if len(name) > maxLabel {
		return strings.ToValidUTF8(name[:maxLabel], "") + "…"
	}
	return name
}

// prepare finds what an event purges.
func (f *Feed) prepare(key string, m *Mapping, e *numbered) error {
	e.things = m.things(e.parsed)
	if len(e.things) == 0 {
		return errors.New("the site's feed maps a sku to nothing")
	}
	for _, t := range e.things {
		if err := f.purger.Check(key, t); err != nil {
			return err
		}
	}
	return nil
}

// purge purges the things of events, and only then counts those as taken. S.take is held.
func (f *Feed) purge(ctx context.Context, s *site, list []numbered, things []Thing, soft bool, ack *Ack) error {
	r, err := f.purger.Purge(ctx, s.key, things, soft)
	if r != nil && len(r.Numbers) == len(things) { // it holds, kept or not
		changes := make([]change, 0, len(list))
		at := 0
		for i := range list {
			e := &list[i]
			n := len(e.things)
			changes = append(changes, change{
				first: r.Numbers[at], last: r.Numbers[at+n-1], at: e.at, held: r.Holds,
				label: cut(e.label()), name: maphash.String(f.seed, e.name()),
			})
			at += n
			f.m.held.Observe(max(r.Holds.Sub(e.at).Seconds(), 0))
		}
		s.lags.add(changes)
		if r.Holds.After(ack.Holds) {
			ack.Holds = r.Holds
		}
	}
	if err == nil && (r == nil || !r.Kept) {
		err = errors.New("the purges hold, but could not be written to the log")
	}
	if err != nil {
		return fmt.Errorf("site %s: %w; send the events again", s.key, err)
	}
	for i := range list {
		f.orders.note(s.key, list[i].name(), list[i].order)
	}
	ack.Purged += len(list)
	return nil
}

func (s *site) count(n *Sums, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.sums
	t.Events += n.Events
	t.Purged += n.Purged
	t.Repeated += n.Repeated
	t.Older += n.Older
	t.Refused += n.Refused
	t.Ahead += n.Ahead
	s.last = now
	s.m.purged.Add(float64(n.Purged))
	s.m.repeated.Add(float64(n.Repeated))
	s.m.older.Add(float64(n.Older))
	s.m.refused.Add(float64(n.Refused))
}

// Left notes that an answer left the edge although the purge of the number names it; born is the number of the
// last purge when the answer was asked for.
func (f *Feed) Left(key string, number, born uint64, at time.Time) {
	if s := f.site(key, false); s != nil {
		s.lags.depart(departed{number, born, at})
	}
}

// Status tells how the feeds are, of one site or, when key is empty, of all.
func (f *Feed) Status(key string) []Status {
	f.mu.Lock()
	var list []*site
	for k, s := range f.sites {
		if key == "" || key == k {
			list = append(list, s)
		}
	}
	f.mu.Unlock()
	slices.SortFunc(list, func(a, b *site) int { return strings.Compare(a.key, b.key) })
	out := []Status{}
	for _, s := range list {
		s.mu.Lock()
		st := Status{Site: s.key, Sums: s.sums}
		if !s.last.IsZero() {
			last := s.last
			st.LastEvent = &last
		}
		s.mu.Unlock()
		st.Lag = s.lags.summary(time.Now())
		out = append(out, st)
	}
	return out
}

// Run keeps the gauges of lags current until ctx ends.
func (f *Feed) Run(ctx context.Context) error {
	t := time.NewTicker(5 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			for _, st := range f.Status("") {
				oldest := 0.0
				if st.Lag.Oldest != nil {
					oldest = st.Lag.Oldest.Seconds
				}
				f.m.lag.With(st.Site, "p50").Set(st.Lag.P50)
				f.m.lag.With(st.Site, "p99").Set(st.Lag.P99)
				f.m.lag.With(st.Site, "max").Set(st.Lag.Max)
				f.m.lag.With(st.Site, "oldest").Set(oldest)
			}
		}
	}
}
