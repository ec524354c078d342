package segment

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
)

// dense tries many more crashes than a change needs: go test -run 'Killed|Power|Flipped' -args -dense
var dense = flag.Bool("dense", false, "try crashes densely")

// what is the truth about one version of an object; Born is the version's number.
type what struct {
	hash       uint64
	head, body uint64
	size       int
}

// state is what was current at a moment at which all was in files, or synced.
type state struct {
	current map[uint64]Record
	erased  map[uint64]int64 // versions that must not come back
	written int
	changes int
	synced  []bool
}

// story is a life of a log over a fake directory, with all that was true at its flushes.
type story struct {
	dir      *fake
	cfg      Config
	versions map[int64]what
	flushes  []state
	syncs    []state
}

func crashConfig(d Dir) Config {
	return Config{Limit: 5 * 64 << 10, SegmentSize: 64 << 10, StageBytes: 4 << 10, QueueBytes: 1 << 20, MaxObject: 80 << 10, MaxHead: 2 << 10, Dir: d, Log: quiet()}
}

func tell(t *testing.T, seed uint64, ops int) *story {
	t.Helper()
	d := newFake()
	st := &story{dir: d, cfg: crashConfig(d), versions: map[int64]what{}}
	b := newBook()
	b.keep = func(r Record) bool { return r.Hash%2 == 0 }
	l, err := New(st.cfg, b)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	erased := map[uint64]int64{}
	note := func(to *[]state) {
		*to = append(*to, state{maps.Clone(b.at), maps.Clone(erased), d.written(), len(d.log), d.syncedNow()})
	}
	note(&st.flushes)
	for v := int64(1); v <= int64(ops); v++ {
		h := uint64(rng.IntN(20))
		m := Meta{Hash: h, Born: v, Key: fmt.Appendf(nil, "key %d", h), Head: bytesOf(uint64(v), 30), Length: -1}
		old, had := b.get(h)
		var r Record
		err = nil
		switch n := rng.IntN(10); {
		case n == 0 && had:
			if err = l.Erase(h, v); err == nil {
				delete(b.at, h)
				erased[h] = v
			}
			continue
		case n == 1 && had:
			x := st.versions[old.Born]
			st.versions[v] = what{h, uint64(v), x.body, x.size}
			r, err = l.Rehead(old.At, m)
		default:
			size := rng.IntN(2500)
			if rng.IntN(12) == 0 {
				size = rng.IntN(70 << 10)
			}
			st.versions[v] = what{h, uint64(v), uint64(v), size}
			var w *Writer
			if w, err = l.Create(m); err == nil {
				if err = w.Append(bytesOf(uint64(v), size)); err == nil {
					r, err = w.Commit(int64(size))
				}
				w.Abort()
			}
		}
		if err == nil {
			b.put(r)
			delete(erased, h)
		} else if err != ErrBusy && err != ErrGone {
			t.Fatal(err)
		}
		if rng.IntN(4) == 0 {
			if err := l.flush(); err != nil {
				t.Fatal(err)
			}
			note(&st.flushes)
			if rng.IntN(3) == 0 {
				l.sync()
				note(&st.syncs)
			}
			for l.short() && l.reclaim() {
			}
		}
	}
	if l.Stats().Reclaimed < 3 || l.Stats().Rewritten == 0 {
		t.Fatalf("the story is too short: %+v", l.Stats())
	}
	return st
}

// reopen opens what a crash left and reads all that was found. It returns what can be read.
func (st *story) reopen(t *testing.T, d *fake, name string) (*Log, *book, map[uint64]Record) {
	t.Helper()
	b := newBook()
	cfg := st.cfg
	cfg.Dir = d
	l, err := New(cfg, b)
	if err != nil {
		t.Fatal(name, err)
	}
	good := map[uint64]Record{}
	var o Object
	for h, r := range b.at {
		if l.Pin(r.At, &o) != nil {
			continue
		}
		x, ok := st.versions[o.Born]
		if string(o.Key()) != fmt.Sprintf("key %d", x.hash) || !ok || !bytes.Equal(o.Head(), bytesOf(x.head, 30)) || o.Len() != int64(x.size) {
			t.Fatalf("%s: a head that was never stored: %q %+v", name, o.Key(), o.Record)
		}
		got := make([]byte, o.Len())
		if n, err := o.ReadAt(got, 0); err == nil || o.Len() == 0 {
			if !bytes.Equal(got, bytesOf(x.body, x.size)) {
				t.Fatalf("%s: %d has a wrong body, %d bytes", name, h, n)
			}
			if x.hash == h && o.Born == r.Born {
				good[h] = r
			}
		}
	}
	o.Unpin()
	return l, b, good
}

func TestKilledAtAnyByteItLosesOnlyWhatWasNotFlushed(t *testing.T) {
	st := tell(t, 1, 300)
	rng := rand.New(rand.NewPCG(9, 9))
	next, at, reopened, sparse := 0, 0, 0, 6
	if *dense {
		sparse = 1
	}
	for _, c := range st.dir.log {
		step := 2500
		if len(c.data) < 4000 {
			step = 250 // mostly tables
		}
		size := max(len(c.data), 1)
		if rng.IntN(sparse) > 0 {
			at += size
			continue
		}
		for in := 0; in < size; in += 1 + rng.IntN(step*2) {
			cut := at + in
			for next+1 < len(st.flushes) && st.flushes[next+1].written <= cut {
				next++
			}
			name := fmt.Sprintf("cut at %d in %s", cut, c.name)
			l, b, good := st.reopen(t, st.dir.killed(cut), name)
			reopened++
			st.holds(t, name, next, good, b)
			if reopened%20 == 0 {
				st.goOn(t, name, l, b)
			}
		}
		at += size
	}
	if reopened < 50 {
		t.Errorf("only %d crashes", reopened)
	}
	t.Logf("%d crashes, %d flushes", reopened, len(st.flushes))
}

// holds checks what was flushed before a crash and would also be true at the next flush.
func (st *story) holds(t *testing.T, name string, i int, good map[uint64]Record, b *book) {
	t.Helper()
	before := st.flushes[i]
	after := st.flushes[min(i+1, len(st.flushes)-1)]
	for h, r := range before.current {
		if after.current[h].Born != r.Born {
			continue
		}
		if good[h].Born != r.Born {
			t.Fatalf("%s: %d version %d was flushed and is lost (found %+v)", name, h, r.Born, b.at[h])
		}
	}
	for h, v := range before.erased {
		if r, ok := b.at[h]; ok && r.Born < v {
			t.Fatalf("%s: %d version %d was erased by %d and came back", name, h, r.Born, v)
		}
	}
}

// goOn writes to what a crash left, and crashes again.
func (st *story) goOn(t *testing.T, name string, l *Log, b *book) {
	t.Helper()
	v := int64(1_000_000)
	for range 60 {
		v++
		size := int(v*7919) % 9000
		h := uint64(v % 20)
		st.versions[v] = what{h, uint64(v), uint64(v), size}
		w, err := l.Create(Meta{Hash: h, Born: v, Key: fmt.Appendf(nil, "key %d", h), Head: bytesOf(uint64(v), 30), Length: int64(size)})
		if err != nil {
			t.Fatal(name, err)
		}
		_ = w.Append(bytesOf(uint64(v), size))
		r, err := w.Commit(int64(size))
		if err == nil {
			b.put(r)
		} else if err != ErrBusy {
			t.Fatal(name, err)
		}
		if err := l.flush(); err != nil {
			t.Fatal(name, err)
		}
		for l.short() && l.reclaim() {
		}
	}
	want := maps.Clone(b.at)
	_, b2, good := st.reopen(t, l.cfg.Dir.(*fake).copy(), name+", again")
	for h, r := range want {
		if r.Born > 1_000_000 && good[h].Born != r.Born {
			t.Fatalf("%s, again: %d version %d is lost: was %+v, found %+v", name, h, r.Born, r, b2.at[h])
		}
	}
}

// copy takes the files as they are: a directory that a crash made has no history of its own.
func (d *fake) copy() *fake {
	out := newFake()
	for n, f := range d.files {
		out.file(n).data = bytes.Clone(f.data)
	}
	return out
}

func TestWhenThePowerGoesInAnyOrderOfSectorsNoBodyIsWrong(t *testing.T) {
	found, seeds, cuts := 0, uint64(1), 2
	if *dense {
		seeds, cuts = 3, 8
	}
	for seed := range seeds {
		st := tell(t, 10+seed, 250)
		rng := rand.New(rand.NewPCG(seed, 3))
		for i, s := range st.syncs {
			until := len(st.dir.log)
			if i+1 < len(st.syncs) {
				until = st.syncs[i+1].changes
			}
			for range cuts {
				n := s.changes + rng.IntN(until-s.changes+1)
				synced := make([]bool, n)
				copy(synced, s.synced)
				name := fmt.Sprintf("seed %d, power cut after %d of %d changes", seed, n, len(st.dir.log))
				l, b, good := st.reopen(t, st.dir.powerless(n, rng, synced), name)
				st.kept(t, name, s, n, good)
				found += len(good)
				if rng.IntN(10) == 0 {
					st.goOn(t, name, l, b)
				}
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d objects were found in all", found)
	}
}

// kept checks that what was synced is there while its segment was not begun anew. A hash that
// was stored again since may have lost both: the newer's table may be there without its data.
func (st *story) kept(t *testing.T, name string, s state, n int, good map[uint64]Record) {
	t.Helper()
	anew := map[string]bool{}
	for _, c := range st.dir.log[s.changes:n] {
		if c.truncate {
			anew[c.name] = true
		}
	}
	if len(anew) > 0 {
		return
	}
	for h, r := range s.current {
		for _, f := range st.flushes {
			if f.changes >= s.changes && f.current[h].Born != r.Born {
				r.Born = -1 // stored again later, perhaps before the cut
			}
		}
		if r.Born >= 0 && good[h].Born != r.Born {
			t.Fatalf("%s: %d version %d was synced and is lost", name, h, r.Born)
		}
	}
}

func TestFlippedBitsAreMissesAndCounted(t *testing.T) {
	st := tell(t, 5, 300)
	whole := st.dir.killed(1 << 40)
	rng := rand.New(rand.NewPCG(5, 5))
	misses := int64(0)
	rounds := 40
	if *dense {
		rounds = 150
	}
	for i := range rounds {
		d := whole.copy()
		for range 1 + rng.IntN(20) {
			for n, f := range d.files {
				if n != storeName && len(f.data) > 0 && rng.IntN(3) == 0 {
					f.data[rng.IntN(len(f.data))] ^= 1 << rng.IntN(8)
				}
			}
		}
		l, _, _ := st.reopen(t, d, fmt.Sprintf("flips %d", i))
		s := l.Stats()
		misses += s.BadHeads + s.BadBlocks + s.BadTables + s.DroppedFiles + s.AlienFiles
	}
	if misses < 25 {
		t.Errorf("only %d misses were counted", misses)
	}
}
