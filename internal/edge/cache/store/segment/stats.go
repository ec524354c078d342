package segment

import (
	"errors"
	"sync/atomic"
)

// Stats is what a log holds and did.
type Stats struct {
	Limit, Bytes   int64 // Bytes is what the segments hold, garbage included
	Segments, Free int64
	Draining       int64 // left at the tail but still pinned by readers
	Writers        int64 // objects under way
	Queued         int64 // bytes in memory that wait for their object's end or for the disk
	Off            bool  // the disk failed and takes no writes for now

	Commits, Appended int64 // objects, bytes
	Written           int64 // bytes to files
	Aborted           int64
	LostWrites        int64 // committed objects that a failing disk did not take
	WriteErrors       int64
	SyncErrors        int64
	ReadErrors        int64

	RefusedTooLarge, RefusedBusy, RefusedBacklog, RefusedOff, RefusedLength, RefusedOverrun int64

	Reclaimed       int64 // segments
	Retired         int64 // records that left
	Rewritten       int64 // records, and their bytes
	RewrittenBytes  int64
	RewriteRefused  int64 // the Owner wanted to keep them, but there was no room
	PinnedAtReclaim int64 // readers were slower than the log's whole length

	BadHeads, BadBlocks int64 // checksums that were wrong
	Scrubbed            int64 // bytes read by the scrubber
	ScrubBad            int64 // records it found damaged

	Found        int64 // records that New found
	BadTables    int64 // tables with damage, of which the rest was used
	DroppedFiles int64 // of older versions, other stores, or beyond Limit
	AlienFiles   int64 // moved aside
}

type counters struct {
	writers, queued                                                       atomic.Int64
	commits, appended, written, aborted, lostWrites                       atomic.Int64
	writeErrors, syncErrors, readErrors                                   atomic.Int64
	tooLarge, busy, backlog, off, length, overrun                         atomic.Int64
	reclaimed, retired, rewritten, rewrittenBytes, rewriteRefused, pinned atomic.Int64
	badHeads, badBlocks, scrubbed, scrubBad                               atomic.Int64
	found, badTables, dropped, alien                                      atomic.Int64
}

func (c *counters) refuse(err error) {
	switch {
	case errors.Is(err, ErrTooLarge):
		c.tooLarge.Add(1)
	case errors.Is(err, ErrBusy):
		c.busy.Add(1)
	case errors.Is(err, ErrBacklog):
		c.backlog.Add(1)
	case errors.Is(err, ErrOff):
		c.off.Add(1)
	case errors.Is(err, ErrLength):
		c.length.Add(1)
	case errors.Is(err, ErrOverrun):
		c.overrun.Add(1)
	}
}

// Stats reads the counters.
func (l *Log) Stats() Stats {
	n := &l.n
	s := Stats{
		Limit: int64(len(l.segs)) * l.cfg.SegmentSize, Segments: int64(len(l.segs)), Off: l.offUntil.Load() != 0,
		Writers: n.writers.Load(), Queued: n.queued.Load(), Commits: n.commits.Load(), Appended: n.appended.Load(), Written: n.written.Load(),
		Aborted: n.aborted.Load(), LostWrites: n.lostWrites.Load(), WriteErrors: n.writeErrors.Load(), SyncErrors: n.syncErrors.Load(),
		ReadErrors: n.readErrors.Load(), RefusedTooLarge: n.tooLarge.Load(), RefusedBusy: n.busy.Load(), RefusedBacklog: n.backlog.Load(),
		RefusedOff: n.off.Load(), RefusedLength: n.length.Load(), RefusedOverrun: n.overrun.Load(), Reclaimed: n.reclaimed.Load(),
		Retired: n.retired.Load(), Rewritten: n.rewritten.Load(), RewrittenBytes: n.rewrittenBytes.Load(), RewriteRefused: n.rewriteRefused.Load(),
		PinnedAtReclaim: n.pinned.Load(), BadHeads: n.badHeads.Load(), BadBlocks: n.badBlocks.Load(), Scrubbed: n.scrubbed.Load(),
		ScrubBad: n.scrubBad.Load(), Found: n.found.Load(), BadTables: n.badTables.Load(), DroppedFiles: n.dropped.Load(), AlienFiles: n.alien.Load(),
	}
	for _, g := range l.segs {
		if g.seq.Load() != 0 {
			s.Bytes += g.end.Load()
		}
	}
	l.mu.Lock()
	s.Free, s.Draining = int64(len(l.free)), int64(len(l.draining))
	l.mu.Unlock()
	return s
}
