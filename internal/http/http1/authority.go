package http1

import "net/netip"

// authority says whether a is a host and perhaps a port, without userinfo (RFC 3986 section
// 3.2): a reg-name, an IPv4 address, or an IPv6 address in brackets; the port, when its
// colon is there, is 0 to 65535. An empty host is none.
func authority(a []byte) (ok, port bool) {
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
	n := 0
	for _, c := range b[1:] {
		if !digit(c) {
			return false, false
		}
		n = n*10 + int(c-'0')
	}
	return n <= 65535, true
}
