package balance

import (
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/stage"
)

// The history of a pool is what its tiers had in each minute of the last hour. It is kept by the
// looks beside the requests, from counters that requests count up.
const (
	historyMinutes = 60
	// maxHistories is the number of tiers of an edge that have a history.
	maxHistories = 2000
	// longestStep bounds the time for which what is in flight at a look counts.
	longestStep = 4 * int64(tick)
)

// ByClass is a number for each class of visitors.
type ByClass struct {
	Anonymous float64 `json:"anonymous"`
	Known     float64 `json:"known"`
	Basket    float64 `json:"basket"`
}

// All is the sum.
func (b ByClass) All() float64 { return b.Anonymous + b.Known + b.Basket }

// Add adds n visitors of a class.
func (b *ByClass) Add(c stage.Class, n float64) {
	switch c {
	case stage.Protected:
		b.Basket += n
	case stage.Known:
		b.Known += n
	default:
		b.Anonymous += n
	}
}

// Spills counts requests by why they are in this tier and not in the one of their first choice.
type Spills struct {
	Soft      float64 `json:"soft,omitempty"`
	Hard      float64 `json:"hard,omitempty"`
	Unhealthy float64 `json:"unhealthy,omitempty"`
	Tried     float64 `json:"tried,omitempty"`
	Stayed    float64 `json:"stayed,omitempty"`
	Sticky    float64 `json:"sticky,omitempty"`
}

// All is the sum.
func (s Spills) All() float64 { return s.Soft + s.Hard + s.Unhealthy + s.Tried + s.Stayed + s.Sticky }

// Add adds n requests of a reason as Slot.Spill gives it; another text counts nothing.
func (s *Spills) Add(reason string, n float64) {
	switch reason {
	case "soft":
		s.Soft += n
	case "hard":
		s.Hard += n
	case "unhealthy":
		s.Unhealthy += n
	case "tried":
		s.Tried += n
	case "stayed":
		s.Stayed += n
	case "sticky":
		s.Sticky += n
	}
}

// TierMinute is what a tier had in a minute.
type TierMinute struct {
	Name string `json:"name"`
	// Requests are tries sent there, Spills those that another tier was the first choice of.
	Requests ByClass `json:"requests"`
	Spills   Spills  `json:"spills"`
	// InFlight is the mean, Most the most at a look; Others is what was there from elsewhere, as origins say.
	InFlight float64 `json:"inFlight"`
	Most     float64 `json:"most"`
	Others   float64 `json:"others,omitempty"`
	// P50 and P95 are the time until answers began, in milliseconds; 0 is not known.
	P50 float64 `json:"p50,omitempty"`
	P95 float64 `json:"p95,omitempty"`
	// Ease is how long a request is in flight while the tier is at ease, in milliseconds; 0 is not known.
	Ease float64 `json:"ease,omitempty"`
	// Found is the limit that the time of answers showed, for requests from here, in the mean of the looks that
	// had one; Reported what the origins said last for those of everybody; 0 is none.
	Found    float64 `json:"found,omitempty"`
	Reported float64 `json:"reported,omitempty"`
}

// Minute is what a pool had in a minute by the clock on the wall.
type Minute struct {
	Start   int64   `json:"start"`   // Unix time in seconds
	Seconds float64 `json:"seconds"` // of the minute that were seen
	// Refused are requests for which no tier had room.
	Refused ByClass      `json:"refused"`
	Tiers   []TierMinute `json:"tiers"`
}

// PoolLoad is the recorded load of a pool. A minute that is missing had no request.
type PoolLoad struct {
	Key     bundle.Key `json:"key"`
	Since   float64    `json:"since"` // Unix time in seconds from which on it is known
	Until   float64    `json:"until"`
	Minutes []Minute   `json:"minutes"`
}

// tally is what requests count for the history of a tier.
type tally struct {
	known, basket atomic.Uint64 // of sent
	spills        [len(reasonCodes)]atomic.Uint64
}

// seen is the state of a tier's counters when the present minute began, and what looks saw since.
type seen struct {
	sent, known, basket uint64
	spills              [len(reasonCodes)]uint64
	times               [buckets]uint32
	area, others        float64 // in flight × ns
	most                int64
	found, limited      float64 // sum of limits, and the looks that had one
}

// history is guarded by Pool.mu.
type history struct {
	away    [3]atomic.Uint64 // requests that were refused, by class; not guarded
	refused [3]uint64        // of away, when the present minute began
	full    bool             // no place was left for it
	asked   int64            // the minute in which there was none
	places  int64
	since   int64 // wall clock in ns; 0 is before the first look
	minute  int64 // the present one, in minutes since 1970
	began   int64 // wall clock
	last    int64 // pool's clock of the last look; 0 after a rest
	kept    []Minute
	spare   []TierMinute
}

// places bounds the histories of an edge.
type places struct {
	sync.Mutex
	taken int64
}

func (p *places) take(n int64) bool {
	p.Lock()
	defer p.Unlock()
	if n > 0 && p.taken+n > maxHistories {
		return false
	}
	p.taken += n
	return true
}

// record takes what a look sees into the history. The lock is held.
func (p *Pool) record(now, wall int64) {
	h := &p.history
	if minute := wall / 60e9; minute != h.minute || int64(len(p.plan)) != h.places {
		p.turnMinute(minute, wall)
	}
	if h.full || p.closed {
		return
	}
	dt := 0.0
	if h.last > 0 {
		dt = float64(min(now-h.last, longestStep))
	}
	h.last = now
	for i := range p.plan {
		t := p.plan[i].state
		n, s := t.inFlight.Load(), &t.seen
		s.area += float64(n) * dt
		s.others += float64(max(0, t.others.Load())) * dt
		s.most = max(s.most, n)
		if l := min(t.limiter.size, t.use.size); p.plan[i].adaptive && !math.IsInf(l, 1) {
			s.found += l
			s.limited++
		}
	}
}

// turnMinute closes a minute and begins the next one.
func (p *Pool) turnMinute(minute, wall int64) {
	h := &p.history
	if p.closed || h.full && h.asked == minute {
		return
	}
	if n := int64(len(p.plan)); n != h.places {
		if !p.metrics.places.take(n - h.places) {
			p.metrics.forgotten.Inc()
			p.metrics.places.take(-h.places)
			h.places, h.kept, h.since, h.full, h.asked = 0, nil, 0, true, minute
			return
		}
		h.places, h.full = n, false
	}
	switch {
	case h.since == 0:
		h.since, h.began = wall, wall
	case minute == h.minute: // a tier came or went
		return
	default:
		m := Minute{Tiers: h.spare[:0]}
		h.spare = nil
		if len(h.kept) == historyMinutes {
			h.spare = h.kept[0].Tiers
			h.kept = slices.Delete(h.kept, 0, 1)
		}
		h.kept = append(h.kept, p.present(m, min(wall, (h.minute+1)*60e9)))
		h.began = minute * 60e9
	}
	h.minute = minute
	for c := range h.refused {
		h.refused[c] = h.away[c].Load()
	}
	for i := range p.plan {
		p.plan[i].state.open()
	}
}

// open begins a minute.
func (t *tier) open() {
	s := &t.seen
	s.sent, s.known, s.basket = t.sent.Load(), t.tally.known.Load(), t.tally.basket.Load()
	for r := range s.spills {
		s.spills[r] = t.tally.spills[r].Load()
	}
	t.limiter.hist.copy(&s.times)
	s.area, s.others, s.most, s.found, s.limited = 0, 0, 0, 0, 0
}

// present is the minute that is not over, up to a time of the wall clock. It uses the memory of m.
func (p *Pool) present(m Minute, until int64) Minute {
	h := &p.history
	m.Start, m.Seconds = h.minute*60, float64(max(0, until-h.began))/1e9
	var away [3]float64
	for c := range away {
		away[c] = float64(h.away[c].Load() - h.refused[c])
	}
	m.Refused = ByClass{away[stage.Anonymous], away[stage.Known], away[stage.Protected]}
	m.Tiers = slices.Grow(m.Tiers, len(p.plan))
	for i := range p.plan {
		m.Tiers = append(m.Tiers, p.plan[i].state.present(max(float64(longestStep), float64(until-h.began))))
	}
	return m
}

func (t *tier) present(took float64) TierMinute {
	s := &t.seen
	known, basket := float64(t.tally.known.Load()-s.known), float64(t.tally.basket.Load()-s.basket)
	m := TierMinute{
		Name: t.name, Requests: ByClass{max(0, float64(t.sent.Load()-s.sent)-known-basket), known, basket},
		InFlight: s.area / took, Most: float64(s.most), Others: s.others / took, Found: s.found / max(s.limited, 1),
		Ease: t.limiter.occupied / 1e6,
	}
	for r := range s.spills {
		m.Spills.Add(spillCodes[r], float64(t.tally.spills[r].Load()-s.spills[r]))
	}
	if !math.IsInf(t.told.limit, 1) {
		m.Reported = t.told.limit
	}
	m.P50, m.P95 = t.limiter.hist.percentiles(&s.times)
	return m
}

// percentiles are those of the times since an earlier copy, in ms.
func (h *latencies) percentiles(last *[buckets]uint32) (p50, p95 float64) {
	n, sum := uint64(0), uint64(0)
	for i := range h.count {
		n += uint64(h.count[i].Load() - last[i])
	}
	for i := range h.count {
		c := uint64(h.count[i].Load() - last[i])
		if sum += c; c == 0 {
			continue
		}
		if p50 == 0 && 2*sum >= n {
			p50 = middle(i) / 1e6
		}
		if 20*sum >= 19*n {
			return p50, middle(i) / 1e6
		}
	}
	return p50, p95
}

// load is the history with the present minute.
func (p *Pool) load(wall int64) (PoolLoad, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := &p.history
	if h.full || h.since == 0 {
		return PoolLoad{}, false
	}
	if wall/60e9 > h.minute { // at rest since
		p.turnMinute(wall/60e9, wall)
	}
	l := PoolLoad{Key: p.key, Since: float64(h.since) / 1e9, Until: float64(wall) / 1e9}
	first := wall/60e9*60 - historyMinutes*60
	for _, m := range h.kept {
		if m.Start >= first {
			m.Tiers = slices.Clone(m.Tiers)
			l.Minutes = append(l.Minutes, m)
		}
	}
	l.Minutes = append(l.Minutes, p.present(Minute{}, wall))
	return l, true
}

// Load lists what pools had in each minute of the last hour, by key; of the one pool named, or of all when
// key is empty. Connections of Services are not in it. Wall is the time of day in ns.
func (s *Stage) Load(key bundle.Key, wall int64) []PoolLoad {
	list := []PoolLoad{}
	for _, p := range s.all() {
		if key != "" && p.key != key {
			continue
		}
		if l, ok := p.load(wall); ok {
			list = append(list, l)
		}
	}
	slices.SortFunc(list, func(a, b PoolLoad) int { return strings.Compare(string(a.Key), string(b.Key)) })
	return list
}
