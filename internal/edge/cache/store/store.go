// Package store keeps answers: Tiers has records, a head and a body, in memory outside of Go's heap and on a disk.
// Store has small values under long keys on the heap, within a number of bytes. What that gives up is
// decided by S3-FIFO (Yang et al., SOSP 2023): a small queue lets what is asked for once leave
// soon, a main queue keeps what is asked for again, and a memory of keys that left tells the two apart.
//
// Store is in shards. A look-up takes its shard's lock for reading, allocates nothing and
// moves nothing. Values are immutable: who changes one puts a new one in its place.
package store

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// Hash is the 128-bit hash of a key. It differs from one Store to the next, so that nobody can
// choose keys that collide; all the same the whole key is compared.
type Hash struct{ hi, lo uint64 }

// Index is a number below n, the same for the same hash.
func (h Hash) Index(n int) int { return int(h.lo % uint64(n)) }

// Tag is a part of the hash that Index does not use.
func (h Hash) Tag() uint32 { return uint32(h.hi) }

const (
	shardBits = 6
	numShards = 1 << shardBits
	pageSize  = 128
)

// EntryCost is what an entry costs beside its key and its value, in bytes: the slot, its place
// in the index (a map at its mean load), and its share of the memory of keys that left.
const EntryCost = 96 + 48 + 24

// Store is a bounded set of values of type T.
type Store[T any] struct {
	seedHi, seedLo maphash.Seed
	limit          int64
	used           atomic.Int64
	entries        atomic.Int64
	evicted        atomic.Int64
	refused        atomic.Int64
	hand           atomic.Uint32
	shards         [numShards]shard[T]
}

// Stats is what a store holds and did.
type Stats struct {
	Entries, Bytes, Limit int64
	Evicted               int64 // values given up for room
	Refused               int64 // values larger than the store takes
}

type queue uint8

const (
	none queue = iota
	small
	main
)

// slot is one entry. Links are numbers of slots, so that the collector follows none.
type slot[T any] struct {
	hash       Hash
	key        string
	value      *T
	cost       int64
	prev, next uint32 // towards the head (newest), towards the tail
	freq       atomic.Uint32
	in         queue
}

type list struct {
	head, tail uint32 // 0 is none
	n          int
	bytes      int64
}

type shard[T any] struct {
	mu    sync.RWMutex
	index map[Hash]uint32
	pages []*[pageSize]slot[T]
	free  []uint32
	next  uint32 // the first slot never used
	small list
	main  list
	ghost ghost
	count atomic.Int32
	_     [64]byte
}

// New returns a store of at most limit bytes, the costs of keys and entries included.
func New[T any](limit int64) *Store[T] {
	s := &Store[T]{seedHi: maphash.MakeSeed(), seedLo: maphash.MakeSeed(), limit: limit}
	for i := range s.shards {
		s.shards[i].index = map[Hash]uint32{}
		s.shards[i].next = 1
	}
	return s
}

// HashOf hashes a key.
func (s *Store[T]) HashOf(key []byte) Hash {
	return Hash{maphash.Bytes(s.seedHi, key), maphash.Bytes(s.seedLo, key)}
}

// MaxCost is the largest cost of a value that is taken: a quarter of the store.
func (s *Store[T]) MaxCost() int64 { return s.limit / 4 }

// Stats reads the counters.
func (s *Store[T]) Stats() Stats {
	return Stats{s.entries.Load(), s.used.Load(), s.limit, s.evicted.Load(), s.refused.Load()}
}

func (s *Store[T]) shardOf(h Hash) *shard[T] { return &s.shards[h.hi>>(64-shardBits)] }

func (sh *shard[T]) at(i uint32) *slot[T] { return &sh.pages[i/pageSize][i%pageSize] }

// Get finds the value of a key, or nil, and notes that it was asked for.
func (s *Store[T]) Get(h Hash, key []byte) *T {
	sh := s.shardOf(h)
	sh.mu.RLock()
	var v *T
	if i, ok := sh.index[h]; ok {
		if e := sh.at(i); e.key == string(key) {
			v = e.value
			// Two bits of frequency are enough; a hot entry is not written to.
			if f := e.freq.Load(); f < 3 {
				e.freq.Store(f + 1)
			}
		}
	}
	sh.mu.RUnlock()
	return v
}

// Update puts change(old) in the place of a key's value; old is nil when there is none. A nil
// result removes the entry. Change is called once, under the shard's lock, and gives the cost
// of the new value in bytes, without key and entry. A value above MaxCost is refused, and the
// old one removed.
func (s *Store[T]) Update(h Hash, key []byte, change func(old *T) (value *T, cost int64)) {
	sh := s.shardOf(h)
	sh.mu.Lock()
	i, ok := sh.index[h]
	if ok && sh.at(i).key != string(key) {
		s.remove(sh, i) // another key with the same hash: the newer stays
		ok = false
	}
	var old *T
	if ok {
		old = sh.at(i).value
	}
	value, cost := change(old)
	cost += int64(len(key)) + EntryCost
	if value != nil && cost > s.MaxCost() {
		s.refused.Add(1)
		value = nil
	}
	switch {
	case value == nil && ok:
		s.remove(sh, i)
	case value == nil:
	case ok:
		e := sh.at(i)
		q := sh.list(e.in)
		q.bytes += cost - e.cost
		s.used.Add(cost - e.cost)
		e.value, e.cost = value, cost
	default:
		s.insert(sh, h, string(key), value, cost)
	}
	sh.mu.Unlock()
	s.makeRoom(sh)
}

func (s *Store[T]) insert(sh *shard[T], h Hash, key string, value *T, cost int64) {
	i := sh.alloc()
	e := sh.at(i)
	e.hash, e.key, e.value, e.cost = h, key, value, cost
	e.freq.Store(0)
	q := small
	if sh.ghost.take(h) {
		q = main
	}
	sh.push(i, q)
	sh.index[h] = i
	s.used.Add(cost)
	s.entries.Add(1)
	sh.count.Add(1)
}

func (sh *shard[T]) alloc() uint32 {
	if n := len(sh.free); n > 0 {
		i := sh.free[n-1]
		sh.free = sh.free[:n-1]
		return i
	}
	i := sh.next
	if int(i/pageSize) == len(sh.pages) {
		sh.pages = append(sh.pages, new([pageSize]slot[T]))
	}
	sh.next++
	return i
}

// remove takes entry i out of the shard.
func (s *Store[T]) remove(sh *shard[T], i uint32) {
	e := sh.at(i)
	sh.unlink(i)
	delete(sh.index, e.hash)
	s.used.Add(-e.cost)
	s.entries.Add(-1)
	sh.count.Add(-1)
	e.key, e.value = "", nil
	sh.free = append(sh.free, i)
}

func (sh *shard[T]) list(q queue) *list {
	if q == main {
		return &sh.main
	}
	return &sh.small
}

func (sh *shard[T]) push(i uint32, q queue) {
	l, e := sh.list(q), sh.at(i)
	e.in, e.prev, e.next = q, 0, l.head
	if l.head != 0 {
		sh.at(l.head).prev = i
	} else {
		l.tail = i
	}
	l.head = i
	l.n++
	l.bytes += e.cost
}

func (sh *shard[T]) unlink(i uint32) {
	e := sh.at(i)
	l := sh.list(e.in)
	if e.prev != 0 {
		sh.at(e.prev).next = e.next
	} else {
		l.head = e.next
	}
	if e.next != 0 {
		sh.at(e.next).prev = e.prev
	} else {
		l.tail = e.prev
	}
	l.n--
	l.bytes -= e.cost
	e.in = none
}
