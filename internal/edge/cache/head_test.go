package cache

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/http/message"
)

// answers are objects of all kinds.
func answers() map[string]*object {
	plain := &object{
		status: 200, route: "img", selector: []byte("accept-encoding"), selected: []byte("gzip\x00br"), born: 77, softened: 99, id: 1 << 60, names: []byte("a\nb\n"),
		Life: semantics.Life{
			Lifetime: 24 * time.Hour, InitialAge: 1500 * time.Millisecond, While: time.Minute, Err: time.Hour, Disconnected: 1,
			Came: 1_790_000_000_123_456_789, NoStale: true, Immutable: true,
		},
	}
	plain.fields.AddString(message.ContentType, "image/jpeg")
	plain.fields.AddString(message.Date, "Mon, 23 Nov 2026 06:00:00 GMT")
	plain.fields.AddLine([]byte("cache-CONTROL"), []byte("max-age=86400"))
	plain.fields.AddLine([]byte("X-Own"), []byte{})
	plain.fields.AddString(message.Vary, "Accept-Encoding")
	plain.fields.AddString(message.Vary, "Accept")
	part := &object{status: 200, size: 1000, parts: []piece{{0, make([]byte, 100)}, {500, make([]byte, 500)}}, Life: semantics.Life{NoCache: true, Aged: true}}
	only := &object{status: 404, size: -1, headOnly: true, Life: semantics.Life{Lifetime: math.MaxInt64 / 2 * 2}}
	return map[string]*object{"plain": plain, "part": part, "only": only}
}

func TestAHeadIsReadAsItWasWritten(t *testing.T) {
	var h object // one for all: what was read before leaves nothing behind
	for name, o := range answers() {
		b := appendHead(nil, o)
		route, err := h.decode(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if h.Life != o.Life || h.status != o.status || h.size != o.size || h.headOnly != o.headOnly || h.partial() != o.partial() || h.born != o.born || h.softened != o.softened || h.id != o.id || headID(b) != o.id ||
			string(route) != o.route || !bytes.Equal(h.selector, o.selector) || !bytes.Equal(h.selected, o.selected) || !bytes.Equal(h.names, o.names) {
			t.Errorf("%s: not as it was", name)
		}
		if len(h.lay) != len(o.parts) {
			t.Fatalf("%s: %d parts", name, len(h.lay))
		}
		for i, p := range h.lay {
			if p.first != o.parts[i].first || p.length != int64(len(o.parts[i].data)) {
				t.Errorf("%s: part %d is %+v", name, i, p)
			}
		}
		if got, want := linesOf(&h.fields), linesOf(&o.fields); got != want {
			t.Errorf("%s: fields\n%s\nwant\n%s", name, got, want)
		}
	}
}

func refused(o *object, b []byte) error {
	_, err := o.decode(b)
	return err
}

func linesOf(f *message.Fields) (s string) {
	for i := range f.Len() {
		id, name, value := f.At(i)
		s += fmt.Sprintf("%d %s: %s\n", id, name, value)
	}
	return s
}

func TestAHeadThatIsCutOrOfAnotherVersionIsRefused(t *testing.T) {
	var h object
	for name, o := range answers() {
		b := appendHead(nil, o)
		for n := range b {
			if refused(&h, b[:n]) == nil {
				t.Fatalf("%s: %d of %d bytes are taken for the whole", name, n, len(b))
			}
		}
		if refused(&h, append(b[:len(b):len(b)], 0)) == nil {
			t.Errorf("%s: one byte more is not seen", name)
		}
		b[0]++
		if refused(&h, b) == nil {
			t.Errorf("%s: another version is read", name)
		}
	}
	o := &object{status: 200, size: 10, parts: []piece{{5, make([]byte, 6)}}}
	if refused(&h, appendHead(nil, o)) == nil {
		t.Error("a part beyond the end is taken")
	}
	o.parts = []piece{{0, make([]byte, 3)}, {2, make([]byte, 2)}}
	if refused(&h, appendHead(nil, o)) == nil {
		t.Error("parts that overlap are taken")
	}
}

func TestCodesOfNamesAreOfOneNameEach(t *testing.T) {
	seen := map[message.ID]bool{}
	for c, id := range headCodes {
		if c == 0 {
			continue
		}
		if id == message.Other || seen[id] || codeOf(id) != byte(c) {
			t.Errorf("code %d is of %q", c, id)
		}
		seen[id] = true
	}
	if codeOf(message.Other) != 0 {
		t.Error("a name without an id has a code")
	}
	// What is on a disk was written by another program: a code that changes needs another version.
	if headVersion != 1 || headCodes[1] != message.Date || headCodes[7] != message.Vary || headCodes[40] != message.XRequestId {
		t.Error("codes of version 1 have changed their meaning")
	}
}

func TestReadingAHeadAllocatesNothing(t *testing.T) {
	var h object
	b := appendHead(nil, answers()["plain"])
	if n := testing.AllocsPerRun(100, func() {
		if refused(&h, b) != nil {
			t.Fatal("not read")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What is read is either refused, or is what its own writer would have written.
func FuzzHead(f *testing.F) {
	for _, o := range answers() {
		f.Add(appendHead(nil, o))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var h object
		if refused(&h, b) != nil {
			return
		}
		route, _ := h.decode(b)
		o := &object{
			Life: h.Life, status: h.status, size: h.size, headOnly: h.headOnly, born: h.born, softened: h.softened, id: h.id, names: h.names,
			route: string(route), selector: h.selector, selected: h.selected, fields: h.fields,
		}
		total := int64(0)
		for _, p := range h.lay {
			if total += p.length; total > 1<<20 {
				return
			}
			o.parts = append(o.parts, piece{p.first, make([]byte, p.length)})
		}
		var again object
		way, err := again.decode(appendHead(nil, o))
		if err != nil {
			t.Fatal(err)
		}
		if again.Life != h.Life || again.status != h.status || linesOf(&again.fields) != linesOf(&h.fields) || !slices.Equal(again.lay, h.lay) ||
			!bytes.Equal(way, route) || !bytes.Equal(again.selected, h.selected) || again.size != h.size || again.born != h.born || again.id != h.id {
			t.Fatal("read, written and read again it is another one")
		}
	})
}

func BenchmarkHead(b *testing.B) {
	var h object
	p := appendHead(nil, answers()["plain"])
	b.ReportAllocs()
	for b.Loop() {
		_, _ = h.decode(p)
	}
}
