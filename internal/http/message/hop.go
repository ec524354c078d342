package message

// PerHop says whether a field is for one hop, or is framing that each hop writes anew (RFC 9110
// section 7.6.1).
func (id ID) PerHop() bool {
	switch id {
	case Connection, KeepAlive, ProxyConnection, TE, Trailer, TransferEncoding, Upgrade, ContentLength:
		return true
	}
	return false
}

// Collides says whether an unknown name with underscores is that of a framing, host or forwarding
// field to an origin that reads "_" as "-", as CGI does.
func Collides(name []byte) bool {
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
	switch KnownID(b[:len(name)]) {
	case ContentLength, TransferEncoding, ProxyConnection, ProxyAuthorization,
		XForwardedFor, XForwardedHost, XForwardedProto, XRealIP:
		return true
	}
	return false
}
