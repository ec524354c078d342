package waf

import (
	"runtime"
	"sync/atomic"
	"time"
)

// cpuWindow is how much of a policy's CPU time may be used at once: that of so long.
const cpuWindow = 2 * time.Second

// spent keeps count of the CPU time that the evaluations of a policy take at one site, so that one site does
// not take the time of all others (GCRA, in time of evaluations). A change of the documents hands it on.
type spent struct{ paid atomic.Int64 } // ns since the stage's epoch

// over says whether more was used than rate, the CPU time in a second, allows.
func (s *spent) over(now, rate time.Duration) bool {
	return rate > 0 && time.Duration(s.paid.Load())-now > cpuWindow
}

// use takes the CPU time of an evaluation from what there is.
func (s *spent) use(now, took, rate time.Duration) {
	if rate <= 0 || took <= 0 {
		return
	}
	cost := time.Duration(float64(took) * float64(time.Second) / float64(rate))
	for {
		old := s.paid.Load()
		if s.paid.CompareAndSwap(old, int64(max(time.Duration(old), now)+cost)) {
			return
		}
	}
}

// fairCPU is the CPU time in a second from which on a site where the document sets no bound is busy: half the CPUs. It is
// evaluated all the same, in half of the places, so that others find one.
func fairCPU() time.Duration { return time.Duration(runtime.GOMAXPROCS(0)) * time.Second / 2 }
