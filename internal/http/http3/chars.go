package http3

import (
	"net/netip"

	"github.com/relais-edge/relais/internal/http/message"
)

// What a byte may be part of.
const (
	isName    = 1 << iota // RFC 9110 section 5.6.2 token, but no upper case (RFC 9114 section 4.2)
	isToken               // RFC 9110 section 5.6.2
	isTarget              // a request target: no control byte, no space, no "#"; bytes over 0x7f pass
	isRegName             // RFC 3986 section 3.2.2, without percent-encoding
	isValue               // a field value: no control byte but tab
	isHex
)

// chars holds the above for each byte.
var chars = makeChars()

func makeChars() *[256]uint8 {
	var t [256]uint8
	set := func(s string, is uint8) {
		for i := range len(s) {
			t[s[i]] |= is
		}
	}
	const lower, upper, digits = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
	set(lower+digits, isName|isToken|isRegName)
	set(upper, isToken|isRegName)
	set("!#$%&'*+-.^_`|~", isName|isToken)
	set("-._~!$&'()*+,;=", isRegName)
	set(digits+"abcdefABCDEF", isHex)
	for c := range 256 {
		if c > ' ' && c != 0x7f && c != '#' {
			t[c] |= isTarget
		}
		if c >= ' ' && c != 0x7f || c == '\t' {
			t[c] |= isValue
		}
	}
	return &t
}

func all(b []byte, is uint8) bool {
	for _, c := range b {
		if chars[c]&is == 0 {
			return false
		}
	}
	return true
}

// validValue says whether v is a field value: without control bytes, and no space at its ends.
func validValue(v []byte) bool {
	if len(v) == 0 {
		return true
	}
	if a, z := v[0], v[len(v)-1]; a == ' ' || a == '\t' || z == ' ' || z == '\t' {
		return false
	}
	return all(v, isValue)
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

// collides says whether a name with underscores is that of a framing, host or forwarding
// field to an origin that reads "_" as "-", as CGI does.
func collides(name []byte) bool {
	var b [32]byte
	if len(name) > len(b) {
		return false
	}
	under := false
	for i, c := range name {
		if c == '_' {
			c, under = '-', true
		}
		b[i] = c
	}
	if !under {
		return false
	}
	switch message.KnownID(b[:len(name)]) {
	case message.ContentLength, message.TransferEncoding, message.ProxyConnection, message.ProxyAuthorization,
		message.XForwardedFor, message.XForwardedHost, message.XForwardedProto, message.XRealIP:
		return true
	}
	return false
}

// authority says whether a is a host and perhaps a port, without userinfo (RFC 3986 section
// 3.2), and whether the port is there.
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
		case c == ':' && i > 0 && i <= 255:
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
	n, ok := decimal(b[1:])
	return ok && n <= 65535, true
}

func sameFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		if x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}
