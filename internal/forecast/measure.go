package forecast

import (
	"math"

	"github.com/relais-edge/relais/internal/edge/balance"
)

// measure is what a span of virtual time came to. Its methods do nothing on nil.
type measure struct {
	from, to int64
	tiers    []tierMeasure
	refused  balance.ByClass // no tier had room
	failed   balance.ByClass // every try allowed failed
	gaveUp   balance.ByClass // the visitor waited too long
	asked    balance.ByClass
	took     float64 // ns, of those that were answered
	answers  float64
	times    [timeSteps]float64
	lookedAt int64
	looks    float64
}

type tierMeasure struct {
	sent    balance.ByClass
	spills  balance.Spills
	area    float64 // in flight × ns
	lastAt  int64
	limit   float64 // sum over looks in which there was one
	limited float64 // looks
	found   bool
	took    float64
	answers float64
}

// timeSteps are sixteen to each doubling, from 2^13 ns.
const timeSteps = 512

func timeStep(ns int64) int {
	return min(max(int(16*(math.Log2(float64(max(ns, 1)))-13)), 0), timeSteps-1)
}

// measureFrom begins to measure, at the world's time.
func (w *world) measureFrom() *measure {
	m := &measure{from: w.now, tiers: make([]tierMeasure, len(w.tiers)), lookedAt: w.now}
	for i := range m.tiers {
		m.tiers[i].lastAt = w.now
	}
	w.m = m
	return m
}

// stop ends the measuring.
func (w *world) stop() {
	if w.m != nil {
		for i := range w.tiers {
			w.m.area(i, &w.tiers[i], w.now)
		}
		w.m.to = w.now
		w.m.limits(w)
		w.m = nil
	}
}

func (m *measure) area(tier int, t *worldTier, now int64) {
	if m != nil {
		a := &m.tiers[tier]
		a.area += float64(t.inFlight) * float64(now-a.lastAt)
		a.lastAt = now
	}
}

func (m *measure) sent(r *request, tier int) {
	if m != nil {
		t := &m.tiers[tier]
		t.sent.Add(r.class, 1)
		t.spills.Add(r.slot.Spill(), 1)
	}
}

func (m *measure) answered(w *world, r *request, tier int) {
	if m != nil {
		took := w.now - r.start
		m.asked.Add(r.class, 1)
		m.took += float64(took)
		m.answers++
		m.times[timeStep(took)]++
		m.tiers[tier].took += float64(took)
		m.tiers[tier].answers++
	}
}

// Why a request came to nothing.
const (
	lostRefused = iota
	lostFailed
	lostLate
)

func (m *measure) lose(r *request, why int) {
	if m != nil {
		m.asked.Add(r.class, 1)
		[...]*balance.ByClass{lostRefused: &m.refused, lostFailed: &m.failed, lostLate: &m.gaveUp}[why].Add(r.class, 1)
	}
}

// limits looks at what the tiers take.
func (m *measure) limits(w *world) {
	m.looks++
	for _, t := range w.model.Status().Tiers {
		if i, ok := w.index[t.Name]; ok && t.Limit > 0 {
			m.tiers[i].limit += float64(t.Limit)
			m.tiers[i].limited++
			m.tiers[i].found = t.Found
		}
	}
}

func (m *measure) seconds() float64 { return max(float64(m.to-m.from)/1e9, 1e-9) }

// inFlight is how many there were in a tier, in the mean up to a time.
func (m *measure) inFlight(tier int, now int64) float64 {
	return m.tiers[tier].area / float64(max(now-m.from, 1))
}

// mean is how long answers took, in ms.
func (m *measure) mean() float64 { return m.took / max(m.answers, 1) / milli }

// percentile of how long answers took, in ms.
func (m *measure) percentile(share float64) float64 {
	rank, sum := share*m.answers, 0.0
	for i, c := range m.times {
		if sum += c; sum >= rank && c > 0 {
			return math.Exp2(float64(i)/16+13) / milli
		}
	}
	return 0
}

// lost is what was not answered.
func (m *measure) lost() balance.ByClass {
	return balance.ByClass{
		Anonymous: m.refused.Anonymous + m.failed.Anonymous + m.gaveUp.Anonymous,
		Known:     m.refused.Known + m.failed.Known + m.gaveUp.Known,
		Basket:    m.refused.Basket + m.failed.Basket + m.gaveUp.Basket,
	}
}
