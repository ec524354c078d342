package message

import (
	"bytes"
	"strconv"

	"github.com/relais-edge/relais/internal/http/syntax"
)

// ID is a known field name, or Other.
type ID uint8

// String returns the name in its usual case; empty for Other.
func (id ID) String() string { return names[id] }

// Lower returns the name in lower case, as HTTP/2 and HTTP/3 send it; empty for Other.
func (id ID) Lower() string { return lower[id] }

// KnownID finds the id of a field name, in any case; Other when it has none.
func KnownID(name []byte) ID {
	if len(name) < 2 || len(name) > longest {
		return Other
	}
	id := byHash[hash(name)]
	// Nearly all names come in their usual case or in lower case.
	if string(name) == names[id] || string(name) == lower[id] || id != Other && EqualFold(name, names[id]) {
		return id
	}
	return Other
}

// span is a part of an arena.
type span struct{ off, len uint32 }

func (s span) of(arena []byte) []byte { return arena[s.off : s.off+s.len : s.off+s.len] }

type field struct {
	name, value span
	id          ID
}

// Fields are field lines in the order in which they came (RFC 9110 section 5). Names keep
// their case. The zero Fields is empty and ready.
type Fields struct {
	arena []byte
	list  []field
	first [numIDs]uint16 // 1 + index of a known name's first line; 0 when absent
}

// Reset empties f and keeps its memory.
func (f *Fields) Reset() {
	if len(f.list) < 32 {
		for i := range f.list {
			f.first[f.list[i].id] = 0
		}
	} else {
		clear(f.first[:])
	}
	f.arena, f.list = f.arena[:0], f.list[:0]
}

// CopyFrom makes f equal to src in memory of its own.
func (f *Fields) CopyFrom(src *Fields) {
	f.arena = append(f.arena[:0], src.arena...)
	f.list = append(f.list[:0], src.list...)
	f.first = src.first
}

// Len is the number of lines.
func (f *Fields) Len() int { return len(f.list) }

// Size is the number of bytes of the arena, names and values together.
func (f *Fields) Size() int { return len(f.arena) }

// At lends line i.
func (f *Fields) At(i int) (id ID, name, value []byte) {
	l := &f.list[i]
	return l.id, l.name.of(f.arena), l.value.of(f.arena)
}

// Has says whether a known name is there.
func (f *Fields) Has(id ID) bool { return f.first[id] != 0 }

// Get lends the value of the first line of a known name; nil when absent, not nil when empty.
func (f *Fields) Get(id ID) []byte {
	if i := f.first[id]; i != 0 {
		return f.list[i-1].value.of(f.arena)
	}
	return nil
}

// Next returns the index of the next line of a known name at or after i, or -1:
//
//	for i := f.Next(id, 0); i >= 0; i = f.Next(id, i+1) { _, _, v := f.At(i) … }
func (f *Fields) Next(id ID, i int) int {
	first := int(f.first[id])
	if first == 0 {
		return -1
	}
	for i = max(i, first-1); i < len(f.list); i++ {
		if f.list[i].id == id {
			return i
		}
	}
	return -1
}

// Count is the number of lines of a known name.
func (f *Fields) Count(id ID) int {
	n := 0
	for i := f.Next(id, 0); i >= 0; i = f.Next(id, i+1) {
		n++
	}
	return n
}

// Lookup lends the value of the first line named name, in any case; nil when absent.
// It is for names known at run time only; Get is faster.
func (f *Fields) Lookup(name string) []byte {
	if i := f.find(name, 0); i >= 0 {
		return f.list[i].value.of(f.arena)
	}
	return nil
}

// find returns the index of the next line named name at or after i, or -1.
func (f *Fields) find(name string, i int) int {
	for ; i < len(f.list); i++ {
		if l := &f.list[i]; int(l.name.len) == len(name) && EqualFold(l.name.of(f.arena), name) {
			return i
		}
	}
	return -1
}

// Add appends a line with a known name in its usual case.
func (f *Fields) Add(id ID, value []byte) {
	f.Begin(id)
	f.arena = append(f.arena, value...)
	f.End()
}

// AddString appends a line with a known name in its usual case.
func (f *Fields) AddString(id ID, value string) {
	f.Begin(id)
	f.arena = append(f.arena, value...)
	f.End()
}

// AddInt appends a line with a known name and a decimal value.
func (f *Fields) AddInt(id ID, value int64) {
	f.Begin(id)
	f.arena = strconv.AppendInt(f.arena, value, 10)
	f.End()
}

// AddLine appends a line with any name, in the case given. The caller vouches for the syntax of both.
func (f *Fields) AddLine(name, value []byte) {
	id := KnownID(name)
	off := uint32(len(f.arena))
	f.arena = append(f.arena, name...)
	f.arena = append(f.arena, value...)
	f.push(field{name: span{off, uint32(len(name))}, value: span{off + uint32(len(name)), uint32(len(value))}, id: id})
}

// Begin starts a line with a known name; Append and AppendInt add to its value and End ends it.
// Nothing else may be added in between.
func (f *Fields) Begin(id ID) {
	off := uint32(len(f.arena))
	f.arena = append(f.arena, names[id]...)
	n := uint32(len(f.arena))
	f.push(field{name: span{off, n - off}, value: span{off: n}, id: id})
}

// Append adds to the value of the line begun.
func (f *Fields) Append(s string) { f.arena = append(f.arena, s...) }

// AppendBytes adds to the value of the line begun.
func (f *Fields) AppendBytes(b []byte) { f.arena = append(f.arena, b...) }

// AppendInt adds a decimal number to the value of the line begun.
func (f *Fields) AppendInt(n int64) { f.arena = strconv.AppendInt(f.arena, n, 10) }

// End ends the line begun.
func (f *Fields) End() {
	l := &f.list[len(f.list)-1]
	l.value.len = uint32(len(f.arena)) - l.value.off
}

// Set puts one line in the place of the first of a known name and removes the others.
func (f *Fields) Set(id ID, value []byte) {
	i := int(f.first[id]) - 1
	if i < 0 {
		f.Add(id, value)
		return
	}
	f.setAt(i, value)
	if f.Next(id, i+1) >= 0 {
		f.remove(func(j int, l *field) bool { return l.id == id && j > i })
	}
}

// SetLine puts one line in the place of the first of that name and removes the others.
func (f *Fields) SetLine(name string, value []byte) {
	i := f.find(name, 0)
	if i < 0 {
		f.AddLine([]byte(name), value)
		return
	}
	f.setAt(i, value)
	if f.find(name, i+1) >= 0 {
		f.remove(func(j int, l *field) bool { return j > i && EqualFold(l.name.of(f.arena), name) })
	}
}

func (f *Fields) setAt(i int, value []byte) {
	l := &f.list[i]
	l.value = span{uint32(len(f.arena)), uint32(len(value))}
	f.arena = append(f.arena, value...)
}

// Del removes every line of a known name and says whether there was one.
func (f *Fields) Del(id ID) bool {
	if f.first[id] == 0 {
		return false
	}
	f.remove(func(_ int, l *field) bool { return l.id == id })
	return true
}

// DelLine removes every line named name, in any case, and says whether there was one.
func (f *Fields) DelLine(name string) bool {
	if f.find(name, 0) < 0 {
		return false
	}
	f.remove(func(_ int, l *field) bool { return EqualFold(l.name.of(f.arena), name) })
	return true
}

// DelAt removes line i.
func (f *Fields) DelAt(i int) {
	f.remove(func(j int, _ *field) bool { return j == i })
}

func (f *Fields) push(l field) {
	f.list = append(f.list, l)
	if l.id != Other && f.first[l.id] == 0 {
		f.first[l.id] = uint16(len(f.list))
	}
}

// remove drops the lines for which drop is true and finds the first lines anew. It lends
// drop a line in its place, for a copy would be allocated.
func (f *Fields) remove(drop func(int, *field) bool) {
	clear(f.first[:])
	n := 0
	for i := range f.list {
		if drop(i, &f.list[i]) {
			continue
		}
		if n != i {
			f.list[n] = f.list[i]
		}
		n++
		if id := f.list[n-1].id; id != Other && f.first[id] == 0 {
			f.first[id] = uint16(n)
		}
	}
	f.list = f.list[:n]
}

// Lists says whether a line of a known name lists item, in any case and with any parameters:
// Connection "close", TE "trailers" (RFC 9110 section 5.6.1).
func (f *Fields) Lists(id ID, item string) bool {
	for i := f.Next(id, 0); i >= 0; i = f.Next(id, i+1) {
		for rest := f.list[i].value.of(f.arena); len(rest) > 0; {
			var one []byte
			one, rest = syntax.NextItem(rest)
			if i := bytes.IndexByte(one, ';'); i >= 0 {
				one = syntax.Trim(one[:i])
			}
			if syntax.EqualFold(one, item) {
				return true
			}
		}
	}
	return false
}

// EqualFold says whether a is s whatever the case of ASCII letters.
func EqualFold(a []byte, s string) bool { return syntax.EqualFold(a, s) }
