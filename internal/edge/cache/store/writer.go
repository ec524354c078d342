package store

import (
	"errors"

	"github.com/relais-edge/relais/internal/edge/cache/store/index"
	"github.com/relais-edge/relais/internal/edge/cache/store/segment"
)

// Meta is what is known of a record before its body comes.
type Meta struct {
	Org  *Org
	Hash Hash
	Key  []byte // Key and Head must stay as they are until Commit or Abort
	Head []byte
	Born int64 // nanoseconds since 1970: of two records of a key the younger counts
	Kind uint8 // the caller's own, up to MaxKind
	// Length is the length of the body in bytes, or -1.
	Length int64
}

func (m *Meta) segment() segment.Meta {
	f := uint16(m.Kind) << kindShift
	if m.Org != nil {
		f |= m.Org.number
	}
	return segment.Meta{Hash: m.Hash.lo, Born: m.Born, Flags: f, Key: m.Key, Head: m.Head, Length: m.Length}
}

// size is that of the record whole, as far as it is known.
func (m *Meta) size(length int64) int64 {
	return recordCost + int64(len(m.Key)+len(m.Head)) + length
}

const (
	recordCost = 40
	// guess is the length of a body of which none was told.
	guess = 16 << 10
)

// Writer takes one record in, into each tier that admits it. Append and Commit belong to one
// goroutine; ReadAt may be called by others meanwhile.
type Writer struct {
	t         *Tiers
	meta      Meta
	mem, disk *segment.Writer // nil: not for this tier, or it failed
	below     *tier           // the disk tier when it began
	len       int64
}

// Create begins a record. There is always a Writer: where no tier takes the record in, Kept is
// false, and Commit only forgets what is stored under the key.
func (t *Tiers) Create(m Meta) *Writer {
	w := &Writer{t: t, meta: m, below: t.disk.Load()}
	length := m.Length
	if length < 0 {
		length = guess
	}
	size := charge(index.Class(m.size(length)))
	if t.mem.policy.AdmitOf(&m.Org.Memory, m.Hash.lo, size) {
		w.mem = begin(t.mem.log, &m)
	} else {
		t.refused.Add(1)
	}
	if w.below != nil {
		if w.below.policy.AdmitOf(&m.Org.Disk, m.Hash.lo, size) {
			w.disk = begin(w.below.log, &m)
		} else {
			t.refused.Add(1)
		}
	}
	if m.Org.Memory.Over() || m.Org.Disk.Over() {
		select {
		case t.wantCull <- struct{}{}:
		default:
		}
	}
	return w
}

func begin(l *segment.Log, m *Meta) *segment.Writer {
	w, err := l.Create(m.segment())
	if err != nil {
		return nil // counted by the log
	}
	return w
}

// Kept says whether a tier still takes the record in.
func (w *Writer) Kept() bool { return w.mem != nil || w.disk != nil }

// Append adds a chunk, which is copied. It waits for no reader and no disk. A tier that fails is left
// out; see Kept.
func (w *Writer) Append(p []byte) {
	w.len += int64(len(p))
	for _, x := range []**segment.Writer{&w.mem, &w.disk} {
		if *x != nil && (*x).Append(p) != nil {
			(*x).Abort()
			*x = nil
		}
	}
}

// Abort gives the record up. It does nothing after Commit.
func (w *Writer) Abort() {
	for _, x := range []*segment.Writer{w.mem, w.disk} {
		if x != nil {
			x.Abort()
		}
	}
	w.mem, w.disk = nil, nil
}

// Errors of Commit. In both cases nothing is stored.
var (
	// ErrOutdated says that the record was no longer current when it was whole.
	ErrOutdated = errors.New("store: invalidated while it came")
	// ErrNotKept says that no tier took the record in. What was under the key is forgotten all the same.
	ErrNotKept = errors.New("store: not admitted, or no room")
)

// Commit ends a record of length bytes, puts it in the place of what is under its key, and makes it
// visible to the next look-up. Current, which may be nil, is asked in the same step: false leaves all
// as it was. In all cases the Writer is at its end.
func (w *Writer) Commit(length int64, current func() bool) error {
	t, m := w.t, &w.meta
	if length != w.len {
		w.Abort()
		return segment.ErrLength
	}
	var mem, disk segment.Record
	if w.mem != nil {
		mem = finish(w.mem, length)
	}
	if w.disk != nil {
		disk = finish(w.disk, length)
	}
	w.mem, w.disk = nil, nil
	mu := t.lock(m.Hash.lo)
	defer mu.Unlock()
	if current != nil && !current() {
		t.outdated.Add(1)
		if disk.At != 0 {
			w.below.erase(m.Hash.lo, m.Born)
		}
		return ErrOutdated
	}
	defer t.moved(m.Hash)
	size := m.size(length)
	kept := t.mem.replace(m, mem, size)
	if w.below != nil && w.below.replace(m, disk, size) {
		kept = true
	}
	if now := t.disk.Load(); now != nil && now != w.below {
		now.replace(m, segment.Record{}, size) // it came meanwhile, with an older one perhaps
	}
	if !kept {
		return ErrNotKept
	}
	if t.full(m.Org) {
		m.Org.Curve.Touch(m.Hash.lo, length)
	}
	return nil
}

// finish gives the zero Record when the log did not take it.
func finish(w *segment.Writer, length int64) segment.Record {
	r, err := w.Commit(length)
	if err != nil {
		return segment.Record{}
	}
	return r
}

// replace puts a record, unless it is the zero one, in the place of all under its key.
func (t *tier) replace(m *Meta, r segment.Record, size int64) bool {
	had := t.clear(m.Hash.lo, m.Key, r.At)
	if r.At != 0 && t.admit(r, size) {
		return true
	}
	if had || r.At != 0 {
		t.erase(m.Hash.lo, m.Born)
	}
	return false
}
