package segment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// blockBytes is what is written to a file at once when there is enough.
	blockBytes = 1 << 20
	pageSize   = 4096
	// maxPending bounds the marks of Erase and entries of one segment that wait to be written.
	maxPending = 8 << 20
)

// diskPart is what a segment in files has beside its places: the blocks that are not yet
// written, and what of it was verified.
type diskPart struct {
	dir         Dir
	data, table string
	flushed     atomic.Int64 // bytes that are in the file
	told        atomic.Int64 // bytes of them that the table tells of: a process that follows does not write there
	done        atomic.Bool  // full, and all of it written
	file        atomic.Pointer[openFile]
	opening     sync.Mutex
	verified    []atomic.Uint64 // a bit for each page in which a verified block of at least a page begins

	mu     sync.RWMutex // blocks: writers also hold Log.mu
	blocks [][]byte

	pending []byte // under Log.mu: entries for the table
	held    int    // under Log.mu: entries that wait for the Owner's word

	writing []byte // under Log.flushing: entries that are being written
	toc     File
	tocEnd  int64
	started bool
	frames  []byte
}

func newDiskPart(dir Dir, slot, blocks int, size int64) *diskPart {
	d := &diskPart{dir: dir, blocks: make([][]byte, blocks), verified: make([]atomic.Uint64, (size/pageSize+63)/64)}
	d.data, d.table = dataName(slot), tableName(slot)
	return d
}

func dataName(slot int) string  { return fmt.Sprintf("%06d.data", slot) }
func tableName(slot int) string { return fmt.Sprintf("%06d.table", slot) }

// begin starts a new life, under Log.mu: the last one was written to its end and given up.
func (d *diskPart) begin() {
	d.flushed.Store(0)
	d.told.Store(0)
	d.done.Store(false)
	d.started, d.tocEnd = false, 0
	d.unverify()
}

func (d *diskPart) unverify() {
	for i := range d.verified {
		d.verified[i].Store(0)
	}
}

func (d *diskPart) close() {
	if f := d.file.Swap(nil); f != nil {
		f.Close()
	}
	if d.toc != nil {
		d.toc.Close()
		d.toc = nil
	}
}

// read fills p from the file and from what is not yet written.
func (d *diskPart) read(p []byte, off, block int64) error {
	for len(p) > 0 {
		var n int
		if have := d.flushed.Load() - off; have > 0 {
			n = int(min(have, int64(len(p))))
			f, err := d.open()
			if err != nil {
				return err
			}
			if m, err := f.readAt(p[:n], off); err == io.EOF {
				clear(p[m:n]) // cut off, or not yet written again after a start: the sums tell
			} else if err != nil {
				return err
			}
		} else {
			d.mu.RLock()
			if b := d.blocks[off/block]; b != nil {
				n = copy(p, b[off%block:])
			}
			d.mu.RUnlock()
			if n == 0 {
				if d.flushed.Load() > off {
					continue // it was written meanwhile
				}
				return ErrGone
			}
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// cover takes blocks for [off, off+n), under Log.mu.
func (l *Log) cover(s *segment, off, n int64) error {
	d := s.disk
	if n == 0 {
		return nil
	}
	first, last := off/l.block, (off+n-1)/l.block
	missing := int64(0)
	for k := first; k <= last; k++ {
		if d.blocks[k] == nil {
			missing++
		}
	}
	if missing == 0 {
		return nil
	}
	if !l.queue(missing * l.block) {
		wake(l.wantFlush)
		return ErrBacklog
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for k := first; k <= last; k++ {
		if d.blocks[k] != nil {
			continue
		}
		if i := len(l.spareBlock) - 1; i >= 0 {
			d.blocks[k], l.spareBlock = l.spareBlock[i], l.spareBlock[:i]
		} else {
			d.blocks[k] = make([]byte, l.block)
		}
		if k == 0 {
			t := top{l.store, l.cfg.SegmentSize, uint64(s.slot), s.seq.Load()}
			copy(d.blocks[0], t.put(magicData))
		}
	}
	return nil
}

// release gives back the blocks below an offset, under Log.mu.
func (l *Log) release(s *segment, below int64) {
	d := s.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	for k := range d.blocks {
		if d.blocks[k] == nil || int64(k)*l.block >= below {
			continue
		}
		if len(l.spareBlock) < 4 {
			l.spareBlock = append(l.spareBlock, d.blocks[k])
		}
		d.blocks[k] = nil
		l.n.queued.Add(-l.block)
	}
}

// queue counts n bytes that wait in memory, if they may.
func (l *Log) queue(n int64) bool {
	if l.n.queued.Add(n) > l.cfg.QueueBytes {
		l.n.queued.Add(-n)
		return false
	}
	return true
}

// keepFlushing is the one writer of data.
func (l *Log) keepFlushing(ctx context.Context) {
	tick := time.NewTicker(l.cfg.FlushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			if l.writable() == nil {
				_ = l.flush()
			}
			return
		case <-tick.C:
		case <-l.wantFlush:
		}
		if l.writable() == nil {
			_ = l.flush() // it counts and says its error
		}
	}
}

// writable is nil unless the disk failed and its time is not over.
func (l *Log) writable() error {
	if until := l.offUntil.Load(); until != 0 && time.Now().UnixNano() < until {
		return ErrOff
	}
	return nil
}

// flush writes what waits, oldest first, and then takes their tables from the segments that were reclaimed before:
// what was kept of them is now written elsewhere, and what was not must not come back, as nobody leaves a mark of it.
func (l *Log) flush() error {
	l.flushing.Lock()
	defer l.flushing.Unlock()
	l.mu.Lock()
	left := l.left
	l.left = nil
	l.mu.Unlock()
	all, err := l.flushAll()
	if err == nil && all {
		left = l.emptyTables(left)
	}
	if len(left) > 0 {
		l.mu.Lock()
		l.left = append(l.left, left...)
		l.mu.Unlock()
	}
	return err
}

// emptyTables returns those whose tables could not be emptied.
func (l *Log) emptyTables(left []*segment) (again []*segment) {
	for _, s := range left {
		l.mu.Lock()
		old := s.seq.Load() == 0 || !s.disk.started // else the next life has done so
		l.mu.Unlock()
		if !old {
			continue
		}
		f, err := l.cfg.Dir.Open(s.disk.table)
		if err == nil {
			err = errors.Join(f.Truncate(0), f.Close())
		}
		if err != nil {
			again = append(again, s) // what is written next says what is wrong
		}
	}
	return again
}

// flushAll says whether all that waited when it was called is written.
func (l *Log) flushAll() (all bool, err error) {
	for {
		l.mu.Lock()
		s, sealed := l.active, false
		if len(l.unflushed) > 0 {
			s, sealed = l.unflushed[0], true
		}
		l.mu.Unlock()
		if s == nil {
			return true, nil
		}
		wrote, err := l.flushSegment(s, sealed)
		if err != nil {
			l.fail(s, err)
			return false, err
		}
		if wrote && l.offUntil.Swap(0) != 0 {
			l.backoff = l.cfg.Backoff
			l.log.Info("cache: the disk takes writes again")
		}
		if !sealed || !s.disk.done.Load() {
			return !sealed, nil
		}
		l.mu.Lock()
		l.unflushed = append(l.unflushed[:0], l.unflushed[1:]...)
		l.mu.Unlock()
		wake(l.wantRoom)
	}
}

// flushSegment writes data first and then the table that names it.
func (l *Log) flushSegment(s *segment, sealed bool) (wrote bool, err error) {
	d := s.disk
	l.mu.Lock()
	end := s.end.Load()
	d.writing, d.pending = d.pending, nil
	named := d.held == 0
	sealed = sealed && named
	l.mu.Unlock()
	from := d.flushed.Load()
	if end > max(from, firstRecord) || len(d.writing) > 0 {
		wrote = true
		l.unsynced[s] = true
		if err := l.start(s); err != nil {
			return false, err
		}
		if err := l.writeData(s, from, end); err != nil {
			return false, err
		}
		d.frames = appendFrames(d.frames[:0], l.key, s.seq.Load(), d.writing)
		if err := writeAll(d.toc, d.frames, d.tocEnd); err != nil {
			return false, err
		}
		d.tocEnd += int64(len(d.frames))
		d.writing = nil
		if named {
			d.told.Store(end)
		}
	}
	if sealed {
		d.done.Store(true)
		if d.toc != nil {
			d.toc.Close()
			d.toc = nil
		}
		d.frames = nil
	}
	l.mu.Lock()
	switch {
	case sealed:
		l.release(s, l.cfg.SegmentSize)
	default:
		l.release(s, end/l.block*l.block)
	}
	l.mu.Unlock()
	return wrote, nil
}

// start takes the table away from the segment's last life before its data is written over.
func (l *Log) start(s *segment) error {
	d := s.disk
	if d.toc == nil {
		f, err := d.dir.Open(d.table)
		if err != nil {
			return err
		}
		d.toc = f
	}
	if d.started {
		return nil
	}
	if err := d.toc.Truncate(0); err != nil {
		return err
	}
	t := top{l.store, l.cfg.SegmentSize, uint64(s.slot), s.seq.Load()}
	if err := writeAll(d.toc, t.put(magicTable), 0); err != nil {
		return err
	}
	if err := d.renew(); err != nil {
		return err
	}
	d.started, d.tocEnd = true, fileHeader
	return nil
}

// writeData writes [from, end) from the page in which it begins: full blocks whole and aligned.
func (l *Log) writeData(s *segment, from, end int64) error {
	d := s.disk
	if end <= max(from, firstRecord) {
		return nil
	}
	f, err := d.open()
	if err != nil {
		return err
	}
	for from < end {
		k := from / l.block
		// A page that was written in part is written again, unless its block is only in the file.
		at, to := max(from/pageSize*pageSize, k*l.block), min(end, (k+1)*l.block)
		if err := writeAll(f, d.blocks[k][at-k*l.block:to-k*l.block], at); err != nil {
			return err
		}
		l.n.written.Add(to - from)
		d.flushed.Store(to)
		from = to
	}
	return nil
}

func writeAll(f File, p []byte, off int64) error {
	n, err := f.WriteAt(p, off)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}

// fail gives up what of a segment is not written, or not in its table, tells the Owner so, and turns writing off
// for a while. What was written before stays, and reading goes on.
func (l *Log) fail(s *segment, err error) {
	d := s.disk
	l.mu.Lock()
	lost := lostEntries(d.writing, d.pending)
	d.writing, d.pending, d.held = nil, nil, 0
	end := max(d.flushed.Load(), firstRecord)
	for i := range lost {
		if lost[i].kind != kindErased {
			end = min(end, lost[i].off)
			l.n.lostWrites.Add(1)
		}
	}
	s.end.Store(end)
	l.release(s, l.cfg.SegmentSize)
	if s == l.active {
		l.active = nil
		l.order = append(l.order, s)
	} else {
		l.unflushed = append(l.unflushed[:0], l.unflushed[1:]...)
	}
	l.mu.Unlock()
	if d.toc != nil {
		d.toc.Close()
		d.toc = nil
	}
	d.done.Store(true)
	l.n.writeErrors.Add(1)
	first := l.offUntil.Swap(time.Now().Add(l.backoff).UnixNano()) == 0
	l.backoff = min(l.backoff*2, 64*l.cfg.Backoff)
	if first {
		l.log.Error("cache: the disk failed; nothing is stored on it until it takes writes again, reading goes on", "error", err, "file", d.data)
	}
	// The table does not tell of them when the segment leaves, so nobody would forget them.
	for i := range lost {
		l.owner.Lost(lost[i].record(s.base))
	}
}

func lostEntries(batches ...[]byte) (list []entry) {
	for _, b := range batches {
		for ; len(b) > 0; b = b[entrySize:] {
			var e entry
			e.parse(b)
			list = append(list, e)
		}
	}
	return list
}

// care syncs from time to time.
func (l *Log) care(ctx context.Context) {
	tick := time.NewTicker(l.cfg.SyncEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.sync()
		}
	}
}

// sync asks the disk to keep what was written: data before the tables that name it. It delays nobody.
func (l *Log) sync() {
	l.flushing.Lock()
	var todo []*segment
	for s := range l.unsynced {
		todo = append(todo, s)
	}
	clear(l.unsynced)
	l.flushing.Unlock()
	for _, s := range todo {
		f, err := s.disk.open()
		if err == nil {
			err = f.Sync()
			if errors.Is(err, os.ErrClosed) {
				continue // another life has begun
			}
		}
		var t File
		if err == nil {
			t, err = s.disk.dir.Open(s.disk.table)
		}
		if err == nil {
			err = errors.Join(t.Sync(), t.Close())
		}
		if err != nil {
			l.n.syncErrors.Add(1)
		}
	}
}
