package admission

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
)

func newPolicy(t testing.TB, cfg Config) *Policy {
	t.Helper()
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func spread(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

func TestASketchNeverCountsTooLittleAndSeldomTooMuch(t *testing.T) {
	p := newPolicy(t, Config{Objects: 20_000, Window: 1000}) // no halving
	rng := rand.New(rand.NewPCG(1, 1))
	want := map[uint64]int{}
	for range 60_000 {
		h := spread(uint64(rng.ExpFloat64() * 10_000))
		want[h]++
		p.Touch(h)
	}
	over := 0
	for h, n := range want {
		got := p.Frequency(h)
		if got < min(n, 15) {
			t.Fatalf("counted %d of %d", got, n)
		}
		if got > n {
			over++
		}
	}
	if over > len(want)/50 {
		t.Fatalf("%d of %d are counted too often", over, len(want))
	}
	if p.Frequency(spread(1<<40)) > 1 {
		t.Fatal("what was never asked for has a count")
	}
}

func TestCountsAreHalvedWhenAWindowEnds(t *testing.T) {
	p := newPolicy(t, Config{Objects: MinObjects, Counters: 8, Window: 2})
	hot := spread(1)
	for range 20 {
		p.Touch(hot)
	}
	if got := p.Frequency(hot); got != 15 {
		t.Fatalf("counted %d, want 15, the most", got)
	}
	s := p.sketch
	before := s.epoch.Load()
	for i := uint64(2); s.epoch.Load() < before+1; i++ {
		p.Touch(spread(i))
	}
	if got := p.Frequency(hot); got != 7 && got != 8 {
		t.Fatalf("%d after a halving, want 7, or 8 by a neighbour", got)
	}
	for i := uint64(1 << 20); s.epoch.Load() < before+5; i++ {
		p.Touch(spread(i))
	}
	if got := p.Frequency(hot); got > 3 {
		t.Fatalf("%d after five halvings", got)
	}
	if n := s.adds.Load(); n >= s.limit() {
		t.Fatalf("%d touches wait for a halving at %d", n, s.limit())
	}
}

func TestHalvingLeavesNoBitWithANeighbour(t *testing.T) {
	for n := range uint64(16) {
		if got := halve(n*0x1111111111111111, 1); got != n/2*0x1111111111111111 {
			t.Errorf("%x: %x", n, got)
		}
	}
	if halve(math.MaxUint64, 4) != 0 || halve(math.MaxUint64, 15) != 0 {
		t.Error("four halvings leave something")
	}
}

func TestASketchGrowsWithItsCounts(t *testing.T) {
	p := newPolicy(t, Config{Objects: MinObjects, Window: 100})
	for i := range uint64(500) {
		for range i % 10 {
			p.Touch(spread(i))
		}
	}
	for n := range 10 { // by part of a doubling, and by more than one
		p.Grow((n + 1) * (n + 1) * MinObjects / 10)
	}
	if s := p.Stats(); s.Objects < 10*MinObjects || s.Bytes < 10*MinObjects*11/2 {
		t.Fatalf("%+v", s)
	}
	for i := range uint64(500) {
		if got := p.Frequency(spread(i)); got < int(i%10) {
			t.Fatalf("%d: %d of %d", i, got, i%10)
		}
	}
}

func TestASketchGrowsNoLargerThanItsAddressSpace(t *testing.T) {
	p := newPolicy(t, Config{})
	p.Grow(MaxObjects + 1)
	if got := p.Objects(); got < MinObjects*MaxGrowth || got > MinObjects*MaxGrowth*11/10 {
		t.Fatalf("made for %d objects, want %d times %d", got, MaxGrowth, MinObjects)
	}
	p.Touch(5)
	if p.Frequency(5) != 1 {
		t.Fatal(p.Frequency(5), "touches counted, want 1")
	}
}

func TestSizesAreToldApartToAnEighth(t *testing.T) {
	for size := int64(8); size < 1<<50; size += size/9 + 1 {
		if m := classMiddle(sizeClass(size)); m < float64(size)*0.88 || m > float64(size)*1.13 {
			t.Fatalf("%d is taken for %.0f", size, m)
		}
	}
	for _, size := range []int64{-1, 0, 1, 7, math.MaxInt64} {
		if c := sizeClass(size); c < 0 || c >= sizeClasses {
			t.Errorf("%d is of class %d", size, c)
		}
	}
}

// simulated is a FIFO log of records.
type simulated struct {
	p              *Policy
	capacity, used int64
	in             map[uint64]bool
	records        []record
	shares         []*Share
	longest        int // records kept in a row
}

type record struct {
	hash   uint64
	size   int64
	tenant int
}

func (l *simulated) request(r record) bool {
	l.p.Touch(r.hash)
	if l.in[r.hash] {
		return true
	}
	if !l.p.AdmitOf(l.shares[r.tenant], r.hash, r.size) {
		return false
	}
	for run := 0; l.used+r.size > l.capacity; {
		tail := l.records[0]
		l.records = l.records[1:]
		if l.p.KeepOf(l.shares[tail.tenant], tail.hash, tail.size) {
			l.records = append(l.records, tail)
			run++
			l.longest = max(l.longest, run)
			continue
		}
		run = 0
		l.used -= tail.size
		l.shares[tail.tenant].Remove(tail.size)
		delete(l.in, tail.hash)
	}
	l.used += r.size
	l.in[r.hash] = true
	l.records = append(l.records, r)
	l.shares[r.tenant].Add(r.size)
	return false
}

func newSimulated(t *testing.T, capacity int64, tenants int) *simulated {
	l := &simulated{p: newPolicy(t, Config{Objects: 4000}), capacity: capacity, in: map[uint64]bool{}}
	for range tenants {
		l.shares = append(l.shares, new(Share))
	}
	return l
}

func TestAScanDoesNotWashAwayWhatIsAskedForAgain(t *testing.T) {
	l := newSimulated(t, 1000*1000, 1)
	rng := rand.New(rand.NewPCG(1, 1))
	hits := func() (n int) {
		for range 20_000 {
			if l.request(record{hash: spread(rng.Uint64N(900)), size: 1000}) {
				n++
			}
		}
		return n
	}
	hits()
	for i := range uint64(20_000) {
		l.request(record{hash: spread(1<<32 + i), size: 1000})
	}
	if n := hits(); n < 19_000 {
		t.Fatalf("%d of 20,000 hits after a scan", n)
	}
}

func TestWhatWasPopularGoesWhenOthersAre(t *testing.T) {
	l := newSimulated(t, 1000*1000, 1)
	rng := rand.New(rand.NewPCG(1, 1))
	for era := range uint64(4) {
		hits := 0
		for i := range 120_000 {
			if l.request(record{hash: spread(era<<32 + rng.Uint64N(800)), size: 1000}) && i >= 60_000 {
				hits++
			}
		}
		if hits < 57_000 {
			t.Fatalf("era %d: %d of 60,000 hits long after it began: %+v", era, hits, l.p.Stats())
		}
	}
	if l.longest > 10_000 {
		t.Fatalf("%d records were kept in a row", l.longest)
	}
}

func TestAThresholdThatRefusesAllComesDown(t *testing.T) {
	p := newPolicy(t, Config{})
	p.threshold.Store(math.Float64bits(100))
	for i := range 200_000 {
		if p.Admit(spread(uint64(i)), 1000) {
			t.Fatal("admitted by a threshold of", p.Stats().Threshold)
		}
		if p.Stats().Threshold < 1 {
			return
		}
	}
	t.Fatalf("still %v", p.Stats().Threshold)
}

func TestATenantStaysWithinItsQuotaAndKeepsItsBest(t *testing.T) {
	l := newSimulated(t, 4000*1000, 2)
	const quota = 1000 * 1000
	l.shares[0].SetQuota(quota)
	rng := rand.New(rand.NewPCG(1, 1))
	zipf := rand.NewZipf(rng, 1.2, 10, 50_000)
	hits, of := [2]int{}, [2]int{}
	for i := range 600_000 {
		tenant := 0
		if rng.IntN(5) == 0 { // the other asks for less
			tenant = 1
		}
		hit := l.request(record{hash: spread(uint64(tenant)<<32 + zipf.Uint64()), size: 1000, tenant: tenant})
		if b := l.shares[0].Bytes(); b > quota+quota/quotaMargin {
			t.Fatalf("%d bytes, quota %d", b, quota)
		}
		if i > 300_000 {
			of[tenant]++
			if hit {
				hits[tenant]++
			}
		}
	}
	if b := l.shares[0].Bytes(); b < quota*9/10 || l.shares[0].Objects() != b/1000 {
		t.Fatalf("%d bytes in %d objects, quota %d: too little", b, l.shares[0].Objects(), quota)
	}
	if b := l.shares[1].Bytes(); b < 28*quota/10 || l.shares[1].Pressure() != 1 {
		t.Fatalf("the other has %d bytes, pressure %v", b, l.shares[1].Pressure())
	}
	// Alone in a log as large as the quota, the tenant would hit as often.
	alone := newSimulated(t, quota, 1)
	aloneHits := 0
	for i := range 480_000 {
		if alone.request(record{hash: spread(zipf.Uint64()), size: 1000}) && i >= 240_000 {
			aloneHits++
		}
	}
	got, want := float64(hits[0])/float64(of[0]), float64(aloneHits)/240_000
	t.Logf("hit ratio %.3f within a quota, %.3f alone; the other %.3f", got, want, float64(hits[1])/float64(of[1]))
	if got < want-0.02 {
		t.Fatalf("hit ratio %.3f within the quota, %.3f alone", got, want)
	}
	l.shares[0].SetQuota(0)
	if l.shares[0].Over() || l.shares[0].Quota() != 0 {
		t.Fatal("no quota, and over it")
	}
}

func TestWhereThereIsRoomOnlyWhoIsAboveItsQuotaGivesUpAndItsLeast(t *testing.T) {
	p := newPolicy(t, Config{Objects: 4096})
	var own, other Share
	const size, quota = 1000, 1_000_000
	own.SetQuota(quota)
	popular := func(h uint64) bool { return h%4 == 0 }
	for h := range uint64(1040) { // some are asked for eight times, the others once
		p.Touch(spread(h))
		for range 7 {
			if popular(h) {
				p.Touch(spread(h))
			}
		}
		own.Add(size)
	}
	stored := map[uint64]bool{}
	for h := range uint64(1040) {
		stored[h] = true
	}
	next := uint64(1040)
	for range 200 {
		for h := range stored { // a look through what there is
			if !p.Spare(&own, spread(h), size) {
				delete(stored, h)
				own.Remove(size)
			}
		}
		if own.Over() && own.Pressure() == 1 {
			t.Fatal("above its quota without pressure")
		}
		for p.AdmitOf(&own, spread(next), size) { // and as much that is new as it may have
			p.Touch(spread(next))
			stored[next] = true
			own.Add(size)
			next++
		}
	}
	kept := 0
	for h := range uint64(1040) {
		if popular(h) && stored[h] {
			kept++
		}
	}
	if kept < 200 || own.Pressure() > 8 || next < 2000 {
		t.Errorf("%d of 260 that are popular are left, pressure %v, %d were stored", kept, own.Pressure(), next)
	}
	if p.Full() || !p.Spare(&other, spread(1), size) || !p.AdmitOf(&other, spread(1<<40), size) || other.Pressure() != 1 {
		t.Error("the other has to give something up")
	}
}

func TestConcurrentUse(t *testing.T) {
	p := newPolicy(t, Config{Objects: MinObjects, Counters: 4, Window: 1})
	var share Share
	share.SetQuota(1 << 20)
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			for i := range uint64(20_000) {
				h := spread(i*4 + g)
				p.Touch(h)
				p.Touch(spread(i % 16))
				if p.AdmitOf(&share, h, 1000) {
					share.Add(1000)
					if !p.KeepOf(&share, h, 1000) || i%2 == 0 {
						share.Remove(1000)
					}
				}
			}
		})
	}
	wg.Go(func() {
		for n := range 5 {
			p.Grow(MinObjects << n)
		}
	})
	wg.Wait()
	if got := p.Frequency(spread(3)); got < 2 {
		t.Fatalf("what is asked for most has a count of %d", got)
	}
}

func TestDecisionsAllocateNothing(t *testing.T) {
	p := newPolicy(t, Config{})
	var share Share
	i := uint64(0)
	if n := testing.AllocsPerRun(5000, func() {
		i++
		p.Touch(spread(i))
		p.Admit(spread(i), 1000)
		p.Keep(spread(i), 1000)
		p.AdmitOf(&share, spread(i), 1000)
		p.KeepOf(&share, spread(i), 1000)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestBoundsOfConfig(t *testing.T) {
	for _, cfg := range []Config{
		{Objects: MaxObjects + 1},
		{Counters: -1},
		{Counters: MaxCounters + 1},
		{Rewrite: 1},
		{Rewrite: math.NaN()},
		{SizeExponent: 1.1},
		{Window: -1},
		{Window: math.Inf(1)},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v: no error", cfg)
		}
	}
}

func BenchmarkTouch(b *testing.B) {
	p := newPolicy(b, Config{Objects: 1_000_000})
	for i := 0; b.Loop(); i++ {
		p.Touch(spread(uint64(i) % 3_000_000))
	}
}

func BenchmarkAdmit(b *testing.B) {
	p := newPolicy(b, Config{Objects: 1_000_000})
	p.Keep(1, 1000)
	for i := 0; b.Loop(); i++ {
		p.Admit(spread(uint64(i)%3_000_000), 1000)
	}
}

func BenchmarkKeep(b *testing.B) {
	p := newPolicy(b, Config{Objects: 1_000_000})
	for i := 0; b.Loop(); i++ {
		p.Keep(spread(uint64(i)%3_000_000), 1000)
	}
}
