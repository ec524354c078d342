package record

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"net/netip"
	"unicode/utf8"
)

// masker hides values by a keyed hash that keeps their shape: a digit becomes another digit, a letter another
// letter of its case, and what is neither stays. Equal values become equal ones. One goroutine uses it.
type masker struct {
	mac hash.Hash
	sum [sha256.Size]byte
	buf [8]byte
	key [32]byte
}

func newMasker(key [32]byte) *masker { return &masker{mac: hmac.New(sha256.New, key[:]), key: key} }

// stream is the hash of a value, made longer as need be.
type stream struct {
	m    *masker
	seed [sha256.Size]byte
	at   int
	n    uint64
}

func (m *masker) stream(parts ...[]byte) stream {
	m.mac.Reset()
	for _, p := range parts {
		m.mac.Write(p)
	}
	s := stream{m: m, at: sha256.Size}
	m.mac.Sum(s.seed[:0])
	return s
}

func (s *stream) next() byte {
	if s.at == len(s.m.sum) {
		s.m.mac.Reset()
		s.m.mac.Write(s.seed[:])
		s.m.mac.Write(binary.BigEndian.AppendUint64(s.m.buf[:0], s.n))
		s.m.mac.Sum(s.m.sum[:0])
		s.at = 0
		s.n++
	}
	s.at++
	return s.m.sum[s.at-1]
}

// mask hides v in its place. No letter and no digit stays what it was. With all, what is neither stays only
// where a name or a number may have it.
func (m *masker) mask(v []byte, all bool) {
	s := m.stream(v)
	hex := isHex(v)
	for i := 0; i < len(v); {
		c := v[i]
		switch {
		case c >= '0' && c <= '9':
			v[i] = '0' + (c-'0'+1+s.next()%9)%10
		case c >= 'a' && c <= 'z':
			v[i] = letter(c, 'a', hex, s.next())
		case c >= 'A' && c <= 'Z':
			v[i] = letter(c, 'A', hex, s.next())
		case c >= utf8.RuneSelf:
			i += maskRune(v[i:])
			continue
		case all && !plainPunctuation(c):
			v[i] = 'x'
		}
		i++
	}
}

// letter is another letter; of a hexadecimal number another such digit.
func letter(c, first byte, hex bool, by byte) byte {
	n := byte(26)
	if hex {
		n = 6
	}
	return first + (c-first+1+by%(n-1))%n
}

// maskRune puts one that stands for all of its length in the place of a character, and gives the length.
func maskRune(v []byte) int {
	_, n := utf8.DecodeRune(v)
	copy(v, [...]string{1: "x", 2: "é", 3: "€", 4: "😀"}[n])
	return n
}

// plainPunctuation is what stands in tokens, dates, numbers and Base64.
func plainPunctuation(c byte) bool {
	switch c {
	case '-', '_', '.', '~', ':', '=', '+', '/', '%', '|', '!', ',':
		return true
	}
	return false
}

// isHex says whether the letters of v are those of hexadecimal numbers, and there are digits too.
func isHex(v []byte) bool {
	digits := false
	for _, c := range v {
		switch {
		case c >= '0' && c <= '9':
			digits = true
		case c >= 'g' && c <= 'z', c >= 'G' && c <= 'Z':
			return false
		}
	}
	return digits
}

// number is a number that stands for a value.
func (m *masker) number(v uint64) uint64 {
	if v == 0 {
		return 0
	}
	s := m.stream(binary.BigEndian.AppendUint64(m.buf[:0], v))
	return binary.BigEndian.Uint64(s.seed[:8])
}

// Clients says what is recorded of a visitor's address.
type Clients string

// What may be recorded of an address.
const (
	// ClientsHashed keeps the network (/24, /48) and puts a hash in the place of the rest, so that visitors can
	// be told apart.
	ClientsHashed Clients = "hashed"
	// ClientsTruncated keeps the network only.
	ClientsTruncated Clients = "truncated"
	// ClientsFull keeps the address.
	ClientsFull Clients = "full"
)

// client hides an address.
func (m *masker) client(a netip.Addr, how Clients) netip.Addr {
	if !a.IsValid() || how == ClientsFull {
		return a.WithZone("")
	}
	a = a.Unmap().WithZone("")
	b := a.As16()
	var h [sha256.Size]byte
	if how == ClientsHashed {
		h = m.stream(b[:]).seed
	}
	if a.Is4() {
		v4 := a.As4()
		v4[3] = h[0]
		return netip.AddrFrom4(v4)
	}
	copy(b[6:], h[:10])
	return netip.AddrFrom16(b)
}
