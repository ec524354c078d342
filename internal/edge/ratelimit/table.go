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
