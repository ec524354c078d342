package store

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
)

// hasher hashes keys to 128 bits under a secret. What is on a disk must have the same hash in the
// next process: then it is SipHash-2-4-128 (Aumasson and Bernstein, 2012) under a key that is kept
// beside it; else hash/maphash, which is faster and whose seed nobody can write down.
type hasher struct {
	hi, lo maphash.Seed
	k0, k1 uint64
	stable bool
}

func newHasher(key *[16]byte) hasher {
	if key == nil {
		return hasher{hi: maphash.MakeSeed(), lo: maphash.MakeSeed()}
	}
	return hasher{k0: binary.LittleEndian.Uint64(key[:]), k1: binary.LittleEndian.Uint64(key[8:]), stable: true}
}

func (x *hasher) of(key []byte) Hash {
	if !x.stable {
		return Hash{maphash.Bytes(x.hi, key), maphash.Bytes(x.lo, key)}
	}
	return sip(x.k0, x.k1, key)
}

// derive mixes a hash with what stands for a variant; it is as hard to foresee as of.
func (x *hasher) derive(h Hash, variant []byte) Hash {
	v := x.of(variant)
	return Hash{mix(h.hi, v.hi), mix(h.lo, v.lo)}
}

// mix is not symmetric, so that two variants of one another do not meet.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b|1)
	return hi ^ lo ^ bits.RotateLeft64(a, 23)
}

// sip is SipHash-2-4 with an output of 128 bits.
func sip(k0, k1 uint64, p []byte) Hash {
	s := sipState{k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d ^ 0xee, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573}
	last := uint64(len(p)) << 56
	for ; len(p) >= 8; p = p[8:] {
		s.word(binary.LittleEndian.Uint64(p))
	}
	for i, b := range p {
		last |= uint64(b) << (8 * i)
	}
	s.word(last)
	s.v2 ^= 0xee
	s.round()
	s.round()
	s.round()
	s.round()
	h := Hash{lo: s.v0 ^ s.v1 ^ s.v2 ^ s.v3}
	s.v1 ^= 0xdd
	s.round()
	s.round()
	s.round()
	s.round()
	h.hi = s.v0 ^ s.v1 ^ s.v2 ^ s.v3
	return h
}

type sipState struct{ v0, v1, v2, v3 uint64 }

func (s *sipState) word(m uint64) {
	s.v3 ^= m
	s.round()
	s.round()
	s.v0 ^= m
}

func (s *sipState) round() {
	s.v0 += s.v1
	s.v1 = bits.RotateLeft64(s.v1, 13) ^ s.v0
	s.v0 = bits.RotateLeft64(s.v0, 32)
	s.v2 += s.v3
	s.v3 = bits.RotateLeft64(s.v3, 16) ^ s.v2
	s.v0 += s.v3
	s.v3 = bits.RotateLeft64(s.v3, 21) ^ s.v0
	s.v2 += s.v1
	s.v1 = bits.RotateLeft64(s.v1, 17) ^ s.v2
	s.v2 = bits.RotateLeft64(s.v2, 32)
}
