package netlab

import (
	"encoding/binary"
	"net/netip"
)

// broadcast is the limited broadcast address (RFC 919 section 7).
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// destination reads where an IP packet goes to (RFC 791 section 3.1, RFC 8200 section 3). It is false for what no
// kernel would send by itself: another version, or a length that is not that of the packet.
func destination(b []byte) (netip.Addr, bool) {
	if len(b) < 20 {
		return netip.Addr{}, false
	}
	switch b[0] >> 4 {
	case 4:
		header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
		if header < 20 || header > total || total != len(b) {
			return netip.Addr{}, false
		}
		return netip.AddrFrom4([4]byte(b[16:20])), true
	case 6:
		if len(b) < 40 || int(binary.BigEndian.Uint16(b[4:]))+40 != len(b) {
			return netip.Addr{}, false
		}
		return netip.AddrFrom16([16]byte(b[24:40])), true
	}
	return netip.Addr{}, false
}
