package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"
)

// Primary result codes of SQLite (sqlite.org/rescode.html).
const (
	sqliteBusy      = 5
	sqliteLocked    = 6
	sqliteReadOnly  = 8
	sqliteInterrupt = 9
	sqliteIOErr     = 10
	sqliteCorrupt   = 11
	sqliteFull      = 13
	sqliteCantOpen  = 14
	sqliteNotADB    = 26
)

const (
	sqlitePage    = 4096
	sqliteReaders = 8
)

// OpenSQLite opens the database in a file and makes it where it is missing. Several processes of one machine may open
// it; the file must not be on a network file system.
func OpenSQLite(ctx context.Context, path string, o Options) (*Store, error) {
	l := o.Limits.withDefaults()
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("store: %q: %w", path, err)
	}
	// Bodies hold what only the control plane may read. The files beside this one take over its mode.
	f, err := os.OpenFile(abs, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: %w; give a path in a folder that this user may write", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	bound := ""
	if l.FileBytes > 0 {
		bound = fmt.Sprintf("max_page_count(%d)", max(l.FileBytes/sqlitePage, 1))
	}
	writes, err := openSQLite(abs, 1, l.Wait, "journal_mode(WAL)", "synchronous(FULL)", "journal_size_limit(67108864)", bound)
	if err != nil {
		return nil, err
	}
	reads, err := openSQLite(abs, sqliteReaders, l.Wait, "query_only(1)")
	if err != nil {
		return nil, errors.Join(err, writes.Close())
	}
	s := newStore(engine{
		name: "sqlite", writes: writes, reads: reads, classify: classifySQLite,
		types:  map[string]string{"{text}": "TEXT", "{bytes}": "BLOB"},
		tables: "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1",
		lock:   func(ctx context.Context, name string) (held, error) { return lockSQLite(ctx, abs, name) },
	}, o)
	if err := s.migrate(ctx, migrations()); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), s.Close())
	}
	return s, nil
}

// openSQLite opens a pool. Transactions that write begin with the write lock, so that what they read stays true.
func openSQLite(abs string, conns int, wait time.Duration, pragmas ...string) (*sql.DB, error) {
	q := url.Values{}
	q.Add("_pragma", fmt.Sprintf("busy_timeout(%d)", wait.Milliseconds()))
	for _, p := range pragmas {
		if p != "" {
			q.Add("_pragma", p)
		}
	}
	q.Set("_txlock", "immediate")
	if conns > 1 {
		q.Set("_txlock", "deferred")
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("store: open %s: %w", abs, err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// lockSQLite holds an exclusive transaction on a file of its own: the system ends it with the process.
func lockSQLite(ctx context.Context, abs, name string) (held, error) {
	db, err := openSQLite(abs+".leader-"+url.QueryEscape(name), 1, 0)
	if err != nil {
		return held{}, err
	}
	conn, err := db.Conn(ctx)
	if err == nil {
		_, err = conn.ExecContext(ctx, "BEGIN EXCLUSIVE")
	}
	if err != nil {
		err = classifySQLite(err)
		if errors.Is(err, ErrBusy) {
			err = ErrNotLeader
		}
		return held{}, errors.Join(fmt.Errorf("store: lead %s: %w", name, err), db.Close())
	}
	check := func(ctx context.Context) error {
		_, err := conn.ExecContext(ctx, "SELECT 1")
		return err
	}
	release := func() {
		_ = conn.Close() // the transaction ends with its connection
		_ = db.Close()
	}
	return held{check, release}, nil
}

func classifySQLite(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		if errors.Is(err, sql.ErrTxDone) || errors.Is(err, driver.ErrBadConn) {
			return fmt.Errorf("%w: the change took too long: %w", ErrBusy, err)
		}
		if errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return err
	}
	switch e.Code() & 0xff {
	case sqliteBusy, sqliteLocked:
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case sqliteInterrupt:
		return fmt.Errorf("%w: the change took too long: %w", ErrBusy, err)
	case sqliteFull:
		return fmt.Errorf("%w: %w", ErrFull, err)
	case sqliteIOErr, sqliteCantOpen, sqliteReadOnly:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case sqliteCorrupt, sqliteNotADB:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}
