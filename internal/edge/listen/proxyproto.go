package listen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
)

// The PROXY protocol, versions 1 and 2, as HAProxy's proxy-protocol.txt (2020) gives it.
const (
	proxyV1Prefix = "PROXY "
	proxyV1Max    = 107 // with CR LF
	proxyV2Prefix = "\r\n\r\n\x00\r\nQUIT\n"
	proxyV2Fixed  = 16
	// proxyV2Max bounds a header with its TLVs, which are not read.
	proxyV2Max = 4096
)

var (
	errProxyNone      = errors.New("no PROXY protocol header")
	errProxyMalformed = errors.New("malformed PROXY protocol header")
)

// proxyMatch is what the first bytes of a connection can be.
type proxyMatch uint8

const (
	proxyMore proxyMatch = iota // perhaps a header; more bytes decide
	proxyNo                     // not a header
	proxyYes                    // a header whose length is known
	proxyBad                    // a header that is malformed
)

// measureProxy finds out whether b begins with a header, and how long that is.
func measureProxy(b []byte) (n int, m proxyMatch) {
	if begins(b, proxyV2Prefix) {
		if len(b) < proxyV2Fixed {
			return 0, proxyMore
		}
		if n = proxyV2Fixed + int(binary.BigEndian.Uint16(b[14:])); b[12]>>4 != 2 || n > proxyV2Max {
			return 0, proxyBad
		}
		return n, proxyYes
	}
	if !begins(b, proxyV1Prefix) {
		return 0, proxyNo
	}
	line := b[:min(len(b), proxyV1Max)]
	if i := bytes.Index(line, []byte("\r\n")); i >= 0 {
		return i + 2, proxyYes
	}
	if len(line) == proxyV1Max {
		return 0, proxyBad
	}
	return 0, proxyMore
}

// begins says whether b begins with prefix, or is the beginning of it.
func begins(b []byte, prefix string) bool {
	n := min(len(b), len(prefix))
	return string(b[:n]) == prefix[:n]
}

// parseProxy reads a whole header. Both addresses are invalid when the header names none:
// the proxy's own checks (LOCAL), and families other than IP.
func parseProxy(b []byte) (src, dst netip.AddrPort, err error) {
	if bytes.HasPrefix(b, []byte(proxyV2Prefix)) && len(b) >= proxyV2Fixed {
		return parseProxyV2(b)
	}
	return parseProxyV1(b)
}

func parseProxyV1(b []byte) (src, dst netip.AddrPort, err error) {
	line, ok := bytes.CutSuffix(b, []byte("\r\n"))
	if !ok || len(b) > proxyV1Max || !bytes.HasPrefix(line, []byte(proxyV1Prefix)) {
		return src, dst, errProxyMalformed
	}
	line = line[len(proxyV1Prefix):]
	if bytes.Equal(line, []byte("UNKNOWN")) || bytes.HasPrefix(line, []byte("UNKNOWN ")) {
		return src, dst, nil
	}
	parts := bytes.Split(line, []byte(" "))
	if len(parts) != 5 {
		return src, dst, errProxyMalformed
	}
	var is4 bool
	switch string(parts[0]) {
	case "TCP4":
		is4 = true
	case "TCP6":
	default:
		return src, dst, errProxyMalformed
	}
	s, ok1 := proxyAddr(parts[1], is4)
	d, ok2 := proxyAddr(parts[2], is4)
	sp, ok3 := proxyPort(parts[3])
	dp, ok4 := proxyPort(parts[4])
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return src, dst, errProxyMalformed
	}
	return netip.AddrPortFrom(s, sp), netip.AddrPortFrom(d, dp), nil
}

func proxyAddr(b []byte, is4 bool) (netip.Addr, bool) {
	if is4 != (bytes.IndexByte(b, ':') < 0) {
		return netip.Addr{}, false
	}
	return parseIP(b)
}

func proxyPort(b []byte) (uint16, bool) {
	if len(b) == 0 || len(b) > 5 || len(b) > 1 && b[0] == '0' {
		return 0, false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return uint16(n), n <= 65535
}

func parseProxyV2(b []byte) (src, dst netip.AddrPort, err error) {
	body := b[proxyV2Fixed:]
	if b[12]>>4 != 2 || len(body) != int(binary.BigEndian.Uint16(b[14:])) {
		return src, dst, errProxyMalformed
	}
	switch b[12] & 0xf {
	case 0: // LOCAL
		return src, dst, nil
	case 1: // PROXY
	default:
		return src, dst, errProxyMalformed
	}
	size := 0
	switch b[13] >> 4 {
	case 1:
		size = 4
	case 2:
		size = 16
	case 0, 3: // unspecified, unix
		return src, dst, nil
	default:
		return src, dst, errProxyMalformed
	}
	if len(body) < 2*size+4 || b[13]&0xf > 2 {
		return src, dst, errProxyMalformed
	}
	at := func(i, port int) netip.AddrPort {
		a, _ := netip.AddrFromSlice(body[i : i+size])
		return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(body[port:]))
	}
	return at(0, 2*size), at(size, 2*size+2), nil
}

// readProxy takes the header off nc, and nothing behind it. It returns errProxyNone when the
// connection begins otherwise.
func readProxy(nc net.Conn) (src, dst netip.AddrPort, rest net.Conn, err error) {
	var buf [proxyV1Max]byte
	var n int
	var m proxyMatch
	_, rest, err = peek(nc, buf[:], func(b []byte) bool {
		n, m = measureProxy(b)
		return m != proxyMore
	})
	switch {
	case err != nil:
		return src, dst, rest, err
	case m == proxyNo:
		return src, dst, rest, errProxyNone
	case m != proxyYes:
		return src, dst, rest, errProxyMalformed
	}
	head := make([]byte, n)
	if _, err = io.ReadFull(rest, head); err != nil {
		return src, dst, rest, err
	}
	src, dst, err = parseProxy(head)
	return src, dst, rest, err
}
