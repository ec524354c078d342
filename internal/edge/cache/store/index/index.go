// Package index finds the records of a log by the 64-bit hashes of their keys, in about nine
// bytes an object. It keeps no keys: a look-up yields candidates, and the caller compares the
// whole key in the log. All of it is outside of Go's heap.
//
// The hash chooses a shard, by its highest bits, and leaves a tag of 16 bits. A shard is a small
// cuckoo table (Pagh and Rodler, 2004) of buckets of eight entries, one cache line each; its tag
// says the two buckets in which an entry may be (after Fan et al., Cuckoo Filter, 2014, only that
// here both follow from the tag alone, whatever the number of buckets). So a shard grows and
// shrinks by itself, four buckets at a time, without its keys: no operation does more than
// place one shard's entries anew, at most MaxShardEntries.
//
// Hashes come from a keyed function (hash/maphash, SipHash), or somebody could choose keys that
// fill one shard. No two entries have the same location.
//
// Reads take no lock and allocate nothing: a version of the shard tells them to read again
// (a seqlock). Writers of one shard exclude each other.
package index

import (
	"fmt"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/edge/cache/store/anon"
)

// Location is where a record begins in the log, in units of 64 bytes: 64 TiB.
type Location uint64

// MaxLocation is the last location that can be kept.
const MaxLocation Location = 1<<40 - 2

// Entry is what is kept of an object.
type Entry struct {
	Location Location
	Class    uint8 // of the record's size; see Class
}

// MaxCandidates is how many objects of one tag are kept in a shard.
const MaxCandidates = 4

// Candidates are the entries that may be those of a hash. Nearly always there is one, or none.
type Candidates struct {
	N       int
	Entries [MaxCandidates]Entry // the first N count
}

// Bounds of Config.Objects.
const (
	MinObjects = 1 << 10
	MaxObjects = 1 << 33
)

// Config says how large an index is.
type Config struct {
	// Objects is how many objects are expected, at the most. An index takes up to nine times as
	// many; beyond the expected, look-ups of what is not there yield a wrong candidate more
	// often (1 in 260 at the expected number). Address space is reserved for all of them, some
	// 80 bytes an expected object; memory is taken as objects come.
	Objects int
}

// Index is safe for concurrent use.
type Index struct {
	headers  *anon.Region
	table    []uint64 // headers of shards, eight words each
	shift    uint     // of a hash, to its shard
	chunks   chunks
	scratch  sync.Pool // *scratch
	objects  atomic.Int64
	crowded  atomic.Int64
	full     atomic.Int64
	lost     atomic.Int64
	maxChunk int // chunks that a shard may have; less than maxChunks in tests
}

// Stats is what an index holds and what it refused.
type Stats struct {
	Objects int64
	Bytes   int64 // of memory in use
	Crowded int64 // inserts refused, because MaxCandidates objects of the tag are there
	Full    int64 // inserts refused, because the shard is as large as it may be
	Lost    int64 // objects dropped, because they had no place when their shard was resized
}

// entriesPerShard is the mean of a shard that holds as many as are expected, at the most.
const entriesPerShard = 256

// New makes an empty index. An error says that Objects is out of bounds, or that there is no
// address space.
func New(cfg Config) (*Index, error) {
	if cfg.Objects < 0 || cfg.Objects > MaxObjects {
		return nil, fmt.Errorf("index: %d objects expected, want 0 to %d", cfg.Objects, MaxObjects)
	}
	n := (max(cfg.Objects, MinObjects) + entriesPerShard - 1) / entriesPerShard
	shardBits := uint(bits.Len(uint(n - 1)))
	headers, err := anon.Map(headerWords * 8 << shardBits)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	x := &Index{headers: headers, table: headers.Words(), shift: 64 - shardBits, maxChunk: maxChunks}
	x.scratch.New = func() any { return new(scratch) }
	// One more chunk for each shard: the one that lists those beyond the header's.
	if err := x.chunks.reserve((maxChunks + 1) << shardBits); err != nil {
		_ = headers.Close()
		return nil, fmt.Errorf("index: %w", err)
	}
	headers.Huge()
	return x, nil
}

// Close gives the memory back. Nobody may use the index any more.
func (x *Index) Close() error {
	err := x.headers.Close()
	if cerr := x.chunks.region.Close(); err == nil {
		err = cerr
	}
	return err
}

// Len is the number of objects.
func (x *Index) Len() int { return int(x.objects.Load()) }

// Bytes is the memory in use.
func (x *Index) Bytes() int64 { return x.Stats().Bytes }

// Stats reads the counters.
func (x *Index) Stats() Stats {
	return Stats{
		Objects: x.objects.Load(),
		Bytes:   int64(len(x.table))*8 + x.chunks.bytes(),
		Crowded: x.crowded.Load(),
		Full:    x.full.Load(),
		Lost:    x.lost.Load(),
	}
}

// spins is how often a reader or writer that meets a writer tries again before it lets others run.
const spins = 32

// Lookup finds the entries that may be those of a hash.
func (x *Index) Lookup(hash uint64) (c Candidates) {
	s := x.shard(hash)
	for try := 1; ; try++ {
		version := atomic.LoadUint64(&s[wordVersion])
		if version&1 == 0 {
			x.collect(s, uint16(hash), &c)
			if atomic.LoadUint64(&s[wordVersion]) == version {
				return c
			}
			c.N = 0
		}
		if try%spins == 0 {
			runtime.Gosched()
		}
	}
}

// Insert adds an entry, beside others of the same hash; one that is there already stays. False
// says that there is no room for it: the object is then not found, and may as well be dropped.
func (x *Index) Insert(hash uint64, e Entry) bool {
	if e.Location > MaxLocation {
		return false
	}
	s := x.shard(hash)
	version := lock(s)
	defer unlock(s, version)
	var c Candidates
	x.collect(s, uint16(hash), &c)
	for _, other := range c.Entries[:c.N] {
		if other.Location == e.Location {
			return true
		}
	}
	if c.N == MaxCandidates {
		x.crowded.Add(1)
		return false
	}
	if !x.insert(s, pack(e, uint16(hash))) {
		x.full.Add(1)
		return false
	}
	return true
}

// Replace gives an entry another location, as when its record is written again; false when
// there is none with the old one.
func (x *Index) Replace(hash uint64, old, location Location) bool {
	if location > MaxLocation {
		return false
	}
	s := x.shard(hash)
	version := lock(s)
	defer unlock(s, version)
	at := x.find(s, uint16(hash), old)
	if at == nil {
		return false
	}
	e := unpack(atomic.LoadUint64(at))
	e.Location = location
	atomic.StoreUint64(at, pack(e, uint16(hash)))
	return true
}

// Delete removes an entry; false when there is none with that location.
func (x *Index) Delete(hash uint64, location Location) bool {
	s := x.shard(hash)
	version := lock(s)
	defer unlock(s, version)
	at := x.find(s, uint16(hash), location)
	if at == nil {
		return false
	}
	atomic.StoreUint64(at, 0)
	x.removed(s, 1)
	return true
}

// Range calls visit with every entry that is there during the whole of the call, in no order,
// until it says false. Other entries may come or not, one that is replaced meanwhile with either
// location. Visit may change the index.
func (x *Index) Range(visit func(Entry) bool) {
	buf := new(scratch)
	for i := 0; i < len(x.table); i += headerWords {
		s := (*header)(x.table[i:])
		version := lock(s)
		n := x.gather(s, buf)
		unlock(s, version)
		for _, w := range buf[:n] {
			if !visit(unpack(w)) {
				return
			}
		}
	}
}

// Sweep removes every entry that drop names, and says how many. It is for what lost its
// segment: keys are not needed. Drop is called under a shard's lock and must be quick, and
// must not use the index.
func (x *Index) Sweep(drop func(Entry) bool) int {
	removed := 0
	for i := 0; i < len(x.table); i += headerWords {
		removed += x.sweep((*header)(x.table[i:]), drop)
	}
	return removed
}

func (x *Index) sweep(s *header, drop func(Entry) bool) int {
	version := lock(s)
	defer unlock(s, version)
	n := 0
	for b := range buckets(s) {
		bucket := x.bucket(s, b)
		for i := range bucket {
			if w := atomic.LoadUint64(&bucket[i]); w != 0 && drop(unpack(w)) {
				atomic.StoreUint64(&bucket[i], 0)
				n++
			}
		}
	}
	if n > 0 {
		x.removed(s, n)
	}
	return n
}
