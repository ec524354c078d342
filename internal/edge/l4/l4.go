// Package l4 serves Services: it forwards TCP connections, UDP sessions, and TLS connections whose
// TLS stays the origin's, chosen by the name that the ClientHello asks for.
//
// What passes is not looked into. Who may come is bounded by service and by client address (an IPv4
// address or an IPv6 /64); where it goes is the pool's to say, with the capacity, health and overflow
// that requests have. A reload is a difference: sockets whose address stays are kept, and what is
// under way keeps its origin.
package l4

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/proxyproto"
	"github.com/relais-edge/relais/internal/handover"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// Pools finds pools; the join of balance and origin is one.
type Pools interface {
	// Pool finds or makes the pool of that key and has it do what spec says. An error says what in
	// spec cannot work.
	Pool(key bundle.Key, spec *v1.OriginPoolSpec) (Pool, error)
}

// Pool opens connections to the origins of a pool.
type Pool interface {
	// Connect opens a connection over tcp or udp to an origin that has room, and tries others as the
	// pool allows. From is who asks; its source address decides where a consistent hash points. The
	// Link is filled as far as it is known, also on an error, which is a *stage.Error.
	Connect(ctx context.Context, network string, from *proxyproto.Header, l *Link) error
}

// Link is a connection to an origin and the place that it holds.
type Link struct {
	Conn net.Conn
	// Tier and Origin are where it goes, Tries how many were needed.
	Tier, Origin string
	Tries        int
	Spilled      bool   // the tier is not the first choice
	Spill        string // why
	Place        Place
}

// Place is what a connection holds of a pool.
type Place interface {
	// Release gives it back, once; failed says that the origin broke what it had taken.
	Release(failed bool)
}

// Ended is a connection or session that is over, for the log.
type Ended struct {
	ID      stage.RequestID
	Start   time.Time
	Took    time.Duration
	Client  netip.Addr
	Service string // key
	Proto   string // tcp, tls or udp
	Host    string // by SNI
	Pool    string
	Tier    string
	Origin  string
	Tries   int
	Spilled bool
	Spill   string // why
	// Received is from the client, Sent to it.
	Received, Sent int64
	// Code says why it ended when that was not the wish of one of the two, or why it never began;
	// Cause tells more.
	Code  string
	Cause string
}

// Config is what a Manager needs.
type Config struct {
	Pools Pools
	// Inherited are sockets that another process opened for this one; nil means none.
	Inherited *handover.Inherited
	Record    func(*Ended)      // nil for none
	Logger    *slog.Logger      // nil for none
	Metrics   *observe.Registry // nil for a registry of its own
}

var errDraining = errors.New("the services are being drained; nothing can be applied any more")

// Manager holds the services of one process. It is safe for concurrent use.
type Manager struct {
	cfg     Config
	epoch   time.Time
	metrics metrics
	hellos  atomic.Int64 // ClientHellos and PROXY headers being waited for
	shared  atomic.Pointer[map[string]*router]
	wake    chan struct{}

	datagrams sync.Pool      // of *datagram, for all sessions
	wg        sync.WaitGroup // accept loops, connections, sessions

	mu        sync.Mutex
	running   bool
	draining  bool
	handed    bool // another process has the sockets
	endpoints map[place]*endpoint
	services  map[bundle.Key]*service
	leaving   map[*service]struct{}
	resting   map[place]*endpoint // over UDP, while their last sessions fall silent
}

// New returns a Manager without services. It starts nothing.
func New(cfg Config) *Manager {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = observe.New()
	}
	if cfg.Record == nil {
		cfg.Record = func(*Ended) {}
	}
	m := &Manager{
		cfg: cfg, epoch: time.Now(), metrics: newMetrics(cfg.Metrics), wake: make(chan struct{}, 1),
		endpoints: map[place]*endpoint{}, services: map[bundle.Key]*service{}, leaving: map[*service]struct{}{},
		resting: map[place]*endpoint{},
	}
	m.shared.Store(&map[string]*router{})
	return m
}

// clock is monotonic, nanoseconds.
func (m *Manager) clock() int64 { return int64(time.Since(m.epoch)) }

// Run accepts connections until ctx ends; then it cuts everything off. To lose nothing call Drain before.
func (m *Manager) Run(ctx context.Context) error {
	m.mu.Lock()
	if m.running {
		m.mu.Unlock()
		return errors.New("l4: Run is called twice")
	}
	m.running = true
	m.mu.Unlock()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		m.start(ctx)
		select {
		case <-ctx.Done():
			m.stop()
			m.wg.Wait()
			return nil
		case <-m.wake:
		case <-tick.C:
			m.sweep()
		}
	}
}

// start starts what was applied since the last time.
func (m *Manager) start(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.endpoints {
		e.start(ctx)
	}
}

// stop closes all sockets and cuts off what is under way.
func (m *Manager) stop() {
	m.mu.Lock()
	m.draining = true
	all := slices.Collect(maps.Keys(m.leaving))
	all = slices.AppendSeq(all, maps.Values(m.services))
	for _, e := range m.endpoints {
		e.close()
	}
	m.mu.Unlock()
	for _, s := range all {
		s.cut()
	}
}

// sweep ends idle UDP sessions and forgets services that have gone.
func (m *Manager) sweep() {
	now := m.clock()
	m.mu.Lock()
	var udp []*endpoint
	for _, e := range m.endpoints {
		if e.udp != nil {
			udp = append(udp, e)
		}
	}
	m.mu.Unlock()
	for _, e := range udp {
		e.sweep(now)
	}
}

// Drain takes no new connections and lets those under way end, each service's for at most its drain
// time. It cuts all off when ctx ends; then it returns the context's error.
func (m *Manager) Drain(ctx context.Context) error {
	m.mu.Lock()
	m.draining = true
	for _, e := range m.endpoints {
		m.retire(e)
	}
	m.shared.Store(&map[string]*router{})
	for key, s := range m.services {
		delete(m.services, key)
		m.leave(s)
	}
	all := slices.Collect(maps.Keys(m.leaving))
	m.mu.Unlock()
	for _, s := range all {
		select {
		case <-s.gone:
		case <-ctx.Done():
			for _, s := range all {
				s.cut()
			}
			return fmt.Errorf("some connections were cut off: %w", context.Cause(ctx))
		}
	}
	return nil
}

// leave drains a service in the background; m.mu is held.
func (m *Manager) leave(s *service) {
	m.leaving[s] = struct{}{}
	m.wg.Go(func() {
		s.drain()
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.leaving, s)
		m.metrics.forget(string(s.key))
	})
}

// Addrs are the addresses on which services receive, by network and service or address.
func (m *Manager) Addrs() []net.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []net.Addr
	for _, e := range m.endpoints {
		all = append(all, e.addr())
	}
	return all
}

// notify has Run look again.
func (m *Manager) notify() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}
