package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// retry is how often a process that does not lead asks again, and how often a leader asks whether it still holds its lock.
const retry = time.Second

// held is a lock that one process has, and that ends with the process.
type held struct {
	check   func(ctx context.Context) error // nil error: it is still held
	release func()
}

// Lease is the right to do background work. Put it into a Change: once another leads, writes under it are refused, even
// if this process has not noticed yet.
type Lease struct {
	name string
	term int64
	done chan struct{}
	stop func()
}

// Term numbers the leaders of one name: 1, 2, 3 ...
func (l *Lease) Term() int64 { return l.term }

// Done is closed when the lock is lost or the lease was closed.
func (l *Lease) Done() <-chan struct{} { return l.done }

// Close gives the lock back.
func (l *Lease) Close() { l.stop() }

// TryLead takes the lead under a name, or says ErrNotLeader. Holder is shown to people.
func (s *Store) TryLead(ctx context.Context, name, holder string) (*Lease, error) {
	if name == "" {
		return nil, fmt.Errorf("%w: a lease has a name", ErrInvalid)
	}
	if err := errors.Join(checkText("lease", name, maxPart), checkText("holder", holder, maxAuthor)); err != nil {
		return nil, err
	}
	lock, err := s.engine.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	l := &Lease{name: name, done: make(chan struct{})}
	_, err = s.Update(ctx, Change{Author: "leader " + name}, func(tx *Tx) error {
		row := tx.q.QueryRowContext(ctx, `INSERT INTO leaders (name, term, holder, since) VALUES ($1, 1, $2, $3)
ON CONFLICT (name) DO UPDATE SET term = leaders.term + 1, holder = excluded.holder, since = excluded.since RETURNING term`,
			name, holder, tx.now.UnixMicro())
		return s.fail(ctx, "take the lead", errors.Join(row.Scan(&l.term), tx.keep()))
	})
	if err != nil {
		lock.release()
		return nil, err
	}
	watch, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	s.running.Go(func() {
		defer close(ended)
		s.watch(watch, lock, l)
	})
	l.stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	return l, nil
}

// watch holds the lock until the lease, the store or the connection ends.
func (s *Store) watch(ctx context.Context, lock held, l *Lease) {
	defer lock.release()
	defer close(l.done)
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.life:
			return
		case <-tick.C:
			ask, end := context.WithTimeout(ctx, s.limits.Wait)
			err := lock.check(ask)
			end()
			if err != nil {
				return
			}
		}
	}
}

// Lead waits until this process leads.
func (s *Store) Lead(ctx context.Context, name, holder string) (*Lease, error) {
	for {
		l, err := s.TryLead(ctx, name, holder)
		if err == nil || !(errors.Is(err, ErrNotLeader) || errors.Is(err, ErrBusy) || errors.Is(err, ErrUnavailable)) {
			return l, err
		}
		again := time.NewTimer(retry)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return nil, context.Cause(ctx)
		case <-s.life:
			again.Stop()
			return nil, fmt.Errorf("%w: it was closed", ErrUnavailable)
		}
	}
}

// Leader says who took the lead last, and in which term; term 0: nobody ever did.
func (r *Reader) Leader(ctx context.Context, name string) (holder string, term int64, err error) {
	err = r.q.QueryRowContext(ctx, "SELECT holder, term FROM leaders WHERE name = $1", name).Scan(&holder, &term)
	if isNoRows(err) {
		return "", 0, nil
	}
	return holder, term, r.store.fail(ctx, "read the leader", err)
}
