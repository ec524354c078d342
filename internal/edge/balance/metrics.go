package balance

import (
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/observe"
)

// maxSeries bounds each of the families.
const maxSeries = 10_000

// metrics are the families of this stage.
type metrics struct {
	tries, spills, refused, retries, denied, ejections *observe.Family[observe.Counter]
	inFlight, well                                     *observe.Family[observe.Gauge]
	checks, lookups, hedges                            *observe.Family[observe.Counter]
	unreplayable                                       observe.Counter
}

func newMetrics(r *observe.Registry) *metrics {
	return &metrics{
		tries:     r.Counters("relais_balance_tries_total", "Tries sent to a tier.", maxSeries, "pool", "tier"),
		spills:    r.Counters("relais_balance_spills_total", "Tries that a tier had no room for.", 2*maxSeries, "pool", "tier", "reason"),
		refused:   r.Counters("relais_balance_refused_total", "Requests for which no tier had room.", maxSeries, "pool"),
		retries:   r.Counters("relais_balance_retries_total", "Tries after the first.", maxSeries, "pool"),
		denied:    r.Counters("relais_balance_retries_denied_total", "Retries that the budget did not allow.", maxSeries, "pool"),
		ejections: r.Counters("relais_balance_ejections_total", "Origins taken out because of failures in a row.", maxSeries, "pool", "tier"),
		inFlight:  r.Gauges("relais_balance_in_flight", "Requests in flight, looked at each second.", maxSeries, "pool", "tier"),
		well:      r.Gauges("relais_balance_origins_available", "Origins of a tier that may be chosen.", maxSeries, "pool", "tier"),
		checks:    r.Counters("relais_balance_checks_total", "Active health checks.", 2, "result"),
		lookups:   r.Counters("relais_balance_lookups_total", "Looks at the names of origins with expand or srv.", 3, "result"),
		hedges:    r.Counters("relais_balance_hedges_total", "Second tries beside a slow one.", 3*maxSeries, "pool", "result"),
		unreplayable: r.Counters("relais_balance_bodies_not_kept_total",
			"Request bodies that could not be kept for a retry, because all memory for it was in use.", 1).With(),
	}
}

// tierCounters are the metrics of a tier.
type tierCounters struct {
	tries, soft, hard, unhealthy, ejections observe.Counter
	inFlight, well                          observe.Gauge
}

// skipped counts a try that went past the tier.
func (c *tierCounters) skipped(r Reason) {
	switch r {
	case ReasonSoft:
		c.soft.Inc()
	case ReasonHard:
		c.hard.Inc()
	case ReasonUnhealthy:
		c.unhealthy.Inc()
	}
}

func (m *metrics) tier(pool bundle.Key, tier string) tierCounters {
	p := string(pool)
	return tierCounters{
		tries:     m.tries.With(p, tier),
		soft:      m.spills.With(p, tier, "soft"),
		hard:      m.spills.With(p, tier, "hard"),
		unhealthy: m.spills.With(p, tier, "unhealthy"),
		ejections: m.ejections.With(p, tier),
		inFlight:  m.inFlight.With(p, tier),
		well:      m.well.With(p, tier),
	}
}

func (m *metrics) forgetTier(pool bundle.Key, t *tier) {
	p := string(pool)
	for _, f := range []*observe.Family[observe.Counter]{m.tries, m.ejections} {
		f.Forget(p, t.name)
	}
	for _, r := range []string{"soft", "hard", "unhealthy"} {
		m.spills.Forget(p, t.name, r)
	}
	m.inFlight.Forget(p, t.name)
	m.well.Forget(p, t.name)
}

// poolCounters are the metrics of a pool.
type poolCounters struct{ refused, retries, denied, hedgeWon, hedgeLost, hedgeDenied observe.Counter }

func (m *metrics) pool(pool bundle.Key) poolCounters {
	p := string(pool)
	return poolCounters{
		m.refused.With(p), m.retries.With(p), m.denied.With(p), m.hedges.With(p, "won"), m.hedges.With(p, "lost"), m.hedges.With(p, "denied"),
	}
}

func (m *metrics) forgetPool(pool bundle.Key) {
	for _, f := range []*observe.Family[observe.Counter]{m.refused, m.retries, m.denied} {
		f.Forget(string(pool))
	}
	for _, r := range []string{"won", "lost", "denied"} {
		m.hedges.Forget(string(pool), r)
	}
}
