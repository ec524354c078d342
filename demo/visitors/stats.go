package visitors

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxClusters bounds how many different X-Shop-Cluster values are counted.
const maxClusters = 16

// counters are the live counts of a run. All are safe for concurrent use.
type counters struct {
	arrivals, dropped, live, returning, bots, attackers    atomic.Int64
	requests, dials, bytes, fromCache, notModified, stored atomic.Int64
	classes                                                [6]atomic.Int64
	baskets, ordersOpen, ordersTried                       atomic.Int64
	ordersConfirmed, ordersFailed, ordersAbandoned         atomic.Int64
	holdersRefused, gaveUp                                 atomic.Int64
	attacks, attacksBlocked                                atomic.Int64

	all, pages histogram

	mu        sync.Mutex
	refusedBy map[int]int64
	troubles  map[string]int64
	clusters  map[string]int64
}

func (c *counters) answered(k kind, out reply, took time.Duration) {
	c.bytes.Add(out.bytes)
	c.classes[min(out.status/100, 5)].Add(1)
	c.all.record(took)
	if k <= submission {
		c.pages.record(took)
	}
	if out.status == 304 {
		c.notModified.Add(1)
	}
	// Cache-Status (RFC 9211): a cache on the way answered from what it had stored.
	if hit := out.header.Get("Cache-Status"); strings.Contains(hit, "; hit") || strings.Contains(hit, ";hit") {
		c.stored.Add(1)
		return
	}
	if name := out.header.Get("X-Shop-Cluster"); name != "" {
		c.mu.Lock()
		defer c.mu.Unlock()
		if _, known := c.clusters[name]; known || len(c.clusters) < maxClusters {
			c.clusters[name]++
		}
	}
}

func (c *counters) fail(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.troubles[what]++
}

func (c *counters) refuse(status int) {
	c.holdersRefused.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refusedBy[status]++
}

// Stats is a snapshot of the counts of a run.
type Stats struct {
	Arrivals  int64 // visitors who came, crawlers and attackers included
	Dropped   int64 // arrivals that found Config.MaxLive visitors on the site and were left out
	Live      int64 // visitors on the site now
	Returning int64 // arrivals who had been there before
	Bots      int64 // arrivals that were crawlers or scripts
	Attackers int64

	Requests    int64
	ByClass     [6]int64         // answers by first digit of the status; index 2 is 2xx
	Errors      map[string]int64 // requests without a whole answer, by kind
	Dials       int64            // connections opened or tried
	Bytes       int64            // of bodies, as transferred
	FromBrowser int64            // files that the visitors' own caches had
	NotModified int64            // 304
	EdgeHits    int64            // answers whose Cache-Status says hit
	ByCluster   map[string]int64 // answers by X-Shop-Cluster, those from caches apart

	Baskets        int64         // first things put into a basket
	HoldersRefused int64         // answers 403, 429 or 503 to somebody with a basket
	RefusedBy      map[int]int64 // the same by status
	GaveUp         int64         // visitors who left because the site did not work

	OrdersTried, OrdersConfirmed, OrdersFailed, OrdersAbandoned, OrdersOpen int64

	Attacks        int64 // hostile requests sent
	AttacksBlocked int64 // of these, answered with 403
}

func (c *counters) snapshot() Stats {
	s := Stats{
		Arrivals: c.arrivals.Load(), Dropped: c.dropped.Load(), Live: c.live.Load(), Returning: c.returning.Load(),
		Bots: c.bots.Load(), Attackers: c.attackers.Load(),
		Requests: c.requests.Load(), Dials: c.dials.Load(), Bytes: c.bytes.Load(), FromBrowser: c.fromCache.Load(),
		NotModified: c.notModified.Load(), EdgeHits: c.stored.Load(),
		Baskets: c.baskets.Load(), HoldersRefused: c.holdersRefused.Load(), GaveUp: c.gaveUp.Load(),
		OrdersTried: c.ordersTried.Load(), OrdersConfirmed: c.ordersConfirmed.Load(), OrdersFailed: c.ordersFailed.Load(),
		OrdersAbandoned: c.ordersAbandoned.Load(), OrdersOpen: c.ordersOpen.Load(),
		Attacks: c.attacks.Load(), AttacksBlocked: c.attacksBlocked.Load(),
	}
	for i := range c.classes {
		s.ByClass[i] = c.classes[i].Load()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Errors, s.RefusedBy, s.ByCluster = maps.Clone(c.troubles), maps.Clone(c.refusedBy), maps.Clone(c.clusters)
	return s
}
