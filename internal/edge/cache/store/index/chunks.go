package index

import (
	"sync"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/edge/cache/store/anon"
)

const (
	bucketEntries = 8
	chunkBuckets  = 4
	chunkWords    = chunkBuckets * bucketEntries
	chunkEntries  = chunkWords // a word each
)

// chunks lends pieces of four buckets. They are never unmapped, so that a reader of one that was
// taken back reads something, of which the version then says that it does not count.
type chunks struct {
	region *anon.Region
	words  []uint64

	mu   sync.Mutex
	next uint32 // the first that was never lent
	free uint32 // head of the list of those taken back, plus one; the next one is in the first word
}

func (c *chunks) reserve(n int) error {
	region, err := anon.Map(n * chunkWords * 8)
	if err != nil {
		return err
	}
	region.Huge()
	c.region, c.words = region, region.Words()
	return nil
}

// take lends an empty chunk. There are as many as all shards together may have.
func (c *chunks) take() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.free == 0 {
		c.next++
		return c.next - 1
	}
	id := c.free - 1
	first := &c.words[int(id)*chunkWords]
	c.free = uint32(atomic.LoadUint64(first))
	atomic.StoreUint64(first, 0)
	return id
}

// give takes an empty chunk back.
func (c *chunks) give(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	atomic.StoreUint64(&c.words[int(id)*chunkWords], uint64(c.free))
	c.free = id + 1
}

// at is a chunk. A number that no chunk has, which a reader meets where a writer has just taken a
// list of chunks away, gives some chunk: the version says that it does not count.
func (c *chunks) at(id uint32) *[chunkWords]uint64 {
	first := int(id) * chunkWords
	if first >= len(c.words) {
		first = 0
	}
	return (*[chunkWords]uint64)(c.words[first:])
}

func (c *chunks) bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int64(c.next) * chunkWords * 8
}
