package segment

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func openFake(t *testing.T, d *fake, b *book) *Log {
	t.Helper()
	l, err := New(crashConfig(d), b)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestADiskThatFailsTurnsWritingOffForAWhileSaysSoOnceAndGoesOnReading(t *testing.T) {
	for _, bad := range []struct {
		name string
		err  error
		op   string
		file string
	}{
		{"full", syscall.ENOSPC, "write", "data"},
		{"input/output error", syscall.EIO, "write", "data"},
		{"read-only", syscall.EROFS, "write", "table"},
		{"no new files", syscall.ENOSPC, "create", ""},
	} {
		t.Run(bad.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, b := newFake(), newBook()
				var said bytes.Buffer
				cfg := crashConfig(d)
				cfg.Log = slog.New(slog.NewTextHandler(&said, nil))
				l, err := New(cfg, b)
				if err != nil {
					t.Fatal(err)
				}
				ctx, stop := context.WithCancel(t.Context())
				ran := make(chan error)
				go func() { ran <- l.Run(ctx) }()
				put := func(h uint64, size int) error {
					r, err := store(l, h, nil, bytesOf(h, size), size+1)
					if err == nil {
						b.put(r)
					}
					return err
				}
				if bad.op != "create" {
					if err := put(1, 3000); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
				}
				d.mu.Lock()
				d.fail = func(op, name string) error {
					if op == bad.op && strings.HasSuffix(name, bad.file) {
						return bad.err
					}
					return nil
				}
				d.mu.Unlock()
				if err := put(2, 3000); err != nil {
					t.Fatal(err)
				}
				time.Sleep(500 * time.Millisecond) // the flush fails
				if err := put(3, 3000); err != ErrOff {
					t.Errorf("a write while off: %v", err)
				}
				for range 20 { // tries, at longer and longer intervals
					time.Sleep(10 * time.Second)
					_ = put(4, 3000)
				}
				if _, ok := b.get(2); ok {
					t.Error("the Owner was not told of what is lost")
				}
				s := l.Stats()
				if !s.Off || s.WriteErrors < 3 || s.WriteErrors > 12 || s.RefusedOff == 0 || s.LostWrites == 0 || s.Queued > 64<<10 {
					t.Errorf("%+v", s)
				}
				if r, ok := b.get(1); ok {
					if err := check(t, l, r, nil, bytesOf(1, 3000)); err != nil {
						t.Error("reading ended with writing:", err)
					}
				}
				if r, _ := b.get(2); check(t, l, r, nil, bytesOf(2, 3000)) == nil {
					t.Error("what was not written is there")
				}
				d.mu.Lock()
				d.fail = nil
				d.mu.Unlock()
				time.Sleep(2 * time.Minute)
				if err := put(5, 3000); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Second)
				if s := l.Stats(); s.Off {
					t.Error("still off")
				}
				r, _ := b.get(5)
				if err := check(t, l, r, nil, bytesOf(5, 3000)); err != nil {
					t.Error(err)
				}
				stop()
				if err := <-ran; err != nil {
					t.Error(err)
				}
				if off, on := strings.Count(said.String(), "the disk failed"), strings.Count(said.String(), "level=INFO"); off != 1 || on != 1 {
					t.Errorf("said %d and %d times:\n%s", off, on, &said)
				}
			})
		})
	}
}

func TestADiskThatFailsToReadIsAMiss(t *testing.T) {
	d, b := newFake(), newBook()
	l := openFake(t, d, b)
	r, err := store(l, 1, nil, bytesOf(1, 60000), 9999)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	d.fail = func(op, _ string) error {
		if op == "read" {
			return errIO
		}
		return nil
	}
	if err := check(t, l, r, nil, bytesOf(1, 60000)); !errors.Is(err, errIO) || l.Stats().ReadErrors != 1 {
		t.Error(err, l.Stats().ReadErrors)
	}
}

func TestADiskThatIsSlowerThanTheOriginsIsNotWaitedFor(t *testing.T) {
	d, b := newFake(), newBook()
	cfg := crashConfig(d)
	cfg.QueueBytes = 2 * 64 << 10
	l, err := New(cfg, b)
	if err != nil {
		t.Fatal(err)
	}
	stored := 0
	for i := range 200 { // nobody flushes
		if _, err := store(l, uint64(i), nil, bytesOf(1, 3000), 9999); err == nil {
			stored++
		} else if err != ErrBacklog {
			t.Fatal(err)
		}
	}
	if s := l.Stats(); stored < 20 || stored > 60 || s.RefusedBacklog != int64(200-stored) || s.Queued > cfg.QueueBytes {
		t.Errorf("%d stored, %+v", stored, s)
	}
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := store(l, 1, nil, bytesOf(1, 3000), 9999); err != nil {
		t.Error(err)
	}
}

// filled is a directory with a few objects.
func filled(t *testing.T) (*fake, *book) {
	t.Helper()
	d, b := newFake(), newBook()
	l := openFake(t, d, b)
	for i := range 30 {
		r, err := store(l, uint64(i), nil, bytesOf(uint64(i), 4000), 9999)
		if err != nil {
			t.Fatal(err)
		}
		b.put(r)
		if err := l.flush(); err != nil {
			t.Fatal(err)
		}
	}
	return d, b
}

func TestAlienAndOlderFilesAreNeverReadAndSaidOnce(t *testing.T) {
	for _, c := range []struct {
		name    string
		spoil   func(d *fake)
		found   int // at most
		dropped int64
		alien   int64
	}{
		{"nothing", func(*fake) {}, 30, 0, 0},
		{"another file", func(d *fake) { d.file("notes.txt").data = []byte("mine") }, 30, 0, 0},
		{"store file of another kind", func(d *fake) { d.file("store").data = []byte("#!/bin/sh\n" + strings.Repeat("x", 99)) }, 0, 4, 1},
		{"store file gone", func(d *fake) { delete(d.files, "store") }, 0, 4, 0},
		{"store file cut short", func(d *fake) { d.file("store").data = d.file("store").data[:10] }, 0, 4, 0},
		{"older version", func(d *fake) { d.file("store").data[8]-- }, 0, 4, 0},
		{"table of an older version", func(d *fake) { d.file("000000.table").data[8]-- }, 20, 1, 0},
		{"table of another slot", func(d *fake) { d.file("000001.table").data = bytes.Clone(d.file("000000.table").data) }, 20, 1, 0},
		{"alien table", func(d *fake) { copy(d.file("000000.table").data, "PK\x03\x04") }, 20, 1, 1},
		{"alien data", func(d *fake) { d.file("000000.data").data = bytes.Repeat([]byte("alien"), 13107) }, 30, 0, 0},
		{"data gone", func(d *fake) { delete(d.files, "000000.data") }, 20, 0, 0},
		{"data cut short", func(d *fake) { d.file("000000.data").data = d.file("000000.data").data[:30000] }, 24, 0, 0},
		{"table cut short", func(d *fake) { f := d.file("000000.table"); f.data = f.data[:len(f.data)-20] }, 29, 0, 0},
		{"table with a hole", func(d *fake) { clear(d.file("000000.table").data[100:400]) }, 26, 0, 0},
		{"empty", func(d *fake) { d.file("000000.table").data = nil }, 20, 0, 0},
		{"a slot beyond the limit", func(d *fake) {
			d.file("000009.table").data = bytes.Clone(d.file("000000.table").data)
			d.file("000009.data").data = bytes.Clone(d.file("000000.data").data)
		}, 30, 2, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, was := filled(t)
			c.spoil(d)
			b := newBook()
			var said bytes.Buffer
			cfg := crashConfig(d)
			cfg.Log = slog.New(slog.NewTextHandler(&said, nil))
			l, err := New(cfg, b)
			if err != nil {
				t.Fatal(err)
			}
			if len(b.at) > c.found || c.found > 0 && len(b.at) < 8 {
				t.Errorf("%d found", len(b.at))
			}
			good := 0
			for h, r := range b.at {
				if r != was.at[h] {
					t.Errorf("%+v, was %+v", r, was.at[h])
				}
				if check(t, l, r, nil, bytesOf(h, 4000)) == nil {
					good++
				}
			}
			if c.name != "alien data" && good != len(b.at) {
				t.Errorf("%d of %d can be read", good, len(b.at))
			}
			s := l.Stats()
			if s.DroppedFiles != c.dropped || s.AlienFiles != c.alien {
				t.Errorf("dropped %d, alien %d", s.DroppedFiles, s.AlienFiles)
			}
			if lines := strings.Count(said.String(), "\n"); lines != min(1, int(c.dropped+c.alien)) {
				t.Errorf("%d lines: %s", lines, &said)
			}
			if c.name == "another file" && d.files["notes.txt"] == nil {
				t.Error("a file of others was deleted")
			}
			for i := range 60 { // it goes on
				if r, err := store(l, uint64(i), nil, bytesOf(uint64(i), 4000), 9999); err == nil {
					b.put(r)
				}
				if err := l.flush(); err != nil {
					t.Fatal(err)
				}
				for l.short() && l.reclaim() {
				}
			}
			if err := l.flush(); err != nil {
				t.Fatal(err)
			}
			b2 := newBook()
			if len(b.at) < 40 {
				t.Errorf("%d at last", len(b.at))
			}
			if openFake(t, d, b2); !maps.Equal(b2.at, b.at) {
				t.Errorf("%d found at last, %d were there", len(b2.at), len(b.at))
			}
		})
	}
}

func TestALogInAnotherSegmentSizeBeginsAnew(t *testing.T) {
	d, _ := filled(t)
	cfg := crashConfig(d)
	cfg.SegmentSize, cfg.Limit = 128<<10, 1<<20
	b := newBook()
	l, err := New(cfg, b)
	if err != nil || len(b.at) != 0 || l.Stats().DroppedFiles != 4 {
		t.Error(err, len(b.at), l.Stats().DroppedFiles)
	}
}

func TestADirectoryHasOneProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	d, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDir(dir); err != ErrInUse {
		t.Error(err)
	}
	d.Close()
	if d, err = OpenDir(dir); err != nil {
		t.Fatal(err)
	}
	d.Close()
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Error(fi, err)
	}
}

func TestSendingVerifiesABlockOnceAndTheScrubberFindsDamage(t *testing.T) {
	for _, m := range media()[2:] {
		cfg := m.cfg(t)
		b := newBook()
		l, err := New(cfg, b)
		if err != nil {
			t.Fatal(err)
		}
		body := bytesOf(1, 100000)
		r, err := store(l, 1, nil, body, 100000)
		if err != nil {
			t.Fatal(err)
		}
		b.put(r)
		for i := range 8 { // the segment is full
			x, err := store(l, uint64(10+i), nil, bytesOf(1, 7000), 9999)
			if err != nil {
				t.Fatal(err)
			}
			b.put(x)
		}
		m.drain(l)
		var o Object
		if err := l.Pin(r.At, &o); err != nil {
			t.Fatal(err)
		}
		var span Span
		if ok, err := o.File(20000, 10000, &span); err != nil || !ok {
			t.Fatal(span, ok, err)
		}
		x := o.find(20000)
		s, at := l.at(x.addr)
		if s.disk.verified[x.addr&l.mask/pageSize/64].Load() == 0 {
			t.Error("not noted as verified")
		}
		file, err := s.disk.open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt([]byte{body[20000] ^ 1}, at+20000-x.first); err != nil {
			t.Fatal(err)
		}
		if n, err := o.ReadAt(make([]byte, 50), 20100); err != nil && err != ErrCorrupt || n != 0 && err != nil {
			t.Error(n, err)
		}
		o.Unpin()
		if err := check(t, l, r, nil, body); err != ErrCorrupt {
			t.Errorf("a flipped bit was read: %v", err)
		}
		for s := l.after(0); s != nil; s = l.after(s.seq.Load()) {
			l.scrubSegment(s, func(int64) bool { return true })
		}
		if st := l.Stats(); st.ScrubBad != 1 || b.lost != 1 || st.Scrubbed < 40000 {
			t.Errorf("%d lost, %+v", b.lost, st)
		}
		if s.disk.verified[x.addr&l.mask/pageSize/64].Load()&(1<<(x.addr&l.mask/pageSize%64)) != 0 {
			t.Error("a damaged block counts as verified after the scrub")
		}
		l.Close()
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []Config{
		{},
		{Limit: 1 << 30, SegmentSize: 3 << 20},
		{Limit: 1 << 30, SegmentSize: 1 << 10},
		{Limit: 1 << 20},
		{Limit: 1 << 50},
		{Limit: 1 << 30, StageBytes: 5000},
		{Limit: 1 << 30, MaxHead: 8 << 20},
		{Limit: 1 << 30, Rewrite: 100},
		{Limit: 1 << 30, Dir: newFake(), QueueBytes: 1},
	} {
		if _, err := New(c, newBook()); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}

// forgetful is an Owner that is told what the disk did not take.
type forgetful struct {
	*book
	marks int
}

func (x *forgetful) Lost(r Record) {
	if r.Erased {
		x.marks++
	}
	x.book.Lost(r)
}

func TestWhatAFailingDiskDidNotTakeIsToldAndNeverReadAgain(t *testing.T) {
	for _, file := range []string{"data", "table"} {
		d, x := newFake(), &forgetful{book: newBook()}
		l, err := New(crashConfig(d), x)
		if err != nil {
			t.Fatal(err)
		}
		put := func(h uint64) Record {
			t.Helper()
			r, err := store(l, h, nil, bytesOf(h, 3000), 9999)
			if err != nil {
				t.Fatal(err)
			}
			x.put(r)
			return r
		}
		put(1)
		if err := l.flush(); err != nil {
			t.Fatal(err)
		}
		lost := []Record{put(2), put(3)}
		if err := l.Erase(1, 5); err != nil {
			t.Fatal(err)
		}
		held := new(Object)
		if err := l.Pin(lost[0].At, held); err != nil {
			t.Fatal(err)
		}
		d.fail = func(op, name string) error {
			if op == "write" && strings.HasSuffix(name, file) {
				return errIO
			}
			return nil
		}
		if err := l.flush(); err == nil {
			t.Fatal("no error")
		}
		held.Unpin()
		if _, ok := x.get(1); !ok || len(x.at) != 1 || x.lost != 2 || x.marks != 1 {
			t.Errorf("%s: %d left, %d lost, %d marks", file, len(x.at), x.lost, x.marks)
		}
		for _, r := range lost {
			if err := l.Pin(r.At, held); err != ErrGone {
				t.Errorf("%s: %v", file, err)
			}
		}
		if s := l.Stats(); s.LostWrites != 2 {
			t.Errorf("%+v", s)
		}
	}
}

func TestWhatHasLeftDoesNotComeBackAfterACrash(t *testing.T) {
	d, b := newFake(), newBook()
	l := openFake(t, d, b)
	for i := range uint64(200) {
		r, err := store(l, i, nil, bytesOf(i, 4000), 9999)
		if err == nil {
			b.put(r)
		}
		if err := l.flush(); err != nil {
			t.Fatal(err)
		}
		for l.short() && l.reclaim() {
		}
	}
	if b.retired < 100 {
		t.Fatalf("%d have left", b.retired)
	}
	if err := l.flush(); err != nil { // takes the tables away
		t.Fatal(err)
	}
	b2 := newBook()
	if openFake(t, d.copy(), b2); !maps.Equal(b2.at, b.at) {
		t.Errorf("%d found, %d were there", len(b2.at), len(b.at))
	}
}

func TestVisitTellsOfEachSegmentOnce(t *testing.T) {
	onAll(t, func(t *testing.T, m medium, l *Log, b *book) {
		for i := range uint64(40) {
			r, err := store(l, i, nil, bytesOf(i, 4000), 9999)
			if err != nil {
				t.Fatal(err)
			}
			b.put(r)
			if l.cfg.Dir != nil {
				if err := l.flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		seen := map[uint64]Record{}
		n := 0
		for seq := l.Visit(0, func(Record) {}); seq > 0; seq = l.Visit(seq, func(Record) {}) {
			n++
		}
		for seq := uint64(0); ; {
			if seq = l.Visit(seq, func(r Record) {
				if _, ok := seen[r.Hash]; ok {
					t.Errorf("%d is told of twice", r.Hash)
				}
				seen[r.Hash] = r
			}); seq == 0 {
				break
			}
		}
		if n < 2 || !maps.Equal(seen, b.at) {
			t.Errorf("%d segments, %d records of %d", n, len(seen), len(b.at))
		}
	})
}

func TestWhatADamagedTableDoesNotTellIsGoneWithItsSegment(t *testing.T) {
	for _, damage := range []func(b []byte) []byte{
		func(b []byte) []byte { b[fileHeader+frameHeader+3] ^= 1; return b },
		func(b []byte) []byte { b[0] ^= 1; return b },
		func([]byte) []byte { return nil },
	} {
		d, b := newFake(), newBook()
		b.keep = func(Record) bool { return true } // nobody goes but for damage
		l := openFake(t, d, b)
		for i := range uint64(30) {
			r, err := store(l, i, nil, bytesOf(i, 4000), 9999)
			if err != nil {
				t.Fatal(err)
			}
			b.put(r)
			if err := l.flush(); err != nil {
				t.Fatal(err)
			}
		}
		s := l.order[0]
		table := d.files[s.disk.table]
		table.data = damage(table.data)
		for range 40 {
			if l.order[0] != s {
				break
			}
			if r, err := store(l, 99, nil, bytesOf(99, 4000), 9999); err == nil {
				b.put(r)
			}
			if err := l.flush(); err != nil {
				t.Fatal(err)
			}
			for l.short() && l.reclaim() {
			}
		}
		if l.order[0] == s || b.lost == 0 {
			t.Fatalf("the segment has not left, or %d were lost", b.lost)
		}
		from, to := Location(s.base>>unitShift), Location((s.base+l.cfg.SegmentSize)>>unitShift)
		for h, r := range b.at {
			if s.seq.Load() == 0 && r.At >= from && r.At < to {
				t.Errorf("%d is still said to be in it", h)
			}
		}
	}
}

func TestAfterAStartWhatBeginsInASegmentThatLeavesIsOffered(t *testing.T) {
	d, b := newFake(), newBook()
	l := openFake(t, d, b)
	sizes := map[uint64]int{}
	for i := range uint64(4) { // longer than a stage: pieces, of which some lie in the segment before
		sizes[i] = 40_000
		r, err := store(l, i, nil, bytesOf(i, sizes[i]), 9999)
		if err != nil {
			t.Fatal(err)
		}
		b.put(r)
		if err := l.flush(); err != nil {
			t.Fatal(err)
		}
	}
	b = newBook()
	b.keep = func(Record) bool { return true }
	l = openFake(t, d.copy(), b)
	spans := 0
	for _, s := range l.segs {
		spans += len(s.spans)
	}
	if spans == 0 || len(b.at) != 4 {
		t.Fatalf("%d found, %d of them begin elsewhere", len(b.at), spans)
	}
	first := l.order[0]
	for i := uint64(100); l.order[0] == first; i++ {
		if r, err := store(l, i, nil, bytesOf(i, 4000), 9999); err == nil {
			sizes[i] = 4000
			b.put(r)
		}
		if err := l.flush(); err != nil {
			t.Fatal(err)
		}
		for l.short() && l.reclaim() {
		}
	}
	for h, r := range b.at {
		if err := check(t, l, r, nil, bytesOf(h, sizes[h])); err != nil {
			t.Errorf("%d: %v", h, err)
		}
	}
}
