package segment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// book is an Owner: a map, and a rule for the tail.
type book struct {
	mu      sync.Mutex
	at      map[uint64]Record
	keep    func(Record) bool
	retired int
	moved   int
	lost    int
}

func newBook() *book { return &book{at: map[uint64]Record{}} }

func (b *book) Found(r Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.Erased {
		delete(b.at, r.Hash)
		return
	}
	b.at[r.Hash] = r
}

func (b *book) put(r Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at[r.Hash] = r
}

func (b *book) get(hash uint64) (Record, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.at[hash]
	return r, ok
}

func (b *book) Retire(r Record) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.at[r.Hash].At != r.At {
		return false
	}
	if b.keep != nil && b.keep(r) {
		return true
	}
	b.retired++
	delete(b.at, r.Hash)
	return false
}

func (b *book) Moved(r Record, to Location) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.at[r.Hash].At == r.At {
		b.moved++
		r.At = to
		b.at[r.Hash] = r
		return true
	}
	return false
}

func (b *book) Lost(r Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.at[r.Hash].At == r.At {
		b.lost++
		delete(b.at, r.Hash)
	}
}

func (b *book) Gone(from, to Location) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for h, r := range b.at {
		if r.At >= from && r.At < to {
			b.lost++
			delete(b.at, h)
		}
	}
}

func bytesOf(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 7))
	for i := 0; i < n; i += 8 {
		v := r.Uint64()
		for j := i; j < min(i+8, n); j++ {
			b[j] = byte(v)
			v >>= 8
		}
	}
	return b
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// medium makes logs of one kind; drain stands for Run where a test wants no goroutines.
type medium struct {
	name  string
	cfg   func(t *testing.T) Config
	drain func(l *Log)
}

func media() []medium {
	small := Config{Limit: 1 << 20, SegmentSize: 64 << 10, StageBytes: 8 << 10, MaxObject: 400 << 10, MaxHead: 4 << 10, Log: quiet()}
	files := func(l *Log) {
		_ = l.flush()
		for l.short() && l.reclaim() {
		}
	}
	return []medium{
		{"memory", func(*testing.T) Config { return small }, func(*Log) {}},
		{"fake files", func(*testing.T) Config { c := small; c.Dir = newFake(); return c }, files},
		{"files", func(t *testing.T) Config {
			c := small
			d, err := OpenDir(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			c.Dir = d
			return c
		}, files},
	}
}

func onAll(t *testing.T, f func(t *testing.T, m medium, l *Log, b *book)) {
	for _, m := range media() {
		t.Run(m.name, func(t *testing.T) {
			b := newBook()
			l, err := New(m.cfg(t), b)
			if err != nil {
				t.Fatal(err)
			}
			f(t, m, l, b)
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func store(l *Log, hash uint64, head, body []byte, chunk int) (Record, error) {
	w, err := l.Create(Meta{Hash: hash, Born: int64(hash) * 3, Flags: uint16(hash), Key: fmt.Appendf(nil, "key %d", hash), Head: head, Length: -1})
	if err != nil {
		return Record{}, err
	}
	defer w.Abort()
	for p := body; len(p) > 0; {
		n := min(chunk, len(p))
		if err := w.Append(p[:n]); err != nil {
			return Record{}, err
		}
		p = p[n:]
	}
	return w.Commit(int64(len(body)))
}

// check reads a record in all the ways there are. It gives an error for a miss, and fails the
// test for anything that is not what was stored.
func check(t *testing.T, l *Log, r Record, head, body []byte) error {
	t.Helper()
	var o Object
	if err := l.Pin(r.At, &o); err != nil {
		return err
	}
	defer o.Unpin()
	if string(o.Key()) != fmt.Sprintf("key %d", r.Hash) {
		return ErrGone
	}
	if !bytes.Equal(o.Head(), head) || o.Len() != int64(len(body)) || o.Born != int64(r.Hash)*3 || o.Flags != uint16(r.Hash) {
		t.Fatalf("head %q, length %d, born %d, flags %d of %d", o.Head(), o.Len(), o.Born, o.Flags, r.Hash)
	}
	got := make([]byte, len(body))
	if n, err := o.ReadAt(got, 0); err != nil || n != len(body) {
		if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrGone) || errors.Is(err, errIO) {
			return err
		}
		t.Fatal(n, err)
	}
	if !bytes.Equal(got, body) {
		t.Fatalf("body of %d is wrong", r.Hash)
	}
	rng := rand.New(rand.NewPCG(r.Hash, 1))
	for range 4 {
		if len(body) == 0 {
			break
		}
		off := rng.IntN(len(body))
		n := 1 + rng.IntN(len(body)-off)
		if m, err := o.ReadAt(got[:n], int64(off)); err != nil || m != n || !bytes.Equal(got[:n], body[off:off+n]) {
			t.Fatalf("range %d+%d of %d: %d, %v", off, n, r.Hash, m, err)
		}
		if b, ok := o.Slice(int64(off), int64(n)); ok && !bytes.Equal(b, body[off:off+len(b)]) || ok && len(b) == 0 {
			t.Fatalf("slice %d+%d of %d", off, n, r.Hash)
		}
		var span Span
		ok, err := o.File(int64(off), int64(n), &span)
		if err != nil {
			t.Fatal(err)
		}
		if ok && (span.Len <= 0 || int64(len(span.Lead))+span.Len > int64(n) || !bytes.Equal(spanned(t, &span), body[off:off+len(span.Lead)+int(span.Len)])) {
			t.Fatalf("file %d+%d of %d: %d lead, %d+%d", off, n, r.Hash, len(span.Lead), span.At, span.Len)
		}
	}
	return nil
}

// spanned reads what a span says as the kernel would.
func spanned(t *testing.T, span *Span) []byte {
	b := make([]byte, len(span.Lead)+int(span.Len))
	copy(b, span.Lead)
	read := func(fd uintptr) {
		if n, err := syscall.Pread(int(fd), b[len(span.Lead):], span.At); int64(n) != span.Len || err != nil {
			t.Errorf("%d of %d bytes: %v", n, span.Len, err)
		}
	}
	if err := span.File.Control(read); err != nil {
		t.Error(err)
	}
	return b
}

func TestWhatWasCommittedIsReadAtOnceAndAfterTheFlush(t *testing.T) {
	onAll(t, func(t *testing.T, m medium, l *Log, b *book) {
		for i, size := range []int{0, 1, 63, 64, 65, 1000, 4000, 8 << 10, 8<<10 + 1, 16 << 10, 40 << 10, 70000, 100000, 110000} {
			for _, chunk := range []int{7, 1000, 1 << 20} {
				if chunk == 7 && size > 5000 {
					continue
				}
				h := uint64(i*10 + chunk%10)
				head, body := bytesOf(h, i*100), bytesOf(h+1000, size)
				r, err := store(l, h, head, body, chunk)
				if err != nil {
					t.Fatal(size, chunk, err)
				}
				b.put(r)
				if err := check(t, l, r, head, body); err != nil {
					t.Fatal(size, chunk, err)
				}
				m.drain(l)
				if err := check(t, l, r, head, body); err != nil {
					t.Fatal(size, chunk, err)
				}
			}
		}
		if s := l.Stats(); s.Writers != 0 || s.Queued > 2<<20 || s.BadBlocks+s.BadHeads != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestStreamsThatInterleaveKeepTheirBodies(t *testing.T) {
	onAll(t, func(t *testing.T, m medium, l *Log, b *book) {
		var ws []*Writer
		var bodies [][]byte
		for i := range 8 {
			w, err := l.Create(Meta{Hash: uint64(i), Born: int64(i) * 3, Flags: uint16(i), Key: fmt.Appendf(nil, "key %d", i), Length: -1})
			if err != nil {
				t.Fatal(err)
			}
			ws, bodies = append(ws, w), append(bodies, bytesOf(uint64(i), 20000+i*3000))
		}
		rng := rand.New(rand.NewPCG(1, 2))
		sent := make([]int, len(ws))
		for open := len(ws); open > 0; {
			i := rng.IntN(len(ws))
			n := min(1+rng.IntN(3000), len(bodies[i])-sent[i])
			if n == 0 {
				continue
			}
			if err := ws[i].Append(bodies[i][sent[i] : sent[i]+n]); err != nil {
				t.Fatal(err)
			}
			sent[i] += n
			got := make([]byte, sent[i])
			if n, err := ws[i].ReadAt(got, 0); n != sent[i] || err != nil || !bytes.Equal(got, bodies[i][:n]) {
				t.Fatalf("while it comes: %d of %d, %v", n, sent[i], err)
			}
			if sent[i] == len(bodies[i]) {
				open--
				r, err := ws[i].Commit(int64(sent[i]))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := ws[i].ReadAt(got, 0); err != ErrClosed {
					t.Error(err)
				}
				b.put(r)
			}
			if rng.IntN(5) == 0 {
				m.drain(l)
			}
		}
		for i := range ws {
			r, _ := b.get(uint64(i))
			if err := check(t, l, r, nil, bodies[i]); err != nil {
				t.Error(i, err)
			}
		}
	})
}

func TestRandomOperationsAgainstAMap(t *testing.T) {
	onAll(t, func(t *testing.T, m medium, l *Log, b *book) {
		rng := rand.New(rand.NewPCG(3, 4))
		b.keep = func(r Record) bool { return r.Hash%3 == 0 }
		version := map[uint64]uint64{}
		hits, misses := 0, 0
		var pinned []*Object
		for i := range 6000 {
			h := uint64(rng.IntN(120))
			switch rng.IntN(12) {
			case 0, 1, 2, 3:
				v := uint64(i)
				size := rng.IntN(3000)
				if rng.IntN(30) == 0 {
					size = rng.IntN(150 << 10)
				}
				r, err := store(l, h, bytesOf(v, 50), bytesOf(v, size), 1+rng.IntN(20000))
				if err == ErrBusy && len(pinned) > 0 {
					continue
				}
				if err != nil {
					t.Fatal(i, err)
				}
				b.put(r)
				version[h] = v
			case 4:
				r, ok := b.get(h)
				if !ok {
					continue
				}
				v := uint64(i)
				nr, err := l.Rehead(r.At, Meta{Hash: h, Born: int64(h) * 3, Flags: uint16(h), Key: fmt.Appendf(nil, "key %d", h), Head: bytesOf(v, 50)})
				if err != nil && err != ErrBusy {
					t.Fatal(i, err)
				}
				if err == nil {
					b.put(nr)
					version[h] = version[h]&0xffffffff | v<<32
				}
			case 5:
				w, err := l.Create(Meta{Hash: h, Key: []byte("x"), Length: -1})
				if err == nil {
					_ = w.Append(bytesOf(1, rng.IntN(20000)))
					w.Abort()
				}
			case 6:
				m.drain(l)
			case 7:
				if r, ok := b.get(h); ok {
					o := new(Object)
					if l.Pin(r.At, o) == nil {
						pinned = append(pinned, o)
					}
				}
				if len(pinned) > 3 {
					verifyPinned(t, pinned[0])
					pinned = pinned[1:]
				}
			default:
				r, ok := b.get(h)
				if !ok {
					misses++
					continue
				}
				v := version[h]
				head := v >> 32
				if head == 0 {
					head = v
				}
				if err := check(t, l, r, bytesOf(head, 50), bytesOf(v&0xffffffff, int(r.Size))); err != nil {
					t.Fatal(i, h, err)
				}
				hits++
			}
		}
		for _, o := range pinned {
			o.Unpin()
		}
		s := l.Stats()
		if hits < 1000 || misses == 0 || s.Reclaimed < 10 || s.Rewritten == 0 || b.retired == 0 || s.BadBlocks+s.BadHeads != 0 {
			t.Errorf("%d hits, %d misses, %+v", hits, misses, s)
		}
	})
}

// verifyPinned reads an object whose segments have long left at the tail.
func verifyPinned(t *testing.T, o *Object) {
	t.Helper()
	got := make([]byte, o.Len())
	if _, err := o.ReadAt(got, 0); err != nil && o.Len() > 0 {
		t.Fatal(err)
	}
	o.Unpin()
	o.Unpin()
}

func TestAPinnedSegmentIsNotUsedAgainAndTheNextOneIs(t *testing.T) {
	onAll(t, func(t *testing.T, m medium, l *Log, b *book) {
		body := bytesOf(9, 5000)
		r, err := store(l, 1, nil, body, 5000)
		if err != nil {
			t.Fatal(err)
		}
		b.put(r)
		var o Object
		if err := l.Pin(r.At, &o); err != nil {
			t.Fatal(err)
		}
		fill := func() {
			for i := range 600 {
				r, err := store(l, uint64(100+i), nil, bytesOf(1, 5000), 5000)
				if err != nil {
					t.Fatal(i, err)
				}
				b.put(r)
				m.drain(l)
			}
		}
		fill()
		if s := l.Stats(); s.PinnedAtReclaim != 1 || s.Draining != 1 {
			t.Errorf("%+v", s)
		}
		if err := l.Pin(r.At, new(Object)); err != ErrGone {
			t.Errorf("a retired segment was pinned: %v", err)
		}
		got := make([]byte, len(body))
		if n, err := o.ReadAt(got, 0); n != len(body) || !bytes.Equal(got, body) {
			t.Error(n, err)
		}
		o.Unpin()
		fill()
		if s := l.Stats(); s.Draining != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestWhenReadersPinHalfOfTheLogNothingNewIsStoredAndNothingElseLost(t *testing.T) {
	onAll(t, func(t *testing.T, m medium, l *Log, b *book) {
		var pins []*Object
		var err error
		for i := 0; i < 2000 && err == nil; i++ {
			var r Record
			if r, err = store(l, uint64(i), nil, bytesOf(1, 7000), 7000); err == nil {
				b.put(r)
				o := new(Object)
				if err := l.Pin(r.At, o); err != nil {
					t.Fatal(err)
				}
				pins = append(pins, o)
			}
			m.drain(l)
		}
		s := l.Stats()
		if err != ErrBusy || s.Draining != s.Segments/2 || s.RefusedBusy == 0 {
			t.Errorf("%v %+v", err, s)
		}
		for _, o := range pins {
			o.Unpin()
		}
		if _, err := store(l, 1, nil, bytesOf(1, 7000), 7000); err != nil {
			t.Error(err)
		}
	})
}

func TestABodyThatTakesLongerThanTheLogIsLongIsNotStored(t *testing.T) {
	onAll(t, func(t *testing.T, m medium, l *Log, b *book) {
		w, err := l.Create(Meta{Hash: 1, Key: []byte("k"), Length: -1})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Append(bytesOf(1, 20000)); err != nil {
			t.Fatal(err)
		}
		for i := range 600 {
			r, err := store(l, uint64(100+i), nil, bytesOf(1, 5000), 5000)
			if err != nil {
				t.Fatal(err)
			}
			b.put(r)
			m.drain(l)
		}
		if _, err := w.ReadAt(make([]byte, 10), 0); err != ErrGone {
			t.Error(err)
		}
		if _, err := w.Commit(20000); err != ErrOverrun || l.Stats().RefusedOverrun != 1 {
			t.Error(err)
		}
	})
}

func TestLimitsRefuseAndCount(t *testing.T) {
	onAll(t, func(t *testing.T, m medium, l *Log, _ *book) {
		if _, err := l.Create(Meta{Length: l.cfg.MaxObject + 1}); err != ErrTooLarge {
			t.Error(err)
		}
		if _, err := l.Create(Meta{Key: make([]byte, 5<<10), Length: -1}); err != ErrTooLarge {
			t.Error(err)
		}
		if _, err := store(l, 1, nil, make([]byte, l.cfg.MaxObject+1), 9999); err != ErrTooLarge {
			t.Error(err)
		}
		w, _ := l.Create(Meta{Length: 10})
		_ = w.Append([]byte("short"))
		if _, err := w.Commit(10); err != ErrLength {
			t.Error(err)
		}
		if _, err := w.Commit(5); err != ErrClosed {
			t.Error(err)
		}
		l.cfg.Writers = 2
		var open []*Writer
		var err error
		for i := 0; i < 5 && err == nil; i++ {
			var w *Writer
			if w, err = l.Create(Meta{Length: -1}); err == nil {
				open = append(open, w)
			}
		}
		if err != ErrBacklog || len(open) != 2 {
			t.Error(err, len(open))
		}
		l.cfg.QueueBytes = l.n.queued.Load()
		if err := open[0].Append([]byte("x")); err != ErrBacklog {
			t.Error(err)
		}
		for _, w := range open {
			w.Abort()
			w.Abort()
		}
		s := l.Stats()
		if s.RefusedTooLarge != 3 || s.RefusedLength != 1 || s.RefusedBacklog != 2 || s.Writers != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestABodyCannotImitateARecord(t *testing.T) {
	onAll(t, func(t *testing.T, m medium, l *Log, _ *book) {
		// The whole record of another object, taken from this very log, within a body.
		r, err := store(l, 7, []byte("head"), []byte("body"), 10)
		if err != nil {
			t.Fatal(err)
		}
		s, off := l.at(int64(r.At) << unitShift)
		forged := make([]byte, 128)
		if err := l.read(s, off, forged); err != nil {
			t.Fatal(err)
		}
		body := bytes.Repeat(forged, 60)
		if r, err = store(l, 8, nil, body, len(body)); err != nil {
			t.Fatal(err)
		}
		var o Object
		for i := Location(1); i < Location(len(body)/64); i++ {
			if err := l.Pin(r.At+i, &o); err == nil {
				t.Fatalf("%d: %q", i, o.Key())
			}
		}
	})
}

func TestPinAndReadAllocateNothing(t *testing.T) {
	onAll(t, func(t *testing.T, m medium, l *Log, _ *book) {
		var rs []Record
		for i, size := range []int{1000, 7000, 100000} {
			r, err := store(l, uint64(i), bytesOf(1, 300), bytesOf(2, size), 50000)
			if err != nil {
				t.Fatal(err)
			}
			rs = append(rs, r)
		}
		m.drain(l)
		if m.name == "fake files" {
			return
		}
		var o Object
		var span Span
		p := make([]byte, 16<<10)
		if n := testing.AllocsPerRun(100, func() {
			for _, r := range rs {
				if l.Pin(r.At, &o) != nil {
					t.Fatal("gone")
				}
				for off := int64(0); off < o.Len(); off += int64(len(p)) {
					_, _ = o.ReadAt(p[:min(int64(len(p)), o.Len()-off)], off)
					_, _ = o.Slice(off, 100)
					_, _ = o.File(off, 16<<10, &span)
				}
				o.Unpin()
			}
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

func TestManyWritersAndReadersAtOnce(t *testing.T) {
	for _, m := range media() {
		t.Run(m.name, func(t *testing.T) {
			b := newBook()
			b.keep = func(r Record) bool { return r.Hash%2 == 0 }
			cfg := m.cfg(t)
			cfg.FlushEvery, cfg.SyncEvery, cfg.ScrubRate = 1e6, 1e7, 100<<20
			l, err := New(cfg, b)
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			ran := make(chan error)
			go func() { ran <- l.Run(ctx) }()
			var wg sync.WaitGroup
			for g := range 4 {
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(uint64(g), 1))
					for range 400 {
						h := uint64(g*1000 + rng.IntN(40))
						size := int(h%50) * 200
						if r, err := store(l, h, nil, bytesOf(h, size), 1+rng.IntN(5000)); err == nil {
							b.put(r)
						} else if err != ErrBusy && err != ErrBacklog {
							t.Error(err)
						}
						h = uint64(rng.IntN(4)*1000 + rng.IntN(40))
						if r, ok := b.get(h); ok {
							if err := check(t, l, r, nil, bytesOf(h, int(h%50)*200)); err != nil && err != ErrGone && err != ErrCorrupt {
								t.Error(err)
							}
						}
					}
				})
			}
			wg.Wait()
			stop()
			if err := <-ran; err != nil {
				t.Error(err)
			}
			if s := l.Stats(); s.BadBlocks+s.ScrubBad+s.WriteErrors != 0 || s.Commits == 0 || s.Writers != 0 {
				t.Errorf("%+v", s)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
