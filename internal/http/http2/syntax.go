package http2

import "net/netip"

// What a byte may be part of.
const (
	isName    = 1 << iota // a field name: a token without upper case (RFC 9113 section 8.2.1)
	isToken               // RFC 9110 section 5.6.2
	isTarget              // a path: no control byte, no space, no "#"; bytes over 0x7f pass
	isRegName             // RFC 3986 section 3.2.2, without percent-encoding
	isHex
)

// chars holds the above for each byte, 32 a line.
var chars = [256]uint8{
	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	0, 15, 4, 3, 15, 7, 15, 15, 12, 12, 15, 15, 12, 15, 15, 4, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 4, 12, 4, 12, 4, 4,
	4, 30, 30, 30, 30, 30, 30, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 4, 4, 4, 7, 15,
	7, 31, 31, 31, 31, 31, 31, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 4, 7, 4, 15, 0,
	4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4,
	4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4,
	4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4,
	4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4,
}

// all says whether b is not empty and all its bytes may be part of what.
func all(b []byte, what uint8) bool {
	and := uint8(0xff)
	for _, c := range b {
		and &= chars[c]
	}
	return len(b) > 0 && and&what != 0
}

// validValue says whether v has no control byte but tab, and no space around it (RFC 9113
// section 8.2.1, RFC 9110 section 5.5).
func validValue(v []byte) bool {
	for _, c := range v {
		if c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	n := len(v)
	return n == 0 || v[0] > ' ' && v[n-1] > ' '
}

// decimal reads 1*DIGIT; false for anything else and for what 18 digits cannot hold.
func decimal(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// validAuthority says whether a is a host and perhaps a port, without userinfo (RFC 3986
// section 3.2), and whether it has a port.
func validAuthority(a []byte) (ok, port bool) {
	if len(a) > 0 && a[0] == '[' {
		for i, c := range a {
			if c == ']' {
				ip, err := netip.ParseAddr(string(a[1:i]))
				if err != nil || !ip.Is6() || ip.Zone() != "" {
					return false, false
				}
				return portOf(a[i+1:])
			}
		}
		return false, false
	}
	for i := 0; i < len(a); i++ {
		switch c := a[i]; {
		case chars[c]&isRegName != 0:
		case c == '%' && i+2 < len(a) && chars[a[i+1]]&isHex != 0 && chars[a[i+2]]&isHex != 0:
			i += 2
		case c == ':' && i > 0:
			if i > 255 {
				return false, false
			}
			return portOf(a[i:])
		default:
			return false, false
		}
	}
	return len(a) > 0 && len(a) <= 255, false
}

// portOf reads what follows a host: nothing, or a colon and a port.
func portOf(b []byte) (ok, port bool) {
	if len(b) == 0 {
		return true, false
	}
	if b[0] != ':' || len(b) < 2 || len(b) > 6 {
		return false, false
	}
	n, digits := decimal(b[1:])
	return digits && n <= 65535, true
}

func equalFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i, x := range a {
		y := b[i]
		if x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}
