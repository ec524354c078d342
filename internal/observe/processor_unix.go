//go:build unix

package observe

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
)

// usage follows the process's use of the processors.
type usage struct {
	used time.Duration
	at   time.Time
}

// share is the share of the processors' time that the process used since the last call; 0 at the first call.
func (u *usage) share() float64 {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	used, now := time.Duration(r.Utime.Nano()+r.Stime.Nano()), time.Now()
	since, took := now.Sub(u.at), used-u.used
	first := u.at.IsZero()
	u.used, u.at = used, now
	if first || since <= 0 {
		return 0
	}
	return float64(took) / float64(since) / float64(runtime.GOMAXPROCS(0))
}

// probe is a pipe to ourselves: a byte in it is ready at once, and is read when its turn comes among all that the
// kernel has ready, in the order in which it became so.
type probe struct{ r, w *os.File }

func newProbe() (*probe, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("measure how long the ready waits: %w", err)
	}
	return &probe{r, w}, nil
}

func (p *probe) send() { _, _ = p.w.Write([]byte{0}) }

// wait waits for a byte; false when the probe was closed.
func (p *probe) wait() bool {
	var b [1]byte
	_, err := p.r.Read(b[:])
	return err == nil
}

func (p *probe) close() {
	_ = p.w.Close()
	_ = p.r.Close()
}
