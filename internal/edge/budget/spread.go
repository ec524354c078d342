package budget

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// MostPlaces is the most places that a Spread lets an id be used from.
const MostPlaces = 4

// Spread bounds from how many places something that a visitor carries is used: a telephone changes its network
// now and then, a swarm that shares one proof has hundreds. The first places are never refused; one more is, until
// one of those before was not used for a while. When a set of the table is full, what was not used for longest
// gives way and begins anew, so that a flood of ids makes the bound laxer and harms nobody.
type Spread struct {
	seed   maphash.Seed
	epoch  time.Time
	most   int
	window uint32 // seconds
	sets   []spreadSet
}

type spreadSet struct {
	mu   sync.Mutex
	list [ways]spreadEntry
}

// spreadEntry has 48 bytes.
type spreadEntry struct {
	id   uint64
	last uint32             // second of the last use
	from [MostPlaces]uint32 // hashes of places
	at   [MostPlaces]uint32 // second of the last use from each; 0 for none
}

// NewSpread makes a table of a number of sets, four ids and 200 bytes each, in which an id is good for at most most
// places (1 to MostPlaces) at a time; a place that was not used for the window is free for another.
func NewSpread(sets, most int, window time.Duration) *Spread {
	return &Spread{
		seed: maphash.MakeSeed(), epoch: time.Now().Add(-time.Hour), most: min(max(most, 1), MostPlaces),
		window: uint32(window / time.Second), sets: make([]spreadSet, max(sets, 1)),
	}
}

// Use notes a use of an id from an address's network (an IPv4 /24, an IPv6 /48), by a reading of a monotonic clock.
// Client tells programs behind the same network apart; 0 does not. False means that the id is used from too many.
func (s *Spread) Use(id uint64, a netip.Addr, client uint64, at time.Time) bool {
	from, now := s.place(a, client), uint32(max(at.Sub(s.epoch)/time.Second, 1))
	set := &s.sets[(id^id>>32)%uint64(len(s.sets))]
	set.mu.Lock()
	defer set.mu.Unlock()
	e := set.find(id)
	if e.id != id || e.last == 0 {
		*e = spreadEntry{id: id}
	}
	e.last = now
	free := -1
	for i := range s.most {
		switch {
		case e.at[i] != 0 && e.from[i] == from:
			e.at[i] = now
			return true
		case e.at[i] == 0, now > e.at[i] && now-e.at[i] > s.window:
			if free < 0 || e.at[i] < e.at[free] {
				free = i
			}
		}
	}
	if free < 0 {
		return false
	}
	e.from[free], e.at[free] = from, now
	return true
}

// find returns the entry of an id, or the one that gives way to it.
func (s *spreadSet) find(id uint64) *spreadEntry {
	e := &s.list[0]
	for i := range s.list {
		if s.list[i].id == id && s.list[i].last != 0 {
			return &s.list[i]
		}
		if s.list[i].last < e.last {
			e = &s.list[i]
		}
	}
	return e
}

func (s *Spread) place(a netip.Addr, client uint64) uint32 {
	var m [32]byte
	b := binary.BigEndian.AppendUint64(m[:0], client)
	return uint32(maphash.Bytes(s.seed, AppendPrefix(b, a, 3, 6)))
}

// Bind hashes for whom something is that a visitor carries: its network (an IPv4 /24, an IPv6 /48) and what its
// program calls itself, with an id of what is carried, so that two of them cannot be joined by it.
func Bind(id uint64, a netip.Addr, agent []byte) (network, client uint16) {
	var m [32]byte
	b := binary.BigEndian.AppendUint64(m[:0], id)
	network = uint16(Fold(AppendPrefix(b, a, 3, 6)))
	client = uint16((Fold(agent) ^ id) * 0x9e3779b97f4a7c15 >> 48)
	return network, client
}
