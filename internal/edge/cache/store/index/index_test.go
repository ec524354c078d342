package index

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

func newIndex(t testing.TB, objects int) *Index {
	t.Helper()
	x, err := New(Config{Objects: objects})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

// spread makes the hash of a number, as a good hash function would.
func spread(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

func has(x *Index, hash uint64, e Entry) bool {
	c := x.Lookup(hash)
	return slices.Contains(c.Entries[:c.N], e)
}

func TestWhatIsInsertedIsFoundReplacedAndDeleted(t *testing.T) {
	x := newIndex(t, 0)
	if c := x.Lookup(7); c.N != 0 {
		t.Fatal("an empty index finds", c)
	}
	for _, e := range []Entry{{0, 0}, {MaxLocation, 255}} {
		if !x.Insert(7, e) || !has(x, 7, e) {
			t.Fatalf("%v is not found: %v", e, x.Lookup(7))
		}
		if !x.Insert(7, e) || x.Lookup(7).N != 1 || x.Len() != 1 {
			t.Fatalf("the same entry twice: %v, %d objects", x.Lookup(7), x.Len())
		}
		if !x.Replace(7, e.Location, 42) || !has(x, 7, Entry{42, e.Class}) || has(x, 7, e) {
			t.Fatalf("replaced: %v", x.Lookup(7))
		}
		if x.Replace(7, e.Location, 43) || x.Delete(7, e.Location) {
			t.Fatal("what is at another location was replaced or deleted")
		}
		if !x.Delete(7, 42) || x.Lookup(7).N != 0 || x.Len() != 0 {
			t.Fatalf("deleted: %v", x.Lookup(7))
		}
	}
	if x.Insert(7, Entry{Location: MaxLocation + 1}) || x.Replace(7, 0, MaxLocation+1) {
		t.Fatal("a location too large for an entry was taken")
	}
}

func TestObjectsOfOneTagAreAllCandidatesUpToTheLimit(t *testing.T) {
	x := newIndex(t, 0)
	const hash = 0xabcdef0000001234
	for i := range Location(MaxCandidates) {
		if !x.Insert(hash, Entry{Location: i}) {
			t.Fatal(i, "is refused")
		}
	}
	if x.Insert(hash, Entry{Location: 99}) || x.Stats().Crowded != 1 {
		t.Fatal("one more than can be told is taken, or not counted")
	}
	// Others that share the buckets do not push them out.
	for i := range uint64(1500) {
		x.Insert(hash&^0xffff|i*43%0x10000, Entry{Location: Location(1000 + i)})
	}
	for i := range Location(MaxCandidates) {
		if !has(x, hash, Entry{Location: i}) {
			t.Fatal(i, "is lost")
		}
	}
}

func TestAFullShardRefusesAndKeepsWhatItHas(t *testing.T) {
	x := newIndex(t, 0)
	kept := map[uint64]Entry{}
	for i := uint64(0); x.Stats().Full < 50; i++ {
		hash := spread(i) >> 4 // all in one shard
		e := Entry{Location(i), uint8(i)}
		if x.Insert(hash, e) {
			kept[hash] = e
		}
	}
	if n := len(kept); n != x.Len() || n < MaxShardEntries*9/10 || n > MaxShardEntries {
		t.Fatalf("%d taken, %d told, of %d places", n, x.Len(), MaxShardEntries)
	}
	for hash, e := range kept {
		if !has(x, hash, e) {
			t.Fatalf("%x is lost", hash)
		}
	}
	if s := x.Stats(); s.Lost != 0 {
		t.Fatalf("%+v", s)
	}
	// It gives back what it took.
	for hash, e := range kept {
		if !x.Delete(hash, e.Location) {
			t.Fatalf("%x cannot be deleted", hash)
		}
	}
	used := x.Bytes()
	for i := range uint64(2000) {
		x.Insert(spread(i)>>4|1<<63, Entry{Location: Location(i)})
	}
	if x.Bytes() != used {
		t.Fatalf("chunks given back are not used again: %d bytes, then %d", used, x.Bytes())
	}
}

// model does what an index should do with a map of lists, and compares.
type model struct {
	t    testing.TB
	x    *Index
	want map[uint64][]Entry
}

func (m *model) insert(hash uint64, e Entry) {
	got := m.x.Insert(hash, e)
	list := m.want[hash]
	at := slices.IndexFunc(list, func(o Entry) bool { return o.Location == e.Location })
	switch {
	case at >= 0 && !got:
		m.t.Fatalf("insert %x %v: false, but it is there", hash, e)
	case at < 0 && got:
		m.want[hash] = append(list, e)
	case at < 0:
		// Refused is right only for a tag that many objects share, or a shard that is full.
		if s := m.x.Stats(); s.Crowded+s.Full == 0 {
			m.t.Fatalf("insert %x %v: refused for no reason", hash, e)
		}
	}
}

func (m *model) replace(hash uint64, old, location Location) {
	list := m.want[hash]
	at := slices.IndexFunc(list, func(o Entry) bool { return o.Location == old })
	if got := m.x.Replace(hash, old, location); got != (at >= 0) {
		m.t.Fatalf("replace %x %d: %v", hash, old, got)
	}
	if at >= 0 {
		list[at].Location = location
	}
}

func (m *model) delete(hash uint64, location Location) {
	list := m.want[hash]
	at := slices.IndexFunc(list, func(o Entry) bool { return o.Location == location })
	if got := m.x.Delete(hash, location); got != (at >= 0) {
		m.t.Fatalf("delete %x %d: %v", hash, location, got)
	}
	if at >= 0 {
		m.want[hash] = slices.Delete(list, at, at+1)
	}
}

func (m *model) compare() {
	total := 0
	for hash, list := range m.want {
		total += len(list)
		for _, e := range list {
			if !has(m.x, hash, e) {
				m.t.Fatalf("%x %v is not found: %v", hash, e, m.x.Lookup(hash))
			}
		}
	}
	ranged := 0
	m.x.Range(func(Entry) bool { ranged++; return true })
	if s := m.x.Stats(); total != m.x.Len() || total != ranged || s.Lost != 0 {
		m.t.Fatalf("%d objects, %d told, %d ranged over, %+v", total, m.x.Len(), ranged, s)
	}
}

func TestRandomOperationsAgainstAMap(t *testing.T) {
	for seed := range uint64(2) {
		x := newIndex(t, 4096)
		m := model{t, x, map[uint64][]Entry{}}
		rng := rand.New(rand.NewPCG(seed, 1))
		next := Location(0) // no two objects are at one place of the log
		for round := range 4 {
			for range 20_000 {
				hash := spread(rng.Uint64N(40_000))
				if rng.IntN(10) == 0 {
					hash = hash&^0xffff | 5 // crowd a tag
				}
				location := next + 7 // nobody is there
				if list := m.want[hash]; len(list) > 0 && rng.IntN(10) > 0 {
					location = list[rng.IntN(len(list))].Location
				}
				next++
				switch op := rng.IntN(10); {
				case op < 2:
					m.replace(hash, location, next)
				case op < 4 || round%2 == 1 && op < 9: // the number of objects rises and falls
					m.delete(hash, location)
				default:
					m.insert(hash, Entry{next, uint8(next)})
				}
			}
			m.compare()
		}
		even := x.Sweep(func(e Entry) bool { return e.Location%2 == 0 })
		for hash, list := range m.want {
			m.want[hash] = slices.DeleteFunc(list, func(e Entry) bool {
				if e.Location%2 == 0 {
					even--
				}
				return e.Location%2 == 0
			})
		}
		if even != 0 {
			t.Fatalf("%d swept too many", even)
		}
		m.compare()
	}
}

func TestReadersMissNothingWhileOthersWrite(t *testing.T) {
	x := newIndex(t, 2048)
	const stay, writers = 2000, 2
	for i := range uint64(stay) {
		if !x.Insert(spread(i), Entry{Location(i), 1}) {
			t.Fatal("refused")
		}
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	for w := range uint64(writers) {
		wg.Go(func() { // shards grow and shrink around what stays
			for round := range uint64(3) {
				for i := range uint64(4000) {
					x.Insert(spread(1<<32|w<<24|i), Entry{Location(1<<30 + round), 2})
				}
				for i := range uint64(4000) {
					x.Delete(spread(1<<32|w<<24|i), Location(1<<30+round))
				}
			}
			stop.Store(true)
		})
	}
	wg.Go(func() { // what stays moves in the log
		for k := uint64(1); !stop.Load(); k++ {
			for i := range uint64(stay) {
				if !x.Replace(spread(i), Location(i+(k-1)%7*stay), Location(i+k%7*stay)) {
					t.Errorf("%d cannot be replaced", i)
					return
				}
			}
		}
	})
	for range 2 {
		wg.Go(func() {
			for i := uint64(0); !stop.Load(); i = (i + 1) % stay {
				c := x.Lookup(spread(i))
				if !slices.ContainsFunc(c.Entries[:c.N], func(e Entry) bool { return uint64(e.Location)%stay == i && e.Class == 1 }) {
					t.Errorf("%d is not found: %v", i, c)
					return
				}
			}
		})
	}
	wg.Wait()
	if x.Len() != stay {
		t.Fatalf("%d objects, want %d", x.Len(), stay)
	}
}

func TestARangeEndsWhenItsVisitorSaysSo(t *testing.T) {
	x := newIndex(t, 0)
	for i := range uint64(100) {
		x.Insert(spread(i), Entry{Location: Location(i)})
	}
	n := 0
	x.Range(func(Entry) bool { n++; return n < 10 })
	if n != 10 {
		t.Fatal(n, "visited")
	}
}

func TestOperationsAllocateNothing(t *testing.T) {
	x := newIndex(t, 1<<16)
	for i := range uint64(1 << 16) {
		x.Insert(spread(i), Entry{Location: Location(i)})
	}
	i := uint64(0)
	if n := testing.AllocsPerRun(2000, func() {
		h := spread(i)
		if x.Lookup(h).N == 0 || !x.Replace(h, Location(i), Location(i+1)) || !x.Delete(h, Location(i+1)) || !x.Insert(h, Entry{Location: Location(i)}) {
			t.Fatal("lost")
		}
		i++
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// fill inserts n objects and checks the bytes of each and the pause of the collector.
func fill(t *testing.T, n int) {
	x := newIndex(t, n)
	for i := range uint64(n) {
		if !x.Insert(spread(i), Entry{Location(i), uint8(i)}) {
			t.Fatalf("object %d of %d is refused: %+v", i, n, x.Stats())
		}
	}
	s := x.Stats()
	if perObject := float64(s.Bytes) / float64(n); perObject > 10 || s.Objects != int64(n) || s.Lost != 0 {
		t.Fatalf("%.2f bytes an object, want at most 10; %+v", perObject, s)
	}
	missed, wrong := 0, 0
	for i := range uint64(50_000) {
		j := spread(i) % uint64(n)
		if !has(x, spread(j), Entry{Location(j), uint8(j)}) {
			missed++
		}
		wrong += x.Lookup(spread(uint64(n) + i)).N
	}
	if missed > 0 || wrong > 500 {
		t.Fatalf("%d missed, %d wrong candidates in 50,000 look-ups; want 0 and at most 1 %%", missed, wrong)
	}
	runtime.GC()
	t.Logf("%d objects: %.2f bytes each, %.3f %% of look-ups in vain have a candidate", n, float64(s.Bytes)/float64(n), float64(wrong)/500)
}

func TestAnObjectTakesTenBytes(t *testing.T) { fill(t, 200_000) }

func TestEveryNumberOfObjectsTakesAtMostSixteenBytesEach(t *testing.T) {
	x := newIndex(t, 20_000)
	for i := range uint64(100_000) {
		if !x.Insert(spread(i), Entry{Location: Location(i)}) {
			t.Fatal("refused", i, x.Stats())
		}
		// Below a quarter of what is expected, the first buckets of all shards weigh.
		if n := i + 1; n >= 5_000 && n%100 == 0 {
			if b := float64(x.Bytes()) / float64(n); b > 16 {
				t.Fatalf("%.2f bytes an object at %d", b, n)
			}
		}
	}
}

func TestBoundsOfConfig(t *testing.T) {
	for _, n := range []int{-1, MaxObjects + 1} {
		if _, err := New(Config{Objects: n}); err == nil {
			t.Error(n, "objects: no error")
		}
	}
}

func TestClassesHoldTheirSizes(t *testing.T) {
	for class := range 256 {
		top := ClassBytes(uint8(class))
		if Class(top) != uint8(class) {
			t.Errorf("class %d ends at %d, which is of class %d", class, top, Class(top))
		}
		if class < 255 && Class(top+1) != uint8(class+1) {
			t.Errorf("%d is of class %d, want %d", top+1, Class(top+1), class+1)
		}
		if class > 0 && class < 255 {
			if low := ClassBytes(uint8(class-1)) + 1; top-low > max(63, low/8+64) {
				t.Errorf("class %d is from %d to %d", class, low, top)
			}
		}
	}
	if Class(0) != 0 || Class(-5) != 0 || Class(1<<62) != 255 {
		t.Error("sizes out of range")
	}
}

func FuzzOperations(f *testing.F) {
	f.Add([]byte("0123456789abcdefghijklmnop"))
	f.Add([]byte{0, 0, 0, 1, 1, 0, 0, 1, 2, 0, 0, 1})
	f.Fuzz(func(t *testing.T, ops []byte) {
		x := newIndex(t, 0)
		m := model{t, x, map[uint64][]Entry{}}
		for ; len(ops) >= 4; ops = ops[4:] {
			// Few hashes in one shard, so that tags meet; a location belongs to one of them.
			hash := uint64(binary.BigEndian.Uint16(ops[1:]))
			location := Location(hash)<<8 | Location(ops[3])
			switch ops[0] % 4 {
			case 0, 1:
				m.insert(hash, Entry{location, ops[3]})
			case 2:
				if !slices.ContainsFunc(m.want[hash], func(e Entry) bool { return e.Location == location^1 }) {
					m.replace(hash, location, location^1)
				}
			case 3:
				m.delete(hash, location)
			}
		}
		m.compare()
	})
}
