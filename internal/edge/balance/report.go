package balance

import (
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/edge/loadreport"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// Load is what an origin says of its load on an answer. A negative number was not said.
type Load struct {
	// InFlight is the number of requests it has at once, from everybody; Limit how many it works on.
	InFlight, Limit int64
	// Utilization is the share in use of what it can do; it may be above 1.
	Utilization float64
}

// reportTime is how long a report counts.
const reportTime = 2 * time.Second

// liePart is how many times its own limit an origin may claim to have in flight.
const liePart = 2

// report is what an origin said last. It is written by answers and read by looks.
type report struct {
	at          atomic.Int64  // the pool's clock; 0 is never
	limit       atomic.Int64  // 0 when it was not said
	utilization atomic.Uint64 // bits of a float64, negative when it was not said
	others      atomic.Int64  // in flight there that are not ours: as the report says, less ours at that time
}

// Reported takes in what the slot's origin said with its answer, at the time now of the pool's
// clock. It neither blocks nor allocates. In place of the report plus what was sent since, the
// tier keeps the report less what was in flight from here at that time, and adds what is now:
// that counts what came back since as well.
func (s *Slot) Reported(l Load, now int64) {
	o := s.origin
	r := &o.report
	if o.in.Load() != s.tier {
		return // the origin stands in another tier by now
	}
	if l.InFlight >= 0 {
		had := l.InFlight
		if l.Limit > 0 {
			// One origin that lies takes away no more than its own part and as much again.
			had = min(had, liePart*l.Limit+1)
		}
		others := had - o.inFlight.Load()
		s.tier.others.Add(others - r.others.Swap(others))
	}
	limit := max(0, l.Limit)
	if l.Limit < 0 && l.InFlight > 0 && l.Utilization > 0.1 {
		limit = max(1, int64(float64(l.InFlight)/l.Utilization))
	}
	r.limit.Store(limit)
	r.utilization.Store(math.Float64bits(l.Utilization))
	r.at.Store(now)
}

// forget drops what an origin said, and what the tier t knows from it.
func (r *report) forget(t *tier) {
	r.at.Store(0)
	r.limit.Store(0)
	if t != nil {
		t.others.Add(-r.others.Swap(0))
	} else {
		r.others.Store(0)
	}
}

// told is what the origins of a tier say together.
type told struct {
	limit float64 // of the whole tier; +Inf when less than half of it says so
	use   float64 // negative when nobody says
}

// gather looks at the reports of a tier. Those that are too old are forgotten. The pool's lock is
// held.
func (w *tierView) gather(now int64) told {
	limit, limited, all, use, using := 0.0, 0.0, 0.0, 0.0, 0.0
	for _, m := range w.members {
		r, weight := &m.o.report, float64(m.weight)
		all += weight
		at := r.at.Load()
		if at == 0 {
			continue
		}
		if now-at > int64(reportTime) {
			r.forget(w.state)
			continue
		}
		if l := r.limit.Load(); l > 0 {
			limit, limited = limit+float64(l), limited+weight
		}
		if u := math.Float64frombits(r.utilization.Load()); u >= 0 {
			use, using = use+u*weight, using+weight
		}
	}
	t := told{limit: math.Inf(1), use: -1}
	if limited*2 >= all && limited > 0 {
		t.limit = limit * all / limited
	}
	if using*2 >= all && using > 0 {
		t.use = use / using
	}
	return t
}

// useLimit finds a limit from the utilization that origins report, which is an average of some
// time and so asks for slow steps.
type useLimit struct {
	size    float64 // +Inf is none
	at      int64
	refused uint64
}

const (
	useAim    = 0.95 // of what the origins can do
	useCuts   = 2.0  // times the relative excess a second
	useGrowth = 0.5  // times the relative room a second
)

// step follows a utilization; negative is none.
func (l *useLimit) step(now int64, use float64, c load) {
	took := min(float64(now-l.at)/1e9, 1)
	refused := c.refused != l.refused
	l.at, l.refused = now, c.refused
	open := math.IsInf(l.size, 1)
	switch aim := useAim; {
	case use < 0:
		l.size = math.Inf(1)
	case use > aim && open:
		l.size = max(leastSize, float64(c.inFlight))
	case use > aim:
		l.size = max(leastSize, l.size*(1-min(useCuts*took*(use-aim)/aim, 0.5)))
	case open:
	case refused:
		l.size += l.size * useGrowth * took * (aim - use) / aim
	default:
		l.size *= 1 + unusedRate*took
		if l.size > openAt*float64(c.inFlight+8) {
			l.size = math.Inf(1)
		}
	}
}

// hear takes in when the origin answered and what it says of its load, which is not for visitors.
func (a *attempt) hear(x *stage.Exchange, resp *message.Response) {
	now := a.stage.now(x)
	a.slot.answered(now)
	if !failing(resp.Status) {
		a.slot.served()
	}
	// An error says nothing of how long the work takes, and a long body comes at the visitor's pace.
	if resp.Status < 500 && (x.Out.Body == nil || x.Out.ContentLength >= 0 && x.Out.ContentLength <= maxReplay) {
		a.slot.paced(now)
	}
	own, orca := resp.Get(message.RelaisLoad), resp.Get(message.EndpointLoadMetrics)
	if own == nil && orca == nil {
		return
	}
	var r loadreport.Report
	var err error
	if own != nil {
		r, err = loadreport.Relais(own)
	} else {
		r, err = loadreport.ORCA(orca)
	}
	switch {
	case err == nil:
		a.pool.counters.reports.Inc()
		a.slot.Reported(Load{r.InFlight, r.Limit, r.Utilization}, now)
	case errors.Is(err, loadreport.ErrEmpty): // it says other things, to others
	default:
		a.pool.counters.badReports.Inc()
		x.MarkDetail(name, "load-report-refused", err.Error())
	}
	resp.Del(message.RelaisLoad)
	resp.Del(message.EndpointLoadMetrics)
}
