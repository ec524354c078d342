package segment

import (
	"bytes"
	"testing"
)

func FuzzRecord(f *testing.F) {
	h := header{hash: 1, born: 2, keyLen: 3, headLen: 4, bodyLen: 5, bits: bitSums}
	b := make([]byte, objectHeader, 100)
	h.put(b)
	f.Add(append(b, make([]byte, 20)...), int64(100))
	h = header{extents: 2, bodyLen: 200000, bits: bitSums}
	h.put(b)
	var lay layout
	lay.add(64, 70000, 1)
	lay.add(100000, 100000, 2)
	f.Add(append(b, lay.exts...), int64(1<<20))
	f.Fuzz(func(t *testing.T, b []byte, room int64) {
		room = min(room, 1<<30)
		var h header
		need, err := h.parse(b, room)
		if err != nil {
			return
		}
		if need > room {
			t.Fatalf("wants %d of %d", need, room)
		}
		if need > int64(len(b)) {
			return
		}
		if h.sumsAt > h.keyAt || h.keyAt > h.headAt || h.headAt > h.endAt || h.endAt != need || h.inlineLen < 0 || h.endAt+h.inlineLen > room {
			t.Fatalf("%+v", h)
		}
		again := make([]byte, objectHeader)
		h.put(again)
		if !bytes.Equal(again, b[:objectHeader]) {
			t.Fatal("not what was read")
		}
	})
}

func FuzzTable(f *testing.F) {
	var entries []byte
	for i := range 3 {
		e := entry{hash: uint64(i), born: 1, size: 2, off: 64, length: 128, oldest: 4, flags: 5, kind: kindObject}
		entries = e.append(entries)
	}
	b := appendFrames(nil, 7, 8, entries)
	f.Add(b)
	f.Add(append(bytes.Repeat([]byte{1}, 8), append(b, b...)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		end, damaged := parseFrames(b, 7, 8, func(e *entry) { again = e.append(again) })
		if end > len(b) || !damaged && len(appendFrames(nil, 7, 8, again)) > len(b) {
			t.Fatal(end, len(b))
		}
		n := 0
		parseFrames(b, 7, 9, func(*entry) { n++ })
		if n > 0 && len(again) > 0 {
			t.Fatal("a frame of two lives")
		}
	})
}
