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
	inFlight, well, limit, reserve, slow, waiting      *observe.Family[observe.Gauge]
	checks, lookups, hedges, reports, queue            *observe.Family[observe.Counter]
	patience                                           *observe.Family[observe.Counter]
	unreplayable                                       observe.Counter
	forgotten                                          observe.Counter
	places                                             places
}

func newMetrics(r *observe.Registry) *metrics {
	return &metrics{
		tries:     r.Counters("relais_balance_tries_total", "Tries sent to a tier.", maxSeries, "pool", "tier"),
		spills:    r.Counters("relais_balance_spills_total", "Tries that went past a tier, by why.", 6*maxSeries, "pool", "tier", "reason"),
		refused:   r.Counters("relais_balance_refused_total", "Requests for which no tier had room.", maxSeries, "pool"),
		retries:   r.Counters("relais_balance_retries_total", "Tries after the first.", maxSeries, "pool"),
		denied:    r.Counters("relais_balance_retries_denied_total", "Retries that the budget did not allow.", maxSeries, "pool"),
		ejections: r.Counters("relais_balance_ejections_total", "Origins taken out because of failures in a row.", maxSeries, "pool", "tier"),
		inFlight:  r.Gauges("relais_balance_in_flight", "Requests in flight, looked at each second.", maxSeries, "pool", "tier"),
		well:      r.Gauges("relais_balance_origins_available", "Origins of a tier that may be chosen.", maxSeries, "pool", "tier"),
		limit:     r.Gauges("relais_balance_limit", "Requests at once that a tier takes, as told, found or reported; 0 is any number.", maxSeries, "pool", "tier"),
		reserve:   r.Gauges("relais_balance_reserve", "Of the limit, places kept for visitors with a basket.", maxSeries, "pool", "tier"),
		slow:      r.Gauges("relais_balance_origins_slow", "Origins that get few requests because they are slower than their peers.", maxSeries, "pool", "tier"),
		queue:     r.Counters("relais_balance_queue_total", "Visitors with a basket who came when every tier was full, by what became of them: served, expired, left, full (the queue was), or yielded (to somebody whose source had less).", 5*maxSeries, "pool", "result"),
		patience:  r.Counters("relais_balance_patience_total", "Requests that found a tier of a told limit full, and might wait for a moment, by what became of them: served, expired, left, or full (too many waited).", 4*maxSeries, "pool", "tier", "result"),
		waiting:   r.Gauges("relais_balance_waiting", "Visitors with a basket who wait for a place, looked at each second.", maxSeries, "pool"),
		reports:   r.Counters("relais_balance_load_reports_total", "Load reports of origins on answers.", 2*maxSeries, "pool", "result"),
		checks:    r.Counters("relais_balance_checks_total", "Active health checks: ok, failed, or waived (no answer in time, while visitors had theirs).", 3, "result"),
		lookups:   r.Counters("relais_balance_lookups_total", "Looks at the names of origins with expand or srv.", 3, "result"),
		hedges:    r.Counters("relais_balance_hedges_total", "Second tries beside a slow one.", 3*maxSeries, "pool", "result"),
		unreplayable: r.Counters("relais_balance_bodies_not_kept_total",
			"Request bodies that could not be kept for a retry, because all memory for it was in use.", 1).With(),
		forgotten: r.Counters("relais_balance_history_full_total", "Minutes in which a pool had no place for a history of its load.", 1).With(),
	}
}

// tierCounters are the metrics of a tier.
type tierCounters struct {
	tries, ejections                             observe.Counter
	soft, hard, unhealthy, tried, stayed, sticky observe.Counter
	waited, inVain, left, tooMany                observe.Counter // of patience
	inFlight, well, limit, reserve, slow         observe.Gauge
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
	case ReasonTried:
		c.tried.Inc()
	case ReasonStayed:
		c.stayed.Inc()
	case ReasonSticky:
		c.sticky.Inc()
	}
}

// count counts the tiers that the slot went past, by reason.
func (s *Slot) count(w *view) {
	for i := range s.skipped {
		if r := s.skipped[i]; r != ReasonNone && i < len(w.tiers) {
			w.tiers[i].state.counters.skipped(r)
		}
	}
	if r := s.why(); r != ReasonNone {
		s.tier.tally.spills[r].Add(1)
	}
	if s.at > 0 && (s.Reason == ReasonStayed || s.Reason == ReasonSticky) {
		w.tiers[0].state.counters.skipped(s.Reason)
	}
}

func (m *metrics) tier(pool bundle.Key, tier string) tierCounters {
	p := string(pool)
	return tierCounters{
		tries:     m.tries.With(p, tier),
		soft:      m.spills.With(p, tier, "soft"),
		hard:      m.spills.With(p, tier, "hard"),
		unhealthy: m.spills.With(p, tier, "unhealthy"),
		tried:     m.spills.With(p, tier, "tried"),
		stayed:    m.spills.With(p, tier, "stayed"),
		sticky:    m.spills.With(p, tier, "sticky"),
		ejections: m.ejections.With(p, tier),
		waited:    m.patience.With(p, tier, "served"),
		inVain:    m.patience.With(p, tier, "expired"),
		left:      m.patience.With(p, tier, "left"),
		tooMany:   m.patience.With(p, tier, "full"),
		inFlight:  m.inFlight.With(p, tier),
		well:      m.well.With(p, tier),
		limit:     m.limit.With(p, tier),
		reserve:   m.reserve.With(p, tier),
		slow:      m.slow.With(p, tier),
	}
}

func (m *metrics) forgetTier(pool bundle.Key, t *tier) {
	p := string(pool)
	for _, f := range []*observe.Family[observe.Counter]{m.tries, m.ejections} {
		f.Forget(p, t.name)
	}
	for _, r := range []string{"soft", "hard", "unhealthy", "tried", "stayed", "sticky"} {
		m.spills.Forget(p, t.name, r)
	}
	for _, r := range []string{"served", "expired", "left", "full"} {
		m.patience.Forget(p, t.name, r)
	}
	for _, f := range []*observe.Family[observe.Gauge]{m.inFlight, m.well, m.limit, m.reserve, m.slow} {
		f.Forget(p, t.name)
	}
}

// poolCounters are the metrics of a pool.
type poolCounters struct {
	refused, retries, denied, hedgeWon, hedgeLost, hedgeDenied, reports, badReports observe.Counter
	queueServed, queueExpired, queueLeft, queueFull, queueYielded                   observe.Counter
	waiting                                                                         observe.Gauge
}

func (m *metrics) pool(pool bundle.Key) poolCounters {
	p := string(pool)
	return poolCounters{
		refused: m.refused.With(p), retries: m.retries.With(p), denied: m.denied.With(p),
		hedgeWon: m.hedges.With(p, "won"), hedgeLost: m.hedges.With(p, "lost"), hedgeDenied: m.hedges.With(p, "denied"),
		reports: m.reports.With(p, "ok"), badReports: m.reports.With(p, "refused"),
		queueServed: m.queue.With(p, "served"), queueExpired: m.queue.With(p, "expired"), queueLeft: m.queue.With(p, "left"),
		queueFull: m.queue.With(p, "full"), queueYielded: m.queue.With(p, "yielded"), waiting: m.waiting.With(p),
	}
}

func (m *metrics) forgetPool(pool bundle.Key) {
	for _, f := range []*observe.Family[observe.Counter]{m.refused, m.retries, m.denied} {
		f.Forget(string(pool))
	}
	m.waiting.Forget(string(pool))
	for _, r := range []string{"served", "expired", "left", "full", "yielded"} {
		m.queue.Forget(string(pool), r)
	}
	m.reports.Forget(string(pool), "ok")
	m.reports.Forget(string(pool), "refused")
	for _, r := range []string{"won", "lost", "denied"} {
		m.hedges.Forget(string(pool), r)
	}
}
