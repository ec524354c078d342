package balance

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

type fakeTarget struct{ address string }

func (t *fakeTarget) Address() string { return t.address }

// fakeOrigins opens nothing and counts.
type fakeOrigins struct {
	mu             sync.Mutex
	opened, closed []string
	openErr        error
	resolve        func(o *v1.Origin) ([]v1.Origin, error)
	probe          func(ctx context.Context, address, host, path string) (int, error)
}

func (f *fakeOrigins) Open(_ bundle.Key, address string, _ *v1.ConnectionSpec) (stage.Target, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.openErr != nil {
		return nil, f.openErr
	}
	f.opened = append(f.opened, address)
	return &fakeTarget{address}, nil
}

func (f *fakeOrigins) Close(t stage.Target) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = append(f.closed, t.Address())
}

func (f *fakeOrigins) Probe(ctx context.Context, t stage.Target, host string, spec *v1.HealthSpec) error {
	status, err := f.probe(ctx, t.Address(), host, spec.Path)
	if err == nil && spec.Path != "" && (status < 200 || status >= 400) {
		err = fmt.Errorf("status %d", status)
	}
	return err
}

func (f *fakeOrigins) Resolve(_ context.Context, o *v1.Origin, _ []string) ([]v1.Origin, error) {
	return f.resolve(o)
}

// bed is a pool with a clock of its own.
type bed struct {
	*Pool
	now     atomic.Int64
	origins fakeOrigins
	checks  *checks
}

func newBed(t testing.TB, spec *v1.OriginPoolSpec) *bed {
	b := &bed{}
	b.build(t, spec, Where{})
	return b
}

func (b *bed) build(t testing.TB, spec *v1.OriginPoolSpec, where Where) {
	b.now.Store(int64(time.Hour))
	m := newMetrics(observe.New())
	b.checks = newChecks(&b.origins, m.checks)
	b.Pool = newPool("org/pool", b.now.Load, &b.origins, m)
	b.Pool.counters = m.pool("org/pool")
	b.Pool.where, b.Pool.names = where, newNames(&b.origins, b.checks, m.lookups)
	b.apply(t, spec)
}

func (b *bed) apply(t testing.TB, spec *v1.OriginPoolSpec) {
	t.Helper()
	if err := b.update(spec, b.checks); err != nil {
		t.Fatal(err)
	}
}

func (b *bed) pass(d time.Duration) { b.now.Add(int64(d)) }

func (b *bed) pick(v Visitor) (Slot, error) {
	v.Now = b.now.Load()
	return b.Pick(v, &Tried{})
}

func (b *bed) must(t testing.TB, v Visitor) Slot {
	t.Helper()
	s, err := b.pick(v)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tierSpec makes a tier of n origins named after it.
func tierSpec(name string, n, inFlight int, reserve v1.Percent) v1.Tier {
	tr := v1.Tier{Name: name, Capacity: v1.Capacity{Reserve: reserve, SoftMark: new(v1.Percent(85))}}
	if inFlight > 0 {
		tr.Capacity.InFlight = new(inFlight)
	}
	for i := range n {
		tr.Origins = append(tr.Origins, v1.Origin{Address: fmt.Sprintf("%s-%d:80", name, i), Weight: new(1)})
	}
	return tr
}

func poolSpec(a v1.Algorithm, tiers ...v1.Tier) *v1.OriginPoolSpec {
	return &v1.OriginPoolSpec{
		Algorithm: a, Tiers: tiers,
		Health: v1.HealthSpec{
			Interval: v1.Duration(5 * time.Second), Timeout: v1.Duration(2 * time.Second), UnhealthyAfter: 3, HealthyAfter: 2,
			Passive: v1.PassiveHealth{ConsecutiveFailures: new(5), Ejection: v1.Duration(10 * time.Second), MaxEjected: new(v1.Percent(50))},
		},
		Retries:    v1.RetrySpec{Attempts: new(2), Budget: new(v1.Percent(20))},
		Stickiness: v1.StickinessSpec{On: "visitor"},
	}
}
