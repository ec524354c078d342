package listen

import (
	"crypto/tls"
	"testing"
)

// The example of the JA4 specification: a Chrome whose fingerprint is t13d1516h2_8daaf6152771_e5627efa2ab1.
func TestJA4IsThatOfTheSpecificationsExample(t *testing.T) {
	h := &tls.ClientHelloInfo{
		CipherSuites: []uint16{0xdada, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035},
		Extensions: []uint16{
			0xcaca, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x0015, 0xdada,
		},
		SignatureSchemes:  []tls.SignatureScheme{0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601},
		SupportedProtos:   []string{"h2", "http/1.1"},
		SupportedVersions: []uint16{0xbaba, 0x0304, 0x0303},
		ServerName:        "shop.test",
	}
	if got, want := ja4(h), "t13d1516h2_8daaf6152771_e5627efa2ab1"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, c := range []struct {
		change func(*tls.ClientHelloInfo)
		want   string
	}{
		{func(h *tls.ClientHelloInfo) { h.SupportedProtos = nil }, "t13d151600"},
		{func(h *tls.ClientHelloInfo) { h.SupportedProtos = []string{"\xab!"} }, "t13d1516a1"},
		{func(h *tls.ClientHelloInfo) { h.SupportedVersions = []uint16{0x0303} }, "t12d1516h2"},
		{func(h *tls.ClientHelloInfo) { h.Extensions = nil }, "t13i1500h2"},
		{func(h *tls.ClientHelloInfo) { h.CipherSuites = nil }, "t13d0016h2_000000000000"},
	} {
		d := *h
		c.change(&d)
		if got := ja4(&d); got[:len(c.want)] != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}
