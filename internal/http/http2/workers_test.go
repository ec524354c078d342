package http2

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// busy gives n duties at once to w, each a connection of its own, and waits for their end.
func busy(w *workers, n int) {
	conns := make([]*serverConn, n)
	for i := range conns {
		conns[i] = &serverConn{s: new(Server), workers: 1, over: make(chan struct{})}
		conns[i].mu.Lock() // the duty waits for it
		w.give(job{conns[i], context.Background(), dutyHelp})
	}
	for _, c := range conns {
		c.mu.Unlock()
		<-c.over
	}
}

func (w *workers) waiting() int {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.idle)
}

func TestWorkersThatNobodyNeedsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := new(workers)
		busy(w, 3)
		if n := w.waiting(); n != 0 {
			t.Errorf("%d wait while nobody runs the server", n)
		}
		ctx, cancel := context.WithCancel(context.Background())
		over := make(chan struct{})
		go func() { w.run(ctx); close(over) }()
		synctest.Wait()
		busy(w, maxIdleWorkers+20)
		if n := w.waiting(); n != maxIdleWorkers {
			t.Errorf("%d wait, want %d", n, maxIdleWorkers)
		}
		for range 4 { // ten at once are enough for what comes
			time.Sleep(workerTick / 2)
			busy(w, 10)
		}
		time.Sleep(workerTick)
		if n := w.waiting(); n != 10 {
			t.Errorf("%d wait, want 10", n)
		}
		time.Sleep(2 * workerTick)
		if n := w.waiting(); n != 0 {
			t.Errorf("%d wait though there was no work", n)
		}
		busy(w, 5)
		cancel()
		<-over
		if n := w.waiting(); n != 0 {
			t.Errorf("%d wait after the end", n)
		}
	})
}

func TestTheWorkerThatWorkedLastIsTakenFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		w, over := new(workers), make(chan struct{})
		go func() { w.run(ctx); close(over) }()
		synctest.Wait()
		busy(w, 2)
		synctest.Wait()
		last := w.idle[1]
		busy(w, 1)
		synctest.Wait()
		if len(w.idle) != 2 || w.idle[1] != last {
			t.Error("another one was taken")
		}
		cancel()
		<-over
	})
}
