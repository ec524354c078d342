package hpack

import "github.com/relais-edge/relais/internal/http/message"

// entry is a field in a dynamic table. Its bytes stand in the arena at pos, name then value.
type entry struct {
	pos         uint32 // in the stream of all bytes ever added; wraps
	name, value uint32 // lengths
	hash        uint32 // for the encoder
	id          message.ID
	is          Traits // for the decoder: Taken or nothing
}

// table is a dynamic table (RFC 7541 section 2.3.2): a ring of entries over an arena in which
// their bytes follow each other. What is evicted is reclaimed when the arena is full.
type table struct {
	arena []byte
	base  uint32 // pos of arena[0]
	ring  []entry
	added uint32 // entries ever added; the newest has this number less one
	live  uint32 // entries now
	size  uint32 // as RFC 7541 section 4.1 counts
	max   uint32
}

// at returns the entry with a number; the caller knows that it is live.
func (t *table) at(number uint32) *entry { return &t.ring[number&uint32(len(t.ring)-1)] }

// name and value lend an entry's bytes until the next add.
func (t *table) name(e *entry) []byte {
	off := e.pos - t.base
	return t.arena[off : off+e.name : off+e.name]
}

func (t *table) value(e *entry) []byte {
	off := e.pos - t.base + e.name
	return t.arena[off : off+e.value : off+e.value]
}

// setMax changes the size allowed and evicts what no longer fits.
func (t *table) setMax(n uint32) {
	t.max = n
	t.evict(0)
}

// evict makes room for n more.
func (t *table) evict(n uint32) {
	for t.live > 0 && t.size+n > t.max {
		e := t.at(t.added - t.live)
		t.size -= e.name + e.value + Overhead
		t.live--
	}
}

// add puts a field in; one larger than the table empties it (RFC 7541 section 4.4). The name and
// the value must not be the table's own. It says whether the field is in.
func (t *table) add(id message.ID, name, value []byte, hash uint32) bool {
	n := uint32(len(name) + len(value))
	if len(name)+len(value)+Overhead > int(t.max) {
		t.live, t.size = 0, 0
		return false
	}
	t.evict(n + Overhead)
	if int(t.live) == len(t.ring) {
		t.growRing()
	}
	if len(t.arena)+int(n) > cap(t.arena) {
		t.compact(int(n))
	}
	*t.at(t.added) = entry{pos: t.base + uint32(len(t.arena)), name: uint32(len(name)), value: uint32(len(value)), hash: hash, id: id}
	t.arena = append(append(t.arena, name...), value...)
	t.added++
	t.live++
	t.size += n + Overhead
	return true
}

func (t *table) growRing() {
	old := *t
	t.ring = make([]entry, max(8, 2*len(old.ring)))
	for i := t.added - t.live; i != t.added; i++ {
		*t.at(i) = *old.at(i)
	}
}

// compact moves the live bytes to the front, in a larger arena when less than half of this one
// would then be free: so that the moves cost less than what is added between them.
func (t *table) compact(n int) {
	from := len(t.arena)
	if t.live > 0 {
		from = int(t.at(t.added-t.live).pos - t.base)
	}
	live := t.arena[from:]
	t.base += uint32(from)
	if 2*(len(live)+n) > cap(t.arena) {
		t.arena = append(make([]byte, 0, max(512, 4*(len(live)+n))), live...)
		return
	}
	t.arena = t.arena[:copy(t.arena[:cap(t.arena)], live)]
}
