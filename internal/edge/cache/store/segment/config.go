package segment

import (
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"time"
)

// Location is where a record lies: 40 bits, in units of 64 bytes. 0 is nowhere.
type Location uint64

const (
	unit         = 64
	unitShift    = 6
	locationBits = 40
)

// Record is what the log tells of a stored object.
type Record struct {
	Hash   uint64
	At     Location
	Size   int64 // bytes of body
	Born   int64 // as it was given to Create
	Flags  uint16
	Erased bool // not an object, but the mark that Erase left
}

// Owner is who holds the index. It is called without the log's locks, but from within Append,
// Commit and Rehead (memory) and from Run (files): the caller of those must hold no lock that the Owner takes.
type Owner interface {
	// Found is called by New for each record that an earlier process left, in an order in
	// which of two with one hash the later counts. A Record that is Erased takes back all before it.
	Found(Record)
	// Retire is asked when a record reaches the tail. False: the record goes, and the Owner has
	// forgotten it, or has another one at another place. True: it is to be written again; Moved or
	// Lost follows.
	Retire(Record) bool
	// Moved says that a record which Retire kept is now at another place. False: meanwhile it
	// was replaced or erased, and what was written again is garbage.
	Moved(Record, Location) bool
	// Lost says that a record is gone: it could not be written again, was found damaged, or was not yet on the
	// disk when that failed. Of one that is Erased, that the mark is: after a crash what it stood for may be back.
	Lost(Record)
	// Gone says that what still lies from one place up to another has left, and cannot be told one by one.
	Gone(from, to Location)
}

// Errors of a write. In all cases the object is not stored, and serving it goes on.
var (
	ErrTooLarge = errors.New("segment: larger than the log takes")
	ErrBusy     = errors.New("segment: every segment is in use by readers or the tail is not yet free")
	ErrBacklog  = errors.New("segment: more waits to be written than may wait")
	ErrOff      = errors.New("segment: the disk failed; writing is off for a while")
	ErrLength   = errors.New("segment: the body has not the length that was told")
	ErrOverrun  = errors.New("segment: the body took so long that its first part has left at the tail")
	ErrClosed   = errors.New("segment: closed, committed or aborted")
)

// Errors of a read. Both are a miss; the second was counted as damage.
var (
	ErrGone    = errors.New("segment: no record is there any more")
	ErrCorrupt = errors.New("segment: a checksum is wrong")
)

// Config says how large a log is and what it may hold in memory. Zero values take defaults.
type Config struct {
	// Limit is the size of the log in bytes: whole segments, at least four.
	Limit int64
	// SegmentSize is a power of two from 64 KiB to 1 GiB; 8 MiB in memory, 64 MiB in files.
	SegmentSize int64
	// StageBytes is what a writer may hold back before it takes room in the log, a power of
	// two: an object up to this size lies in one piece. 256 KiB in memory, 1 MiB in files.
	StageBytes int
	// QueueBytes bounds what all writers hold back and, in files, what waits to be written. 64 MiB.
	QueueBytes int64
	// MaxObject bounds a body, MaxHead a key with its head. A quarter of Limit; 256 KiB.
	MaxObject int64
	MaxHead   int
	// Writers bounds the objects that are written at one time. 1,024.
	Writers int
	// Rewrite is the share of a segment, in percent, that may be written again at the head. 80.
	Rewrite int
	// FlushEvery is how long a committed object may be in the process alone, SyncEvery how
	// long what was written may be in the page cache alone. 100 ms, 5 s. Files only.
	FlushEvery, SyncEvery time.Duration
	// ScrubRate is how many bytes a second are read to find damage; 0 is none. Files only.
	ScrubRate int64
	// Backoff is how long writing is off after a failure; it doubles to 64 times. 1 s.
	Backoff time.Duration
	// Dir holds the files; nil is memory.
	Dir Dir
	// Log gets the few lines that an operator must see; nil is slog.Default().
	Log *slog.Logger
}

func orElse[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

func (c *Config) fill() error {
	segment, stage := int64(8<<20), 256<<10
	if c.Dir != nil {
		segment, stage = 64<<20, 1<<20
	}
	orElse(&c.SegmentSize, segment)
	orElse(&c.StageBytes, min(stage, int(c.SegmentSize/4)))
	orElse(&c.QueueBytes, 64<<20)
	orElse(&c.MaxObject, c.Limit/4)
	orElse(&c.MaxHead, min(256<<10, int(c.SegmentSize/8)))
	orElse(&c.Writers, 1024)
	orElse(&c.Rewrite, 80)
	orElse(&c.FlushEvery, 100*time.Millisecond)
	orElse(&c.SyncEvery, 5*time.Second)
	orElse(&c.Backoff, time.Second)
	if c.Log == nil {
		c.Log = slog.Default()
	}
	switch n := c.Limit / max(c.SegmentSize, 1); {
	case c.SegmentSize < 64<<10 || c.SegmentSize > 1<<30 || bits.OnesCount64(uint64(c.SegmentSize)) != 1:
		return fmt.Errorf("segment: SegmentSize %d: give a power of two from 64 KiB to 1 GiB", c.SegmentSize)
	case n < 4:
		return fmt.Errorf("segment: Limit %d is less than four segments of %d: give more, or smaller segments", c.Limit, c.SegmentSize)
	case c.Limit > 1<<(locationBits+unitShift):
		return fmt.Errorf("segment: Limit %d is more than a location can say (64 TiB)", c.Limit)
	case c.StageBytes < minStage || bits.OnesCount(uint(c.StageBytes)) != 1 || int64(c.StageBytes) > c.SegmentSize/4:
		return fmt.Errorf("segment: StageBytes %d: give a power of two from 4 KiB to a quarter of a segment", c.StageBytes)
	case c.MaxHead < 0 || int64(c.MaxHead) > c.SegmentSize/8:
		return fmt.Errorf("segment: MaxHead %d is more than an eighth of a segment", c.MaxHead)
	case c.Rewrite < 0 || c.Rewrite > 90:
		return fmt.Errorf("segment: Rewrite %d: give 1 to 90 percent", c.Rewrite)
	case c.Dir != nil && c.QueueBytes < 2*min(blockBytes, c.SegmentSize):
		return fmt.Errorf("segment: QueueBytes %d: give at least %d", c.QueueBytes, 2*min(blockBytes, c.SegmentSize))
	}
	return nil
}
