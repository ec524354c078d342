package cache

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/edge/cache/store"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// front keeps copies of small whole answers that are asked for most, decoded and on Go's heap, before the
// tiers: a hit there pins nothing, reads no record and takes no lock. What the tiers have always counts: an entry
// remembers the versions under which it was read, and is of no use once one of them has moved. It is bounded by
// bytes, set by set; within a set who was not asked for since the hand passed goes first.
type front struct{ sets []frontSet }

const (
	// frontShare is the part of the memory's size that the front may have besides: one in so many bytes.
	frontShare = 128
	frontMost  = 64 << 20
	frontWays  = 8
	// frontRoom is how many bytes a set may have, and a quarter of it the most that an entry may.
	frontRoom = 16 << 10
	// frontCost is what an entry costs beside the bytes that it names.
	frontCost = 704
	// frontField is what a field line costs beside its name and value.
	frontField = 20
	// frontTries is how many requests that a full set could not answer stand for one that may change it.
	frontTries = 64
)

type frontSet struct {
	tags [frontWays]atomic.Uint32 // of the entries' hashes: what has another is not looked at
	ways [frontWays]atomic.Pointer[frontEntry]
	mu   sync.Mutex // who changes the set
	held int64      // bytes
	hand uint8
}

// frontEntry does not change but for used and object.seen.
type frontEntry struct {
	object object
	key    []byte
	path   lookupPath
	size   int64
	used   atomic.Bool // since the hand passed
}

// lookupPath is where an answer was found: under the hash of its key or, over a signpost there, under that of a
// variant; and the versions of both before that. Only says that no other answer could have fitted the request.
type lookupPath struct {
	hash, variant     store.Hash
	version, versions uint32
	only              bool
}

func newFront(memory int64) front {
	n := min(memory/frontShare, frontMost) / frontRoom
	return front{make([]frontSet, n)}
}

// current says whether nothing was stored or forgotten on the way since.
func (p *lookupPath) current(t *store.Tiers) bool {
	return t.Version(p.hash) == p.version && (p.variant == p.hash || t.Version(p.variant) == p.versions)
}

// quick answers from the front, or returns nil: the tiers are to be asked, and why not is theirs to say.
func (s *Stage) quick(x *stage.Exchange, l *local) *message.Response {
	if len(s.front.sets) == 0 {
		return nil
	}
	set, tag := &s.front.sets[l.hash.Index(len(s.front.sets))], l.hash.Tag()
	for i := range set.tags {
		if set.tags[i].Load() != tag {
			continue
		}
		e := set.ways[i].Load()
		if e == nil || e.path.hash != l.hash || !bytes.Equal(e.key, l.key) || !e.object.isFor(l, x) {
			continue
		}
		o := &e.object
		if !e.path.current(s.tiers) || l.rule.mark.Last() > o.seen.Load() || o.born > l.born || o.Use(&l.control, l.now) != semantics.Fresh {
			return nil
		}
		if !e.used.Load() {
			e.used.Store(true)
		}
		s.tiers.Again(l.rule.org, l.hash, e.path.variant, e.object.size)
		return s.hit(x, l, o, resultHit, "")
	}
	return nil
}

// offer puts a copy of an answer that was found, and is used fresh, in the front where it may be worth its room.
func (s *Stage) offer(x *stage.Exchange, l *local, f *found, o *object) {
	n := int64(len(o.body))
	if len(s.front.sets) == 0 || !f.path.only || l.aliased || o != &f.object || o.body == nil || o.headOnly || o.partial() || n != o.size {
		return
	}
	size := frontSize(l.key, o)
	set := &s.front.sets[l.hash.Index(len(s.front.sets))]
	if size > frontRoom/4 || !set.mu.TryLock() {
		return
	}
	defer set.mu.Unlock()
	if set.has(l, o, &f.path) || !set.room(s.tiers, size, x.ID[1]%frontTries == 0) {
		return
	}
	for i := range set.ways {
		if set.ways[i].Load() == nil {
			set.held += size
			set.ways[i].Store(newFrontEntry(l.key, f))
			set.tags[i].Store(l.hash.Tag())
			return
		}
	}
}

// frontSize is what an entry takes of a set's room.
func frontSize(key []byte, o *object) int64 {
	return frontCost + int64(len(key)+len(o.selector)+len(o.selected)+len(o.names)+len(o.body)+o.fields.Size()+frontField*o.fields.Len())
}

// newFrontEntry copies what was found.
func newFrontEntry(key []byte, f *found) *frontEntry {
	o := &f.object
	e := &frontEntry{path: f.path, size: frontSize(key, o)}
	c := &e.object
	c.Life, c.status, c.size, c.born, c.softened, c.route, c.id = o.Life, o.status, o.size, o.born, o.softened, o.route, o.id
	c.seen.Store(o.seen.Load())
	c.fields.CopyFrom(&o.fields)
	b := make([]byte, 0, len(key)+len(o.selector)+len(o.selected)+len(o.names)+len(o.body))
	for _, p := range [...]struct {
		to   *[]byte
		from []byte
	}{{&e.key, key}, {&c.selector, o.selector}, {&c.selected, o.selected}, {&c.names, o.names}, {&c.body, o.body}} {
		at := len(b)
		b = append(b, p.from...)
		*p.to = b[at:len(b):len(b)]
	}
	return e
}

// has says whether the set has the same answer, and tells it what purges it has outlived. One of before goes.
func (set *frontSet) has(l *local, o *object, p *lookupPath) bool {
	for i := range set.ways {
		e := set.ways[i].Load()
		if e == nil || e.path.hash != l.hash || !bytes.Equal(e.key, l.key) || !e.object.sameRequests(o) {
			continue
		}
		// What is stored is found a moment before the path's versions say so: with the same path it may be another answer.
		if e.path == *p && e.object.seenKey() == o.seenKey() {
			e.object.seen.Store(max(e.object.seen.Load(), o.seen.Load()))
			return true
		}
		set.drop(i)
	}
	return false
}

// room makes a way and so many bytes free. What is no longer current goes at any time; what is goes only if try
// says so, and its used was not set since.
func (set *frontSet) room(t *store.Tiers, size int64, try bool) bool {
	free := 0
	for i := range set.ways {
		if set.ways[i].Load() == nil {
			free++
		}
	}
	if free > 0 && set.held+size <= frontRoom {
		return true
	}
	if !try {
		return false
	}
	for range frontWays {
		i := int(set.hand) % frontWays
		set.hand++
		e := set.ways[i].Load()
		if e == nil || e.path.current(t) && e.used.Swap(false) {
			continue
		}
		set.drop(i)
		if set.held+size <= frontRoom {
			return true
		}
	}
	return false
}

func (set *frontSet) drop(i int) {
	set.held -= set.ways[i].Load().size
	set.tags[i].Store(0)
	set.ways[i].Store(nil)
}
