package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// migrations bring a database from version to version; the first is version 1. What was released is never changed.
// {text} and {bytes} are the engine's types: texts compare byte by byte in both.
func migrations() [][]string {
	return [][]string{{
		"CREATE TABLE head (one BIGINT PRIMARY KEY, position BIGINT NOT NULL, message BIGINT NOT NULL)",
		"INSERT INTO head (one, position, message) VALUES (1, 0, 0)",
		`CREATE TABLE organizations (organization {text} PRIMARY KEY, revision BIGINT NOT NULL, documents BIGINT NOT NULL,
bytes BIGINT NOT NULL, pruned BIGINT NOT NULL)`,
		`CREATE TABLE documents (organization {text} NOT NULL, project {text} NOT NULL, kind {text} NOT NULL, name {text} NOT NULL,
revision BIGINT NOT NULL, created BIGINT NOT NULL, updated BIGINT NOT NULL, body {bytes} NOT NULL,
PRIMARY KEY (organization, project, kind, name))`,
		"CREATE INDEX documents_kind ON documents (kind, organization, project, name)",
		`CREATE TABLE revisions (organization {text} NOT NULL, number BIGINT NOT NULL, position BIGINT NOT NULL, time BIGINT NOT NULL,
author {text} NOT NULL, reason {text} NOT NULL, changes BIGINT NOT NULL, PRIMARY KEY (organization, number))`,
		"CREATE UNIQUE INDEX revisions_position ON revisions (position, organization)",
		`CREATE TABLE changes (organization {text} NOT NULL, number BIGINT NOT NULL, project {text} NOT NULL, kind {text} NOT NULL,
name {text} NOT NULL, former BIGINT NOT NULL, body {bytes}, PRIMARY KEY (organization, number, project, kind, name))`,
		"CREATE INDEX changes_key ON changes (organization, project, kind, name, number)",
		`CREATE TABLE outbox (id BIGINT PRIMARY KEY, position BIGINT NOT NULL, topic {text} NOT NULL, organization {text} NOT NULL,
revision BIGINT NOT NULL, time BIGINT NOT NULL, payload {bytes})`,
		"CREATE TABLE consumers (consumer {text} PRIMARY KEY, acknowledged BIGINT NOT NULL, time BIGINT NOT NULL)",
		`CREATE TABLE entries (organization {text} NOT NULL, log {text} NOT NULL, seq BIGINT NOT NULL, time BIGINT NOT NULL,
body {bytes} NOT NULL, PRIMARY KEY (organization, log, seq))`,
		"CREATE TABLE leaders (name {text} PRIMARY KEY, term BIGINT NOT NULL, holder {text} NOT NULL, since BIGINT NOT NULL)",
	}, {
		`CREATE TABLE ephemera (space {text} NOT NULL, name {text} NOT NULL, owner {text} NOT NULL, expires BIGINT NOT NULL, body {bytes} NOT NULL,
PRIMARY KEY (space, name))`,
		"CREATE INDEX ephemera_owner ON ephemera (owner, space, expires)",
		"CREATE INDEX ephemera_space ON ephemera (space, expires)",
		"CREATE INDEX ephemera_expires ON ephemera (expires)",
	}}
}

// migrate brings the database up to date. Several processes may do so at once: one does, the others wait.
func (s *Store) migrate(ctx context.Context, steps [][]string) error {
	for _, x := range s.schemas {
		if err := x.check(); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(s.limits.Wait)
	for {
		err := s.tryMigrate(ctx, steps)
		// SQLite does not wait for a lock while a database changes to WAL.
		if !errors.Is(err, ErrBusy) || time.Now().After(deadline) {
			return err
		}
		again := time.NewTimer(20 * time.Millisecond)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return context.Cause(ctx)
		}
	}
}

func (s *Store) tryMigrate(ctx context.Context, steps [][]string) error {
	tx, err := s.engine.writes.BeginTx(ctx, nil)
	if err != nil {
		return s.fail(ctx, "begin to migrate", err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing after a commit
	have, err := s.version(ctx, tx)
	if err != nil {
		return err
	}
	if have > len(steps) {
		return &VersionError{"database", have, len(steps)}
	}
	if have < len(steps) {
		if err := s.apply(ctx, tx, have, steps); err != nil {
			return err
		}
	}
	rooms, err := s.migrateRooms(ctx, tx)
	if err != nil || have == len(steps) && !rooms {
		return err
	}
	return s.fail(ctx, "commit the migration", tx.Commit())
}

// version reads the schema's version under the lock of all that migrate; 0 is an empty database.
func (s *Store) version(ctx context.Context, tx *sql.Tx) (v int, err error) {
	if s.engine.exclusive != "" {
		if _, err := tx.ExecContext(ctx, s.engine.exclusive); err != nil {
			return 0, s.fail(ctx, "lock the schema", err)
		}
	}
	var n int
	if err := tx.QueryRowContext(ctx, s.engine.tables, "schema_version").Scan(&n); err != nil {
		return 0, s.fail(ctx, "look for the schema", err)
	}
	if n == 0 {
		return 0, nil
	}
	err = tx.QueryRowContext(ctx, "SELECT version FROM schema_version").Scan(&v)
	return v, s.fail(ctx, "read the schema's version", err)
}

// apply makes the steps after the first have of them.
func (s *Store) apply(ctx context.Context, tx *sql.Tx, have int, steps [][]string) error {
	todo := [][]string{}
	if have == 0 {
		todo = append(todo, []string{"CREATE TABLE schema_version (version BIGINT NOT NULL)", "INSERT INTO schema_version (version) VALUES (0)"})
	}
	todo = append(todo, steps[have:]...)
	return s.run(ctx, tx, append(todo, []string{fmt.Sprintf("UPDATE schema_version SET version = %d", len(steps))}))
}

// run makes steps, with the engine's types in them.
func (s *Store) run(ctx context.Context, tx *sql.Tx, todo [][]string) error {
	pairs := []string{}
	for _, name := range slices.Sorted(maps.Keys(s.engine.types)) {
		pairs = append(pairs, name, s.engine.types[name])
	}
	types := strings.NewReplacer(pairs...)
	for _, step := range todo {
		for _, text := range step {
			if _, err := tx.ExecContext(ctx, types.Replace(text)); err != nil {
				return s.fail(ctx, "migrate", err)
			}
		}
	}
	return nil
}
