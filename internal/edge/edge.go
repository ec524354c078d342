package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/acme"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/access"
	"github.com/relais-edge/relais/internal/edge/balance"
	"github.com/relais-edge/relais/internal/edge/cache"
	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/edge/encode"
	"github.com/relais-edge/relais/internal/edge/hints"
	"github.com/relais-edge/relais/internal/edge/l4"
	"github.com/relais-edge/relais/internal/edge/listen"
	"github.com/relais-edge/relais/internal/edge/maintenance"
	"github.com/relais-edge/relais/internal/edge/mirror"
	"github.com/relais-edge/relais/internal/edge/origin"
	"github.com/relais-edge/relais/internal/edge/ratelimit"
	"github.com/relais-edge/relais/internal/edge/record"
	"github.com/relais-edge/relais/internal/edge/route"
	"github.com/relais-edge/relais/internal/edge/visitor"
	"github.com/relais-edge/relais/internal/edge/waf"
	"github.com/relais-edge/relais/internal/handover"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// The slots of the stages.
const (
	slotRoute stage.Slot = iota
	slotAccess
	slotVisitor
	slotRateLimit
	slotWAF
	slotCache
	slotBalance
	slotOrigin
	slotRecord
	slotManners
	slotMaintenance
	slotHints
	slotEncode
	slotMirror
)

// Config of an Edge.
type Config struct {
	// Data is a folder for keys; it is made when it is missing.
	Data string
	// AccessLog receives a JSON line for each request; nil for none.
	AccessLog io.Writer
	// CacheBytes is the memory for stored answers.
	CacheBytes int64
	// Explain is how many of the last requests can be explained.
	Explain int
	// Inherited are sockets that another process opened for this one; nil for none.
	Inherited *handover.Inherited
	// Files is how many descriptors visitors' connections may use; 0 is no limit.
	Files int
	// Zone of this edge, for pools with zones.prefer; Number among the edges that share origins, for tiers
	// with a subset.
	Zone   string
	Number uint64
	// Room answers visitors for whom no tier has room and no stored answer stands in; nil for a page.
	Room    balance.Room
	Logger  *slog.Logger
	Metrics *observe.Registry
}

// Edge is the data plane of one place.
type Edge struct {
	current   snapshot.Current
	listen    *listen.Manager
	services  *l4.Manager
	acme      *acme.Issuer
	balance   *balance.Stage
	origin    *origin.Handler
	waf       *waf.Stage
	cache     *cache.Stage
	purges    *purge.File
	routes    *route.Stage
	mirror    *mirror.Stage
	recorder  *record.Recorder
	ring      *record.Ring
	log       *record.Log
	front     *front
	compilers []slotted
	logger    *slog.Logger

	apply  sync.Mutex     // one change at a time; readers never take it
	bundle *bundle.Bundle // in service; guarded by apply
}

// slotted is a stage that makes a part of each site.
type slotted struct {
	slot stage.Slot
	name string
	stage.Compiler
}

// New joins the stages. It opens no socket; Apply and Run do.
func New(cfg Config) (*Edge, error) {
	m := cfg.Metrics
	e := &Edge{logger: cfg.Logger, ring: record.NewRing(cfg.Explain)}
	if cfg.AccessLog != nil {
		e.log = record.NewLog(cfg.AccessLog, cfg.Logger, m)
	}
	e.recorder = record.New(slotRecord, e.log, e.ring, m)
	ca, err := acme.OpenCA(filepath.Join(cfg.Data, "ca"))
	if err != nil {
		return nil, err
	}
	e.origin = origin.New(origin.Config{Slot: slotOrigin, Authority: ca}, m)
	e.balance = balance.New(balance.Config{
		Slot: slotBalance, Where: balance.Where{Zone: cfg.Zone, Number: cfg.Number}, Room: cfg.Room,
	}, e.origin, m)
	purges, err := purge.OpenFile(filepath.Join(cfg.Data, "purge", "log"), purge.DefaultEntries)
	if err != nil {
		return nil, err
	}
	if purges.Damaged() {
		cfg.Logger.Warn("the purge log was damaged: what is older than its next good entry counts as purged", "file", filepath.Join(cfg.Data, "purge", "log"))
	}
	e.purges = purges
	e.cache = cache.New(cache.Config{Slot: slotCache, MaxBytes: cfg.CacheBytes, Purges: purges, Logger: cfg.Logger, Metrics: m})
	e.waf = waf.New(slotWAF, waf.Config{}, m)
	routes := route.New(slotRoute, e)
	e.routes = routes
	accesses := access.New(slotAccess, m)
	visitors := visitor.New(slotVisitor, visitor.Config{}, visitor.Dir(filepath.Join(cfg.Data, "secrets")), m)
	limits := ratelimit.New(slotRateLimit, ratelimit.Config{}, m)
	closed := maintenance.New(slotMaintenance, m)
	early := hints.New(slotHints, m)
	encoder := encode.New(encode.Config{Slot: slotEncode}, m)
	// Copies go to their pool past all other stages: they belong to no visitor.
	e.mirror = mirror.New(mirror.Config{Slot: slotMirror}, stage.Chain(e.origin, e.balance), m)
	e.compilers = []slotted{
		{slotRoute, "route", routes},
		{slotAccess, "access", accesses},
		{slotVisitor, "visitor", visitors},
		{slotRateLimit, "ratelimit", limits},
		{slotWAF, "waf", e.waf},
		{slotCache, "cache", e.cache},
		{slotBalance, "balance", e.balance},
		{slotRecord, "record", e.recorder},
		{slotManners, "manners", mannersOf{}},
		{slotMaintenance, "maintenance", closed},
		{slotHints, "hints", early},
		{slotEncode, "encode", encoder},
		{slotMirror, "mirror", e.mirror},
	}

	// The order of the stages. It is written here and nowhere else.
	chain := stage.Chain(e.origin, // last: it asks the origin
		routes,                                // first: whose request is this; every rule after it is that tenant's
		accesses,                              // cheapest and most certain refusal
		visitors,                              // before any limit, so that a limit can spare who has a basket
		closed,                                // after the visitor is known, so that a basket goes on; before all that costs
		limits,                                // before the firewall, so that a flood does not buy firewall time
		e.waf,                                 // before the cache, so that nothing an attack asked for is stored
		e.balance.WhenFull(),                  // above the cache: who finds no room and nothing stored
		encoder.Ranges(),                      // before the cache, so that a range is of the same bytes stored or not
		e.cache,                               // before anything that costs an origin
		early,                                 // below the cache: a stored page needs no hint
		encoder.Own(),                         // what a route responds with comes no further down
		route.NewForward(slotRoute, visitors), // only what the cache does not have is made into a request to send
		encoder,                               // below the cache: what is compressed once is stored so, and a hit costs nothing
		e.mirror,                              // sees the request as it is sent, and only what is
		e.balance,                             // which tier and origin, and once more when it failed
	)
	e.front = &front{
		chain: chain, client: e.client, record: e.recorder,
		panics: m.Counters("relais_panics_total", "Panics that ended a request.", 1).With(),
		report: cfg.Logger.Error, encode: encoder.Page,
	}
	e.services = l4.New(l4.Config{
		Pools: servicePools{e.balance, e.origin}, Record: e.recordConnection, Inherited: cfg.Inherited, Logger: cfg.Logger, Metrics: m,
	})
	e.acme = acme.New(acme.Config{Dir: filepath.Join(cfg.Data, "acme"), Logger: cfg.Logger, Metrics: m})
	e.front.tokens = e.acme
	e.listen = listen.New(listen.Config{
		Handler: e.front, Passthrough: e.services, Authority: ca, ACME: e.acme, Sites: e, Staples: filepath.Join(cfg.Data, "ocsp"),
		Inherited: cfg.Inherited, Files: cfg.Files, Logger: cfg.Logger, Metrics: m,
	})
	return e, nil
}

// Run does the work beside requests (health checks, deadlines, logs) until ctx ends; then it
// ends what is open.
func (e *Edge) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return e.listen.Run(ctx) })
	g.Go(func() error { return e.services.Run(ctx) })
	g.Go(func() error { return e.acme.Run(ctx) })
	g.Go(func() error { return e.balance.Run(ctx) })
	g.Go(func() error { return e.origin.Run(ctx) })
	g.Go(func() error { return e.mirror.Run(ctx) })
	g.Go(func() error { return e.cache.Run(ctx) })
	if e.log != nil {
		g.Go(func() error { return e.log.Run(ctx) })
	}
	return errors.Join(g.Wait(), e.purges.Close())
}

// Drain takes no new connections, answers what is under way, and returns when that is done or
// the listeners' time for it is over. Then it ends the cache's fetches, which may outlive those
// who asked for them.
func (e *Edge) Drain(ctx context.Context) error {
	services := make(chan error, 1)
	go func() { services <- e.services.Drain(ctx) }()
	err := errors.Join(e.listen.Drain(ctx), <-services)
	ctx, cancel := context.WithTimeout(ctx, fetchGrace)
	defer cancel()
	return errors.Join(err, e.cache.Close(ctx))
}

// Connections is how many the listeners' documents allow over TCP in all.
func (e *Edge) Connections() int { return e.listen.Connections() }

// Sockets are those that the next process takes over.
func (e *Edge) Sockets() []handover.Socket {
	return append(e.listen.Sockets(), e.services.Sockets()...)
}

// HandOver says that the next process has the sockets; relays are the ways by which it passes
// back what belongs to this one, by network, address and key. Drain comes after it.
func (e *Edge) HandOver(relays func(network, address, key string) *net.UnixConn) {
	e.apply.Lock()
	defer e.apply.Unlock()
	e.listen.HandOver(relays)
	e.services.HandOver()
	e.cache.Seal()
}

// fetchGrace is how long a fetch for the cache may go on when all clients are served.
const fetchGrace = 2 * time.Second

// Apply puts a bundle in service, whole or not at all.
func (e *Edge) Apply(ctx context.Context, b *bundle.Bundle) error {
	e.apply.Lock()
	defer e.apply.Unlock()
	if b.Format != bundle.Format {
		return fmt.Errorf("the bundle has format %d; this edge reads format %d", b.Format, bundle.Format)
	}
	if err := e.waf.Prepare(ctx, b); err != nil {
		return err
	}
	if err := e.origin.SetCertificates(clientCertificates(b)); err != nil {
		return err
	}
	if err := e.balance.Prepare(ctx, pools(b)); err != nil {
		return err
	}
	old := e.current.Load()
	next := snapshot.Build(b, old, e)
	// The sites are there before the sockets, so that a new listener never answers 404, and a
	// socket that cannot be opened takes the sites back.
	e.current.Swap(next)
	if err := e.open(b); err != nil {
		e.current.Swap(old)
		return errors.Join(err, e.restore())
	}
	e.bundle = b
	return e.balance.Sweep(pools(b))
}

// open opens the sockets of listeners and services. An address that goes from a service to a listener
// is given up first, the other way round it comes free by itself.
func (e *Edge) open(b *bundle.Bundle) error {
	e.services.Yield(tcpAddresses(b))
	if err := e.listen.Apply(b.Listeners, b.Certificates); err != nil {
		return err
	}
	return e.services.Apply(b.Services, tlsAddresses(b))
}

// restore puts back what a change that failed half way has taken.
func (e *Edge) restore() error {
	if e.bundle == nil {
		return nil
	}
	if err := e.open(e.bundle); err != nil {
		return fmt.Errorf("what was served before cannot be had back whole: %w", err)
	}
	return errors.Join(e.origin.SetCertificates(clientCertificates(e.bundle)), e.balance.Sweep(pools(e.bundle)))
}

// pools are the pools that a bundle names, by key.
func pools(b *bundle.Bundle) iter.Seq2[bundle.Key, *v1.OriginPoolSpec] {
	return func(yield func(bundle.Key, *v1.OriginPoolSpec) bool) {
		for _, s := range b.Sites {
			org, _ := s.Key.Split()
			for name, spec := range s.Pools {
				if !yield(bundle.NewKey(org, name), spec) {
					return
				}
			}
		}
		for i := range b.Services {
			s := &b.Services[i]
			org, _ := s.Key.Split()
			if !yield(bundle.NewKey(org, s.Spec.Pool), s.Pool) {
				return
			}
		}
	}
}

// Materialise implements snapshot.Materialiser.
func (e *Edge) Materialise(s, old *snapshot.Site) error {
	s.Parts = make([]any, stage.Slots)
	for _, c := range e.compilers {
		var before stage.Part
		if old != nil && old.Parts != nil {
			before = old.Parts[c.slot]
		}
		p, err := c.Compile(s, before)
		if err != nil {
			return &stage.Error{
				Code: "proxy_configuration_error", Side: stage.SideTenant, Status: 500,
				Err: fmt.Errorf("site %s: %s: %w", s.Key, c.name, err),
			}
		}
		s.Parts[c.slot] = p
	}
	return nil
}

// Site implements route.Table.
func (e *Edge) Site(host []byte, listener string) (*snapshot.Site, error) {
	t := e.current.Load()
	if t == nil {
		return nil, nil
	}
	entry := t.Lookup(host, bundle.Key(listener))
	if entry == nil {
		return nil, nil
	}
	return entry.Site()
}

// Organization implements route.Table.
func (e *Edge) Organization(host []byte, listener string) string {
	t := e.current.Load()
	if t == nil {
		return ""
	}
	entry := t.Lookup(host, bundle.Key(listener))
	if entry == nil {
		return ""
	}
	organization, _ := entry.Key().Split()
	return organization
}

// Serves implements listen.Sites.
func (e *Edge) Serves(host, listener string) (sure, any bool) {
	t := e.current.Load()
	if t == nil {
		return false, false
	}
	entry := t.Lookup([]byte(host), bundle.Key(listener))
	if entry == nil {
		return false, false
	}
	for _, h := range entry.Spec().Hostnames {
		switch {
		case h == host, len(h) > 2 && h[0] == '*' && strings.HasSuffix(host, h[1:]):
			return true, true
		case h == "*":
			any = true
		}
	}
	return false, any
}

// client asks the listener what it knows of a request.
func (e *Edge) client(req *message.Request) client {
	l := e.listen.Listener(req.Conn.Listener)
	if l == nil {
		return client{addr: req.Conn.Client}
	}
	trusted := l.Trusts(req.Conn)
	return client{
		addr: l.Client(req), trusted: trusted, takeID: trusted && l.Spec.RequestID.Trust, altSvc: l.AltSvc,
		field: l.Field(), identity: l.Spec.TLS != nil && l.Spec.TLS.ClientAuth != nil,
	}
}

// Addresses are those on which connections are accepted.
func (e *Edge) Addresses() []string {
	var out []string
	for _, a := range e.listen.Addrs() {
		out = append(out, a.String())
	}
	for _, a := range e.services.Addrs() {
		out = append(out, a.String())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Explain implements admin.Explainer.
func (e *Edge) Explain(id stage.RequestID) (any, bool) { return e.ring.Find(id) }

// Recent implements admin.Explainer.
func (e *Edge) Recent(n int) any { return e.ring.Last(n) }

// Load lists what pools had in each minute of the last hour: of the one named, or of all when key is empty.
func (e *Edge) Load(key string) []balance.PoolLoad {
	return e.balance.Load(bundle.Key(key), time.Now().UnixNano())
}

// Pools are how the pools in use are: which origins are well, and why others are not.
func (e *Edge) Pools() []balance.PoolStatus { return e.balance.Status() }

// Totals are counts since the start.
type Totals struct{ Requests, Hits, Spilled, Blocked, Errors uint64 }

// Since returns what was counted after an earlier reading.
func (t Totals) Since(earlier Totals) Totals {
	return Totals{
		t.Requests - earlier.Requests, t.Hits - earlier.Hits, t.Spilled - earlier.Spilled,
		t.Blocked - earlier.Blocked, t.Errors - earlier.Errors,
	}
}

// Totals returns the counts of all sites together.
func (e *Edge) Totals() Totals {
	r := e.recorder
	return Totals{r.Requests.Load(), r.Hits.Load(), r.Spilled.Load(), r.Blocked.Load(), r.Errors.Load()}
}
