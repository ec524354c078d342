package cache

import (
	"cmp"
	"hash/maphash"
	"slices"
	"sync"
	"time"
)

// sampled is how many requests stand for one in the lists of what is asked for most: one in so many is
// looked at, by its random id.
const sampled = 16

const (
	topSets   = 128
	topWays   = 8
	topKey    = 200 // bytes of a key that are kept
	topHalves = 5 * time.Minute
)

// top finds the keys that are asked for most, and those that cost most bytes, in a bounded space: the
// space-saving algorithm (Metwally et al., 2005) in sets of eight. A count may be too high by what was
// in its place before, which is told. Counts are halved every five minutes. Nothing is allocated.
type top struct {
	mu     sync.Mutex
	seed   maphash.Seed
	asked  [topSets][topWays]topEntry // by requests
	moved  [topSets][topWays]topEntry // by bytes
	halved time.Time
}

type topEntry struct {
	hash           uint64
	weight, over   int64
	requests, hits int64
	bytes          int64
	key            [topKey]byte
	n              uint8
}

func newTop() *top { return &top{seed: maphash.MakeSeed()} }

// note counts a sampled request.
func (t *top) note(key []byte, bytes int64, hit bool, now time.Time) {
	if !t.mu.TryLock() {
		return // rather than wait: it is a sample
	}
	defer t.mu.Unlock()
	if d := now.Sub(t.halved); d >= topHalves || d < 0 {
		if !t.halved.IsZero() {
			halve(&t.asked)
			halve(&t.moved)
		}
		t.halved = now
	}
	h := maphash.Bytes(t.seed, key)
	record(&t.asked[h%topSets], h, key, 1, bytes, hit)
	if bytes > 0 {
		record(&t.moved[h%topSets], h, key, bytes, bytes, hit)
	}
}

func record(set *[topWays]topEntry, h uint64, key []byte, weight, bytes int64, hit bool) {
	least := 0
	for i := range set {
		if set[i].hash == h && set[i].weight > 0 {
			least = i
			break
		}
		if set[i].weight < set[least].weight {
			least = i
		}
	}
	e := &set[least]
	if e.hash != h || e.weight == 0 {
		*e = topEntry{hash: h, weight: e.weight, over: e.weight}
		e.n = uint8(copy(e.key[:], key))
	}
	e.weight += weight
	e.requests++
	e.bytes += bytes
	if hit {
		e.hits++
	}
}

func halve(all *[topSets][topWays]topEntry) {
	for i := range all {
		for j := range all[i] {
			e := &all[i][j]
			e.weight, e.over, e.requests, e.hits, e.bytes = e.weight/2, e.over/2, e.requests/2, e.hits/2, e.bytes/2
		}
	}
}

// TopKey is a key that is asked for much, by an estimate from samples.
type TopKey struct {
	// Site and what of the key comes after it: scheme, host, path and query. A long one is cut.
	Site string `json:"site"`
	URL  string `json:"url"`
	// Requests, those that were answered from the store, and the bytes of their bodies, of the last
	// five to ten minutes.
	Requests int64 `json:"requests"`
	Hits     int64 `json:"hits"`
	Bytes    int64 `json:"bytes"`
	// Over is by how much what the list is ordered by may be too high.
	Over int64 `json:"over,omitempty"`
}

// Top lists up to n keys that are asked for most, or that cost most bytes; of one site or, when it is
// empty, of all.
func (s *Stage) Top(site string, byBytes bool, n int) []TopKey {
	t := s.top
	t.mu.Lock()
	defer t.mu.Unlock()
	all := &t.asked
	if byBytes {
		all = &t.moved
	}
	out := []TopKey{}
	for i := range all {
		for j := range all[i] {
			e := &all[i][j]
			if e.weight == 0 || e.requests == 0 {
				continue
			}
			k := TopKey{Requests: e.requests * sampled, Hits: e.hits * sampled, Bytes: e.bytes * sampled, Over: e.over * sampled}
			k.Site, k.URL = splitKey(e.key[:e.n])
			if site == "" || site == k.Site {
				out = append(out, k)
			}
		}
	}
	slices.SortFunc(out, func(a, b TopKey) int {
		if byBytes {
			return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.URL, b.URL))
		}
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.URL, b.URL))
	})
	return out[:min(n, len(out))]
}

// hitsOf is the estimate for one key; false when it is not among those that are asked for most.
func (t *top) hitsOf(key []byte) (hits int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := maphash.Bytes(t.seed, key)
	for i := range t.asked[h%topSets] {
		if e := &t.asked[h%topSets][i]; e.hash == h && e.weight > 0 {
			return e.hits * sampled, true
		}
	}
	return 0, false
}

// splitKey parts a key into the site and what comes after it.
func splitKey(key []byte) (site, rest string) {
	for i, c := range key {
		if c == ' ' {
			return string(key[:i]), string(key[i+1:])
		}
	}
	return "", string(key)
}
