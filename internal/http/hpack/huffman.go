package hpack

import (
	"encoding/binary"
	"slices"
)

// codeLengths are the lengths in bits of the Huffman codes (RFC 7541 appendix B). The code is
// canonical: ordered by length, then by symbol, each code is the one before plus one, so that
// the lengths say all.
var codeLengths = [256]uint8{
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
	28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
	6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
	5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
	13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
	7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
	15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
	6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
	20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
	24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
	22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
	21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
	26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
	19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
	20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
	26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
}

// shortest is below the length of any code; longest is the length of the longest, which is also
// that of the end of string mark.
const (
	shortest = 5
	longest  = 30
)

// quickBits is the number of bits that are looked up at once.
const quickBits = 11

// huffman is the code in the forms that serve encoding and decoding.
type huffman struct {
	// codes holds each symbol's code, aligned to the right.
	codes [256]uint32
	// quick maps the next eleven bits to the one or two symbols whose codes stand in them, and
	// to the bits of these; zero when the first code is longer.
	quick [1 << quickBits]struct{ first, second, symbols, bits uint8 }
	// limit is, by length, the first code that is longer, aligned to the left of 32 bits.
	limit [longest + 1]uint64
	// start is, by length, the place in symbols of its first code less that code's number.
	start   [longest + 1]int32
	symbols [256]uint8
}

var code = makeHuffman()

func makeHuffman() *huffman {
	h := &huffman{}
	next, n := uint32(0), 0
	for length := shortest; length <= longest; length++ {
		next <<= 1
		h.start[length] = int32(n) - int32(next)
		for s, l := range codeLengths {
			if int(l) != length {
				continue
			}
			h.codes[s], h.symbols[n] = next, uint8(s)
			next, n = next+1, n+1
		}
		h.limit[length] = uint64(next) << (32 - length)
	}
	for first, l := range codeLengths {
		if l > quickBits {
			continue
		}
		from, free := h.codes[first]<<(quickBits-l), quickBits-l
		for i := from; i < from+1<<free; i++ {
			h.quick[i].first, h.quick[i].symbols, h.quick[i].bits = uint8(first), 1, l
		}
		for second, m := range codeLengths {
			if m > free {
				continue
			}
			at := from + h.codes[second]<<(free-m)
			for i := at; i < at+1<<(free-m); i++ {
				h.quick[i].second, h.quick[i].symbols, h.quick[i].bits = uint8(second), 2, l+m
			}
		}
	}
	return h
}

// HuffmanLen returns the number of bytes that AppendHuffman would add.
func HuffmanLen(s []byte) int {
	bits := 0
	for _, c := range s {
		bits += int(codeLengths[c])
	}
	return (bits + 7) / 8
}

// AppendHuffman appends s in Huffman code, padded with the most significant bits of the end of
// string mark (RFC 7541 section 5.2).
func AppendHuffman(dst, s []byte) []byte {
	var acc uint64
	var n uint
	for _, c := range s {
		l := uint(codeLengths[c])
		acc = acc<<l | uint64(code.codes[c])
		if n += l; n >= 32 {
			n -= 32
			dst = binary.BigEndian.AppendUint32(dst, uint32(acc>>n))
		}
	}
	for ; n >= 8; n -= 8 {
		dst = append(dst, byte(acc>>(n-8)))
	}
	if n > 0 {
		dst = append(dst, byte(acc<<(8-n))|0xff>>n)
	}
	return dst
}

// DecodeHuffman appends the string that src is the code of; at most 8/5 of the length of src.
// The error is ErrHuffman: an end of string mark within, or a padding that is not the shortest
// or not all ones.
func DecodeHuffman(dst, src []byte) ([]byte, error) {
	was := len(dst)
	dst = slices.Grow(dst, len(src)*8/shortest+2)
	out := dst[was:cap(dst)]
	var acc uint64 // the bits at hand, aligned to the left
	var n uint     // their number
	i, w := 0, 0
	for {
		if len(src)-i >= 8 {
			acc |= binary.BigEndian.Uint64(src[i:]) >> n
			i += int(63-n) >> 3
			n |= 56
		} else {
			for ; n <= 56 && i < len(src); i++ {
				acc |= uint64(src[i]) << (56 - n)
				n += 8
			}
			if n < longest {
				break
			}
		}
		for n >= longest {
			q := &code.quick[acc>>(64-quickBits)]
			if q.symbols == 0 {
				symbol, length := long(acc)
				if length == 0 {
					return dst[:was], ErrHuffman
				}
				out[w] = symbol
				w++
				acc <<= length
				n -= length
				continue
			}
			pair := out[w : w+2 : w+2]
			pair[0], pair[1] = q.first, q.second
			w += int(q.symbols)
			acc <<= q.bits
			n -= uint(q.bits)
		}
	}
	for n >= 8 || acc != ^uint64(0)<<(64-n) {
		q := &code.quick[acc>>(64-quickBits)]
		symbol, length := q.first, uint(codeLengths[q.first])
		if q.symbols == 0 {
			symbol, length = long(acc)
		}
		if length == 0 || length > n {
			return dst[:was], ErrHuffman
		}
		out[w] = symbol
		w++
		acc <<= length
		n -= length
	}
	return dst[:was+w], nil
}

// long finds the symbol of a code that is not in quick; length 0 when it is the end mark.
func long(acc uint64) (symbol uint8, length uint) {
	top := acc >> 32
	for l := uint(quickBits + 1); l <= longest; l++ {
		if top < code.limit[l] {
			return code.symbols[code.start[l]+int32(top>>(32-l))], l
		}
	}
	return 0, 0
}
