package challenge

import (
	"encoding/binary"
	"hash/maphash"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/edge/budget"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// What a client that keeps no cookie is remembered for after it solved.
const (
	clearedSets = 1 << 12
	clearedWays = 4
	clearedUses = 300
	clearedLife = 10 * time.Minute
)

// cleared remembers clients that solved, for those whose cookies are blocked: by address and User-Agent, in a table
// of a fixed size (512 KiB). Others behind the same address with the same browser may use it up; they had to be
// lucky, and the work was done once.
type cleared struct {
	seed  maphash.Seed
	epoch time.Time
	mu    sync.Mutex
	sets  [clearedSets][clearedWays]struct {
		client uint64
		ends   int64 // since the epoch
		left   int32
	}
}

func newCleared() *cleared { return &cleared{seed: maphash.MakeSeed(), epoch: time.Now()} }

func (c *cleared) key(site uint64, x *stage.Exchange) uint64 {
	var m [40]byte
	b := binary.BigEndian.AppendUint64(m[:0], site)
	b = binary.BigEndian.AppendUint64(b, budget.Fold(x.In.Get(message.UserAgent)))
	return maphash.Bytes(c.seed, budget.AppendPrefix(b, x.Client, 4, 8)) | 1
}

func (c *cleared) put(site uint64, x *stage.Exchange) {
	k, now := c.key(site, x), int64(x.Start.Sub(c.epoch))
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.sets[k>>1%clearedSets]
	e := &s[0]
	for i := range s {
		if s[i].client == k {
			e = &s[i]
			break
		}
		if s[i].ends < e.ends {
			e = &s[i]
		}
	}
	e.client, e.ends, e.left = k, now+int64(clearedLife), clearedUses
}

func (c *cleared) take(site uint64, x *stage.Exchange) bool {
	k, now := c.key(site, x), int64(x.Start.Sub(c.epoch))
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.sets[k>>1%clearedSets]
	for i := range s {
		if e := &s[i]; e.client == k && now < e.ends && e.left > 0 {
			e.left--
			return true
		}
	}
	return false
}
