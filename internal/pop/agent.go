package pop

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/manifest"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/pop/orders"
)

// Loader reads the bundles of tenants and puts them in service.
type Loader interface {
	// Parts are the blobs that an index names.
	Parts(index []byte) ([]manifest.Ref, error)
	// Decode makes a bundle of an index and its parts, in their order.
	Decode(organization string, index []byte, parts [][]byte) (*bundle.Bundle, error)
	// ApplyTenants puts tenants' bundles in service, all or none of them; nil takes one out.
	ApplyTenants(ctx context.Context, changed map[string]*bundle.Bundle) error
}

// Purger makes purges hold. When it returns they hold, also after a crash.
type Purger interface {
	Purge(ctx context.Context, entries [][]byte) error
	// PurgeAll takes everything for stale, as it is not known what was purged.
	PurgeAll(ctx context.Context) error
}

// Counters are what the control plane wants to know of how visitors fare.
type Counters interface {
	Gauges() fleet.Gauges
	// Sample of an organization since the process began.
	Sample(organization string) fleet.Sample
}

// AgentConfig of an Agent.
type AgentConfig struct {
	// Pop is its name.
	Pop string
	// Dir keeps what was served, so that it is served again without a control plane.
	Dir string
	// Keys that are trusted until a newer set comes.
	Keys manifest.KeySet
	// Bus may be connected later, or never.
	Bus      bus.Bus
	Loader   Loader
	Purger   Purger
	Counters Counters
	Switcher Switcher
	// Served is told of each state that was put in service; nil for nobody.
	Served func(manifest.Position)
	// Version of the software.
	Version string
	// Keep is how many former states are kept; 0 means 3.
	Keep int
	// Settle is after how long in service a state is good; 0 means 10 s.
	Settle time.Duration
	// Blobs is how many bytes of blobs are kept on the disk; 0 means 2 GiB.
	Blobs   int64
	Logger  *slog.Logger
	Metrics *observe.Registry
}

// Agent follows a control plane.
type Agent struct {
	cfg     AgentConfig
	disk    *disk
	book    *orders.Book
	metrics agentMetrics
	started time.Time

	heads  chan *fleet.Head // the newest that came
	beatUp chan struct{}    // a heartbeat is due now
	purges *purges

	work sync.Mutex // one change of what is served at a time

	mu       sync.Mutex
	keys     *manifest.Keyring
	current  *state // nil before anything is served
	problem  string
	watched  []string
	reported map[string]time.Time // when something was reported last
}

type agentMetrics struct {
	applied, refused, pulled, fellBack observe.Counter
	position                           observe.Gauge
}

// state is what is served: a manifest, and what of it is not.
type state struct {
	Signed  manifest.Signed   `json:"signed"`
	Tenants []manifest.Tenant `json:"tenants"` // of the table
	// Held are tenants whose bundle in the table was refused: what is served in its place, without Index for nothing.
	Held map[string]held `json:"held,omitempty"`

	head  manifest.Head
	table *manifest.Table
}

type held struct {
	manifest.Tenant
	Refused manifest.Digest `json:"refused"`
	Why     string          `json:"why"`
}

// serves is what is in service of an organization.
func (s *state) serves(org string) (manifest.Tenant, bool) {
	if h, is := s.Held[org]; is {
		return h.Tenant, h.Index.Size > 0
	}
	return s.table.Find(org)
}

// NewAgent makes an agent of what is on the disk. Boot puts that in service, Run follows.
func NewAgent(cfg AgentConfig) (*Agent, error) {
	if cfg.Keep == 0 {
		cfg.Keep = 3
	}
	if cfg.Settle == 0 {
		cfg.Settle = 10 * time.Second
	}
	if cfg.Blobs == 0 {
		cfg.Blobs = 2 << 30
	}
	if cfg.Served == nil {
		cfg.Served = func(manifest.Position) {}
	}
	d, err := openDisk(cfg.Dir)
	if err != nil {
		return nil, err
	}
	m := cfg.Metrics
	a := &Agent{
		cfg: cfg, disk: d, started: time.Now(), heads: make(chan *fleet.Head, 1), beatUp: make(chan struct{}, 1), reported: map[string]time.Time{},
		metrics: agentMetrics{
			applied:  m.Counters("relais_pop_manifests_total", "Manifests that were put in service.", 1).With(),
			refused:  m.Counters("relais_pop_refused_total", "Manifests and bundles that were refused.", 1).With(),
			pulled:   m.Counters("relais_pop_pulled_bytes_total", "Bytes of blobs that were asked for.", 1).With(),
			fellBack: m.Counters("relais_pop_fallbacks_total", "Starts that went back to a former state.", 1).With(),
			position: m.Gauges("relais_pop_revision", "Revision of the manifest in service.", 1).With(),
		},
	}
	set := cfg.Keys
	if newer := d.keys(); newer != nil && newer.Number > set.Number {
		set = *newer
	}
	if a.keys, err = manifest.NewKeyring(set); err != nil {
		return nil, err
	}
	if a.book, err = orders.Open(filepath.Join(cfg.Dir, ordersFile)); err != nil {
		cfg.Logger.Error("orders of people at this PoP cannot be read", "err", err)
	}
	a.purges = newPurges(a)
	return a, nil
}

// AgentState is what people are shown of an agent.
type AgentState struct {
	Position manifest.Position `json:"position"`
	Tenants  int               `json:"tenants"`
	Held     map[string]string `json:"held,omitempty"` // organizations whose newest bundle is refused, and why
	Problem  string            `json:"problem,omitempty"`
	Pinned   string            `json:"pinned,omitempty"`
	Purged   uint64            `json:"purged"`
	Kept     []Kept            `json:"kept"`
}

// Kept is a state that can be gone back to.
type Kept struct {
	manifest.Position
	Issued time.Time `json:"issued"`
}

// State is what is served now.
func (a *Agent) State() AgentState {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := AgentState{Problem: a.problem, Pinned: a.pinned(), Purged: a.purges.at().Number}
	if c := a.current; c != nil {
		s.Position, s.Tenants = c.head.Position, len(c.Tenants)
		for org, h := range c.Held {
			if s.Held == nil {
				s.Held = map[string]string{}
			}
			s.Held[org] = h.Why
		}
	}
	for _, k := range a.disk.list() {
		s.Kept = append(s.Kept, Kept{k.head.Position, k.head.Issued})
	}
	return s
}

// Run follows until ctx ends. Without a connection it serves what it has.
func (a *Agent) Run(ctx context.Context) error {
	subs := []struct {
		subject string
		depth   int
		handle  func(bus.Message)
	}{
		{bus.Down(a.cfg.Pop, bus.Head), 4, a.hearHead},
		{bus.AllPurge, 1 << 14, a.purges.hear},
		{bus.Down(a.cfg.Pop, bus.Order), 16, a.hearOrder},
		{bus.AllKeys, 4, func(m bus.Message) { a.hearKeys(m.Data) }},
	}
	for _, s := range subs {
		sub, err := a.cfg.Bus.Subscribe(s.subject, "", s.depth, s.handle)
		if err != nil {
			return err
		}
		defer func() { _ = sub.Close() }()
	}
	a.soon()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.followHeads(ctx) })
	g.Go(func() error { return a.purges.run(ctx) })
	g.Go(func() error { return a.followOrders(ctx) })
	g.Go(func() error { return a.book.Run(ctx) })
	g.Go(func() error { return a.beats(ctx) })
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// hearHead puts a head where the newest is looked for.
func (a *Agent) hearHead(m bus.Message) {
	h, err := readHead(m.Data)
	if err != nil {
		a.refuse("", err)
		return
	}
	a.offer(h)
}

// offer leaves a head to followHeads; of two that wait the later one counts, and what is older is refused there.
func (a *Agent) offer(h *fleet.Head) {
	for {
		select {
		case a.heads <- h:
			return
		default:
		}
		select {
		case <-a.heads:
		default:
		}
	}
}

// followHeads takes heads over, one at a time.
func (a *Agent) followHeads(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case h := <-a.heads:
			if err := a.take(ctx, h); err != nil && ctx.Err() == nil {
				a.trouble(err)
			}
		}
	}
}

// beats tells the control plane where this PoP is, each second and whenever something changed.
func (a *Agent) beats(ctx context.Context) error {
	for {
		up, _ := a.cfg.Bus.Connected()
		wait := time.NewTimer(time.Second + time.Duration(rand.Int64N(int64(100*time.Millisecond))))
		select {
		case <-ctx.Done():
			wait.Stop()
			return context.Cause(ctx)
		case <-a.beatUp:
		case <-wait.C:
		}
		wait.Stop()
		select {
		case <-up:
			a.beat(ctx)
		default: // there is nobody to tell; a connection makes itself known
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-up:
				a.beat(ctx)
			}
		}
	}
}

// soon has a heartbeat sent now.
func (a *Agent) soon() {
	select {
	case a.beatUp <- struct{}{}:
	default:
	}
}

// trouble notes what is wrong, for the next heartbeat and for people.
func (a *Agent) trouble(err error) {
	a.mu.Lock()
	news := a.problem != err.Error()
	a.problem = err.Error()
	a.mu.Unlock()
	if news {
		a.cfg.Logger.Warn("the control plane is not followed for the moment", "err", err)
	}
}
