package visitors

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// subBuckets is the number of equal parts of each power of two: a quantile is at most 1/32
// too high.
const (
	subBuckets = 32
	subBits    = 5
	buckets    = 32 * subBuckets // up to 2^36 microseconds
)

// histogram counts durations in buckets whose width grows with the value. It has a fixed
// size, takes no lock and is safe for concurrent use.
type histogram struct {
	counts [buckets]atomic.Int64
	total  atomic.Int64
	sum    atomic.Int64 // microseconds
	max    atomic.Int64
}

func bucketOf(us int64) int {
	if us < subBuckets {
		return int(max(us, 0))
	}
	shift := bits.Len64(uint64(us)) - subBits - 1
	return min((shift+1)*subBuckets+int(us>>shift)-subBuckets, buckets-1)
}

// ceiling is the greatest value of a bucket, in microseconds.
func ceiling(bucket int) int64 {
	if bucket < subBuckets {
		return int64(bucket)
	}
	shift := bucket/subBuckets - 1
	return (int64(bucket%subBuckets)+subBuckets+1)<<shift - 1
}

func (h *histogram) record(d time.Duration) {
	us := d.Microseconds()
	h.counts[bucketOf(us)].Add(1)
	h.total.Add(1)
	h.sum.Add(us)
	for {
		old := h.max.Load()
		if us <= old || h.max.CompareAndSwap(old, us) {
			return
		}
	}
}

// Latency is a summary of how long answers took, from the first byte sent to the last byte
// read. Quantiles are at most one thirty-second too high.
type Latency struct {
	Count                           int64
	Mean, P50, P90, P99, P999, Most time.Duration
}

func (h *histogram) summary() Latency {
	var l Latency
	l.Count = h.total.Load()
	if l.Count == 0 {
		return l
	}
	most := h.max.Load()
	l.Most = time.Duration(most) * time.Microsecond
	l.Mean = time.Duration(h.sum.Load()/l.Count) * time.Microsecond
	quantile := func(q float64) time.Duration {
		rank := int64(q*float64(l.Count-1)) + 1
		for i := range h.counts {
			if rank -= h.counts[i].Load(); rank <= 0 {
				return time.Duration(min(ceiling(i), most)) * time.Microsecond
			}
		}
		return l.Most
	}
	l.P50, l.P90, l.P99, l.P999 = quantile(.5), quantile(.9), quantile(.99), quantile(.999)
	return l
}
