package store

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

type value struct{ n int }

func (s *Store[T]) put(key string, v *T, cost int64) {
	s.Update(s.HashOf([]byte(key)), []byte(key), func(*T) (*T, int64) { return v, cost })
}

func (s *Store[T]) get(key string) *T { return s.Get(s.HashOf([]byte(key)), []byte(key)) }

func TestUpdateReplacesAndRemoves(t *testing.T) {
	s := New[value](1 << 20)
	s.put("a", &value{1}, 100)
	s.put("b", &value{2}, 100)
	if st := s.Stats(); st.Entries != 2 || st.Bytes != 2*(100+1+EntryCost) {
		t.Errorf("%+v", st)
	}
	s.Update(s.HashOf([]byte("a")), []byte("a"), func(old *value) (*value, int64) {
		if old == nil || old.n != 1 {
			t.Errorf("old is %v", old)
		}
		return &value{3}, 50
	})
	if v := s.get("a"); v == nil || v.n != 3 {
		t.Errorf("a is %v", v)
	}
	s.put("a", nil, 0)
	s.put("none", nil, 0)
	if s.get("a") != nil || s.get("b") == nil {
		t.Error("the wrong one is gone")
	}
	if st := s.Stats(); st.Entries != 1 || st.Bytes != 100+1+EntryCost {
		t.Errorf("%+v", st)
	}
}

func TestTheWholeKeyIsCompared(t *testing.T) {
	s := New[value](1 << 20)
	h := s.HashOf([]byte("a"))
	s.Update(h, []byte("a"), func(*value) (*value, int64) { return &value{1}, 1 })
	if v := s.Get(h, []byte("b")); v != nil {
		t.Error("b got the value of a")
	}
	s.Update(h, []byte("b"), func(old *value) (*value, int64) {
		if old != nil {
			t.Error("b replaces a's value")
		}
		return &value{2}, 1
	})
	if s.Get(h, []byte("a")) != nil || s.Get(h, []byte("b")) == nil || s.Stats().Entries != 1 {
		t.Error("of two keys with one hash the newer is to stay")
	}
}

func TestTheLimitHoldsAndLargeValuesAreRefused(t *testing.T) {
	const limit = 1 << 20
	s := New[value](limit)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 20_000 {
		s.put(fmt.Sprint(r.IntN(5000)), &value{i}, int64(r.IntN(20_000)))
		if n := s.Stats().Bytes; n > limit {
			t.Fatalf("%d bytes after %d", n, i)
		}
	}
	if n := s.Stats().Bytes; n < limit*8/10 {
		t.Errorf("only %d bytes of %d are used", n, limit)
	}
	s.put("large", &value{1}, 100)
	s.put("large", &value{2}, limit/4)
	if s.get("large") != nil || s.Stats().Refused != 1 {
		t.Errorf("a value beyond a quarter is kept, or the old one in its place: %+v", s.Stats())
	}
	for i := range 5000 {
		s.put(fmt.Sprint(i), nil, 0)
	}
	if st := s.Stats(); st.Bytes != 0 || st.Entries != 0 {
		t.Errorf("empty, and yet %+v", st)
	}
}

// What is asked for again survives a scan of what is not.
func TestS3FIFOResistsScans(t *testing.T) {
	s := New[value](3000 * (100 + EntryCost + 6))
	for range 3 {
		for i := range 300 {
			k := fmt.Sprintf("hot%03d", i)
			if s.get(k) == nil {
				s.put(k, &value{i}, 100)
			}
		}
	}
	for i := range 60_000 {
		s.put(fmt.Sprintf("%06d", i), &value{i}, 100)
		if i%3000 == 0 {
			for j := range 300 {
				s.get(fmt.Sprintf("hot%03d", j))
			}
		}
	}
	n := 0
	for i := range 300 {
		if s.get(fmt.Sprintf("hot%03d", i)) != nil {
			n++
		}
	}
	if n < 290 {
		t.Errorf("%d of 300 hot values are left", n)
	}
}

// The hit ratio of a Zipf trace with scans is above that of LRU with the same room.
func TestS3FIFOBeatsLRU(t *testing.T) {
	const room, keys, requests = 2000, 20_000, 300_000
	s := New[value](room * (100 + EntryCost + 5))
	l := newLRU(room)
	r := rand.New(rand.NewPCG(3, 4))
	z := rand.NewZipf(r, 1.05, 1, keys-1)
	var mine, lrus int
	for i := range requests {
		k := fmt.Sprintf("%05d", z.Uint64())
		if i%5 == 0 {
			k = fmt.Sprintf("%05d", keys+i) // asked for once
		}
		if s.get(k) != nil {
			mine++
		} else {
			s.put(k, &value{}, 100)
		}
		if l.ask(k) {
			lrus++
		}
	}
	a, b := float64(mine)/requests, float64(lrus)/requests
	t.Logf("S3-FIFO %.3f, LRU %.3f", a, b)
	if a < b+0.02 {
		t.Errorf("S3-FIFO %.3f, LRU %.3f", a, b)
	}
}

type lru struct {
	room int
	at   map[string]int
	ring []string
	now  int
}

func newLRU(room int) *lru { return &lru{room: room, at: map[string]int{}} }

func (l *lru) ask(k string) bool {
	_, ok := l.at[k]
	l.at[k] = len(l.ring)
	l.ring = append(l.ring, k)
	for len(l.at) > l.room {
		if old := l.ring[l.now]; l.at[old] == l.now {
			delete(l.at, old)
		}
		l.now++
	}
	return ok
}

func TestGetAllocatesNothing(t *testing.T) {
	s := New[value](1 << 20)
	s.put("a", &value{1}, 1)
	key := []byte("a")
	if n := testing.AllocsPerRun(100, func() {
		if s.Get(s.HashOf(key), key) == nil {
			t.Fatal("gone")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Run with -race.
func TestManyAtOnce(t *testing.T) {
	s := New[value](64 << 10)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for range 5000 {
				n := r.IntN(500)
				k := fmt.Sprint(n)
				if v := s.get(k); v != nil && v.n != n {
					t.Errorf("%s is %d", k, v.n)
				} else if v == nil {
					s.put(k, &value{n}, int64(r.IntN(2000)))
				} else if r.IntN(50) == 0 {
					s.put(k, nil, 0)
				}
			}
		})
	}
	wg.Wait()
	if n := s.Stats().Bytes; n > 64<<10 {
		t.Errorf("%d bytes", n)
	}
}

func BenchmarkGet(b *testing.B) {
	s := New[value](1 << 30)
	keys := make([][]byte, 1<<16)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "acme/shop https://shop.example/img/%d.jpg", i)
		s.put(string(keys[i]), &value{i}, 1000)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		i := rand.IntN(len(keys))
		for pb.Next() {
			k := keys[i&(len(keys)-1)]
			if s.Get(s.HashOf(k), k) == nil {
				b.Fail()
			}
			i += 7919
		}
	})
}

func BenchmarkPut(b *testing.B) {
	s := New[value](64 << 20)
	b.ReportAllocs()
	var key []byte
	v := &value{}
	for i := 0; b.Loop(); i++ {
		key = fmt.Appendf(key[:0], "acme/shop https://shop.example/img/%d.jpg", i)
		s.Update(s.HashOf(key), key, func(*value) (*value, int64) { return v, 1000 })
	}
}
