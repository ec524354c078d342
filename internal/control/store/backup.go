package store

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// backupFormat is the version of the file's form, apart from that of the schema.
const backupFormat = 1

// Table is how a table stands in a backup: columns, what each is (i integer, t text, b bytes), and its primary key, by
// which it is ordered.
type Table struct {
	Name    string   `json:"table"`
	Columns []string `json:"columns"`
	Types   string   `json:"types"`
	Key     string   `json:"-"`
}

// tables are those of the newest schema, the rooms' last.
func (s *Store) tables() []Table {
	list := ownTables()
	for _, x := range s.schemas {
		list = append(list, x.Tables...)
	}
	return list
}

// ownTables leave out what is kept for a while: who restores ends sessions and lets nobody finish a login that began before.
func ownTables() []Table {
	words := strings.Fields
	return []Table{
		{"head", words("one position message"), "iii", "one"},
		{"organizations", words("organization revision documents bytes pruned"), "tiiii", "organization"},
		{"documents", words("organization project kind name revision created updated body"), "ttttiiib", "organization, project, kind, name"},
		{"revisions", words("organization number position time author reason changes"), "tiiitti", "organization, number"},
		{"changes", words("organization number project kind name former body"), "titttib", "organization, number, project, kind, name"},
		{"outbox", words("id position topic organization revision time payload"), "iittiib", "id"},
		{"consumers", words("consumer acknowledged time"), "tii", "consumer"},
		{"entries", words("organization log seq time body"), "ttiib", "organization, log, seq"},
		{"leaders", words("name term holder since"), "titi", "name"},
	}
}

type backupHead struct {
	Relais   string    `json:"relais"` // "backup"
	Format   int       `json:"format"`
	Schema   int       `json:"schema"`
	Position int64     `json:"position"`
	Time     time.Time `json:"time"`
	// Rooms are the versions of the schemas whose tables are in it, too.
	Rooms map[string]int `json:"rooms,omitempty"`
}

type backupEnd struct {
	Rows   int64  `json:"rows"`
	SHA256 string `json:"sha256"` // of all lines before
}

// Backup writes the state of one moment: gzip of JSON lines, which either engine restores. Others read and write
// meanwhile.
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	return s.View(ctx, func(r *Reader) error {
		head := backupHead{Relais: "backup", Format: backupFormat, Schema: len(migrations()), Time: s.clock().UTC()}
		var err error
		if head.Position, err = r.Position(ctx); err != nil {
			return err
		}
		if head.Rooms, err = s.rooms(ctx, r.q); err != nil {
			return err
		}
		if err := s.knows(head.Rooms, "database"); err != nil {
			return err
		}
		zip := gzip.NewWriter(w)
		out := &lineWriter{w: bufio.NewWriterSize(zip, 1<<16), sum: sha256.New()}
		out.line(head)
		for _, t := range s.tables() {
			out.line(t)
			if err := r.dump(ctx, t, out); err != nil {
				return err
			}
		}
		end := backupEnd{Rows: out.rows, SHA256: hex.EncodeToString(out.sum.Sum(nil))}
		out.line(end)
		if err := errors.Join(out.err, out.w.Flush(), zip.Close()); err != nil {
			return fmt.Errorf("store: write the backup: %w", err)
		}
		return nil
	})
}

// BackupFile writes a backup that is there whole or not at all, readable by this user alone.
func (s *Store) BackupFile(ctx context.Context, path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".backup-*")
	if err != nil {
		return fmt.Errorf("store: write the backup: %w", err)
	}
	defer os.Remove(f.Name())
	err = s.Backup(ctx, f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("store: write the backup: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("store: write the backup: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

type lineWriter struct {
	w    *bufio.Writer
	sum  hash.Hash
	rows int64
	err  error
}

func (l *lineWriter) line(v any) {
	b, err := json.Marshal(v)
	b = append(b, '\n')
	if l.err == nil {
		l.err = err
	}
	if l.err != nil {
		return
	}
	_, _ = l.sum.Write(b)
	_, l.err = l.w.Write(b)
}

func (r *Reader) dump(ctx context.Context, t Table, out *lineWriter) error {
	rows, err := r.q.QueryContext(ctx, "SELECT "+strings.Join(t.Columns, ", ")+" FROM "+t.Name+" ORDER BY "+t.Key)
	if err != nil {
		return r.store.fail(ctx, "read "+t.Name, err)
	}
	defer rows.Close()
	for rows.Next() {
		row := t.row()
		if err := rows.Scan(row...); err != nil {
			return r.store.fail(ctx, "read "+t.Name, err)
		}
		out.rows++
		if out.line(row); out.err != nil {
			return fmt.Errorf("store: write the backup: %w", out.err)
		}
	}
	return r.store.fail(ctx, "read "+t.Name, rows.Err())
}

func (t Table) wellFormed() bool {
	return len(t.Columns) == len(t.Types) && strings.Trim(t.Types, "itb") == "" && !slices.ContainsFunc(t.Columns, func(c string) bool {
		return c == "" || strings.Trim(c, "abcdefghijklmnopqrstuvwxyz_") != ""
	})
}

// row holds the places of a row's values, in their types.
func (t Table) row() []any {
	row := make([]any, len(t.Types))
	for i, c := range t.Types {
		switch c {
		case 'i':
			row[i] = new(int64)
		case 't':
			row[i] = new(string)
		default:
			row[i] = new([]byte)
		}
	}
	return row
}

// Restore reads a backup into an empty store, whole or not at all. A backup of an older schema is brought up to date.
func (s *Store) Restore(ctx context.Context, from io.Reader) error {
	if err := s.takeTurn(ctx); err != nil {
		return err
	}
	defer func() { <-s.turn }()
	zip, err := gzip.NewReader(from)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBackup, err)
	}
	in := &lineReader{lines: bufio.NewScanner(zip), sum: sha256.New()}
	in.lines.Buffer(nil, int(2*s.limits.DocumentBytes)+1<<20)
	var head backupHead
	if err := in.read(&head); err != nil {
		return err
	}
	switch {
	case head.Relais != "backup" || head.Format < 1 || head.Schema < 1:
		return fmt.Errorf("%w: it is no backup of Relais", ErrBackup)
	case head.Format > backupFormat:
		return &VersionError{"backup's form", head.Format, backupFormat}
	case head.Schema > len(migrations()):
		return &VersionError{"backup", head.Schema, len(migrations())}
	}
	if err := s.knows(head.Rooms, "backup"); err != nil {
		return err
	}
	tx, err := s.engine.writes.BeginTx(ctx, nil)
	if err != nil {
		return s.fail(ctx, "begin to restore", err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing after a commit
	if err := s.restore(ctx, tx, head, in); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return s.commitFailed(ctx, err)
	}
	s.broadcast()
	return nil
}

func (s *Store) restore(ctx context.Context, tx *sql.Tx, head backupHead, in *lineReader) error {
	if _, err := s.version(ctx, tx); err != nil { // takes the lock
		return err
	}
	var used int64
	if err := tx.QueryRowContext(ctx, "SELECT position + message + (SELECT count(*) FROM organizations) FROM head"+s.engine.forUpdate).Scan(&used); err != nil {
		return s.fail(ctx, "look whether the store is empty", err)
	}
	for _, x := range s.schemas {
		for _, t := range x.Tables {
			var n int64
			if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM "+t.Name).Scan(&n); err != nil {
				return s.fail(ctx, "look whether the store is empty", err)
			}
			used += n
		}
	}
	if used != 0 {
		return ErrNotEmpty
	}
	// Its tables are made as they were when it was written, and brought up to date with what is in them.
	drop := append([]string{"schema_version", "ephemera"}, s.names()...)
	if len(s.schemas) > 0 {
		drop = append(drop, "room_versions")
	}
	for _, name := range drop {
		if _, err := tx.ExecContext(ctx, "DROP TABLE "+name); err != nil {
			return s.fail(ctx, "restore", err)
		}
	}
	if err := s.apply(ctx, tx, 0, migrations()[:head.Schema]); err != nil {
		return err
	}
	for name, v := range head.Rooms {
		x, _ := s.schema(name)
		if err := s.applyRoom(ctx, tx, x, 0, v); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM head"); err != nil {
		return s.fail(ctx, "restore", err)
	}
	if err := s.load(ctx, tx, in); err != nil {
		return err
	}
	if head.Schema < len(migrations()) {
		if err := s.apply(ctx, tx, head.Schema, migrations()); err != nil {
			return err
		}
	}
	_, err := s.migrateRooms(ctx, tx)
	return err
}

// knows says whether this store was opened with all schemas that there are.
func (s *Store) knows(rooms map[string]int, what string) error {
	for name, v := range rooms {
		x, ok := s.schema(name)
		if !ok {
			return fmt.Errorf("%w: the %s has tables of %s, which this store was opened without", ErrBackup, what, name)
		}
		if v > len(x.Steps) {
			return &VersionError{what + "'s part " + name, v, len(x.Steps)}
		}
	}
	return nil
}

func (s *Store) names() (list []string) {
	for _, t := range s.tables() {
		list = append(list, t.Name)
	}
	return list
}

// load inserts the rows of all tables up to the end of the backup.
func (s *Store) load(ctx context.Context, tx *sql.Tx, in *lineReader) error {
	var insert *sql.Stmt
	defer func() {
		if insert != nil {
			_ = insert.Close()
		}
	}()
	var now Table
	for rows := int64(0); ; {
		sum := hex.EncodeToString(in.sum.Sum(nil))
		line, err := in.next()
		if err != nil {
			return err
		}
		var t Table
		var end backupEnd
		switch {
		case line[0] == '[':
			rows++
			if err := s.loadRow(ctx, insert, now, line); err != nil {
				return err
			}
		case json.Unmarshal(line, &t) == nil && t.Name != "":
			if insert, err = s.loadTable(ctx, tx, insert, t); err != nil {
				return err
			}
			now = t
		case json.Unmarshal(line, &end) == nil && end.SHA256 == sum && end.Rows == rows:
			if in.lines.Scan() || in.lines.Err() != nil {
				return fmt.Errorf("%w: there is more after its end", ErrBackup)
			}
			return nil
		default:
			return fmt.Errorf("%w: its checksum is wrong", ErrBackup)
		}
	}
}

func (s *Store) loadTable(ctx context.Context, tx *sql.Tx, former *sql.Stmt, t Table) (*sql.Stmt, error) {
	if former != nil {
		if err := former.Close(); err != nil {
			return nil, s.fail(ctx, "restore", err)
		}
	}
	marks := make([]string, len(t.Columns))
	for i := range t.Columns {
		marks[i] = fmt.Sprintf("$%d", i+1)
	}
	if !slices.Contains(s.names(), t.Name) || !t.wellFormed() {
		return nil, fmt.Errorf("%w: it has a table %q that is not known", ErrBackup, t.Name)
	}
	insert, err := tx.PrepareContext(ctx, "INSERT INTO "+t.Name+" ("+strings.Join(t.Columns, ", ")+") VALUES ("+strings.Join(marks, ", ")+")")
	return insert, s.fail(ctx, "restore "+t.Name, err)
}

func (s *Store) loadRow(ctx context.Context, insert *sql.Stmt, t Table, line []byte) error {
	row := t.row()
	places := slices.Clone(row)
	if err := json.Unmarshal(line, &places); err != nil || len(places) != len(row) || insert == nil {
		return fmt.Errorf("%w: a row of %q is not well formed", ErrBackup, t.Name)
	}
	for i, v := range row {
		switch v := v.(type) {
		case *int64:
			row[i] = *v
		case *string:
			row[i] = *v
		case *[]byte:
			row[i] = orNull(*v)
		}
	}
	_, err := insert.ExecContext(ctx, row...)
	return s.fail(ctx, "restore "+t.Name, err)
}

type lineReader struct {
	lines *bufio.Scanner
	sum   hash.Hash
}

// next gives a line, valid until the next call.
func (l *lineReader) next() ([]byte, error) {
	if !l.lines.Scan() {
		return nil, errors.Join(fmt.Errorf("%w: it ends too early", ErrBackup), l.lines.Err())
	}
	line := l.lines.Bytes()
	_, _ = l.sum.Write(line)
	_, _ = l.sum.Write([]byte{'\n'})
	if len(line) == 0 {
		return nil, fmt.Errorf("%w: it has an empty line", ErrBackup)
	}
	return line, nil
}

func (l *lineReader) read(v any) error {
	line, err := l.next()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("%w: %w", ErrBackup, err)
	}
	return nil
}
