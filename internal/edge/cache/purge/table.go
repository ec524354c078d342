package purge

import (
	"sync/atomic"
)

// ways is how many hashes a bucket holds; a bucket is two lines of a processor's cache.
const ways = 4

// bucket holds the last purges of some hashes. What had to leave it stands in the floors, for all
// hashes that are not in it: that costs a fetch of what is older than the oldest that left, and never
// serves what is outdated.
//
// Readers take no lock. A writer raises the floors before it gives a place to another hash, and writes
// the numbers before the hash; readers look at the hashes first and at the floors last. One that reads while a
// place changes hands may see the number of the hash that takes it: that is newer, and costs a fetch too.
type bucket struct {
	hash       [ways]atomic.Uint64
	hard, soft [ways]atomic.Uint64
	floorHard  atomic.Uint64
	floorSoft  atomic.Uint64
	at         [ways]atomic.Uint32 // of the soft one, in seconds since 1970
}

// table is a set of buckets, a power of two.
type table struct {
	buckets []bucket
	used    int // hashes in it; the writer's
}

func newTable(buckets int) *table { return &table{buckets: make([]bucket, buckets)} }

func (t *table) of(h uint64) *bucket { return &t.buckets[h>>32&uint64(len(t.buckets)-1)] }

// Verdict is the number of the last purge that holds for something; 0 where there is none.
type Verdict struct {
	Hard, Soft uint64
	SoftAt     uint32 // when that was, in seconds since 1970; 0 is long ago
}

// And is the later of both, for each way of purging.
func (v Verdict) And(o Verdict) Verdict {
	v.Hard = max(v.Hard, o.Hard)
	if o.Soft > v.Soft {
		v.Soft, v.SoftAt = o.Soft, o.SoftAt
	}
	return v
}

// last reads what is known of a hash.
func (t *table) last(h uint64) (v Verdict) {
	b := t.of(h)
	for i := range b.hash {
		if b.hash[i].Load() == h {
			return Verdict{b.hard[i].Load(), b.soft[i].Load(), b.at[i].Load()}
		}
	}
	return Verdict{Hard: b.floorHard.Load(), Soft: b.floorSoft.Load()}
}

// set notes a purge; v has only what is new. It says whether the hash took a place that was free.
func (t *table) set(h uint64, v Verdict) {
	b := t.of(h)
	place, oldest := 0, ^uint64(0)
	for i := range b.hash {
		have := b.hash[i].Load()
		if have == h {
			place, oldest = i, 0
			break
		}
		n := uint64(0)
		if have != 0 {
			n = max(b.hard[i].Load(), b.soft[i].Load())
		}
		if n < oldest {
			place, oldest = i, n
		}
	}
	old := b.hash[place].Load()
	if old != h {
		// What was purged by a floor before stays purged.
		v = v.And(Verdict{Hard: b.floorHard.Load(), Soft: b.floorSoft.Load()})
		if old == 0 {
			t.used++
		} else {
			b.floorHard.Store(max(b.floorHard.Load(), b.hard[place].Load()))
			b.floorSoft.Store(max(b.floorSoft.Load(), b.soft[place].Load()))
			b.hash[place].Store(0)
		}
		b.hard[place].Store(v.Hard)
		b.at[place].Store(v.SoftAt)
		b.soft[place].Store(v.Soft)
		b.hash[place].Store(h)
		return
	}
	b.hard[place].Store(max(b.hard[place].Load(), v.Hard))
	if v.Soft > b.soft[place].Load() {
		b.at[place].Store(v.SoftAt)
		b.soft[place].Store(v.Soft)
	}
}

// grown is a table with twice the buckets and the same purges.
func (t *table) grown() *table {
	out := newTable(2 * len(t.buckets))
	for i := range t.buckets {
		b := &t.buckets[i]
		for _, to := range [...]*bucket{&out.buckets[i], &out.buckets[i+len(t.buckets)]} {
			to.floorHard.Store(b.floorHard.Load())
			to.floorSoft.Store(b.floorSoft.Load())
		}
		for w := range b.hash {
			if h := b.hash[w].Load(); h != 0 {
				out.set(h, Verdict{b.hard[w].Load(), b.soft[w].Load(), b.at[w].Load()})
			}
		}
	}
	return out
}
