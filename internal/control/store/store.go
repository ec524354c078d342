// Package store keeps documents, their revisions and an outbox of messages, in one transaction: embedded in
// SQLite, or in PostgreSQL for several control planes at once. Both behave alike; storetest proves it.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Key names a document. Names compare byte by byte.
type Key struct {
	Organization string `json:"organization"`
	Project      string `json:"project,omitempty"` // empty: of the organization itself
	Kind         string `json:"kind"`
	Name         string `json:"name"`
}

// String writes the key as organization/project/kind/name.
func (k Key) String() string {
	return k.Organization + "/" + k.Project + "/" + k.Kind + "/" + k.Name
}

// Document is a JSON object under a key.
type Document struct {
	Key
	Revision int64     // number of the organization's revision that wrote it; what compare-and-set compares
	Created  time.Time // UTC, microseconds
	Updated  time.Time
	Body     []byte // JSON; the store reads no more of it than that it is JSON
}

// Change says who changes something, and why.
type Change struct {
	Author string
	Reason string
	Lease  *Lease // where set, refused with ErrFenced once another leads
}

// Commit is what a change became. Of a change that wrote nothing, Position is 0.
type Commit struct {
	Position  int64            // in the log of all organizations: 1, 2, 3 ... in the order of commits
	Revisions map[string]int64 // of each organization whose documents changed, its new revision
	Time      time.Time
}

// Options are a store's bounds. A zero value takes the defaults.
type Options struct {
	Limits Limits
	Clock  func() time.Time // of created, updated and revisions; time.Now
	// Schemas are the tables that other rooms keep in the same database.
	Schemas []Schema
}

// Store is one end of a database. Several stores, also of other processes, may use one database.
type Store struct {
	engine engine
	limits Limits
	clock  func() time.Time

	schemas []Schema

	turn chan struct{} // one writer at a time: the others wait here, not in connections

	mu      sync.Mutex
	waiting int           // writers in line
	changed chan struct{} // closed and replaced after each commit of ours

	listen  sync.Once
	stop    context.CancelFunc
	running sync.WaitGroup
	life    <-chan struct{}
}

// engine is what the two databases do in ways of their own.
type engine struct {
	name      string
	writes    *sql.DB
	reads     *sql.DB
	types     map[string]string // of columns: {text}, {bytes}
	forUpdate string            // ends the query that takes the one lock of all writers
	snapshot  sql.IsolationLevel
	exclusive string                                               // first statement of a migration
	notify    string                                               // told in a transaction, heard after its commit
	listen    func(ctx context.Context, heard func())              // until ctx ends; nil where nobody else can tell
	lock      func(ctx context.Context, name string) (held, error) // one leader; ErrNotLeader where another is
	classify  func(error) error                                    // to the errors of errors.go
	tables    string                                               // how many tables there are of a name
}

func newStore(e engine, o Options) *Store {
	life, stop := context.WithCancel(context.Background())
	s := &Store{
		engine: e, limits: o.Limits.withDefaults(), clock: o.Clock, schemas: o.Schemas,
		turn: make(chan struct{}, 1), changed: make(chan struct{}), stop: stop, life: life.Done(),
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	return s
}

// Close ends the store. Call it after the last transaction.
func (s *Store) Close() error {
	s.stop()
	s.running.Wait()
	if s.engine.reads == s.engine.writes {
		return s.engine.writes.Close()
	}
	return errors.Join(s.engine.reads.Close(), s.engine.writes.Close())
}

// Engine is "sqlite" or "postgres".
func (s *Store) Engine() string { return s.engine.name }

// Limits are the bounds in force.
func (s *Store) Limits() Limits { return s.limits }

// View reads the state of one moment. What fn returns is returned.
func (s *Store) View(ctx context.Context, fn func(*Reader) error) error {
	tx, err := s.engine.reads.BeginTx(ctx, &sql.TxOptions{Isolation: s.engine.snapshot, ReadOnly: true})
	if err != nil {
		return s.fail(ctx, "begin to read", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing was written
	return fn(&Reader{q: tx, store: s})
}

// Get reads one document, or ErrNotFound.
func (s *Store) Get(ctx context.Context, key Key) (d Document, err error) {
	err = s.View(ctx, func(r *Reader) error {
		d, err = r.Get(ctx, key)
		return err
	})
	return d, err
}

// List reads a page of documents in the order of their keys.
func (s *Store) List(ctx context.Context, q Query) (p Page, err error) {
	err = s.View(ctx, func(r *Reader) error {
		p, err = r.List(ctx, q)
		return err
	})
	return p, err
}

// Update does what fn does to the transaction, whole or not at all; when it returns nil the change is on disk.
// Writers take turns, over all processes: what fn reads is the newest, and stays so until the end. So fn is quick,
// and asks no network. An error of fn is returned as it is and nothing was changed; ErrUncertain alone says that the
// change may or may not have been made.
func (s *Store) Update(ctx context.Context, c Change, fn func(*Tx) error) (Commit, error) {
	if err := s.limits.checkChange(c); err != nil {
		return Commit{}, err
	}
	if err := s.takeTurn(ctx); err != nil {
		return Commit{}, err
	}
	defer func() { <-s.turn }()
	// A commit that began is not cut off by the caller's end: its outcome would be unknown for nothing.
	whole, end := context.WithTimeout(context.WithoutCancel(ctx), s.limits.Transaction)
	defer end()
	sqlTx, err := s.engine.writes.BeginTx(whole, nil)
	if err != nil {
		return Commit{}, s.fail(ctx, "begin to write", err)
	}
	defer func() { _ = sqlTx.Rollback() }() // does nothing after a commit
	tx := &Tx{Reader: Reader{q: sqlTx, store: s}, change: c, orgs: map[string]*orgState{}}
	if err := tx.begin(ctx); err != nil {
		return Commit{}, err
	}
	if err := fn(tx); err != nil {
		return Commit{}, err
	}
	done, err := tx.finish(ctx)
	if err != nil || done.Position == 0 && !tx.kept {
		return done, err
	}
	if err := context.Cause(ctx); err != nil {
		return Commit{}, err
	}
	if err := sqlTx.Commit(); err != nil {
		return Commit{}, s.commitFailed(whole, err)
	}
	s.broadcast()
	return done, nil
}

// takeTurn waits in line among this process's writers.
func (s *Store) takeTurn(ctx context.Context) error {
	s.mu.Lock()
	full := s.waiting >= s.limits.Writers
	if !full {
		s.waiting++
	}
	s.mu.Unlock()
	if full {
		return fmt.Errorf("%w: %d changes are in line already", ErrBusy, s.limits.Writers)
	}
	defer func() {
		s.mu.Lock()
		s.waiting--
		s.mu.Unlock()
	}()
	late := time.NewTimer(s.limits.Wait)
	defer late.Stop()
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-late.C:
		return fmt.Errorf("%w: no turn to write within %s", ErrBusy, s.limits.Wait)
	}
}

// fail gives a database's error its type, and says what was tried.
func (s *Store) fail(ctx context.Context, doing string, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, ctx.Err()) {
		return cause
	}
	return fmt.Errorf("store: %s: %w", doing, s.engine.classify(err))
}

func (s *Store) commitFailed(whole context.Context, err error) error {
	typed := s.engine.classify(err)
	if whole.Err() != nil || errors.Is(typed, ErrUnavailable) {
		return fmt.Errorf("store: commit: %w: %w", ErrUncertain, err)
	}
	return fmt.Errorf("store: commit: %w", typed)
}

func (s *Store) broadcast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}
