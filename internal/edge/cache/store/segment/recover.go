package segment

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

const storeName = "store"

// found is a table of an earlier process.
type found struct {
	s     *segment
	seq   uint64
	table []byte
	size  int64 // of the data file

	end    int64 // of its last record
	keptTo int   // of its last good frame
}

// recover reads what an earlier process left: the store's own file and each segment's table,
// but no data.
func (l *Log) recover() error {
	list, err := l.cfg.Dir.List()
	if err != nil {
		return err
	}
	sizes := map[string]int64{}
	for _, f := range list {
		sizes[f.Name] = f.Size
	}
	var t top
	switch l.readTop(storeName, sizes, magicStore, &t) {
	case ours:
		if t.size == l.cfg.SegmentSize {
			l.store, l.key = t.store, keyOf(t.store)
			return l.readTables(list, sizes)
		}
	case alien:
		if _, ok := sizes[storeName]; ok {
			l.moveAside(storeName)
		}
	}
	// No store, or one that cannot be read: its segments are of no use.
	for _, f := range list {
		if slot, isTable := slotOf(f.Name); slot >= 0 {
			l.drop(f.Name, isTable, sizes)
		}
	}
	l.sayDropped()
	return l.writeStore()
}

// Forget has the next New drop all that a directory holds.
func Forget(dir Dir) error {
	list, err := dir.List()
	if err != nil {
		return err
	}
	for _, f := range list {
		if f.Name == storeName {
			return dir.Remove(storeName)
		}
	}
	return nil
}

func (l *Log) sayDropped() {
	if d, a := l.n.dropped.Load(), l.n.alien.Load(); d+a > 0 {
		l.log.Warn("cache: files that are not of this cache were found: those of other versions, stores or sizes are deleted, others have .alien behind their names", "deleted", d, "alien", a)
	}
}

func (l *Log) writeStore() error {
	const temporary = storeName + ".new"
	f, err := l.cfg.Dir.Open(temporary)
	if err == nil {
		t := top{store: l.store, size: l.cfg.SegmentSize}
		err = errors.Join(writeAll(f, t.put(magicStore), 0), f.Sync(), f.Close())
	}
	if err == nil {
		err = l.cfg.Dir.Rename(temporary, storeName)
	}
	if err != nil {
		return fmt.Errorf("segment: the directory takes no files: %w", err)
	}
	return nil
}

// slotOf parses 000123.data and 000123.table; -1 for all other names.
func slotOf(name string) (slot int, isTable bool) {
	number, kind, ok := strings.Cut(name, ".")
	if !ok || len(number) != 6 || kind != "data" && kind != "table" {
		return -1, false
	}
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return -1, false
	}
	return int(n), kind == "table"
}

func (l *Log) readTop(name string, sizes map[string]int64, magic string, t *top) verdict {
	if _, ok := sizes[name]; !ok {
		return alien
	}
	b := make([]byte, fileHeader)
	f, err := l.cfg.Dir.Open(name)
	if err != nil {
		return stale
	}
	defer f.Close()
	if n, err := f.ReadAt(b, 0); n < len(b) && err != io.EOF {
		return stale
	}
	return t.parse(b, magic)
}

// drop deletes a file of our own making, and moves others aside: what is not ours is not deleted.
func (l *Log) drop(name string, isTable bool, sizes map[string]int64) {
	magic := magicData
	if isTable {
		magic = magicTable
	}
	var t top
	if sizes[name] != 0 && l.readTop(name, sizes, magic, &t) == alien {
		l.moveAside(name)
		return
	}
	if l.cfg.Dir.Remove(name) == nil {
		l.n.dropped.Add(1)
	}
}

func (l *Log) moveAside(name string) {
	if l.cfg.Dir.Rename(name, name+".alien") == nil {
		l.n.alien.Add(1)
	}
}

func (l *Log) readTables(list []FileInfo, sizes map[string]int64) error {
	var all []found
	for _, f := range list {
		slot, isTable := slotOf(f.Name)
		switch {
		case slot < 0:
		case slot >= len(l.segs):
			l.drop(f.Name, isTable, sizes)
		case isTable:
			if x, ok := l.readTable(l.segs[slot], sizes); ok {
				all = append(all, x)
			}
		}
	}
	slices.SortFunc(all, func(a, b found) int { return cmp.Compare(a.seq, b.seq) })
	present := map[uint32]*segment{}
	for _, x := range all {
		present[uint32(x.seq)] = x.s
	}
	// What was written again was stored before all that was stored or erased since and is still
	// in the log, wherever that lies: what lies before it has left before it did.
	for _, again := range []bool{true, false} {
		for i := range all {
			l.tell(&all[i], present, again)
		}
	}
	for i := range all {
		l.adopt(&all[i], i == len(all)-1)
	}
	l.sayDropped()
	return nil
}

// readTable reads a table whole. One without a header is of a segment that was just begun.
func (l *Log) readTable(s *segment, sizes map[string]int64) (found, bool) {
	name := s.disk.table
	if sizes[name] < fileHeader {
		return found{}, false
	}
	b, err := readWhole(l.cfg.Dir, name, sizes[name])
	var t top
	if err != nil {
		l.n.readErrors.Add(1)
		return found{}, false
	}
	switch v := t.parse(b, magicTable); {
	case v == alien:
		l.moveAside(name)
		if sizes[s.disk.data] > 0 {
			l.drop(s.disk.data, false, sizes)
		}
		return found{}, false
	case v == stale, t.store != l.store, t.size != l.cfg.SegmentSize, t.slot != uint64(s.slot), t.seq == 0:
		l.drop(name, true, sizes)
		return found{}, false
	}
	return found{s: s, seq: t.seq, table: b[fileHeader:], size: sizes[s.disk.data], end: firstRecord}, true
}

func readWhole(dir Dir, name string, size int64) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, size)
	n, err := f.ReadAt(b, 0)
	if err == io.EOF {
		err = nil
	}
	return b[:n], err
}

// tell tells the Owner what a segment has that was written again, or all else; and the segment in which a record
// begins whom to ask about when it leaves.
func (l *Log) tell(x *found, present map[uint32]*segment, again bool) {
	var damaged bool
	x.keptTo, damaged = parseFrames(x.table, l.key, x.seq, func(e *entry) {
		if again != (e.kind == kindAgain) {
			return
		}
		if e.kind != kindErased {
			if e.kind != kindObject && !again || e.off < firstRecord || e.length < unit || e.off+e.length > min(l.cfg.SegmentSize, x.size) {
				return // the data is not there
			}
			x.end = max(x.end, e.off+e.length)
			from := present[e.oldest]
			if from == nil {
				return // its first part has left
			}
			if from != x.s {
				from.spans = append(from.spans, e.record(x.s.base).At)
			}
		}
		l.n.found.Add(1)
		l.owner.Found(e.record(x.s.base))
	})
	if damaged && again {
		l.n.badTables.Add(1)
	}
}

// adopt takes a segment into service. The newest goes on being written to, in the next free page.
func (l *Log) adopt(x *found, newest bool) {
	d := x.s.disk
	x.s.seq.Store(x.seq)
	l.seq = max(l.seq, x.seq)
	resume := (x.end + pageSize - 1) &^ (pageSize - 1)
	if newest && resume <= l.cfg.SegmentSize-l.cfg.SegmentSize/16 {
		d.started, d.tocEnd = true, int64(fileHeader+x.keptTo)
		x.s.end.Store(resume)
		d.flushed.Store(resume)
		d.told.Store(resume)
		l.active = x.s
		return
	}
	// After the last record there may be extents of records in younger segments.
	x.s.end.Store(l.cfg.SegmentSize)
	d.flushed.Store(l.cfg.SegmentSize)
	d.told.Store(l.cfg.SegmentSize)
	d.done.Store(true)
	l.order = append(l.order, x.s)
}

// eachEntry reads the table of a segment. Damaged says that a part of it could not be read.
func (l *Log) eachEntry(s *segment, each func(*entry)) (damaged bool, err error) {
	f, err := l.cfg.Dir.Open(s.disk.table)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var b []byte
	for chunk := make([]byte, 1<<20); ; {
		n, err := f.ReadAt(chunk, int64(len(b)))
		b = append(b, chunk[:n]...)
		if err == io.EOF || err == nil && n == 0 {
			break
		}
		if err != nil {
			return false, err
		}
	}
	var t top
	seq := s.seq.Load()
	if t.parse(b, magicTable) != ours || t.seq != seq {
		return false, errFormat
	}
	_, damaged = parseFrames(b[fileHeader:], l.key, seq, each)
	return damaged, nil
}
