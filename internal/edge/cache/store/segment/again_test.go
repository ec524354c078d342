package segment

import (
	"bytes"
	"testing"
)

// between is an Owner that does something after it has said that a record is to be kept, or
// after it has said that a moved one is current.
type between struct {
	*book
	retired, moved func()
}

func (x *between) Retire(r Record) bool {
	keep := x.book.Retire(r)
	if r.Hash == 1 && keep && x.retired != nil {
		f := x.retired
		x.retired = nil
		f()
	}
	return keep
}

func (x *between) Moved(r Record, to Location) bool {
	current := x.book.Moved(r, to)
	if r.Hash == 1 && x.moved != nil {
		f := x.moved
		x.moved = nil
		f()
	}
	return current
}

func TestWhatIsWrittenAgainNeverUndoesWhatCameMeanwhile(t *testing.T) {
	for _, c := range []struct {
		name         string
		erase, moved bool
	}{{"replaced while it is copied", false, false}, {"erased while it is copied", true, false}, {"replaced once it is moved", false, true}, {"erased once it is moved", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			d := newFake()
			x := &between{book: newBook()}
			x.keep = func(r Record) bool { return r.Hash == 1 }
			l, err := New(crashConfig(d), x)
			if err != nil {
				t.Fatal(err)
			}
			put := func(h uint64, body []byte) {
				t.Helper()
				r, err := store(l, h, nil, body, 9999)
				if err != nil {
					t.Fatal(err)
				}
				x.put(r)
			}
			put(1, bytesOf(1, 3000))
			happened := false
			change := func() {
				happened = true
				if c.erase {
					x.mu.Lock()
					delete(x.at, 1)
					x.mu.Unlock()
					if err := l.Erase(1, 9); err != nil {
						t.Error(err)
					}
					return
				}
				put(1, bytesOf(2, 2000))
			}
			if c.moved {
				x.moved = change
			} else {
				x.retired = change
			}
			for i := 0; !happened; i++ {
				if i > 200 {
					t.Fatal("the record never came to the tail")
				}
				put(uint64(100+i), bytesOf(1, 3000))
				if err := l.flush(); err != nil {
					t.Fatal(err)
				}
				for l.short() && l.reclaim() {
				}
			}
			if err := l.flush(); err != nil {
				t.Fatal(err)
			}
			b := newBook()
			cfg := crashConfig(d.copy())
			l2, err := New(cfg, b)
			if err != nil {
				t.Fatal(err)
			}
			r, ok := b.at[1]
			if c.erase {
				if ok {
					t.Fatalf("it came back: %+v", r)
				}
				return
			}
			var o Object
			if !ok || l2.Pin(r.At, &o) != nil {
				t.Fatalf("%+v is lost", r)
			}
			defer o.Unpin()
			got := make([]byte, o.Len())
			if _, err := o.ReadAt(got, 0); err != nil || !bytes.Equal(got, bytesOf(2, 2000)) {
				t.Errorf("the older version came back: %v, %d bytes", err, len(got))
			}
		})
	}
}
