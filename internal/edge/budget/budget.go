// Package budget counts what sources may have, in tables of a fixed size: so many baskets, tickets or
// solved puzzles a minute. It is the generic cell rate algorithm in whole nanoseconds; nothing is kept for
// a source but its hash and one time.
//
// When a set of a table is full, the source that is nearest to having its whole budget gives way. A flood
// of new sources so washes out others, who then have their whole budget again; a table never refuses one
// for what another did.
package budget

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// ways is how many sources share a set.
const ways = 4

// Table holds the budgets of sources.
type Table struct {
	seed  maphash.Seed
	epoch time.Time
	sets  []set
}

type set struct {
	mu   sync.Mutex
	list [ways]entry
}

type entry struct {
	source uint64
	tat    int64 // when the budget is whole again, since the epoch
	credit int64 // how many more it may have, beside the budget
}

// New makes a table of a number of sets; each holds four sources in 104 bytes.
func New(sets int) *Table { return NewAt(sets, time.Now()) }

// NewAt makes a table for times after a first one.
func NewAt(sets int, first time.Time) *Table {
	return &Table{seed: maphash.MakeSeed(), epoch: first.Add(-time.Hour), sets: make([]set, max(sets, 1))}
}

// Rate is so many in a minute, and as many at once.
type Rate struct {
	step  int64 // nanoseconds for one
	burst int64 // nanoseconds that may be taken ahead
}

// PerMinute makes a rate; a number below 1 means no bound.
func PerMinute(n int) Rate { return Per(n, time.Minute) }

// Per makes a rate of n in each period, and as many at once; a number below 1 means no bound.
func Per(n int, period time.Duration) Rate {
	if n < 1 {
		return Rate{}
	}
	step := max(int64(period)/int64(n), 1)
	return Rate{step, step * int64(n)}
}

// Burst returns the rate with n at once.
func (r Rate) Burst(n int) Rate { return Rate{r.step, r.step * int64(n)} }

// Take takes one from a source's budget, by a reading of a monotonic clock. False means that it has none.
func (t *Table) Take(source uint64, r Rate, at time.Time) bool {
	if r.step == 0 {
		return true
	}
	now := int64(at.Sub(t.epoch))
	s, e := t.find(source, now)
	defer s.mu.Unlock()
	tat := max(e.tat, now)
	if tat-now > r.burst-r.step {
		if e.credit == 0 {
			return false
		}
		e.credit--
		return true
	}
	e.tat = tat + r.step
	return true
}

// Credit gives a source n more than its rate, as long as it does not have most of such in store.
func (t *Table) Credit(source uint64, n, most int, at time.Time) {
	s, e := t.find(source, int64(at.Sub(t.epoch)))
	defer s.mu.Unlock()
	e.credit = min(e.credit+int64(n), max(e.credit, int64(most)))
}

// find locks a source's set and finds its entry there, or makes one.
func (t *Table) find(source uint64, now int64) (*set, *entry) {
	h := source | 1
	s := &t.sets[h>>1%uint64(len(t.sets))]
	s.mu.Lock()
	place := 0
	for i := range s.list {
		if s.list[i].source == h {
			return s, &s.list[i]
		}
		if s.list[i].tat < s.list[place].tat {
			place = i
		}
	}
	s.list[place] = entry{source: h, tat: now}
	return s, &s.list[place]
}

// Key is the source of a number, such as a token's id, within a scope.
func (t *Table) Key(scope, n uint64) uint64 {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], scope)
	binary.BigEndian.PutUint64(b[8:], n)
	return maphash.Bytes(t.seed, b[:])
}

// Address is the source of an address within a scope: an IPv4 address, an IPv6 /64.
func (t *Table) Address(scope uint64, a netip.Addr) uint64 { return t.prefix(scope, a, 4, 8) }

// Network is the source of an address's neighbourhood within a scope: an IPv4 /24, an IPv6 /48.
func (t *Table) Network(scope uint64, a netip.Addr) uint64 { return t.prefix(scope, a, 3, 6) }

func (t *Table) prefix(scope uint64, a netip.Addr, bytes4, bytes6 int) uint64 {
	var b [26]byte
	binary.BigEndian.PutUint64(b[:], scope)
	return maphash.Bytes(t.seed, AppendPrefix(b[:8], a, bytes4, bytes6))
}

// AppendPrefix appends the first bytes of an IPv4 or IPv6 address, after one that tells their number;
// nothing for no address.
func AppendPrefix(b []byte, a netip.Addr, bytes4, bytes6 int) []byte {
	switch {
	case a.Is4() || a.Is4In6():
		v := a.As4()
		return append(append(b, byte(bytes4)), v[:bytes4]...)
	case a.IsValid():
		v := a.As16()
		return append(append(b, byte(16+bytes6)), v[:bytes6]...)
	}
	return b
}

// Fold hashes bytes to what may be kept and compared by every edge: FNV-1a with a last stir.
func Fold(b []byte) uint64 {
	h := uint64(0xcbf29ce484222325)
	for _, c := range b {
		h = (h ^ uint64(c)) * 0x100000001b3
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
