package rollout

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/manifest"
	"github.com/relais-edge/relais/internal/observe"
)

// Compiled is an organization's bundle as it is sent.
type Compiled struct {
	Index []byte
	Parts [][]byte
}

// Compiler makes bundles of documents.
type Compiler interface {
	// Compile makes the bundle of the documents that r has of an organization; nil where it has none. What is wrong with
	// them is a *DocumentsError.
	Compile(ctx context.Context, r *store.Reader, organization string) (*Compiled, error)
	// Parts are the blobs that an index names.
	Parts(index []byte) ([]manifest.Ref, error)
}

// DocumentsError says that documents make no bundle. Who writes documents has them checked before, so it is rare.
type DocumentsError struct{ Why string }

// Error says why.
func (e *DocumentsError) Error() string { return e.Why }

// Rules reads what documents say of how changes move.
type Rules interface {
	Read(ctx context.Context, r *store.Reader) (*Rulebook, error)
	// Concerns says whether a document of a kind is part of it.
	Concerns(kind string) bool
	// Urgent says whether a change of a document of a kind goes the emergency lane by itself.
	Urgent(kind string) bool
}

// Sealer closes blobs while they are kept: they hold secrets of tenants.
type Sealer interface {
	Close(d manifest.Digest, data []byte) ([]byte, error)
	Open(d manifest.Digest, kept []byte) ([]byte, error)
}

// Replayer plays recorded requests against a bundle, at a PoP that serves the organization.
type Replayer interface {
	Replay(ctx context.Context, organization string, served, next manifest.Ref) (*Verdict, error)
}

// Purges is asked for the newest purge, of which PoPs are told on their heartbeats.
type Purges interface {
	Newest() fleet.PurgePosition
}

// Config of a Conductor.
type Config struct {
	Store    *store.Store
	Bus      bus.Bus
	Compiler Compiler
	Rules    Rules
	Sealer   Sealer   // nil: blobs are kept as they are
	Replayer Replayer // nil: what a replay gate waits for is "nothing to replay"
	Purges   Purges   // nil: there are none
	Sign     func(*manifest.Head) (*manifest.Signed, error)
	// Name of this control plane, for people.
	Name string
	// Clock of events and windows of freeze; nil means time.Now.
	Clock   func() time.Time
	Logger  *slog.Logger
	Metrics *observe.Registry
}

// Conductor leads rollouts. Of several control planes one does; each answers PoPs that ask for blobs.
type Conductor struct {
	cfg     Config
	metrics metrics
	opened  opened
}

type metrics struct {
	events, announced, unsent, beats, foreign observe.Counter
	pops, behind                              observe.Gauge
}

// New makes a Conductor; Run does the work.
func New(cfg Config) *Conductor {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	m := cfg.Metrics
	return &Conductor{cfg: cfg, metrics: metrics{
		events:    m.Counters("relais_rollout_events_total", "Steps of rollouts: begun, advanced, finished, undone and the like.", 1).With(),
		announced: m.Counters("relais_rollout_heads_total", "Manifests that were sent to PoPs.", 1).With(),
		unsent:    m.Counters("relais_rollout_heads_unsent_total", "Manifests that could not be sent; heartbeats make up for them.", 1).With(),
		beats:     m.Counters("relais_rollout_beats_total", "Heartbeats of PoPs.", 1).With(),
		foreign:   m.Counters("relais_rollout_foreign_total", "Messages of PoPs that are not in the documents, or that are not well formed.", 1).With(),
		pops:      m.Gauges("relais_rollout_pops", "PoPs that are heard of.", 1).With(),
		behind:    m.Gauges("relais_rollout_pops_behind", "PoPs that are heard of and do not serve what they should yet.", 1).With(),
	}}
}

// consumer of the outbox.
const consumer = "rollout"

// blobDepth is how many requests for blobs wait.
const blobDepth = 4096

// Run leads where no other does, and answers PoPs, until ctx ends.
func (c *Conductor) Run(ctx context.Context) error {
	sub, err := c.cfg.Bus.Subscribe(bus.Up("*", bus.Blob), bus.Control, blobDepth, func(m bus.Message) { c.answerBlob(ctx, m) })
	if err != nil {
		return err
	}
	defer func() { _ = sub.Close() }()
	for ctx.Err() == nil {
		lease, err := c.cfg.Store.Lead(ctx, consumer, c.cfg.Name)
		if err != nil {
			return forgive(ctx, err)
		}
		err = c.lead(ctx, lease)
		lease.Close()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, store.ErrFenced):
		case err != nil:
			c.cfg.Logger.Error("rollouts stand still for a moment", "err", err)
		}
		pause := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
	return nil
}

// lead conducts until the lease or ctx ends.
func (c *Conductor) lead(ctx context.Context, lease *store.Lease) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-lease.Done():
			stop()
		case <-ctx.Done():
		}
	}()
	l := &lead{c: c, lease: lease, beats: make(chan bus.Message, beatDepth), tablesAsked: make(chan bus.Message, beatDepth), news: make(chan news, 1), replayed: make(chan replayed, 1), marks: map[string]*marks{}}
	if err := c.cfg.Store.Subscribe(ctx, consumer); err != nil {
		return err
	}
	if err := l.load(ctx); err != nil {
		return err
	}
	for _, s := range []struct {
		what string
		to   chan bus.Message
	}{{bus.Beat, l.beats}, {bus.Table, l.tablesAsked}} {
		sub, err := c.cfg.Bus.Subscribe(bus.Up("*", s.what), "", beatDepth, func(m bus.Message) {
			select {
			case s.to <- m:
			case <-ctx.Done():
			}
		})
		if err != nil {
			return err
		}
		defer func() { _ = sub.Close() }()
	}
	followed := make(chan error, 1)
	go func() { followed <- l.follow(ctx) }()
	err := l.run(ctx)
	stop()
	return errors.Join(err, <-followed)
}

func (c *Conductor) answerBlob(ctx context.Context, m bus.Message) {
	if m.Respond == nil {
		return
	}
	_ = m.Respond(c.piece(ctx, m.Data)) // who asked asks again
}
