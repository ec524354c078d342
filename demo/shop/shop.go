package shop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Config is one cluster of the shop. The zero value of a field takes the default in brackets.
type Config struct {
	// Cluster is the name shown in the footer and in X-Shop-Cluster, such as "home" ["home"].
	Cluster string
	// DataDir is the directory of the ledger. Clusters that share it share baskets and
	// orders. Required.
	DataDir string
	// Capacity is the number of requests worked on at once [40].
	Capacity int
	// Queue is how many further requests may wait for a slot; beyond it the answer is 503
	// [2 x Capacity].
	Queue int
	// QueueTimeout is the longest wait for a slot [2s].
	QueueTimeout time.Duration
	// ServiceTime is the mean time that a dynamic request (a page or an API call; not an
	// image or an asset) holds its slot beyond its real work [0]. Each request draws its
	// own: half the mean plus an exponential part, at most four times the mean.
	ServiceTime time.Duration
	// ImageCacheBytes bounds the memory of ready images [32 MiB].
	ImageCacheBytes int
	// BasketTTL is how long an untouched basket is kept [7 days]; MaxBaskets is how many
	// [200,000].
	BasketTTL  time.Duration
	MaxBaskets int
	// ReportLoad adds the ORCA field endpoint-load-metrics (text form, the key
	// application_utilization: slots in use and waiting, divided by Capacity) to every
	// answer.
	ReportLoad bool
	// Logger gets faults; requests are not logged [discard].
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	c.Cluster = cmp.Or(c.Cluster, "home")
	c.Capacity = cmp.Or(c.Capacity, 40)
	c.Queue = cmp.Or(c.Queue, 2*c.Capacity)
	c.QueueTimeout = cmp.Or(c.QueueTimeout, 2*time.Second)
	c.ImageCacheBytes = cmp.Or(c.ImageCacheBytes, 32<<20)
	c.BasketTTL = cmp.Or(c.BasketTTL, 7*24*time.Hour)
	c.MaxBaskets = cmp.Or(c.MaxBaskets, 200_000)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case c.DataDir == "":
		return c, errors.New("shop: Config.DataDir is empty: name a directory for the ledger")
	case !isToken(c.Cluster, 1, 40):
		return c, fmt.Errorf("shop: Config.Cluster %q: use 1 to 40 of a-z, A-Z, 0-9, '.', '_', '~', ':' and '-'", c.Cluster)
	case c.Capacity < 0 || c.Queue < 0 || c.QueueTimeout < 0 || c.ServiceTime < 0 || c.ImageCacheBytes < 0 ||
		c.BasketTTL < 0 || c.MaxBaskets < 0:
		return c, errors.New("shop: Config: no number may be negative")
	}
	return c, nil
}

// Shop is one running cluster. Make it with New, and Close it when it is not Run.
type Shop struct {
	cfg       Config
	catalogue *Catalogue
	store     *store
	slots     *slots
	images    *imageCache
	pages     map[string]*template.Template
	style     asset
	icon      asset
	handler   http.Handler

	served atomic.Int64
	orders atomic.Int64
	swept  atomic.Int64
}

// New opens the ledger and prepares the shop. It listens on nothing; Run does.
func New(cfg Config) (*Shop, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Shop{
		cfg:       cfg,
		catalogue: NewCatalogue(),
		slots:     newSlots(cfg.Capacity, cfg.Queue, cfg.QueueTimeout),
		images:    newImageCache(cfg.ImageCacheBytes),
		style:     newAsset("text/css; charset=utf-8", styleCSS),
		icon:      newAsset("image/svg+xml", iconSVG),
	}
	if s.pages, err = parsePages(s.style.version); err != nil {
		return nil, err
	}
	if s.store, err = openStore(context.Background(), cfg.DataDir); err != nil {
		return nil, err
	}
	s.handler = s.routes()
	return s, nil
}

// Handler is the shop as an http.Handler, for tests and for servers of one's own.
func (s *Shop) Handler() http.Handler { return s.handler }

// Close closes the ledger. Run does it itself.
func (s *Shop) Close() error { return s.store.close() }

// Limits of the HTTP server.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 20 * time.Second
	writeTimeout      = 60 * time.Second
	idleTimeout       = 2 * time.Minute
	drainTimeout      = 10 * time.Second
	maxHeaderBytes    = 32 << 10
	maxBodyBytes      = 16 << 10
	sweepInterval     = 10 * time.Minute
)

// Run serves HTTP/1.1 (and HTTP/2 in clear text to clients that know) on l until ctx ends. Then it stops
// accepting, lets requests in flight finish for at most ten seconds, closes the ledger and
// returns nil. It owns l and the shop.
func (s *Shop) Run(ctx context.Context, l net.Listener) error {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		Protocols:         &protocols,
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	var failure error
	sweep := time.NewTicker(sweepInterval)
	defer sweep.Stop()
	for running := true; running; {
		select {
		case <-ctx.Done():
			running = false
		case failure = <-served:
			failure = fmt.Errorf("shop: serve %s: %w", l.Addr(), failure)
			running = false
		case <-sweep.C:
			s.sweep(ctx)
		}
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		s.cfg.Logger.Warn("shop: requests were cut at the end of the drain time", "error", err)
		_ = server.Close()
	}
	return errors.Join(failure, s.Close())
}

func (s *Shop) sweep(ctx context.Context) {
	gone, err := s.store.sweepBaskets(ctx, time.Now().Add(-s.cfg.BasketTTL), s.cfg.MaxBaskets)
	if err != nil {
		s.cfg.Logger.Error("shop: old baskets could not be deleted", "error", hint(err))
	}
	s.swept.Add(gone)
}

// work holds the request's slot for a drawn service time. It returns false when the client
// went away meanwhile.
func (s *Shop) work(ctx context.Context) bool {
	mean := float64(s.cfg.ServiceTime)
	if mean == 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(time.Duration(min(mean/2+rand.ExpFloat64()*mean/2, 4*mean)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Stats is a snapshot of the counters of one cluster, as /stats shows them.
type Stats struct {
	Cluster  string `json:"cluster"`
	Capacity int    `json:"capacity"`
	InFlight int    `json:"inFlight"` // slots in use
	Waiting  int    `json:"waiting"`  // in the queue for a slot
	Served   int64  `json:"served"`   // requests that got a slot
	Refused  int64  `json:"refused"`  // 503 because queue or patience ended
	Orders   int64  `json:"orders"`   // written by this cluster since its start
	Swept    int64  `json:"sweptBaskets"`
	Images   struct {
		Bytes   int   `json:"bytes"`
		Made    int64 `json:"made"`
		Evicted int64 `json:"evicted"`
	} `json:"images"`
}

// Stats reads the counters.
func (s *Shop) Stats() Stats {
	out := Stats{
		Cluster:  s.cfg.Cluster,
		Capacity: s.cfg.Capacity,
		InFlight: s.slots.inUse(),
		Waiting:  int(s.slots.waiting.Load()),
		Served:   s.served.Load(),
		Refused:  s.slots.refused.Load(),
		Orders:   s.orders.Load(),
		Swept:    s.swept.Load(),
	}
	out.Images.Bytes, out.Images.Made, out.Images.Evicted = s.images.stats()
	return out
}
