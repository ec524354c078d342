package packet

import (
	"net/netip"
	"slices"
	"time"
)

// span is a run of addresses on which one rule decides.
type span struct {
	first, last netip.Addr
	action      Action
	until       time.Time
}

// spans lays rules of one family, of which the longest prefix decides, out side by side: nftables
// has no longest prefix, and its intervals may not overlap.
func spans(list []*entry) []span {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b *entry) int {
		if c := a.Prefix.Addr().Compare(b.Prefix.Addr()); c != 0 {
			return c
		}
		return a.Prefix.Bits() - b.Prefix.Bits()
	})
	var out []span
	var open []span // those around the place where we are, the narrowest last
	var at netip.Addr
	upTo := func(last netip.Addr) { // the narrowest decides from where we are to there
		if top := open[len(open)-1]; at.IsValid() && at.Compare(last) <= 0 {
			top.first, top.last = at, last
			out = append(out, top)
		}
		at = last.Next()
	}
	closeBefore := func(a netip.Addr) {
		for len(open) > 0 && (!a.IsValid() || open[len(open)-1].last.Less(a)) {
			upTo(open[len(open)-1].last)
			open = open[:len(open)-1]
		}
	}
	for _, e := range list {
		first := e.Prefix.Addr()
		closeBefore(first)
		if len(open) > 0 && at.Less(first) {
			upTo(first.Prev())
		}
		open = append(open, span{first, lastOf(e.Prefix), e.Action, e.Until})
		at = first
	}
	closeBefore(netip.Addr{})
	return out
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
