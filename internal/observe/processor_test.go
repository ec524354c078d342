//go:build unix

package observe

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestTheDelayGrowsWhenMoreIsReadyThanTheProcessorsCanTake(t *testing.T) {
	defer goleak.VerifyNone(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	p := NewProcessor(New())
	if l := p.Load(); l != (Load{}) {
		t.Fatalf("%+v before Run", l)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	until(t, "a first probe came back", func() bool { return p.Load().Delay > 0 })
	var stop atomic.Bool
	for range 30 { // each has the processor for ten milliseconds
		go func() {
			for !stop.Load() {
			}
		}()
	}
	until(t, "30 goroutines without an end are felt", func() bool { l := p.Load(); return l.Delay > 50*time.Millisecond && l.Share > 0.3 })
	stop.Store(true)
	until(t, "their end is", func() bool { return p.Load().Delay < 20*time.Millisecond })
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if l := p.Load(); l != (Load{}) {
		t.Fatalf("%+v after Run", l)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not so after a minute: ", what)
		}
	}
}
