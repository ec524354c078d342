package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// Schema is the tables that another room keeps in the same database: what is too much to be documents, and has no history
// and no messages. They are migrated, backed up and restored with the store's own. A store that is opened without it
// leaves them alone, but makes no backup of a database that has them.
type Schema struct {
	Name string // of the room; its tables begin with it and an underscore
	// Steps bring the tables from version to version, with {text} and {bytes} for the engine's types. What was released
	// is never changed.
	Steps [][]string
	// Tables of the newest version, for backups.
	Tables []Table
}

func (s Schema) check() error {
	letters := "abcdefghijklmnopqrstuvwxyz"
	if s.Name == "" || strings.Trim(s.Name, letters) != "" || len(s.Name) > 32 || s.Name == "schema" || s.Name == "room" {
		return fmt.Errorf("%w: a schema is named by up to 32 lower-case letters", ErrInvalid)
	}
	for _, t := range s.Tables {
		if !strings.HasPrefix(t.Name, s.Name+"_") || strings.Trim(t.Name, letters+"_") != "" || !t.wellFormed() {
			return fmt.Errorf("%w: table %q of schema %s", ErrInvalid, t.Name, s.Name)
		}
	}
	return nil
}

// Schemas are the rooms whose tables this store keeps.
func (s *Store) schema(name string) (Schema, bool) {
	for _, x := range s.schemas {
		if x.Name == name {
			return x, true
		}
	}
	return Schema{}, false
}

// rooms gives the versions of the schemas that the database has.
func (s *Store) rooms(ctx context.Context, q querier) (map[string]int, error) {
	var n int
	if err := q.QueryRowContext(ctx, s.engine.tables, "room_versions").Scan(&n); err != nil || n == 0 {
		return nil, s.fail(ctx, "look for the rooms' schemas", err)
	}
	rows, err := q.QueryContext(ctx, "SELECT name, version FROM room_versions")
	if err != nil {
		return nil, s.fail(ctx, "read the rooms' schemas", err)
	}
	defer rows.Close()
	have := map[string]int{}
	for rows.Next() {
		var name string
		var v int
		if err := rows.Scan(&name, &v); err != nil {
			return nil, s.fail(ctx, "read the rooms' schemas", err)
		}
		have[name] = v
	}
	return have, s.fail(ctx, "read the rooms' schemas", rows.Err())
}

// migrateRooms brings the rooms' tables up to date, in the transaction that migrates the store.
func (s *Store) migrateRooms(ctx context.Context, tx *sql.Tx) (changed bool, err error) {
	if len(s.schemas) == 0 {
		return false, nil
	}
	have, err := s.rooms(ctx, tx)
	if err != nil {
		return false, err
	}
	for _, x := range s.schemas {
		v, known := have[x.Name]
		switch {
		case v > len(x.Steps):
			return false, &VersionError{"database's part " + x.Name, v, len(x.Steps)}
		case known && v == len(x.Steps):
			continue
		}
		if err := s.applyRoom(ctx, tx, x, v, len(x.Steps)); err != nil {
			return false, err
		}
		changed = true
	}
	return changed, nil
}

// applyRoom makes a schema's steps after the first have of them, up to version to.
func (s *Store) applyRoom(ctx context.Context, tx *sql.Tx, x Schema, have, to int) error {
	todo := [][]string{{"CREATE TABLE IF NOT EXISTS room_versions (name {text} PRIMARY KEY, version BIGINT NOT NULL)"}}
	todo = append(todo, x.Steps[have:to]...)
	if err := s.run(ctx, tx, todo); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO room_versions (name, version) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET version = excluded.version", x.Name, to)
	return s.fail(ctx, "migrate "+x.Name, err)
}

// Rows reads rows of a schema's tables; what says, for an error, what is read. Placeholders are $1, $2 ...
func Rows[T any](ctx context.Context, r *Reader, what string, scan func(*sql.Rows) (T, error), text string, args ...any) ([]T, error) {
	return query(ctx, r, what, scan, text, args...)
}

// Exec changes a schema's tables, in the transaction of the change: whole with it or not at all. It takes no position in the
// log, as nothing of it is a document.
func (tx *Tx) Exec(ctx context.Context, what, text string, args ...any) (affected int64, err error) {
	res, err := tx.q.ExecContext(ctx, text, args...)
	if err == nil {
		affected, err = res.RowsAffected()
	}
	return affected, tx.store.fail(ctx, what, errors.Join(err, tx.keep()))
}
