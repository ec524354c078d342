package smug

// encodeFields writes fields as HPACK literals without indexing and without
// Huffman coding (RFC 7541 6.2.2), byte for byte as given.
func encodeFields(fields []Field) []byte {
	var b []byte
	for _, f := range fields {
		b = append(b, 0)
		b = appendString(b, f.Name)
		b = appendString(b, f.Value)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	n := len(s)
	if n < 127 {
		return append(append(b, byte(n)), s...)
	}
	b = append(b, 127)
	for n -= 127; n >= 128; n >>= 7 {
		b = append(b, byte(n)|128)
	}
	return append(append(b, byte(n)), s...)
}

// firstStatus decodes the status code from the start of a field block. That is
// enough, because :status goes before all other fields (RFC 9113 8.3) and the
// connection carries one request, so the dynamic table is not needed. It gives
// 0 when there is none.
func firstStatus(b []byte) int {
	for len(b) > 0 && b[0]&0xe0 == 0x20 { // dynamic table size update
		_, b = readInt(b, 5)
	}
	if len(b) == 0 {
		return 0
	}
	switch {
	case b[0]&0x80 != 0:
		index, _ := readInt(b, 7)
		return staticStatus(index)
	case b[0]&0x40 != 0:
		return literalStatus(readInt(b, 6))
	default:
		return literalStatus(readInt(b, 4))
	}
}

// staticStatus is the value of entries 8 to 14 of RFC 7541 appendix A.
func staticStatus(index int) int {
	values := [...]int{200, 204, 206, 304, 400, 404, 500}
	if index < 8 || index-8 >= len(values) {
		return 0
	}
	return values[index-8]
}

func literalStatus(index int, b []byte) int {
	if index == 0 {
		name, rest, huffman := readString(b)
		// A Huffman coded ":status" is b8 84 8d 36 a3.
		if string(name) != ":status" && !(huffman && string(name) == "\xb8\x84\x8d\x36\xa3") {
			return 0
		}
		b = rest
	} else if staticStatus(index) == 0 {
		return 0
	}
	value, _, huffman := readString(b)
	if huffman {
		value = huffmanDigits(value)
	}
	if len(value) != 3 {
		return 0
	}
	code := 0
	for _, d := range value {
		if !isDigit(d) {
			return 0
		}
		code = code*10 + int(d-'0')
	}
	return code
}

// readInt reads an integer with a prefix of bits (RFC 7541 5.1). Values that
// no field block of this battery needs are cut off at 1<<20.
func readInt(b []byte, bits uint) (int, []byte) {
	if len(b) == 0 {
		return 0, nil
	}
	mask := 1<<bits - 1
	n := int(b[0]) & mask
	b = b[1:]
	if n < mask {
		return n, b
	}
	for shift := uint(0); len(b) > 0 && shift < 21; shift += 7 {
		c := b[0]
		b = b[1:]
		n += int(c&127) << shift
		if c < 128 {
			break
		}
	}
	return min(n, 1<<20), b
}

// readString reads a string literal (RFC 7541 5.2) without decoding it.
func readString(b []byte) (s, rest []byte, huffman bool) {
	if len(b) == 0 {
		return nil, nil, false
	}
	huffman = b[0]&0x80 != 0
	n, b := readInt(b, 7)
	n = min(n, len(b))
	return b[:n], b[n:], huffman
}

// huffmanDigits decodes Huffman coded digits (RFC 7541 appendix B): 0, 1 and 2
// are the five bit codes 0, 1 and 2; 3 to 9 are the six bit codes 25 to 31.
func huffmanDigits(b []byte) []byte {
	var digits []byte
	var acc uint64
	bits := 0
	for _, c := range b[:min(len(b), 4)] {
		acc = acc<<8 | uint64(c)
		bits += 8
	}
	for bits >= 5 && len(digits) < 3 {
		if v := acc >> (bits - 5) & 31; v <= 2 {
			digits = append(digits, '0'+byte(v))
			bits -= 5
			continue
		}
		if bits < 6 {
			break
		}
		v := acc >> (bits - 6) & 63
		if v < 25 || v > 31 {
			return nil
		}
		digits = append(digits, '3'+byte(v-25))
		bits -= 6
	}
	return digits
}
