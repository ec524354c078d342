package index

import (
	"runtime"
	"sync/atomic"
)

// A shard's header is a cache line: its version, odd while somebody writes; how many entries and
// chunks it has; and the numbers of its chunks, two in a word. A shard of more chunks than that
// has the numbers of the others in one more chunk.
const (
	headerWords  = 8
	wordVersion  = 0
	wordSize     = 1 // entries << 48 | chunks << 32 | number of the chunk that lists others
	wordChunks   = 2
	directChunks = 2 * (headerWords - wordChunks)
	maxChunks    = directChunks + 2*chunkWords
)

// MaxShardEntries is how many entries a shard can hold.
const MaxShardEntries = maxChunks * chunkEntries

type (
	header  [headerWords]uint64
	scratch [MaxShardEntries + 1]uint64
)

// An entry is a word: the location plus one, 40 bits; the class, 8 bits; the tag. 0 is none.
func pack(e Entry, tag uint16) uint64 {
	return uint64(e.Location+1)<<24 | uint64(e.Class)<<16 | uint64(tag)
}

func unpack(w uint64) Entry { return Entry{Location(w>>24) - 1, uint8(w >> 16)} }

func (x *Index) shard(hash uint64) *header {
	return (*header)(x.table[hash>>x.shift*headerWords:])
}

func lock(s *header) (version uint64) {
	for try := 1; ; try++ {
		version = atomic.LoadUint64(&s[wordVersion])
		if version&1 == 0 && atomic.CompareAndSwapUint64(&s[wordVersion], version, version+1) {
			return version
		}
		if try%spins == 0 {
			runtime.Gosched()
		}
	}
}

func unlock(s *header, version uint64) { atomic.StoreUint64(&s[wordVersion], version+2) }

func sizes(s *header) (entries, chunks int, list uint32) {
	w := atomic.LoadUint64(&s[wordSize])
	return int(w >> 48), int(w >> 32 & 0xffff), uint32(w)
}

func setSizes(s *header, entries, chunks int, list uint32) {
	atomic.StoreUint64(&s[wordSize], uint64(entries)<<48|uint64(chunks)<<32|uint64(list))
}

func buckets(s *header) int {
	_, n, _ := sizes(s)
	return n * chunkBuckets
}

// choices are the two buckets of a tag among n, never the same one.
func choices(tag uint16, n int) (first, second int) {
	first = int(tag) * n >> 16
	second = int(uint32(tag)*0x9e3779b1>>16) * n >> 16
	if second == first {
		second = first + 1
		if second == n {
			second = 0
		}
	}
	return first, second
}

// chunk is the number of a shard's i-th chunk. A reader that meets a writer may get any that was
// once written there, which is somewhere in the chunks all the same.
func (x *Index) chunk(s *header, i int) uint32 {
	if i < directChunks {
		return uint32(atomic.LoadUint64(&s[wordChunks+i/2]) >> (i & 1 * 32))
	}
	_, _, list := sizes(s)
	i -= directChunks
	return uint32(atomic.LoadUint64(&x.chunks.at(list)[i/2]) >> (i & 1 * 32))
}

func (x *Index) setChunk(s *header, i int, id uint32) {
	var at *uint64
	if i < directChunks {
		at = &s[wordChunks+i/2]
	} else {
		_, _, list := sizes(s)
		i -= directChunks
		at = &x.chunks.at(list)[i/2]
	}
	shift := i & 1 * 32
	w := atomic.LoadUint64(at)
	atomic.StoreUint64(at, w&^(0xffffffff<<shift)|uint64(id)<<shift)
}

func (x *Index) bucket(s *header, b int) *[bucketEntries]uint64 {
	c := x.chunks.at(x.chunk(s, b/chunkBuckets))
	return (*[bucketEntries]uint64)(c[b%chunkBuckets*bucketEntries:])
}

// collect appends the entries of a tag to c, as many as fit.
func (x *Index) collect(s *header, tag uint16, c *Candidates) {
	n := buckets(s)
	if n == 0 {
		return
	}
	first, second := choices(tag, n)
	for _, bucket := range [2]*[bucketEntries]uint64{x.bucket(s, first), x.bucket(s, second)} {
		for i := range bucket {
			w := atomic.LoadUint64(&bucket[i])
			if uint16(w) == tag && w != 0 && c.N < MaxCandidates {
				c.Entries[c.N] = unpack(w)
				c.N++
			}
		}
	}
}

// find is the place of an entry.
func (x *Index) find(s *header, tag uint16, location Location) *uint64 {
	n := buckets(s)
	if n == 0 {
		return nil
	}
	first, second := choices(tag, n)
	for _, bucket := range [2]*[bucketEntries]uint64{x.bucket(s, first), x.bucket(s, second)} {
		for i := range bucket {
			w := atomic.LoadUint64(&bucket[i])
			if uint16(w) == tag && w != 0 && unpack(w).Location == location {
				return &bucket[i]
			}
		}
	}
	return nil
}

// insert places an entry, in a larger shard if need be; false when the shard is full.
func (x *Index) insert(s *header, w uint64) bool {
	entries, n, list := sizes(s)
	if n > 0 && x.place(s, n*chunkBuckets, w, 1) {
		setSizes(s, entries+1, n, list)
		x.objects.Add(1)
		return true
	}
	return n < x.maxChunk && x.resize(s, n+1, w)
}

// place puts an entry into the emptier of its buckets, or makes room by moving others to their
// other buckets, one or two after each other. It does not look further: a shard where one move
// does not help is more than nine tenths full, and grows. Two are for entries of a shard that
// has grown, which must all find a place.
func (x *Index) place(s *header, n int, w uint64, maxMoves int) bool {
	first, second := choices(uint16(w), n)
	freeA, na := vacancy(x.bucket(s, first))
	freeB, nb := vacancy(x.bucket(s, second))
	switch {
	case na > 0 && na >= nb:
		atomic.StoreUint64(freeA, w)
		return true
	case nb > 0:
		atomic.StoreUint64(freeB, w)
		return true
	}
	for moves := 1; moves <= maxMoves; moves++ {
		for _, from := range [2]int{first, second} {
			if free := x.makeRoom(s, n, from, moves); free != nil {
				atomic.StoreUint64(free, w)
				return true
			}
		}
	}
	return false
}

// makeRoom empties a place of a full bucket with so many moves, the last of which is into a
// bucket that has a vacancy.
func (x *Index) makeRoom(s *header, n, from, moves int) *uint64 {
	bucket := x.bucket(s, from)
	for i := range bucket {
		w := atomic.LoadUint64(&bucket[i])
		to, other := choices(uint16(w), n)
		if to == from {
			to = other
		}
		free, _ := vacancy(x.bucket(s, to))
		if free == nil && moves > 1 {
			free = x.makeRoom(s, n, to, moves-1)
		}
		if free != nil {
			atomic.StoreUint64(free, w)
			return &bucket[i]
		}
	}
	return nil
}

// vacancy is a free place of a bucket, and how many it has.
func vacancy(bucket *[bucketEntries]uint64) (free *uint64, n int) {
	for i := range bucket {
		if atomic.LoadUint64(&bucket[i]) == 0 {
			free = &bucket[i]
			n++
		}
	}
	return free, n
}

// removed takes n entries from the count, and chunks from a shard that can do without: only
// when what is left fills them to less than shrinkFill, so that the next insert does not
// take them again.
func (x *Index) removed(s *header, n int) {
	entries, have, list := sizes(s)
	entries -= n
	setSizes(s, entries, have, list)
	x.objects.Add(int64(-n))
	want := have
	for want > 0 && entries*100 <= (want-1)*chunkEntries*shrinkFill {
		want--
	}
	if want < have {
		x.resize(s, want, 0)
	}
}

const shrinkFill = 84

// gather copies all entries of a shard.
func (x *Index) gather(s *header, buf *scratch) int {
	k := 0
	for b := range buckets(s) {
		bucket := x.bucket(s, b)
		for i := range bucket {
			if w := atomic.LoadUint64(&bucket[i]); w != 0 {
				buf[k] = w
				k++
			}
		}
	}
	return k
}

// resize gives a shard so many chunks, and places its entries, and one more unless it is 0,
// anew. What then has no place, which takes bad luck, makes the shard grow once more, and is
// lost when it cannot. False says that there was no place for the one more.
func (x *Index) resize(s *header, chunks int, more uint64) bool {
	buf := x.scratch.Get().(*scratch)
	defer x.scratch.Put(buf)
	before, _, _ := sizes(s)
	k := x.gather(s, buf)
	if more != 0 {
		buf[k] = more
		k++
	}
	for ; ; chunks++ {
		x.setChunks(s, chunks)
		placed, refused := 0, false
		for i, w := range buf[:k] {
			if chunks > 0 && x.place(s, chunks*chunkBuckets, w, 2) {
				placed++
			} else {
				refused = more != 0 && i == k-1
			}
		}
		if placed < k && chunks < x.maxChunk {
			continue
		}
		_, n, list := sizes(s)
		setSizes(s, placed, n, list)
		x.objects.Add(int64(placed - before))
		if refused {
			k--
		}
		x.lost.Add(int64(k - placed))
		return !refused
	}
}

// setChunks empties a shard, and makes it have n chunks.
func (x *Index) setChunks(s *header, n int) {
	entries, have, list := sizes(s)
	for i := range have {
		words := x.chunks.at(x.chunk(s, i))
		for j := range words {
			atomic.StoreUint64(&words[j], 0)
		}
	}
	for ; have > n; have-- {
		x.chunks.give(x.chunk(s, have-1))
		if have == directChunks+1 {
			words := x.chunks.at(list)
			for j := range words {
				atomic.StoreUint64(&words[j], 0)
			}
			x.chunks.give(list)
			list = 0
		}
		setSizes(s, entries, have-1, list)
	}
	for ; have < n; have++ {
		if have == directChunks {
			list = x.chunks.take()
		}
		setSizes(s, entries, have+1, list)
		x.setChunk(s, have, x.chunks.take())
	}
}
