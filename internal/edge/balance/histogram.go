package balance

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// The histogram of times until the heads of a pool's answers: eight steps to each doubling, from 1/8 ms up.
const (
	histogramBase  = 17 // the first step ends at 2^17 ns
	histogramSteps = 8
	histogramSize  = 20 * histogramSteps // up to 2^37 ns, some two minutes
	// enoughTimes is how many times must have been measured until a percentile means something.
	enoughTimes = 100
	// halfTimes is after how many seconds what was counted counts half.
	halfTimes = 10
)

// histogram counts times. What is older counts less: all counts are halved from time to time.
type histogram struct {
	counts [histogramSize]atomic.Uint32
	after  atomic.Int64 // the percentile that the pool asks for, as of the last tick; 0 is not known
	ticks  int          // one goroutine alone calls tick
}

func histogramStep(ns int64) int {
	u := uint64(max(ns, 1<<histogramBase))
	top := bits.Len64(u) - 1
	return min((top-histogramBase)*histogramSteps+int(u>>(top-3)&7), histogramSize-1)
}

// histogramEnd is where a step ends.
func histogramEnd(i int) int64 {
	top := i/histogramSteps + histogramBase
	return 1<<top + int64(i%histogramSteps+1)<<(top-3)
}

func (h *histogram) add(ns int64) { h.counts[histogramStep(ns)].Add(1) }

// tick is called once a second, with the share for after.
func (h *histogram) tick(share float64) {
	h.after.Store(int64(h.percentile(share)))
	if h.ticks++; h.ticks < halfTimes {
		return
	}
	h.ticks = 0
	for i := range h.counts {
		c := &h.counts[i]
		if n := c.Load(); n > 0 {
			c.Add(^(n - n/2) + 1)
		}
	}
}

// percentile is the time that this share of all took at most; 0 when too few were measured.
func (h *histogram) percentile(share float64) time.Duration {
	var sum uint64
	for i := range h.counts {
		sum += uint64(h.counts[i].Load())
	}
	if sum < enoughTimes {
		return 0
	}
	rank := uint64(math.Ceil(share * float64(sum)))
	for i := range h.counts {
		if n := uint64(h.counts[i].Load()); n < rank {
			rank -= n
		} else {
			return time.Duration(histogramEnd(i))
		}
	}
	return time.Duration(histogramEnd(histogramSize - 1))
}
