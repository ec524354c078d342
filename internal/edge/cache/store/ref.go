package store

import (
	"github.com/relais-edge/relais/internal/edge/cache/store/index"
	"github.com/relais-edge/relais/internal/edge/cache/store/segment"
)

// Ref is a record that is held: what it lends stays until Release. The zero value is ready; one that
// is used again keeps its memory, so that look-ups and reads allocate nothing. It belongs to one goroutine.
type Ref struct {
	objects [2]segment.Object // of two records of a key the younger counts, so one waits
	at      int
	tier    *tier // nil: holds nothing
	entry   index.Entry
}

func (r *Ref) object() *segment.Object { return &r.objects[r.at] }

// Held says whether a record is held.
func (r *Ref) Held() bool { return r.tier != nil }

// Head is the head as it was given to Create, lent until Release.
func (r *Ref) Head() []byte { return r.object().Head() }

// Key is the whole key, lent until Release.
func (r *Ref) Key() []byte { return r.object().Key() }

// Len is the length of the body in bytes.
func (r *Ref) Len() int64 { return r.object().Len() }

// Born is as it was given to Create.
func (r *Ref) Born() int64 { return r.object().Born }

// Kind is as it was given to Create.
func (r *Ref) Kind() uint8 { return uint8(r.object().Flags >> kindShift) }

// InMemory says that Slice lends the body; else ReadAt reads it and File may send it.
func (r *Ref) InMemory() bool { return !r.tier.disk }

// Slice lends up to n bytes of a body in memory from off on, as many as lie in one piece; see segment.Object.
func (r *Ref) Slice(off, n int64) ([]byte, bool) { return r.object().Slice(off, n) }

// ReadAt is io.ReaderAt for the body. On a disk all bytes are verified; segment.ErrCorrupt says that
// they are not what was written, and the record is then forgotten.
func (r *Ref) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.object().ReadAt(p, off)
	if err == segment.ErrCorrupt {
		r.forget()
	}
	return n, err
}

// File says where up to n bytes of the body lie in a file, verified; see segment.Object.
func (r *Ref) File(off, n int64, to *segment.Span) (bool, error) {
	ok, err := r.object().File(off, n, to)
	if err == segment.ErrCorrupt {
		r.forget()
	}
	return ok, err
}

func (r *Ref) forget() {
	o := r.object()
	if r.tier.remove(o.Hash, r.entry, o.Flags) {
		r.tier.damaged.Add(1)
		r.tier.erase(o.Hash, o.Born)
	}
}

// Release lets the record go. It does nothing when none is held.
func (r *Ref) Release() {
	r.objects[0].Unpin()
	r.objects[1].Unpin()
	r.tier = nil
}
