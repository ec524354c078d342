package cache

import (
	"context"
	"time"
)

// slowAfter is how long a reader may hold others up, once the body is not stored.
const slowAfter = 5 * time.Second

// window is how many bytes of a body that is not stored are kept for readers that lag.
const window = 1 << 20

// charge counts bytes of bodies on their way, and says whether there is room for them: half of
// what the store may hold.
func (s *Stage) charge(n int64) bool {
	return s.buffered.Add(n) <= s.cfg.MaxBytes/2
}

// add appends to the body. While the answer is to be stored it never waits. Beyond the largest
// object it gives the storing up, and goes on for the readers that are there, as fast as the
// slowest reads; one that holds others up for slowAfter is dropped.
func (fl *flight) add(ctx context.Context, chunk []byte) error {
	if len(chunk) == 0 {
		return nil
	}
	room := fl.s.charge(int64(len(chunk)))
	fl.mu.Lock()
	defer fl.mu.Unlock()
	b := &fl.body
	b.charged += int64(len(chunk))
	if b.stored && (int64(len(b.buf)+len(chunk)) > fl.rule.maxObject || !room) {
		b.stored, fl.storing = false, false
		fl.s.m.tooLarge.Inc()
		// Later requests fetch for themselves. The locks are taken in the order of join.
		fl.mu.Unlock()
		fl.leave()
		fl.s.markPass(fl.hash, fl.key)
		fl.mu.Lock()
	}
	if b.stored {
		if b.buf == nil && b.total > 0 && b.total <= window {
			b.buf = make([]byte, 0, b.total)
		}
		b.held = int64(len(b.buf))
		b.buf = append(b.buf, chunk...)
		if int64(len(b.buf)) != b.total { // else finish says so
			fl.changed()
		}
		return nil
	}
	b.buf = append(b.buf, chunk...)
	fl.changed()
	return fl.throttle(ctx)
}

// throttle waits until what the readers have still to get fits the window. The lock is held.
func (fl *flight) throttle(ctx context.Context) error {
	b := &fl.body
	var timer *time.Timer
	for {
		if len(b.readers) == 0 && fl.waiting == 0 {
			return errNotWanted
		}
		fl.trim()
		if len(b.buf) <= window {
			return nil
		}
		wake := fl.sleep()
		fl.mu.Unlock()
		if timer == nil {
			timer = time.NewTimer(slowAfter)
			defer timer.Stop()
		}
		select {
		case <-wake:
		case <-timer.C:
			timer.Reset(slowAfter)
			fl.dropSlow()
		case <-ctx.Done():
			fl.mu.Lock()
			return context.Cause(ctx)
		}
		fl.mu.Lock()
	}
}

// trim forgets what every reader has.
func (fl *flight) trim() {
	b := &fl.body
	if fl.waiting > 0 {
		return // somebody has yet to begin
	}
	least := b.base + int64(len(b.buf))
	for _, r := range b.readers {
		least = min(least, r.off)
	}
	n := least - b.base
	b.buf, b.base = b.buf[n:], least
	if len(b.buf) == 0 {
		b.buf = nil // what was lent stays with the readers
	}
	b.charged -= n
	fl.s.charge(-n)
}

// dropSlow drops the slowest reader if it holds another one up.
func (fl *flight) dropSlow() {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	var slowest *reader
	for _, r := range fl.body.readers {
		if slowest == nil || r.off < slowest.off {
			slowest = r
		}
	}
	if len(fl.body.readers) > 1 && slowest.off < fl.body.base+int64(len(fl.body.buf)) {
		slowest.err = errSlow
		fl.drop(slowest)
		fl.s.m.slow.Inc()
		fl.changed()
	}
}
