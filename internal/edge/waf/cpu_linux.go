package waf

import (
	"syscall"
	"time"
)

// rusageThread asks getrusage for the calling thread (RUSAGE_THREAD).
const rusageThread = 1

// cpuTime is the CPU time that the calling thread has used.
func cpuTime() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(rusageThread, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
