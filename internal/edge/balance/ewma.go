package balance

import (
	"math"
	"sync/atomic"
)

// ewmaHalf is the half-life of what is known of an origin's latency.
const ewmaHalf = 5_000 // milliseconds

// ewma is a peak-sensitive moving average of a latency: a slower answer counts at once and whole, faster
// ones bring it down by and by, and so does time. (The rule is that of the Finagle library.) The upper half
// of the word is a float32 of nanoseconds, the lower one the clock in milliseconds. 0 means that nothing
// is known.
type ewma struct{ word atomic.Uint64 }

func ewmaSplit(w uint64) (latency float64, at uint32) {
	return float64(math.Float32frombits(uint32(w >> 32))), uint32(w)
}

// decay is what remains of a weight after so many milliseconds.
func decay(ms uint32) float64 {
	if ms >= 32*ewmaHalf {
		return 0
	}
	// Between two half-lives a straight line is near enough.
	n, rest := ms/ewmaHalf, ms%ewmaHalf
	return (1 - float64(rest)/(2*ewmaHalf)) / float64(uint64(1)<<n)
}

// observe takes an answer's latency in. One of two that come at once may be lost.
func (e *ewma) observe(latency, now int64) {
	old := e.word.Load()
	was, at := ewmaSplit(old)
	ms := uint32(now / 1e6)
	l := max(float64(latency), 1)
	if old != 0 && l < was {
		// The weight of the past is that of the time since; 4 ms at least, so that a burst of fast
		// answers does not wash a slow one away.
		w := decay(max(elapsed(at, ms), 4))
		l = was*w + l*(1-w)
	}
	e.word.CompareAndSwap(old, uint64(math.Float32bits(float32(l)))<<32|uint64(ms))
}

// read is the latency to expect; 0 when nothing is known.
func (e *ewma) read(now int64) float64 {
	w := e.word.Load()
	if w == 0 {
		return 0
	}
	l, at := ewmaSplit(w)
	return l * decay(elapsed(at, uint32(now/1e6)))
}

// elapsed is the time between two readings of the clock, in milliseconds; 0 when the first was later.
func elapsed(from, to uint32) uint32 { return uint32(max(int32(to-from), 0)) }

// unknownCost is what a request in flight at an origin counts of which nothing is known: it gets one, and
// more only when that was answered.
const unknownCost = 60e9

// cost is what peak-ewma compares: how long a further request would take.
func (m *member) cost(now int64) float64 {
	n := float64(m.o.inFlight.Load())
	if l := m.o.latency.read(now); l > 0 {
		return l * (n + 1)
	}
	return n * unknownCost
}

// failedLatency is the least latency that a failed try counts as: to fail fast must not draw requests.
const failedLatency = 100_000_000

// answered takes in how long the try took until its answer's head, at the clock now.
func (s *Slot) answered(now int64) {
	took := max(now-s.began, 0)
	if s.timed {
		s.origin.latency.observe(took, now)
	}
	if s.counts {
		s.origin.headTime.Add(took)
		s.origin.heads.Add(1)
	}
	if s.hedged {
		s.pool.times.add(took)
	}
}
