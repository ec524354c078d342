// Package listen is where visitors come in: sockets, TLS and its certificates, the PROXY
// protocol, the limits on connections, and the drain. It hands each connection to the HTTP
// implementation that its bytes ask for, and all requests to one Handler.
//
// A reload is a difference: sockets whose address stays are kept, with their connections;
// what has changed holds for new connections.
package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/handover"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
)

// Handler answers the requests of all listeners.
type Handler interface {
	// Serve answers req; it never returns nil. What the answer lends is good until its
	// Ender is told, and so are req and its body. Ctx ends with the connection.
	Serve(ctx context.Context, req *message.Request) *message.Response
	// Refuse gives the page for bytes that are no acceptable request; nil for a plain one.
	Refuse(ctx context.Context, conn *message.Conn, status int, code, detail string) *message.Response
}

// Passthrough takes TLS connections whose TLS is an origin's, by the name that they ask for.
type Passthrough interface {
	// Forward serves such a connection to its end and says that it took it. Any other it returns, whole;
	// so it does at once on an address on which nobody takes names. Limit is the time for the ClientHello.
	Forward(ctx context.Context, address string, nc net.Conn, facts *message.Conn, limit time.Duration) (rest net.Conn, taken bool)
}

// Config is what a Manager needs.
type Config struct {
	Handler Handler
	// Passthrough may take connections of TLS listeners; nil means nobody does.
	Passthrough Passthrough
	// Authority issues certificates for listeners that have none of their own; nil means that
	// there is no internal CA.
	Authority Authority
	// ACME gets certificates from ACME authorities; nil means that documents cannot ask for it.
	ACME ACME
	// Sites guards certificates on demand; nil means that there are none.
	Sites Sites
	// Staples is a folder in which OCSP answers outlive the process; empty for none.
	Staples string
	// Inherited are sockets that another process opened for this one; nil means none.
	Inherited *handover.Inherited
	// Files is how many descriptors connections may use; 0 means no limit.
	Files int
	// Abuse is told of a client whose connection was ended for abuse of HTTP or because it was too slow, or whose
	// handshake failed by its own doing. It must not block; nil means nobody is told.
	Abuse   func(client netip.Addr)
	Logger  *slog.Logger      // nil means none
	Metrics *observe.Registry // nil means a registry of its own
}

// maxHandshakes bounds the TLS handshakes under way at once in the process; a handshake may
// hold its place for as long as the listener's handshake timeout.
const maxHandshakes = 16384

// errDraining is the end of Apply.
var errDraining = errors.New("the listeners are being drained; nothing can be applied any more")

// Manager holds the listeners of one process. It is safe for concurrent use.
type Manager struct {
	cfg     Config
	metrics metrics
	tunnel  time.Duration // tunnelTimeout

	ids        atomic.Uint64
	handshakes atomic.Int64
	open       atomic.Int64 // TCP connections
	index      atomic.Pointer[map[string]*Active]

	wake chan struct{}
	wg   sync.WaitGroup // of connections, accept loops and drains

	tidying sync.Mutex // of certificates' own state
	loaded  loaded
	staples *stapler
	shakers *shakers
	turns   *turns

	mu        sync.Mutex
	running   bool
	draining  bool
	handed    bool // another process has the sockets
	endpoints map[place]*endpoint
	leaving   map[*endpoint]struct{}
	actives   []*Active // the current ones and those that still have connections
	states    map[string]*state
	certs     map[bundle.Key]*certificate
}

// New returns a Manager without listeners. It starts nothing.
func New(cfg Config) *Manager {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = observe.New()
	}
	m := &Manager{
		cfg: cfg, metrics: newMetrics(cfg.Metrics), tunnel: tunnelTimeout, wake: make(chan struct{}, 1),
		endpoints: map[place]*endpoint{}, leaving: map[*endpoint]struct{}{},
		states: map[string]*state{}, certs: map[bundle.Key]*certificate{},
	}
	m.staples, m.shakers, m.turns = newStapler(cfg), newShakers(), newTurns(processors(), m.metrics.waited)
	m.index.Store(&map[string]*Active{})
	return m
}

// Listener finds a listener's settings by its key, as message.Conn names it; nil when there
// is none. A listener that is removed is found until its last connection has ended. It
// allocates nothing and takes no lock.
func (m *Manager) Listener(key string) *Active { return (*m.index.Load())[key] }

// Addrs are the addresses by the listeners' keys, with the ports that the system chose for
// port 0.
func (m *Manager) Addrs() map[string]net.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	addrs := map[string]net.Addr{}
	for p, e := range m.endpoints {
		if key := e.current.Load().Key; p.network == "tcp" || addrs[key] == nil {
			addrs[key] = e.addr()
		}
	}
	return addrs
}

// Run accepts connections and looks after certificates until ctx ends; then it closes
// everything at once. To lose nothing call Drain before.
func (m *Manager) Run(ctx context.Context) error {
	m.mu.Lock()
	if m.running {
		m.mu.Unlock()
		return errors.New("listen: Run is called twice")
	}
	m.running = true
	m.mu.Unlock()
	m.wg.Go(func() { m.staples.run(ctx) })
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var crowd tide
	for {
		m.start(ctx)
		select {
		case <-ctx.Done():
			m.stop()
			m.wg.Wait()
			m.shakers.stop()
			return nil
		case <-m.wake:
		case now := <-tick.C:
			m.tidy(now)
			if crowd.turned(m.open.Load(), now) {
				m.wg.Go(debug.FreeOSMemory)
			}
		}
	}
}

// start starts what was applied since the last time.
func (m *Manager) start(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.actives {
		a.start(ctx, &m.wg)
	}
	for _, e := range m.endpoints {
		e.start(ctx)
	}
}

// stop closes all sockets. Connections end with the context of Run.
func (m *Manager) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.draining = true
	for _, e := range m.endpoints {
		e.close()
	}
}

// tidy looks after certificates, tickets, and settings that nobody uses any more.
func (m *Manager) tidy(now time.Time) {
	m.tidying.Lock()
	defer m.tidying.Unlock()
	changed := m.refresh(now)
	m.mu.Lock()
	actives := slices.Clone(m.actives)
	m.mu.Unlock()
	for _, a := range actives {
		if a.own3 != nil {
			a.series.quic.count(a.own3.Stats())
		}
		if a.selector == nil {
			continue
		}
		if changed {
			a.selector.rebuild()
		}
		if a.state.tickets.turn(now, a.Spec.TLS.TicketKeys, m.cfg.Logger) {
			a.seal()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retire()
}

// maxGenerations bounds the settings of one address that are kept for old connections; the
// connections of the oldest are ended in good order.
const maxGenerations = 8

// retire lets go of settings that no socket has any more, once they have no connection;
// m.mu is held.
func (m *Manager) retire() {
	used := map[*Active]bool{}
	for _, e := range m.endpoints {
		used[e.current.Load()] = true
	}
	for e := range m.leaving {
		used[e.current.Load()] = true
	}
	for _, a := range m.actives {
		if !used[a] {
			a.current.Store(false)
		}
	}
	keep, older := m.actives[:0], map[*state]int{}
	for _, a := range m.actives {
		if a.retired() {
			a.forget()
			continue
		}
		keep = append(keep, a)
	}
	clear(m.actives[len(keep):])
	m.actives = keep
	for i := len(keep) - 1; i >= 0; i-- {
		a := keep[i]
		if older[a.state]++; older[a.state] > maxGenerations {
			a.drainOld()
		}
	}
	m.reindex()
}

// reindex makes what Listener reads; m.mu is held.
func (m *Manager) reindex() {
	index := make(map[string]*Active, len(m.endpoints))
	for e := range m.leaving {
		a := e.current.Load()
		index[a.Key] = a
	}
	for _, e := range m.endpoints {
		a := e.current.Load()
		index[a.Key] = a
	}
	for key := range m.states {
		if index[key] == nil {
			delete(m.states, key)
		}
	}
	m.index.Store(&index)
}

// Drain stops accepting and lets what is under way end: idle connections are closed, busy
// ones are answered, each for at most its listener's drain timeout. It returns when the last
// has ended, or closes all at once when ctx ends; then it returns the context's error.
func (m *Manager) Drain(ctx context.Context) error {
	m.mu.Lock()
	m.draining = true
	var all []*endpoint
	m.leave(slices.Collect(maps.Values(m.endpoints)))
	for e := range m.leaving {
		all = append(all, e)
	}
	m.mu.Unlock()
	for _, e := range all {
		select {
		case <-e.gone:
		case <-ctx.Done():
			for _, e := range all {
				e.abort()
			}
			return fmt.Errorf("some requests were cut off: %w", context.Cause(ctx))
		}
	}
	return nil
}

// leave drains endpoints in the background, once their TCP addresses are free; m.mu is held.
func (m *Manager) leave(all []*endpoint) {
	var shut sync.WaitGroup
	for _, e := range all {
		delete(m.endpoints, e.place)
		m.leaving[e] = struct{}{}
		shut.Go(e.shut)
	}
	shut.Wait()
	for _, e := range all {
		cancel, hush, handed := e.cancel, e.hush, m.handed
		m.wg.Go(func() {
			e.leave(cancel, hush, handed)
			m.mu.Lock()
			defer m.mu.Unlock()
			delete(m.leaving, e)
			m.retire()
		})
	}
}

// notify has Run look again.
func (m *Manager) notify() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}
