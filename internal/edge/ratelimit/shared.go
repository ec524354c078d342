package ratelimit

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Taken is what an edge let through under a key of a shared limit.
type Taken struct {
	// Key is the limit and what is counted apart, hashed with the secret that the edges share.
	Key uint64
	// Count of requests.
	Count uint32
	// Requests in Per with Burst are the limit, so that an edge can count what it has not met yet.
	Requests, Burst uint32
	Per             time.Duration
}

// Bus carries what edges took to each other. What is lost is not told again: a limit then lets more pass, and never
// refuses what it should not.
type Bus interface {
	// Publish tells all others. It keeps no part of batch, returns soon, and fails rather than wait.
	Publish(ctx context.Context, batch []Taken) error
	// Receive waits for what others published, never what this side did. The batch is the caller's. It fails when ctx
	// ends or the bus is closed.
	Receive(ctx context.Context) ([]Taken, error)
}

// MaxBatch bounds a batch.
const MaxBatch = 1024

// Errors of a Bus.
var (
	ErrClosed  = errors.New("ratelimit: the bus is closed")
	ErrTooMany = errors.New("ratelimit: a batch has more than MaxBatch entries")
)

// publishEvery is how often an edge tells the others.
const publishEvery = 100 * time.Millisecond

// ledger gathers what is to be told. Beyond MaxBatch keys in an interval it waits for nobody: more is not told.
type ledger struct {
	mu      sync.Mutex
	entries []Taken
	index   map[uint64]int
	dropped uint64
}

// note adds a request.
func (l *ledger) note(key uint64, r *rate, per time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i, ok := l.index[key]; ok {
		l.entries[i].Count++
		return
	}
	if len(l.entries) >= MaxBatch {
		l.dropped++
		return
	}
	if l.index == nil {
		l.index = make(map[uint64]int, MaxBatch)
	}
	l.index[key] = len(l.entries)
	l.entries = append(l.entries, Taken{Key: key, Count: 1, Requests: r.requests, Burst: r.burst, Per: per})
}

// take empties the ledger into batch.
func (l *ledger) take(batch []Taken) []Taken {
	l.mu.Lock()
	defer l.mu.Unlock()
	batch = append(batch[:0], l.entries...)
	l.entries = l.entries[:0]
	clear(l.index)
	return batch
}

// Run exchanges what shared limits took with the other edges, until ctx ends. Without a Bus it only waits.
func (s *Stage) Run(ctx context.Context) error {
	if s.bus == nil {
		<-ctx.Done()
		return nil
	}
	received := make(chan error, 1)
	go func() { received <- s.receive(ctx) }()
	t := time.NewTicker(publishEvery)
	defer t.Stop()
	var batch []Taken
	for {
		select {
		case <-ctx.Done():
			<-received
			return nil
		case <-t.C:
			if batch = s.ledger.take(batch); len(batch) == 0 {
				continue
			}
			if s.bus.Publish(ctx, batch) != nil {
				s.lost.Add(float64(len(batch)))
			}
		}
	}
}

// receive counts what the others took.
func (s *Stage) receive(ctx context.Context) error {
	for {
		batch, err := s.bus.Receive(ctx)
		if err != nil {
			return err
		}
		now := int64(time.Since(s.epoch))
		for i := range batch[:min(len(batch), MaxBatch)] {
			e := &batch[i]
			if e.Requests < 1 || e.Requests > most || e.Burst > most || e.Per < time.Millisecond || e.Per > 24*time.Hour {
				continue
			}
			r := newRate(int(e.Requests), e.Per, int(e.Burst))
			s.table.move(e.Key, &r, e.Count, now)
		}
	}
}

// Memory is a Bus between edges in one process, such as those of a test.
type Memory struct {
	mu    sync.Mutex
	sides []*Side
}

// held is how many batches wait for a side that does not receive; older ones are lost.
const held = 64

// Join adds an edge. Close ends it.
func (m *Memory) Join() *Side {
	s := &Side{bus: m, in: make(chan []Taken, held), closed: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sides = append(m.sides, s)
	return s
}

// Side is one edge's end of a Memory, a Bus.
type Side struct {
	bus    *Memory
	in     chan []Taken
	once   sync.Once
	closed chan struct{}
}

// Publish implements Bus.
func (s *Side) Publish(ctx context.Context, batch []Taken) error {
	if len(batch) > MaxBatch {
		return ErrTooMany
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-s.closed:
		return ErrClosed
	default:
	}
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	for _, o := range s.bus.sides {
		if o == s {
			continue
		}
		own := append([]Taken(nil), batch...)
		for {
			select {
			case o.in <- own:
			default:
				select {
				case <-o.in:
				default:
				}
				continue
			}
			break
		}
	}
	return nil
}

// Receive implements Bus.
func (s *Side) Receive(ctx context.Context) ([]Taken, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.closed:
		return nil, ErrClosed
	case b := <-s.in:
		return b, nil
	}
}

// Close ends the side; the others go on.
func (s *Side) Close() {
	s.once.Do(func() { close(s.closed) })
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	for i, o := range s.bus.sides {
		if o == s {
			s.bus.sides = append(s.bus.sides[:i], s.bus.sides[i+1:]...)
			return
		}
	}
}
