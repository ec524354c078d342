package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
)

func testRevisions(t *testing.T, f Fixture) {
	now := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	s, ctx := open(t, f, store.Options{Clock: func() time.Time { now = now.Add(time.Second); return now }}), t.Context()
	put(t, s, site("a"), `{}`, store.Absent)
	put(t, s, key("zeta", "", "Site", "a"), `{}`, store.Absent)
	c, err := s.Update(ctx, store.Change{Author: "bob", Reason: "both at once"}, func(tx *store.Tx) error {
		for _, k := range []store.Key{key("zeta", "", "Site", "b"), site("b"), site("c"), site("b")} {
			if _, err := tx.Put(ctx, k, []byte(`{}`), store.Any); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || c.Position != 3 || c.Revisions["acme"] != 2 || c.Revisions["zeta"] != 2 {
		t.Fatalf("a change of two organizations is %+v, %v", c, err)
	}
	err = s.View(ctx, func(r *store.Reader) error {
		list, next, err := r.Revisions(ctx, "acme", "", 1)
		if err != nil || len(list) != 1 || next == "" || list[0] != (store.Revision{
			Organization: "acme", Number: 2, Position: 3, Time: now, Author: "bob", Reason: "both at once", Changes: 2,
		}) {
			t.Errorf("the newest revision is %+v, %v", list, err)
		}
		list, next, err = r.Revisions(ctx, "acme", next, 1)
		if err != nil || len(list) != 1 || next != "" || list[0].Number != 1 || list[0].Author != "ann" {
			t.Errorf("the one before is %+v, %v", list, err)
		}
		var log []string
		for after := int64(0); ; {
			page, err := r.Log(ctx, after, 1)
			if err != nil {
				return err
			}
			if len(page) == 0 {
				break
			}
			for _, v := range page {
				log = append(log, fmt.Sprint(v.Position, v.Organization, v.Number))
				after = v.Position
			}
		}
		if want := []string{"1acme1", "2zeta1", "3acme2", "3zeta2"}; !slices.Equal(log, want) {
			t.Errorf("the log is %v, not %v", log, want)
		}
		changes, next, err := r.Changes(ctx, "acme", 2, "", 1)
		if err != nil || len(changes) != 1 || changes[0].Name != "b" || next == "" {
			t.Errorf("changes of revision 2: %+v, %v", changes, err)
		}
		changes, next, err = r.Changes(ctx, "acme", 2, next, 1)
		if err != nil || len(changes) != 1 || changes[0].Name != "c" || next != "" {
			t.Errorf("changes of revision 2, second page: %+v, %v", changes, err)
		}
		if _, err := r.Revision(ctx, "acme", 3); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a revision that was not made: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func testHistory(t *testing.T, f Fixture) {
	s, ctx := open(t, f, store.Options{}), t.Context()
	put(t, s, site("a"), `{"n":1,"list":[1,2]}`, store.Absent)
	put(t, s, site("b"), `{}`, store.Absent)
	put(t, s, site("a"), `{"n":2,"list":[1],"x/y":"~"}`, 1)
	if _, err := s.Update(ctx, by("ann"), func(tx *store.Tx) error { return tx.Delete(ctx, site("a"), 3) }); err != nil {
		t.Fatal(err)
	}
	err := s.View(ctx, func(r *store.Reader) error {
		list, next, err := r.History(ctx, site("a"), "", 2)
		if err != nil || len(list) != 2 || list[0].Revision != 4 || list[0].Body != nil || list[0].Former != 3 || list[1].Former != 1 {
			t.Errorf("history %+v, %v", list, err)
		}
		list, next, err = r.History(ctx, site("a"), next, 2)
		if err != nil || len(list) != 1 || list[0].Revision != 1 || list[0].Former != 0 || next != "" {
			t.Errorf("the end of the history: %+v, %v", list, err)
		}
		diff, _, err := r.Diff(ctx, "acme", 1, 3, "", 0)
		if err != nil || len(diff) != 2 || diff[1].Before != nil {
			t.Fatalf("difference %+v, %v", diff, err)
		}
		fields, err := store.DiffFields(diff[0].Before, diff[0].After)
		var text []string
		for _, c := range fields {
			text = append(text, fmt.Sprintf("%s %s %s", c.Path, c.Before, c.After))
		}
		if want := []string{"/list/1 2 ", "/n 1 2", `/x~1y  "~"`}; err != nil || !slices.Equal(text, want) {
			t.Errorf("fields %q, %v", text, err)
		}
		for n, want := range []string{"", `{"n":1,"list":[1,2]}`, `{"n":1,"list":[1,2]}`, `{"n":2,"list":[1],"x/y":"~"}`, ""} {
			d, err := r.At(ctx, site("a"), int64(n))
			if string(d.Body) != want || want == "" && !errors.Is(err, store.ErrNotFound) || want != "" && err != nil {
				t.Errorf("at %d: %s, %v", n, d.Body, err)
			}
		}
		_, err = r.At(ctx, site("a"), 5)
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a revision to come: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func testPrune(t *testing.T, f Fixture) {
	s, ctx := open(t, f, store.Options{}), t.Context()
	for i := range 6 {
		put(t, s, site("a"), fmt.Sprintf(`{"n":%d}`, i+1), store.Any) // 1 3 5 7 9 11
		put(t, s, site(fmt.Sprint("b", i)), `{}`, store.Absent)       // 2 4 6 8 10 12
	}
	if _, err := s.Update(ctx, by("ann"), func(tx *store.Tx) error { return tx.Delete(ctx, site("b0"), store.Any) }); err != nil {
		t.Fatal(err) // 13
	}
	for range 2 { // the second time changes nothing
		if err := s.Prune(ctx, by("ann"), "acme", 8); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Prune(ctx, by("ann"), "acme", 99); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("pruned what is not made yet: %v", err)
	}
	err := s.View(ctx, func(r *store.Reader) error {
		if d, err := r.At(ctx, site("a"), 8); err != nil || string(d.Body) != `{"n":4}` {
			t.Errorf("at 8: %s, %v", d.Body, err)
		}
		if d, err := r.At(ctx, site("b0"), 12); err != nil || d.Revision != 2 {
			t.Errorf("what was not deleted yet at 12: %+v, %v", d, err)
		}
		if _, err := r.At(ctx, site("a"), 7); !errors.Is(err, store.ErrPruned) {
			t.Errorf("at 7: %v", err)
		}
		if _, _, err := r.Diff(ctx, "acme", 3, 12, "", 0); !errors.Is(err, store.ErrPruned) {
			t.Errorf("difference from 3: %v", err)
		}
		if diff, _, err := r.Diff(ctx, "acme", 8, 13, "", 0); err != nil || len(diff) != 4 {
			t.Errorf("difference from 8: %+v, %v", diff, err)
		}
		if h, _, err := r.History(ctx, site("a"), "", 0); err != nil || len(h) != 3 {
			t.Errorf("history: %+v, %v", h, err)
		}
		if _, err := r.Revision(ctx, "acme", 5); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("revision 5, of which nothing is left: %v", err)
		}
		_, err := r.Revision(ctx, "acme", 2) // b0 is still as it made it
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if c := put(t, s, site("c"), `{}`, store.Absent); c.Revisions["acme"] != 14 {
		t.Errorf("revisions do not go on: %+v", c)
	}
}

// What exists all the while is in exactly one page, whatever comes and goes between pages.
func testPages(t *testing.T, f Fixture) {
	s, ctx := open(t, f, store.Options{}), t.Context()
	stays := map[string]int{}
	_, err := s.Update(ctx, by("ann"), func(tx *store.Tx) error {
		for i := range 40 {
			name := fmt.Sprintf("n%02d", i)
			if i%2 == 0 {
				stays[name] = 0
			}
			if _, err := tx.Put(ctx, site(name), []byte(`{}`), store.Absent); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	q := store.Query{Organization: "acme", Kind: "Site", Limit: 3}
	for {
		p, err := s.List(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range p.Documents {
			if _, ok := stays[d.Name]; ok {
				stays[d.Name]++
			}
		}
		if q.Cursor = p.Next; q.Cursor == "" {
			break
		}
		_, err = s.Update(ctx, by("ann"), func(tx *store.Tx) error {
			if _, err := tx.Put(ctx, site(fmt.Sprintf("n%02dx", rand.IntN(40))), []byte(`{}`), store.Any); err != nil {
				return err
			}
			return tx.Delete(ctx, site(fmt.Sprintf("n%02d", 1+2*rand.IntN(20))), store.Any)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, n := range stays {
		if n != 1 {
			t.Errorf("%s is in %d pages", name, n)
		}
	}
	p, err := s.List(ctx, store.Query{Organization: "acme", Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []store.Query{
		{Organization: "zeta", Cursor: p.Next},
		{Kind: "Site", Cursor: p.Next},
		{Organization: "acme", Cursor: "nonsense"},
		{Organization: "acme", Cursor: "!"},
		{Organization: "acme", Cursor: p.Next + "A"},
	} {
		if _, err := s.List(ctx, q); !errors.Is(err, store.ErrCursor) {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

func testBounds(t *testing.T, f Fixture) {
	s, ctx := open(t, f, store.Options{Limits: store.Limits{
		DocumentBytes: 100, Documents: 3, BatchChanges: 4, BatchBytes: 150, PayloadBytes: 20, PageItems: 2, PageBytes: 60, Consumers: 1,
	}}), t.Context()
	body := `{"a":"` + strings.Repeat("x", 40) + `"}`
	limit := func(what string, err error) {
		t.Helper()
		var l *store.LimitError
		if !errors.As(err, &l) || !strings.Contains(l.What, what) {
			t.Errorf("%v, not a bound of %s", err, what)
		}
	}
	try := func(fn func(tx *store.Tx) error) error {
		_, err := s.Update(ctx, by("ann"), fn)
		return err
	}
	_, err := tryPut(ctx, s, site("a"), `{"a":"`+strings.Repeat("x", 100)+`"}`, store.Any)
	limit("document", err)
	limit("one change", try(func(tx *store.Tx) error {
		for range 5 {
			if _, err := tx.Put(ctx, site("a"), []byte(`{}`), store.Any); err != nil {
				return err
			}
		}
		return nil
	}))
	limit("bytes of one change", try(func(tx *store.Tx) error {
		for range 4 {
			if _, err := tx.Put(ctx, site("a"), []byte(body), store.Any); err != nil {
				return err
			}
		}
		return nil
	}))
	for _, n := range []string{"a", "b", "c"} {
		put(t, s, site(n), body, store.Absent)
	}
	_, err = tryPut(ctx, s, site("d"), `{}`, store.Any)
	limit("documents of organization acme", err)
	put(t, s, site("c"), body, store.Any)
	put(t, s, key("zeta", "", "Site", "d"), `{}`, store.Any)
	if p, err := s.List(ctx, store.Query{Limit: 1000}); err != nil || len(p.Documents) != 1 || p.Next == "" {
		t.Errorf("a page of %d documents, %v: its bytes have a bound", len(p.Documents), err)
	}
	limit("payload", try(func(tx *store.Tx) error { return tx.Emit(ctx, "purge", "acme", []byte(body)) }))
	limit("entry", try(func(tx *store.Tx) error { _, err := tx.Append(ctx, "acme", "audit", []byte(body)); return err }))
	if err := s.Subscribe(ctx, "one"); err != nil {
		t.Error(err)
	}
	limit("consumers", s.Subscribe(ctx, "two"))
	for _, k := range []store.Key{
		key("", "", "Site", "a"), key("acme", "", "", "a"), key("acme", "", "Site", ""), key("acme", "", "Site", "a\x00b"),
		key("acme", "", "Site", "a\nb"), key("acme", "p\xff", "Site", "a"), key("acme", "", "Site", "a\U0010FFFF"),
	} {
		if _, err := tryPut(ctx, s, k, `{}`, store.Any); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%q: %v", k, err)
		}
	}
	_, err = tryPut(ctx, s, site(strings.Repeat("n", 254)), `{}`, store.Any)
	limit("name", err)
	for _, b := range []string{"", "{", "nonsense", "{}{}"} {
		if _, err := tryPut(ctx, s, site("a"), b, store.Any); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%q: %v", b, err)
		}
	}
	if _, err := s.Update(ctx, store.Change{}, func(*store.Tx) error { return nil }); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("a change by nobody: %v", err)
	}
	_, err = s.Update(ctx, store.Change{Author: "ann", Reason: strings.Repeat("r", 1025)}, func(*store.Tx) error { return nil })
	limit("reason", err)
}

func testLogs(t *testing.T, f Fixture) {
	s, ctx := open(t, f, store.Options{}), t.Context()
	for i := range 5 {
		c, err := s.Update(ctx, by("ann"), func(tx *store.Tx) error {
			a, err := tx.Append(ctx, "acme", "audit", fmt.Appendf(nil, `{"n":%d}`, 2*i+1))
			b, err2 := tx.Append(ctx, "acme", "audit", fmt.Appendf(nil, `{"n":%d}`, 2*i+2))
			z, err3 := tx.Append(ctx, "zeta", "audit", []byte(`{}`))
			if a != int64(2*i+1) || b != a+1 || z != int64(i+1) {
				t.Errorf("entries %d, %d, %d", a, b, z)
			}
			return errors.Join(err, err2, err3)
		})
		if err != nil || len(c.Revisions) != 0 || c.Position != int64(i+1) {
			t.Fatalf("%+v, %v: entries are no documents", c, err)
		}
	}
	_, err := s.Update(ctx, by("ann"), func(tx *store.Tx) error { return tx.TrimLog(ctx, "acme", "audit", 4) })
	if err != nil {
		t.Fatal(err)
	}
	err = s.View(ctx, func(r *store.Reader) error {
		list, err := r.Entries(ctx, "acme", "audit", 0, 3)
		if err != nil || len(list) != 3 || list[0].Seq != 4 || string(list[2].Body) != `{"n":6}` {
			t.Errorf("entries %+v, %v", list, err)
		}
		list, err = r.Entries(ctx, "acme", "audit", 9, 0)
		if err != nil || len(list) != 1 || list[0].Seq != 10 {
			t.Errorf("entries after 9: %+v, %v", list, err)
		}
		last, err := r.LastEntry(ctx, "acme", "none")
		if last.Seq != 0 {
			t.Errorf("an empty log ends with %+v", last)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	_, err = s.Update(ctx, by("ann"), func(tx *store.Tx) error {
		if err := tx.TrimLog(ctx, "zeta", "audit", 99); err != nil {
			return err
		}
		n, err := tx.Append(ctx, "zeta", "audit", []byte(`{}`))
		if n != 6 {
			t.Errorf("a log that was trimmed goes on with %d", n)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
