package visitor

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"hash"
	"sync"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// The layout of a cookie's payload.
const (
	version    = 1
	payloadLen = 26
	macLen     = 16
	rawLen     = payloadLen + macLen
	textLen    = 68 // rawLen in base32 without padding
)

// flagFinal marks a cookie that is not renewed: its order is complete.
const flagFinal = 0x80

// token is what a cookie says.
type token struct {
	class   stage.Class
	final   bool
	issued  uint32 // Unix time in seconds
	expires uint32
	id      uint64
	pool    uint32 // hash of the pool that holds the basket; 0 for none
	tier    uint32 // hash of the tier that holds the basket; 0 for none
}

// Why a cookie counts as none.
var (
	errForm      = errors.New("not in the form of a visitor cookie")
	errSignature = errors.New("the signature is not this site's")
	errExpired   = errors.New("expired")
)

// codec signs and verifies the cookies of one policy of one site.
type codec struct {
	macs sync.Pool // of *signer
}

// signer is the memory for one signature.
type signer struct {
	mac hash.Hash
	raw [rawLen]byte
	sum [sha256.Size]byte
}

// newCodec derives the key of a site's cookie from a secret.
func newCodec(secret []byte, site, name string) *codec {
	k := hmac.New(sha256.New, secret)
	k.Write([]byte("relais visitor cookie 1\x00" + site + "\x00" + name))
	key := k.Sum(nil)
	c := &codec{}
	c.macs.New = func() any { return &signer{mac: hmac.New(sha256.New, key)} }
	return c
}

// sign writes the signature of s.raw's payload into s.sum.
func (s *signer) sign() {
	s.mac.Reset()
	s.mac.Write(s.raw[:payloadLen])
	s.mac.Sum(s.sum[:0])
}

// append appends the text of t.
func (c *codec) append(b []byte, t *token) []byte {
	s := c.macs.Get().(*signer)
	defer c.macs.Put(s)
	class := byte(t.class)
	if t.final {
		class |= flagFinal
	}
	s.raw[0], s.raw[1] = version, class
	binary.BigEndian.PutUint32(s.raw[2:], t.issued)
	binary.BigEndian.PutUint32(s.raw[6:], t.expires)
	binary.BigEndian.PutUint64(s.raw[10:], t.id)
	binary.BigEndian.PutUint32(s.raw[18:], t.pool)
	binary.BigEndian.PutUint32(s.raw[22:], t.tier)
	s.sign()
	copy(s.raw[payloadLen:], s.sum[:macLen])
	return encode(b, &s.raw)
}

// parse reads a cookie's text at the time now, in Unix seconds.
func (c *codec) parse(text []byte, now int64) (t token, err error) {
	if len(text) != textLen {
		return t, errForm
	}
	s := c.macs.Get().(*signer)
	defer c.macs.Put(s)
	if !decode(&s.raw, text) || s.raw[0] != version {
		return t, errForm
	}
	s.sign()
	if subtle.ConstantTimeCompare(s.sum[:macLen], s.raw[payloadLen:rawLen]) != 1 {
		return t, errSignature
	}
	t = token{
		class: stage.Class(s.raw[1] &^ flagFinal), final: s.raw[1]&flagFinal != 0,
		issued: binary.BigEndian.Uint32(s.raw[2:]), expires: binary.BigEndian.Uint32(s.raw[6:]),
		id:   binary.BigEndian.Uint64(s.raw[10:]),
		pool: binary.BigEndian.Uint32(s.raw[18:]), tier: binary.BigEndian.Uint32(s.raw[22:]),
	}
	switch {
	case t.class != stage.Known && t.class != stage.Protected:
		return token{}, errForm
	case now >= int64(t.expires):
		return token{}, errExpired
	}
	return t, nil
}

// encode appends raw in base32 with the digits 0-9 and a-v (RFC 4648 section 7), without padding.
func encode(b []byte, raw *[rawLen]byte) []byte {
	var acc uint32
	bits := 0
	for _, c := range raw {
		acc = acc<<8 | uint32(c)
		for bits += 8; bits >= 5; bits -= 5 {
			b = append(b, digit(acc>>(bits-5)&31))
		}
	}
	return append(b, digit(acc<<(5-bits)&31))
}

func digit(v uint32) byte {
	if v < 10 {
		return '0' + byte(v)
	}
	return 'a' + byte(v) - 10
}

// decode reads what encode wrote, and nothing else.
func decode(raw *[rawLen]byte, text []byte) bool {
	var acc uint32
	bits, n := 0, 0
	for _, c := range text {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'v':
			c -= 'a' - 10
		default:
			return false
		}
		acc = acc<<5 | uint32(c)
		if bits += 5; bits >= 8 {
			bits -= 8
			raw[n] = byte(acc >> bits)
			n++
		}
	}
	return n == rawLen && acc&(1<<bits-1) == 0
}

// nextCookie lends the next value of a cookie of that name in a Cookie line, and what follows
// it (RFC 6265 section 5.4). Value is nil at the end.
func nextCookie(line []byte, name string) (value, rest []byte) {
	for {
		start, end := pair(line)
		if start == end && end == len(line) {
			return nil, nil
		}
		p := line[start:end]
		line = line[end:]
		if n := len(name); len(p) > n && p[n] == '=' && string(p[:n]) == name {
			v := p[n+1:]
			for len(v) > 0 && (v[len(v)-1] == ' ' || v[len(v)-1] == '\t') {
				v = v[:len(v)-1]
			}
			return v, line
		}
	}
}

// pair finds the first pair of a Cookie line, without the separators before it.
func pair(line []byte) (start, end int) {
	for start < len(line) && (line[start] == ' ' || line[start] == ';' || line[start] == '\t') {
		start++
	}
	end = start
	for end < len(line) && line[end] != ';' {
		end++
	}
	return start, end
}

// strip appends the pairs of the Cookie lines of f to b, joined by "; ", without those that
// bear one of the names. Found says whether there were any.
func strip(b []byte, f *message.Fields, names []string) (out []byte, found bool) {
	for i := f.Next(message.Cookie, 0); i >= 0; i = f.Next(message.Cookie, i+1) {
		_, _, line := f.At(i)
		for {
			start, end := pair(line)
			if start == end && end == len(line) {
				break
			}
			p := line[start:end]
			line = line[end:]
			if isOurs(p, names) {
				found = true
				continue
			}
			if len(b) > 0 {
				b = append(b, "; "...)
			}
			b = append(b, p...)
		}
	}
	return b, found
}

func isOurs(pair []byte, names []string) bool {
	for _, n := range names {
		if len(pair) > len(n) && pair[len(n)] == '=' && string(pair[:len(n)]) == n {
			return true
		}
	}
	return false
}
