package segment

import (
	"hash/crc32"
	"io"
	"syscall"
)

// layout says where a body lies: extents of 16 bytes, then what is in the record itself.
type layout struct {
	exts, sums []byte
	total      int64 // of the extents
}

// extent is a piece of a body that lies in one segment.
type extent struct {
	addr, len int64
	seq       uint32
	first     int64 // its first byte's place in the body
	sum       int64 // the number of its first block's sum
}

func parseExtent(e []byte) extent {
	return extent{addr: int64(le.Uint64(e)), len: int64(le.Uint32(e[8:])), seq: le.Uint32(e[12:])}
}

func (y *layout) add(addr, n int64, seq uint64) {
	y.exts = le.AppendUint64(y.exts, uint64(addr))
	y.exts = le.AppendUint32(y.exts, uint32(n))
	y.exts = le.AppendUint32(y.exts, uint32(seq))
	y.total += n
}

// find gives the extent that has a byte of the body; its len is 0 when none has.
func (y *layout) find(off int64) extent {
	var first, sum int64
	for e := y.exts; len(e) > 0; e = e[extentEntry:] {
		n := int64(le.Uint32(e[8:]))
		if off < first+n {
			x := parseExtent(e)
			x.first, x.sum = first, sum
			return x
		}
		first += n
		sum += blocksOf(n)
	}
	return extent{first: first, sum: sum}
}

// oldest is the sequence of the oldest segment that a record in s needs.
func (y *layout) oldest(s *segment) uint32 {
	low := uint32(s.seq.Load())
	for e := y.exts; len(e) > 0; e = e[extentEntry:] {
		if q := le.Uint32(e[12:]); int32(q-low) < 0 {
			low = q
		}
	}
	return low
}

// Object is a record that is read. The zero value is ready; one that is used again (after
// Unpin) keeps its memory, and pinning and reading then allocate nothing. It belongs to one goroutine.
type Object struct {
	Record
	// Large says, before Pin, that the record is thought to be of more than LargeRecord bytes: of such a one no
	// more is read at first than its head needs, and what is before the first whole page.
	Large     bool
	l         *Log
	seg       *segment
	key, head []byte
	lay       layout
	inline    extent
	buf       []byte // files: the record's first bytes
	blocks    blockReader
}

// readAhead is what is read of a record in a file at first, and up to a page more, to a page's end: the head, small bodies
// whole, and of others what stands before the first whole page.
const (
	readAhead      = 4096
	readAheadLarge = 1024
	LargeRecord    = 16 << 10
)

// Pin reads a record's head and holds all of its segments until Unpin: none is used again
// before. ErrGone and ErrCorrupt are misses. The caller must compare Key: the place may have a
// new record. After an error o is unpinned.
func (l *Log) Pin(at Location, o *Object) error {
	o.Unpin()
	addr := int64(at) << unitShift
	s, life := l.pin(addr, objectHeader, 0)
	if s == nil {
		return ErrGone
	}
	o.l, o.seg, o.blocks.l = l, s, l
	off := addr & l.mask
	err := o.load(off, life)
	if err == nil {
		err = o.pinExtents()
	}
	if err != nil {
		s.pins.Add(-1)
		o.seg = nil
		return err
	}
	o.At = at
	return nil
}

func (o *Object) load(off int64, life uint64) error {
	room := o.seg.end.Load() - off
	if room < objectHeader {
		return ErrGone // the disk failed just now, and what was not written is given up
	}
	b := o.buf
	if o.seg.mem != nil {
		b = o.seg.mem[off : off+room]
	} else {
		if cap(b) < readAhead+pageSize {
			b = make([]byte, readAhead+pageSize)
		}
		want := int64(readAhead)
		if o.Large {
			want = readAheadLarge
		}
		b = b[:min(room, (off+want+pageSize-1)/pageSize*pageSize-off)]
		o.buf = b
		if err := o.l.read(o.seg, off, b); err != nil {
			return o.l.readFailed(err)
		}
	}
	var h header
	for {
		need, err := h.parse(b, room)
		if err != nil || need > o.l.mostHead() {
			return o.l.badHead()
		}
		if need <= int64(len(b)) {
			break
		}
		have := len(b)
		b = append(b, make([]byte, int(need)-have)...)
		o.buf = b
		if err := o.l.read(o.seg, off+int64(have), b[have:]); err != nil {
			return o.l.readFailed(err)
		}
	}
	seal := sealOf(o.l.key, life, off)
	if h.bits&bitSums != 0 {
		seal = sumOf(seal, b[:h.endAt])
	}
	if seal != h.seal || (h.bits&bitSums != 0) != (o.seg.mem == nil) {
		return o.l.badHead()
	}
	o.Record = Record{Hash: h.hash, Size: h.bodyLen, Born: h.born, Flags: h.flags}
	o.lay = layout{b[objectHeader:h.sumsAt], b[h.sumsAt:h.keyAt], h.bodyLen - h.inlineLen}
	o.key, o.head = b[h.keyAt:h.headAt:h.headAt], b[h.headAt:h.endAt:h.endAt]
	o.inline = extent{addr: o.seg.base + off + h.endAt, len: h.inlineLen, seq: uint32(life), first: o.lay.total}
	o.inline.sum = int64(len(o.lay.sums)/sumSize) - blocksOf(h.inlineLen)
	o.blocks.reset(o.inline.addr, b[h.endAt:])
	return nil
}

// mostHead is the most that can stand before a body.
func (l *Log) mostHead() int64 {
	if l.mem != nil {
		return l.cfg.SegmentSize
	}
	return objectHeader + maxExtents*(extentEntry+sumSize) + (blocksOf(l.cfg.MaxObject)+1)*sumSize + maxKey + int64(l.cfg.MaxHead)
}

// badHead counts what is no record of ours; it is damage, or an index that is behind.
func (l *Log) badHead() error {
	l.n.badHeads.Add(1)
	return ErrCorrupt
}

func (l *Log) readFailed(err error) error {
	if err != ErrGone {
		l.n.readErrors.Add(1)
	}
	return err
}

func (o *Object) pinExtents() error {
	for e := o.lay.exts; len(e) > 0; e = e[extentEntry:] {
		x := parseExtent(e)
		if s, _ := o.l.pin(x.addr, x.len, x.seq); s == nil {
			o.unpinExtents(len(o.lay.exts) - len(e))
			return ErrGone
		}
	}
	return nil
}

func (o *Object) unpinExtents(n int) {
	for e := o.lay.exts[:n]; len(e) > 0; e = e[extentEntry:] {
		s, _ := o.l.at(int64(le.Uint64(e)))
		s.pins.Add(-1)
	}
}

// Unpin lets the segments go. What Key, Head and Slice gave is no longer valid. It does nothing
// when o is not pinned.
func (o *Object) Unpin() {
	if o.seg == nil {
		return
	}
	o.unpinExtents(len(o.lay.exts))
	o.blocks.done()
	o.seg.pins.Add(-1)
	o.seg = nil
}

// Key and Head are lent until Unpin. Len is the length of the body.
func (o *Object) Key() []byte { return o.key }

// Head is the head as it was given to Create; see Key.
func (o *Object) Head() []byte { return o.head }

// Len is the length of the body in bytes.
func (o *Object) Len() int64 { return o.Size }

func (o *Object) find(off int64) extent {
	if off >= o.inline.first {
		return o.inline
	}
	return o.lay.find(off)
}

// Slice lends up to n bytes of a body in memory from off on, as many as lie in one piece, until
// Unpin. It is false in files.
func (o *Object) Slice(off, n int64) ([]byte, bool) {
	if o.seg.mem == nil || off < 0 || n < 0 || off > o.Size {
		return nil, false
	}
	x := o.find(off)
	s, at := o.l.at(x.addr)
	within := off - x.first
	n = min(n, x.len-within)
	return s.mem[at+within : at+within+n : at+within+n], true
}

// ReadAt is io.ReaderAt for the body. In files each block of 64 KiB that is touched is
// verified; a bad one gives ErrCorrupt, is counted, and none of its bytes is in p[:n].
func (o *Object) ReadAt(p []byte, off int64) (int, error) {
	read := 0
	for read < len(p) {
		if off < 0 || off >= o.Size {
			return read, io.EOF
		}
		x := o.find(off)
		s, _ := o.l.at(x.addr)
		n := min(int64(len(p)-read), x.len-(off-x.first))
		if err := o.blocks.read(s, &x, o.lay.sums, off-x.first, p[read:read+int(n)]); err != nil {
			return read, err
		}
		read, off = read+int(n), off+n
	}
	return read, nil
}

// Span is bytes of a body: first Lead, which is lent until Unpin, then Len bytes of File from At on. It
// ends where a page ends, or where a piece of the body does.
type Span struct {
	Lead    []byte
	File    syscall.RawConn // good until Unpin
	At, Len int64
}

// File says where up to n bytes of the body from off on lie in a file, as many as lie in one
// piece, so that the kernel can send them. Blocks that were not verified since the process
// began or the last scrub are read and verified first. It is false in memory, for what is not
// yet written (ReadAt has it) or came with the record, for a Dir whose files the kernel does not know,
// and after Leave.
//
// What the kernel has taken of a file it may keep by reference, long after Unpin. So nothing that was
// written to a file is ever written over: see diskPart.renew.
func (o *Object) File(off, n int64, to *Span) (bool, error) {
	if o.seg.mem != nil || off < 0 || n <= 0 || off >= o.Size || o.l.given.Load() {
		return false, nil
	}
	x := o.find(off)
	s, at := o.l.at(x.addr)
	within := off - x.first
	run := min(n, x.len-within)
	if last := min(x.len, (within+run+sumBlock-1)/sumBlock*sumBlock); at+last > s.disk.told.Load() || !o.told() {
		return false, nil
	}
	file, err := s.disk.open()
	if err != nil {
		return false, o.l.readFailed(err)
	}
	if file.raw == nil {
		return false, nil
	}
	for k := within / sumBlock; k <= (within+run-1)/sumBlock; k++ {
		if err := o.blocks.verify(s, &x, o.lay.sums, k); err != nil {
			return false, err
		}
	}
	*to = Span{File: file.raw, At: at + within, Len: run}
	to.Lead = o.blocks.had(x.addr+within, run)
	to.At += int64(len(to.Lead))
	to.Len -= int64(len(to.Lead))
	if rest := x.len - within - run; rest > 0 && to.Len > pageSize {
		to.Len -= (to.At + to.Len) % pageSize
	}
	return to.Len > 0, nil
}

// told says that the record is in its table. Until then a crash would have who follows write where it lies.
func (o *Object) told() bool {
	return o.inline.addr&o.l.mask+o.inline.len <= o.seg.disk.told.Load()
}

// blockReader reads bodies block by block and keeps the last one, so that small reads do not
// read and verify a block again and again.
type blockReader struct {
	l       *Log
	addr    int64 // of the block that is kept
	kept    []byte
	scratch *[sumBlock]byte
	ahead   []byte // bytes of the file that came with the record
	aheadAt int64  // their address
}

func (r *blockReader) reset(addr int64, ahead []byte) {
	r.addr, r.kept, r.ahead, r.aheadAt = -1, nil, ahead, addr
}

// had lends those of n bytes from an address on that came with the record.
func (r *blockReader) had(addr, n int64) []byte {
	from := addr - r.aheadAt
	if from < 0 || from >= int64(len(r.ahead)) {
		return nil
	}
	return r.ahead[from:min(from+n, int64(len(r.ahead)))]
}

func (r *blockReader) done() {
	if r.scratch != nil {
		r.l.scratch.Put(r.scratch)
		r.scratch = nil
	}
	r.kept = nil
}

// read fills p from an extent.
func (r *blockReader) read(s *segment, x *extent, sums []byte, within int64, p []byte) error {
	base := x.addr & r.l.mask
	if s.mem != nil {
		copy(p, s.mem[base+within:])
		return nil
	}
	for len(p) > 0 {
		k := within / sumBlock
		first := k * sumBlock
		size := min(x.len-first, sumBlock)
		if within == first && int64(len(p)) >= size && !(r.kept != nil && r.addr == x.addr+first) {
			if err := r.fetch(s, x, sums, k, p[:size]); err != nil {
				return err
			}
			p, within = p[size:], within+size
			continue
		}
		b, err := r.keep(s, x, sums, k, size)
		if err != nil {
			return err
		}
		n := copy(p, b[within-first:])
		p, within = p[n:], within+int64(n)
	}
	return nil
}

// keep gives a whole block, verified.
func (r *blockReader) keep(s *segment, x *extent, sums []byte, k, size int64) ([]byte, error) {
	addr := x.addr + k*sumBlock
	if r.kept != nil && r.addr == addr {
		return r.kept, nil
	}
	if r.scratch == nil {
		r.scratch = r.l.scratch.Get().(*[sumBlock]byte)
	}
	r.kept = nil
	b := r.scratch[:size]
	if err := r.fetch(s, x, sums, k, b); err != nil {
		return nil, err
	}
	r.kept, r.addr = b, addr
	return b, nil
}

// fetch reads block k of an extent and verifies it.
func (r *blockReader) fetch(s *segment, x *extent, sums []byte, k int64, b []byte) error {
	addr := x.addr + k*sumBlock
	if from := addr - r.aheadAt; r.ahead != nil && from >= 0 && from+int64(len(b)) <= int64(len(r.ahead)) {
		copy(b, r.ahead[from:])
	} else if err := r.l.read(s, addr&r.l.mask, b); err != nil {
		return r.l.readFailed(err)
	}
	i := (x.sum + k) * sumSize
	if i+sumSize > int64(len(sums)) || crc32.Checksum(b, castagnoli) != le.Uint32(sums[i:]) {
		return r.bad()
	}
	return nil
}

func (r *blockReader) bad() error {
	r.l.n.badBlocks.Add(1)
	return ErrCorrupt
}

// verify reads a block unless it was verified before. A bit stands for the page in which a
// block begins; blocks of less than a page might share one and are read each time.
func (r *blockReader) verify(s *segment, x *extent, sums []byte, k int64) error {
	size := min(x.len-k*sumBlock, sumBlock)
	page := (x.addr + k*sumBlock) & r.l.mask / pageSize
	word, bit := &s.disk.verified[page/64], uint64(1)<<(page%64)
	if size >= pageSize && word.Load()&bit != 0 {
		return nil
	}
	// Not from what came with the record: it is the file that will be sent.
	ahead := r.ahead
	r.ahead = nil
	_, err := r.keepFresh(s, x, sums, k, size)
	r.ahead = ahead
	if err == nil && size >= pageSize {
		word.Or(bit)
	}
	return err
}

func (r *blockReader) keepFresh(s *segment, x *extent, sums []byte, k, size int64) ([]byte, error) {
	r.kept = nil
	return r.keep(s, x, sums, k, size)
}
