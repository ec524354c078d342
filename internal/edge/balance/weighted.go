package balance

import (
	"container/heap"
	"math"
)

// maxSchedule bounds the order that weighted round-robin goes through.
const maxSchedule = 1 << 14

// alias is a place of Walker's alias method: a draw that lands here stays with probability
// keep/2^32, and goes to other else.
type alias struct {
	keep  uint32
	other uint16
}

func newAliases(members []member, sum int64) []alias {
	n := len(members)
	table, left := make([]alias, n), make([]float64, n)
	var small, large []int
	for i, m := range members {
		table[i] = alias{math.MaxUint32, uint16(i)}
		left[i] = float64(m.weight) * float64(n) / float64(sum)
		if left[i] < 1 {
			small = append(small, i)
		} else {
			large = append(large, i)
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		table[s] = alias{uint32(left[s] * math.MaxUint32), uint16(l)}
		if left[l] -= 1 - left[s]; left[l] < 1 {
			large, small = large[:len(large)-1], append(small, l)
		}
	}
	return table
}

// newSchedule is an order in which each member appears by its weight and evenly spread: each
// time the member comes whose next appearance is due first.
func newSchedule(members []member, sum int64) []uint16 {
	g := members[0].weight
	for _, m := range members {
		g = gcd(g, m.weight)
	}
	n := sum / g
	if n > maxSchedule {
		n = max(maxSchedule, int64(len(members)))
	}
	q := make(dueHeap, len(members))
	for i, m := range members {
		every := float64(sum) / float64(m.weight)
		q[i] = due{every / 2, every, uint16(i)}
	}
	heap.Init(&q)
	order := make([]uint16, n)
	for i := range order {
		order[i] = q[0].member
		q[0].at += q[0].every
		heap.Fix(&q, 0)
	}
	return order
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

type due struct {
	at, every float64
	member    uint16
}

type dueHeap []due

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	return h[i].member < h[j].member
}
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)   { *h = append(*h, x.(due)) }
func (h *dueHeap) Pop() any     { panic("balance: a schedule only moves members") }
