package balance

import "sync/atomic"

const (
	residentSlots = 1 << 14
	residentTime  = 30 // seconds
	// An entry: 32 bits of the key, 24 of the clock in seconds, 8 of the tier and one.
	residentTierBits = 8
	residentTimeBits = 24
)

// residents remembers for half a minute in which tier a pool's anonymous visitors are, so that
// a visitor as a whole spills or stays. It is a table of fixed size in which a newer visitor
// takes the place of an older one: to forget one costs nothing but that it counts as new.
type residents struct{ slots [residentSlots]atomic.Uint64 }

func newResidents() *residents { return &residents{} }

func residentSeconds(now int64) uint64 {
	return uint64(now/1e9) & (1<<residentTimeBits - 1)
}

func (r *residents) at(key uint64) (s *atomic.Uint64, tag uint64) {
	h := mix(key)
	return &r.slots[h%residentSlots], h >> 32
}

// find returns the tier of a visitor, or -1.
func (r *residents) find(key uint64, now int64) int {
	if key == 0 {
		return -1
	}
	s, tag := r.at(key)
	e := s.Load()
	if e>>32 != tag || e == 0 || residentAge(e, now) >= residentTime {
		return -1
	}
	return int(e&(1<<residentTierBits-1)) - 1
}

// keep makes the entry of a visitor that find found new again, when it is half over.
func (r *residents) keep(key uint64, tier int, now int64) {
	s, _ := r.at(key)
	if residentAge(s.Load(), now) > residentTime/2 {
		r.put(key, tier, now)
	}
}

func residentAge(e uint64, now int64) uint64 {
	return (residentSeconds(now) - e>>residentTierBits) & (1<<residentTimeBits - 1)
}

func (r *residents) put(key uint64, tier int, now int64) {
	if key == 0 {
		return
	}
	s, tag := r.at(key)
	s.Store(tag<<32 | residentSeconds(now)<<residentTierBits | uint64(tier+1))
}

// mix spreads the bits of a key (the finaliser of splitmix64).
func mix(h uint64) uint64 {
	h += 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
