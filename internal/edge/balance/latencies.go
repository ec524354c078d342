package balance

import (
	"math"
	"math/bits"
	"sync/atomic"
)

const (
	// A bucket is an eighth of an octave, from 16 µs to a minute.
	bucketUnit = 14 // bits of a ns
	buckets    = 168
)

// latencies counts how long answers took. It only grows; a window is a difference.
type latencies struct {
	from  atomic.Int64 // requests sent earlier do not count
	count [buckets]atomic.Uint32
}

// add counts an answer that took so many ns to a request of the time sent.
func (h *latencies) add(sent, took int64) {
	if sent >= h.from.Load() {
		h.count[bucketOf(took)].Add(1)
	}
}

func bucketOf(ns int64) int {
	v := uint64(max(0, ns)) >> bucketUnit
	if v < 8 {
		return int(v)
	}
	e := bits.Len64(v) - 1
	return min((e-2)*8+int(v>>(e-3)&7), buckets-1)
}

// middle is the middle of a bucket, in ns.
func middle(i int) float64 {
	if i < 8 {
		return (float64(i) + 0.5) * (1 << bucketUnit)
	}
	return math.Ldexp(float64(8+i%8)+0.5, i/8-1+bucketUnit)
}

// window is what the answers of some time were like, in ns.
type window struct {
	n      float64 // answers
	low    float64 // mean of the quicker four fifths
	spread float64 // standard deviation of the same
	tail   float64 // 95th percentile
}

func (h *latencies) copy(to *[buckets]uint32) {
	for i := range to {
		to[i] = h.count[i].Load()
	}
}

// since compares with an earlier copy.
func (h *latencies) since(last *[buckets]uint32) (w window) {
	var diff [buckets]uint32
	n := uint64(0)
	for i := range diff {
		diff[i] = h.count[i].Load() - last[i]
		n += uint64(diff[i])
	}
	if n == 0 {
		return w
	}
	w.n = float64(n)
	left, sum, squares, seen := 0.8*w.n, 0.0, 0.0, 0.0
	for i := range diff {
		c := float64(diff[i])
		if c == 0 {
			continue
		}
		m := middle(i)
		part := min(c, left)
		sum, squares, left = sum+part*m, squares+part*m*m, left-part
		if seen += c; seen >= 0.95*w.n {
			w.tail = m
			break
		}
	}
	w.low = sum / (0.8 * w.n)
	w.spread = math.Sqrt(max(0, squares/(0.8*w.n)-w.low*w.low))
	return w
}
