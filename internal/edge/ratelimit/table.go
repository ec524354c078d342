package ratelimit

import (
	"sync"

	"github.com/relais-edge/relais/internal/observe"
)

// ways is how many keys share a set, three cache lines.
const ways = 8

// shards is how many locks there are.
const shards = 256

// entry is a key and its theoretical arrival time. The zero entry is idle.
type entry struct {
	hash uint64
	tat  stamp
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

// take asks rate for one request of the key at now.
func (t *table) take(hash uint64, r *rate, now int64) verdict {
	sh := &t.shards[hash%shards]
	sh.mu.Lock()
	s := &sh.sets[hash/shards&(t.perSet-1)]
	place := 0
	for i := range s {
		if s[i].hash == hash {
			tat, v := r.take(s[i].tat, now)
			s[i].tat = tat
			sh.mu.Unlock()
			return v
		}
		if s[place].tat.after(s[i].tat) {
			place = i
		}
	}
	old := s[place]
	tat, v := r.take(stamp{ns: now}, now)
	s[place] = entry{hash, tat}
	sh.mu.Unlock()
	if old.hash != 0 {
		if old.tat.ns > now {
			t.busy.Inc()
		} else {
			t.idle.Inc()
		}
	}
	return v
}

// look says what rate would say of a request of the key at now, without counting it.
func (t *table) look(hash uint64, r *rate, now int64) verdict {
	sh := &t.shards[hash%shards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := &sh.sets[hash/shards&(t.perSet-1)]
	tat := stamp{ns: now}
	for i := range s {
		if s[i].hash == hash {
			tat = s[i].tat
		}
	}
	_, v := r.take(tat, now)
	return v
}

// move counts n requests that others took, as far as the limit goes and one burst beyond it.
func (t *table) move(hash uint64, r *rate, n uint32, now int64) {
	most := min(uint64(n), 2*uint64(r.burst))
	sh := &t.shards[hash%shards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := &sh.sets[hash/shards&(t.perSet-1)]
	place := 0
	for i := range s {
		if s[i].hash == hash {
			place = i
			break
		}
		if s[place].tat.after(s[i].tat) {
			place = i
		}
	}
	e := &s[place]
	if e.hash != hash {
		*e = entry{hash: hash}
	}
	at := stamp{ns: now}
	if at.after(e.tat) {
		e.tat = at
	}
	bound := r.plus(r.plus(r.plus(at, r.slack), r.slack), r.step)
	step := r.mul(uint32(min(most, uint64(r.burst))))
	for left := most; left > 0; left -= min(left, uint64(r.burst)) {
		if left < uint64(r.burst) {
			step = r.mul(uint32(left))
		}
		e.tat = r.plus(e.tat, step)
	}
	if e.tat.after(bound) {
		e.tat = bound
	}
}
