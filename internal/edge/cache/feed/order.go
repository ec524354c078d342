package feed

import (
	"hash/maphash"
	"sync"
)

// orders know the last event of each name of all sites, of the last some hundred thousand names. What was
// forgotten is taken for new: it is purged once more, which does no harm.
type orders struct {
	seed maphash.Seed
	half int

	mu       sync.Mutex
	now, old map[uint64]order
}

// verdict says what an event is to those before it.
type verdict uint8

const (
	newer verdict = iota
	same
	older
)

func newOrders(names int) *orders {
	return &orders{seed: maphash.MakeSeed(), half: max(names/2, 1), now: map[uint64]order{}}
}

// against compares an event with one before it.
func (n order) against(last order) verdict {
	switch {
	case n.none || last.none || last.byTime != n.byTime || n.version > last.version:
		return newer
	case n.version == last.version:
		return same
	}
	return older
}

func (o *orders) hash(site, name string) uint64 {
	var h maphash.Hash
	h.SetSeed(o.seed)
	_, _ = h.WriteString(site)
	_ = h.WriteByte(0)
	_, _ = h.WriteString(name)
	return h.Sum64()
}

// judge compares an event with the last one of its name.
func (o *orders) judge(site, name string, n order) verdict {
	h := o.hash(site, name)
	o.mu.Lock()
	defer o.mu.Unlock()
	last, ok := o.now[h]
	if !ok {
		last, ok = o.old[h]
	}
	if !ok {
		return newer
	}
	return n.against(last)
}

// note makes an event the last one of its name.
func (o *orders) note(site, name string, n order) {
	if n.none {
		return
	}
	h := o.hash(site, name)
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.now) >= o.half {
		o.old, o.now = o.now, make(map[uint64]order, len(o.now)/4)
	}
	o.now[h] = n
}
