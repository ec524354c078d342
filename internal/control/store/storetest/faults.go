package storetest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
)

func testLeader(t *testing.T, f Fixture) {
	a, b := open(t, f, store.Options{}), open(t, f, store.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	first, err := a.TryLead(ctx, "rollout", "a")
	if err != nil || first.Term() != 1 {
		t.Fatal(first, err)
	}
	for _, s := range []*store.Store{a, b} {
		if _, err := s.TryLead(ctx, "rollout", "b"); !errors.Is(err, store.ErrNotLeader) {
			t.Errorf("a second leader: %v", err)
		}
	}
	other, err := b.TryLead(ctx, "sweep", "b")
	if err != nil {
		t.Fatal("another name is another lock: ", err)
	}
	defer other.Close()
	under := store.Change{Author: "ann", Lease: first}
	write := func(c store.Change, s *store.Store) error {
		_, err := s.Update(ctx, c, func(tx *store.Tx) error {
			_, err := tx.Put(ctx, site("led"), []byte(`{}`), store.Any)
			return err
		})
		return err
	}
	if err := write(under, a); err != nil {
		t.Error(err)
	}
	came := make(chan *store.Lease, 1)
	go func() {
		l, err := b.Lead(ctx, "rollout", "b")
		if err != nil {
			t.Error(err)
		}
		came <- l
	}()
	first.Close()
	<-first.Done()
	second := <-came
	if second == nil {
		return
	}
	defer second.Close()
	if second.Term() != 2 {
		t.Errorf("the second term is %d", second.Term())
	}
	if err := write(under, a); !errors.Is(err, store.ErrFenced) {
		t.Errorf("who led before writes: %v", err)
	}
	if err := write(store.Change{Author: "ann", Lease: second}, b); err != nil {
		t.Error(err)
	}
	err = a.View(ctx, func(r *store.Reader) error {
		holder, term, err := r.Leader(ctx, "rollout")
		if holder != "b" || term != 2 {
			t.Errorf("%s leads in term %d", holder, term)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	lone, err := f.Open(store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := lone.TryLead(ctx, "third", "c")
	if err != nil {
		t.Fatal(err)
	}
	if err := lone.Close(); err != nil {
		t.Error(err)
	}
	<-l.Done() // a store that is closed leads no more
	again, err := b.Lead(ctx, "third", "b")
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// Environment of a child process, whose program calls Child.
const (
	envTarget = "RELAIS_STORE_TARGET"
	envTask   = "RELAIS_STORE_TASK"
)

// Child does a child process's part where this process is one; the program's TestMain asks it first.
func Child(openTarget func(target string) (*store.Store, error)) (is bool, err error) {
	target := os.Getenv(envTarget)
	if target == "" {
		return false, nil
	}
	s, err := openTarget(target)
	if err != nil {
		return true, err
	}
	ctx := context.Background()
	if os.Getenv(envTask) == "lead" {
		l, err := s.Lead(ctx, "rollout", "child")
		if err != nil {
			return true, err
		}
		fmt.Println(l.Term())
		<-l.Done()
		return true, nil
	}
	return true, writeForEver(ctx, s)
}

// writeForEver commits changes of several documents, and says the number of each that is acknowledged.
func writeForEver(ctx context.Context, s *store.Store) error {
	for {
		var n int
		_, err := s.Update(ctx, store.Change{Author: "child", Reason: "on and on"}, func(tx *store.Tx) error {
			d, err := tx.Get(ctx, site("part0"))
			if err == nil {
				_, err = fmt.Sscanf(string(d.Body), `{"n":%d`, &n)
			}
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
			n++
			for i := range parts {
				if _, err := tx.Put(ctx, site(fmt.Sprint("part", i)), body(n), store.Any); err != nil {
					return err
				}
			}
			_, err = tx.Append(ctx, "acme", "audit", body(n))
			return err
		})
		if err != nil {
			return err
		}
		fmt.Println(n)
	}
}

const parts = 3

// body is longer than a page of SQLite, so that a change is of many pages.
func body(n int) []byte { return fmt.Appendf(nil, `{"n":%d,"pad":%q}`, n, strings.Repeat("x", 5000)) }

// child starts this program again, and gives the lines that it prints.
func child(t *testing.T, f Fixture, task string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), envTarget+"="+f.Target, envTask+"="+task)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, bufio.NewScanner(out)
}

func kill(t *testing.T, cmd *exec.Cmd, rest *bufio.Scanner) (lines []string) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for rest.Scan() {
		lines = append(lines, rest.Text())
	}
	_ = cmd.Wait() // says that it was killed
	return lines
}

func testLeaderKilled(t *testing.T, f Fixture) {
	s := open(t, f, store.Options{})
	cmd, out := child(t, f, "lead")
	if !out.Scan() || out.Text() != "1" {
		t.Fatalf("the child says %q", out.Text())
	}
	if _, err := s.TryLead(t.Context(), "rollout", "parent"); !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("beside the child: %v", err)
	}
	kill(t, cmd, out)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l, err := s.Lead(ctx, "rollout", "parent")
	if err != nil || l.Term() != 2 {
		t.Fatal(l, err)
	}
	l.Close()
}

// A process that is killed under writes loses nothing that it acknowledged, and leaves no change in part.
func testKilled(t *testing.T, f Fixture) {
	s := open(t, f, store.Options{})
	if err := s.Subscribe(t.Context(), "pop"); err != nil {
		t.Fatal(err)
	}
	acked := 0
	for range 4 {
		cmd, out := child(t, f, "write")
		for range 1 + rand.IntN(12) {
			if !out.Scan() {
				t.Fatal("the child ended by itself")
			}
			acked = number(t, out.Text())
		}
		for _, line := range kill(t, cmd, out) {
			acked = number(t, line)
		}
		checkParts(t, s, acked)
	}
}

func number(t *testing.T, line string) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(line, &n); err != nil {
		t.Fatalf("the child says %q", line)
	}
	return n
}

// checkParts looks at all that one change writes. The last change may have been committed and not acknowledged.
func checkParts(t *testing.T, s *store.Store, acked int) {
	t.Helper()
	err := s.View(t.Context(), func(r *store.Reader) error {
		first, err := r.Get(t.Context(), site("part0"))
		if err != nil {
			return err
		}
		var n int
		if _, err := fmt.Sscanf(string(first.Body), `{"n":%d`, &n); err != nil {
			return err
		}
		if n < acked || n > acked+1 {
			t.Errorf("%d was acknowledged, %d is there", acked, n)
		}
		for i := range parts {
			d, err := r.Get(t.Context(), site(fmt.Sprint("part", i)))
			if err != nil || !bytes.Equal(d.Body, body(n)) || d.Revision != int64(n) {
				t.Errorf("part %d is of another change: revision %d, %v", i, d.Revision, err)
			}
			h, _, err := r.History(t.Context(), site(fmt.Sprint("part", i)), "", 1)
			if err != nil || len(h) != 1 || h[0].Revision != int64(n) || !bytes.Equal(h[0].Body, body(n)) {
				t.Errorf("its history ends elsewhere: %v", err)
			}
		}
		last, err := r.LastEntry(t.Context(), "acme", "audit")
		position, err2 := r.Position(t.Context())
		o, err3 := r.Organization(t.Context(), "acme")
		if last.Seq != int64(n) || position != int64(n) || o.Revision != int64(n) || o.Documents != parts {
			t.Errorf("of change %d there are entry %d, position %d, %+v", n, last.Seq, position, o)
		}
		return errors.Join(err, err2, err3)
	})
	if err != nil {
		t.Error(err)
	}
	list, err := s.Messages(t.Context(), "pop", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range list {
		if m.ID != int64(i+1) || m.Revision != m.ID {
			t.Errorf("message %d is %+v", i+1, m)
		}
	}
	if len(list) < acked {
		t.Errorf("%d messages, and %d changes were acknowledged", len(list), acked)
	}
}

func testCancelled(t *testing.T, f Fixture) {
	s := open(t, f, store.Options{})
	put(t, s, site("a"), `{}`, store.Absent)
	before := dump(t, s)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tryPut(gone, s, site("b"), `{}`, store.Absent); !errors.Is(err, context.Canceled) {
		t.Errorf("a change of somebody who is gone: %v", err)
	}
	if _, err := s.Get(gone, site("a")); !errors.Is(err, context.Canceled) {
		t.Errorf("a read of somebody who is gone: %v", err)
	}
	for range 3 { // whatever a cancelled change leaves, the next finds its way
		ctx, leave := context.WithCancel(t.Context())
		_, err := s.Update(ctx, by("ann"), func(tx *store.Tx) error {
			if _, err := tx.Put(ctx, site("b"), []byte(`{}`), store.Absent); err != nil {
				return err
			}
			leave()
			_, err := tx.Put(ctx, site("c"), []byte(`{}`), store.Absent)
			return err
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("a change that was left in the middle: %v", err)
		}
		ctx, leave = context.WithCancel(t.Context())
		_, err = s.Update(ctx, by("ann"), func(tx *store.Tx) error {
			_, err := tx.Put(ctx, site("b"), []byte(`{}`), store.Absent)
			leave()
			return err
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("a change that was left before its end: %v", err)
		}
	}
	if after := dump(t, s); after != before {
		t.Errorf("a cancelled change left something:\n%s\n%s", before, after)
	}
	put(t, s, site("b"), `{}`, store.Absent)
}

func testBusy(t *testing.T, f Fixture) {
	ctx := t.Context()
	holder := open(t, f, store.Options{})
	waiter := open(t, f, store.Options{Limits: store.Limits{Wait: 50 * time.Millisecond, Writers: 1}})
	holding, let := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		_, err := holder.Update(ctx, by("ann"), func(tx *store.Tx) error {
			close(holding)
			<-let
			_, err := tx.Put(ctx, site("a"), []byte(`{}`), store.Absent)
			return err
		})
		ended <- err
	}()
	<-holding
	if _, err := tryPut(ctx, waiter, site("b"), `{}`, store.Absent); !errors.Is(err, store.ErrBusy) {
		t.Errorf("beside another end's change: %v", err)
	}
	if _, err := waiter.List(ctx, store.Query{}); err != nil {
		t.Errorf("a reader waits for a writer: %v", err)
	}
	close(let)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	put(t, waiter, site("b"), `{}`, store.Absent)

	// Within one process the line has an end too.
	holding, let = make(chan struct{}), make(chan struct{})
	go func() {
		_, err := waiter.Update(ctx, by("ann"), func(*store.Tx) error {
			close(holding)
			<-let
			return nil
		})
		ended <- err
	}()
	<-holding
	for range 2 {
		if _, err := tryPut(ctx, waiter, site("c"), `{}`, store.Absent); !errors.Is(err, store.ErrBusy) {
			t.Errorf("beside a change of the same end: %v", err)
		}
	}
	close(let)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	put(t, waiter, site("c"), `{}`, store.Absent)
}

func testFull(t *testing.T, f Fixture) {
	s, ctx := open(t, f, store.Options{}), t.Context()
	put(t, s, site("a"), `{"n":1}`, store.Absent)
	empty, err := f.Fill()
	if err != nil {
		t.Fatal(err)
	}
	s2 := open(t, f, store.Options{Limits: store.Limits{FileBytes: 1}}) // an SQLite file has no room but what it has
	before := dump(t, s2)
	big := fmt.Sprintf(`{"pad":%q}`, strings.Repeat("x", 200_000))
	for range 3 {
		if _, err := tryPut(ctx, s2, site("b"), big, store.Absent); !errors.Is(err, store.ErrFull) {
			t.Errorf("on a full disk: %v", err)
		}
	}
	if after := dump(t, s2); after != before {
		t.Error("a change that found no room left something")
	}
	if d, err := s2.Get(ctx, site("a")); err != nil || string(d.Body) != `{"n":1}` {
		t.Errorf("reads on a full disk: %s, %v", d.Body, err)
	}
	empty()
	put(t, s, site("b"), big, store.Absent)
}

func testNewer(t *testing.T, f Fixture) {
	s := open(t, f, store.Options{})
	put(t, s, site("a"), `{}`, store.Absent)
	if err := f.SQL("UPDATE schema_version SET version = 999"); err != nil {
		t.Fatal(err)
	}
	_, err := f.Open(store.Options{})
	var v *store.VersionError
	if !errors.As(err, &v) || v.Have != 999 || v.Known < 1 || !strings.Contains(err.Error(), "newer program") {
		t.Errorf("a database of a newer program: %v", err)
	}
}

func testOpenedAtOnce(t *testing.T, f Fixture) {
	const many = 6
	errs := make(chan error, many)
	for i := range many {
		go func() {
			s, err := f.Open(store.Options{})
			if err == nil {
				_, err = tryPut(t.Context(), s, site(fmt.Sprint(i)), `{}`, store.Absent)
				err = errors.Join(err, s.Close())
			}
			errs <- err
		}()
	}
	for range many {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if list := all(t, open(t, f, store.Options{}), store.Query{}); len(list) != many {
		t.Errorf("%d documents of %d", len(list), many)
	}
}
