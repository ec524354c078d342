package deadline

import (
	"sync"
	"sync/atomic"
)

// Phase is what a connection does in one direction; the protocols name theirs. Up to 127.
type Phase uint8

// Guard is a phase and its limit of time in one word: bit 63 says that the limit was over,
// then come 8 bits of phase and 48 bits of milliseconds. The zero Guard is in phase 0.
type Guard struct {
	v atomic.Uint64
	// mu is held by the sweeper from finding the limit over until its kick has been done, so that
	// who finds it over can wait for the kick and undo it.
	mu sync.Mutex
}

const (
	guardOver = 1 << 63
	guardTime = 1<<48 - 1
)

// Set enters a phase that may last until the time at; false when the limit of the phase before was
// over.
func (g *Guard) Set(p Phase, at int64) bool {
	return g.v.Swap(uint64(p)<<48|uint64(at)&guardTime)&guardOver == 0
}

// Follow enters the phase p until at if the phase before, entered with time 0, still stands.
func (g *Guard) Follow(before, p Phase, at int64) bool {
	return g.v.CompareAndSwap(uint64(before)<<48, uint64(p)<<48|uint64(at)&guardTime)
}

// Look returns the phase and its time, and whether its limit was over.
func (g *Guard) Look() (p Phase, at int64, over bool) {
	v := g.v.Load()
	return Phase(v >> 48 & 0x7f), int64(v & guardTime), v&guardOver != 0
}

// Expire marks the limit as over and calls kick, if the phase p with the time at still stands.
func (g *Guard) Expire(p Phase, at int64, kick func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := uint64(p)<<48 | uint64(at)
	if !g.v.CompareAndSwap(v, v|guardOver) {
		return false
	}
	kick()
	return true
}

// Undo waits for a kick that is under way, and calls do to undo it. It is for who found that Set
// returned false.
func (g *Guard) Undo(do func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	do()
}
