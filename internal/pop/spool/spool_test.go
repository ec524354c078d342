package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/usage"
)

func open(t *testing.T, dir string, bytes int64) *Spool {
	t.Helper()
	s, err := Open(Config{Dir: dir, Pop: "fra1", Bytes: bytes, Report: func(msg string, args ...any) { t.Log(append([]any{msg}, args...)...) }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func records(n int, requests int64) (list []usage.Record) {
	for i := range n {
		list = append(list, usage.Record{Slot: usage.Slot{Organization: "acme", Site: fmt.Sprint("s", i), Hour: 500_000}, Counts: usage.Counts{Requests: requests}})
	}
	return list
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// next is Next, and says where the batch begins and ends.
func next(t *testing.T, s *Spool, limit int) (*usage.Batch, [2]int64) {
	t.Helper()
	b, err := s.Next(limit)
	must(t, err)
	if b == nil {
		return nil, [2]int64{}
	}
	must(t, b.Check())
	return b, [2]int64{b.First(), b.Last()}
}

func files(t *testing.T, dir string) int {
	t.Helper()
	list, err := os.ReadDir(dir)
	must(t, err)
	return len(list)
}

func TestRecordsComeInOrderUntilTheyAreAcknowledged(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 0)
	must(t, s.Append(records(3, 1)))
	must(t, s.Append(records(2, 1)))
	for range 2 {
		if b, at := next(t, s, 2); at != [2]int64{1, 2} || b.Spool != s.ID() {
			t.Errorf("%v", at)
		}
	}
	must(t, s.Acknowledge(s.ID(), 2))
	if _, at := next(t, s, 10); at != [2]int64{3, 3} {
		t.Errorf("%v", at)
	}
	if st, err := s.Stats(); err != nil || st.Records != 3 || st.Segments != 2 {
		t.Errorf("%+v, %v", st, err)
	}
	// The next process gives again what it cannot know to have been acknowledged, under the old numbers and the old id.
	second := open(t, dir, 0)
	if b, at := next(t, second, 10); at != [2]int64{1, 3} || b.Spool != s.ID() || b.Spool == second.ID() {
		t.Errorf("%v", at)
	}
	must(t, second.Append(records(1, 1)))
	must(t, second.Acknowledge(s.ID(), 5))
	if b, at := next(t, second, 10); at != [2]int64{1, 1} || b.Spool != second.ID() {
		t.Errorf("%v", at)
	}
	must(t, second.Acknowledge(second.ID(), 1))
	if b, _ := next(t, second, 10); b != nil || files(t, dir) != 0 {
		t.Errorf("%+v, %d files", b, files(t, dir))
	}
	must(t, second.Append(records(1, 1)))
	if _, at := next(t, second, 10); at != [2]int64{2, 2} {
		t.Errorf("numbers begin anew: %v", at)
	}
}

func TestManyRecordsAreManyBatches(t *testing.T) {
	s := open(t, t.TempDir(), 0)
	must(t, s.Append(records(2*usage.MaxRecords+7, 1)))
	var n int64
	for {
		b, at := next(t, s, usage.MaxRecords)
		if b == nil {
			break
		}
		if at[0] != n+1 {
			t.Fatalf("%v after %d", at, n)
		}
		n = at[1]
		must(t, s.Acknowledge(s.ID(), n))
	}
	if n != 2*usage.MaxRecords+7 {
		t.Error(n)
	}
}

func TestAFullSpoolStoresNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 64<<10)
	stored := 0
	var err error
	for ; err == nil; stored++ {
		err = s.Append(records(300, 1))
	}
	if !errors.Is(err, ErrFull) || stored < 2 {
		t.Fatalf("%v after %d", err, stored)
	}
	st, err := s.Stats()
	if err != nil || st.Bytes > 64<<10 || st.Records != int64(300*(stored-1)) {
		t.Errorf("%+v, %v", st, err)
	}
	b, _ := next(t, s, 0)
	must(t, s.Acknowledge(b.Spool, b.Last()))
	must(t, s.Append(records(300, 1)))
	if _, err := Open(Config{Dir: dir, Pop: "fra1", Bytes: 10}); err == nil {
		t.Error("a spool of ten bytes")
	}
	if _, err := Open(Config{Dir: dir, Pop: "FRA"}); err == nil {
		t.Error("a PoP that no batch can name")
	}
}

// A disk that is full in the middle of a segment leaves nothing of it, and the same numbers go to what comes next.
func TestADiskThatIsFullInTheMiddle(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 0)
	full := true
	s.cfg.write = func(f *os.File, b []byte) error {
		if full {
			b = b[:len(b)/2]
		}
		if _, err := f.Write(b); err != nil {
			return err
		}
		if full {
			return syscall.ENOSPC
		}
		return nil
	}
	for range 3 {
		if err := s.Append(records(3, 1)); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if b, _ := next(t, s, 0); b != nil || files(t, dir) != 0 {
			t.Fatalf("%+v, %d files", b, files(t, dir))
		}
	}
	full = false
	must(t, s.Append(records(3, 9)))
	if b, at := next(t, s, 0); at != [2]int64{1, 3} || b.Records[0].Requests != 9 {
		t.Errorf("%v", at)
	}
}

func TestDamageIsSetAside(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 0)
	for range 4 {
		must(t, s.Append(records(2, 1)))
	}
	list, _, err := s.scan()
	must(t, err)
	spoil := func(g segment, change func([]byte) []byte) {
		data, err := os.ReadFile(filepath.Join(dir, g.name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, g.name), change(data), 0o600))
	}
	spoil(list[0], func(b []byte) []byte { b[len(b)/2] ^= 4; return b })
	spoil(list[1], func(b []byte) []byte { return b[:len(b)-1] })
	spoil(list[2], func([]byte) []byte { return nil })
	must(t, os.WriteFile(filepath.Join(dir, "0-x"+endingTemp), []byte("torn"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("of a person"), 0o600))
	s = open(t, dir, 0)
	if _, at := next(t, s, 0); at != [2]int64{7, 8} {
		t.Errorf("%v", at)
	}
	if st, err := s.Stats(); err != nil || st.Damaged != 3 || st.Segments != 1 || files(t, dir) != 5 {
		t.Errorf("%+v, %v, %d files", st, err, files(t, dir))
	}
}

// plane is a control plane: it counts each record once, by spool and number.
type plane struct {
	fail  error
	last  map[usage.SpoolID]int64
	sum   map[usage.Slot]usage.Counts
	gaps  int
	calls int
}

func (p *plane) Deliver(_ context.Context, b *usage.Batch) error {
	p.calls++
	if p.fail != nil {
		return p.fail
	}
	if want := p.last[b.Spool] + 1; b.First() > want {
		if !b.Gap {
			return &usage.GapError{Want: want, Have: b.First()}
		}
		p.gaps++
	}
	for _, r := range b.Records {
		if r.Sequence > p.last[b.Spool] {
			c := p.sum[r.Slot]
			c.Add(&r.Counts)
			p.sum[r.Slot], p.last[b.Spool] = c, r.Sequence
		}
	}
	return nil
}

func newPlane() *plane {
	return &plane{last: map[usage.SpoolID]int64{}, sum: map[usage.Slot]usage.Counts{}}
}

func TestACourierLosesNothingWhileTheDiskIsFullAndThePlaneAway(t *testing.T) {
	s := open(t, t.TempDir(), 0)
	var full error
	s.cfg.write = func(f *os.File, b []byte) error {
		if full != nil {
			return full
		}
		_, err := f.Write(b)
		return err
	}
	p := newPlane()
	c := NewCourier(s, func(time.Time) []usage.Record { return records(3, 1) }, p)
	now := time.Now()
	must(t, c.Collect(now))
	p.fail = errors.New("away")
	if err := c.Ship(t.Context()); !errors.Is(err, p.fail) {
		t.Error(err)
	}
	full = syscall.ENOSPC
	for range 5 {
		if err := c.Collect(now); !errors.Is(err, syscall.ENOSPC) {
			t.Error(err)
		}
	}
	if c.Pending() != 3 {
		t.Errorf("%d wait", c.Pending())
	}
	p.fail, full = nil, nil
	must(t, c.Ship(t.Context()))
	must(t, c.Collect(now))
	must(t, c.Ship(t.Context()))
	for slot, n := range p.sum {
		if n.Requests != 7 {
			t.Errorf("%v: %d", slot, n.Requests)
		}
	}
	if len(p.sum) != 3 || c.Pending() != 0 {
		t.Errorf("%v", p.sum)
	}
}

func TestACourierSaysWhatIsLost(t *testing.T) {
	s := open(t, t.TempDir(), 0)
	p := newPlane()
	c := NewCourier(s, func(time.Time) []usage.Record { return records(1, 1) }, p)
	for range 3 {
		must(t, c.Collect(time.Now()))
	}
	list, _, err := s.scan()
	must(t, err)
	must(t, os.Truncate(filepath.Join(s.cfg.Dir, list[0].name), 3))
	must(t, c.Ship(t.Context()))
	if p.gaps != 1 || p.last[s.ID()] != 3 || p.sum[records(1, 0)[0].Slot].Requests != 2 {
		t.Errorf("%+v", p)
	}
}

func TestAMemoryThatIsFullJoinsHours(t *testing.T) {
	s := open(t, t.TempDir(), 0)
	s.cfg.write = func(*os.File, []byte) error { return syscall.ENOSPC }
	hour := usage.Hour(500_000)
	c := NewCourier(s, func(time.Time) []usage.Record {
		hour++
		return []usage.Record{{Slot: usage.Slot{Organization: "acme", Site: "a", Hour: hour}, Counts: usage.Counts{Requests: 1}}}
	}, newPlane())
	c.most = 4
	for range 10 {
		_ = c.Collect(time.Now())
	}
	var sum int64
	for _, n := range c.pending {
		sum += n.Requests
	}
	if len(c.pending) > 4 || sum != 10 {
		t.Errorf("%v", c.pending)
	}
}

func TestRunCollectsAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir(), 0)
		p := newPlane()
		c := NewCourier(s, func(time.Time) []usage.Record { return records(1, 1) }, p)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx, time.Minute) }()
		time.Sleep(3*time.Minute + time.Second)
		synctest.Wait()
		cancel()
		must(t, <-done)
		if n := p.sum[records(1, 0)[0].Slot].Requests; n != 3 {
			t.Errorf("%d were delivered", n)
		}
		if b, at := next(t, s, 0); b == nil || at != [2]int64{4, 4} {
			t.Errorf("what was counted last: %v", at)
		}
	})
}
