package screen

import (
	"hash/maphash"
	"sync"
)

const (
	memoShards   = 16
	maxMemoValue = 1024
	maxMemoHits  = 16
)

// memo remembers what links a value of a class hit, most often none. It is bounded in bytes
// and takes no memory after it was made: each shard is a ring of bytes, the newest value
// overwriting the oldest, and a value that is asked for is written again before it gets old.
// A value is found by its hash, under a seed of its own, and compared as a whole.
type memo struct {
	seed   maphash.Seed
	shards [memoShards]memoShard
}

type memoShard struct {
	mu    sync.Mutex
	slots []memoSlot
	ring  []byte
	head  uint64 // bytes ever written
}

// memoSlot says where a value lies: at, counted in bytes ever written, plus one.
type memoSlot struct {
	at    uint64
	hash  uint32
	class uint32
	size  uint16
	hits  uint16
}

func newMemo(size int) *memo {
	m := &memo{seed: maphash.MakeSeed()}
	per := max(size/memoShards, 4*maxMemoValue)
	n := 64
	for n < per/64 {
		n *= 2
	}
	for i := range m.shards {
		m.shards[i].slots = make([]memoSlot, n)
		m.shards[i].ring = make([]byte, per)
	}
	return m
}

func (m *memo) hash(class uint32, v []byte) uint64 {
	return maphash.Bytes(m.seed, v) ^ uint64(class)*0x9E3779B97F4A7C15
}

// get appends the hits of v to dst; ok is false when they are not known, or when another
// goroutine has the shard.
func (m *memo) get(h uint64, class uint32, v []byte, dst []uint16) (hits []uint16, ok bool) {
	s := &m.shards[h%memoShards]
	if !s.mu.TryLock() {
		return dst, false
	}
	defer s.mu.Unlock()
	at := h >> 8 & uint64(len(s.slots)-1)
	for k := range uint64(2) {
		e := &s.slots[at^k]
		if e.at == 0 || e.hash != uint32(h>>32) || e.class != class || int(e.size) != len(v) || s.head-(e.at-1) > uint64(len(s.ring)) {
			continue
		}
		from := (e.at - 1) % uint64(len(s.ring))
		if string(s.ring[from:from+uint64(e.size)]) != string(v) {
			continue
		}
		for i := range uint64(e.hits) {
			p := from + uint64(e.size) + 2*i
			dst = append(dst, uint16(s.ring[p])|uint16(s.ring[p+1])<<8)
		}
		if s.head-(e.at-1) > uint64(len(s.ring))/4*3 {
			s.write(e, v, dst[len(dst)-int(e.hits):])
		}
		return dst, true
	}
	return dst, false
}

func (m *memo) put(h uint64, class uint32, v []byte, hits []uint16) {
	if len(v) > maxMemoValue || len(hits) > maxMemoHits {
		return
	}
	s := &m.shards[h%memoShards]
	if !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	at := h >> 8 & uint64(len(s.slots)-1)
	e := &s.slots[at]
	if o := &s.slots[at^1]; o.at < e.at {
		e = o
	}
	e.hash, e.class, e.size, e.hits = uint32(h>>32), class, uint16(len(v)), uint16(len(hits))
	s.write(e, v, hits)
}

// write puts a value at the head of the ring, in one piece.
func (s *memoShard) write(e *memoSlot, v []byte, hits []uint16) {
	need := uint64(len(v) + 2*len(hits))
	size := uint64(len(s.ring))
	if at := s.head % size; at+need > size {
		s.head += size - at
	}
	e.at = s.head + 1
	p := s.head % size
	p += uint64(copy(s.ring[p:], v))
	for _, h := range hits {
		s.ring[p], s.ring[p+1] = byte(h), byte(h>>8)
		p += 2
	}
	s.head += need
}
