package http2

import (
	"context"
	"sync"
	"sync/atomic"
)

// streamContext is the context of one request. It ends with its stream, costs nothing
// until somebody waits for its end, and is used again only if nobody did.
type streamContext struct {
	context.Context // the connection's

	used  atomic.Bool // somebody waits, or has waited, for the end, or it is over
	mu    sync.Mutex
	done  chan struct{}
	after map[*func()]struct{}
	err   error
}

// Done implements context.Context.
func (s *streamContext) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used.Store(true)
	if s.done == nil {
		s.done = make(chan struct{})
		if s.err != nil {
			close(s.done)
		}
	}
	return s.done
}

// Err implements context.Context.
func (s *streamContext) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && s.Context != nil {
		return s.Context.Err()
	}
	return s.err
}

// AfterFunc spares package context a goroutine for each context made of this one.
func (s *streamContext) AfterFunc(f func()) (stop func() bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used.Store(true)
	if s.err != nil {
		go f()
		return func() bool { return false }
	}
	if s.after == nil {
		s.after = map[*func()]struct{}{}
	}
	s.after[&f] = struct{}{}
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		_, waits := s.after[&f]
		delete(s.after, &f)
		return waits
	}
}

// cancel ends the context.
func (s *streamContext) cancel() {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.used.Store(true)
	s.err = context.Canceled
	if s.done != nil {
		close(s.done)
	}
	after := s.after
	s.after = nil
	s.mu.Unlock()
	for f := range after {
		go (*f)()
	}
}

// fresh says whether the context can be used again.
func (s *streamContext) fresh() bool { return !s.used.Load() }
