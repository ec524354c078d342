package packet

import (
	"encoding/binary"
	"net/netip"
)

// frame builds what a network card would give: Ethernet, IP and what is above.
type frame struct {
	src, dst string
	proto    byte
	frag     uint16 // IPv4: the field with flags and offset
	options  []byte // IPv4
	ext      []byte // IPv6: extension headers; ext[0] of the last names proto
	next     byte   // IPv6: of the first extension header
	hops     byte
	vlans    int
	upper    []byte
	trim     int // bytes that are missing at the end
	claim    int // bytes more that the IP header claims
}

func (f frame) bytes() []byte {
	out := append([]byte{2, 0, 0, 0, 0, 1}, 2, 0, 0, 0, 0, 2)
	for range f.vlans {
		out = append(out, 0x81, 0, 0, 7)
	}
	src, dst := netip.MustParseAddr(f.src), netip.MustParseAddr(f.dst)
	if f.hops == 0 {
		f.hops = 64
	}
	if src.Is4() {
		out = append(out, 0x08, 0)
		h := make([]byte, 20, 60)
		h[0] = 0x40 | byte(5+len(f.options)/4)
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(f.options)+len(f.upper)+f.claim))
		binary.BigEndian.PutUint16(h[6:], f.frag)
		h[8], h[9] = f.hops, f.proto
		copy(h[12:], src.AsSlice())
		copy(h[16:], dst.AsSlice())
		h = append(h, f.options...)
		binary.BigEndian.PutUint16(h[10:], ^sum16(h))
		out = append(append(out, h...), f.upper...)
	} else {
		out = append(out, 0x86, 0xdd, 0x60, 0, 0, 0)
		out = binary.BigEndian.AppendUint16(out, uint16(len(f.ext)+len(f.upper)+f.claim))
		next := f.proto
		if len(f.ext) > 0 {
			next = f.next
		}
		out = append(out, next, f.hops)
		out = append(append(out, src.AsSlice()...), dst.AsSlice()...)
		out = append(append(out, f.ext...), f.upper...)
	}
	return out[:len(out)-f.trim]
}

// sum16 is the sum of the Internet's checksum (RFC 1071), not yet complemented.
func sum16(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(b[i]) << 8
		if i+1 < len(b) {
			s += uint32(b[i+1])
		}
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
	urg
)

func tcp(sport, dport uint16, flags byte) []byte {
	b := make([]byte, 24)
	binary.BigEndian.PutUint16(b, sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	binary.BigEndian.PutUint32(b[4:], 1000)
	b[12], b[13] = 6<<4, flags
	b[14] = 0xff
	copy(b[20:], []byte{2, 4, 5, 0xb4})
	return b
}

func udp(sport, dport uint16, size int) []byte {
	b := make([]byte, 8+size)
	binary.BigEndian.PutUint16(b, sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	binary.BigEndian.PutUint16(b[4:], uint16(8+size))
	return b
}

func patched(b []byte, at int, v ...byte) []byte {
	copy(b[at:], v)
	return b
}
