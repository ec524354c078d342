// Package seal signs small pieces of state that visitors carry: who has a basket, a place in a line, a
// puzzle that was solved. What is sealed is readable by everybody and made by nobody else.
//
// A text is base32 with the digits 0-9 and a-v (RFC 4648 section 7, without padding), so that it may stand
// in a cookie, a field and a query and no rule of a firewall takes it for an attack. It holds one byte that
// names the key, the payload, and the first 16 bytes of an HMAC-SHA256 (RFC 2104) of both. The key is derived
// from a secret and a purpose, so that what was sealed for one purpose opens for no other.
//
// # Rotation
//
// The first secret signs; all of them open. To rotate, put the new secret first, keep the old one as long
// as what it signed is good, then take it out. Texts name their key, so that each is verified once.
package seal

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"hash"
	"sync"
)

// MaxPayload is the most bytes of a payload.
const MaxPayload = 64

// MinSecret is the fewest bytes of a secret.
const MinSecret = 16

const (
	macLen = 16
	rawMax = 1 + MaxPayload + macLen
)

// Why a text does not open.
var (
	ErrForm      = errors.New("not in the form of a sealed text")
	ErrSignature = errors.New("the signature is of no key that is in use here")
)

// TextLen is the length of the text of a payload of n bytes.
func TextLen(n int) int { return ((1+n+macLen)*8 + 4) / 5 }

// Keys are the keys of one purpose. They do not change.
type Keys struct{ list []key }

// key is derived from one secret.
type key struct {
	id   byte
	pool *sync.Pool // of *signer
}

// signer is the memory for one signature.
type signer struct {
	mac hash.Hash
	raw [rawMax]byte
	sum [sha256.Size]byte
}

// New derives the keys of a purpose, such as "relais visitor 1\x00org/shop". The first secret signs.
func New(purpose string, secrets ...[]byte) *Keys {
	k := &Keys{}
	for _, s := range secrets {
		m := hmac.New(sha256.New, s)
		m.Write([]byte(purpose))
		derived := m.Sum(nil)
		id := sha256.Sum256(derived)
		k.list = append(k.list, key{id[0], &sync.Pool{New: func() any { return &signer{mac: hmac.New(sha256.New, derived)} }}})
	}
	return k
}

// sign writes the signature of the first n bytes of s.raw.
func (s *signer) sign(n int) {
	s.mac.Reset()
	s.mac.Write(s.raw[:n])
	s.mac.Sum(s.sum[:0])
}

// Append appends the text of a payload of at most MaxPayload bytes.
func (k *Keys) Append(dst, payload []byte) []byte {
	s := k.list[0].pool.Get().(*signer)
	defer k.list[0].pool.Put(s)
	s.raw[0] = k.list[0].id
	n := 1 + copy(s.raw[1:1+MaxPayload], payload)
	s.sign(n)
	n += copy(s.raw[n:], s.sum[:macLen])
	return encode(dst, s.raw[:n])
}

// Open appends the payload of a text, which has n bytes, to dst.
func (k *Keys) Open(dst, text []byte, n int) ([]byte, error) {
	if len(text) != TextLen(n) || n > MaxPayload {
		return dst, ErrForm
	}
	id, ok := first(text)
	if !ok {
		return dst, ErrForm
	}
	for i := range k.list {
		if k.list[i].id != id {
			continue
		}
		if out, err := k.list[i].open(dst, text, n); err == nil || err == ErrForm {
			return out, err
		}
	}
	return dst, ErrSignature
}

func (k *key) open(dst, text []byte, n int) ([]byte, error) {
	s := k.pool.Get().(*signer)
	defer k.pool.Put(s)
	raw := s.raw[:1+n+macLen]
	if !decode(raw, text) {
		return dst, ErrForm
	}
	s.sign(1 + n)
	if subtle.ConstantTimeCompare(s.sum[:macLen], raw[1+n:]) != 1 {
		return dst, ErrSignature
	}
	return append(dst, raw[1:1+n]...), nil
}

// first reads the first byte of a text.
func first(text []byte) (byte, bool) {
	a, okA := value(text[0])
	b, okB := value(text[1])
	return a<<3 | b>>2, okA && okB
}

// encode appends raw in base32.
func encode(b, raw []byte) []byte {
	var acc uint32
	bits := 0
	for _, c := range raw {
		acc = acc<<8 | uint32(c)
		for bits += 8; bits >= 5; bits -= 5 {
			b = append(b, digit(acc>>(bits-5)&31))
		}
	}
	if bits > 0 {
		b = append(b, digit(acc<<(5-bits)&31))
	}
	return b
}

func digit(v uint32) byte {
	if v < 10 {
		return '0' + byte(v)
	}
	return 'a' + byte(v) - 10
}

func value(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'v':
		return c - 'a' + 10, true
	}
	return 0, false
}

// decode reads what encode wrote, and nothing else.
func decode(raw, text []byte) bool {
	var acc uint32
	bits, n := 0, 0
	for _, c := range text {
		v, ok := value(c)
		if !ok {
			return false
		}
		acc = acc<<5 | uint32(v)
		if bits += 5; bits >= 8 {
			bits -= 8
			if n == len(raw) {
				return false
			}
			raw[n] = byte(acc >> bits)
			n++
		}
	}
	return n == len(raw) && acc&(1<<bits-1) == 0
}
