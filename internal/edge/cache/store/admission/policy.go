// Package admission decides what a log of stored answers takes in and what it keeps at its
// tail: the eviction policy of a FIFO log.
//
// A key's value is freq / size^0.17, with freq from a small sketch of all requests, also for what
// is not stored. What is worth less than a threshold is not stored, and is dropped at the tail;
// what is worth more is written again at the head. The threshold follows the share of objects
// at the tail that are written again. A size's exponent of 0 would win requests of any size
// alike, of 1 requests per byte of space; 0.17 wins hits by object and by byte at once
// (bench/cachetrace). The package knows neither the log nor its keys, only hashes and sizes.
package admission

import (
	"fmt"
	"math"
	"math/bits"
	"sync/atomic"
)

// Config says how large a Policy is. The zero value of a field takes the default.
type Config struct {
	// Objects is how many objects the log is expected to hold. Grow raises it. Address space is
	// reserved for MaxGrowth times as many.
	Objects int
	// Counters is how many 4-bit counters there are for each object; default 11 (5.5 bytes).
	Counters int
	// Rewrite is the share of objects at the tail that are to be written again, above 0 and
	// below 1; default 0.7, with which a log writes some two bytes again for each new one. A
	// disk whose life counts takes 0.5, with less than one, for half a point of hits by byte.
	Rewrite float64
	// SizeExponent is the power of the size that divides the frequency; default 0.17.
	SizeExponent float64
	// Window is how many requests there are for each counter until all counts are halved; default 2.
	Window float64
}

// Limits of a Config.
const (
	MinObjects  = 1 << 10
	MaxObjects  = 1 << 33
	MaxCounters = 64
	MaxGrowth   = 16
)

func (c Config) withDefaults() (Config, error) {
	if c.Counters == 0 {
		c.Counters = 11
	}
	if c.Rewrite == 0 {
		c.Rewrite = 0.7
	}
	if c.SizeExponent == 0 {
		c.SizeExponent = 0.17
	}
	if c.Window == 0 {
		c.Window = 2
	}
	c.Objects = max(c.Objects, MinObjects)
	switch {
	case c.Objects > MaxObjects:
		return c, fmt.Errorf("admission: %d objects expected, at most %d are possible", c.Objects, MaxObjects)
	case c.Counters < 1 || c.Counters > MaxCounters:
		return c, fmt.Errorf("admission: %d counters an object, want 1 to %d", c.Counters, MaxCounters)
	case !(c.Rewrite > 0 && c.Rewrite < 1):
		return c, fmt.Errorf("admission: a share of %v written again, want more than 0 and less than 1", c.Rewrite)
	case !(c.SizeExponent > 0 && c.SizeExponent <= 1):
		return c, fmt.Errorf("admission: a size exponent of %v, want more than 0 and at most 1", c.SizeExponent)
	case !(c.Window >= 0.1 && c.Window <= 1000):
		return c, fmt.Errorf("admission: a window of %v requests a counter, want 0.1 to 1000", c.Window)
	}
	return c, nil
}

// step is by how much one object at the tail moves the threshold, and refusal the part of it by
// which one that is not stored does.
const (
	step    = 0.002
	refusal = 0.02
)

// Policy is safe for concurrent use. No method takes a lock, or memory from Go's heap.
type Policy struct {
	cfg       Config
	sketch    *sketch
	growing   atomic.Bool
	threshold atomic.Uint64 // bits of a float64; 0 until the tail is first reached
	weights   [sizeClasses]float32

	refused, kept, dropped atomic.Int64
}

// Stats is what a policy did and is.
type Stats struct {
	Threshold float64 // value of the least that is stored
	Refused   int64   // times that Admit said no
	Kept      int64   // objects at the tail to be written again
	Dropped   int64   // objects at the tail that were given up
	Bytes     int64   // of the sketch
	Objects   int     // that the sketch is made for
}

// New makes a policy; an error names the field that is out of bounds, or that there is no memory.
func New(cfg Config) (*Policy, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Policy{cfg: cfg}
	for i := range p.weights {
		p.weights[i] = float32(math.Pow(classMiddle(i), -cfg.SizeExponent))
	}
	blocks := p.blocks(cfg.Objects)
	if p.sketch, err = newSketch(blocks, blocks*MaxGrowth, cfg.Window); err != nil {
		return nil, fmt.Errorf("admission: %w", err)
	}
	return p, nil
}

// Touch counts a request for a key, whether it is stored or not. The request that is answered
// by a fetch counts too, before Admit is asked.
func (p *Policy) Touch(hash uint64) { p.sketch.touch(hash) }

// Frequency is how often a key was asked for of late, at most 15.
func (p *Policy) Frequency(hash uint64) int { return int(p.sketch.estimate(hash)) }

// Full says that the log has come to its tail: from then on one thing is stored at the cost of another.
func (p *Policy) Full() bool { return p.threshold.Load() != 0 }

// Admit says whether what was fetched is to be stored. Until the log has a tail, all is.
func (p *Policy) Admit(hash uint64, size int64) bool {
	return p.admit(p.value(hash, size), 1)
}

func (p *Policy) admit(value, pressure float64) bool {
	old := p.threshold.Load()
	t := math.Float64frombits(old)
	if old == 0 || value >= t*pressure {
		return true
	}
	p.refused.Add(1)
	if pressure == 1 {
		// If all were refused, the tail would never come, and the threshold not follow.
		p.move(old, t*(1-step*refusal))
	}
	return false
}

// Keep says whether an object at the tail of the log is to be written again at its head, and
// moves the threshold. Each object kept raises it, so that who makes room by calling Keep until
// it says no comes to an end: some thousands in a row are kept at the most.
func (p *Policy) Keep(hash uint64, size int64) bool {
	return p.keep(p.value(hash, size), float64(p.weights[sizeClass(size)]))
}

// keep judges a value; once is that of the same object if it was asked for once.
func (p *Policy) keep(value, once float64) bool {
	old := p.threshold.Load()
	t := math.Float64frombits(old)
	if old == 0 {
		t = once
	}
	if value >= t {
		p.move(old, t*(1+step*(1-p.cfg.Rewrite)))
		p.kept.Add(1)
		return true
	}
	p.move(old, t*(1-step*p.cfg.Rewrite))
	p.dropped.Add(1)
	return false
}

// move sets the threshold. A step lost against another one's is no matter.
func (p *Policy) move(old uint64, to float64) {
	p.threshold.CompareAndSwap(old, math.Float64bits(max(to, minThreshold)))
}

// minThreshold is less than any value but 0.
const minThreshold = 1e-9

func (p *Policy) value(hash uint64, size int64) float64 {
	return float64(float32(p.sketch.estimate(hash)) * p.weights[sizeClass(size)])
}

// Stats reads the counters.
func (p *Policy) Stats() Stats {
	return Stats{
		Threshold: math.Float64frombits(p.threshold.Load()),
		Refused:   p.refused.Load(),
		Kept:      p.kept.Load(),
		Dropped:   p.dropped.Load(),
		Bytes:     int64(p.sketch.blocks.Load()) * blockWords * 8,
		Objects:   p.Objects(),
	}
}

// Objects is how many objects the sketch is made for.
func (p *Policy) Objects() int {
	return int(p.sketch.blocks.Load()) * blockCounters / p.cfg.Counters
}

// blocks is how many a sketch for so many objects has.
func (p *Policy) blocks(objects int) int {
	return (objects*p.cfg.Counters + blockCounters - 1) / blockCounters
}

// Grow makes the sketch large enough for so many objects, and a few more; counts stay. It
// takes time linear in the growth and stops nobody: call it when the log holds more objects than
// the sketch is made for. Where it is large enough, or another call is under way, it does
// nothing and takes no time. Beyond MaxGrowth times the objects of Config the sketch does not
// grow, and estimates are too high more often.
func (p *Policy) Grow(objects int) {
	if p.Objects() >= objects || !p.growing.CompareAndSwap(false, true) {
		return
	}
	defer p.growing.Store(false)
	most := len(p.sketch.words) / blockWords
	if want := min(p.blocks(min(objects, MaxObjects)*(slack+1)/slack), most); want > int(p.sketch.blocks.Load()) {
		p.sketch.grow(want)
	}
}

// slack is what part of the objects Grow makes room for besides.
const slack = 64

// Close gives the memory back. Nobody may use the policy any more.
func (p *Policy) Close() error { return p.sketch.region.Close() }

// Sizes are told apart by their highest bit and the three bits after it.
const sizeClasses = 64 * 8

func sizeClass(size int64) int {
	u := uint64(max(size, 8))
	e := bits.Len64(u) - 4
	return (e<<3 | int(u>>e)&7) & (sizeClasses - 1)
}

func classMiddle(class int) float64 {
	return math.Ldexp(float64(8+class&7)+0.5, class>>3)
}
