package refill

import (
	"cmp"
	"context"
	"strings"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/observe"
)

// Target is a request to make.
type Target struct {
	Site string
	// URL is whole, such as https://shop.example/a?b.
	URL string
	// Fields of the request, "Name: value": those that choose the variant.
	Fields []string
	// Variant is the form of a picture, as keys have it behind the URL; empty where the URL says all.
	Variant string
	// Linked says that another answer named it, so that what it names is left alone.
	Linked bool
}

// name tells targets of a site apart.
func (t *Target) name() string { return t.URL + " " + t.Variant + "\n" + strings.Join(t.Fields, "\n") }

// Result is what became of a fetch.
type Result uint8

// The results.
const (
	Failed    Result = iota // no answer, or one with a status of 400 and more
	Stored                  // fetched, or found to be still good, and stored
	Fresh                   // there was a fresh answer already
	NotStored               // the answer may not be stored
	NoRoom                  // the origins have no room to spare now
)

var resultNames = [...]string{"failed", "stored", "fresh", "not_stored", "no_room"}

// String returns the result as counters show it.
func (r Result) String() string { return resultNames[r] }

// Outcome of a fetch.
type Outcome struct {
	Result Result
	// Why says more of what failed; for people.
	Why string
	// Links are URLs of the same site that the answer says will be wanted.
	Links []string
}

// Fetcher makes requests as a visitor's would be made, but as work that nobody waits for. It is called by
// several goroutines at once and must not panic.
type Fetcher interface {
	Fetch(ctx context.Context, t *Target) Outcome
}

// Finder knows which of the answers asked for most a purge ended, that are not fetched again yet: those of the
// purges from number on, the hottest first, n at most.
type Finder interface {
	Ended(site string, number uint64, n int) []Target
}

// Limits of a site.
type Limits struct {
	// Rate is fetches in a second, InFlight how many at once.
	Rate     int
	InFlight int
	// Objects bounds what one look after a purge adds, and what the links of one answer do.
	Objects int
	// Links says that what an answer names is fetched too.
	Links bool
}

// Lane says how urgent a target is.
type Lane uint8

// The lanes. What was purged goes before what a list names.
const (
	Purged Lane = iota
	Listed
	lanes
)

// Config of a Queue. The zero value of a field means its default.
type Config struct {
	// InFlight bounds the fetches of all sites together; 16 by default.
	InFlight int
	// Waiting bounds the targets that wait, of all sites together; 100,000 by default. One site may have
	// half of that.
	Waiting int
	// Look is the least time between two looks for what purges of a site ended; 200 ms by default.
	Look time.Duration
	// Timeout is the time for one fetch with its body; 60 s by default.
	Timeout time.Duration
}

const (
	maxJobs  = 1000
	maxSites = 4096
	// maxTries is how often a target is tried that found no room.
	maxTries = 8
	// firstRest doubles up to lastRest, while a site finds no room.
	firstRest = 250 * time.Millisecond
	lastRest  = 8 * time.Second
)

// Queue is what is to be fetched. Run fetches.
type Queue struct {
	cfg     Config
	fetcher Fetcher
	finder  Finder
	m       *metrics
	wake    chan struct{}

	mu      sync.Mutex
	sites   map[string]*site
	order   []*site // round robin over them
	turn    int
	waiting int
	running int
	jobs    []*Progress
	last    uint64
	closed  bool
}

// site is what waits of one site.
type site struct {
	key    string
	limits Limits
	lanes  [lanes][]*item
	known  map[string]*item // that wait or run, by name
	flying int
	next   time.Time // when the rate allows the next fetch
	rest   time.Time // until when it rests for want of room
	pause  time.Duration
	look   *looking
	looked time.Time
}

// looking is a look to be taken for what purges ended.
type looking struct {
	number uint64
	job    *Progress
	n      int
}

// item is a target that waits or runs.
type item struct {
	Target
	job   *Progress
	lane  Lane
	tries int
	runs  bool
	again bool // it was asked for again while it ran
}

type metrics struct {
	fetches [len(resultNames)]observe.Counter
	dropped observe.Counter
}

// New returns a queue. It starts nothing.
func New(cfg Config, fetcher Fetcher, finder Finder, r *observe.Registry) *Queue {
	cfg.InFlight = cmp.Or(cfg.InFlight, 16)
	cfg.Waiting = cmp.Or(cfg.Waiting, 100_000)
	cfg.Look = cmp.Or(cfg.Look, 200*time.Millisecond)
	cfg.Timeout = cmp.Or(cfg.Timeout, time.Minute)
	q := &Queue{cfg: cfg, fetcher: fetcher, finder: finder, wake: make(chan struct{}, 1), sites: map[string]*site{}, m: &metrics{}}
	f := r.Counters("relais_cache_refill_total", "Answers fetched in the background after purges and for lists, by what became of them.", len(resultNames)+1, "result")
	for i, name := range resultNames {
		q.m.fetches[i] = f.With(name)
	}
	q.m.dropped = f.With("dropped")
	r.GaugeFunc("relais_cache_refill_waiting", "Background fetches that wait.", func() float64 { n, _ := q.Load(); return float64(n) })
	r.GaugeFunc("relais_cache_refill_running", "Background fetches under way.", func() float64 { _, n := q.Load(); return float64(n) })
	return q
}

// Load is how much waits and runs.
func (q *Queue) Load() (waiting, running int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting, q.running
}

// Add has targets of a site fetched, and returns the job's number. What is on its way already is not added.
// Job is that of an earlier call to add to, or 0 for a new one.
func (q *Queue) Add(key string, limits Limits, job uint64, targets []Target) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	var p *Progress
	for _, j := range q.jobs {
		if j.ID == job && j.Site == key {
			p = j
		}
	}
	if p == nil {
		p = q.open(key, false)
	}
	p.Ended = nil
	if s := q.site(key, limits); s != nil {
		for _, t := range targets {
			q.put(s, &item{Target: t, job: p, lane: Listed})
		}
	} else {
		p.Total += len(targets)
		p.Dropped += len(targets)
		q.m.dropped.Add(float64(len(targets)))
	}
	p.closeIfDone()
	q.kick()
	return p.ID
}

// After has the hottest of what purges of the site from number on ended be fetched again, and returns the
// job's number. Purges that come soon after each other share a look and a job.
func (q *Queue) After(key string, limits Limits, number uint64) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.site(key, limits)
	if s == nil {
		p := q.open(key, false)
		p.Total, p.Dropped = 1, 1 // the look
		q.m.dropped.Inc()
		p.closeIfDone()
		return p.ID
	}
	if s.look == nil {
		s.look = &looking{number: number, job: q.open(key, true), n: limits.Objects}
		q.kick()
	}
	s.look.number, s.look.n = min(s.look.number, number), max(s.look.n, limits.Objects)
	return s.look.job.ID
}

// site finds or makes the state of a site; nil when there are too many. The lock is held.
func (q *Queue) site(key string, limits Limits) *site {
	s := q.sites[key]
	if s == nil {
		if q.closed || len(q.sites) >= maxSites {
			return nil
		}
		s = &site{key: key, known: map[string]*item{}}
		q.sites[key] = s
		q.order = append(q.order, s)
	}
	limits.Rate, limits.InFlight = max(limits.Rate, 1), max(limits.InFlight, 1)
	s.limits = limits
	return s
}

// put adds an item. The lock is held.
func (q *Queue) put(s *site, it *item) {
	p := it.job
	p.Total++
	if old := s.known[it.name()]; old != nil {
		// Its answer may have been asked for before what made us ask again.
		old.again = old.again || old.runs && it.lane == Purged
		p.Same++
		return
	}
	if q.closed || q.waiting >= q.cfg.Waiting || len(s.known) >= max(q.cfg.Waiting/2, 1) {
		p.Dropped++
		q.m.dropped.Inc()
		return
	}
	s.known[it.name()] = it
	s.lanes[it.lane] = append(s.lanes[it.lane], it)
	p.Waiting++
	q.waiting++
}

// Close drops what waits, and takes nothing more: another process does the work now.
func (q *Queue) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.waiting = true, 0
	for _, s := range q.order {
		for i := range s.lanes {
			for _, it := range s.lanes[i] {
				it.job.Waiting--
				it.job.Dropped++
				delete(s.known, it.name())
				it.job.closeIfDone()
			}
			s.lanes[i] = nil
		}
		if s.look != nil {
			s.look.job.Looking = false
			s.look.job.closeIfDone()
			s.look = nil
		}
	}
}

// kick wakes Run.
func (q *Queue) kick() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Run fetches until ctx ends, and then waits for what is under way, which ctx ends too.
func (q *Queue) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		q.takeLooks()
		q.mu.Lock()
		s, it, wait := q.pick(time.Now())
		q.mu.Unlock()
		if it != nil {
			wg.Go(func() { q.fetch(ctx, s, it) })
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-q.wake:
		case <-timer.C:
		}
	}
	return nil
}

// pick finds what is to be fetched now and takes it out of its lane, or says how long there is nothing to do.
// The lock is held.
func (q *Queue) pick(now time.Time) (*site, *item, time.Duration) {
	wait := time.Hour
	full := q.running >= q.cfg.InFlight
	for i := 0; i < len(q.order); i++ {
		at := (q.turn + i) % len(q.order)
		s := q.order[at]
		if s.look != nil {
			wait = min(wait, max(s.looked.Add(q.cfg.Look).Sub(now), time.Millisecond))
		}
		lane := s.first()
		if lane == nil {
			if s.flying == 0 && s.look == nil && now.Sub(s.next) > time.Minute && now.Sub(s.looked) > time.Minute {
				q.forget(at)
				i--
			}
			continue
		}
		if full || s.flying >= s.limits.InFlight {
			continue // the end of a fetch wakes us
		}
		if d := max(s.next.Sub(now), s.rest.Sub(now)); d > 0 {
			wait = min(wait, d)
			continue
		}
		it := (*lane)[0]
		(*lane)[0] = nil
		*lane = (*lane)[1:]
		q.turn = at + 1
		s.next = now.Add(time.Second / time.Duration(s.limits.Rate))
		s.flying++
		q.running++
		q.waiting--
		it.runs = true
		it.job.Waiting--
		it.job.Running++
		return s, it, 0
	}
	return nil, nil, max(wait, time.Millisecond)
}

// forget takes out a site of which nothing is left to do. The lock is held.
func (q *Queue) forget(at int) {
	delete(q.sites, q.order[at].key)
	q.order = append(q.order[:at], q.order[at+1:]...)
	if q.turn > at {
		q.turn--
	}
}

// first is the lane to take from; nil when nothing waits.
func (s *site) first() *[]*item {
	for i := range s.lanes {
		if len(s.lanes[i]) > 0 {
			return &s.lanes[i]
		}
	}
	return nil
}

// fetch makes one request.
func (q *Queue) fetch(ctx context.Context, s *site, it *item) {
	c, cancel := context.WithTimeout(ctx, q.cfg.Timeout)
	out := q.fetcher.Fetch(c, &it.Target)
	cancel()
	q.mu.Lock()
	defer q.mu.Unlock()
	defer q.kick()
	q.running--
	s.flying--
	it.runs = false
	it.job.Running--
	if out.Result == NoRoom {
		s.pause = min(max(2*s.pause, firstRest), lastRest)
		s.rest = time.Now().Add(s.pause)
		if it.tries++; it.tries < maxTries && ctx.Err() == nil && !q.closed {
			q.again(s, it)
			return
		}
	} else {
		s.pause = 0
	}
	q.m.fetches[out.Result].Inc()
	it.job.count(out.Result)
	if out.Result == Failed {
		it.job.fail(&it.Target, out.Why)
	}
	delete(s.known, it.name())
	if it.again && !q.closed {
		it.again, it.tries = false, 0
		it.job.Total++
		s.known[it.name()] = it
		q.again(s, it)
	} else if s.limits.Links && !it.Linked {
		for _, u := range out.Links[:min(len(out.Links), max(s.limits.Objects, 1))] {
			q.put(s, &item{Target: Target{Site: it.Site, URL: u, Fields: it.Fields, Linked: true}, job: it.job, lane: Listed})
		}
	}
	it.job.closeIfDone()
}

// again puts an item that ran back in front of its lane. The lock is held.
func (q *Queue) again(s *site, it *item) {
	s.lanes[it.lane] = append([]*item{it}, s.lanes[it.lane]...)
	it.job.Waiting++
	q.waiting++
}

// takeLooks looks for what purges ended, in each site for which it is time.
func (q *Queue) takeLooks() {
	type due struct {
		s *site
		l *looking
	}
	var list []due
	q.mu.Lock()
	now := time.Now()
	for _, s := range q.order {
		if s.look != nil && now.Sub(s.looked) >= q.cfg.Look {
			list = append(list, due{s, s.look})
			s.look, s.looked = nil, now
		}
	}
	q.mu.Unlock()
	for _, d := range list {
		targets := q.finder.Ended(d.s.key, d.l.number, d.l.n)
		q.mu.Lock()
		s := q.site(d.s.key, d.s.limits)
		d.l.job.Looking = false
		if s != nil {
			for _, t := range targets {
				q.put(s, &item{Target: t, job: d.l.job, lane: Purged})
			}
		}
		d.l.job.closeIfDone()
		q.mu.Unlock()
	}
}
