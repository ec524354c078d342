package segment

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// A record in the log begins at a multiple of 64 bytes. All numbers are little endian.
//
//	object: seal 4, kind 1, bits 1, flags 2, hash 8, born 8, key length 2, extents 2, head
//	        length 4, body length 8; then extents of 16 (address 8, length 4, sequence 4), sums
//	        of 4 for each block of the body, key, head, and what of the body is in no extent
//	extent: seal 4, kind 1, nothing 3, length 8; then a piece of a body
//
// The seal of an object in a file is the CRC32-C of all before the body, begun with a number
// made of the store's key, the segment's sequence and the place. In memory it is that number
// alone: what was written cannot change there, and a body cannot imitate a record without the key.
const (
	objectHeader = 40
	extentHeader = 16
	extentEntry  = 16
	sumSize      = 4
	sumBlock     = 64 << 10

	kindObject = 1
	kindExtent = 2
	kindErased = 3 // in tables only
	kindAgain  = 4 // in tables only: an object that was written again at the tail

	bitSums = 1

	maxKey     = 1<<16 - 1
	maxExtents = 1 << 12
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
	errFormat  = errors.New("segment: not a record")
)

// sealOf is a number that only this store can know for a place in one life of a segment.
func sealOf(key, seq uint64, off int64) uint32 {
	x := key ^ seq*0x9e3779b97f4a7c15 ^ uint64(off)*0xc2b2ae3d27d4eb4f
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return uint32(x)
}

func roundUp(n int64) int64 { return (n + unit - 1) &^ (unit - 1) }

func blocksOf(n int64) int64 { return (n + sumBlock - 1) / sumBlock }

// header is the fixed part of an object's record, parsed, and where its parts begin.
type header struct {
	seal                         uint32
	bits                         uint8
	flags                        uint16
	hash                         uint64
	born                         int64
	keyLen, extents              int
	headLen                      int64
	bodyLen, inlineLen           int64
	sumsAt, keyAt, headAt, endAt int64 // from the record's first byte; endAt is where the inline body begins
}

func (h *header) put(b []byte) {
	le.PutUint32(b, h.seal)
	b[4], b[5] = kindObject, h.bits
	le.PutUint16(b[6:], h.flags)
	le.PutUint64(b[8:], h.hash)
	le.PutUint64(b[16:], uint64(h.born))
	le.PutUint16(b[24:], uint16(h.keyLen))
	le.PutUint16(b[26:], uint16(h.extents))
	le.PutUint32(b[28:], uint32(h.headLen))
	le.PutUint64(b[32:], uint64(h.bodyLen))
}

// parse reads an object's record from its first bytes. Room is how many bytes the record can
// have at most. When b is too short, need says how many bytes are wanted; it grows at most twice.
func (h *header) parse(b []byte, room int64) (need int64, err error) {
	if room < objectHeader {
		return 0, errFormat
	}
	if len(b) < objectHeader {
		return objectHeader, nil
	}
	if b[4] != kindObject || b[5]&^bitSums != 0 {
		return 0, errFormat
	}
	*h = header{
		seal: le.Uint32(b), bits: b[5], flags: le.Uint16(b[6:]), hash: le.Uint64(b[8:]), born: int64(le.Uint64(b[16:])),
		keyLen: int(le.Uint16(b[24:])), extents: int(le.Uint16(b[26:])), headLen: int64(le.Uint32(b[28:])), bodyLen: int64(le.Uint64(b[32:])),
	}
	if h.extents > maxExtents || h.bodyLen < 0 || h.bodyLen > 1<<(locationBits+unitShift) {
		return 0, errFormat
	}
	h.sumsAt = objectHeader + int64(h.extents)*extentEntry
	if h.sumsAt > room {
		return 0, errFormat
	}
	if int64(len(b)) < h.sumsAt {
		return h.sumsAt, nil
	}
	h.inlineLen = h.bodyLen
	var sums int64
	for e := b[objectHeader:h.sumsAt]; len(e) > 0; e = e[extentEntry:] {
		n := int64(le.Uint32(e[8:]))
		if n == 0 || le.Uint64(e) >= 1<<(locationBits+unitShift) {
			return 0, errFormat
		}
		h.inlineLen -= n
		sums += blocksOf(n)
	}
	if h.inlineLen < 0 || h.inlineLen > room {
		return 0, errFormat
	}
	if h.bits&bitSums != 0 {
		sums += blocksOf(h.inlineLen)
	} else {
		sums = 0
	}
	h.keyAt = h.sumsAt + sums*sumSize
	h.headAt = h.keyAt + int64(h.keyLen)
	h.endAt = h.headAt + h.headLen
	if h.endAt+h.inlineLen > room {
		return 0, errFormat
	}
	return h.endAt, nil
}

// size is the record's length in the log.
func (h *header) size() int64 { return roundUp(h.endAt + h.inlineLen) }

// sumOf is the seal of a record with sums: b is all before the body.
func sumOf(seal uint32, b ...[]byte) uint32 {
	for i, p := range b {
		if i == 0 {
			p = p[4:] // not the seal itself
		}
		seal = crc32.Update(seal, castagnoli, p)
	}
	return seal
}

// The table of a segment is a file beside it, from which New learns what the segment holds: a
// file header, then frames: magic 4, CRC 4, entries 4, nothing 4, and entries of 40: hash 8, born
// 8, body length 8, offset in units 4, sequence of the oldest extent 4, flags 2, kind 1, nothing 1, record's units 4.
const (
	version     = 1
	fileHeader  = 64
	frameHeader = 16
	frameMagic  = 0x544c4552
	entrySize   = 40
	maxEntries  = 1024
	magicTable  = "RELAISTB"
	magicStore  = "RELAISST"
	magicData   = "RELAISSG"
)

type entry struct {
	hash   uint64
	born   int64
	size   int64
	off    int64
	length int64 // of the record, without extents
	oldest uint32
	flags  uint16
	kind   uint8
}

func (e *entry) append(b []byte) []byte {
	b = le.AppendUint64(b, e.hash)
	b = le.AppendUint64(b, uint64(e.born))
	b = le.AppendUint64(b, uint64(e.size))
	b = le.AppendUint32(b, uint32(e.off>>unitShift))
	b = le.AppendUint32(b, e.oldest)
	b = le.AppendUint16(b, e.flags)
	b = append(b, e.kind, 0)
	return le.AppendUint32(b, uint32(e.length>>unitShift))
}

func (e *entry) parse(b []byte) {
	*e = entry{
		hash: le.Uint64(b), born: int64(le.Uint64(b[8:])), size: int64(le.Uint64(b[16:])),
		off: int64(le.Uint32(b[24:])) << unitShift, oldest: le.Uint32(b[28:]), flags: le.Uint16(b[32:]), kind: b[34],
		length: int64(le.Uint32(b[36:])) << unitShift,
	}
}

func (e *entry) record(base int64) Record {
	r := Record{Hash: e.hash, Size: e.size, Born: e.born, Flags: e.flags, Erased: e.kind == kindErased}
	if !r.Erased {
		r.At = Location((base + e.off) >> unitShift)
	}
	return r
}

// appendFrames frames entries for a table whose segment has this number.
func appendFrames(b []byte, key, seq uint64, entries []byte) []byte {
	for len(entries) > 0 {
		n := min(len(entries), maxEntries*entrySize)
		at := len(b)
		b = le.AppendUint32(b, frameMagic)
		b = append(b, make([]byte, 12)...)
		le.PutUint32(b[at+8:], uint32(n/entrySize))
		b = append(b, entries[:n]...)
		le.PutUint32(b[at+4:], crc32.Update(sealOf(key, seq, 0), castagnoli, b[at+8:]))
		entries = entries[n:]
	}
	return b
}

// parseFrames calls each for every entry that stands in an undamaged frame of this segment, and
// returns where the last such frame ends and whether there was anything else. A damaged frame
// costs its own entries: the next one is looked for.
func parseFrames(b []byte, key, seq uint64, each func(*entry)) (end int, damaged bool) {
	var e entry
	for at := 0; at < len(b); {
		n, ok := frameAt(b[at:], key, seq)
		if !ok {
			damaged = true
			at += 8
			continue
		}
		for p := b[at+frameHeader : at+n]; len(p) > 0; p = p[entrySize:] {
			e.parse(p)
			each(&e)
		}
		at += n
		end = at
	}
	return end, damaged
}

func frameAt(b []byte, key, seq uint64) (size int, ok bool) {
	if len(b) < frameHeader || le.Uint32(b) != frameMagic {
		return 0, false
	}
	n := le.Uint32(b[8:])
	if n == 0 || n > maxEntries || len(b) < frameHeader+int(n)*entrySize {
		return 0, false
	}
	size = frameHeader + int(n)*entrySize
	return size, crc32.Update(sealOf(key, seq, 0), castagnoli, b[8:size]) == le.Uint32(b[4:])
}

// top is the header of a file: whose it is, and of which segment and life.
type top struct {
	store [16]byte
	size  int64 // of a segment
	slot  uint64
	seq   uint64
}

// put writes 64 bytes: magic 8, version 4, CRC 4, store 16, segment size 8, slot 8, sequence 8, nothing 8.
func (t *top) put(magic string) []byte {
	b := make([]byte, fileHeader)
	copy(b, magic)
	le.PutUint32(b[8:], version)
	copy(b[16:], t.store[:])
	le.PutUint64(b[32:], uint64(t.size))
	le.PutUint64(b[40:], t.slot)
	le.PutUint64(b[48:], t.seq)
	le.PutUint32(b[12:], crc32.Checksum(b[16:], castagnoli))
	return b
}

// What a file header tells: nothing of ours; ours, but of another version or damaged; ours.
type verdict uint8

const (
	alien verdict = iota
	stale
	ours
)

func (t *top) parse(b []byte, magic string) verdict {
	if len(b) < fileHeader || string(b[:8]) != magic {
		return alien
	}
	if le.Uint32(b[8:]) != version || le.Uint32(b[12:]) != crc32.Checksum(b[16:fileHeader], castagnoli) {
		return stale
	}
	copy(t.store[:], b[16:32])
	t.size, t.slot, t.seq = int64(le.Uint64(b[32:])), le.Uint64(b[40:]), le.Uint64(b[48:])
	return ours
}

// keyOf is the number that a store's seals begin with.
func keyOf(store [16]byte) uint64 {
	return le.Uint64(store[:]) ^ le.Uint64(store[8:])*0x9e3779b97f4a7c15
}
