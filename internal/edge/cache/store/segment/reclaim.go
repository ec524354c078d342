package segment

import "io"

// reclaim frees the oldest segment, once its records were offered to the Owner, and says
// whether it got any further. A segment that is pinned is set aside until its readers have
// gone; when half of all are, the rest is kept and nothing new is stored.
func (l *Log) reclaim() bool {
	l.reclaiming.Lock()
	defer l.reclaiming.Unlock()
	l.mu.Lock()
	l.harvest()
	if len(l.free) >= spare {
		l.mu.Unlock()
		return true // another did it
	}
	if len(l.order) == 0 || len(l.draining) >= len(l.segs)/2 || l.closed {
		l.mu.Unlock()
		return false
	}
	s := l.order[0]
	l.mu.Unlock()
	if s.disk != nil && !s.disk.done.Load() {
		return false // the disk is behind
	}
	m := mover{l: l, budget: l.cfg.SegmentSize * int64(l.cfg.Rewrite) / 100}
	if s.mem != nil {
		s.walk(m.retire)
	} else {
		m.table(s)
	}
	for n := 0; ; n++ {
		l.mu.Lock()
		if n < len(s.spans) {
			at := s.spans[n]
			l.mu.Unlock()
			m.elsewhere(at)
			continue
		}
		// Under mu, so that no object joins that needs this segment.
		l.order = append(l.order[:0], l.order[1:]...)
		s.seq.Store(0)
		s.spans = nil
		if s.pins.Load() == 0 {
			l.free = append(l.free, s)
		} else {
			l.draining = append(l.draining, s)
			l.n.pinned.Add(1)
		}
		if s.disk != nil {
			l.left = append(l.left, s)
			wake(l.wantFlush)
		}
		l.mu.Unlock()
		l.n.reclaimed.Add(1)
		return true
	}
}

// mover offers the records of one segment to the Owner and writes again what he keeps.
type mover struct {
	l      *Log
	o      Object
	buf    []byte
	budget int64
}

// walk tells of the records of a segment in memory, and their lengths in the log.
func (s *segment) walk(each func(r Record, size int64)) {
	end := s.end.Load()
	for off := int64(firstRecord); off < end; {
		b := s.mem[off:end]
		if b[4] == kindExtent {
			off += roundUp(extentHeader + int64(le.Uint64(b[8:])))
			continue
		}
		var h header
		if _, err := h.parse(b, end-off); err != nil {
			return // cannot be: nobody else writes here
		}
		each(Record{h.hash, Location((s.base + off) >> unitShift), h.bodyLen, h.born, h.flags, false}, h.size())
		off += h.size()
	}
}

// table offers the records that a segment's table tells of. Where it cannot be read whole the Owner is told that all
// that is left has gone: nobody could tell him later.
func (m *mover) table(s *segment) {
	l := m.l
	damaged, err := l.eachEntry(s, func(e *entry) {
		if e.kind != kindErased {
			m.retire(e.record(s.base), e.length)
		}
	})
	switch {
	case err != nil && err != errFormat:
		l.n.readErrors.Add(1)
	case damaged:
		l.n.badTables.Add(1)
	}
	if damaged || err != nil {
		l.owner.Gone(Location(s.base>>unitShift), Location((s.base+l.cfg.SegmentSize)>>unitShift))
	}
}

// Visit tells of the records of one segment, the oldest that is younger than a sequence, as they were written: they
// may have been replaced since. It returns the sequence of that segment, 0 where there is none. No lock of the log is held
// meanwhile. An Owner looks so for what is to leave before its segment does.
func (l *Log) Visit(after uint64, visit func(Record)) (seq uint64) {
	s, seq := l.younger(after)
	if s == nil {
		return 0
	}
	if held, _ := l.pin(s.base+firstRecord, 0, uint32(seq)); held == nil {
		return seq // it has left
	}
	defer s.pins.Add(-1)
	if s.mem != nil {
		s.walk(func(r Record, _ int64) { visit(r) })
		return seq
	}
	_, err := l.eachEntry(s, func(e *entry) {
		if e.kind != kindErased {
			visit(e.record(s.base))
		}
	})
	if err != nil && err != errFormat { // it may not have been written yet
		l.n.readErrors.Add(1)
	}
	return seq
}

func (l *Log) younger(after uint64) (*segment, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.order {
		if seq := s.seq.Load(); seq > after {
			return s, seq
		}
	}
	if s := l.active; s != nil && s.seq.Load() > after {
		return s, s.seq.Load()
	}
	return nil, 0
}

func (m *mover) elsewhere(at Location) {
	if m.l.Pin(at, &m.o) != nil {
		return
	}
	r := m.o.Record
	m.o.Unpin()
	m.retire(r, r.Size)
}

func (m *mover) retire(r Record, size int64) {
	n := &m.l.n
	if !m.l.owner.Retire(r) {
		n.retired.Add(1)
		return
	}
	size = max(size, r.Size)
	if size > m.budget {
		n.rewriteRefused.Add(1)
		m.l.owner.Lost(r)
		return
	}
	to, e, err := m.rewrite(r)
	if err != nil {
		n.rewriteRefused.Add(1)
		m.l.owner.Lost(r)
		return
	}
	m.budget -= size
	n.rewritten.Add(1)
	n.rewrittenBytes.Add(size)
	current := m.l.owner.Moved(r, to)
	if m.l.mem == nil && !m.l.enter(to, &e, current) && current {
		r.At = to
		m.l.owner.Lost(r)
	}
}

func (m *mover) rewrite(r Record) (Location, entry, error) {
	o := &m.o
	if err := m.l.Pin(r.At, o); err != nil {
		return 0, entry{}, err
	}
	defer o.Unpin()
	w := &Writer{l: m.l, again: true, meta: Meta{o.Hash, o.Born, o.Flags, o.Key(), o.Head(), o.Len()}}
	defer w.Abort()
	if err := m.copyBody(w); err != nil {
		return 0, entry{}, err
	}
	to, err := w.Commit(o.Len())
	return to.At, w.entry, err
}

func (m *mover) copyBody(w *Writer) error {
	o := &m.o
	for off := int64(0); off < o.Len(); {
		b, ok := o.Slice(off, o.Len()-off)
		if !ok {
			if m.buf == nil {
				m.buf = make([]byte, 4*sumBlock)
			}
			n, err := o.ReadAt(m.buf[:min(int64(len(m.buf)), o.Len()-off)], off)
			if err != nil && err != io.EOF {
				return err
			}
			b = m.buf[:n]
		}
		if err := w.Append(b); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

// Rehead writes a new head, and what else m has, before the body of the record at a place; m.Length does
// not count. A body of more than 64 KiB is not written again: the new record refers to where it
// lies, and leaves when that does. The old record stays for who has it pinned.
func (l *Log) Rehead(at Location, m Meta) (Record, error) {
	r, err := l.rehead(at, m)
	if err != nil {
		l.n.refuse(err)
	}
	return r, err
}

func (l *Log) rehead(at Location, m Meta) (Record, error) {
	m.Length = -1
	if err := l.fits(&m); err != nil {
		return Record{}, err
	}
	if err := l.writable(); err != nil {
		return Record{}, err
	}
	mv := mover{l: l}
	o := &mv.o
	if err := l.Pin(at, o); err != nil {
		return Record{}, err
	}
	defer o.Unpin()
	if o.Len() > sumBlock {
		lay := layout{append([]byte(nil), o.lay.exts...), o.lay.sums, o.lay.total}
		if o.inline.len > 0 {
			lay.add(o.inline.addr, o.inline.len, o.seg.seq.Load())
		}
		if len(lay.exts)/extentEntry > maxExtents {
			return Record{}, ErrTooLarge
		}
		r, _, err := l.commit(&m, &lay, nil, false)
		return r, err
	}
	w, err := l.create(m)
	if err != nil {
		return Record{}, err
	}
	defer w.Abort()
	if err := mv.copyBody(w); err != nil {
		return Record{}, err
	}
	return w.Commit(o.Len())
}
