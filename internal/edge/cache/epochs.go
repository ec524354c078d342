package cache

import (
	"sync/atomic"

	"github.com/relais-edge/relais/internal/edge/cache/store"
)

// epochSlots is a power of two.
const epochSlots = 1 << 14

// epochs count the invalidations of keys, by a part of their hash. What was asked for before one is
// not stored after it. A slot holds a count and, above it, a tag of the key that moved it last: where
// it moved once, and for another key, nothing is lost.
type epochs struct{ slots [epochSlots]atomic.Uint64 }

func (e *epochs) slot(h store.Hash) *atomic.Uint64 { return &e.slots[h.Index(epochSlots)] }

// at is the count of h's slot.
func (e *epochs) at(h store.Hash) uint32 { return uint32(e.slot(h).Load()) }

// move says that the key of h was invalidated.
func (e *epochs) move(h store.Hash) {
	for s := e.slot(h); ; {
		old := s.Load()
		if s.CompareAndSwap(old, uint64(h.Tag())<<32|uint64(uint32(old)+1)) {
			return
		}
	}
}

// current says that the key of h was not invalidated since its slot's count was since.
func (e *epochs) current(h store.Hash, since uint32) bool {
	v := e.slot(h).Load()
	return uint32(v) == since || uint32(v) == since+1 && uint32(v>>32) != h.Tag()
}

// counts count what was stored, by a part of the hash of its key.
type counts [1 << 12]atomic.Uint32

func (c *counts) at(h store.Hash) uint32 { return c[h.Index(len(c))].Load() }

func (c *counts) move(h store.Hash) { c[h.Index(len(c))].Add(1) }
