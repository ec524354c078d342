package std

// These rules stand here again, and not those of the syntax room: the twin that other protocols
// are held against shares no rule with them.

import (
	"net/netip"
	"strconv"
	"strings"
)

// ValidAuthority says whether s is a host and perhaps a port (RFC 3986 section 3.2, without
// user information; RFC 9110 section 4.2.3).
func ValidAuthority(s string) bool {
	if strings.HasPrefix(s, "[") {
		addr, port, ok := strings.Cut(s[1:], "]")
		if !ok || port != "" && port[0] != ':' {
			return false
		}
		a, err := netip.ParseAddr(addr)
		return err == nil && a.Is6() && a.Zone() == "" && validPort(port)
	}
	host, port := s, ""
	if i := strings.IndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i:]
	}
	if host == "" || len(host) > 255 {
		return false
	}
	for i := 0; i < len(host); i++ {
		switch b := host[i]; {
		case regName(b):
		case b == '%' && i+2 < len(host) && isHex(host[i+1]) && isHex(host[i+2]):
			i += 2
		default:
			return false
		}
	}
	return validPort(port)
}

// validPort takes a colon and a port of up to 65535, or nothing.
func validPort(s string) bool {
	if s == "" {
		return true
	}
	if len(s) > 6 || !digits(s[1:]) {
		return false
	}
	n, err := strconv.Atoi(s[1:])
	return err == nil && n <= 65535
}

func isHex(b byte) bool {
	return b >= '0' && b <= '9' || b|0x20 >= 'a' && b|0x20 <= 'f'
}

// regName is unreserved or sub-delims.
func regName(b byte) bool {
	return alnum(b) || strings.IndexByte("-._~!$&'()*+,;=", b) >= 0
}

func alnum(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
}

// validToken says whether s is a token (RFC 9110 section 5.6.2).
func validToken(s string) bool {
	for i := range len(s) {
		if b := s[i]; !alnum(b) && strings.IndexByte("!#$%&'*+-.^_`|~", b) < 0 {
			return false
		}
	}
	return s != ""
}

// validValue says whether s is without control bytes (RFC 9110 section 5.5).
func validValue(s string) bool {
	for i := range len(s) {
		if b := s[i]; b < ' ' && b != '\t' || b == 0x7f {
			return false
		}
	}
	return true
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != "" && len(s) <= 18
}
