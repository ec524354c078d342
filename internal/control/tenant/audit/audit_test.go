package audit_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant/audit"
)

func fresh(t *testing.T) (*store.Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "relais.db")
	s, err := store.OpenSQLite(t.Context(), path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, path
}

func update(t *testing.T, s *store.Store, fn func(tx *store.Tx) error) {
	t.Helper()
	if _, err := s.Update(t.Context(), store.Change{Author: "ann"}, fn); err != nil {
		t.Fatal(err)
	}
}

func fill(t *testing.T, s *store.Store, n int) {
	t.Helper()
	for ; n > 100; n -= 100 { // a change has a bound of time, and the machine may be busy
		fill(t, s, 100)
	}
	update(t, s, func(tx *store.Tx) error {
		for i := range n {
			for _, org := range []string{"acme", "zeta"} {
				_, err := audit.Append(t.Context(), tx, audit.Entry{
					Organization: org, Actor: "ann@acme", Action: "site.put", Target: fmt.Sprint("shop", i), Reason: "é <&>\u2028", Details: json.RawMessage(`{ "a" : [1, 2.50] }`),
				})
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// raw changes the database behind the log's back.
func raw(t *testing.T, path, statement string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	r, err := db.ExecContext(context.Background(), statement, args...)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		t.Fatalf("%s changed nothing", statement)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestALogThatWasNotTouchedIsWhole(t *testing.T) {
	s, _ := fresh(t)
	if a, err := audit.Verify(t.Context(), s, "acme"); err != nil || a != (audit.Anchor{}) {
		t.Errorf("an empty log: %+v, %v", a, err)
	}
	fill(t, s, 3)
	noted, err := audit.Verify(t.Context(), s, "acme")
	if err != nil || noted.Seq != 3 || len(noted.Hash) != 64 {
		t.Fatalf("%+v, %v", noted, err)
	}
	fill(t, s, 1000) // more than a page
	last, err := audit.Verify(t.Context(), s, "acme", noted)
	if err != nil || last.Seq != 1003 {
		t.Errorf("%+v, %v", last, err)
	}
}

func TestTheFirstBreakIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(t *testing.T, path string)
		at   int64
		why  string
	}{
		"actor": {func(t *testing.T, p string) {
			raw(t, p, `UPDATE entries SET body = CAST(replace(CAST(body AS TEXT), 'ann@acme', 'bob@acme') AS BLOB) WHERE organization = 'acme' AND seq = 4`)
		}, 4, "changed"},
		"details": {func(t *testing.T, p string) {
			raw(t, p, `UPDATE entries SET body = CAST(replace(CAST(body AS TEXT), '2.50', '2.5') AS BLOB) WHERE organization = 'acme' AND seq = 5`)
		}, 5, "changed"},
		"a missing one": {func(t *testing.T, p string) {
			raw(t, p, `DELETE FROM entries WHERE organization = 'acme' AND seq = 6`)
		}, 6, "missing"},
		"missing, and numbered anew": {func(t *testing.T, p string) {
			raw(t, p, `DELETE FROM entries WHERE organization = 'acme' AND seq = 10`)
			raw(t, p, `UPDATE entries SET seq = 10 WHERE organization = 'acme' AND seq = 9`)
			raw(t, p, `UPDATE entries SET seq = 9 WHERE organization = 'acme' AND seq = 8`)
		}, 9, "entry 8"},
		"two that changed places": {func(t *testing.T, p string) {
			raw(t, p, `UPDATE entries SET seq = CASE seq WHEN 2 THEN 1003 ELSE 1002 END WHERE organization = 'acme' AND seq IN (2, 3)`)
			raw(t, p, `UPDATE entries SET seq = seq - 1000 WHERE organization = 'acme' AND seq > 1000`)
		}, 2, "entry 3"},
		"another organization's": {func(t *testing.T, p string) {
			raw(t, p, `UPDATE entries SET body = (SELECT body FROM entries AS z WHERE z.organization = 'zeta' AND z.seq = 7) WHERE organization = 'acme' AND seq = 7`)
		}, 7, "of zeta"},
		"the first": {func(t *testing.T, p string) {
			raw(t, p, `DELETE FROM entries WHERE organization = 'acme' AND seq = 1`)
		}, 1, "no entry says"},
		"the last, which was noted": {func(t *testing.T, p string) {
			raw(t, p, `DELETE FROM entries WHERE organization = 'acme' AND seq >= 9`)
		}, 9, "was noted"},
		"no JSON": {func(t *testing.T, p string) {
			raw(t, p, `UPDATE entries SET body = x'00' WHERE organization = 'acme' AND seq = 2`)
		}, 2, "JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, path := fresh(t)
			fill(t, s, 10)
			noted, err := audit.Verify(t.Context(), s, "acme")
			if err != nil {
				t.Fatal(err)
			}
			c.harm(t, path)
			_, err = audit.Verify(t.Context(), s, "acme", noted)
			var b *audit.BreakError
			if !errors.As(err, &b) || b.Seq != c.at || !strings.Contains(b.Why, c.why) {
				t.Errorf("%v, not %q at %d", err, c.why, c.at)
			}
			if _, err := audit.Verify(t.Context(), s, "zeta"); err != nil {
				t.Errorf("another organization's log: %v", err)
			}
		})
	}
}

// A whole chain that was written anew hangs together, and is not the one that was noted.
func TestAChainWrittenAnewIsNotTheOneThatWasNoted(t *testing.T) {
	a, _ := fresh(t)
	b, _ := fresh(t)
	fill(t, a, 5)
	fill(t, b, 6)
	noted, err := audit.Verify(t.Context(), a, "acme")
	if err != nil {
		t.Fatal(err)
	}
	var e *audit.BreakError
	if _, err := audit.Verify(t.Context(), b, "acme", noted); !errors.As(err, &e) || e.Seq != 5 {
		t.Error(err)
	}
}

func TestATrimmedLogSaysSo(t *testing.T) {
	s, path := fresh(t)
	fill(t, s, 10)
	for _, before := range []int64{4, 8} {
		update(t, s, func(tx *store.Tx) error { return audit.Trim(t.Context(), tx, "acme", "ann@acme", before) })
		if last, err := audit.Verify(t.Context(), s, "acme"); err != nil {
			t.Fatal(last, err)
		}
	}
	err := s.View(t.Context(), func(r *store.Reader) error {
		list, err := audit.Entries(t.Context(), r, "acme", 0, 0)
		if len(list) != 5 || list[0].Seq != 8 || list[4].Action != "audit.trim" {
			t.Errorf("%+v", list)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	raw(t, path, `DELETE FROM entries WHERE organization = 'acme' AND seq = 8`)
	var b *audit.BreakError
	if _, err := audit.Verify(t.Context(), s, "acme"); !errors.As(err, &b) || b.Seq != 8 {
		t.Error(err)
	}
	_, err = s.Update(t.Context(), store.Change{Author: "ann"}, func(tx *store.Tx) error { return audit.Trim(t.Context(), tx, "acme", "ann", 99) })
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("trimmed past the end: %v", err)
	}
}

func TestAnEntryIsOfItsChange(t *testing.T) {
	s, _ := fresh(t)
	_, err := s.Update(t.Context(), store.Change{Author: "ann"}, func(tx *store.Tx) error {
		_, err := audit.Append(t.Context(), tx, audit.Entry{Organization: "acme", Actor: "ann", Action: "x"})
		return errors.Join(err, context.Canceled)
	})
	if err == nil {
		t.Fatal("it was made")
	}
	if a, err := audit.Verify(t.Context(), s, "acme"); err != nil || a.Seq != 0 {
		t.Errorf("an entry of a change that was not made: %+v, %v", a, err)
	}
}

func TestAnErasedLogIsStillAChain(t *testing.T) {
	s, path := fresh(t)
	fill(t, s, 5)
	noted, err := audit.Verify(t.Context(), s, "acme")
	if err != nil {
		t.Fatal(err)
	}
	erase := func() {
		t.Helper()
		var upTo int64
		update(t, s, func(tx *store.Tx) (err error) {
			upTo, err = audit.Erase(t.Context(), tx, "acme", "root@op")
			return err
		})
		for after := int64(0); after < upTo; {
			update(t, s, func(tx *store.Tx) (err error) {
				after, err = audit.EraseUpTo(t.Context(), tx, "acme", after, upTo)
				return err
			})
		}
	}
	erase()
	if last, err := audit.Verify(t.Context(), s, "acme", noted); err != nil || last.Seq != 6 {
		t.Errorf("%+v, %v", last, err)
	}
	erase() // once more, with the entry that told of the first time
	fill(t, s, 1)
	last, err := audit.Verify(t.Context(), s, "acme", noted)
	if err != nil || last.Seq != 8 {
		t.Errorf("%+v, %v", last, err)
	}
	err = s.View(t.Context(), func(r *store.Reader) error {
		raw, err := r.Entries(t.Context(), "acme", "audit", 0, 0)
		for _, e := range raw[:6] {
			if strings.Contains(string(e.Body), "ann") || strings.Contains(string(e.Body), "shop") || strings.Contains(string(e.Body), "2.50") {
				t.Errorf("%s is left", e.Body)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		statement string
		at        int64
	}{
		"one that was replaced":      {`UPDATE entries SET body = CAST(replace(CAST(body AS TEXT), '"hash":"', '"hash":"0') AS BLOB) WHERE organization = 'acme' AND seq = 3`, 4},
		"one that speaks again":      {`UPDATE entries SET body = CAST(replace(CAST(body AS TEXT), '"actor":""', '"actor":"bob"') AS BLOB) WHERE organization = 'acme' AND seq = 2`, 2},
		"one that no entry tells of": {`UPDATE entries SET body = CAST(replace(replace(CAST(body AS TEXT), 'ann@acme', ''), 'site.put', '') AS BLOB) WHERE organization = 'acme' AND seq = 8`, 8},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := s.Backup(t.Context(), &b); err != nil {
				t.Fatal(err)
			}
			again, at := fresh(t)
			if err := again.Restore(t.Context(), &b); err != nil {
				t.Fatal(err)
			}
			raw(t, at, c.statement)
			var broken *audit.BreakError
			if _, err := audit.Verify(t.Context(), again, "acme", noted); !errors.As(err, &broken) || broken.Seq != c.at {
				t.Errorf("%v, not broken at %d", err, c.at)
			}
		})
	}
	// Nobody erases the newest entry by saying that it is.
	raw(t, path, `UPDATE entries SET body = CAST(replace(replace(replace(replace(CAST(body AS TEXT), 'ann@acme', ''), 'site.put', ''), 'shop0', ''), '}', ',"erased":true}') AS BLOB) WHERE organization = 'zeta' AND seq = 6`)
	if _, err := audit.Verify(t.Context(), s, "zeta"); err == nil {
		t.Error("the newest entry was erased and nothing says so")
	}
}
