package ratelimit

import (
	"sync"

	"github.com/relais-edge/relais/internal/observe"
)

// ways is how many keys share a set, three cache lines.
const ways = 8

// shards is how many locks there are.
const shards = 256

// entry is a key, its theoretical arrival time, and how many of its requests are under way of which it is not known
// yet whether they count. The zero entry is idle. It has 24 bytes, so the time is not kept as a stamp.
type entry struct {
	hash uint64
	ns   int64
	frac uint32
	open uint32
}

func (e *entry) tat() stamp { return stamp{e.ns, e.frac} }

func (e *entry) set(s stamp) { e.ns, e.frac = s.ns, s.frac }

// yields says whether e should give its place away before o: what is under way stays, and what is nearest to
// being idle goes.
func (e *entry) yields(o *entry) bool {
	if (e.open == 0) != (o.open == 0) {
		return e.open == 0
	}
	return o.tat().after(e.tat())
}

type set [ways]entry

type shard struct {
	mu   sync.Mutex
	sets []set
	_    [64 - 32]byte
}

// table holds the arrival times of keys in a fixed memory.
type table struct {
	shards [shards]shard
	perSet uint64 // sets in a shard, a power of two
	idle   observe.Counter
	busy   observe.Counter
}

// newTable makes a table for at least entries keys.
func newTable(entries int, idle, busy observe.Counter) *table {
	t := &table{perSet: 1, idle: idle, busy: busy}
	for t.perSet*shards*ways < uint64(entries) {
		t.perSet *= 2
	}
	for i := range t.shards {
		t.shards[i].sets = make([]set, t.perSet)
	}
	return t
}

// find returns the entry of a key, or the one whose place it gets. The shard's lock is held.
func (s *set) find(hash uint64) (e *entry, found bool) {
	place := 0
	for i := range s {
		if s[i].hash == hash {
			return &s[i], true
		}
		if i > 0 && s[i].yields(&s[place]) {
			place = i
		}
	}
	return &s[place], false
}

// lock locks a key's shard and returns its set.
func (t *table) lock(hash uint64) (*shard, *set) {
	sh := &t.shards[hash%shards]
	sh.mu.Lock()
	return sh, &sh.sets[hash/shards&(t.perSet-1)]
}

// evict counts a key that gave its place away.
func (t *table) evict(old entry, now int64) {
	switch {
	case old.hash == 0:
	case old.ns > now || old.open > 0:
		t.busy.Inc()
	default:
		t.idle.Inc()
	}
}

// take asks rate for one request of the key at now.
func (t *table) take(hash uint64, r *rate, now int64) verdict {
	sh, s := t.lock(hash)
	e, found := s.find(hash)
	old := *e
	if !found {
		*e = entry{hash: hash, ns: now}
	}
	tat, v := r.take(e.tat(), now)
	e.set(tat)
	sh.mu.Unlock()
	if !found {
		t.evict(old, now)
	}
	return v
}

// reserve asks rate for one request of the key at now that will count or not; settle says so.
func (t *table) reserve(hash uint64, r *rate, now int64) verdict {
	sh, s := t.lock(hash)
	e, found := s.find(hash)
	old := *e
	if !found {
		*e = entry{hash: hash, ns: now}
	}
	v := r.reserve(e.tat(), e.open, now)
	if v.ok {
		e.open++
	}
	sh.mu.Unlock()
	if !found {
		t.evict(old, now)
	}
	return v
}

// settle ends what reserve began at a time: counts says whether the request does. A key that lost its place meanwhile
// gets it back if it does.
func (t *table) settle(hash uint64, r *rate, counts bool, at int64) {
	sh, s := t.lock(hash)
	e, found := s.find(hash)
	if !found && !counts {
		sh.mu.Unlock()
		return
	}
	old := *e
	if !found {
		*e = entry{hash: hash, ns: at}
	}
	if e.open > 0 {
		e.open--
	}
	if counts {
		e.set(r.keep(e.tat(), at))
	}
	sh.mu.Unlock()
	if !found {
		t.evict(old, at)
	}
}

// move counts n requests that others took, as far as the limit goes and one burst beyond it.
func (t *table) move(hash uint64, r *rate, n uint32, now int64) {
	most := min(uint64(n), 2*uint64(r.burst))
	sh, s := t.lock(hash)
	defer sh.mu.Unlock()
	e, found := s.find(hash)
	if !found {
		*e = entry{hash: hash}
	}
	at, tat := stamp{ns: now}, e.tat()
	if at.after(tat) {
		tat = at
	}
	bound := r.plus(r.plus(r.plus(at, r.slack), r.slack), r.step)
	step := r.mul(uint32(min(most, uint64(r.burst))))
	for left := most; left > 0; left -= min(left, uint64(r.burst)) {
		if left < uint64(r.burst) {
			step = r.mul(uint32(left))
		}
		tat = r.plus(tat, step)
	}
	if tat.after(bound) {
		tat = bound
	}
	e.set(tat)
}
