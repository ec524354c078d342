package store

import (
	"github.com/relais-edge/relais/internal/edge/cache/store/admission"
	"github.com/relais-edge/relais/internal/edge/cache/store/index"
	"github.com/relais-edge/relais/internal/edge/cache/store/segment"
)

// TierStats is what a tier holds and did.
type TierStats struct {
	Log       segment.Stats
	Index     index.Stats
	Admission admission.Stats
	Found     int64 // records that an earlier process left
	Erased    int64 // marks of what it forgot
	Damaged   int64 // records that a look-up or a read found damaged, and dropped
	Stale     int64 // records that had left before they were in the index: the log is too short for its traffic
	Lost      int64 // records that the log lost: damaged, or with no room to be written again
	Culled    int64 // records that left because an organization was above its quota, while there was room
	Crowded   int64 // records that the index did not take
	Unmarked  int64 // invalidations that the disk did not take: a crash may undo them
}

// TiersStats is what both tiers hold and did.
type TiersStats struct {
	Memory TierStats
	Disk   TierStats // zero without one
	// HasDisk says that there is a disk tier now.
	HasDisk bool
	// Hits were found in memory, DiskHits on the disk only, Misses nowhere.
	Hits, DiskHits, Misses int64
	Promoted, NotPromoted  int64 // came back to memory; did not, though asked for again
	Refused                int64 // times that a tier did not admit a record
	Outdated               int64 // records that were invalidated while they came
}

// Stats reads the counters.
func (t *Tiers) Stats() TiersStats {
	s := TiersStats{
		Memory: t.mem.stats(), Hits: t.hits.Load(), DiskHits: t.diskHits.Load(), Misses: t.misses.Load(),
		Promoted: t.promoted.Load(), NotPromoted: t.notPromoted.Load(), Refused: t.refused.Load(), Outdated: t.outdated.Load(),
	}
	if disk := t.disk.Load(); disk != nil {
		s.Disk, s.HasDisk = disk.stats(), true
	}
	return s
}

func (t *tier) stats() TierStats {
	return TierStats{
		Log: t.log.Stats(), Index: t.idx.Stats(), Admission: t.policy.Stats(), Found: t.found.Load(), Erased: t.erased.Load(), Stale: t.stale.Load(),
		Damaged: t.damaged.Load(), Lost: t.lost.Load(), Crowded: t.crowded.Load(), Unmarked: t.unmarked.Load(), Culled: t.culled.Load(),
	}
}
