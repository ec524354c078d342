package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/store"
	"github.com/relais-edge/relais/internal/edge/cache/store/segment"
	"github.com/relais-edge/relais/internal/observe"
)

// Disk is where answers outlive the process.
type Disk struct {
	// Dir is a folder of the cache's own; empty is none.
	Dir string
	// Bytes is how much of it is used; at least MinDisk.
	Bytes int64
}

// Quota bounds what an organization may have in the store, in bytes; 0 is no bound. Who comes to more than a twentieth above
// it stores nothing more before something of his own has left.
type Quota struct{ Memory, Disk int64 }

// AnyOrg names, among quotas, the organizations that are not named.
const AnyOrg = "*"

// bound sets the quotas of an organization; those that are not told apart have none.
func (s *Stage) bound(o *store.Org) *store.Org {
	q, ok := s.cfg.Quotas[o.Name()]
	if !ok {
		q = s.cfg.Quotas[AnyOrg]
	}
	if o.Name() != "" {
		o.Memory.SetQuota(q.Memory)
		o.Disk.SetQuota(q.Disk)
	}
	return o
}

// Least sizes of the tiers.
const (
	MinBytes = 256 << 10
	MinDisk  = 64 << 20
)

// openTiers makes the store.
func (s *Stage) openTiers() error {
	cfg := &s.cfg
	if cfg.MaxBytes < MinBytes {
		return fmt.Errorf("%d bytes of memory for stored answers are too few: give at least %d", cfg.MaxBytes, MinBytes)
	}
	sc := store.Config{Memory: cfg.MaxBytes, Log: cfg.Logger}
	if d := &cfg.Disk; d.Dir != "" {
		if d.Bytes < MinDisk {
			return fmt.Errorf("%d bytes on the disk for stored answers are too few: give at least %d", d.Bytes, MinDisk)
		}
		// A byte in a day: damage is found before it is asked for.
		sc.Disk, sc.ScrubRate, sc.Known = d.Bytes, max(d.Bytes/(24*3600), 1<<20), store.LookInto(d.Dir)
	}
	var err error
	if s.tiers, err = store.NewTiers(sc); err != nil {
		return fmt.Errorf("the memory for stored answers: %w", err)
	}
	s.maxBody = s.tiers.MaxObject()
	s.attach()
	return nil
}

// attachEvery is how often a disk that could not be had is tried again. One that another process has, which is
// about to end, comes soon.
const (
	attachEvery = 15 * time.Second
	attachSoon  = 500 * time.Millisecond
)

// attach takes the disk up, and returns when to try again; 0 is never. It says once what is in the way.
func (s *Stage) attach() time.Duration {
	d := &s.cfg.Disk
	if d.Dir == "" {
		return 0
	}
	dir, err := segment.OpenDir(d.Dir)
	if err == nil {
		began := time.Now()
		if err = s.tiers.Attach(dir); err == nil {
			for o := range s.tiers.Orgs() { // those that an earlier process knew
				s.bound(o)
			}
			st := s.tiers.Stats()
			s.cfg.Logger.Info("stored answers are kept on the disk", "folder", d.Dir, "bytes", d.Bytes, "found", st.Disk.Found, "took", time.Since(began).Round(time.Millisecond))
			s.warnOfRoom(&st)
			s.attachSaid = ""
			return 0
		}
	}
	said := s.attachSaid == err.Error()
	s.attachSaid = err.Error()
	if errors.Is(err, segment.ErrInUse) {
		if !said {
			s.cfg.Logger.Info("the disk for stored answers is another process's; it is taken over when that gives it up", "folder", d.Dir)
		}
		return attachSoon
	}
	s.attachFailures.Add(1)
	if !said {
		s.cfg.Logger.Error("answers are stored in memory only", "err", err, "mend", "give a folder that can be written to with --cache-disk; it is tried again every 15 seconds", "folder", d.Dir)
	}
	return attachEvery
}

// warnOfRoom says that a disk will be full before the cache is.
func (s *Stage) warnOfRoom(st *store.TiersStats) {
	d := &s.cfg.Disk
	free, ok := segment.Free(d.Dir)
	if need := d.Bytes - st.Disk.Log.Bytes; ok && free < need {
		s.cfg.Logger.Warn("the disk has less room than the cache may take: it will store less, and go on from memory when there is none", "folder", d.Dir, "free", free, "needs", need, "mend", "free room, or give less with --cache-disk-size")
	}
}

// runTiers runs the store until ctx ends, and has the disk tried again.
func (s *Stage) runTiers(ctx context.Context) error {
	within, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	ended := make(chan error, 1)
	go func() { ended <- s.tiers.Run(within) }()
	var retry <-chan time.Time
	if st := s.tiers.Stats(); s.cfg.Disk.Dir != "" && !st.HasDisk {
		retry = time.After(attachSoon)
	}
	yield := s.yield
	for {
		select {
		case <-ctx.Done():
			end()
			return <-ended
		case <-yield:
			yield, retry = nil, nil
			if err := s.tiers.Detach(ctx); err != nil && ctx.Err() == nil {
				s.cfg.Logger.Warn("the disk for stored answers was not given up in good order", "err", err)
			}
		case <-retry:
			retry = nil
			if again := s.attach(); again > 0 {
				retry = time.After(again)
			}
		}
	}
}

// tierMetrics registers what is read of the store.
func tierMetrics(r *observe.Registry, s *Stage) {
	gauge := func(name, help string, read func(st *store.TiersStats) int64) {
		r.GaugeFunc(name, help, func() float64 {
			st := s.tiers.Stats()
			return float64(read(&st))
		})
	}
	gauge("relais_cache_bytes", "Bytes of the memory tier, with what is no longer current.", func(st *store.TiersStats) int64 { return st.Memory.Log.Bytes })
	gauge("relais_cache_limit_bytes", "Bytes that the memory tier may have.", func(st *store.TiersStats) int64 { return st.Memory.Log.Limit })
	gauge("relais_cache_keys", "Records in the memory tier.", func(st *store.TiersStats) int64 { return int64(st.Memory.Index.Objects) })
	gauge("relais_cache_evicted", "Records that the memory tier gave up for room since the start.", func(st *store.TiersStats) int64 { return st.Memory.Admission.Dropped })
	gauge("relais_cache_disk_bytes", "Bytes of the disk tier, with what is no longer current.", func(st *store.TiersStats) int64 { return st.Disk.Log.Bytes })
	gauge("relais_cache_disk_limit_bytes", "Bytes that the disk tier may have; 0 while there is none.", func(st *store.TiersStats) int64 { return st.Disk.Log.Limit })
	gauge("relais_cache_disk_keys", "Records in the disk tier.", func(st *store.TiersStats) int64 { return st.Disk.Index.Objects })
	gauge("relais_cache_disk_evicted", "Records that the disk tier gave up for room since the start.", func(st *store.TiersStats) int64 { return st.Disk.Admission.Dropped })
	gauge("relais_cache_disk_sent_bytes", "Bytes of bodies that the kernel sent from the disk's files since the start, without a copy.", func(*store.TiersStats) int64 { return s.sentFiles.Load() })
	gauge("relais_cache_disk_found", "Records that were found on the disk when it was taken up.", func(st *store.TiersStats) int64 { return st.Disk.Found })
	gauge("relais_cache_disk_errors", "Reads, writes and takings up of the disk that failed since the start.", func(st *store.TiersStats) int64 {
		l := &st.Disk.Log
		return l.ReadErrors + l.WriteErrors + l.SyncErrors + s.attachFailures.Load()
	})
	gauge("relais_cache_disk_off", "1 while the disk takes no writes, or cannot be had.", func(st *store.TiersStats) int64 {
		if s.cfg.Disk.Dir != "" && (!st.HasDisk || st.Disk.Log.Off) {
			return 1
		}
		return 0
	})
	gauge("relais_cache_disk_scrubbed_bytes", "Bytes of the disk that were read to find damage since the start.", func(st *store.TiersStats) int64 { return st.Disk.Log.Scrubbed })
	gauge("relais_cache_disk_damaged", "Records whose checksums were wrong since the start: none was served.", func(st *store.TiersStats) int64 { return st.Disk.Damaged + st.Disk.Lost })
	gauge("relais_cache_disk_lost_segments", "Tables of segments with damage, and files that were not of this cache.", func(st *store.TiersStats) int64 {
		return st.Disk.Log.BadTables + st.Disk.Log.DroppedFiles + st.Disk.Log.AlienFiles
	})
	gauge("relais_cache_disk_unmarked", "Invalidations that the disk did not take since the start: a crash may undo them.", func(st *store.TiersStats) int64 { return st.Disk.Unmarked })
	gauge("relais_cache_culled", "Records that left because their organization was above its quota, since the start.", func(st *store.TiersStats) int64 { return st.Memory.Culled + st.Disk.Culled })
	gauge("relais_cache_promoted", "Records that came back from the disk to memory since the start.", func(st *store.TiersStats) int64 { return st.Promoted })
	gauge("relais_cache_refused", "Times that a tier did not admit a record since the start: it was worth less than what is stored.", func(st *store.TiersStats) int64 { return st.Refused })
}
