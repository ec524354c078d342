package ratelimit

import (
	"encoding/binary"
	"math/bits"
)

// sipHash is SipHash-2-4 (Aumasson and Bernstein, 2012): with a secret that only the edges know, nobody can make keys
// that meet.
func sipHash(k *[2]uint64, b []byte) uint64 {
	s := [4]uint64{k[0] ^ 0x736f6d6570736575, k[1] ^ 0x646f72616e646f6d, k[0] ^ 0x6c7967656e657261, k[1] ^ 0x7465646279746573}
	last := uint64(len(b)) << 56
	for ; len(b) >= 8; b = b[8:] {
		m := binary.LittleEndian.Uint64(b)
		s[3] ^= m
		sipRound(&s)
		sipRound(&s)
		s[0] ^= m
	}
	for i, c := range b {
		last |= uint64(c) << (8 * i)
	}
	s[3] ^= last
	sipRound(&s)
	sipRound(&s)
	s[0] ^= last
	s[2] ^= 0xff
	for range 4 {
		sipRound(&s)
	}
	return s[0] ^ s[1] ^ s[2] ^ s[3]
}

func sipRound(s *[4]uint64) {
	s[0] += s[1]
	s[1] = bits.RotateLeft64(s[1], 13) ^ s[0]
	s[0] = bits.RotateLeft64(s[0], 32)
	s[2] += s[3]
	s[3] = bits.RotateLeft64(s[3], 16) ^ s[2]
	s[0] += s[3]
	s[3] = bits.RotateLeft64(s[3], 21) ^ s[0]
	s[2] += s[1]
	s[1] = bits.RotateLeft64(s[1], 17) ^ s[2]
	s[2] = bits.RotateLeft64(s[2], 32)
}
