package visitor

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// mintWays is how many sources share a set; mintSets how many sets there are: 256 KiB.
const (
	mintWays = 4
	mintSets = 1 << 12
)

// mint bounds how many protected cookies a source gets, by the generic cell rate algorithm in
// whole nanoseconds. When a set is full the source that is nearest to being idle gives way.
type mint struct {
	seed  maphash.Seed
	step  time.Duration // between two cookies; 0 means no bound
	epoch time.Time

	mu   sync.Mutex
	sets [mintSets][mintWays]struct {
		source uint64
		tat    int64
	}
}

func newMint(perMinute int) *mint {
	m := &mint{seed: maphash.MakeSeed(), epoch: time.Now().Add(-time.Hour)}
	if perMinute > 0 {
		m.step = time.Minute / time.Duration(perMinute)
	}
	return m
}

// take asks for a cookie for a client of a site at the time at.
func (m *mint) take(site uint64, client netip.Addr, at time.Time) bool {
	if m.step <= 0 {
		return true
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], site)
	prefix(b[8:8], client, 6)
	h := maphash.Bytes(m.seed, b[:]) | 1
	now := int64(at.Sub(m.epoch))
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &m.sets[h>>1%mintSets]
	place := 0
	for i := range s {
		if s[i].source == h {
			place = i
			break
		}
		if s[i].tat < s[place].tat {
			place = i
		}
	}
	e := &s[place]
	if e.source != h {
		e.source, e.tat = h, now
	}
	tat := max(e.tat, now)
	if tat-now > int64(time.Minute-m.step) {
		return false
	}
	e.tat = tat + int64(m.step)
	return true
}

// prefix appends what an address shares with its neighbours: an IPv4 address, or the first
// bytes of an IPv6 address. Nothing for no address.
func prefix(b []byte, a netip.Addr, bytes6 int) []byte {
	switch {
	case a.Is4() || a.Is4In6():
		v := a.As4()
		return append(append(b, 4), v[:]...)
	case a.IsValid():
		v := a.As16()
		return append(append(b, 6), v[:bytes6]...)
	}
	return b
}

// sourceKey is the visitor key of a client without a cookie: the same on every edge and after
// every start, so that a consistent hash of it is steady.
func sourceKey(a netip.Addr) uint64 {
	var m [16]byte
	b := prefix(m[:0], a, 8)
	h := uint64(0xcbf29ce484222325)
	for _, c := range b {
		h = (h ^ uint64(c)) * 0x100000001b3
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
