package access

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// none is the value of addresses that no list holds.
const none = int16(-1)

// table tells of an address which list holds it; of several, the one with the lowest number.
// It is two sorted lists of the addresses at which the answer changes.
type table struct {
	starts4 []uint32
	values4 []int16
	starts6 []uint128
	values6 []int16
}

// uint128 is an IPv6 address as a number.
type uint128 struct{ hi, lo uint64 }

func (a uint128) compare(b uint128) int {
	if c := cmp.Compare(a.hi, b.hi); c != 0 {
		return c
	}
	return cmp.Compare(a.lo, b.lo)
}

func number(a netip.Addr) uint128 {
	b := a.As16()
	return uint128{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// find returns the lowest number of a list that holds a, or none.
func (t *table) find(a netip.Addr) int16 {
	if a.Is4() || a.Is4In6() {
		b := a.As4()
		return t.find4(binary.BigEndian.Uint32(b[:]))
	}
	if !a.IsValid() || len(t.starts6) == 0 {
		return none
	}
	n := number(a)
	i, j := 0, len(t.starts6)
	for i < j {
		h := int(uint(i+j) >> 1)
		if t.starts6[h].compare(n) <= 0 {
			i = h + 1
		} else {
			j = h
		}
	}
	if i == 0 {
		return none
	}
	return t.values6[i-1]
}

func (t *table) find4(n uint32) int16 {
	// Halving with a fixed number of steps lets the compiler use a conditional move: the
	// branches of a usual binary search are guessed wrong half of the time.
	s := t.starts4
	if len(s) == 0 || n < s[0] {
		return none
	}
	base, size := 0, len(s)
	for size > 1 {
		half := size >> 1
		if s[base+half] <= n {
			base += half
		}
		size -= half
	}
	return t.values4[base]
}

// edge is an address from which a list holds what follows (in), or no longer does.
type edge struct {
	at   uint128
	list int16
	in   bool
}

// newTable joins lists of networks; the number of a list is its index.
func newTable(lists [][]netip.Prefix) *table {
	var e4, e6 []edge
	for i, l := range lists {
		for _, p := range l {
			if p.Addr().Is4() {
				e4 = appendNetwork(e4, p, int16(i), 32)
			} else {
				e6 = appendNetwork(e6, p, int16(i), 128)
			}
		}
	}
	t := &table{}
	sweep(e4, len(lists), func(at uint128, v int16) {
		t.starts4, t.values4 = append(t.starts4, uint32(at.lo)), append(t.values4, v)
	})
	sweep(e6, len(lists), func(at uint128, v int16) {
		t.starts6, t.values6 = append(t.starts6, at), append(t.values6, v)
	})
	t.starts4, t.values4 = slices.Clip(t.starts4), slices.Clip(t.values4)
	t.starts6, t.values6 = slices.Clip(t.starts6), slices.Clip(t.values6)
	return t
}

// appendNetwork appends the two ends of a network; the last has no end.
func appendNetwork(e []edge, p netip.Prefix, list int16, width int) []edge {
	p = p.Masked()
	first := number(p.Addr())
	if width == 32 {
		first = uint128{lo: first.lo & 0xffffffff}
	}
	e = append(e, edge{first, list, true})
	end := first
	var carry uint64
	switch host := width - p.Bits(); {
	case host == 128:
		return e
	case host >= 64:
		end.hi, carry = bits.Add64(first.hi, 1<<(host-64), 0)
	default:
		end.lo, carry = bits.Add64(first.lo, 1<<host, 0)
		end.hi, carry = bits.Add64(first.hi, 0, carry)
	}
	if carry != 0 || width == 32 && end.lo > 0xffffffff {
		return e
	}
	return append(e, edge{end, list, false})
}

// sweep goes over the edges in order of address and emits where the lowest list changes.
func sweep(edges []edge, lists int, emit func(at uint128, v int16)) {
	slices.SortFunc(edges, func(a, b edge) int { return a.at.compare(b.at) })
	depth := make([]int32, lists) // networks of a list may lie in one another
	active := make([]uint64, (lists+63)/64)
	last := none
	for i, e := range edges {
		if e.in {
			depth[e.list]++
			active[e.list/64] |= 1 << (e.list % 64)
		} else if depth[e.list]--; depth[e.list] == 0 {
			active[e.list/64] &^= 1 << (e.list % 64)
		}
		if i+1 < len(edges) && edges[i+1].at == e.at {
			continue
		}
		if v := lowest(active); v != last {
			emit(e.at, v)
			last = v
		}
	}
}

func lowest(set []uint64) int16 {
	for i, w := range set {
		if w != 0 {
			return int16(i*64 + bits.TrailingZeros64(w))
		}
	}
	return none
}
