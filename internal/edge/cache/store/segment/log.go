package segment

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"log/slog"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/store/anon"
)

const (
	// firstRecord is the offset of a segment's first record: a file's header comes before it,
	// and no record has the Location 0.
	firstRecord = fileHeader
	// spare is how many segments are kept free: one for what is written again, one for the rest.
	spare = 2
)

// segment is a fixed place in the log that lives many lives. Pins and lives are told apart
// without a lock: who retires a segment takes its sequence away and then looks at the pins, who
// pins one adds a pin and then looks at the sequence.
type segment struct {
	slot  int
	base  int64         // address of its first byte
	seq   atomic.Uint64 // 0: it holds nothing
	end   atomic.Int64  // records below are whole and do not change
	pins  atomic.Int64
	mem   []byte     // in memory
	disk  *diskPart  // in files
	spans []Location // under Log.mu: records elsewhere whose oldest extent is here
}

// Log is the log. All methods may be called at the same time.
type Log struct {
	cfg   Config
	owner Owner
	log   *slog.Logger
	store [16]byte
	key   uint64
	shift uint
	mask  int64
	block int64
	segs  []*segment
	mem   *anon.Region // nil in files

	mu        sync.Mutex // who appends; never held during I/O or a call of the Owner
	active    *segment
	seq       uint64
	free      []*segment
	draining  []*segment // retired, but pinned
	order     []*segment // full, the oldest first
	unflushed []*segment // full, in files, not yet written; the oldest first
	left      []*segment // in files: reclaimed, but their tables may still tell of them
	closed    bool
	given     atomic.Bool // to another process, which writes what it likes

	reclaiming sync.Mutex // one at a time; before mu
	flushing   sync.Mutex // one at a time; before mu
	spareBlock [][]byte   // under mu
	stages     [stageClasses]sync.Pool
	scratch    sync.Pool
	wantFlush  chan struct{}
	wantRoom   chan struct{}

	offUntil atomic.Int64 // Unix nanoseconds; 0 is writable
	backoff  time.Duration
	unsynced map[*segment]bool // under flushing
	n        counters
}

// New takes a log up. With a Dir it reads the tables that an earlier process left and tells
// the owner what they hold; files that are not of this log are dropped or moved aside with one
// line of log. It starts nothing: a log in files writes nothing before Run is called.
func New(cfg Config, owner Owner) (*Log, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	l := &Log{
		cfg: cfg, owner: owner, log: cfg.Log, shift: uint(bits.TrailingZeros64(uint64(cfg.SegmentSize))), mask: cfg.SegmentSize - 1,
		block: min(blockBytes, cfg.SegmentSize), wantFlush: make(chan struct{}, 1), wantRoom: make(chan struct{}, 1),
		unsynced: map[*segment]bool{}, backoff: cfg.Backoff,
	}
	_, _ = crand.Read(l.store[:])
	l.key = keyOf(l.store)
	l.scratch.New = func() any { return new([sumBlock]byte) }
	n := int(cfg.Limit / cfg.SegmentSize)
	if cfg.Dir == nil {
		var err error
		if l.mem, err = anon.Map(n * int(cfg.SegmentSize)); err != nil {
			return nil, fmt.Errorf("segment: %w", err)
		}
	}
	for i := range n {
		s := &segment{slot: i, base: int64(i) * cfg.SegmentSize}
		if cfg.Dir == nil {
			s.mem = l.mem.Bytes()[s.base : s.base+cfg.SegmentSize : s.base+cfg.SegmentSize]
		} else {
			s.disk = newDiskPart(cfg.Dir, i, int(cfg.SegmentSize/l.block), cfg.SegmentSize)
		}
		l.segs = append(l.segs, s)
	}
	if cfg.Dir != nil {
		if err := l.recover(); err != nil {
			return nil, err
		}
	}
	for _, s := range l.segs {
		if s.seq.Load() == 0 {
			l.free = append(l.free, s)
		}
	}
	return l, nil
}

// MaxObject is the length of the largest body that is taken.
func (l *Log) MaxObject() int64 { return l.cfg.MaxObject }

// Run makes room ahead of who appends and, in files, writes, syncs and scrubs, until ctx ends.
// What was committed before is then written.
func (l *Log) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { l.makeRoom(ctx) })
	if l.cfg.Dir != nil {
		wg.Go(func() { l.care(ctx) })
		wg.Go(func() { l.scrub(ctx) })
		l.keepFlushing(ctx)
	}
	wg.Wait()
	return nil
}

func (l *Log) makeRoom(ctx context.Context) {
	for {
		for l.short() && ctx.Err() == nil && l.reclaim() {
		}
		select {
		case <-ctx.Done():
			return
		case <-l.wantRoom:
		}
	}
}

func (l *Log) short() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.harvest()
	return len(l.free) < spare
}

// Leave gives up the directory to another process, for good. Run must have returned. What was found
// before can still be read, as far as the other does not use its room again, which is seen as damage.
func (l *Log) Leave() error {
	if l.cfg.Dir == nil {
		return nil
	}
	l.given.Store(true)
	return l.cfg.Dir.Close()
}

// Close gives up files and memory. Run must have returned. Memory that is still pinned stays.
func (l *Log) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	for _, s := range l.segs {
		s.seq.Store(0)
	}
	pinned := false
	var err error
	for _, s := range l.segs {
		pinned = pinned || s.pins.Load() != 0
		if s.disk != nil {
			s.disk.close()
		}
	}
	if l.mem != nil && !pinned {
		err = l.mem.Close()
	}
	if l.cfg.Dir != nil {
		err = l.cfg.Dir.Close()
	}
	return err
}

// take finds room for n bytes of a record at the head, under mu. Who writes again what was at
// the tail may have the last free segment.
func (l *Log) take(n int64, again bool) (*segment, int64, error) {
	if l.closed {
		return nil, 0, ErrClosed
	}
	if s := l.active; s == nil || s.end.Load()+n > l.cfg.SegmentSize {
		if err := l.rotate(again); err != nil {
			return nil, 0, err
		}
	}
	s := l.active
	off := s.end.Load()
	if s.disk != nil {
		if err := l.cover(s, off, n); err != nil {
			return nil, 0, err
		}
	}
	return s, off, nil
}

// rotate begins a new segment, under mu.
func (l *Log) rotate(again bool) error {
	l.harvest()
	keep := 1
	if again {
		keep = 0
	}
	if len(l.free) <= keep {
		wake(l.wantRoom)
		return ErrBusy
	}
	s := l.free[0]
	l.free = append(l.free[:0], l.free[1:]...)
	if old := l.active; old != nil {
		l.order = append(l.order, old)
		if old.disk != nil {
			l.unflushed = append(l.unflushed, old)
			wake(l.wantFlush)
		}
	}
	l.seq++
	s.spans = nil
	s.end.Store(firstRecord)
	if s.disk != nil {
		s.disk.begin()
	}
	s.seq.Store(l.seq)
	l.active = s
	if len(l.free) < spare {
		wake(l.wantRoom)
	}
	return nil
}

// harvest frees retired segments that nobody reads any more, under mu.
func (l *Log) harvest() {
	kept := l.draining[:0]
	for _, s := range l.draining {
		if s.pins.Load() == 0 {
			l.free = append(l.free, s)
		} else {
			kept = append(kept, s)
		}
	}
	l.draining = kept
}

// appendTo runs write with room for n bytes of record, under mu. In memory who appends makes
// the room himself where there is none; in files Run does, and until then nothing is stored.
func (l *Log) appendTo(n int64, again bool, write func(s *segment, off int64) error) error {
	n = roundUp(n)
	if n > l.cfg.SegmentSize-firstRecord {
		return ErrTooLarge
	}
	for {
		err := l.appendNow(n, again, write)
		if err != ErrBusy || again || l.mem == nil || !l.reclaim() {
			return err
		}
	}
}

func (l *Log) appendNow(n int64, again bool, write func(s *segment, off int64) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, off, err := l.take(n, again)
	if err != nil {
		return err
	}
	if err := write(s, off); err != nil {
		return err
	}
	s.end.Store(off + n)
	if s.disk != nil && (off+n)/l.block != off/l.block {
		wake(l.wantFlush)
	}
	return nil
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// at finds the segment of an address.
func (l *Log) at(addr int64) (s *segment, off int64) {
	i := addr >> l.shift
	if i < 0 || i >= int64(len(l.segs)) {
		return nil, 0
	}
	return l.segs[i], addr & l.mask
}

// pin holds the segment of [addr, addr+n) in its life seq, or in any when seq is 0.
func (l *Log) pin(addr, n int64, seq uint32) (*segment, uint64) {
	s, off := l.at(addr)
	if s == nil {
		return nil, 0
	}
	s.pins.Add(1)
	life := s.seq.Load()
	if life == 0 || seq != 0 && uint32(life) != seq || off < firstRecord || off+n > s.end.Load() {
		s.pins.Add(-1)
		return nil, 0
	}
	return s, life
}

// write copies p to an offset of the segment that is being appended to, under mu.
func (l *Log) write(s *segment, off int64, p []byte) {
	if s.mem != nil {
		copy(s.mem[off:], p)
		return
	}
	for len(p) > 0 {
		n := copy(s.disk.blocks[off/l.block][off%l.block:], p)
		p, off = p[n:], off+int64(n)
	}
}

// read fills p from an offset of a pinned segment.
func (l *Log) read(s *segment, off int64, p []byte) error {
	if s.mem != nil {
		copy(p, s.mem[off:])
		return nil
	}
	return s.disk.read(p, off, l.block)
}
