package curve

import (
	"container/list"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
)

func newCurve(t testing.TB, n int) *Curve {
	t.Helper()
	c, err := New(Config{Samples: n})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func spread(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// lru is an exact LRU cache of bytes.
type lru struct {
	capacity, used int64
	order          list.List
	at             map[uint64]*list.Element
	hits, bytes    int64
}

type object struct {
	hash uint64
	size int64
}

func (c *lru) request(o object) {
	if e, ok := c.at[o.hash]; ok {
		c.order.MoveToFront(e)
		c.hits++
		c.bytes += o.size
		return
	}
	c.at[o.hash] = c.order.PushFront(o)
	c.used += o.size
	for c.used > c.capacity {
		old := c.order.Remove(c.order.Back()).(object)
		delete(c.at, old.hash)
		c.used -= old.size
	}
}

func TestTheCurveIsNearThatOfExactCaches(t *testing.T) {
	for _, tt := range []struct {
		name      string
		samples   int
		tolerance float64
	}{
		{"every object is a sample", 1 << 16, 0.01},
		{"one object in five is", 4096, 0.03},
	} {
		c := newCurve(t, tt.samples)
		var exact []*lru
		for shift := 22; shift <= 29; shift += 2 {
			exact = append(exact, &lru{capacity: 1 << shift, at: map[uint64]*list.Element{}})
		}
		rng := rand.New(rand.NewPCG(1, 1))
		zipf := rand.NewZipf(rng, 1.05, 20, 30_000)
		sizes := make([]int64, 30_001)
		for i := range sizes {
			sizes[i] = int64(16384 * math.Exp(0.8*rng.NormFloat64()))
		}
		const requests = 150_000
		var asked int64
		for range requests {
			id := zipf.Uint64()
			o := object{spread(id), sizes[id]}
			asked += o.size
			c.Touch(o.hash, o.size)
			for _, e := range exact {
				e.request(o)
			}
		}
		for _, e := range exact {
			got := c.At(e.capacity)
			objects, bytes := float64(e.hits)/requests, float64(e.bytes)/float64(asked)
			t.Logf("%s, %d MiB: %.3f %.3f, exact %.3f %.3f", tt.name, e.capacity>>20, got.Objects, got.Bytes, objects, bytes)
			tolerance := tt.tolerance
			if e.capacity < 1<<26 { // some three hundred samples
				tolerance *= 2
			}
			if math.Abs(got.Objects-objects) > tolerance || math.Abs(got.Bytes-bytes) > tolerance {
				t.Errorf("%s, %d MiB: %.3f %.3f, exact %.3f %.3f", tt.name, e.capacity>>20, got.Objects, got.Bytes, objects, bytes)
			}
		}
		gain := c.Gain(1<<22, 1<<26)
		if a, b := c.At(1<<22), c.At(1<<26); gain.Objects != b.Objects-a.Objects || gain.Bytes != b.Bytes-a.Bytes || gain.Objects <= 0 {
			t.Errorf("%s: gain %v", tt.name, gain)
		}
		if s := c.Stats(); s.Samples > tt.samples || s.Requests != requests {
			t.Errorf("%s: %+v", tt.name, s)
		}
	}
}

func TestAnEmptyCurveAndACacheOfNothingHitNothing(t *testing.T) {
	c := newCurve(t, 0)
	if got := c.At(1 << 40); got != (Ratio{}) {
		t.Error(got)
	}
	c.Touch(1, 100)
	c.Touch(1, 100)
	if got := c.At(0); got != (Ratio{}) {
		t.Error(got)
	}
	if got := c.At(1 << 40); got.Objects != 0.5 || got.Bytes != 0.5 {
		t.Error(got)
	}
}

func TestDistancesAgainstAList(t *testing.T) {
	s := newSamples(MinSamples)
	var order []object // the newest last
	rng := rand.New(rand.NewPCG(3, 3))
	for step := range 20_000 {
		o := object{spread(rng.Uint64N(400)), int64(rng.IntN(1000))}
		want, found := int64(0), false
		for i := len(order) - 1; i >= 0; i-- {
			if order[i].hash == o.hash {
				order = append(order[:i], order[i+1:]...)
				found = true
				break
			}
			want += order[i].size
		}
		order = append(order, o)
		got, again := s.touch(o.hash, o.size)
		if again != found || found && got != want {
			t.Fatalf("step %d: %d %v, want %d %v", step, got, again, want, found)
		}
		if !s.full() {
			continue
		}
		highest := 0
		for i := range order {
			if order[i].hash > order[highest].hash {
				highest = i
			}
		}
		if got := s.dropHighest(); got != order[highest].hash {
			t.Fatalf("step %d: dropped %x, want %x", step, got, order[highest].hash)
		}
		order = append(order[:highest], order[highest+1:]...)
	}
}

func TestAgeMakesRoomForWhatIsNew(t *testing.T) {
	c := newCurve(t, 1024)
	for range 20 {
		for i := range uint64(100) {
			c.Touch(spread(i), 10_000)
		}
	}
	before := c.At(1 << 30)
	if before.Objects < 0.9 {
		t.Fatal(before)
	}
	for i := range uint64(40) {
		c.Age()
		for j := range uint64(500) {
			c.Touch(spread(1<<32+i*500+j), 10_000) // never again
		}
	}
	if got := c.At(1 << 30); got.Objects > 0.01 {
		t.Fatalf("%v, long after the last hit", got)
	}
}

func TestBucketsAreInOrderAndHoldTheirDistances(t *testing.T) {
	for b := range buckets - 1 {
		if bucket(end(b)-1) != b || bucket(end(b)) != b+1 {
			t.Fatalf("bucket %d ends at %.0f: %d, %d", b, end(b), bucket(end(b)-1), bucket(end(b)))
		}
	}
	if bucket(0) != 0 || bucket(math.Inf(1)) != buckets-1 {
		t.Error("ends")
	}
}

func TestConcurrentTouchesAreAllCounted(t *testing.T) {
	c := newCurve(t, MinSamples)
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			for i := range uint64(5_000) {
				c.Touch(spread(i*(g+1)%2000), 1000)
				if i%1000 == 0 {
					c.At(1 << 20)
				}
			}
		})
	}
	wg.Wait()
	if s := c.Stats(); s.Requests != 20_000 || s.Samples > MinSamples || s.Rate > 0.5 {
		t.Fatalf("%+v", s)
	}
}

func TestTouchAllocatesNothing(t *testing.T) {
	c := newCurve(t, MinSamples)
	i := uint64(0)
	if n := testing.AllocsPerRun(20_000, func() { i++; c.Touch(spread(i%1000), 1000) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestBoundsOfConfig(t *testing.T) {
	for _, n := range []int{-1, MinSamples - 1, MaxSamples + 1} {
		if _, err := New(Config{Samples: n}); err == nil {
			t.Error(n, "samples: no error")
		}
	}
	if s := newCurve(t, 0).Stats(); s.Memory > defaultSamples*75+histogramBytes {
		t.Errorf("%+v", s)
	}
}

func BenchmarkTouch(b *testing.B) {
	c := newCurve(b, 4096)
	for i := 0; b.Loop(); i++ {
		c.Touch(spread(uint64(i)%1_000_000), 1000)
	}
}
