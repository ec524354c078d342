package balance

import (
	"cmp"
	"slices"
	"strings"
)

// subset chooses the seats that edge number uses of all: at most size, each the same share of the whole.
// Edges 0 to n-1, n being the number of subsets, use each seat once, the next n edges again in another
// order, and so on: whatever the number of edges, no seat has two edges more than another. It is the rule
// of Beyer and others ("Site Reliability Engineering", chapter 20), but that the order goes by a hash of
// the address, so that a seat that comes or goes moves few others.
func subset(seats []seat, size int, number uint64) []seat {
	if size <= 0 || size >= len(seats) {
		return seats
	}
	n := uint64((len(seats) + size - 1) / size)
	round, at := number/n, number%n
	type ordered struct {
		order uint64
		seat
	}
	list := make([]ordered, len(seats))
	for i, s := range seats {
		list[i] = ordered{mix(hashString(s.address) ^ mix(round)), s}
	}
	slices.SortFunc(list, func(a, b ordered) int {
		return cmp.Or(cmp.Compare(a.order, b.order), strings.Compare(a.address, b.address))
	})
	all := uint64(len(list))
	mine := list[at*all/n : (at+1)*all/n]
	out := make([]seat, len(mine))
	for i := range mine {
		out[i] = mine[i].seat
	}
	return out
}
