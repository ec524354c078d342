package shop

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite"
)

// ledgerFile is the name of the database inside the data directory.
const ledgerFile = "shop.db"

// SQLite result codes that mean "another process holds the lock, try again".
const (
	sqliteBusy   = 5
	sqliteLocked = 6
)

const schema = `
CREATE TABLE IF NOT EXISTS baskets (
	id      TEXT PRIMARY KEY,
	updated INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS baskets_updated ON baskets(updated);
CREATE TABLE IF NOT EXISTS basket_lines (
	basket TEXT NOT NULL,
	sku    TEXT NOT NULL,
	qty    INTEGER NOT NULL,
	added  INTEGER NOT NULL,
	PRIMARY KEY (basket, sku)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orders (
	seq     INTEGER PRIMARY KEY,
	id      TEXT NOT NULL UNIQUE,
	key     TEXT NOT NULL UNIQUE,
	basket  TEXT NOT NULL,
	placed  INTEGER NOT NULL,
	cluster TEXT NOT NULL,
	name    TEXT NOT NULL,
	email   TEXT NOT NULL,
	address TEXT NOT NULL,
	total   INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS order_lines (
	order_id TEXT NOT NULL,
	sku      TEXT NOT NULL,
	name     TEXT NOT NULL,
	qty      INTEGER NOT NULL,
	price    INTEGER NOT NULL,
	PRIMARY KEY (order_id, sku)
) WITHOUT ROWID;`

// store is the shop's database: baskets and orders. Orders and baskets have a connection of
// their own because they differ in what a power cut may cost: an order is synced to disk
// before it is confirmed, a basket is only safe from the death of the process.
type store struct {
	orders  *sql.DB // one connection, synchronous=FULL
	baskets *sql.DB // one connection, synchronous=NORMAL
	reads   *sql.DB
}

// dsn says how one pool opens the database. Writers begin their transactions with the write
// lock: a transaction that reads first and writes later would fail at once, without
// waiting, when the other cluster wrote in between.
func dsn(dir, synchronous string, readOnly bool) (string, error) {
	abs, err := filepath.Abs(filepath.Join(dir, ledgerFile))
	if err != nil {
		return "", fmt.Errorf("shop: data directory %q: %w", dir, err)
	}
	query := url.Values{}
	query.Add("_busy_timeout", "5000")
	if readOnly {
		query.Add("mode", "ro")
	} else {
		query.Add("_pragma", "journal_mode(WAL)")
		query.Add("_pragma", "synchronous("+synchronous+")")
		query.Set("_txlock", "immediate")
	}
	return (&url.URL{Scheme: "file", Path: abs, RawQuery: query.Encode()}).String(), nil
}

func openPool(dir, synchronous string, readOnly bool, conns int) (*sql.DB, error) {
	name, err := dsn(dir, synchronous, readOnly)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", name)
	if err != nil {
		return nil, fmt.Errorf("shop: open ledger: %w", err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// openStore opens the database in dir and makes it when it is missing.
func openStore(ctx context.Context, dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("shop: data directory: %w (choose a directory that this user may write)", err)
	}
	s := &store{}
	var err error
	if s.orders, err = openPool(dir, "FULL", false, 1); err != nil {
		return nil, err
	}
	// Two processes may make the database at the same moment; the change to WAL does not
	// always wait for the other's lock, so it is tried again for a while.
	deadline := time.Now().Add(10 * time.Second)
	for {
		_, err = s.orders.ExecContext(ctx, schema)
		if err == nil || !isBusy(err) || time.Now().After(deadline) || ctx.Err() != nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("shop: prepare ledger %s: %w", filepath.Join(dir, ledgerFile), err), s.close())
	}
	if s.baskets, err = openPool(dir, "NORMAL", false, 1); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if s.reads, err = openPool(dir, "NORMAL", false, 4); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *store) close() error {
	var errs []error
	for _, db := range []*sql.DB{s.reads, s.baskets, s.orders} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

func isBusy(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	code := e.Code() & 0xff
	return code == sqliteBusy || code == sqliteLocked
}

// transaction runs work in one transaction of db and commits it when work returns nil.
func transaction(ctx context.Context, db *sql.DB, work func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing after a commit
	if err := work(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// hint adds what to do to an error of the database, for the log.
func hint(err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "full"):
		return fmt.Errorf("%w (free space on the disk of the data directory)", err)
	case strings.Contains(text, "readonly"):
		return fmt.Errorf("%w (the data directory must be writable)", err)
	default:
		return err
	}
}
