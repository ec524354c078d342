package syntax

import "net/netip"

// maxHost is the longest host, in bytes as they are sent: a name of the DNS is shorter.
const maxHost = 255

// Authority says whether a is a host and perhaps a port, without userinfo (RFC 3986 section
// 3.2): a reg-name, an IPv4 address, or an IPv6 address in brackets; the port, when its colon is
// there, is 0 to 65535. Port says whether it has one. An empty host is none.
func Authority(a []byte) (ok, port bool) {
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
		case Is(c, RegName):
		case c == '%' && i+2 < len(a) && Is(a[i+1], Hex) && Is(a[i+2], Hex):
			i += 2
		case c == ':' && i > 0 && i <= maxHost:
			return portOf(a[i:])
		default:
			return false, false
		}
	}
	return len(a) > 0 && len(a) <= maxHost, false
}

// portOf reads what follows a host: nothing, or a colon and a port.
func portOf(b []byte) (ok, port bool) {
	if len(b) == 0 {
		return true, false
	}
	if b[0] != ':' || len(b) < 2 || len(b) > 6 {
		return false, false
	}
	n, digits := Decimal(b[1:])
	return digits && n <= 65535, true
}
