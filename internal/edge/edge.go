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
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/acme"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/apiguard"
	"github.com/relais-edge/relais/internal/edge/balance"
	"github.com/relais-edge/relais/internal/edge/bots"
	"github.com/relais-edge/relais/internal/edge/cache"
	"github.com/relais-edge/relais/internal/edge/cache/feed"
	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/edge/cache/refill"
	"github.com/relais-edge/relais/internal/edge/cache/trial"
	"github.com/relais-edge/relais/internal/edge/encode"
	"github.com/relais-edge/relais/internal/edge/flood"
	"github.com/relais-edge/relais/internal/edge/geo"
	"github.com/relais-edge/relais/internal/edge/hints"
	"github.com/relais-edge/relais/internal/edge/image"
	"github.com/relais-edge/relais/internal/edge/jwt"
	"github.com/relais-edge/relais/internal/edge/l4"
	"github.com/relais-edge/relais/internal/edge/listen"
	"github.com/relais-edge/relais/internal/edge/maintenance"
	"github.com/relais-edge/relais/internal/edge/meter"
	"github.com/relais-edge/relais/internal/edge/mirror"
	"github.com/relais-edge/relais/internal/edge/origin"
	"github.com/relais-edge/relais/internal/edge/ratelimit"
	"github.com/relais-edge/relais/internal/edge/record"
	"github.com/relais-edge/relais/internal/edge/route"
	"github.com/relais-edge/relais/internal/edge/share"
	"github.com/relais-edge/relais/internal/edge/waf"
	"github.com/relais-edge/relais/internal/edge/waitroom"
	"github.com/relais-edge/relais/internal/handover"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// Config of an Edge.
type Config struct {
	// Data is a folder for keys; it is made when it is missing.
	Data string
	// AccessLog receives a JSON line for each request; nil for none.
	AccessLog io.Writer
	// CacheBytes is the memory for stored answers.
	CacheBytes int64
	// CacheDisk is where stored answers outlive the process; its zero value is none.
	CacheDisk cache.Disk
	// CacheQuotas are what organizations may have of the store; see cache.Config.
	CacheQuotas map[string]cache.Quota
	// Explain is how many of the last requests can be explained.
	Explain int
	// Record says which requests are kept so that they can be replayed; nil for none.
	Record *record.KeeperConfig
	// Inherited are sockets that another process opened for this one; nil for none.
	Inherited *handover.Inherited
	// Files is how many descriptors visitors' connections may use; 0 is no limit.
	Files int
	// Places are MMDB files that say in which country and network an address is.
	Places []string
	// Zone of this edge, for pools with zones.prefer; Number among the edges that share origins, for tiers
	// with a subset.
	Zone   string
	Number uint64
	// Resolver checks the names of programs' addresses (BotPolicy); nil means the system's.
	Resolver bots.Resolver
	// Denier drops the packets of those whom the step drop of a FloodPolicy refuses again and again; nil for none.
	Denier flood.Denier
	// Bus carries what shared rate limits took between edges, with a secret that all of them have; nil for none.
	Bus       ratelimit.Bus
	BusSecret [2]uint64
	Logger    *slog.Logger
	Metrics   *observe.Registry

	replay *ReplayConfig // nil for an edge that serves visitors
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
	jwt       *jwt.Stage
	api       *apiguard.Stage
	places    *geo.Places // nil without files
	cache     *cache.Stage
	purges    *purge.File
	refill    *refill.Queue
	feed      *feed.Feed
	routes    *route.Stage
	mirror    *mirror.Stage
	trial     *trial.Stage
	images    *image.Stage
	rooms     *waitroom.Stage
	bots      *bots.Stage
	flood     *flood.Stage
	orders    *orderBook
	share     *share.Stage
	processor *observe.Processor
	memory    *observe.Memory
	limits    *ratelimit.Stage
	recorder  *record.Recorder
	meter     *meter.Meter
	keeper    *record.Keeper // nil when no requests are kept
	ring      *record.Ring
	log       *record.Log
	front     *front
	compilers []slotted
	logger    *slog.Logger

	apply    sync.Mutex     // one change at a time; readers never take it
	given    *bundle.Bundle // what Apply was given last and took; guarded by apply
	bundle   *bundle.Bundle // in service: given, with what is switched off; guarded by apply
	switches []Switch       // guarded by apply
}

// New joins the stages. It opens no socket; Apply and Run do.
func New(cfg Config) (*Edge, error) {
	m := cfg.Metrics
	dry := cfg.replay.orNothing()
	e := &Edge{logger: cfg.Logger, processor: observe.NewProcessor(m), memory: observe.NewMemory(m)}
	if err := e.remember(&cfg); err != nil {
		return nil, err
	}
	ca, err := acme.OpenCA(filepath.Join(cfg.Data, "ca"))
	if err != nil {
		return nil, err
	}
	e.origin = origin.New(origin.Config{Slot: slotOrigin, Authority: ca}, m)
	origins := dry.origins(e.origin)
	e.balance = balance.New(balance.Config{
		Slot: slotBalance, Where: balance.Where{Zone: cfg.Zone, Number: cfg.Number}, Room: (*fullRoom)(e), Replay: dry.Time,
	}, origins, m)
	if e.purges, err = openPurges(&cfg); err != nil {
		return nil, err
	}
	fills := &refiller{e: e}
	e.refill = refill.New(refill.Config{}, fills, fills, m)
	e.feed = feed.New(feedPurger{e}, m)
	e.cache, err = cache.New(cache.Config{
		Slot: slotCache, MaxBytes: cfg.CacheBytes, Disk: cfg.CacheDisk, Quotas: cfg.CacheQuotas, Clock: dry.clock(), Purges: e.purges, Witness: fills, Logger: cfg.Logger, Metrics: m,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cache: %w", err), e.purges.Close())
	}
	e.waf = waf.New(slotWAF, waf.Config{Logger: cfg.Logger}, m)
	e.routes = route.New(slotRoute, e)
	accesses := e.protect(&cfg)
	visitors, challenges := e.visitors(&cfg)
	e.limits = ratelimit.New(slotRateLimit, ratelimit.Config{Clock: dry.clock(), Bus: cfg.Bus, Secret: cfg.BusSecret}, m)
	e.flood = flood.New(flood.Config{Slot: slotFlood, Tiers: e.balance, Load: e.processor.Load, Challenger: challenges, Denier: cfg.Denier}, m)
	e.obey(&cfg)
	e.share = share.New(share.Config{Slot: slotShare, Load: e.processor.Load}, m)
	closed := maintenance.New(slotMaintenance, m)
	early := hints.New(slotHints, m)
	encoder := encode.New(encode.Config{Slot: slotEncode}, m)
	e.images = image.New(image.Config{Slot: slotImage}, m)
	// Copies go to their pool past all other stages: they belong to no visitor.
	e.mirror = mirror.New(mirror.Config{Slot: slotMirror}, stage.Chain(origins, e.balance), m)
	e.trial = trial.New(trial.Config{Slot: slotTrial, NewID: newID}, stage.Chain(origins, e.balance), m)
	forward := route.NewForward(slotRoute, own{visitors, e.rooms, challenges})
	e.compilers = e.slotted(&others{accesses, visitors, closed, early, encoder})
	if cfg.replay == nil {
		e.compilers = append(e.compilers, e.live(challenges)...)
	}

	// The order of the stages. It is written here and nowhere else.
	chain := stage.Chain(origins, // last: it asks the origin
		e.routes,             // first: whose request is this; every rule after it is that tenant's
		accesses,             // cheapest and most certain refusal
		visitors,             // before any limit, so that a limit can spare who has a basket
		e.flood.Pardons(),    // before all that judges visitors: a person has
		challenges,           // takes solutions, which are worth something even to a site that is closed
		e.bots,               // after the visitor is known: a basket is never challenged
		closed,               // after the visitor is known, so that a basket goes on; before all that costs
		e.flood,              // sees all that comes for the site, and knows who has a basket; before all that costs
		e.share,              // knows suspects; before all that costs, so that one organization's flood is not the others'
		e.limits,             // before the firewall, so that a flood does not buy firewall time
		e.jwt,                // after the limits, so that invented tokens do not buy signature checks; before the cache, which stores nothing for who may not come
		e.api,                // cheaper than the firewall, and what it refuses needs no other judgement
		e.waf,                // before the cache, so that nothing an attack asked for is stored
		e.rooms,              // above the full pool: a room that is always on shows nothing of the site
		e.balance.WhenFull(), // above the cache: who finds no room and nothing stored
		e.tap(),              // above the cache, so that what a rule changes of an answer is changed once
		encoder.Ranges(),     // before the cache, so that a range is of the same bytes stored or not
		e.images.Ask(),       // before the cache, so that its key has what is made and the URL is the original's
		e.cache,              // before anything that costs an origin
		e.flood.Gate(),       // below the cache: what is stored costs nothing, and suspects may have it
		e.rooms.Line(),       // below the cache: what is stored costs no place in a line
		early,                // below the cache: a stored page needs no hint
		encoder.Own(),        // what a route responds with comes no further down
		forward,              // only what the cache does not have is made into a request to send
		encoder,              // below the cache: what is compressed once is stored so, and a hit costs nothing
		e.images,             // below the cache: a picture is made once; below the encoder, which must see what is sent
		e.waf.Answers(),      // below what stores, compresses and makes pictures: what the origin wrote, once
		e.cache.Watch(),      // sees what the origin wrote, before it is compressed or made into another picture
		e.trial,              // below what compresses, as it compares pages
		e.meter.Fetches(),    // above what tries again, so that it sees all tries
		e.mirror,             // sees the request as it is sent, and only what is
		e.balance,            // which tier and origin, and once more when it failed
	)
	// What nobody waits for comes in behind what is about who asks, and at the balancer takes only what is to
	// spare. No copy of it goes to another pool.
	fills.chain = stage.Chain(origins, closed, e.images.Ask(), e.cache, early, encoder.Own(), forward, encoder, e.images, e.waf.Answers(), e.cache.Watch(), e.meter.Fetches(), e.balance)
	e.front = &front{
		chain: chain, client: e.client, record: e.recorder, meter: e.meter,
		panics: m.Counters("relais_panics_total", "Panics that ended a request.", 1).With(),
		report: cfg.Logger.Error, encode: encoder.Page, blame: e.flood.Blame, tarpit: newTarpit(m),
	}
	e.doors(&cfg, ca)
	return e, nil
}

// doors makes what connections come in by.
func (e *Edge) doors(cfg *Config, ca *acme.CA) {
	m := cfg.Metrics
	e.services = l4.New(l4.Config{
		Pools: servicePools{e.balance, e.origin}, Record: e.recordConnection, Inherited: cfg.Inherited, Logger: cfg.Logger, Metrics: m,
	})
	e.acme = acme.New(acme.Config{Dir: filepath.Join(cfg.Data, "acme"), Logger: cfg.Logger, Metrics: m})
	e.front.tokens = e.acme
	e.listen = listen.New(listen.Config{
		Handler: e.front, Passthrough: e.services, Authority: ca, ACME: e.acme, Sites: e, Staples: filepath.Join(cfg.Data, "ocsp"),
		Inherited: cfg.Inherited, Files: cfg.Files, Abuse: e.flood.Blame, Logger: cfg.Logger, Metrics: m,
	})
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
	g.Go(func() error { return e.jwt.Run(ctx) })
	if e.places != nil {
		g.Go(func() error { return e.places.Run(ctx) })
	}
	g.Go(func() error { return e.rooms.Run(ctx) })
	g.Go(func() error { return e.bots.Run(ctx) })
	g.Go(func() error { return e.cache.Run(ctx) })
	g.Go(func() error { return e.waf.Run(ctx) })
	if e.keeper != nil {
		g.Go(func() error { return e.keeper.Run(ctx) })
	}
	g.Go(func() error { return e.refill.Run(ctx) })
	g.Go(func() error { return e.feed.Run(ctx) })
	g.Go(func() error { return e.trial.Run(ctx) })
	g.Go(func() error { return e.processor.Run(ctx) })
	g.Go(func() error { return e.flood.Run(ctx) })
	g.Go(func() error { return e.orders.Run(ctx) })
	g.Go(func() error { return e.share.Run(ctx) })
	g.Go(func() error { return e.limits.Run(ctx) })
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
	e.refill.Close()
}

// fetchGrace is how long a fetch for the cache may go on when all clients are served.
const fetchGrace = 2 * time.Second

// Apply puts a bundle in service, whole or not at all.
func (e *Edge) Apply(ctx context.Context, b *bundle.Bundle) error {
	e.apply.Lock()
	defer e.apply.Unlock()
	return e.serve(ctx, b)
}

// serve puts a bundle in service, but for what is switched off. The lock of changes is held.
func (e *Edge) serve(ctx context.Context, given *bundle.Bundle) error {
	if given.Format != bundle.Format {
		return fmt.Errorf("the bundle has format %d; this edge reads format %d", given.Format, bundle.Format)
	}
	b := switched(given, e.switches)
	if err := e.waf.Prepare(ctx, b); err != nil {
		return err
	}
	e.jwt.Prepare(b)
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
	e.given, e.bundle = given, b
	e.warn(b)
	e.waf.Sweep(b)
	e.meter.Sweep(organizations(b))
	e.forgetEndpoints(b)
	e.jwt.Sweep(b)
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
	e.jwt.Sweep(e.bundle)
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
	e.orders.Take(s.Key)
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
