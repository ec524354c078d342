package store

// makeRoom gives values up until the store is within its limit. Each comes from the fuller one
// of own, which has grown, and the next of all shards: so all have about as many values, and
// it is near to one queue for all. No two locks are held at once.
func (s *Store[T]) makeRoom(own *shard[T]) {
	for empty := 0; empty < 2*numShards && s.used.Load() > s.limit; {
		sh := &s.shards[s.hand.Add(1)%numShards]
		if own.count.Load() >= sh.count.Load() {
			sh = own
		}
		sh.mu.Lock()
		if s.evict(sh) {
			empty = 0
		} else {
			empty++
		}
		sh.mu.Unlock()
	}
}

// smallShare is the part of a shard's bytes that the small queue may have: one in ten.
const smallShare = 10

// evict gives up one value of the shard; false when it has none.
func (s *Store[T]) evict(sh *shard[T]) bool {
	for sh.small.n+sh.main.n > 0 {
		if sh.small.n > 0 && (sh.main.n == 0 || sh.small.bytes*smallShare >= sh.small.bytes+sh.main.bytes) {
			i := sh.small.tail
			e := sh.at(i)
			if e.freq.Load() > 1 {
				sh.unlink(i)
				e.freq.Store(0)
				sh.push(i, main)
				continue
			}
			sh.ghost.put(e.hash, sh.small.n+sh.main.n)
			s.remove(sh, i)
			s.evicted.Add(1)
			return true
		}
		i := sh.main.tail
		e := sh.at(i)
		if f := e.freq.Load(); f > 0 {
			// Its frequency falls with each round, so that the loop ends.
			sh.unlink(i)
			e.freq.Store(f - 1)
			sh.push(i, main)
			continue
		}
		s.remove(sh, i)
		s.evicted.Add(1)
		return true
	}
	return false
}

// ghost remembers the hashes of values that left the small queue, as many as the shard has
// values. A ring of 64-bit tags and a set to find them in.
type ghost struct {
	ring []uint64
	at   int
	set  map[uint64]struct{}
}

// minGhosts is the least size of a ring.
const minGhosts = 64

func (g *ghost) put(h Hash, entries int) {
	if g.set == nil {
		g.set = map[uint64]struct{}{}
	}
	if _, ok := g.set[h.lo]; ok {
		return
	}
	if want := max(entries, minGhosts); len(g.ring) < want {
		// Grow in order: what is oldest stays what is overwritten first.
		grown := make([]uint64, 0, max(want, 2*len(g.ring)))
		grown = append(grown, g.ring[g.at:]...)
		grown = append(grown, g.ring[:g.at]...)
		g.at = len(grown)
		g.ring = grown[:cap(grown)]
	}
	if g.at == len(g.ring) {
		g.at = 0
	}
	delete(g.set, g.ring[g.at])
	g.ring[g.at] = h.lo
	g.set[h.lo] = struct{}{}
	g.at++
}

// take forgets h and says whether it was known.
func (g *ghost) take(h Hash) bool {
	if _, ok := g.set[h.lo]; !ok {
		return false
	}
	delete(g.set, h.lo)
	return true
}
