package pop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/pop/spool"
	"github.com/relais-edge/relais/internal/usage"
)

const (
	// collectEvery is how much a PoP that is killed may lose of its counts.
	collectEvery = 10 * time.Second
	// slowest is the longest pause between two tries to deliver.
	slowest = 5 * time.Minute
)

// UsageConfig of a Usage.
type UsageConfig struct {
	// Pop is its name.
	Pop string
	// Bus may be connected later, or never.
	Bus   bus.Bus
	Spool *spool.Spool
	// Take gives what was counted since it was called last, such as edge.Edge.Usage.
	Take func(now time.Time) []usage.Record
	// Every is how often that is done; 0 means 10 s.
	Every   time.Duration
	Logger  *slog.Logger
	Metrics *observe.Registry
}

// Usage brings what an edge counts to its disk, and from there to a control plane.
type Usage struct {
	cfg      UsageConfig
	delivery *delivery
	courier  *spool.Courier
	unstored observe.Counter
	unsent   func(why string) observe.Counter
}

// NewUsage makes one; Run does the work.
func NewUsage(cfg UsageConfig) *Usage {
	if cfg.Every == 0 {
		cfg.Every = collectEvery
	}
	m := cfg.Metrics
	failed := m.Counters("relais_pop_usage_undelivered_total", "Tries to bring use to a control plane that failed; it waits on the disk.", 2, "why")
	d := &delivery{pop: cfg.Pop, bus: cfg.Bus}
	u := &Usage{
		cfg:      cfg,
		delivery: d,
		courier:  spool.NewCourier(cfg.Spool, cfg.Take, d),
		unstored: m.Counters("relais_pop_usage_unstored_total", "Collections of use that the disk did not take; it waits in memory.", 1).With(),
		unsent:   func(why string) observe.Counter { return failed.With(why) },
	}
	m.GaugeFunc("relais_pop_usage_waiting_bytes", "Use on the disk that no control plane has yet.", func() float64 {
		s, err := cfg.Spool.Stats()
		if err != nil {
			return -1
		}
		return float64(s.Bytes)
	})
	return u
}

// Run collects and delivers until ctx ends, and then collects once more: end it after the edge. Its error is that of this last
// time; what was not delivered waits for the next process.
func (u *Usage) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { u.collect(ctx); return nil })
	g.Go(func() error { u.deliver(ctx); return nil })
	_ = g.Wait() // neither has an error
	if err := u.courier.Collect(time.Now()); err != nil {
		u.unstored.Inc()
		return fmt.Errorf("what was used lately is lost: %w", err)
	}
	return nil
}

// collect puts counts on the disk.
func (u *Usage) collect(ctx context.Context) {
	t := time.NewTicker(u.cfg.Every)
	defer t.Stop()
	news := saidOnce{log: u.cfg.Logger}
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			err := u.courier.Collect(now)
			if err != nil {
				u.unstored.Inc()
			}
			news.say("what is used cannot be kept on the disk, and waits in memory", err)
		}
	}
}

// deliver sends what is on the disk. After a failure it waits, each time twice as long until something is kept again, and no two
// PoPs the same time.
func (u *Usage) deliver(ctx context.Context) {
	pause := u.cfg.Every
	news := saidOnce{log: u.cfg.Logger}
	for u.wait(ctx, pause/2+rand.N(pause/2+1)) {
		before := u.delivery.kept
		err := u.courier.Ship(ctx)
		if u.delivery.kept > before {
			pause = u.cfg.Every
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			pause = u.cfg.Every
			news.say("", nil)
			continue
		case errors.Is(err, bus.ErrAway):
			pause = u.cfg.Every // wait waits for the connection
			u.unsent("away").Inc()
			continue
		case errors.Is(err, bus.ErrNobody): // a control plane that is upgraded, say
			u.unsent("away").Inc()
		default:
			u.unsent("failed").Inc()
			news.say("use is not delivered, and waits on the disk", err)
		}
		pause = min(2*pause, max(slowest, u.cfg.Every))
	}
}

// wait pauses and then until there is a connection; false when ctx ended.
func (u *Usage) wait(ctx context.Context, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	}
	up, _ := u.cfg.Bus.Connected()
	select {
	case <-up:
		return true
	default:
	}
	select {
	case <-ctx.Done():
		return false
	case <-up:
	}
	// All PoPs that lost a control plane have it again at the same moment.
	t.Reset(rand.N(u.cfg.Every))
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// saidOnce tells of an error when it begins or becomes another, however long it lasts.
type saidOnce struct {
	log  *slog.Logger
	last string
}

func (s *saidOnce) say(msg string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != s.last {
		s.log.Warn(msg, "err", err)
	}
	s.last = text
}
