package shop

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// errBusy says that every slot is taken and so is the queue, or that the wait was too long.
var errBusy = errors.New("shop: all workers are busy")

// slots is the shop's capacity: how many requests are worked on at once, and a bounded
// first-come first-served queue for the next ones.
type slots struct {
	taken    chan struct{}
	waiting  atomic.Int64
	queue    int64
	patience time.Duration
	refused  atomic.Int64
}

func newSlots(capacity, queue int, patience time.Duration) *slots {
	return &slots{taken: make(chan struct{}, capacity), queue: int64(queue), patience: patience}
}

// acquire takes a slot. It waits for at most the queue's patience, and returns errBusy when
// the queue is full or the wait too long, or ctx's error when the client went away.
func (s *slots) acquire(ctx context.Context) error {
	select {
	case s.taken <- struct{}{}:
		return nil
	default:
	}
	if s.waiting.Add(1) > s.queue {
		s.waiting.Add(-1)
		s.refused.Add(1)
		return errBusy
	}
	defer s.waiting.Add(-1)
	timer := time.NewTimer(s.patience)
	defer timer.Stop()
	select {
	case s.taken <- struct{}{}:
		return nil
	case <-timer.C:
		s.refused.Add(1)
		return errBusy
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slots) release() { <-s.taken }

func (s *slots) inUse() int { return len(s.taken) }
