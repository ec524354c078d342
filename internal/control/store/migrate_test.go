package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestASchemaGoesFromStepToStep(t *testing.T) {
	path, ctx := filepath.Join(t.TempDir(), "relais.db"), t.Context()
	open := func() *Store {
		s, err := OpenSQLite(context.WithoutCancel(ctx), path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	_, err := s.Update(ctx, Change{Author: "ann"}, func(tx *Tx) error {
		_, err := tx.Put(ctx, Key{Organization: "acme", Kind: "Site", Name: "a"}, []byte(`{}`), Absent)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	two := append(migrations(), []string{"ALTER TABLE documents ADD COLUMN note {text} NOT NULL DEFAULT 'none'"})
	broken := append(two, []string{"ALTER TABLE documents ADD COLUMN other {text}", "nonsense"})
	if err := s.migrate(ctx, two); err != nil {
		t.Fatal(err)
	}
	if err := s.migrate(ctx, broken); err == nil {
		t.Fatal("a step that is none was made")
	}
	var note string
	var version, columns int
	err = errors.Join(
		s.engine.writes.QueryRowContext(ctx, "SELECT note FROM documents").Scan(&note),
		s.engine.writes.QueryRowContext(ctx, "SELECT version FROM schema_version").Scan(&version),
		s.engine.writes.QueryRowContext(ctx, "SELECT count(*) FROM pragma_table_info('documents') WHERE name = 'other'").Scan(&columns),
	)
	if err != nil || note != "none" || version != len(migrations())+1 || columns != 0 {
		t.Errorf("note %q, version %d, %d columns of a step that failed, %v", note, version, columns, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var v *VersionError
	if _, err := OpenSQLite(ctx, path, Options{}); !errors.As(err, &v) || v.Have != version {
		t.Errorf("an older program opens it: %v", err)
	}
}

// A file that is no database, and one in a folder that is not there, are told apart from one that is busy.
func TestWhatIsNoDatabase(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenSQLite(t.Context(), filepath.Join(dir, "none", "relais.db"), Options{}); err == nil {
		t.Error("a folder that is not there")
	}
	path := filepath.Join(dir, "text")
	if err := os.WriteFile(path, []byte("this is no database, and it is long enough to be looked at as one, which takes a hundred bytes or so of it."), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSQLite(t.Context(), path, Options{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a text: %v", err)
	}
	if _, err := OpenPostgres(t.Context(), "host="+dir+" user=x dbname=x", Options{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a server that is not there: %v", err)
	}
	if _, err := OpenPostgres(t.Context(), "nonsense", Options{}); err == nil {
		t.Error("a connection string that is none")
	}
}
