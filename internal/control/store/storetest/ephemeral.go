package storetest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
)

// hands is a clock that a test sets.
type hands struct {
	mu  sync.Mutex
	now time.Time
}

func (h *hands) time() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *hands) pass(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func newHands() *hands { return &hands{now: time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)} }

func testEphemeral(t *testing.T, f Fixture) {
	clock := newHands()
	s, ctx := open(t, f, store.Options{Clock: clock.time, Limits: store.Limits{Ephemera: 6}}), t.Context()
	other := open(t, f, store.Options{Clock: clock.time})
	keep := func(space, name, owner string, life time.Duration) error {
		c, err := s.Update(ctx, by("ann"), func(tx *store.Tx) error {
			return tx.Keep(ctx, store.Ephemeral{Space: space, Name: name, Owner: owner, Expires: tx.Now().Add(life), Body: []byte(`{"n":"` + name + `"}`)})
		})
		if c.Position != 0 || len(c.Revisions) != 0 {
			t.Errorf("it is a change of documents: %+v", c)
		}
		return err
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(keep("session", "b", "acme/sam", 2*time.Hour))
	must(keep("session", "a", "acme/sam", time.Hour))
	must(keep("session", "c", "acme/sue", time.Hour))
	must(keep("login", "a", "acme/sam", time.Hour))
	must(keep("session", "d", "acme2/sam", time.Minute))
	names := func(at *store.Store, space, owner string) (got string) {
		t.Helper()
		must(at.View(ctx, func(r *store.Reader) error {
			list, err := r.Ephemera(ctx, space, owner)
			n, err2 := r.CountEphemera(ctx, space, owner)
			if int(n) != len(list) {
				t.Errorf("%d are counted, %d are listed", n, len(list))
			}
			for _, e := range list {
				got += e.Name
				if one, err := r.Ephemeral(ctx, space, e.Name); err != nil || string(one.Body) != string(e.Body) || one.Owner != owner || !one.Expires.Equal(e.Expires) {
					t.Errorf("%+v and %+v, %v", one, e, err)
				}
			}
			return errors.Join(err, err2)
		}))
		return got
	}
	if got := names(other, "session", "acme/sam"); got != "ab" {
		t.Errorf("another end sees %q", got)
	}
	must(keep("session", "b", "acme/sue", time.Hour)) // over what is there
	must(keep("session", "e", "acme/sam", time.Hour))
	must(keep("session", "f", "acme/sam", time.Hour))
	var l *store.LimitError
	if err := keep("session", "g", "acme/sam", time.Hour); !errors.As(err, &l) {
		t.Errorf("a seventh: %v", err)
	}
	must(keep("login", "g", "acme/sam", time.Hour)) // another space has room of its own
	clock.pass(time.Minute)
	must(keep("session", "g", "acme/sam", time.Hour)) // what expired takes no room
	if got := names(s, "session", "acme2/sam"); got != "" {
		t.Errorf("what expired is found: %q", got)
	}
	if n, err := s.Expire(ctx); n != 1 || err != nil {
		t.Errorf("%d expired, %v", n, err)
	}
	update := func(fn func(tx *store.Tx) (int64, error)) (n int64) {
		t.Helper()
		_, err := s.Update(ctx, by("ann"), func(tx *store.Tx) (err error) {
			n, err = fn(tx)
			return err
		})
		must(err)
		return n
	}
	if n := update(func(tx *store.Tx) (int64, error) { return tx.ForgetOf(ctx, "session", "acme/sam", "f") }); n != 3 || names(other, "session", "acme/sam") != "f" {
		t.Errorf("%d went, %q stayed", n, names(other, "session", "acme/sam"))
	}
	if n := update(func(tx *store.Tx) (int64, error) { return tx.ForgetOwners(ctx, "acme/") }); n != 5 {
		t.Errorf("%d of an organization went", n)
	}
	for _, e := range []store.Ephemeral{{Name: "a"}, {Space: "a"}, {Space: "a", Name: "a\x00"}, {Space: "a", Name: "a", Body: []byte("{")}} {
		_, err := s.Update(ctx, by("ann"), func(tx *store.Tx) error { return tx.Keep(ctx, e) })
		if !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%+v: %v", e, err)
		}
	}
	if p, err := s.List(ctx, store.Query{}); err != nil || len(p.Documents) != 0 {
		t.Errorf("%+v, %v", p, err)
	}
}

// Of many who take the same thing at once, over several ends, one is told that it was there.
func testTakenOnce(t *testing.T, f Fixture) {
	a, b, ctx := open(t, f, store.Options{}), open(t, f, store.Options{}), t.Context()
	_, err := a.Update(ctx, by("ann"), func(tx *store.Tx) error {
		return tx.Keep(ctx, store.Ephemeral{Space: "once", Name: "x", Expires: tx.Now().Add(time.Hour), Body: []byte(`{}`)})
	})
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan bool, 8)
	for i := range 8 {
		s := a
		if i%2 == 1 {
			s = b
		}
		go func() {
			var was bool
			_, err := s.Update(ctx, by("ann"), func(tx *store.Tx) (err error) {
				was, err = tx.Forget(ctx, "once", "x")
				return err
			})
			if err != nil {
				t.Error(err)
			}
			results <- was
		}()
	}
	n := 0
	for range 8 {
		if <-results {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d took it", n)
	}
}

func testErase(t *testing.T, f Fixture) {
	s, ctx := open(t, f, store.Options{Limits: store.Limits{PageItems: 3}}), t.Context()
	put(t, s, site("a"), `{"n":1}`, store.Any)
	put(t, s, site("b"), `{"n":1}`, store.Any)
	put(t, s, site("a"), `{"n":2}`, store.Any)
	update := func(fn func(tx *store.Tx) error) error {
		_, err := s.Update(ctx, by("ann"), fn)
		return err
	}
	var c *store.ConflictError
	if err := update(func(tx *store.Tx) error { return tx.EraseHistory(ctx, site("a")) }); !errors.As(err, &c) {
		t.Errorf("the history of one that is there: %v", err)
	}
	err := update(func(tx *store.Tx) error {
		return errors.Join(tx.Delete(ctx, site("a"), store.Any), tx.EraseHistory(ctx, site("a")))
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.View(ctx, func(r *store.Reader) error {
		if h, _, err := r.History(ctx, site("a"), "", 0); err != nil || len(h) != 0 {
			t.Errorf("history: %+v, %v", h, err)
		}
		if d, err := r.At(ctx, site("b"), 4); err != nil || d.Revision != 2 {
			t.Errorf("its neighbour: %+v, %v", d, err)
		}
		_, err := r.Revision(ctx, "acme", 3)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if c := put(t, s, site("a"), `{}`, store.Absent); c.Revisions["acme"] != 5 {
		t.Errorf("revisions do not go on: %+v", c)
	}
	err = update(func(tx *store.Tx) (err error) {
		for i := range 8 {
			_, err2 := tx.Append(ctx, "acme", "audit", fmt.Appendf(nil, `{"n":%d,"x":"secret"}`, i+1))
			err = errors.Join(err, err2)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for after, rounds := int64(0), 0; after < 7; rounds++ {
		err := update(func(tx *store.Tx) (err error) {
			after, err = tx.EraseEntries(ctx, "acme", "audit", after, 7, func(e store.Entry) ([]byte, error) {
				return fmt.Appendf(nil, `{"n":%d}`, e.Seq), nil
			})
			return err
		})
		if err != nil || rounds > 3 {
			t.Fatal(after, err)
		}
	}
	err = s.View(ctx, func(r *store.Reader) error {
		for after := int64(0); after < 8; {
			list, err := r.Entries(ctx, "acme", "audit", after, 0)
			if err != nil || len(list) == 0 {
				return fmt.Errorf("after %d: %w", after, err)
			}
			for _, e := range list {
				if strings.Contains(string(e.Body), "secret") != (e.Seq == 8) || e.Seq != after+1 {
					t.Errorf("entry %d says %s", e.Seq, e.Body)
				}
				after = e.Seq
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	err = update(func(tx *store.Tx) error {
		_, err := tx.EraseEntries(ctx, "acme", "audit", 0, 1, func(store.Entry) ([]byte, error) { return []byte(`{"much":"more than there was before in it"}`), nil })
		return err
	})
	var l *store.LimitError
	if !errors.As(err, &l) {
		t.Errorf("an entry grew: %v", err)
	}
}

func testEraseMessages(t *testing.T, f Fixture) {
	s, ctx := open(t, f, store.Options{}), t.Context()
	if err := s.Subscribe(ctx, "pop"); err != nil {
		t.Fatal(err)
	}
	_, err := s.Update(ctx, by("ann"), func(tx *store.Tx) error {
		return errors.Join(tx.Emit(ctx, "purge", "acme", []byte(`{"p":1}`)), tx.Emit(ctx, "purge", "zeta", []byte(`{"p":1}`)))
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Update(ctx, by("ann"), func(tx *store.Tx) error { return tx.EraseMessages(ctx, "acme") }); err != nil {
		t.Fatal(err)
	}
	list, err := s.Messages(ctx, "pop", 0)
	if err != nil || len(list) != 2 || string(list[0].Payload) != `{}` || string(list[1].Payload) != `{"p":1}` {
		t.Errorf("%+v, %v", list, err)
	}
}

// A backup of the schema before what is kept for a while is brought up to date, and what is kept is in no backup.
func testBackupOfTheFirstSchema(t *testing.T, f Fixture) {
	s, ctx := open(t, f, store.Options{}), t.Context()
	old := firstSchema(t)
	if err := s.Restore(ctx, bytes.NewReader(old)); err != nil {
		t.Fatal(err)
	}
	_, err := s.Update(ctx, by("ann"), func(tx *store.Tx) error {
		return tx.Keep(ctx, store.Ephemeral{Space: "session", Name: "hidden-name", Expires: tx.Now().Add(time.Hour), Body: []byte(`{}`)})
	})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := s.Backup(ctx, &b); err != nil {
		t.Fatal(err)
	}
	zip, err := gzip.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(zip)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "hidden-name") {
			t.Errorf("the backup holds %s", lines.Text())
		}
	}
	if d, err := s.Get(ctx, site("a")); err != nil || string(d.Body) != `{"n":1}` {
		t.Errorf("%+v, %v", d, err)
	}
}

// firstSchema is a backup as the first program wrote it.
func firstSchema(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	zip, sum, rows := gzip.NewWriter(&b), sha256.New(), 0
	line := func(v any) {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, '\n')
		_, _ = sum.Write(text)
		if _, err := zip.Write(text); err != nil {
			t.Fatal(err)
		}
	}
	table := func(name, types, columns string, values ...any) {
		line(map[string]any{"table": name, "columns": strings.Fields(columns), "types": types})
		if len(values) > 0 {
			rows++
			line(values)
		}
	}
	body := []byte(`{"n":1}`)
	line(map[string]any{"relais": "backup", "format": 1, "schema": 1, "position": 1, "time": time.Now().UTC()})
	table("head", "iii", "one position message", 1, 1, 1)
	table("organizations", "tiiii", "organization revision documents bytes pruned", "acme", 1, 1, len(body), 0)
	table("documents", "ttttiiib", "organization project kind name revision created updated body", "acme", "", "Site", "a", 1, 1, 1, body)
	table("revisions", "tiiitti", "organization number position time author reason changes", "acme", 1, 1, 1, "ann", "", 1)
	table("changes", "titttib", "organization number project kind name former body", "acme", 1, "", "Site", "a", 0, body)
	line(map[string]any{"rows": rows, "sha256": fmt.Sprintf("%x", sum.Sum(nil))})
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
