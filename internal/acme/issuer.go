package acme

import (
	"container/heap"
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/observe"
)

const (
	// workers bounds the orders under way at once.
	workers = 8
	// pace is the least time between two looks at the storage, so that a start with very many names
	// leaves the machine to the visitors.
	pace = 500 * time.Microsecond
	// maxDemand bounds the names that one document has got on demand.
	maxDemand = 100_000
	// orderTimeout bounds one order, besides the wait for DNS.
	orderTimeout = 3 * time.Minute
	// firstRetry and lastRetry bound the wait after a failure, which doubles.
	firstRetry = time.Minute
	lastRetry  = 12 * time.Hour
	// lookAgain is how often the storage is read for what another edge has renewed.
	lookAgain = 12 * time.Hour
)

// Config is what an Issuer needs.
type Config struct {
	// Dir keeps accounts, keys and certificates (mode 0600). Edges on one machine may share it: a lock
	// for each name keeps them from asking twice.
	Dir     string
	Logger  *slog.Logger
	Metrics *observe.Registry
	// Retry is the first wait after a failure; 0 means a minute.
	Retry time.Duration
}

// Issuer gets certificates from ACME authorities and renews them when a third of their life is
// left. It is safe for concurrent use.
type Issuer struct {
	cfg        Config
	storage    *certmagic.FileStorage
	challenges *challenges
	web        *http.Client // of ask and webhooks
	issued     *observe.Family[observe.Counter]
	expiry     *observe.Family[observe.Gauge]

	wake chan struct{}

	mu     sync.Mutex
	orders map[bundle.Key]*order
	queue  queue
}

// order is a document in use.
type order struct {
	bundle.ACME
	authority *authority
	names     map[string]*name
	demanded  int       // names that are there on demand
	tokens    float64   // of onDemand.perMinute
	filled    time.Time // when tokens were counted
	expiry    observe.Gauge
	first     time.Time // the end of the certificate that ends first
	firstHost string
}

// name is a host name for which a certificate is wanted.
type name struct {
	order    *order
	host     string
	demand   bool // it is there because a visitor asked
	due      time.Time
	place    int // in the queue, or -1
	failures int
	gone     bool
	busy     bool          // an attempt is under way
	over     chan struct{} // closed at the end of the next attempt; nil when nobody waits
	used     bool          // since the last look

	load sync.Mutex // held while the storage is read
	cert *tls.Certificate
	seen bool // the storage was read
}

// New returns an Issuer without work. It reads and starts nothing.
func New(cfg Config) *Issuer {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = observe.New()
	}
	if cfg.Retry == 0 {
		cfg.Retry = firstRetry
	}
	storage := &certmagic.FileStorage{Path: cfg.Dir}
	return &Issuer{
		cfg: cfg, storage: storage, challenges: newChallenges(storage),
		web:    &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		issued: cfg.Metrics.Counters("relais_acme_orders_total", "Certificates asked for by ACME, by result.", 2, "result"),
		expiry: cfg.Metrics.Gauges("relais_certificate_expiry_timestamp_seconds", "When a certificate in use ends.", 1000, "certificate"),
		wake:   make(chan struct{}, 1), orders: map[bundle.Key]*order{},
	}
}

// Manage makes the documents those given. What a document has got stays, also on disk when it goes.
func (i *Issuer) Manage(all []bundle.ACME) {
	i.mu.Lock()
	defer i.mu.Unlock()
	next := make(map[bundle.Key]*order, len(all))
	for _, a := range all {
		o := i.orders[a.Key]
		if o == nil || !sameSpec(o.Spec, a.Spec) {
			old := o
			o = &order{ACME: a, authority: i.newAuthority(a.Spec), names: make(map[string]*name, len(a.Hostnames)), expiry: i.expiry.With(string(a.Key))}
			if old != nil && old.authority.id == o.authority.id {
				o.adopt(old)
			}
		}
		o.ACME = a
		i.want(o)
		next[a.Key] = o
	}
	for key, o := range i.orders {
		if next[key] == o {
			continue
		}
		i.expiry.Forget(string(key))
		for _, n := range o.names {
			i.forget(n)
		}
	}
	i.orders = next
	i.notify()
}

// adopt takes over what the settings before had in memory.
func (o *order) adopt(old *order) {
	for host, n := range old.names {
		n.load.Lock()
		o.names[host] = &name{order: o, host: host, demand: n.demand, place: -1, cert: n.cert, seen: n.seen}
		n.load.Unlock()
	}
	o.demanded = old.demanded
}

// want makes the names of o those of its document, and keeps those on demand; i.mu is held.
func (i *Issuer) want(o *order) {
	fixed := make(map[string]struct{}, len(o.Hostnames))
	for _, host := range o.Hostnames {
		fixed[host] = struct{}{}
		n := o.names[host]
		if n == nil {
			n = &name{order: o, host: host, place: -1}
			o.names[host] = n
		}
		if n.demand {
			n.demand = false
			o.demanded--
		}
		if n.place < 0 && !n.busy && n.due.IsZero() {
			heap.Push(&i.queue, n)
		}
	}
	for host, n := range o.names {
		if _, ok := fixed[host]; ok || n.demand {
			continue
		}
		i.forget(n)
		delete(o.names, host)
	}
}

// forget takes a name out of the queue; i.mu is held.
func (i *Issuer) forget(n *name) {
	n.gone = true
	if !n.busy {
		n.end()
	}
	if n.place >= 0 {
		heap.Remove(&i.queue, n.place)
	}
}

func (i *Issuer) notify() {
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

// Run gets and renews certificates until ctx ends; then it waits for what is under way to stop.
func (i *Issuer) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	places := make(chan struct{}, workers)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-i.wake:
		case <-timer.C:
		}
		for {
			n, wait := i.next()
			if n == nil {
				timer.Reset(wait)
				break
			}
			if i.settled(ctx, n) {
				select {
				case <-ctx.Done():
				case <-time.After(pace):
				}
				continue
			}
			select {
			case <-ctx.Done():
				i.done(n, time.Now())
				return nil
			case places <- struct{}{}:
			}
			wg.Go(func() {
				defer func() { <-places }()
				i.obtain(ctx, n)
			})
		}
	}
}

// next takes the name that is due out of the queue, or says how long to wait for one.
func (i *Issuer) next() (*name, time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.queue) == 0 {
		return nil, time.Hour
	}
	n := i.queue[0]
	if wait := time.Until(n.due); wait > 0 {
		return nil, wait
	}
	heap.Pop(&i.queue)
	n.busy = true
	return n, 0
}

// done ends an attempt: the name is looked at again when it is due.
func (i *Issuer) done(n *name, due time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	n.end()
	n.due = due
	if !n.gone {
		heap.Push(&i.queue, n)
		i.notify()
	}
}

// end tells those who wait; the issuer's mu is held.
func (n *name) end() {
	n.busy = false
	if n.over != nil {
		close(n.over)
		n.over = nil
	}
}

// drop ends the care for a name on demand that nobody uses any more.
func (i *Issuer) drop(n *name) {
	i.mu.Lock()
	defer i.mu.Unlock()
	n.end()
	if !n.gone {
		n.gone = true
		delete(n.order.names, n.host)
		n.order.demanded--
	}
}

// queue is a heap of names, the next due first.
type queue []*name

func (q queue) Len() int           { return len(q) }
func (q queue) Less(a, b int) bool { return q[a].due.Before(q[b].due) }
func (q queue) Swap(a, b int) {
	q[a], q[b] = q[b], q[a]
	q[a].place, q[b].place = a, b
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	n := x.(*name)
	n.place = len(*q)
	*q = append(*q, n)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	old := *q
	n := old[len(old)-1]
	old[len(old)-1], n.place = nil, -1
	*q = old[:len(old)-1]
	return n
}
