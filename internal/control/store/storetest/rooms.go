package storetest

import (
	"bytes"
	"database/sql"
	"errors"
	"testing"

	"github.com/relais-edge/relais/internal/control/store"
)

// books is another room's schema, in so many versions.
func books(versions int) store.Schema {
	x := store.Schema{
		Name: "books",
		Steps: [][]string{
			{"CREATE TABLE books_sums (name {text} PRIMARY KEY, sum BIGINT NOT NULL, note {bytes})"},
			{"ALTER TABLE books_sums ADD COLUMN more BIGINT NOT NULL DEFAULT 7"},
		}[:versions],
		Tables: []store.Table{{Name: "books_sums", Columns: []string{"name", "sum", "note"}, Types: "tib", Key: "name"}},
	}
	if versions > 1 {
		x.Tables[0].Columns, x.Tables[0].Types = append(x.Tables[0].Columns, "more"), "tibi"
	}
	return x
}

func addTo(t *testing.T, s *store.Store, name string, n int64, fail error) store.Commit {
	t.Helper()
	c, err := s.Update(t.Context(), by("meter"), func(tx *store.Tx) error {
		_, err := tx.Exec(t.Context(), "add", `INSERT INTO books_sums (name, sum, note) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET sum = books_sums.sum + excluded.sum`, name, n, []byte{0, 1})
		return errors.Join(err, fail)
	})
	if !errors.Is(err, fail) {
		t.Fatal(err)
	}
	return c
}

func sumOf(t *testing.T, s *store.Store, column, name string) int64 {
	t.Helper()
	var list []int64
	err := s.View(t.Context(), func(r *store.Reader) (err error) {
		list, err = store.Rows(t.Context(), r, "read", func(rows *sql.Rows) (n int64, err error) {
			return n, rows.Scan(&n)
		}, "SELECT "+column+" FROM books_sums WHERE name = $1", name)
		return err
	})
	if err != nil || len(list) > 1 {
		t.Fatal(list, err)
	}
	if len(list) == 0 {
		return 0
	}
	return list[0]
}

// testRooms: another room's tables are in the same transactions, migrations and backups.
func testRooms(t *testing.T, f Fixture) {
	one, two := store.Options{Schemas: []store.Schema{books(1)}}, store.Options{Schemas: []store.Schema{books(2)}}
	plain := open(t, f, store.Options{})
	put(t, plain, site("a"), `{}`, store.Any)
	s := open(t, f, one)
	before := position(t, s)
	if c := addTo(t, s, "a", 3, nil); c.Position != 0 {
		t.Errorf("it has a position: %+v", c)
	}
	addTo(t, s, "a", 4, nil)
	addTo(t, s, "a", 100, errors.New("no"))
	if n := sumOf(t, s, "sum", "a"); n != 7 || position(t, s) != before {
		t.Errorf("%d", n)
	}
	var lost bytes.Buffer
	if err := plain.Backup(t.Context(), &lost); !errors.Is(err, store.ErrBackup) {
		t.Errorf("a backup without tables that there are: %v", err)
	}
	var first bytes.Buffer
	if err := s.Backup(t.Context(), &first); err != nil {
		t.Fatal(err)
	}
	newer := open(t, f, two)
	if n := sumOf(t, newer, "more", "a"); n != 7 {
		t.Errorf("%d after the migration", n)
	}
	var v *store.VersionError
	if _, err := f.Open(one); !errors.As(err, &v) {
		t.Errorf("an older program opens it: %v", err)
	}
	if err := newer.Restore(t.Context(), bytes.NewReader(first.Bytes())); !errors.Is(err, store.ErrNotEmpty) {
		t.Errorf("restored over what is there: %v", err)
	}
	for _, bad := range []store.Schema{{Name: "Books"}, {Name: "schema"}, {Name: "x", Tables: []store.Table{{Name: "documents"}}}} {
		if _, err := f.Open(store.Options{Schemas: []store.Schema{bad}}); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// testRoomsRestored: an older backup of a room's tables comes into a new database.
func testRoomsRestored(t *testing.T, f Fixture) {
	one, two := store.Options{Schemas: []store.Schema{books(1)}}, store.Options{Schemas: []store.Schema{books(2)}}
	s := open(t, f, one)
	put(t, s, site("a"), `{}`, store.Any)
	addTo(t, s, "a", 3, nil)
	var backup bytes.Buffer
	if err := s.Backup(t.Context(), &backup); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.SQL("DELETE FROM books_sums"), f.SQL("DELETE FROM organizations"), f.SQL("UPDATE head SET position = 0, message = 0")); err != nil {
		t.Fatal(err)
	}
	next := open(t, f, two)
	addTo(t, next, "b", 1, nil)
	if err := next.Restore(t.Context(), bytes.NewReader(backup.Bytes())); !errors.Is(err, store.ErrNotEmpty) {
		t.Errorf("restored over a room's tables: %v", err)
	}
	if err := f.SQL("DELETE FROM books_sums"); err != nil {
		t.Fatal(err)
	}
	if err := next.Restore(t.Context(), bytes.NewReader(backup.Bytes())); err != nil {
		t.Fatal(err)
	}
	if n, m := sumOf(t, next, "sum", "a"), sumOf(t, next, "more", "a"); n != 3 || m != 7 {
		t.Errorf("%d, %d", n, m)
	}
	addTo(t, next, "a", 1, nil)
}

func position(t *testing.T, s *store.Store) (n int64) {
	t.Helper()
	err := s.View(t.Context(), func(r *store.Reader) (err error) {
		n, err = r.Position(t.Context())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
