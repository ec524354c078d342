package storetest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/control/store"
)

// Populate writes something of every sort.
func Populate(t *testing.T, s *store.Store) {
	t.Helper()
	ctx := t.Context()
	if err := s.Subscribe(ctx, "pop"); err != nil {
		t.Fatal(err)
	}
	l, err := s.TryLead(ctx, "rollout", "a")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for i := range 5 {
		_, err := s.Update(ctx, store.Change{Author: "ann", Reason: "line\u2028é 日本"}, func(tx *store.Tx) error {
			_, err := tx.Put(ctx, site(fmt.Sprint("s", i%3)), fmt.Appendf(nil, `{"n":%d,"text":"\"\\é日本"}`, i), store.Any)
			_, err2 := tx.Put(ctx, key("zeta", "p", "Pool", "x"), fmt.Appendf(nil, `{"n":%d}`, i), store.Any)
			_, err3 := tx.Append(ctx, "acme", "audit", []byte(`{"e":1}`))
			return errors.Join(err, err2, err3, tx.Emit(ctx, "purge", "acme", []byte(`{"p":1}`)))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Update(ctx, by("ann"), func(tx *store.Tx) error { return tx.Delete(ctx, site("s1"), store.Any) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Acknowledge(ctx, "pop", 4); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
}

// CheckRestore proves that a backup of from, restored into the empty store to, gives the same store.
func CheckRestore(t *testing.T, from, to *store.Store) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "backup")
	if err := from.BackupFile(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup is for more eyes than its owner's: %v, %v", info, err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := to.Restore(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if a, b := dump(t, from), dump(t, to); a != b {
		t.Errorf("what was restored differs:\n%s\n%s", a, b)
	}
	// It goes on as the first would.
	if a, b := put(t, from, site("on"), `{}`, store.Absent), put(t, to, site("on"), `{}`, store.Absent); a.Position != b.Position || a.Revisions["acme"] != b.Revisions["acme"] {
		t.Errorf("they go on with %+v and %+v", a, b)
	}
	if list, err := to.Messages(t.Context(), "pop", 0); err != nil || len(list) == 0 || list[0].ID != 5 {
		t.Errorf("the consumer goes on with %+v, %v", list, err)
	}
	if l, err := to.TryLead(t.Context(), "rollout", "b"); err != nil || l.Term() != 2 {
		t.Errorf("terms do not go on: %v", err)
	}
}

func testBackup(t *testing.T, f Fixture) {
	s := open(t, f, store.Options{})
	Populate(t, s)
	var b bytes.Buffer
	if err := s.Backup(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(t.Context(), &b); !errors.Is(err, store.ErrNotEmpty) {
		t.Errorf("restored over what is there: %v", err)
	}
}

func unzip(t *testing.T, b []byte) string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func same(b []byte, text string) bool {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return false
	}
	got, err := io.ReadAll(z)
	return err == nil && string(got) == text
}

func zip(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A backup that is not as it was written restores nothing.
func testDamagedBackup(t *testing.T, f Fixture) {
	s := open(t, f, store.Options{})
	empty := dump(t, s)
	good := backupOfSmall(t)
	text := unzip(t, good)
	lines := strings.SplitAfter(text, "\n")
	newer := strings.Replace(text, `"schema":`, `"schema":9`, 1)
	for name, b := range map[string][]byte{
		"nothing":         nil,
		"no gzip":         []byte("nonsense"),
		"cut":             good[:len(good)/2],
		"without its end": zip(t, strings.Join(lines[:len(lines)-2], "")),
		"a row less":      zip(t, strings.Join(lines[:3], "")+strings.Join(lines[4:], "")),
		"a digit more":    zip(t, strings.Replace(text, `[1,`, `[11,`, 1)),
		"other table":     zip(t, strings.Replace(text, `"table":"documents"`, `"table":"doc; DROP TABLE head"`, 1)),
		"other column":    zip(t, strings.Replace(text, `"columns":["organization"`, `"columns":["1); --"`, 1)),
		"more after it":   zip(t, text+"{}\n"),
		"other file":      zip(t, `{"relais":"other"}`+"\n"),
		"empty line":      zip(t, lines[0]+"\n"+strings.Join(lines[1:], "")),
	} {
		if err := s.Restore(t.Context(), bytes.NewReader(b)); !errors.Is(err, store.ErrBackup) {
			t.Errorf("%s: %v", name, err)
		}
		if dump(t, s) != empty {
			t.Fatalf("%s: it left something", name)
		}
	}
	var v *store.VersionError
	if err := s.Restore(t.Context(), bytes.NewReader(zip(t, newer))); !errors.As(err, &v) {
		t.Errorf("a newer program's: %v", err)
	}
	for range 30 { // any byte
		b := bytes.Clone(good)
		i := 10 + rand.IntN(len(b)-10) // the head of gzip holds nothing of ours
		b[i] ^= 1 << rand.IntN(8)
		if same(b, text) { // a bit that fills up the last byte of the packed part
			continue
		}
		if err := s.Restore(t.Context(), bytes.NewReader(b)); err == nil {
			t.Fatalf("byte %d of %d is another, and it was restored", i, len(b))
		}
		if dump(t, s) != empty {
			t.Fatalf("byte %d is another, and something is left", i)
		}
	}
	if err := s.Restore(t.Context(), bytes.NewReader(good)); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func backupOfSmall(t *testing.T) []byte {
	t.Helper()
	s, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "small.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put(t, s, site("a"), `{}`, store.Absent)
	put(t, s, site("b"), `{}`, store.Absent)
	var b bytes.Buffer
	if err := s.Backup(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
