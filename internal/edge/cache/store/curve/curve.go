// Package curve estimates what a cache of another size would have hit: the miss ratio curve of
// a stream of requests, for "10 GB more would give you". It is SHARDS (Waldspurger et al.,
// Efficient MRC Construction with SHARDS, FAST 2015) with a fixed number of samples: objects are
// chosen by their hash, so that all requests for one are seen or none, and the share of them
// falls as there are more. Distances are in bytes, hits are told by object and by byte.
//
// The curve is that of an LRU cache. A better policy hits more at the same size; how much more
// room brings is told well enough by it.
package curve

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
)

// Bounds of Config.Samples.
const (
	MinSamples     = 256
	MaxSamples     = 1 << 16
	defaultSamples = 4096
)

// Config says how much a Curve keeps. The zero value takes the default.
type Config struct {
	// Samples is how many objects are kept at the most, default 4096. One takes 60 to 75 bytes.
	// Sizes that hold fewer than a few hundred of them are told worse: the most popular objects
	// are in the sample by chance.
	Samples int
}

// Ratio is a share of requests, and of the bytes asked for, from 0 to 1.
type Ratio struct{ Objects, Bytes float64 }

// stripes of the counters of all requests.
const stripes = 8

// Curve is safe for concurrent use. A request for what is not sampled takes no lock.
type Curve struct {
	limit  atomic.Uint64 // places below it are sampled
	totals [stripes]total

	mu      sync.Mutex
	samples samples
	hist    histogram
}

type total struct {
	requests, bytes atomic.Int64
	_               [48]byte
}

// New makes an empty curve; an error says that Samples is out of bounds.
func New(cfg Config) (*Curve, error) {
	if cfg.Samples == 0 {
		cfg.Samples = defaultSamples
	}
	if cfg.Samples < MinSamples || cfg.Samples > MaxSamples {
		return nil, fmt.Errorf("curve: %d samples, want %d to %d", cfg.Samples, MinSamples, MaxSamples)
	}
	c := &Curve{samples: newSamples(cfg.Samples)}
	c.limit.Store(1<<64 - 1)
	return c, nil
}

// Touch counts a request for an object of size bytes, by the hash of its key.
func (c *Curve) Touch(hash uint64, size int64) {
	size = max(size, 0)
	t := &c.totals[hash>>8%stripes]
	t.requests.Add(1)
	t.bytes.Add(size)
	// Others choose by bits of the hash as they are.
	place := hash * 0xd6e8feb86659fd93
	place ^= place >> 32
	place *= 0xd6e8feb86659fd93
	if place < c.limit.Load() {
		c.sample(place, size)
	}
}

// sample counts a request for an object that is sampled.
func (c *Curve) sample(place uint64, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := c.limit.Load()
	if place >= limit {
		return // it fell meanwhile
	}
	rate := float64(limit) / (1 << 64)
	between, again := c.samples.touch(place, size)
	c.hist.seenRequests += 1 / rate
	c.hist.seenBytes += float64(size) / rate
	if again {
		c.hist.add(float64(between)/rate+float64(size), 1/rate, float64(size)/rate)
		return
	}
	if c.samples.full() {
		c.limit.Store(c.samples.dropHighest())
	}
}

// At estimates what a cache of so many bytes would have hit.
func (c *Curve) At(bytes int64) Ratio {
	requests, asked := c.total()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hist.at(float64(bytes), requests, asked)
}

// Gain estimates what a cache of to bytes would have hit more than one of from bytes.
func (c *Curve) Gain(from, to int64) Ratio {
	a, b := c.At(from), c.At(to)
	return Ratio{b.Objects - a.Objects, b.Bytes - a.Bytes}
}

func (c *Curve) total() (requests, bytes float64) {
	for i := range c.totals {
		requests += float64(c.totals[i].requests.Load())
		bytes += float64(c.totals[i].bytes.Load())
	}
	return requests, bytes
}

// Age halves all counts, so that what is told follows the requests of late. Call it from time to
// time, such as once a day.
func (c *Curve) Age() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.totals {
		t := &c.totals[i]
		t.requests.Add(-t.requests.Load() / 2)
		t.bytes.Add(-t.bytes.Load() / 2)
	}
	c.hist.halve()
}

// Stats is what a curve is made of.
type Stats struct {
	Requests int64   // counted, aged
	Samples  int     // objects kept
	Rate     float64 // share of objects that are sampled
	Memory   int64   // in bytes
}

// Stats reads the counters.
func (c *Curve) Stats() Stats {
	requests, _ := c.total()
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{int64(requests), len(c.samples.heap), float64(c.limit.Load()) / (1 << 64), c.samples.memory() + histogramBytes}
}

// Distances are told apart to an eighth, from 4 KiB to 4 PiB.
const (
	minShift       = 12
	maxShift       = 52
	buckets        = (maxShift - minShift) * 8
	histogramBytes = buckets * 16
)

// histogram counts hits by the least size of an LRU cache that makes them.
type histogram struct {
	objects, bytes          [buckets]float64
	seenRequests, seenBytes float64 // estimates of the totals by what was sampled
}

// bucket is the number of the bucket of a distance.
func bucket(distance float64) int {
	if distance < 1<<minShift {
		return 0
	}
	if distance >= 1<<maxShift {
		return buckets - 1
	}
	d := uint64(distance)
	e := bits.Len64(d) - 1
	return (e-minShift)*8 + int(d>>(e-3))&7
}

// end is the distance at which a bucket ends.
func end(b int) float64 { return float64(uint64(9+b%8) << (b/8 + minShift - 3)) }

func (h *histogram) add(distance, requests, bytes float64) {
	b := bucket(distance)
	h.objects[b] += requests
	h.bytes[b] += bytes
}

func (h *histogram) halve() {
	for b := range h.objects {
		h.objects[b] /= 2
		h.bytes[b] /= 2
	}
	h.seenRequests /= 2
	h.seenBytes /= 2
}

// at sums the hits up to a size. Where the sample has more or fewer requests than there were,
// that is because of the most popular objects, which hit in the smallest cache: the difference is
// counted there (SHARDS-adj).
func (h *histogram) at(size, requests, asked float64) Ratio {
	if requests == 0 || size <= 0 {
		return Ratio{}
	}
	objects, bytes := requests-h.seenRequests, asked-h.seenBytes
	last := bucket(size)
	for b := range last {
		objects += h.objects[b]
		bytes += h.bytes[b]
	}
	begin := 0.0
	if last > 0 {
		begin = end(last - 1)
	}
	part := min((size-begin)/(end(last)-begin), 1)
	objects += h.objects[last] * part
	bytes += h.bytes[last] * part
	return Ratio{clamp(objects / requests), clamp(bytes / max(asked, 1))}
}

func clamp(x float64) float64 { return min(max(x, 0), 1) }
