package listen

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"slices"
	"strconv"
)

// ja4 is the fingerprint of a client's first words in TLS over TCP, as the JA4 specification of FoxIO writes it:
// t13d1516h2_8daaf6152771_e5627efa2ab1. It says which program speaks, not who. Crypto/tls tells all that it is made of; it tells
// neither the order of the extensions on the wire as JA4_o wants it nor compression methods. A session that is taken
// up again has one extension more, and so another fingerprint than the first one.
func ja4(h *tls.ClientHelloInfo) string {
	ciphers := hexList(h.CipherSuites, nil)
	all := len(without(h.Extensions, nil))
	b := make([]byte, 0, 36)
	b = append(b, 't')
	b = append(b, version(h.SupportedVersions)...)
	if slices.Contains(h.Extensions, 0) {
		b = append(b, 'd')
	} else {
		b = append(b, 'i')
	}
	b = twoDigits(b, len(without(h.CipherSuites, nil)))
	b = twoDigits(b, all)
	b = append(b, alpn(h.SupportedProtos)...)
	b = append(b, '_')
	b = appendHash(b, ciphers)
	b = append(b, '_')
	// The server's name and ALPN are counted and, as they change with the site, not hashed.
	list := hexList(h.Extensions, []uint16{0x0000, 0x0010})
	if len(h.SignatureSchemes) > 0 {
		list = append(list, '_')
		for i, s := range without(schemes(h.SignatureSchemes), nil) {
			if i > 0 {
				list = append(list, ',')
			}
			list = appendHex4(list, s)
		}
	}
	return string(appendHash(b, list))
}

func schemes(list []tls.SignatureScheme) []uint16 {
	out := make([]uint16, len(list))
	for i, s := range list {
		out[i] = uint16(s)
	}
	return out
}

// grease says whether a value is one that clients send to keep servers tolerant (RFC 8701).
func grease(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

// without copies a list without such values, and without those named.
func without(list, named []uint16) []uint16 {
	out := make([]uint16, 0, len(list))
	for _, v := range list {
		if !grease(v) && !slices.Contains(named, v) {
			out = append(out, v)
		}
	}
	return out
}

// hexList writes a list in order of size, as hexadecimal numbers of four digits with commas.
func hexList(list, but []uint16) []byte {
	l := without(list, but)
	slices.Sort(l)
	b := make([]byte, 0, 5*len(l)+1)
	for i, v := range l {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendHex4(b, v)
	}
	return b
}

func appendHex4(b []byte, v uint16) []byte { return hex.AppendEncode(b, []byte{byte(v >> 8), byte(v)}) }

// appendHash appends the first twelve digits of a SHA-256, or zeros for nothing.
func appendHash(b, list []byte) []byte {
	if len(list) == 0 {
		return append(b, "000000000000"...)
	}
	sum := sha256.Sum256(list)
	return hex.AppendEncode(b, sum[:6])
}

func twoDigits(b []byte, n int) []byte {
	n = min(n, 99)
	if n < 10 {
		b = append(b, '0')
	}
	return strconv.AppendInt(b, int64(n), 10)
}

func version(list []uint16) string {
	most := uint16(0)
	for _, v := range list {
		if !grease(v) {
			most = max(most, v)
		}
	}
	switch most {
	case tls.VersionTLS13:
		return "13"
	case tls.VersionTLS12:
		return "12"
	case tls.VersionTLS11:
		return "11"
	case tls.VersionTLS10:
		return "10"
	}
	return "00"
}

// alpn are the first and the last letter of the first protocol offered.
func alpn(protos []string) string {
	if len(protos) == 0 || protos[0] == "" {
		return "00"
	}
	first, last := protos[0][0], protos[0][len(protos[0])-1]
	if letter(first) && letter(last) {
		return string([]byte{first, last})
	}
	a, b := hex.EncodeToString([]byte{first}), hex.EncodeToString([]byte{last})
	return a[:1] + b[1:]
}

func letter(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// hello lets ACME authorities have their challenge, refuses names that no site has where the listener says so, and notes
// the fingerprint of a handshake under way.
func (s *selector) hello(h *tls.ClientHelloInfo) (*tls.Config, error) {
	if s.m.cfg.ACME != nil {
		if own, err := s.challenge(h); own != nil || err != nil {
			return own, err
		}
	}
	if s.refuse {
		if err := s.known(h); err != nil {
			return nil, err
		}
	}
	if c, ok := h.Conn.(*turnConn); ok { // QUIC comes by here too
		c.print = ja4(h)
	}
	return nil, nil
}
