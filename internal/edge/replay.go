package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/balance"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// ReplayConfig is what an edge needs that serves recorded requests: virtual time, origins that exist in
// memory, and who the visitors were.
type ReplayConfig struct {
	// Time is the virtual time, and when places at origins come free.
	Time balance.Replay
	// Origin answers in the place of all origins.
	Origin stage.Handler
	// Presume says who a visitor was that brings a cookie of ours.
	Presume func(*stage.Exchange) stage.Visitor
	// CacheBytes is the memory for stored answers.
	CacheBytes int64
	// Zone and Number are those of the edge, as in Config.
	Zone   string
	Number uint64
	// Seed is what all chances follow from.
	Seed uint64
}

// orNothing gives a nil config that changes nothing.
func (c *ReplayConfig) orNothing() *ReplayConfig {
	if c == nil {
		return &ReplayConfig{}
	}
	return c
}

// clock is the virtual one, or nil.
func (c *ReplayConfig) clock() func() time.Time {
	if c.Time == nil {
		return nil
	}
	return c.Time.Now
}

// origins are what balance and the chain need of origins.
type origins interface {
	stage.Handler
	balance.Origins
}

func (c *ReplayConfig) origins(real origins) origins {
	if c.Origin == nil {
		return real
	}
	return &simulated{c.Origin}
}

// Replay is an edge without sockets, clocks and connections: it serves requests as an edge would, in
// virtual time, one at a time.
type Replay struct {
	edge *Edge
	cfg  ReplayConfig
	dir  string
}

// NewReplay puts a bundle in service that nobody but the caller can ask. Close ends it.
func NewReplay(ctx context.Context, cfg ReplayConfig, b *bundle.Bundle) (*Replay, error) {
	if b.Format != bundle.Format {
		return nil, fmt.Errorf("the bundle has format %d; this edge reads format %d", b.Format, bundle.Format)
	}
	dir, err := os.MkdirTemp("", "relais-replay-")
	if err != nil {
		return nil, err
	}
	r := &Replay{cfg: cfg, dir: dir}
	r.edge, err = New(Config{
		Data: dir, CacheBytes: cfg.CacheBytes, Explain: 8, Zone: cfg.Zone, Number: cfg.Number,
		Logger: slog.New(slog.DiscardHandler), Metrics: observe.New(), replay: &r.cfg,
	})
	if err == nil {
		err = r.apply(ctx, b)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Replay) apply(ctx context.Context, b *bundle.Bundle) error {
	e := r.edge
	if err := e.waf.Prepare(ctx, b); err != nil {
		return err
	}
	if err := e.balance.Prepare(ctx, pools(b)); err != nil {
		return err
	}
	t := snapshot.Build(b, nil, e)
	e.current.Swap(t)
	for entry := range t.Entries() { // now, so that an error is one of the documents and not of a request
		if _, err := entry.Site(); err != nil {
			return err
		}
	}
	e.bundle = b
	return e.balance.Sweep(pools(b))
}

// Asked is a request to replay, with what a listener would know of it.
type Asked struct {
	ID      stage.RequestID
	Start   time.Time
	Request *message.Request
	Client  netip.Addr
	// Trusted says that the connection comes from a trusted proxy.
	Trusted bool
}

// Serve has a request served. Done is called with the exchange while it is whole, after the answer's
// body was read to its end, and must keep nothing of it.
func (r *Replay) Serve(ctx context.Context, a *Asked, done func(*stage.Exchange, *message.Response, int64)) {
	e := r.edge
	t := e.front.turn()
	x := &t.Exchange
	x.Start, x.In, x.ID, x.Client, x.PeerTrusted = a.Start, a.Request, a.ID, a.Client, a.Trusted
	x.Replay(r.cfg.Seed ^ seedOf(a.ID))
	resp, err := e.front.ask(ctx, x)
	if err != nil {
		x.Failure = stage.AsError(err)
		resp = page(x, x.Failure)
		e.front.encode(x, resp)
	}
	t.finish(resp)
	resp.Ender = t
	n, err := drain(ctx, resp)
	done(x, resp, n)
	resp.Ender.End(message.Outcome{Status: resp.Status, Body: n, Err: err})
	e.cache.Quiet()
}

func seedOf(id stage.RequestID) (v uint64) {
	for i := range 8 {
		v |= uint64(id[i]^id[i+8]) << (8 * i)
	}
	return v
}

// drain reads a body to its end and gives its length.
func drain(ctx context.Context, resp *message.Response) (n int64, err error) {
	if resp.Upgrade != nil {
		_ = resp.Upgrade.Close()
	}
	if resp.Body == nil {
		return int64(len(resp.Bytes)), nil
	}
	for {
		b, err := resp.Body.Next(ctx)
		if n += int64(len(b)); err != nil {
			if err == io.EOF {
				err = nil
			}
			resp.Body.Close(err)
			return n, err
		}
	}
}

// Advance lets what an edge does beside requests happen: each tenth of a second of virtual time, and with
// second once a second.
func (r *Replay) Advance(second bool) { r.edge.balance.Advance(second) }

// Close gives back what the edge has.
func (r *Replay) Close() error {
	var err error
	if r.edge != nil {
		err = r.edge.purges.Close()
	}
	return errors.Join(err, os.RemoveAll(r.dir))
}

// simulated are origins that exist in memory.
type simulated struct{ stage.Handler }

type simulatedTarget string

func (t simulatedTarget) Address() string { return string(t) }

// Open implements balance.Origins.
func (*simulated) Open(_ bundle.Key, address string, _ *v1.ConnectionSpec) (stage.Target, error) {
	return simulatedTarget(address), nil
}

// Close implements balance.Origins.
func (*simulated) Close(stage.Target) {}

// Probe implements balance.Origins.
func (*simulated) Probe(context.Context, stage.Target, string, *v1.HealthSpec) error { return nil }

// Resolve implements balance.Origins: a name is taken for one origin, as no DNS is asked.
func (*simulated) Resolve(_ context.Context, o *v1.Origin, _ []string) ([]v1.Origin, error) {
	one := *o
	if one.Address == "" {
		one.Address = one.SRV + ":80"
	}
	one.Expand, one.SRV = false, ""
	return []v1.Origin{one}, nil
}
