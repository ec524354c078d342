package flood

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// urlCells is the size of each row of the sketch of URLs: two rows of a byte each are 2 MiB.
const urlCells = 1 << 20

// urls counts how often each URL was asked for lately: a count-min sketch (Cormode and Muthukrishnan, 2005)
// with counters of a byte that are halved bit by bit, so that a URL that nobody asks for is new again.
// Counts may be too high, never too low but for the halving. Increments may be lost between goroutines.
type urls struct {
	rows [2][urlCells / 8]atomic.Uint64
	aged int // words of each row that were halved in this round
}

// add counts a URL and returns how often it was counted before, 255 at most.
func (u *urls) add(hash uint64) uint8 {
	least := uint8(255)
	for i := range u.rows {
		cell := hash >> (i * 32) & (urlCells - 1)
		w, shift := &u.rows[i][cell/8], cell%8*8
		v := w.Load()
		n := uint8(v >> shift)
		least = min(least, n)
		if n < 255 {
			w.CompareAndSwap(v, v+1<<shift)
		}
	}
	return least
}

// age halves a part of the counters: all of them once in parts calls.
func (u *urls) age(parts int) {
	n := len(u.rows[0])
	step := (n + parts - 1) / parts
	for i := u.aged; i < min(u.aged+step, n); i++ {
		for r := range u.rows {
			w := &u.rows[r][i]
			if v := w.Load(); v != 0 {
				w.CompareAndSwap(v, v>>1&0x7f7f7f7f7f7f7f7f)
			}
		}
	}
	if u.aged += step; u.aged >= n {
		u.aged = 0
	}
}

// The table of sources: 2^16 records of 16 bytes in sets of eight, and as many locks as there are shards.
const (
	sourceWays   = 8
	sourceSets   = 1 << 13
	sourceShards = 64
)

// source is what is known of how an address behaves on a site. The zero source is free.
type source struct {
	hash  uint64
	seen  uint32 // tick of the last request
	pages uint8
	files uint8
	level uint8 // tokens of its limit, in fourths
	flags uint8
}

const flagState = 1 // came back with a cookie

type sourceShard struct {
	mu   sync.Mutex
	sets [sourceSets / sourceShards][sourceWays]source
	_    [56]byte
}

// sources knows the sources that were seen lately, in a fixed memory. Of a full set the one goes that did
// least, and of those the one that was seen longest ago, so that a flood of addresses that come once does
// not wash out visitors who look around.
type sources struct{ shards [sourceShards]sourceShard }

// halfLife is after how many ticks of rest a source's counts are halved: a minute.
const halfLife = 120

// see notes a request and returns the record as it was before.
func (s *sources) see(hash uint64, tick uint32, file, state bool) (before source) {
	hash |= 1
	sh := &s.shards[hash>>58]
	set := &sh.sets[hash>>20%(sourceSets/sourceShards)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := findOrMake(set, hash, tick)
	r.rest(tick)
	before = *r
	if file {
		r.files += 1 - r.files/255
	} else {
		r.pages += 1 - r.pages/255
	}
	if state {
		r.flags |= flagState
	}
	return before
}

// vouch notes a request of somebody who is no suspect; known ones count for very many.
func (s *sources) vouch(hash uint64, tick uint32, known bool) {
	hash |= 1
	sh := &s.shards[hash>>58]
	set := &sh.sets[hash>>20%(sourceSets/sourceShards)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := findOrMake(set, hash, tick)
	r.rest(tick)
	if r.files += 1 - r.files/255; known {
		r.files = 255
	}
}

// offend notes a request that was refused, and says whether it was one too many. Then it begins anew.
func (s *sources) offend(hash uint64, tick uint32) bool {
	hash |= 1
	sh := &s.shards[hash>>58]
	set := &sh.sets[hash>>20%(sourceSets/sourceShards)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := findOrMake(set, hash, tick)
	r.rest(tick)
	r.pages += 1 - r.pages/255
	if r.pages < denyAfter || int(r.files)*fineShare > int(r.pages) {
		return false
	}
	r.pages = 0
	return true
}

// done says whether a source has a record with something in it.
func (s *sources) done(hash uint64, tick uint32) bool {
	hash |= 1
	sh := &s.shards[hash>>58]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := find(&sh.sets[hash>>20%(sourceSets/sourceShards)], hash)
	return r != nil && r.pages>>min(8, r.ago(tick)/halfLife) > 0
}

// take asks for a token of a limit: rate tokens a tick (in fourths), burst at most 63. True is yes.
func (s *sources) take(hash uint64, tick uint32, rate, burst uint8) bool {
	hash |= 1
	sh := &s.shards[hash>>58]
	set := &sh.sets[hash>>20%(sourceSets/sourceShards)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := find(set, hash)
	full := burst * 4
	if r == nil {
		r = victim(set, tick)
		*r = source{hash: hash, seen: tick, level: 255}
	}
	level := min(r.level, full)
	if d := r.ago(tick); d > 0 {
		level = uint8(min(uint32(full), uint32(level)+min(d, 256)*uint32(rate)))
	}
	r.rest(tick)
	ok := level >= 4
	if ok {
		level -= 4
	}
	r.level = level
	return ok
}

func find(set *[sourceWays]source, hash uint64) *source {
	for i := range set {
		if set[i].hash == hash {
			return &set[i]
		}
	}
	return nil
}

func findOrMake(set *[sourceWays]source, hash uint64, tick uint32) *source {
	r := find(set, hash)
	if r == nil {
		r = victim(set, tick)
		*r = source{hash: hash, seen: tick, level: 255}
	}
	return r
}

func victim(set *[sourceWays]source, tick uint32) *source {
	best, least := 0, ^uint64(0)
	for i := range set {
		r := &set[i]
		if r.hash == 0 {
			return r
		}
		did := uint64(r.pages) + uint64(r.files)
		did >>= min(63, r.ago(tick)/halfLife)
		if v := did<<32 | uint64(^r.ago(tick)); v < least {
			best, least = i, v
		}
	}
	return &set[best]
}

// ago is how many ticks ago the last request was. Another goroutine may be a tick ahead.
func (r *source) ago(tick uint32) uint32 { return uint32(max(0, int32(tick-r.seen))) }

// rest halves the counts for the time since the last request, and dates the record.
func (r *source) rest(tick uint32) {
	if n := r.ago(tick) / halfLife; n > 0 {
		r.pages >>= min(n, 8)
		r.files >>= min(n, 8)
	}
	if int32(tick-r.seen) > 0 {
		r.seen = tick
	}
}

// forget takes what is held against a source.
func (s *sources) forget(hash uint64) {
	hash |= 1
	sh := &s.shards[hash>>58]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if r := find(&sh.sets[hash>>20%(sourceSets/sourceShards)], hash); r != nil {
		*r = source{}
	}
}

// level is the number of bits that n needs, most at most.
func level(n uint8, most int) int { return min(bits.Len8(n), most) }
