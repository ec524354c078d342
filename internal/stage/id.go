package stage

import "encoding/base32"

// RequestID names a request. It is on every answer and on every error page.
type RequestID [16]byte

// IDLen is the length of an id as text.
const IDLen = 26

const idAlphabet = "0123456789abcdefghjkmnpqrstvwxyz" // Crockford's, without i, l, o, u

// AppendText appends the id: 26 characters that can be read aloud.
func (id RequestID) AppendText(b []byte) []byte {
	var t [IDLen]byte
	for i := range 3 { // five bytes are eight characters
		s, d := id[i*5:i*5+5:i*5+5], t[i*8:i*8+8:i*8+8]
		v := uint64(s[0])<<32 | uint64(s[1])<<24 | uint64(s[2])<<16 | uint64(s[3])<<8 | uint64(s[4])
		d[0], d[1], d[2], d[3] = idAlphabet[v>>35&31], idAlphabet[v>>30&31], idAlphabet[v>>25&31], idAlphabet[v>>20&31]
		d[4], d[5], d[6], d[7] = idAlphabet[v>>15&31], idAlphabet[v>>10&31], idAlphabet[v>>5&31], idAlphabet[v&31]
	}
	t[24], t[25] = idAlphabet[id[15]>>3], idAlphabet[id[15]<<2&31]
	return append(b, t[:]...)
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
