package usage_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/bus"
	control "github.com/relais-edge/relais/internal/control/usage"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/usage"
)

// taking runs an intake over a bus and gives an end of PoP fra1.
func (b *bed) taking(m *bus.Memory, s control.Ingester) *bus.End {
	b.t.Helper()
	end := m.Join()
	i := control.NewIntake(control.IntakeConfig{Bus: end, Service: s, Logger: slog.New(slog.DiscardHandler), Metrics: observe.New()})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	pop := m.JoinAs(bus.PopRights("fra1"))
	b.t.Cleanup(func() {
		cancel()
		b.must(<-done)
		_, _ = pop.Close(), end.Close()
	})
	b.heard(pop)
	return pop
}

// heard waits until somebody takes batches in: what is none is refused.
func (b *bed) heard(pop *bus.End) {
	b.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		_, err := pop.Request(b.t.Context(), bus.Up("fra1", bus.Usage), nil)
		if err == nil {
			return
		}
		if !errors.Is(err, bus.ErrNobody) || time.Now().After(deadline) {
			b.t.Fatal(err)
		}
	}
}

func (b *bed) send(pop *bus.End, data []byte) (a fleet.UsageAnswer) {
	b.t.Helper()
	got, err := pop.Request(b.t.Context(), bus.Up("fra1", bus.Usage), data)
	b.must(err)
	b.must(json.Unmarshal(got, &a))
	return a
}

func (b *bed) bytes(x *usage.Batch) []byte {
	b.t.Helper()
	data, err := x.Append(nil)
	b.must(err)
	return data
}

func TestBatchesAreTakenInOverTheBus(t *testing.T) {
	engines(t, func(t *testing.T, b *bed) {
		b.t = t
		var m bus.Memory
		pop := b.taking(&m, b.Service)
		hour := b.now.Add(-time.Hour)
		one := b.batch("fra1", 1, rec("shop", "web", hour, usage.Counts{Requests: 3}), rec("cafe", "web", hour, usage.Counts{Requests: 4}))
		two := b.batch("fra1", 1, rec("shop", "web", hour, usage.Counts{Requests: 5}))
		if a := b.send(pop, b.bytes(two)); a.Kept != 0 || a.Want != 1 {
			t.Errorf("out of order: %+v", a)
		}
		for range 3 { // the answers were lost
			if a := b.send(pop, b.bytes(one)); a != (fleet.UsageAnswer{Kept: 2}) {
				t.Errorf("%+v", a)
			}
		}
		if a := b.send(pop, b.bytes(two)); a != (fleet.UsageAnswer{Kept: 3}) {
			t.Errorf("%+v", a)
		}
		if n := b.total("op", true).Requests; n != 12 { // an answer comes after the commit
			t.Errorf("%d requests", n)
		}
	})
}

func TestWhatIsNoBatchOfThePoPIsRefused(t *testing.T) {
	engines(t, func(t *testing.T, b *bed) {
		b.t = t
		var m bus.Memory
		pop := b.taking(&m, b.Service)
		good := b.bytes(b.batch("fra1", 1, rec("shop", "web", b.now, usage.Counts{Requests: 1})))
		torn := bytes.Clone(good)
		torn[len(torn)/2] ^= 1
		for name, data := range map[string][]byte{
			"another PoP's":                b.bytes(b.batch("nyc1", 2, rec("shop", "web", b.now, usage.Counts{Requests: 100}))),
			"nothing":                      nil,
			"torn":                         torn,
			"cut":                          good[:len(good)-1],
			"two":                          append(bytes.Clone(good), good...),
			"as large as a message may be": bytes.Repeat([]byte("x"), bus.MaxData),
		} {
			if a := b.send(pop, data); a.Kept != 0 || a.Want != 0 || a.Why == "" || len(a.Why) > fleet.MaxText {
				t.Errorf("%s: %+v", name, a)
			}
		}
		if _, err := pop.Request(t.Context(), bus.Up("fra1", bus.Usage), make([]byte, bus.MaxData+1)); !errors.Is(err, bus.ErrTooLarge) {
			t.Errorf("oversized: %v", err)
		}
		if _, err := pop.Request(t.Context(), bus.Up("nyc1", bus.Usage), good); !errors.Is(err, bus.ErrDenied) {
			t.Errorf("on another's subject: %v", err)
		}
		b.must(pop.Publish(bus.Up("fra1", bus.Usage), good)) // whom nobody can answer
		if a := b.send(pop, b.bytes(b.batch("fra1", 3, rec("shop", "web", b.now, usage.Counts{Requests: 1})))); a.Kept != 1 {
			t.Errorf("%+v", a) // and after that it goes on, in order
		}
		if n := b.total("op", true).Requests; n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

// brittle is a service whose store fails, or takes its time.
type brittle struct {
	control.Ingester
	mu    sync.Mutex
	fail  error
	calls int
	until bool // its work ends with its context
}

func (s *brittle) Ingest(ctx context.Context, pop string, x *usage.Batch) error {
	s.mu.Lock()
	s.calls++
	fail, until := s.fail, s.until
	s.mu.Unlock()
	switch {
	case until:
		<-ctx.Done()
		return ctx.Err()
	case fail != nil:
		return fail
	}
	return s.Ingester.Ingest(ctx, pop, x)
}

func (s *brittle) set(fail error, until bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail, s.until = fail, until
}

func TestAStoreThatFailsIsNoAcknowledgement(t *testing.T) {
	engines(t, func(t *testing.T, b *bed) {
		b.t = t
		var m bus.Memory
		s := &brittle{Ingester: b.Service, fail: errors.New("password=hunter2 refused")}
		pop := b.taking(&m, s)
		x := b.bytes(b.batch("fra1", 1, rec("shop", "web", b.now, usage.Counts{Requests: 1})))
		if a := b.send(pop, x); a.Kept != 0 || a.Want != 0 || a.Why == "" || strings.Contains(a.Why, "hunter2") {
			t.Errorf("%+v", a)
		}
		s.set(nil, false)
		if a := b.send(pop, x); a.Kept != 1 {
			t.Errorf("%+v", a)
		}
		if n := b.total("op", true).Requests; n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

// An intake that ends leaves the batch at hand to another one, and several share what comes.
func TestSeveralControlPlanesTakeIn(t *testing.T) {
	engines(t, func(t *testing.T, b *bed) {
		b.t = t
		var m bus.Memory
		s := &brittle{Ingester: b.Service}
		pop := b.taking(&m, b.Service)
		end := m.Join()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		i := control.NewIntake(control.IntakeConfig{Bus: end, Service: s, Logger: slog.New(slog.DiscardHandler), Metrics: observe.New()})
		go func() { done <- i.Run(ctx) }()
		calls := func() int {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.calls
		}
		for n := int64(1); ; n++ {
			a := b.send(pop, b.bytes(b.batch("fra1", 1, rec("shop", "web", b.now, usage.Counts{Requests: 1}))))
			if a.Kept != n {
				t.Fatalf("%+v, not %d", a, n)
			}
			if c := calls(); c > 1 && n > int64(c) {
				break // both had some
			}
			if n > 10_000 {
				t.Fatal("the second one has none")
			}
		}
		// The second one hangs with a batch, and is ended: the PoP asks again, as after any silence.
		s.set(nil, true)
		x := b.bytes(b.batch("fra1", 1, rec("shop", "web", b.now, usage.Counts{Requests: 1})))
		want := b.numbers[usage.SpoolID{1}]
		for before := calls(); calls() == before; {
			within, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
			_, err := pop.Request(within, bus.Up("fra1", bus.Usage), x)
			stop()
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
		}
		cancel()
		b.must(<-done)
		b.must(end.Close())
		if a := b.send(pop, x); a.Kept != want {
			t.Errorf("%+v", a)
		}
		if n := b.total("op", true).Requests; n != want {
			t.Errorf("%d requests, not %d", n, want)
		}
	})
}
