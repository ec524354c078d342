package index

import "math/bits"

// Class is the class of a record's size in bytes: how much to read at once when only the index
// is known. Sizes up to 1 KiB are told apart in steps of 64 bytes, larger ones to an eighth, up
// to a TiB.
func Class(size int64) uint8 {
	v := uint64(max(size-1, 0)) / 64
	if v < 8 {
		return uint8(v)
	}
	e := bits.Len64(v) - 3
	if e > 31 {
		return 255
	}
	return uint8(e<<3 | int(v>>(e-1))&7)
}

// ClassBytes is the largest size of a class, in bytes.
func ClassBytes(class uint8) int64 {
	e, m := int(class>>3), int64(class&7)
	if e == 0 {
		return (m + 1) * 64
	}
	return (8 + m + 1) << (e - 1) * 64
}
