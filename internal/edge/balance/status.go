package balance

import (
	"math"
	"slices"
	"strings"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// PoolStatus is how a pool is, for a person.
type PoolStatus struct {
	Key      bundle.Key `json:"key"`
	Panicked bool       `json:"panicked,omitempty"` // nobody is well, so all are used
	// Names are those of origins that are found by DNS.
	Names []NameStatus `json:"names,omitempty"`
	Tiers []TierStatus `json:"tiers"`
}

// NameStatus is what DNS says of an origin with expand or srv.
type NameStatus struct {
	Name string `json:"name"`
	// Found is the number of origins that are used: of the last look that found some.
	Found int `json:"found"`
	// Error of the last look; empty when it found some.
	Error string `json:"error,omitempty"`
}

// TierStatus is how a tier is.
type TierStatus struct {
	Name string `json:"name"`
	// State is well, partly (some of its origins are not well) or down (none is: it has no limit because it takes
	// nothing, unless its pool is Panicked).
	State    string `json:"state"`
	InFlight int64  `json:"inFlight"`
	// Limit is the number of requests at once that the tier takes as it is now; 0 is no limit, but for one that is down.
	Limit int64 `json:"limit,omitempty"`
	// Found says that the limit is not what the document tells, but was found from answers or reported by origins.
	Found bool `json:"found,omitempty"`
	// Others is what the origins have in flight that is not from here, as far as they say.
	Others  int64          `json:"others,omitempty"`
	Origins []OriginStatus `json:"origins"`
}

// OriginStatus is how an origin is.
type OriginStatus struct {
	Address  string `json:"address"`
	InFlight int64  `json:"inFlight"`
	// State is well, starting (slowStart), slow (much slower than its peers, so that it gets few requests), ejected
	// (by what requests showed) or down (by its checks).
	State string `json:"state"`
	// Why the last active check failed; empty when it did not.
	Why string `json:"why,omitempty"`
	// Waived is how many active checks were not counted, since they timed out while visitors had their answers.
	Waived uint64 `json:"waived,omitempty"`
	Zone   string `json:"zone,omitempty"`
	// LatencyMS is the time that peak-ewma expects an answer to take, in milliseconds.
	LatencyMS float64 `json:"latencyMS,omitempty"`
}

// Status lists the pools that run, by key.
func (s *Stage) Status() []PoolStatus {
	pools := s.all()
	list := make([]PoolStatus, 0, len(pools))
	for _, p := range pools {
		list = append(list, p.status())
	}
	slices.SortFunc(list, func(a, b PoolStatus) int { return strings.Compare(string(a.Key), string(b.Key)) })
	return list
}

func (p *Pool) status() PoolStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spec == nil { // it is being made for the first time
		return PoolStatus{Key: p.key}
	}
	now := p.clock()
	v := p.look(now)
	st := PoolStatus{Key: p.key, Panicked: v.panicked, Names: p.names.status(p)}
	for _, pt := range p.plan {
		m := pt.state.marks.Load()
		t := TierStatus{Name: pt.state.name, InFlight: pt.state.inFlight.Load(), Limit: m.limit, Found: m.found, Others: pt.state.others.Load()}
		if t.Limit == math.MaxInt64 {
			t.Limit = 0
		}
		well := 0
		for _, m := range pt.members {
			o := OriginStatus{Address: m.o.address, InFlight: m.o.inFlight.Load(), State: "well", Zone: m.o.zone, LatencyMS: m.o.latency.read(now) / 1e6}
			if m.o.check != nil {
				o.Why, o.Waived = v1.Value(m.o.check.why.Load()), m.o.check.waived.Load()
			}
			switch {
			case m.o.check != nil && !m.o.check.up.Load():
				o.State = "down"
			case now < m.o.ejectedUntil:
				o.State = "ejected"
			case m.o.slow.Load():
				o.State = "slow"
			case now-m.o.since < int64(p.spec.SlowStart):
				o.State = "starting"
			}
			if m.o.well(now) {
				well++
			}
			t.Origins = append(t.Origins, o)
		}
		switch {
		case well == 0:
			t.State = "down"
		case well < len(pt.members):
			t.State = "partly"
		default:
			t.State = "well"
		}
		st.Tiers = append(st.Tiers, t)
	}
	return st
}

// show sets the gauges.
func (p *Pool) show() {
	v := p.view.Load()
	if now := p.clock(); now >= v.changeAt {
		v = p.refresh(now)
	}
	p.counters.waiting.Set(float64(p.line.waiting.Load()))
	for i := range v.tiers {
		t := &v.tiers[i]
		t.state.counters.inFlight.Set(float64(t.state.inFlight.Load()))
		well := len(t.members)
		if v.panicked {
			well = 0
		}
		t.state.counters.well.Set(float64(well))
		limit, reserve := 0.0, 0.0
		if m := t.state.marks.Load(); m.limit != math.MaxInt64 {
			limit, reserve = float64(m.limit), float64(m.limit-m.general)
		}
		slow := 0
		for _, m := range t.members {
			if m.o.slow.Load() {
				slow++
			}
		}
		t.state.counters.limit.Set(limit)
		t.state.counters.reserve.Set(reserve)
		t.state.counters.slow.Set(float64(slow))
	}
}

// leaveUnused notes that a sweep did not find the pool.
func (p *Pool) leaveUnused(now int64) { p.unused.CompareAndSwap(0, now) }

func (p *Pool) unusedFor(now int64) time.Duration {
	since := p.unused.Load()
	if since == 0 {
		return 0
	}
	return time.Duration(now - since)
}
