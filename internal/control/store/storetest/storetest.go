// Package storetest is the conformance suite of the store: what every engine has to do.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
)

// Fixture is an empty database of one test.
type Fixture struct {
	// Target is what OpenTarget of the test's program opens, for child processes.
	Target string
	// Open gives another end of the database.
	Open func(store.Options) (*store.Store, error)
	// SQL runs a statement past the store.
	SQL func(statement string) error
	// Fill makes the disk full for what is written from now on, and gives the way back.
	Fill func() (empty func(), err error)
}

// patience is how long what must come may take on a busy machine.
const patience = 2 * time.Minute

// Run proves an engine. Fresh gives an empty database.
func Run(t *testing.T, fresh func(t *testing.T) Fixture) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, f Fixture)
	}{
		{"documents", testDocuments},
		{"order", testOrder},
		{"compare and set", testCompareAndSet},
		{"writers take turns", testTurns},
		{"whole or nothing", testWhole},
		{"revisions", testRevisions},
		{"history", testHistory},
		{"prune", testPrune},
		{"model", testModel},
		{"pages", testPages},
		{"bounds", testBounds},
		{"logs", testLogs},
		{"outbox", testOutbox},
		{"outbox under writes", testOutboxUnderWrites},
		{"messages that were lost", testLost},
		{"wait", testWait},
		{"leader", testLeader},
		{"leader that was killed", testLeaderKilled},
		{"backup", testBackup},
		{"damaged backup", testDamagedBackup},
		{"rooms", testRooms},
		{"rooms restored", testRoomsRestored},
		{"backup of the first schema", testBackupOfTheFirstSchema},
		{"kept for a while", testEphemeral},
		{"taken once", testTakenOnce},
		{"erase", testErase},
		{"erase messages", testEraseMessages},
		{"newer schema", testNewer},
		{"opened by many at once", testOpenedAtOnce},
		{"cancelled", testCancelled},
		{"busy", testBusy},
		{"full disk", testFull},
		{"killed", testKilled},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, fresh(t))
		})
	}
}

func open(t *testing.T, f Fixture, o store.Options) *store.Store {
	t.Helper()
	s, err := f.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func by(author string) store.Change { return store.Change{Author: author, Reason: "a test"} }

func key(org, project, kind, name string) store.Key {
	return store.Key{Organization: org, Project: project, Kind: kind, Name: name}
}

func site(name string) store.Key { return key("acme", "", "Site", name) }

func put(t *testing.T, s *store.Store, k store.Key, body string, e store.Expect) store.Commit {
	t.Helper()
	c, err := tryPut(t.Context(), s, k, body, e)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tryPut(ctx context.Context, s *store.Store, k store.Key, body string, e store.Expect) (store.Commit, error) {
	return s.Update(ctx, by("ann"), func(tx *store.Tx) error {
		_, err := tx.Put(ctx, k, []byte(body), e)
		return err
	})
}

func all(t *testing.T, s *store.Store, q store.Query) (list []store.Document) {
	t.Helper()
	for {
		p, err := s.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p.Documents...)
		if q.Cursor = p.Next; q.Cursor == "" {
			return list
		}
	}
}

func testDocuments(t *testing.T, f Fixture) {
	now := time.Date(2026, 5, 1, 10, 0, 0, 123456000, time.UTC)
	s, ctx := open(t, f, store.Options{Clock: func() time.Time { return now }}), t.Context()
	if _, err := s.Get(ctx, site("shop")); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("an empty store says %v", err)
	}
	c := put(t, s, site("shop"), `{"a":1}`, store.Absent)
	if c.Position != 1 || c.Revisions["acme"] != 1 || !c.Time.Equal(now) {
		t.Errorf("the first change is %+v", c)
	}
	made := now
	now = now.Add(time.Hour)
	put(t, s, site("shop"), `{"a":2}`, 1)
	d, err := s.Get(ctx, site("shop"))
	if err != nil || d.Key != site("shop") || d.Revision != 2 || string(d.Body) != `{"a":2}` || !d.Created.Equal(made) || !d.Updated.Equal(now) {
		t.Errorf("read %+v, %v", d, err)
	}
	if _, err := s.Update(ctx, by("ann"), func(tx *store.Tx) error { return tx.Delete(ctx, site("shop"), 2) }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, site("shop")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("after its deletion: %v", err)
	}
	if c := put(t, s, site("shop"), `{"a":3}`, store.Absent); c.Revisions["acme"] != 4 {
		t.Errorf("revisions do not go on after a deletion: %+v", c)
	}
	c, err = s.Update(ctx, by("ann"), func(tx *store.Tx) error { return tx.Delete(ctx, site("nothing"), store.Any) })
	if err != nil || len(c.Revisions) != 0 {
		t.Errorf("deleting what is not there: %+v, %v", c, err)
	}
}

// Names compare byte by byte in every engine, whatever its locale.
func testOrder(t *testing.T, f Fixture) {
	s, ctx := open(t, f, store.Options{}), t.Context()
	names := []string{"a", "B", "b", "a-b", "ab", "a.b", "Z", "é", "zz", "10", "9", "日本", "a b", "a%", "a_b", "\U0001F600", "ﬁ"}
	_, err := s.Update(ctx, by("ann"), func(tx *store.Tx) error {
		for _, n := range names {
			for _, k := range []store.Key{site(n), key("zeta", "p", "Site", n), key("acme", "p", "Pool", n)} {
				if _, err := tx.Put(ctx, k, []byte(`{"n":true}`), store.Absent); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	empty, p := "", "p"
	for _, c := range []struct {
		q    store.Query
		want int
	}{
		{store.Query{}, 3 * len(names)},
		{store.Query{Organization: "acme"}, 2 * len(names)},
		{store.Query{Kind: "Site"}, 2 * len(names)},
		{store.Query{Organization: "acme", Kind: "Site"}, len(names)},
		{store.Query{Organization: "acme", Project: &empty}, len(names)},
		{store.Query{Project: &p, Kind: "Site"}, len(names)},
		{store.Query{Organization: "acme", Project: &p, Kind: "Pool", Prefix: "a"}, 7},
		{store.Query{Organization: "acme", Kind: "Site", Prefix: "\U0001F600"}, 1},
		{store.Query{Organization: "none"}, 0},
	} {
		c.q.Limit = 5
		list := all(t, s, c.q)
		if len(list) != c.want {
			t.Errorf("%+v lists %d documents, not %d", c.q, len(list), c.want)
		}
		if !slices.IsSortedFunc(list, func(a, b store.Document) int { return compareKeys(a.Key, b.Key) }) {
			t.Errorf("%+v is not in the order of keys", c.q)
		}
	}
	list := all(t, s, store.Query{Organization: "acme", Kind: "Site", Limit: 3})
	for i, d := range list {
		if d.Name != names[i] {
			t.Fatalf("%q is in the place of %q", d.Name, names[i])
		}
	}
}

func compareKeys(a, b store.Key) int {
	return slices.Compare([]string{a.Organization, a.Project, a.Kind, a.Name}, []string{b.Organization, b.Project, b.Kind, b.Name})
}

func testCompareAndSet(t *testing.T, f Fixture) {
	s, ctx := open(t, f, store.Options{}), t.Context()
	conflict := func(err error, want, have int64) {
		t.Helper()
		var c *store.ConflictError
		if !errors.As(err, &c) || c.Want != want || c.Have != have || c.Key != site("shop") {
			t.Errorf("%v, not a conflict of %d and %d", err, want, have)
		}
	}
	_, err := tryPut(ctx, s, site("shop"), `{}`, 7)
	conflict(err, 7, 0)
	put(t, s, site("shop"), `{}`, store.Absent)
	_, err = tryPut(ctx, s, site("shop"), `{}`, store.Absent)
	conflict(err, 0, 1)
	put(t, s, site("shop"), `{"n":2}`, 1)
	_, err = tryPut(ctx, s, site("shop"), `{}`, 1)
	conflict(err, 1, 2)
	if !strings.Contains(err.Error(), "1") || !strings.Contains(err.Error(), "2") {
		t.Errorf("the conflict does not name both revisions: %v", err)
	}
	_, err = s.Update(ctx, by("ann"), func(tx *store.Tx) error { return tx.Delete(ctx, site("shop"), 1) })
	conflict(err, 1, 2)
	_, err = s.Update(ctx, by("ann"), func(tx *store.Tx) error {
		if err := tx.Check(ctx, site("shop"), 2); err != nil {
			return err
		}
		if _, err := tx.Put(ctx, site("other"), []byte(`{}`), store.Any); err != nil {
			return err
		}
		return tx.Check(ctx, site("shop"), 1)
	})
	conflict(err, 1, 2)
	if _, err := s.Get(ctx, site("other")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a change with a conflict was made: %v", err)
	}
	put(t, s, site("shop"), `{"n":3}`, store.Any)
	// A revision of another organization, or of another document, is no match.
	put(t, s, site("second"), `{}`, store.Absent)
	if c := put(t, s, key("zeta", "", "Site", "shop"), `{}`, store.Absent); c.Revisions["zeta"] != 1 {
		t.Errorf("another organization begins at %+v", c.Revisions)
	}
}

// Two ends of one database, many writers: nothing that was read is overwritten unseen.
func testTurns(t *testing.T, f Fixture) {
	stores := []*store.Store{open(t, f, store.Options{}), open(t, f, store.Options{})}
	ctx := t.Context()
	put(t, stores[0], site("n"), `{"n":0}`, store.Absent)
	const writers, each = 4, 8
	errs := make(chan error, writers)
	for w := range writers {
		go func() {
			for range each {
				if err := increment(ctx, stores[w%2], w); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	d, err := stores[0].Get(ctx, site("n"))
	if want := fmt.Sprintf(`{"n":%d}`, writers*each); err != nil || string(d.Body) != want || d.Revision != writers*each+1 {
		t.Errorf("%s at revision %d, not %s", d.Body, d.Revision, want)
	}
}

// increment uses compare-and-set or a transaction.
func increment(ctx context.Context, s *store.Store, way int) error {
	var n int
	if way < 2 {
		_, err := s.Update(ctx, by("ann"), func(tx *store.Tx) error {
			d, err := tx.Get(ctx, site("n"))
			if err != nil {
				return err
			}
			if _, err := fmt.Sscanf(string(d.Body), `{"n":%d}`, &n); err != nil {
				return err
			}
			_, err = tx.Put(ctx, site("n"), fmt.Appendf(nil, `{"n":%d}`, n+1), store.Any)
			return err
		})
		return err
	}
	for {
		d, err := s.Get(ctx, site("n"))
		if err != nil {
			return err
		}
		if _, err := fmt.Sscanf(string(d.Body), `{"n":%d}`, &n); err != nil {
			return err
		}
		_, err = tryPut(ctx, s, site("n"), fmt.Sprintf(`{"n":%d}`, n+1), store.Expect(d.Revision))
		var c *store.ConflictError
		if !errors.As(err, &c) {
			return err
		}
	}
}

func testWhole(t *testing.T, f Fixture) {
	s, ctx := open(t, f, store.Options{}), t.Context()
	put(t, s, site("kept"), `{"v":1}`, store.Absent)
	if err := s.Subscribe(ctx, "pop"); err != nil {
		t.Fatal(err)
	}
	before := dump(t, s)
	stop := errors.New("stop")
	writeAll := func(tx *store.Tx) error {
		_, err := tx.Put(ctx, site("new"), []byte(`{}`), store.Absent)
		_, err2 := tx.Put(ctx, site("kept"), []byte(`{"v":2}`), 1)
		_, err3 := tx.Append(ctx, "acme", "audit", []byte(`{}`))
		return errors.Join(err, err2, err3, tx.Delete(ctx, site("kept"), store.Any), tx.Emit(ctx, "purge", "acme", []byte(`{}`)))
	}
	_, err := s.Update(ctx, by("ann"), func(tx *store.Tx) error { return errors.Join(writeAll(tx), stop) })
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = s.Update(ctx, by("ann"), func(tx *store.Tx) error {
			_ = writeAll(tx)
			panic("in the middle")
		})
	}()
	if after := dump(t, s); after != before {
		t.Errorf("a change that failed left something:\n%s\n%s", before, after)
	}
	c, err := s.Update(ctx, by("ann"), func(*store.Tx) error { return nil })
	if err != nil || c.Position != 0 || dump(t, s) != before {
		t.Errorf("a change of nothing made %+v, %v", c, err)
	}
	c, err = s.Update(ctx, by("ann"), writeAll)
	if err != nil || c.Position != 2 || c.Revisions["acme"] != 2 {
		t.Errorf("the next change is %+v, %v", c, err)
	}
}

// dump is all that a backup holds, but when it was made.
func dump(t *testing.T, s *store.Store) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.Backup(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(unzip(t, b.Bytes()), "\n")
	return strings.Join(lines[1:len(lines)-2], "\n")
}

// Random changes leave every engine like a map, at the newest revision and at each before.
func testModel(t *testing.T, f Fixture) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	s, ctx := open(t, f, store.Options{}), t.Context()
	states := []map[store.Key]string{{}}
	for step := range 25 {
		now := map[store.Key]string{}
		for k, v := range states[len(states)-1] {
			now[k] = v
		}
		changed := false
		_, err := s.Update(ctx, by("ann"), func(tx *store.Tx) error {
			for i := range 1 + rnd.IntN(6) {
				k := key("acme", []string{"", "p"}[rnd.IntN(2)], []string{"Site", "Pool"}[rnd.IntN(2)], fmt.Sprint("n", rnd.IntN(4)))
				_, is := now[k]
				if rnd.IntN(3) == 0 {
					changed = changed || is
					delete(now, k)
					if err := tx.Delete(ctx, k, store.Any); err != nil {
						return err
					}
					continue
				}
				changed, now[k] = true, fmt.Sprintf(`{"step":%d,"i":%d}`, step, i)
				if _, err := tx.Put(ctx, k, []byte(now[k]), store.Any); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if changed {
			states = append(states, now)
		}
	}
	last := len(states) - 1
	list := all(t, s, store.Query{Limit: 3})
	if len(list) != len(states[last]) {
		t.Errorf("%d documents, not %d", len(list), len(states[last]))
	}
	for _, d := range list {
		if states[last][d.Key] != string(d.Body) {
			t.Errorf("%s is %s, not %s", d.Key, d.Body, states[last][d.Key])
		}
	}
	for range 20 {
		from, to := rnd.IntN(last+1), rnd.IntN(last+1)
		checkDiff(t, s, states, from, to)
	}
	checkCounters(t, s, states[last])
}

func checkDiff(t *testing.T, s *store.Store, states []map[store.Key]string, from, to int) {
	t.Helper()
	want := map[store.Key][2]string{}
	for _, state := range []map[store.Key]string{states[from], states[to]} {
		for k := range state {
			if a, b := states[from][k], states[to][k]; a != b {
				want[k] = [2]string{a, b}
			}
		}
	}
	err := s.View(t.Context(), func(r *store.Reader) error {
		n := 0
		for cursor := ""; ; {
			list, next, err := r.Diff(t.Context(), "acme", int64(from), int64(to), cursor, 2)
			if err != nil {
				return err
			}
			for _, d := range list {
				n++
				if w := want[d.Key]; w != [2]string{string(d.Before), string(d.After)} {
					t.Errorf("from %d to %d: %s is said to go from %s to %s, not %v", from, to, d.Key, d.Before, d.After, w)
				}
			}
			if cursor = next; cursor == "" {
				break
			}
		}
		if n != len(want) {
			t.Errorf("from %d to %d: %d differences, not %d", from, to, n, len(want))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func checkCounters(t *testing.T, s *store.Store, state map[store.Key]string) {
	t.Helper()
	bytes := 0
	for _, b := range state {
		bytes += len(b)
	}
	err := s.View(t.Context(), func(r *store.Reader) error {
		o, err := r.Organization(t.Context(), "acme")
		if o.Documents != int64(len(state)) || o.Bytes != int64(bytes) {
			t.Errorf("counted %+v, not %d documents of %d bytes", o, len(state), bytes)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
