package jwt

import (
	"hash/maphash"
	"sync/atomic"
	"time"
)

// ways is how many places a token may have.
const ways = 4

// useEvery is how often, in seconds, the use of a token is noted: writing it each time would cost more than the
// lookup where several processors serve one client.
const useEvery = 16

// memory remembers good tokens: a table of sets of four, without locks for who reads. Its seed is random, so that
// nobody can choose tokens that wash out those of others.
type memory struct {
	seed  maphash.Seed
	sets  []set
	limit int64
	bytes atomic.Int64
	sweep atomic.Uint64
}

type set struct {
	at   [ways]atomic.Pointer[good]
	used [ways]atomic.Int64 // when it was last found, in Unix seconds
}

func newMemory(tokens int, bytes int64) *memory {
	n := 1
	for n*ways < tokens {
		n *= 2
	}
	return &memory{seed: maphash.MakeSeed(), sets: make([]set, n), limit: bytes}
}

func (m *memory) set(hash uint64) *set { return &m.sets[hash&uint64(len(m.sets)-1)] }

// find gives what is known of a policy's token; nil when nothing is. It allocates nothing.
func (m *memory) find(p *policy, text []byte, now time.Time) *good {
	h := maphash.Bytes(m.seed, text)
	s := m.set(h)
	for i := range s.at {
		if g := s.at[i].Load(); g != nil && g.hash == h && g.policy == p && g.text == string(text) {
			if u := &s.used[i]; now.Unix()-u.Load() > useEvery {
				u.Store(now.Unix())
			}
			return g
		}
	}
	return nil
}

// put remembers a token in place of one that holds no more, or the oldest of its set.
func (m *memory) put(g *good, now time.Time) {
	size := g.size()
	if size > m.limit/ways {
		return
	}
	g.hash = maphash.String(m.seed, g.text)
	s := m.set(g.hash)
	place, oldest := 0, int64(1)<<62
	for i := range s.at {
		o := s.at[i].Load()
		if o == nil || o.holds(now) != reasonGood || o.policy == g.policy && o.text == g.text {
			place = i
			break
		}
		if u := s.used[i].Load(); u < oldest {
			place, oldest = i, u
		}
	}
	if o := s.at[place].Swap(g); o != nil {
		size -= o.size()
	}
	s.used[place].Store(now.Unix())
	for m.bytes.Add(size) > m.limit { // make room elsewhere, set by set
		size = 0
		o := &m.sets[m.sweep.Add(1)%uint64(len(m.sets))]
		for i := range o.at {
			if v := o.at[i].Load(); v != nil && v != g && o.at[i].CompareAndSwap(v, nil) {
				size -= v.size()
			}
		}
	}
}

// size is about what g takes.
func (g *good) size() int64 {
	n := int64(len(g.text)) + 256
	for i := range g.fields {
		n += int64(len(g.fields[i].value)) + 64
	}
	return n
}
