package admission

import (
	"math/bits"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/edge/cache/store/anon"
)

const (
	rows          = 4
	blockWords    = 8 // a cache line
	blockCounters = blockWords*16 - 1
	maxCount      = 15
	halved        = 0x7777777777777777 // what stays of a word of counters after a shift by one
	stripes       = 16
	stripeStep    = 64 // touches that a stripe keeps to itself
)

// sketch is a count-min sketch (Cormode and Muthukrishnan, 2005) of 4-bit counters with
// conservative update (Estan and Varghese, 2002) and aging by halves (Einziger et al.,
// TinyLFU, 2017). All counters of a key are in one block of 64 bytes. A block is halved when it
// is next looked at after an epoch ended, so that no operation walks the table: nibble 0 of a
// block is its epoch modulo 16. A block that nobody looks at for 16 epochs may keep its counts.
//
// The number of blocks is any, and grows, by linear hashing (Litwin, 1980): a new block begins
// as a copy of the one that it takes half of the keys of.
//
// Concurrent updates may lose a count. It is an estimate.
type sketch struct {
	region  *anon.Region
	words   []uint64 // of as many blocks as there may ever be
	blocks  atomic.Uint64
	window  float64
	adds    atomic.Int64
	epoch   atomic.Uint64
	stripes [stripes]stripe
}

// stripe counts touches on a cache line of its own.
type stripe struct {
	n atomic.Uint32
	_ [60]byte
}

// newSketch makes a sketch of so many blocks, and room for it to grow. Window is how many touches
// there are for each counter until a halving.
func newSketch(blocks, most int, window float64) (*sketch, error) {
	region, err := anon.Map(most * blockWords * 8)
	if err != nil {
		return nil, err
	}
	region.Huge()
	s := &sketch{region: region, words: region.Words(), window: window}
	s.blocks.Store(uint64(blocks))
	return s, nil
}

// limit is how many touches there are until a halving; half of them count on after it.
func (s *sketch) limit() int64 {
	return max(2*stripes*stripeStep, int64(s.window*float64(s.blocks.Load()*blockCounters)))
}

// counters says where the counters of a key are: the words of its block, and five bits for each
// row, of which the highest chooses one of the row's two words and the others a counter in it.
func (s *sketch) counters(hash uint64) (*[blockWords]uint64, uint32) {
	n := s.blocks.Load()
	mask := uint64(1)<<bits.Len64(n-1) - 1
	b := hash & mask
	if b >= n {
		b &= mask >> 1
	}
	places := uint32(hash * 0x9e3779b97f4a7c15 >> (64 - 5*rows))
	if places&31 == 0 {
		places |= 16 // nibble 0 is the epoch
	}
	return s.block(b), places
}

func (s *sketch) block(b uint64) *[blockWords]uint64 {
	return (*[blockWords]uint64)(s.words[b*blockWords:])
}

// at is the word and the shift of a row's counter.
func at(places uint32, row uint) (word, shift uint) {
	p := uint(places>>(5*row)) & 31
	return 2*row + p>>4, p & 15 * 4
}

// age halves the block if an epoch has ended since it was last looked at.
func (s *sketch) age(block *[blockWords]uint64) {
	now := s.epoch.Load() & 15
	for {
		old := atomic.LoadUint64(&block[0])
		behind := uint((now - old) & 15)
		if behind == 0 {
			return
		}
		if !atomic.CompareAndSwapUint64(&block[0], old, halve(old, behind)&^15|now) {
			continue
		}
		for i := 1; i < blockWords; i++ {
			if w := atomic.LoadUint64(&block[i]); w != 0 {
				// Who loses against a count under way leaves one word unhalved, for one epoch.
				atomic.CompareAndSwapUint64(&block[i], w, halve(w, behind))
			}
		}
		return
	}
}

func halve(w uint64, times uint) uint64 {
	for range min(times, 4) {
		w = w >> 1 & halved
	}
	return w
}

// estimate is how often a key was touched, at most 15, aged.
func (s *sketch) estimate(hash uint64) uint32 {
	block, places := s.counters(hash)
	s.age(block)
	return lowest(block, places)
}

func lowest(block *[blockWords]uint64, places uint32) uint32 {
	low := uint64(maxCount)
	for row := range uint(rows) {
		word, shift := at(places, row)
		low = min(low, atomic.LoadUint64(&block[word])>>shift&15)
	}
	return uint32(low)
}

// touch counts a request for a key: of its counters only the lowest grow.
func (s *sketch) touch(hash uint64) {
	block, places := s.counters(hash)
	s.age(block)
	if low := uint64(lowest(block, places)); low < maxCount {
		for row := range uint(rows) {
			word, shift := at(places, row)
			w := atomic.LoadUint64(&block[word])
			if w>>shift&15 == low {
				atomic.CompareAndSwapUint64(&block[word], w, w+1<<shift)
			}
		}
	}
	if s.stripes[hash%stripes].n.Add(1)%stripeStep == 0 {
		s.pass(stripeStep)
	}
}

// pass counts n touches for the epochs.
func (s *sketch) pass(n int64) {
	limit := s.limit()
	for {
		old := s.adds.Load()
		sum := old + n
		over := sum >= limit
		if over {
			sum /= 2
		}
		if s.adds.CompareAndSwap(old, sum) {
			if over {
				s.epoch.Add(1)
			}
			return
		}
	}
}

// grow adds blocks. What is touched meanwhile, and will be in a new block, is lost. Only one call
// may be under way.
func (s *sketch) grow(blocks int) {
	for b := s.blocks.Load(); b < uint64(blocks); b++ {
		from, to := s.block(b&^(1<<(bits.Len64(b)-1))), s.block(b)
		for i := range to {
			atomic.StoreUint64(&to[i], atomic.LoadUint64(&from[i]))
		}
	}
	s.blocks.Store(uint64(blocks))
}
