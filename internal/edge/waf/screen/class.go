package screen

import (
	"sync"
	"sync/atomic"
)

const (
	maxSlots   = 32
	maxClasses = 4096 // of one variable
)

// slot is a counter that rules compare: how many values of a variable, or of one key, there are.
type slot struct {
	v   variable
	bit int // of the key; -1 for all
}

// class is what all values of a variable with the same keys have in common.
type class struct {
	id     uint32
	groups []group
	slots  []int
	unsure []int // slots that may or may not count it

	plans [maxPlans]atomic.Pointer[plan] // by kinds; one that is another's gives way
}

// group are the probes of a class after one chain.
type group struct {
	node   int
	probes set
	some   []int // the words of probes that are not 0
}

type classKey struct{ plus, minus uint64 }

// classTable makes the classes of one variable when they are first needed.
type classTable struct {
	keys  keyring
	uses  []use
	slots []int

	plain atomic.Pointer[class]               // of names that are no key
	known atomic.Pointer[map[classKey]*class] // replaced, never changed
	mu    sync.Mutex
}

// of returns the class, or nil when there are too many.
func (t *classTable) of(s *Screen, k classKey) *class {
	if k == (classKey{}) {
		if c := t.plain.Load(); c != nil {
			return c
		}
	}
	if c := (*t.known.Load())[k]; c != nil {
		return c
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	old := *t.known.Load()
	if c := old[k]; c != nil {
		return c
	}
	if len(old) >= maxClasses {
		return nil
	}
	c := t.build(s, k)
	grown := make(map[classKey]*class, len(old)+1)
	for k, v := range old {
		grown[k] = v
	}
	grown[k] = c
	t.known.Store(&grown)
	if k == (classKey{}) {
		t.plain.Store(c)
	}
	return c
}

func (t *classTable) build(s *Screen, k classKey) *class {
	var yes, no set
	for _, u := range t.uses {
		switch {
		case u.minus && (u.key < 0 || k.minus>>u.key&1 != 0):
			no.add(u.probe)
		case !u.minus && (u.key < 0 || k.plus>>u.key&1 != 0):
			yes.add(u.probe)
		}
	}
	c := &class{id: s.classIDs.Add(1)}
	for n := range s.nodes {
		var g set
		any := false
		for p := range s.probes {
			if s.probes[p].node == n && yes.has(p) && !no.has(p) {
				g.add(p)
				any = true
			}
		}
		if any {
			c.groups = append(c.groups, group{node: n, probes: g, some: g.words()})
		}
	}
	for _, i := range t.slots {
		bit := s.slots[i].bit
		switch {
		case bit < 0 || k.plus>>bit&1 != 0 && k.minus>>bit&1 != 0:
			c.slots = append(c.slots, i)
		case k.plus>>bit&1 != 0:
			c.unsure = append(c.unsure, i)
		}
	}
	return c
}
