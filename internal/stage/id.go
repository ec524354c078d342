package stage

import "encoding/base32"

// RequestID names a request. It is on every answer and on every error page.
type RequestID [16]byte

// IDLen is the length of an id as text.
const IDLen = 26

const idAlphabet = "0123456789abcdefghjkmnpqrstvwxyz" // Crockford's, without i, l, o, u

// AppendText appends the id: 26 characters that can be read aloud.
func (id RequestID) AppendText(b []byte) []byte {
	// 128 bits are 25 groups of 5 and one of 3.
	var acc uint32
	bits := 0
	for _, c := range id {
		acc = acc<<8 | uint32(c)
		for bits += 8; bits >= 5; bits -= 5 {
			b = append(b, idAlphabet[acc>>(bits-5)&31])
		}
	}
	return append(b, idAlphabet[acc<<(5-bits)&31])
}

// String returns the id as text.
func (id RequestID) String() string { return string(id.AppendText(make([]byte, 0, IDLen))) }

// ParseRequestID reads what String wrote.
func ParseRequestID(s string) (id RequestID, ok bool) {
	if len(s) != IDLen {
		return id, false
	}
	n, err := base32.NewEncoding(idAlphabet).WithPadding(base32.NoPadding).Decode(id[:], []byte(s))
	return id, err == nil && n == len(id)
}
