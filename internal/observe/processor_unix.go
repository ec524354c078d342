//go:build unix

package observe

import (
	"runtime"
	"syscall"
	"time"
)

// Processor follows the process's use of the processors. It belongs to one goroutine.
type Processor struct {
	used time.Duration
	at   time.Time
}

// Share is the share of the processors' time that the process used since the last call, 0 to 1; 0 at the first call.
func (p *Processor) Share() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	used, now := time.Duration(u.Utime.Nano()+u.Stime.Nano()), time.Now()
	since, took := now.Sub(p.at), used-p.used
	first := p.at.IsZero()
	p.used, p.at = used, now
	if first || since <= 0 {
		return 0
	}
	return float64(took) / float64(since) / float64(runtime.GOMAXPROCS(0))
}
