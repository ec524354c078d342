package purge

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/control/store"
	entry "github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/manifest"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/pop"
	"github.com/relais-edge/relais/test/postgres"
)

var server = &postgres.Lazy{}

func TestMain(m *testing.M) { os.Exit(server.Main(m)) }

// patience is how long what must come may take on a busy machine.
const patience = time.Minute

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// world is a database, a bus, control planes and PoPs.
type world struct {
	t    *testing.T
	bus  bus.Memory
	dsn  string // of PostgreSQL, or a file
	pg   bool
	keys manifest.KeySet

	mu    sync.Mutex
	clock func() time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, pg: postgres.Wanted(t), clock: time.Now}
	if !w.pg { // below TestOverPostgres others run at once
		ignore := goleak.IgnoreCurrent()
		t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	w.keys = manifest.KeySet{Number: 1, Keys: []manifest.Key{{Public: manifest.NewSigner(key).Public()}}}
	w.dsn = w.database()
	return w
}

func (w *world) database() string {
	if !w.pg {
		return filepath.Join(w.t.TempDir(), "relais.db")
	}
	dsn, err := server.Database(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return dsn
}

// open opens the database once more.
func (w *world) open() *store.Store {
	w.t.Helper()
	o := store.Options{Schemas: []store.Schema{Schema()}, Clock: w.now}
	open := store.OpenSQLite
	if w.pg {
		open = store.OpenPostgres
	}
	s, err := open(w.t.Context(), w.dsn, o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = s.Close() })
	return s
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock()
}

func (w *world) setClock(f func() time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = f
}

// lossy is an end of the bus on which what lose says does not get away, without an error.
type lossy struct {
	bus.Bus
	mu   sync.Mutex
	lose func(subject string, data []byte) bool
	sent int // purges that got away
}

func (l *lossy) Publish(subject string, data []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lose != nil && l.lose(subject, data) {
		return nil
	}
	if subject == bus.AllPurge {
		l.sent++
	}
	return l.Bus.Publish(subject, data)
}

func (l *lossy) set(lose func(subject string, data []byte) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lose = lose
}

// plane is a control plane under test. Mute answers no heartbeat.
type plane struct {
	*Service
	mute  atomic.Bool
	store *store.Store
	end   *bus.End
	lossy *lossy
	stop  func()
}

// plane starts one: it answers heartbeats as the conductor of rollouts does.
func (w *world) plane(name string, with ...func(*Config)) *plane {
	w.t.Helper()
	p := &plane{store: w.open(), end: w.bus.Join()}
	p.lossy = &lossy{Bus: p.end}
	cfg := Config{Store: p.store, Bus: p.lossy, Name: name, Logger: slog.New(slog.DiscardHandler), Metrics: observe.New()}
	for _, f := range with {
		f(&cfg)
	}
	p.Service = New(cfg)
	answer, err := p.end.Subscribe(bus.Up("*", bus.Beat), bus.Control, 1000, func(m bus.Message) {
		if data, err := json.Marshal(&fleet.BeatAnswer{Purge: p.Newest()}); err == nil && p.Newest().Epoch > 0 && !p.mute.Load() {
			_ = m.Respond(data)
		}
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("plane %s: %v", name, err)
		}
		_ = answer.Close()
		_ = p.end.Close()
		_ = p.store.Close()
	})
	w.t.Cleanup(p.stop)
	until(w.t, "the plane begins", func() bool { return p.Newest().Epoch > 0 })
	return p
}

// sites makes sites of organizations.
func (p *plane) sites(t *testing.T, list ...[2]string) {
	t.Helper()
	_, err := p.store.Update(t.Context(), store.Change{Author: "test"}, func(tx *store.Tx) error {
		for _, x := range list {
			if _, err := tx.Put(t.Context(), store.Key{Organization: x[0], Kind: "Site", Name: x[1]}, []byte("{}"), store.Any); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tags is an order for tags of acme's shop.
func tags(names ...string) *Order {
	o := &Order{Author: "ann", Organization: "acme", Site: "shop"}
	for _, n := range names {
		o.Entries = append(o.Entries, entry.Entry{Kind: entry.Tag, Value: n})
	}
	return o
}

func (p *plane) must(t *testing.T, o *Order) *Receipt {
	t.Helper()
	r, err := p.Purge(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// obeyed waits until all PoPs obey, however busy the machine is, but for those who never will.
func (p *plane) obeyed(t *testing.T, r *Receipt, but ...string) *Receipt {
	t.Helper()
	now := *r
	until(t, fmt.Sprintf("all obey %d", r.Last), func() bool {
		p.fill(&now)
		return !now.Blind && len(now.Pops) > 0 && !slices.ContainsFunc(now.Pops, func(x PopState) bool { return x.State != Obeys && !slices.Contains(but, x.Pop) })
	})
	return &now
}

// edge is the edge of a PoP: what was purged there, in order; "*" for everything.
type edge struct {
	mu   sync.Mutex
	list []string
	fail error
}

func (e *edge) Purge(_ context.Context, entries [][]byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fail != nil {
		return e.fail
	}
	for _, data := range entries {
		var x entry.Entry
		if err := json.Unmarshal(data, &x); err != nil {
			return err
		}
		e.list = append(e.list, x.Value)
	}
	return nil
}

func (e *edge) PurgeAll(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fail == nil {
		e.list = append(e.list, "*")
	}
	return e.fail
}

func (e *edge) broken(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fail = err
}

func (e *edge) purged() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.list)
}

// since is what was purged after everything was last.
func (e *edge) since() []string {
	list := e.purged()
	for i := len(list) - 1; i >= 0; i-- {
		if list[i] == "*" {
			return list[i+1:]
		}
	}
	return list
}

func (*edge) Parts([]byte) ([]manifest.Ref, error) { return nil, nil }

func (*edge) Decode(string, []byte, [][]byte) (*bundle.Bundle, error) { return &bundle.Bundle{}, nil }

func (*edge) ApplyTenants(context.Context, map[string]*bundle.Bundle) error { return nil }

func (*edge) Gauges() fleet.Gauges { return fleet.Gauges{} }

func (*edge) Sample(string) fleet.Sample { return fleet.Sample{} }

// site is a PoP: the agent as it is in use, in front of a scripted edge.
type site struct {
	*edge
	name, dir string
	end       *bus.End
	stop      func()
}

func (w *world) pop(name string) *site {
	p := &site{edge: &edge{}, name: name, dir: w.t.TempDir()}
	w.run(p)
	return p
}

// run starts a PoP, which may have been there before.
func (w *world) run(p *site) {
	w.t.Helper()
	p.end = w.bus.JoinAs(bus.PopRights(p.name))
	a, err := pop.NewAgent(pop.AgentConfig{
		Pop: p.name, Dir: p.dir, Keys: w.keys, Bus: p.end, Loader: p.edge, Purger: p.edge, Counters: p.edge, Version: "test", Logger: slog.New(slog.DiscardHandler), Metrics: observe.New(),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	end := p.end
	p.stop = sync.OnceFunc(func() {
		cancel()
		_ = end.Close()
		if err := <-done; err != nil && ctx.Err() == nil {
			w.t.Errorf("PoP %s: %v", p.name, err)
		}
	})
	w.t.Cleanup(p.stop)
}

// pops starts n that obey all that there is.
func (w *world) pops(c *plane, n int) (list []*site) {
	for i := range n {
		list = append(list, w.pop(fmt.Sprintf("pop%d", i)))
	}
	until(w.t, "all PoPs are heard of and obey", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, p := range list {
			if x := c.pops[p.name]; x == nil || !x.obeys(c.newest, c.newest.Number) {
				return false
			}
		}
		c.hearing = time.Now().Add(-settle) // there are no others
		return true
	})
	return list
}

// entries reads the whole log.
func (p *plane) log(t *testing.T) (list []row) {
	t.Helper()
	err := p.store.View(t.Context(), func(r *store.Reader) (err error) {
		list, err = rowsAfter(t.Context(), r, 0, 1<<30)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// state of a PoP in a receipt.
func (r *Receipt) state(pop string) State {
	for _, p := range r.Pops {
		if p.Pop == pop {
			return p.State
		}
	}
	return ""
}
