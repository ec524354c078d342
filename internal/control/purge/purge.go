// Package purge gives purges their numbers, tells all PoPs, and knows which of them obey: DESIGN.md.
package purge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/edge/route"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/observe"
)

// Bounds.
const (
	// MaxEntries of one order.
	MaxEntries = 1000
	// MaxPops that acknowledgements are kept of.
	MaxPops = 4096
	// MaxWaiters for receipts, in one process.
	MaxWaiters = 1024
	// MaxBytes of an order's entries, as they are kept.
	MaxBytes = 1 << 20
	// maxWaiting bounds what waits for its turn in one process, maxTogether one commit.
	maxWaiting, maxWaitingBytes   = 20_000, 16 << 20
	maxTogether, maxTogetherBytes = 4000, 4 << 20
)

// Limits may be set; a zero field takes its default.
type Limits struct {
	PerMinute int           // entries of an organization in a minute; 10,000
	Entries   int64         // that the log keeps at most; 1,048,576
	Age       time.Duration // after which an entry goes; 7 days
}

// Config of a Service.
type Config struct {
	Store *store.Store
	Bus   bus.Bus
	// Name of this control plane, for people.
	Name    string
	Limits  Limits
	Logger  *slog.Logger
	Metrics *observe.Registry
}

// Errors of Purge, Receipt and Wait, beside the store's.
var (
	// ErrInvalid: the order is not well formed, or more than it may be.
	ErrInvalid = errors.New("purge: not possible")
	// ErrOften: the organization purged as much in this minute as it may.
	ErrOften = errors.New("purge: too many in a minute")
	// ErrBusy: too many wait already; the same may be tried again.
	ErrBusy = errors.New("purge: too many are waiting")
)

// Order is what somebody wants purged. Whoever makes one has found out that the author may: for the kind All, that he may
// purge everything of everybody.
type Order struct {
	Author       string
	Organization string
	// Project and Site are the document that all entries but those of kinds All and Organization are of.
	Project, Site string
	// Operator allows the kind All.
	Operator bool
	// Entries have no number, no time, and no site but that of the order, or none. Paths may be in any form; PoPs bring queries to what the
	// site's policies count of them.
	Entries []purge.Entry
}

// Service is a control plane's end of the log. Several may be at work on one store.
type Service struct {
	cfg     Config
	metrics metrics
	echo    *echo
	turn    chan struct{} // one commit at a time; who has the turn commits for all who wait

	mu      sync.Mutex
	queue   []*request
	queued  weight
	newest  fleet.PurgePosition
	claims  map[string]claim // of PoPs that say more than is known here
	pops    map[string]*place
	hearing time.Time     // since when; zero: not at all
	recent  []given       // the last ones of this process
	changed chan struct{} // closed and replaced whenever a receipt may be another
	waiters int
}

type metrics struct {
	entries, unsent, repeated, asked, forgotten, epochs, foreign, trimmed observe.Counter
	refused                                                               *observe.Family[observe.Counter]
	newest, pops, behind                                                  observe.Gauge
	obeyed                                                                observe.Histogram
}

// given is when a number was.
type given struct {
	number uint64
	time   time.Time
}

// request is an order that waits for its commit.
type request struct {
	order   *Order
	data    [][]byte // the entries
	weight  weight
	done    chan struct{}
	taken   bool
	receipt *Receipt
	err     error
}

// weight is how much there is of entries.
type weight struct{ entries, bytes int }

func (w weight) plus(o weight) weight  { return weight{w.entries + o.entries, w.bytes + o.bytes} }
func (w weight) minus(o weight) weight { return weight{w.entries - o.entries, w.bytes - o.bytes} }

func (w weight) beyond(entries, bytes int) bool { return w.entries > entries || w.bytes > bytes }

// New makes a Service; Run has it hear PoPs.
func New(cfg Config) *Service {
	l := &cfg.Limits
	if l.PerMinute <= 0 {
		l.PerMinute = 10_000
	}
	if l.Entries <= 0 {
		l.Entries = 1 << 20
	}
	if l.Age <= 0 {
		l.Age = 7 * 24 * time.Hour
	}
	m := cfg.Metrics
	counter := func(name, help string) observe.Counter { return m.Counters(name, help, 1).With() }
	s := &Service{cfg: cfg, turn: make(chan struct{}, 1), pops: map[string]*place{}, claims: map[string]claim{}, changed: make(chan struct{}), metrics: metrics{
		entries:   counter("relais_purge_entries_total", "Purges that got a number here."),
		unsent:    counter("relais_purge_unsent_total", "Purges that could not be sent at once; heartbeats make up for them."),
		repeated:  counter("relais_purge_repeated_total", "Messages that were sent again so that a loss before them is found at once."),
		asked:     counter("relais_purge_asked_total", "Questions of PoPs for purges that they had not."),
		forgotten: counter("relais_purge_forgotten_total", "PoPs that were told to take everything for purged: the log does not reach back to where they are."),
		epochs:    counter("relais_purge_epochs_total", "Epochs that were begun because a PoP obeyed more than was ever given."),
		foreign:   counter("relais_purge_foreign_total", "Messages of PoPs that are not well formed, or beyond what is kept."),
		trimmed:   counter("relais_purge_trimmed_total", "Entries of the log that went because of their age or number."),
		refused:   m.Counters("relais_purge_refused_total", "Orders that were refused, by reason: invalid, often, busy, store.", 4, "reason"),
		newest:    m.Gauges("relais_purge_newest", "Number of the newest purge that is known here.", 1).With(),
		pops:      m.Gauges("relais_purge_pops", "PoPs that are heard of.", 1).With(),
		behind:    m.Gauges("relais_purge_pops_behind", "PoPs that are heard of and do not obey the newest purge yet.", 1).With(),
		obeyed: m.Histograms("relais_purge_obeyed_seconds", "Time from the commit of a purge until a PoP was heard to obey it.", 1,
			[]float64{.005, .01, .025, .05, .1, .15, .2, .3, .5, 1, 2, 5, 10, 60}).With(),
	}}
	s.echo = newEcho(func(data []byte) {
		if cfg.Bus.Publish(bus.AllPurge, data) == nil {
			s.metrics.repeated.Inc()
		}
	})
	return s
}

// Newest is the position of the newest purge, for the answers to heartbeats.
func (s *Service) Newest() fleet.PurgePosition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest
}

// Purge gives numbers to what an order names, keeps them, and tells all PoPs. The receipt says which of them obey at this
// moment; Wait waits for the others. The errors are ErrInvalid, ErrOften, ErrBusy and those of the store; with
// store.ErrUncertain alone it may be that it was done.
func (s *Service) Purge(ctx context.Context, o *Order) (*Receipt, error) {
	r, err := s.purge(ctx, o)
	if err != nil && ctx.Err() == nil {
		reason := "store"
		switch {
		case errors.Is(err, ErrInvalid):
			reason = "invalid"
		case errors.Is(err, ErrOften):
			reason = "often"
		case errors.Is(err, ErrBusy), errors.Is(err, store.ErrBusy):
			reason = "busy"
		}
		s.metrics.refused.With(reason).Inc()
	}
	return r, err
}

func (s *Service) purge(ctx context.Context, o *Order) (*Receipt, error) {
	q := &request{order: o, done: make(chan struct{})}
	var err error
	if q.data, err = o.entries(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	q.weight.entries = len(q.data)
	for _, data := range q.data {
		q.weight.bytes += len(data)
	}
	if q.weight.bytes > MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes of entries are more than %d", ErrInvalid, q.weight.bytes, MaxBytes)
	}
	s.mu.Lock()
	full := s.queued.plus(q.weight).beyond(maxWaiting, maxWaitingBytes)
	if !full {
		s.queue = append(s.queue, q)
		s.queued = s.queued.plus(q.weight)
	}
	s.mu.Unlock()
	if full {
		return nil, fmt.Errorf("%w: %d entries of %d bytes are the most", ErrBusy, maxWaiting, maxWaitingBytes)
	}
	for {
		select {
		case <-q.done:
			return q.receipt, q.err
		case s.turn <- struct{}{}:
			select {
			case <-q.done:
			default:
				s.commitNext(context.WithoutCancel(ctx)) // it is of others, too
			}
			<-s.turn
		case <-ctx.Done():
			if s.withdraw(q) {
				return nil, context.Cause(ctx)
			}
			<-q.done // its commit is under way, and the store bounds that
			return q.receipt, q.err
		}
	}
}

// withdraw takes a request out of the queue, unless its commit began.
func (s *Service) withdraw(q *request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.taken {
		return false
	}
	for i := range s.queue {
		if s.queue[i] == q {
			s.queue = append(s.queue[:i], s.queue[i+1:]...)
			s.queued = s.queued.minus(q.weight)
			break
		}
	}
	return true
}

// take takes the requests of the next commit out of the queue.
func (s *Service) take() (list []*request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all weight
	for len(s.queue) > 0 && !all.plus(s.queue[0].weight).beyond(maxTogether, maxTogetherBytes) {
		q := s.queue[0]
		s.queue = s.queue[1:]
		q.taken = true
		all = all.plus(q.weight)
		list = append(list, q)
	}
	s.queued = s.queued.minus(all)
	return list
}

// commitNext commits what waits, with one sync of the disk, and sends it in the order of its numbers. The caller has the turn.
func (s *Service) commitNext(ctx context.Context) {
	list := s.take()
	if len(list) == 0 {
		return
	}
	var rows []row
	_, err := s.cfg.Store.Update(ctx, store.Change{Author: "purge"}, func(tx *store.Tx) (err error) {
		rows, err = number(ctx, tx, list, s.cfg.Limits.PerMinute)
		return err
	})
	if err != nil {
		for _, q := range list {
			q.receipt, q.err = nil, err
		}
	} else if len(rows) > 0 {
		s.send(rows)
	}
	for _, q := range list {
		if q.err == nil {
			s.fill(q.receipt)
		}
		close(q.done)
	}
}

// number writes requests to the log. One that is refused has its error, and the others go on.
func number(ctx context.Context, tx *store.Tx, list []*request, perMinute int) (rows []row, err error) {
	h, err := takeHead(ctx, tx)
	if err != nil {
		return nil, err
	}
	for _, q := range list {
		o := q.order
		q.receipt, q.err = nil, nil
		if o.Site != "" {
			_, err := tx.Get(ctx, store.Key{Organization: o.Organization, Project: o.Project, Kind: string(v1.KindSite), Name: o.Site})
			if errors.Is(err, store.ErrNotFound) {
				q.err = fmt.Errorf("%w: there is no such site: %w", ErrInvalid, err)
				continue
			}
			if err != nil {
				return nil, err
			}
		}
		room, err := spend(ctx, tx, o.Organization, len(q.data), perMinute)
		if err != nil {
			return nil, err
		}
		if !room {
			q.err = fmt.Errorf("%w: %d of organization %s are the most; purge tags or a prefix in place of many URLs", ErrOften, perMinute, o.Organization)
			continue
		}
		q.receipt = &Receipt{Organization: o.Organization, Author: o.Author, Epoch: h.epoch, First: h.number + 1, Last: h.number + uint64(len(q.data)), Time: tx.Now()}
		for _, data := range q.data {
			h.number++
			rows = append(rows, row{h.number, h.epoch, o.Organization, o.Author, tx.Now(), data})
		}
	}
	if len(rows) == 0 {
		return nil, nil
	}
	if err := writeRows(ctx, tx, rows); err != nil {
		return nil, err
	}
	return rows, writeHead(ctx, tx, h)
}

// send publishes what was committed. What does not get away is asked for by PoPs, who find the newest number in the answer
// to their heartbeat.
func (s *Service) send(rows []row) {
	last := &rows[len(rows)-1]
	s.mu.Lock()
	s.advance(fleet.PurgePosition{Epoch: last.epoch, Number: last.number})
	s.recent = append(s.recent, given{last.number, time.Now()})
	if len(s.recent) > maxRecent {
		s.recent = s.recent[len(s.recent)-maxRecent:]
	}
	s.mu.Unlock()
	s.metrics.entries.Add(float64(len(rows)))
	var data []byte
	for i := range rows {
		var err error
		if data, err = rows[i].message(); err == nil {
			err = s.cfg.Bus.Publish(bus.AllPurge, data)
		}
		if err != nil {
			s.metrics.unsent.Inc()
		}
	}
	s.echo.sent(data, last.epoch)
}

// maxRecent bounds the commits whose way to the PoPs is measured.
const maxRecent = 256

// advance takes a newer position over. The lock is held.
func (s *Service) advance(p fleet.PurgePosition) {
	if p.Epoch < s.newest.Epoch || p.Epoch == s.newest.Epoch && p.Number <= s.newest.Number {
		return
	}
	s.newest = p
	s.metrics.newest.Set(float64(p.Number))
	for name, c := range s.claims {
		if place := s.pops[name]; place != nil && c.at.Epoch == p.Epoch && c.at.Number <= p.Number {
			delete(s.claims, name)
			s.obey(place, c.at, c.time)
		}
	}
	s.stir()
}

// stir wakes all who wait for a receipt. The lock is held.
func (s *Service) stir() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// wire is an entry as PoPs read it: a purge.Entry without what is theirs.
type wire struct {
	Kind  purge.Kind `json:"kind"`
	Site  string     `json:"site,omitempty"`
	Host  string     `json:"host,omitempty"`
	Value string     `json:"value,omitempty"`
	Soft  bool       `json:"soft,omitempty"`
}

// entries checks an order and gives its entries as they are kept and sent.
func (o *Order) entries() ([][]byte, error) {
	switch {
	case o.Author == "" || o.Organization == "":
		return nil, errors.New("an order has an author and an organization")
	case strings.Contains(o.Organization, "/") || strings.Contains(o.Site, "/"):
		return nil, errors.New("names of organizations and sites have no slash")
	case len(o.Entries) == 0 || len(o.Entries) > MaxEntries:
		return nil, fmt.Errorf("an order has 1 to %d entries, and not %d", MaxEntries, len(o.Entries))
	}
	list := make([][]byte, 0, len(o.Entries))
	for i := range o.Entries {
		e := o.Entries[i]
		if err := o.own(&e); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i+1, err)
		}
		data, err := json.Marshal(&wire{e.Kind, e.Site, e.Host, e.Value, e.Soft})
		if err != nil {
			return nil, err
		}
		list = append(list, data)
	}
	return list, nil
}

// own gives an entry the order's site or organization, and refuses one that is of another.
func (o *Order) own(e *purge.Entry) error {
	want := string(bundle.NewKey(o.Organization, o.Site))
	switch {
	case e.Kind == purge.All && !o.Operator:
		return errors.New("everything of everybody is purged by the operator alone")
	case e.Kind == purge.All:
		want = ""
	case e.Kind == purge.Organization:
		want = o.Organization
	case o.Site == "":
		return fmt.Errorf("a purge by %s needs the site", e.Kind)
	}
	if e.Site != "" && e.Site != want {
		return fmt.Errorf("it is of %s, and the order of %s", e.Site, want)
	}
	if e.Kind <= purge.Site && (e.Host != "" || e.Value != "") {
		return fmt.Errorf("a purge by %s names nothing else", e.Kind)
	}
	if !utf8.ValidString(e.Value) || !utf8.ValidString(e.Host) {
		return errors.New("it is not in UTF-8")
	}
	switch e.Kind {
	case purge.URL, purge.Path, purge.Prefix:
		path, query, asked := strings.Cut(e.Value, "?")
		if asked && e.Kind != purge.URL {
			return fmt.Errorf("%q: a purge by %s is without query", e.Value, e.Kind)
		}
		normal, ok := route.NormalizePath(nil, []byte(path))
		if !ok {
			return fmt.Errorf("%q: the path cannot be read", e.Value)
		}
		if e.Value = string(normal); query != "" {
			e.Value += "?" + query
		}
	}
	e.Site = want
	e.Host = strings.TrimSuffix(strings.ToLower(e.Host), ".")
	return e.Check()
}
