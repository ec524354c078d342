package balance

import (
	"context"
	"errors"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// Model is a pool in virtual time, for questions of what would be: admission, limits, reserves, retries
// and ejections are those of an edge, the clock and what answers are its caller's. One goroutine at a
// time may use it.
type Model struct {
	pool   *Pool
	checks *checks
	clock  func() int64
	ticked int64
}

// TickOfModel is how often a Model wants a Look.
const TickOfModel = tick

// errNowhere is what the origins of a model answer.
var errNowhere = errors.New("a model has no connections")

// nowhere are the origins of a model.
type nowhere struct{}

type modelTarget string

func (t modelTarget) Address() string { return string(t) }

func (nowhere) Open(_ bundle.Key, address string, _ *v1.ConnectionSpec) (stage.Target, error) {
	return modelTarget(address), nil
}
func (nowhere) Close(stage.Target) {}
func (nowhere) Probe(context.Context, stage.Target, string, *v1.HealthSpec) error {
	return errNowhere
}

func (nowhere) Resolve(context.Context, *v1.Origin, []string) ([]v1.Origin, error) {
	return nil, errNowhere
}

// NewModel returns a pool that does what spec says, on the edge that where says. Clock is in nanoseconds and
// starts above 0. Origins must be given by address: a model asks no DNS.
func NewModel(spec *v1.OriginPoolSpec, where Where, clock func() int64) (*Model, error) {
	metrics := newMetrics(observe.New())
	m := &Model{checks: newChecks(nowhere{}, metrics.checks), clock: clock}
	m.pool = newPool("model/pool", clock, nowhere{}, metrics)
	m.pool.where, m.pool.names = where, newNames(nowhere{}, m.checks, metrics.lookups)
	m.pool.counters = metrics.pool("model/pool")
	return m, m.pool.update(spec, m.checks)
}

// Pick is that of a request: it takes a place and counts why it is where it is. The error is ErrFull, ErrTried
// or ErrNone.
func (m *Model) Pick(v Visitor, tried *Tried) (Slot, error) {
	v.Now = m.clock()
	s, err := m.pool.Pick(v, tried)
	if err == nil {
		s.count(m.pool.view.Load())
	}
	return s, err
}

// Answered notes that the slot's origin began to answer, and what it said of its load; nil is nothing.
func (m *Model) Answered(s *Slot, l *Load) {
	now := m.clock()
	s.answered(now)
	s.paced(now)
	if l != nil {
		s.Reported(*l, now)
	}
}

// Attempts is how many tries after the first the pool allows.
func (m *Model) Attempts() int { return m.pool.Attempts() }

// Retry takes from the budget of retries; EndRetry gives back.
func (m *Model) Retry() bool { return m.pool.Retry() }

// EndRetry gives back what Retry took.
func (m *Model) EndRetry() { m.pool.EndRetry() }

// Reset forgets the tries.
func (t *Tried) Reset() { t.reset() }

// Look does what an edge does each TickOfModel, and each second, beside its requests. Wall is the time of day in ns.
func (m *Model) Look(wall int64) {
	now := m.clock()
	m.pool.observe(now, wall)
	if now-m.ticked >= int64(time.Second) {
		m.ticked = now
		m.pool.tick(now)
	}
}

// Check is what an active check of an origin found; without active checks it does nothing.
func (m *Model) Check(address string, up bool) {
	p := m.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if o := p.byAddr[address]; o != nil && o.check != nil && o.check.up.Load() != up {
		o.check.up.Store(up)
		p.look(m.clock())
	}
}

// Checked says whether the pool has active checks.
func (m *Model) Checked() bool {
	h := &m.pool.spec.Health
	return h.Path != "" || h.Connect || h.GRPC != nil
}

// Status is how the pool is.
func (m *Model) Status() PoolStatus { return m.pool.status() }
