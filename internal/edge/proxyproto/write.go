package proxyproto

import (
	"encoding/binary"
	"net/netip"
	"strconv"
)

// AppendV1 appends h in version 1. What version 1 cannot say (UDP, addresses that are not known)
// becomes UNKNOWN.
func (h *Header) AppendV1(dst []byte) []byte {
	src, to, is4, ok := h.pair()
	if !ok || h.Datagram {
		return append(dst, "PROXY UNKNOWN\r\n"...)
	}
	if is4 {
		dst = append(dst, "PROXY TCP4 "...)
	} else {
		dst = append(dst, "PROXY TCP6 "...)
	}
	dst = append(src.AppendTo(dst), ' ')
	dst = append(to.AppendTo(dst), ' ')
	dst = strconv.AppendUint(dst, uint64(h.Source.Port()), 10)
	dst = strconv.AppendUint(append(dst, ' '), uint64(h.Destination.Port()), 10)
	return append(dst, '\r', '\n')
}

// AppendV2 appends h in version 2, with its TLVs and a checksum. A header without addresses is LOCAL.
func (h *Header) AppendV2(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, v2Prefix...)
	src, to, is4, ok := h.pair()
	switch {
	case !ok:
		return append(dst, 0x20, 0, 0, 0) // LOCAL, unspecified, nothing more
	case is4:
		dst = append(dst, 0x21, 0x11, 0, 0)
	default:
		dst = append(dst, 0x21, 0x21, 0, 0)
	}
	if h.Datagram {
		dst[start+13]++ // DGRAM in place of STREAM
	}
	dst = append(dst, src.AsSlice()...)
	dst = append(dst, to.AsSlice()...)
	dst = binary.BigEndian.AppendUint16(dst, h.Source.Port())
	dst = binary.BigEndian.AppendUint16(dst, h.Destination.Port())
	dst = appendTLV(dst, typeALPN, h.ALPN)
	dst = appendTLV(dst, typeAuthority, h.Authority)
	dst = appendTLV(dst, typeUniqueID, h.UniqueID[:min(len(h.UniqueID), 128)])
	dst = append(dst, typeCRC32C, 0, 4, 0, 0, 0, 0)
	binary.BigEndian.PutUint16(dst[start+14:], uint16(len(dst)-start-v2Fixed))
	sum := checksum(dst[start:], len(dst)-start-4)
	binary.BigEndian.PutUint32(dst[len(dst)-4:], sum)
	return dst
}

// maxTLV keeps what we write below MaxV2; names and protocols are far shorter.
const maxTLV = 1024

func appendTLV(dst []byte, typ byte, value string) []byte {
	if value == "" || len(value) > maxTLV {
		return dst
	}
	dst = binary.BigEndian.AppendUint16(append(dst, typ), uint16(len(value)))
	return append(dst, value...)
}

// pair is both addresses in one family: an IPv4 address beside an IPv6 one is written mapped.
func (h *Header) pair() (src, dst netip.Addr, is4, ok bool) {
	src, dst = h.Source.Addr().Unmap().WithZone(""), h.Destination.Addr().Unmap().WithZone("")
	if !src.IsValid() || !dst.IsValid() {
		return src, dst, false, false
	}
	if src.Is4() && dst.Is4() {
		return src, dst, true, true
	}
	return netip.AddrFrom16(src.As16()), netip.AddrFrom16(dst.As16()), false, true
}
