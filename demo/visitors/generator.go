package visitors

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Config says who comes, where to, and what they do. The zero value of a field takes the
// default in brackets; a negative share or probability means none.
type Config struct {
	// Target is the address to connect to, such as "http://127.0.0.1:8080". Required.
	Target string
	// Host is the site that is asked for, in Host and in TLS [that of Target].
	Host string
	// Rate is how many visitors arrive per second [Constant(5)].
	Rate Rate
	// Duration is how long visitors arrive [until the context ends].
	Duration time.Duration
	// Drain is how long those on the site may go on after that [30s].
	Drain time.Duration
	// MaxLive is the greatest number of visitors at one time [2000]. Arrivals beyond it are
	// counted as dropped.
	MaxLive int
	// Seed makes the visitors' choices the same in every run with the same answers.
	Seed uint64
	// Funnel is what visitors do.
	Funnel Funnel
	// ReturnShare is the share of arrivals who were there before, with their cookies and
	// their browser's cache [0.25]. BotShare is the share of crawlers and scripts [0], and
	// AttackShare that of attackers [0].
	ReturnShare, BotShare, AttackShare float64
	// Sources is the pool of local addresses to connect from; a part of 127.0.0.0/8 works
	// without any set-up [the system's choice].
	Sources netip.Prefix
	// Conns is the number of connections of one visitor, 1 to 6 [2].
	Conns int
	// Timeout bounds connecting and each request with its answer [8s]. With three tries and
	// the waits between, an order's fate is known within 30 seconds.
	Timeout time.Duration
	// RootCAs verifies the server of an https target [the system's]; Insecure skips that.
	RootCAs  *x509.CertPool
	Insecure bool
	// Decoders reads content codings beyond gzip and deflate, such as "br" and "zstd". The
	// visitors ask for exactly the codings that they can read.
	Decoders map[string]func(io.Reader) (io.Reader, error)
	// MaxOrders bounds the orders in the report [1,000,000]; when it is reached, no more
	// are placed.
	MaxOrders int
	// Seen is told of every request that has ended, from many goroutines [nobody].
	Seen func(Seen)
	// Dial opens connections [TCP from source].
	Dial func(ctx context.Context, source netip.Addr, network, address string) (net.Conn, error)
}

// Seen is one request as the visitor saw it.
type Seen struct {
	Page   bool // a page or a form, as opposed to a file that a page shows
	Holder bool // the visitor has something in the basket
	Status int  // of the answer; 0 when there was none, or not all of it
	Start  time.Time
	Took   time.Duration
}

// Funnel is how visitors go through the shop. The zero value of a field takes the default
// in brackets; a negative value means never.
type Funnel struct {
	// Pages is the mean number of list pages (categories and searches) of a visit [3].
	Pages float64
	// Search is the chance that a list page is a search [0.25].
	Search float64
	// Product is the chance that a list leads to a product page [0.7].
	Product float64
	// Basket is the chance that a product goes into the basket [0.3].
	Basket float64
	// Checkout is the chance that one with a basket goes to the checkout [0.6], and Order
	// that the form is sent [0.8].
	Checkout, Order float64
	// Think is the median pause between two pages [4s], and Spread the sigma of its
	// logarithm [0.7]. No pause is longer than ten times the median.
	Think  time.Duration
	Spread float64
}

func chance(p, byDefault float64) float64 { return min(1, max(0, cmp.Or(p, byDefault))) }

func (f Funnel) withDefaults() Funnel {
	return Funnel{
		Pages:    max(0, cmp.Or(f.Pages, 3)),
		Search:   chance(f.Search, .25),
		Product:  chance(f.Product, .7),
		Basket:   chance(f.Basket, .3),
		Checkout: chance(f.Checkout, .6),
		Order:    chance(f.Order, .8),
		Think:    max(0, cmp.Or(f.Think, 4*time.Second)),
		Spread:   max(0, cmp.Or(f.Spread, .7)),
	}
}

// maxRemembered bounds the visitors who may come back.
const maxRemembered = 1024

// Generator sends visitors to a shop. Make it with New; Run it once.
type Generator struct {
	cfg       Config
	client    client
	browsers  []persona
	crawlers  []persona
	encodings string
	stats     counters
	ran       atomic.Bool

	mu         sync.Mutex
	remembered []*memory
	orders     []Order
}

// New checks cfg and prepares a run. It sends nothing.
func New(cfg Config) (*Generator, error) {
	target, err := url.Parse(cfg.Target)
	if err != nil || target.Host == "" || (target.Scheme != "http" && target.Scheme != "https") {
		return nil, fmt.Errorf("visitors: Config.Target %q: want http://HOST:PORT or https://HOST:PORT", cfg.Target)
	}
	cfg = cfg.withDefaults(target)
	if cfg.Conns < 1 || cfg.Conns > 6 {
		return nil, fmt.Errorf("visitors: Config.Conns is %d: want 1 to 6", cfg.Conns)
	}
	if cfg.MaxLive < 1 || cfg.MaxOrders < 1 || cfg.Timeout < 0 || cfg.Duration < 0 || cfg.Drain < 0 {
		return nil, errors.New("visitors: Config: limits and times must not be negative")
	}
	if !safeTarget("/" + cfg.Host) {
		return nil, fmt.Errorf("visitors: Config.Host %q is not a host name", cfg.Host)
	}
	g := &Generator{cfg: cfg, browsers: browsers(), crawlers: crawlers(), encodings: "gzip, deflate"}
	for _, coding := range []string{"br", "zstd"} {
		if cfg.Decoders[coding] != nil {
			g.encodings += ", " + coding
		}
	}
	g.stats.refusedBy, g.stats.troubles, g.stats.clusters = map[int]int64{}, map[string]int64{}, map[string]int64{}
	g.client.network, g.client.address = "tcp", hostPort(target)
	g.client.timeout, g.client.dial, g.client.decoders = cfg.Timeout, cfg.Dial, cfg.Decoders
	name, _, err := net.SplitHostPort(cfg.Host)
	if err != nil {
		name = cfg.Host
	}
	name = strings.Trim(name, "[]")
	// Fetch metadata and client hints go to trustworthy origins only (W3C Secure Contexts).
	local := name == "localhost" || strings.HasSuffix(name, ".localhost") || strings.HasPrefix(name, "127.") || name == "::1"
	g.client.origin = origin{scheme: target.Scheme, host: cfg.Host, secure: target.Scheme == "https" || local}
	if target.Scheme == "https" {
		g.client.tls = &tls.Config{
			ServerName: name, RootCAs: cfg.RootCAs, InsecureSkipVerify: cfg.Insecure,
			NextProtos: []string{"http/1.1"}, ClientSessionCache: tls.NewLRUClientSessionCache(256),
		}
	}
	return g, nil
}

func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	port := "80"
	if u.Scheme == "https" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func (c Config) withDefaults(target *url.URL) Config {
	c.Host = cmp.Or(c.Host, target.Host)
	if c.Rate == nil {
		c.Rate = Constant(5)
	}
	c.Drain = cmp.Or(c.Drain, 30*time.Second)
	c.MaxLive = cmp.Or(c.MaxLive, 2000)
	c.Funnel = c.Funnel.withDefaults()
	c.ReturnShare, c.BotShare, c.AttackShare = chance(c.ReturnShare, .25), chance(c.BotShare, 0), chance(c.AttackShare, 0)
	c.Conns = cmp.Or(c.Conns, 2)
	c.Timeout = cmp.Or(c.Timeout, 8*time.Second)
	c.MaxOrders = cmp.Or(c.MaxOrders, 1_000_000)
	if c.Dial == nil {
		c.Dial = dialFrom
	}
	return c
}

// Stats reads the counts, also while Run runs.
func (g *Generator) Stats() Stats { return g.stats.snapshot() }

// Run sends visitors until Config.Duration is over or ctx ends, waits for those on the site
// (at most Config.Drain; not at all when ctx ended, except that an order which is being
// placed is tried to its end), and reports. The report is whole also when err is not nil.
func (g *Generator) Run(ctx context.Context) (Report, error) {
	if g.ran.Swap(true) {
		return Report{}, errors.New("visitors: a Generator runs once; make another with New")
	}
	browse, leave := context.WithCancel(ctx)
	defer leave()
	var onSite sync.WaitGroup
	start := time.Now()
	g.arrive(browse, &onSite, start)

	gone := make(chan struct{})
	go func() { onSite.Wait(); close(gone) }()
	drain := time.NewTimer(g.cfg.Drain)
	defer drain.Stop()
	select {
	case <-gone:
	case <-ctx.Done():
	case <-drain.C:
	}
	leave()
	<-gone
	return g.report(start), nil
}

// arrive starts visitors at the times of a Poisson process until ctx or the duration ends.
func (g *Generator) arrive(ctx context.Context, onSite *sync.WaitGroup, start time.Time) {
	rng := rand.New(rand.NewPCG(g.cfg.Seed, math.MaxUint64))
	timer := time.NewTimer(0)
	defer timer.Stop()
	at := time.Duration(0)
	for number := uint64(0); ; {
		var arrives bool
		at, arrives = g.cfg.Rate.nextArrival(at, rng)
		over := g.cfg.Duration > 0 && at >= g.cfg.Duration
		if over {
			at = g.cfg.Duration
		}
		// Late is late: an open loop does not wait for the site.
		timer.Reset(time.Until(start.Add(at)))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if over {
			return
		}
		if !arrives {
			continue
		}
		number++
		g.stats.arrivals.Add(1)
		if g.stats.live.Load() >= int64(g.cfg.MaxLive) {
			g.stats.dropped.Add(1)
			continue
		}
		g.stats.live.Add(1)
		rng := rand.New(rand.NewPCG(g.cfg.Seed, number))
		onSite.Go(func() {
			defer g.stats.live.Add(-1)
			g.come(ctx, rng)
		})
	}
}

// come decides who a visitor is and lets it act.
func (g *Generator) come(ctx context.Context, rng *rand.Rand) {
	who := rng.Float64()
	b := &browser{g: g, rng: rng, wires: make([]*wire, g.cfg.Conns)}
	defer b.close()
	switch {
	case who < g.cfg.BotShare:
		g.stats.bots.Add(1)
		b.memory = g.newMemory(g.crawlers, rng)
		b.crawl(ctx)
	case who < g.cfg.BotShare+g.cfg.AttackShare:
		g.stats.attackers.Add(1)
		b.memory = g.newMemory(g.browsers, rng)
		b.attack(ctx)
	default:
		if rng.Float64() < g.cfg.ReturnShare {
			b.memory = g.recall(rng)
		}
		if b.memory == nil {
			b.memory = g.newMemory(g.browsers, rng)
		} else {
			g.stats.returning.Add(1)
			b.reload = rng.IntN(2) == 0
		}
		b.shop(ctx)
		g.remember(b.memory, rng)
	}
}

func (g *Generator) newMemory(from []persona, rng *rand.Rand) *memory {
	m := &memory{persona: pickPersona(from, rng, g.encodings)}
	if g.cfg.Sources.IsValid() {
		m.source = pickAddress(g.cfg.Sources, rng)
	}
	return m
}

// pickAddress draws an address of a prefix, neither its first nor its last one when it has
// more than two.
func pickAddress(from netip.Prefix, rng *rand.Rand) netip.Addr {
	b := from.Masked().Addr().AsSlice()
	hostBits := min(len(b)*8-from.Bits(), 32)
	if hostBits == 0 {
		return from.Addr()
	}
	host := rng.Uint64N(1 << hostBits)
	if hostBits > 1 {
		host = 1 + rng.Uint64N(1<<hostBits-2)
	}
	for i := range 4 {
		if at := len(b) - 1 - i; at >= 0 {
			b[at] |= byte(host >> (8 * i))
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// recall takes one who was there before, or nil.
func (g *Generator) recall(rng *rand.Rand) *memory {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.remembered) == 0 {
		return nil
	}
	i := rng.IntN(len(g.remembered))
	m := g.remembered[i]
	g.remembered = slices.Delete(g.remembered, i, i+1)
	return m
}

func (g *Generator) remember(m *memory, rng *rand.Rand) {
	if g.cfg.ReturnShare == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.remembered) < maxRemembered {
		g.remembered = append(g.remembered, m)
		return
	}
	g.remembered[rng.IntN(len(g.remembered))] = m
}
