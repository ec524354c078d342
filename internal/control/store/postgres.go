package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	postgresReaders = 8
	postgresChannel = "relais_outbox"
	connectTime     = 10 * time.Second // unless the connection string says another
)

// OpenPostgres opens a database of a PostgreSQL server (12 or newer) by its connection string, and makes the tables
// where they are missing, in the first schema of the search path. The database is in UTF-8.
func OpenPostgres(ctx context.Context, dsn string, o Options) (*Store, error) {
	l := o.Limits.withDefaults()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("store: the connection string of PostgreSQL: %w", err)
	}
	config.RuntimeParams["application_name"] = "relais"
	config.RuntimeParams["lock_timeout"] = millis(l.Wait)
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTime
	}
	writing := config.Copy()
	// A process that stands still does not keep the others' lock.
	writing.RuntimeParams["idle_in_transaction_session_timeout"] = millis(l.Transaction)
	writing.RuntimeParams["statement_timeout"] = millis(l.Transaction)
	writes := stdlib.OpenDB(*writing, stdlib.OptionAfterConnect(durable))
	writes.SetMaxOpenConns(1)
	reads := stdlib.OpenDB(*config)
	reads.SetMaxOpenConns(postgresReaders)
	reads.SetMaxIdleConns(postgresReaders)
	s := newStore(engine{
		name: "postgres", writes: writes, reads: reads, classify: classifyPostgres,
		types:     map[string]string{"{text}": `TEXT COLLATE "C"`, "{bytes}": "BYTEA"},
		forUpdate: " FOR UPDATE", snapshot: sql.LevelRepeatableRead,
		tables:    "SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = $1",
		exclusive: "SELECT pg_advisory_xact_lock(hashtextextended('relais/schema/' || current_schema(), 0))",
		notify:    "SELECT pg_notify('" + postgresChannel + "', '')",
		listen:    func(ctx context.Context, heard func()) { listenPostgres(ctx, config, heard) },
		lock:      func(ctx context.Context, name string) (held, error) { return lockPostgres(ctx, config, name) },
	}, o)
	if err := s.migrate(ctx, migrations()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// durable sees to it that a commit is on disk when it is acknowledged, and that text is text.
func durable(ctx context.Context, c *pgx.Conn) error {
	var encoding, synchronous string
	if err := c.QueryRow(ctx, "SELECT current_setting('server_encoding'), current_setting('synchronous_commit')").Scan(&encoding, &synchronous); err != nil {
		return err
	}
	if encoding != "UTF8" {
		return fmt.Errorf("the database is in %s; create it with ENCODING 'UTF8'", encoding)
	}
	if synchronous == "off" {
		_, err := c.Exec(ctx, "SET synchronous_commit = on")
		return err
	}
	return nil
}

// lockPostgres holds an advisory lock on a connection of its own: the server ends it with the connection.
func lockPostgres(ctx context.Context, config *pgx.ConnConfig, name string) (held, error) {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return held{}, fmt.Errorf("store: lead %s: %w", name, classifyPostgres(err))
	}
	release := func() {
		end, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(end)
	}
	var mine bool
	err = conn.QueryRow(ctx, "SELECT pg_try_advisory_lock(hashtextextended('relais/leader/' || current_schema() || '/' || $1, 0))", name).Scan(&mine)
	if err == nil && mine {
		return held{conn.Ping, release}, nil
	}
	release()
	if err == nil {
		err = ErrNotLeader
	}
	return held{}, fmt.Errorf("store: lead %s: %w", name, classifyPostgres(err))
}

// listenPostgres hears of commits until ctx ends. While it hears nothing, those who wait look by themselves.
func listenPostgres(ctx context.Context, config *pgx.ConnConfig, heard func()) {
	for ctx.Err() == nil {
		if conn, err := pgx.ConnectConfig(ctx, config); err == nil {
			_, err = conn.Exec(ctx, "LISTEN "+postgresChannel)
			for err == nil {
				heard()
				_, err = conn.WaitForNotification(ctx)
			}
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			_ = conn.Close(end)
			cancel()
		}
		again := time.NewTimer(retry)
		select {
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
	}
}

// classifyPostgres goes by SQLSTATE (PostgreSQL's appendix A).
func classifyPostgres(err error) error {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		switch e.Code {
		case "53100", "53400": // disk_full, configuration_limit_exceeded
			return fmt.Errorf("%w: %w", ErrFull, err)
		case "55P03", "57014", "40001", "40P01", "53300": // lock_not_available, query_canceled, serialization_failure, deadlock_detected, too_many_connections
			return fmt.Errorf("%w: %w", ErrBusy, err)
		case "57P01", "57P02", "57P03", "25P03", "25P04", "25006": // shutdowns, timeouts of a session, read only
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		case "XX001", "XX002": // data_corrupted, index_corrupted
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return err
	}
	var connect *pgconn.ConnectError
	var network net.Error
	switch {
	case errors.Is(err, sql.ErrTxDone):
		return fmt.Errorf("%w: the change took too long: %w", ErrBusy, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &connect), errors.As(err, &network), errors.Is(err, driver.ErrBadConn),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), pgconn.SafeToRetry(err):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}
