package syntax

import "encoding/binary"

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// Controls marks the control bytes (0x00 to 0x1f, 0x7f) of eight bytes with their high bits; tab
// is one too. The mark of the lowest byte, in little-endian order, is never a false one; those
// above it may be.
func Controls(x uint64) uint64 {
	del := x ^ 0x7f*ones
	return ((x - 0x20*ones) &^ x & highs) | ((del - ones) &^ del & highs)
}

// Plain says whether v has no control byte but tab (RFC 9110 section 5.5).
func Plain(v []byte) bool {
	for len(v) >= 8 {
		if Controls(binary.LittleEndian.Uint64(v)) != 0 && !All(v[:8], Value) {
			return false
		}
		v = v[8:]
	}
	return All(v, Value)
}

// IsValue says whether v is a field value: no control byte but tab, and no white space at its
// ends (RFC 9110 section 5.5, RFC 9113 section 8.2.1).
func IsValue(v []byte) bool {
	n := len(v)
	return n == 0 || v[0] > ' ' && v[n-1] > ' ' && Plain(v)
}

// Trim takes optional white space off both ends (OWS, RFC 9110 section 5.6.3).
func Trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// NextItem cuts the first element off a comma-separated list (RFC 9110 section 5.6.1); rest is nil
// when it was the last. An element may be empty.
func NextItem(list []byte) (item, rest []byte) {
	for i, c := range list {
		if c == ',' {
			return Trim(list[:i]), list[i+1:]
		}
	}
	return Trim(list), nil
}

// Decimal reads 1*DIGIT; false for anything else and for what 18 digits cannot hold.
func Decimal(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if !Digit(c) {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// Digit says whether c is DIGIT (RFC 5234 appendix B.1).
func Digit(c byte) bool { return c-'0' < 10 }

// Unhex is the value of a HEXDIG in any case.
func Unhex(c byte) (v byte, ok bool) {
	if c <= '9' {
		return c - '0', c >= '0'
	}
	v = c | 0x20 - 'a'
	return v + 10, v < 6
}

// EqualFold compares without regard to the case of ASCII letters.
func EqualFold[B []byte | string](a []byte, b B) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(b) {
		if x, y := a[i], b[i]; x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}

// UnhexPair is the byte that two HEXDIGs make, as behind the % of RFC 3986 section 2.1.
func UnhexPair(a, b byte) (v byte, ok bool) {
	h, ok1 := Unhex(a)
	l, ok2 := Unhex(b)
	return h<<4 | l, ok1 && ok2
}
