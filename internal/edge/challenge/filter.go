package challenge

import (
	"hash/maphash"
	"sync"
)

// The size of a filter's two halves: a megabyte each, in which a wrong word comes once in some 2,000 when a half
// is full.
const (
	filterBits = 1 << 23
	filterKeys = 6
	filterMost = filterBits / 16
)

// filter remembers which puzzles were solved, in a fixed size. It errs on the safe side: it may take a puzzle that
// is new for one that was used, whose visitor then gets another, and never the other way round. A half is given up
// after the life of a puzzle, or when it is full; then puzzles from before are no longer taken.
type filter struct {
	seed maphash.Seed
	mu   sync.Mutex
	half [2][]uint64
	from [2]int64 // Unix seconds in which a half began; only what was issued after the second one's is known
	n    int      // in the first half
}

// newFilter begins at the time now, in Unix seconds: what was used before, nobody knows.
func newFilter(now int64) *filter {
	return &filter{seed: maphash.MakeSeed(), from: [2]int64{now, now - 1}}
}

// use notes a puzzle; false when it was used, or is too old to know.
func (f *filter) use(site, nonce uint64, issued, now int64) bool {
	h := maphash.Comparable(f.seed, [2]uint64{site, nonce})
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.half[0] == nil {
		f.half[0] = make([]uint64, filterBits/64)
	} else if f.n >= filterMost || f.n > 0 && now-f.from[0] > puzzleLife {
		f.turn(now)
	}
	if f.n == 0 {
		f.from[0] = now
	}
	// What was used before the second half began is forgotten; it can only be a puzzle that was issued before.
	if issued <= f.from[1] {
		return false
	}
	if f.has(f.half[1], h) || !f.add(f.half[0], h) {
		return false
	}
	f.n++
	return true
}

// turn gives the older half up and begins a new one.
func (f *filter) turn(now int64) {
	f.half[0], f.half[1] = f.half[1], f.half[0]
	if f.half[0] == nil {
		f.half[0] = make([]uint64, filterBits/64)
	} else {
		clear(f.half[0])
	}
	f.from[1], f.from[0], f.n = f.from[0], now, 0
}

func (f *filter) has(half []uint64, h uint64) bool {
	if half == nil {
		return false
	}
	a, b := uint32(h), uint32(h>>32)|1
	for i := range uint32(filterKeys) {
		if bit := (a + i*b) % filterBits; half[bit/64]&(1<<(bit%64)) == 0 {
			return false
		}
	}
	return true
}

// add says whether h was not there.
func (f *filter) add(half []uint64, h uint64) (fresh bool) {
	a, b := uint32(h), uint32(h>>32)|1
	for i := range uint32(filterKeys) {
		bit := (a + i*b) % filterBits
		if half[bit/64]&(1<<(bit%64)) == 0 {
			fresh = true
			half[bit/64] |= 1 << (bit % 64)
		}
	}
	return fresh
}
