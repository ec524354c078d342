package usage_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/pop"
	"github.com/relais-edge/relais/internal/pop/spool"
	"github.com/relais-edge/relais/internal/usage"
)

// lossy loses every third answer, after the batch was counted.
type lossy struct {
	bus.Bus
	asked, lost atomic.Int64
}

func (l *lossy) Request(ctx context.Context, subject string, data []byte) ([]byte, error) {
	n := l.asked.Add(1)
	got, err := l.Bus.Request(ctx, subject, data)
	if err == nil && n%3 == 0 {
		l.lost.Add(1)
		return nil, errors.New("the answer is lost")
	}
	return got, err
}

// From a PoP's meter to the roll-up: nobody takes in at first, answers are lost, and each request is counted once.
func TestTheWayOfUse(t *testing.T) {
	engines(t, func(t *testing.T, b *bed) {
		b.t = t
		const most = 40
		var m bus.Memory
		end := &lossy{Bus: m.JoinAs(bus.PopRights("fra1"))}
		s, err := spool.Open(spool.Config{Dir: t.TempDir(), Pop: "fra1"})
		b.must(err)
		var took atomic.Int64
		use := pop.NewUsage(pop.UsageConfig{
			Pop: "fra1", Bus: end, Spool: s, Every: time.Millisecond, Logger: slog.New(slog.DiscardHandler), Metrics: observe.New(),
			Take: func(time.Time) []usage.Record {
				if took.Load() == most {
					return nil
				}
				took.Add(1)
				return []usage.Record{rec("shop", "web", b.now, usage.Counts{Requests: 1, Orders: 2})}
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- use.Run(ctx) }()
		b.until("it was tried", func() bool { return end.asked.Load() > 2 })
		b.taking(&m, b.Service)
		b.until("nothing waits", func() bool {
			st, err := s.Stats()
			b.must(err)
			return took.Load() == most && st.Records == 0
		})
		cancel()
		b.must(<-done)
		b.must(end.Close())
		if sum := b.total("shop", false); sum != (usage.Counts{Requests: most, Orders: 2 * most}) {
			t.Errorf("%+v, with %d answers lost", sum, end.lost.Load())
		}
	})
}

func (b *bed) until(what string, is func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("not in a minute: %s", what)
		}
	}
}
