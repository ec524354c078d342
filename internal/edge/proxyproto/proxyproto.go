// Package proxyproto reads and writes the PROXY protocol, versions 1 and 2, as HAProxy's
// proxy-protocol.txt (2020) gives it: how a proxy tells the one behind it whose connection
// it carries.
package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"strings"
)

// Bounds of a header.
const (
	// MaxV1 is the longest line of version 1, CR LF included (section 2.1).
	MaxV1 = 107
	// MaxV2 bounds a header of version 2 with its TLVs. The protocol allows 65,551 bytes.
	MaxV2 = 4096

	v1Prefix = "PROXY "
	v2Prefix = "\r\n\r\n\x00\r\nQUIT\n"
	v2Fixed  = 16
)

// Why a header is refused. Errors wrap one of them.
var (
	ErrNone      = errors.New("no PROXY protocol header")
	ErrMalformed = errors.New("malformed PROXY protocol header")
	ErrChecksum  = errors.New("the PROXY protocol header's checksum does not fit")
)

// Types of TLV (section 2.2).
const (
	typeALPN      = 0x01
	typeAuthority = 0x02
	typeCRC32C    = 0x03
	typeUniqueID  = 0x05
)

// Header is what a header says. The zero Header is that of a proxy's own connection (LOCAL in
// version 2, UNKNOWN in version 1).
type Header struct {
	// Source and Destination are those of the connection that is carried, unmapped. Both are
	// invalid when the header names none: the proxy's own checks, and families other than IP.
	Source, Destination netip.AddrPort
	// Datagram says that it is UDP that is carried.
	Datagram bool
	// ALPN, Authority (the TLS server name) and UniqueID are TLVs of version 2; empty when absent.
	ALPN, Authority, UniqueID string
}

// Match is what the first bytes of a connection can be.
type Match uint8

// The matches.
const (
	More Match = iota // perhaps a header; more bytes decide
	No                // not a header
	Yes               // a header whose length is known
	Bad               // a header that is malformed
)

// Measure finds out whether b begins with a header, and how long that is. MaxV1 bytes decide.
func Measure(b []byte) (n int, m Match) {
	if begins(b, v2Prefix) {
		if len(b) < v2Fixed {
			return 0, More
		}
		if n = v2Fixed + int(binary.BigEndian.Uint16(b[14:])); b[12]>>4 != 2 || n > MaxV2 {
			return 0, Bad
		}
		return n, Yes
	}
	if !begins(b, v1Prefix) {
		return 0, No
	}
	line := b[:min(len(b), MaxV1)]
	if i := bytes.Index(line, []byte("\r\n")); i >= 0 {
		return i + 2, Yes
	}
	if len(line) == MaxV1 {
		return 0, Bad
	}
	return 0, More
}

// begins says whether b begins with prefix, or is the beginning of it.
func begins(b []byte, prefix string) bool {
	n := min(len(b), len(prefix))
	return string(b[:n]) == prefix[:n]
}

// Parse reads a header; b is the whole of it and nothing else.
func Parse(b []byte) (Header, error) {
	if bytes.HasPrefix(b, []byte(v2Prefix)) && len(b) >= v2Fixed {
		return parseV2(b)
	}
	return parseV1(b)
}

func parseV1(b []byte) (h Header, err error) {
	line, ok := bytes.CutSuffix(b, []byte("\r\n"))
	if !ok || len(b) > MaxV1 || !bytes.HasPrefix(line, []byte(v1Prefix)) {
		return h, ErrMalformed
	}
	text := string(line[len(v1Prefix):])
	if text == "UNKNOWN" || strings.HasPrefix(text, "UNKNOWN ") {
		return h, nil
	}
	parts := strings.Split(text, " ")
	if len(parts) != 5 || parts[0] != "TCP4" && parts[0] != "TCP6" {
		return h, ErrMalformed
	}
	is4 := parts[0] == "TCP4"
	src, ok1 := addrPort(parts[1], parts[3], is4)
	dst, ok2 := addrPort(parts[2], parts[4], is4)
	if !ok1 || !ok2 {
		return h, ErrMalformed
	}
	return Header{Source: src, Destination: dst}, nil
}

// addrPort reads an address of the family that the header names, and its port: no zones, no
// leading zeros.
func addrPort(addr, port string, is4 bool) (p netip.AddrPort, ok bool) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Zone() != "" || a.Is4() != is4 {
		return p, false
	}
	if len(port) == 0 || len(port) > 5 || len(port) > 1 && port[0] == '0' {
		return p, false
	}
	n := 0
	for _, c := range []byte(port) {
		if c < '0' || c > '9' {
			return p, false
		}
		n = n*10 + int(c-'0')
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), n <= 65535
}

func parseV2(b []byte) (h Header, err error) {
	body := b[v2Fixed:]
	if b[12]>>4 != 2 || len(b) > MaxV2 || len(body) != int(binary.BigEndian.Uint16(b[14:])) {
		return h, ErrMalformed
	}
	switch b[12] & 0xf {
	case 0: // LOCAL: what else it says is to be ignored
		return h, nil
	case 1: // PROXY
	default:
		return h, ErrMalformed
	}
	family, protocol := b[13]>>4, b[13]&0xf
	if family > 3 || protocol > 2 || family > 0 && protocol == 0 {
		return h, ErrMalformed
	}
	size := [...]int{0, 4, 16, 0}[family]
	switch {
	case family == 0: // unspecified: all that follows is to be ignored
		return h, nil
	case family == 3: // two paths of Unix sockets
		if len(body) < 216 {
			return h, ErrMalformed
		}
		body = body[216:]
	case len(body) < 2*size+4:
		return h, ErrMalformed
	default:
		at := func(i, port int) netip.AddrPort {
			a, _ := netip.AddrFromSlice(body[i : i+size])
			return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(body[port:]))
		}
		h.Source, h.Destination = at(0, 2*size), at(size, 2*size+2)
		h.Datagram = protocol == 2
		body = body[2*size+4:]
	}
	if err := h.tlvs(b, body); err != nil {
		return Header{}, err
	}
	return h, nil
}

// tlvs reads the TLVs, which are the end of the whole header b.
func (h *Header) tlvs(b, rest []byte) error {
	for len(rest) > 0 {
		if len(rest) < 3 || len(rest) < 3+int(binary.BigEndian.Uint16(rest[1:])) {
			return ErrMalformed
		}
		typ, value := rest[0], rest[3:3+int(binary.BigEndian.Uint16(rest[1:]))]
		at := len(b) - len(rest) + 3
		rest = rest[3+len(value):]
		switch typ {
		case typeALPN:
			h.ALPN = string(value)
		case typeAuthority:
			h.Authority = string(value)
		case typeUniqueID:
			if len(value) > 128 {
				return ErrMalformed
			}
			h.UniqueID = string(value)
		case typeCRC32C:
			if len(value) != 4 {
				return ErrMalformed
			}
			if checksum(b, at) != binary.BigEndian.Uint32(value) {
				return ErrChecksum
			}
		}
	}
	return nil
}

// checksum is the CRC32C of a header whose checksum is at b[at:], and counts as zeros (section 2.2.3).
func checksum(b []byte, at int) uint32 {
	t := crc32.MakeTable(crc32.Castagnoli)
	c := crc32.Update(0, t, b[:at])
	c = crc32.Update(c, t, []byte{0, 0, 0, 0})
	return crc32.Update(c, t, b[at+4:])
}
