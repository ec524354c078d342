package segment

import (
	"hash/crc32"
	"math/bits"
	"sync"
)

// Stages come in powers of two from 4 KiB on.
const (
	minStage     = 4 << 10
	stageClasses = 18
)

// Meta is what is known of an object before its body comes.
type Meta struct {
	Hash  uint64
	Born  int64 // any instant the caller counts in; given back as it is
	Flags uint16
	Key   []byte // up to 65,535 bytes; not checked to be unique
	Head  []byte
	// Length is the length of the body in bytes, or -1. It only helps to take the right room.
	Length int64
}

// Writer takes one object in. Its methods may be called at the same time; Append and Commit by
// one goroutine.
type Writer struct {
	l    *Log
	meta Meta

	mu    sync.RWMutex
	lay   layout // what has left the stage
	stage []byte
	total int64
	err   error
	again bool  // what was at the tail
	entry entry // its entry in the table
}

// Create begins an object. Key and Head must stay as they are until Commit or Abort.
func (l *Log) Create(m Meta) (*Writer, error) {
	w, err := l.create(m)
	if err != nil {
		l.n.refuse(err)
	}
	return w, err
}

func (l *Log) create(m Meta) (*Writer, error) {
	if err := l.fits(&m); err != nil {
		return nil, err
	}
	if err := l.writable(); err != nil {
		return nil, err
	}
	if l.n.writers.Add(1) > int64(l.cfg.Writers) {
		l.n.writers.Add(-1)
		return nil, ErrBacklog
	}
	return &Writer{l: l, meta: m}, nil
}

func (l *Log) fits(m *Meta) error {
	if len(m.Key) > maxKey || len(m.Key)+len(m.Head) > l.cfg.MaxHead || m.Length > l.cfg.MaxObject {
		return ErrTooLarge
	}
	return nil
}

// Append adds a chunk, which is copied. It waits for no reader and no disk. After an error the
// object will not be stored: the caller calls Abort, and goes on serving.
func (w *Writer) Append(p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = w.append(p)
		if w.err != nil {
			w.l.n.refuse(w.err)
		}
	}
	return w.err
}

func (w *Writer) append(p []byte) error {
	if w.total+int64(len(p)) > w.l.cfg.MaxObject {
		return ErrTooLarge
	}
	for len(p) > 0 {
		if len(w.stage) == 0 && len(p) >= w.l.cfg.StageBytes && (w.meta.Length < 0 || w.meta.Length > int64(w.l.cfg.StageBytes)) {
			n := min(len(p), w.l.maxExtent())
			if err := w.spill(p[:n]); err != nil {
				return err
			}
			p, w.total = p[n:], w.total+int64(n)
			continue
		}
		if len(w.stage) == cap(w.stage) {
			if err := w.grow(len(p)); err != nil {
				return err
			}
		}
		n := min(len(p), cap(w.stage)-len(w.stage))
		w.stage = append(w.stage, p[:n]...)
		p, w.total = p[n:], w.total+int64(n)
	}
	return nil
}

// maxExtent keeps a piece within a quarter of a segment and, in files, of what may wait.
func (l *Log) maxExtent() int {
	n := l.cfg.SegmentSize / 4
	if l.cfg.Dir != nil {
		n = min(n, max(l.cfg.QueueBytes/4, int64(l.cfg.StageBytes)))
	}
	return int(n)
}

// grow makes room in the stage: a larger one, or the same one emptied into the log.
func (w *Writer) grow(n int) error {
	want := max(int64(len(w.stage)+n), minStage, int64(2*cap(w.stage)))
	if w.meta.Length > w.total {
		want = max(want, w.meta.Length-w.total+int64(len(w.stage)))
	}
	want = min(want, int64(w.l.cfg.StageBytes))
	if int64(cap(w.stage)) >= want {
		err := w.spill(w.stage)
		w.stage = w.stage[:0]
		return err
	}
	b, err := w.l.getStage(int(want))
	if err != nil {
		return err
	}
	b = append(b, w.stage...)
	w.l.putStage(w.stage)
	w.stage = b
	return nil
}

func (l *Log) getStage(n int) ([]byte, error) {
	class := bits.Len(uint(n-1)) - bits.Len(uint(minStage-1))
	if !l.queue(minStage << class) {
		return nil, ErrBacklog
	}
	if b, ok := l.stages[class].Get().(*[]byte); ok {
		return (*b)[:0], nil
	}
	return make([]byte, 0, minStage<<class), nil
}

func (l *Log) putStage(b []byte) {
	if cap(b) == 0 {
		return
	}
	l.n.queued.Add(-int64(cap(b)))
	b = b[:0]
	l.stages[bits.Len(uint(cap(b)-1))-bits.Len(uint(minStage-1))].Put(&b)
}

// spill writes a piece of the body to the log.
func (w *Writer) spill(p []byte) error {
	if len(w.lay.exts)/extentEntry >= maxExtents {
		return ErrTooLarge
	}
	if err := w.l.writable(); err != nil {
		return err
	}
	w.addSums(p)
	return w.l.appendTo(int64(extentHeader+len(p)), w.again, func(s *segment, off int64) error {
		var h [extentHeader]byte
		le.PutUint32(h[:], sealOf(w.l.key, s.seq.Load(), off))
		h[4] = kindExtent
		le.PutUint64(h[8:], uint64(len(p)))
		w.l.write(s, off, h[:])
		w.l.write(s, off+extentHeader, p)
		w.lay.add(s.base+off+extentHeader, int64(len(p)), s.seq.Load())
		return nil
	})
}

// addSums counts the blocks of a piece; bodies in memory have no sums.
func (w *Writer) addSums(p []byte) {
	if w.l.mem != nil {
		return
	}
	for len(p) > 0 {
		n := min(len(p), sumBlock)
		w.lay.sums = le.AppendUint32(w.lay.sums, crc32.Checksum(p[:n], castagnoli))
		p = p[n:]
	}
}

// Len is how many bytes were appended.
func (w *Writer) Len() int64 {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.total
}

// ReadAt reads what was appended, while it is appended: up to len(p) bytes, less at its end.
// After Commit or Abort it gives ErrClosed, and the committed object is read by its Location.
func (w *Writer) ReadAt(p []byte, off int64) (int, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.err != nil {
		return 0, w.err
	}
	read := 0
	for read < len(p) && off < w.total {
		spilled := w.total - int64(len(w.stage))
		if off >= spilled {
			return read + copy(p[read:], w.stage[off-spilled:]), nil
		}
		x := w.lay.find(off)
		n := min(int64(len(p)-read), x.len-(off-x.first))
		if err := w.readExtent(&x, off-x.first, p[read:read+int(n)]); err != nil {
			return read, err
		}
		read, off = read+int(n), off+n
	}
	return read, nil
}

func (w *Writer) readExtent(x *extent, within int64, p []byte) error {
	s, _ := w.l.pin(x.addr, x.len, x.seq)
	if s == nil {
		return ErrGone
	}
	defer s.pins.Add(-1)
	r := blockReader{l: w.l}
	defer r.done()
	return r.read(s, x, w.lay.sums, within, p)
}

// Abort gives up an object. What it has in the log is reclaimed with its segments. It does
// nothing after Commit or Abort.
func (w *Writer) Abort() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == ErrClosed {
		return
	}
	if w.err == nil {
		w.l.n.aborted.Add(1)
	}
	w.close()
}

func (w *Writer) close() {
	w.l.putStage(w.stage)
	w.stage, w.err = nil, ErrClosed
	if !w.again {
		w.l.n.writers.Add(-1)
	}
}

// Commit ends an object of length bytes and makes it visible: its Record can be read at once.
// In files a crash of the process loses it during the next FlushEvery. After an error nothing
// is stored. In all cases the Writer is at its end.
func (w *Writer) Commit(length int64) (Record, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == ErrClosed {
		return Record{}, ErrClosed
	}
	failed := w.err != nil
	var r Record
	err := w.err
	switch {
	case failed:
	case length != w.total:
		err = ErrLength
	default:
		if err = w.l.writable(); err == nil {
			w.addSums(w.stage)
			r, w.entry, err = w.l.commit(&w.meta, &w.lay, w.stage, w.again)
		}
	}
	if err != nil && !failed {
		w.l.n.refuse(err)
	}
	w.close()
	return r, err
}

// commit writes an object's record.
// What is written again is not in the table before the Owner has said that it is still current.
func (l *Log) commit(m *Meta, lay *layout, inline []byte, again bool) (Record, entry, error) {
	var e entry
	h := header{flags: m.Flags, hash: m.Hash, born: m.Born, keyLen: len(m.Key), extents: len(lay.exts) / extentEntry, headLen: int64(len(m.Head))}
	h.inlineLen = int64(len(inline))
	h.bodyLen = lay.total + h.inlineLen
	h.endAt = int64(objectHeader + len(lay.exts) + len(lay.sums) + len(m.Key) + len(m.Head))
	if l.mem == nil {
		h.bits = bitSums
	}
	r := Record{Hash: m.Hash, Size: h.bodyLen, Born: m.Born, Flags: m.Flags}
	size := h.size()
	err := l.appendTo(size, again, func(s *segment, off int64) error {
		if err := l.join(s, off, lay); err != nil {
			return err
		}
		var b [objectHeader]byte
		h.seal = sealOf(l.key, s.seq.Load(), off)
		h.put(b[:])
		if l.mem == nil {
			h.seal = sumOf(h.seal, b[:], lay.exts, lay.sums, m.Key, m.Head)
			le.PutUint32(b[:], h.seal)
		}
		at := off
		for _, p := range [...][]byte{b[:], lay.exts, lay.sums, m.Key, m.Head, inline} {
			l.write(s, at, p)
			at += int64(len(p))
		}
		r.At = Location((s.base + off) >> unitShift)
		if s.disk != nil {
			e = entry{hash: m.Hash, born: m.Born, size: h.bodyLen, off: off, length: size, oldest: lay.oldest(s), flags: m.Flags, kind: kindObject}
			if again {
				e.kind = kindAgain
				s.disk.held++
			} else {
				s.disk.pending = e.append(s.disk.pending)
			}
		}
		return nil
	})
	if err != nil {
		return Record{}, e, err
	}
	l.n.commits.Add(1)
	l.n.appended.Add(size + lay.total)
	return r, e, nil
}

// enter puts what was written again into its table, or leaves it out. False: the disk failed meanwhile, and it is lost.
func (l *Log) enter(at Location, e *entry, current bool) bool {
	s, _ := l.at(int64(at) << unitShift)
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.disk.held == 0 {
		return false
	}
	s.disk.held--
	if current {
		s.disk.pending = e.append(s.disk.pending)
	}
	return true
}

// join makes sure, under mu, that all extents are still there, and tells the oldest of their
// segments whom to ask about when it leaves.
func (l *Log) join(s *segment, off int64, lay *layout) error {
	for e := lay.exts; len(e) > 0; e = e[extentEntry:] {
		x := parseExtent(e)
		from, at := l.at(x.addr)
		if from == nil || uint32(from.seq.Load()) != x.seq || at+x.len > from.end.Load() {
			return ErrOverrun
		}
	}
	if o := lay.oldest(s); o != uint32(s.seq.Load()) {
		for e := lay.exts; len(e) > 0; e = e[extentEntry:] {
			if x := parseExtent(e); x.seq == o {
				from, _ := l.at(x.addr)
				from.spans = append(from.spans, Location((s.base+off)>>unitShift))
				break
			}
		}
	}
	return nil
}

// Erase leaves a mark by which New takes back all older objects of this hash: what was
// invalidated must not come back after a crash. Memory needs none. An error says that the
// mark could not be left.
func (l *Log) Erase(hash uint64, born int64) error {
	if l.mem != nil {
		return nil
	}
	if err := l.writable(); err != nil {
		l.n.refuse(err)
		return err
	}
	l.mu.Lock()
	s, _, err := l.take(0, true)
	if err == nil {
		if len(s.disk.pending) >= maxPending {
			err = ErrBacklog
		} else {
			e := entry{hash: hash, born: born, off: s.end.Load(), kind: kindErased}
			s.disk.pending = e.append(s.disk.pending)
		}
	}
	l.mu.Unlock()
	if err != nil {
		l.n.refuse(err)
	}
	return err
}
