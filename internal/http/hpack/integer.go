package hpack

// AppendInt appends n with a prefix of the given number of bits (1 to 8) under the bits that
// first already has set (RFC 7541 section 5.1).
func AppendInt(dst []byte, first byte, prefix uint, n uint64) []byte {
	most := uint64(1)<<prefix - 1
	if n < most {
		return append(dst, first|byte(n))
	}
	dst = append(dst, first|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}

// ReadInt reads an integer whose prefix is the low bits of b[0], and returns how many bytes it
// takes. It takes integers of up to 62 bits, as RFC 9204 section 4.1.1 wants. The error is
// ErrTruncated or ErrInteger.
func ReadInt(b []byte, prefix uint) (n uint64, used int, err error) {
	if len(b) == 0 {
		return 0, 0, ErrTruncated
	}
	most := uint64(1)<<prefix - 1
	n = uint64(b[0]) & most
	if n < most {
		return n, 1, nil
	}
	shift := uint(0)
	for i := 1; i < len(b); i++ {
		n += uint64(b[i]&0x7f) << shift
		if n >= 1<<62 {
			return 0, 0, ErrInteger
		}
		if b[i] < 0x80 {
			return n, i + 1, nil
		}
		if shift += 7; shift > 56 {
			return 0, 0, ErrInteger
		}
	}
	return 0, 0, ErrTruncated
}
