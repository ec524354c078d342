package balance

import (
	"cmp"
	"slices"
)

// waiter is one who waits.
type waiter struct {
	turn    chan struct{} // has room for one sign that it may be its turn
	lane    int
	rank    uint32 // among those in its lane
	came    uint64 // when, as a number that grows
	held    int64  // by others of its source, when it came
	out     bool   // of the line: it gave way to somebody of a lower rank
	called  bool   // with patience: it is out, and
	granted bool   // has a place
}

// lane is those who wait, in the order in which they are served: by rank, and of one rank who came first.
type lane struct {
	list []*waiter
	came uint64
}

func before(a, b *waiter) int {
	return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.came, b.came))
}

// push lets w in.
func (a *lane) push(w *waiter) {
	a.came++
	w.came = a.came
	i, _ := slices.BinarySearchFunc(a.list, w, before)
	a.list = slices.Insert(a.list, i, w)
}

// remove takes w out.
func (a *lane) remove(w *waiter) {
	if i, found := slices.BinarySearchFunc(a.list, w, before); found {
		a.list = slices.Delete(a.list, i, i+1)
	}
}

// first is the first whose source has less than room; nil when there is none.
func (a *lane) first(room int64) *waiter {
	for _, w := range a.list {
		if w.held < room {
			return w
		}
	}
	return nil
}

// last is who is served last, if that is after rank.
func (a *lane) last(rank uint32) *waiter {
	if n := len(a.list); n > 0 && a.list[n-1].rank > rank {
		return a.list[n-1]
	}
	return nil
}
