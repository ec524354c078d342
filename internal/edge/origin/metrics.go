package origin

import (
	"sync"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/observe"
)

// maxSeries bounds each of the families.
const maxSeries = 10_000

// metrics are the families of this handler.
type metrics struct {
	dials, reused, stale, waits, failures *observe.Family[observe.Counter]
	open, idle                            *observe.Family[observe.Gauge]

	mu    sync.Mutex
	pools map[bundle.Key]*poolStats
}

func newMetrics(r *observe.Registry) *metrics {
	return &metrics{
		dials:    r.Counters("relais_origin_dials_total", "Connections that were opened or could not be.", maxSeries, "pool"),
		reused:   r.Counters("relais_origin_reused_total", "Requests on a connection that had been idle.", maxSeries, "pool"),
		stale:    r.Counters("relais_origin_stale_total", "Idle connections that turned out to be closed.", maxSeries, "pool"),
		waits:    r.Counters("relais_origin_waits_total", "Requests that waited for a connection.", maxSeries, "pool"),
		failures: r.Counters("relais_origin_failures_total", "Tries that failed, by RFC 9209's error.", maxSeries, "pool", "code"),
		open:     r.Gauges("relais_origin_connections", "Open connections, looked at each second.", maxSeries, "pool"),
		idle:     r.Gauges("relais_origin_connections_idle", "Idle connections, looked at each second.", maxSeries, "pool"),
		pools:    map[bundle.Key]*poolStats{},
	}
}

// poolStats are the metrics of a pool, shared by its endpoints.
type poolStats struct {
	m                          *metrics
	pool                       bundle.Key
	users                      int // guarded by metrics.mu
	dials, reused, stale, wait observe.Counter
	openGauge, idleGauge       observe.Gauge
	open, idle                 counter

	mu       sync.Mutex
	failures map[string]observe.Counter // by code; the codes are those of fault.go
}

// join finds or makes the metrics of a pool.
func (m *metrics) join(pool bundle.Key) *poolStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.pools[pool]
	if s == nil {
		p := string(pool)
		s = &poolStats{
			m: m, pool: pool, failures: map[string]observe.Counter{},
			dials: m.dials.With(p), reused: m.reused.With(p), stale: m.stale.With(p), wait: m.waits.With(p),
			openGauge: m.open.With(p), idleGauge: m.idle.With(p),
		}
		m.pools[pool] = s
	}
	s.users++
	return s
}

// leave gives back what join gave; the last one ends the series.
func (m *metrics) leave(s *poolStats) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.users--; s.users > 0 {
		return
	}
	delete(m.pools, s.pool)
	p := string(s.pool)
	for _, f := range []*observe.Family[observe.Counter]{m.dials, m.reused, m.stale, m.waits} {
		f.Forget(p)
	}
	m.open.Forget(p)
	m.idle.Forget(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	for code := range s.failures {
		m.failures.Forget(p, code)
	}
}

// failed counts a failure.
func (s *poolStats) failed(code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.failures[code]
	if c == nil {
		c = s.m.failures.With(string(s.pool), code)
		s.failures[code] = c
	}
	c.Inc()
}

// show sets the gauges.
func (m *metrics) show() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.pools {
		s.openGauge.Set(float64(s.open.Load()))
		s.idleGauge.Set(float64(s.idle.Load()))
	}
}
