package visitor

import (
	"math/bits"
	"sync"
	"time"
)

// What one token may be used for before it counts as shared: a person has one or two networks at a time,
// and a page some dozens of files.
const (
	useSets     = 1 << 12
	useWays     = 4
	useWindow   = 10 * time.Minute
	useNetworks = 24 // of 64 marks, which some 30 networks set
	useStep     = time.Second / 50
	useBurst    = 500
)

// uses remembers, in a table of a fixed size (640 KiB), how tokens with a basket are used. A token that was
// washed out begins anew, so that a flood of tokens makes the bound laxer and harms nobody.
type uses struct {
	epoch time.Time
	sets  [useSets]struct {
		mu   sync.Mutex
		list [useWays]use
	}
}

type use struct {
	id       uint64
	networks uint64 // a mark for the hash of each network seen since begun
	tat      int64  // of the rate, in milliseconds since the epoch
	begun    int64  // seconds since the epoch
}

func newUses() *uses { return &uses{epoch: time.Now().Add(-time.Hour)} }

// look notes a use of a token from a network. Shared says that too many networks used it, fast that it is
// used faster than a person can.
func (u *uses) look(id uint64, network uint16, at time.Time) (shared, fast bool) {
	since := at.Sub(u.epoch)
	ms, s := int64(since/time.Millisecond), int64(since/time.Second)
	set := &u.sets[(id^id>>32)%useSets]
	set.mu.Lock()
	defer set.mu.Unlock()
	e := &set.list[0]
	for i := range set.list {
		if set.list[i].id == id {
			e = &set.list[i]
			break
		}
		if set.list[i].tat < e.tat {
			e = &set.list[i]
		}
	}
	if e.id != id {
		*e = use{id: id, tat: ms, begun: s}
	}
	if s-e.begun > int64(useWindow/time.Second) {
		e.networks, e.begun = 0, s
	}
	e.networks |= 1 << (network & 63)
	tat := max(e.tat, ms)
	if fast = tat-ms > int64(useStep/time.Millisecond)*useBurst; !fast {
		e.tat = tat + int64(useStep/time.Millisecond)
	}
	return bits.OnesCount64(e.networks) > useNetworks, fast
}
