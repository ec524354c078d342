package proxyproto

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	twin "github.com/pires/go-proxyproto"
)

// mapped is the IPv4 address 192.0.2.last in IPv6 form.
func mapped(last byte) []byte {
	a := netip.AddrFrom4([4]byte{192, 0, 2, last}).As16()
	return a[:]
}

func v2(cmd, fam byte, body ...byte) string {
	return v2Prefix + string([]byte{cmd, fam, byte(len(body) >> 8), byte(len(body))}) + string(body)
}

func TestParseProxy(t *testing.T) {
	v6 := append(bytes.Repeat([]byte{0x20}, 32), 0, 80, 1, 0xbb)
	for _, tc := range []struct{ name, in, src, dst, bad string }{
		{name: "v1 TCP4", in: "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", src: "192.0.2.1:56324", dst: "192.0.2.2:443"},
		{name: "v1 TCP6", in: "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", src: "[2001:db8::1]:1", dst: "[2001:db8::2]:65535"},
		{name: "v1 unknown", in: "PROXY UNKNOWN ffff::1 x y\r\n"},
		{name: "v1 unknown short", in: "PROXY UNKNOWN\r\n"},
		{name: "v1 wrong family", in: "PROXY TCP4 ::1 ::1 1 2\r\n", bad: "y"},
		{name: "v1 port", in: "PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n", bad: "y"},
		{name: "v1 leading zero", in: "PROXY TCP4 192.0.2.1 192.0.2.2 01 443\r\n", bad: "y"},
		{name: "v1 spaces", in: "PROXY TCP4  192.0.2.1 192.0.2.2 1 443\r\n", bad: "y"},
		{name: "v1 few", in: "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", bad: "y"},
		{name: "v1 name", in: "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", bad: "y"},
		{name: "v1 bare LF", in: "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", bad: "y"},
		{name: "v2 IPv4", in: v2(0x21, 0x11, 192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 0xbb), src: "192.0.2.1:80", dst: "192.0.2.2:443"},
		{name: "v2 IPv6", in: v2(0x21, 0x21, v6...), src: "[2020:2020:2020:2020:2020:2020:2020:2020]:80", dst: "[2020:2020:2020:2020:2020:2020:2020:2020]:443"},
		{name: "v2 with TLV", in: v2(0x21, 0x11, 192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 0xbb, 4, 0, 1, 9), src: "192.0.2.1:80", dst: "192.0.2.2:443"},
		{name: "v2 LOCAL", in: v2(0x20, 0)},
		{name: "v2 LOCAL with a family of its own", in: v2(0x20, 0x7f, 1, 2, 3)},
		{name: "v2 UDP", in: v2(0x21, 0x12, 192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 0xbb), src: "192.0.2.1:80", dst: "192.0.2.2:443"},
		{name: "v2 mapped", in: v2(0x21, 0x21, append(append(mapped(1), mapped(2)...), 0, 80, 1, 0xbb)...), src: "192.0.2.1:80", dst: "192.0.2.2:443"},
		{name: "v2 unix", in: v2(0x21, 0x31, make([]byte, 216)...)},
		{name: "v2 unix short", in: v2(0x21, 0x31, 1, 2, 3), bad: "y"},
		{name: "v2 unspecified", in: v2(0x21, 0, 1, 2, 3)},
		{name: "v2 broken TLV", in: v2(0x21, 0x11, 192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 0xbb, 4, 0, 2, 9), bad: "y"},
		{name: "v2 wrong checksum", in: v2(0x21, 0x11, 192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 0xbb, 3, 0, 4, 1, 2, 3, 4), bad: "y"},
		{name: "v2 short checksum", in: v2(0x21, 0x11, 192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 0xbb, 3, 0, 1, 1), bad: "y"},
		{name: "v2 unique id too long", in: v2(0x21, 0x11, append([]byte{192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 0xbb, 5, 0, 129}, make([]byte, 129)...)...), bad: "y"},
		{name: "v2 short", in: v2(0x21, 0x11, 192, 0, 2, 1), bad: "y"},
		{name: "v2 command", in: v2(0x22, 0x11, 192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 0xbb), bad: "y"},
		{name: "v2 version", in: v2(0x11, 0x11, 192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 0xbb), bad: "y"},
		{name: "v2 family", in: v2(0x21, 0x41), bad: "y"},
	} {
		n, m := Measure([]byte(tc.in + "GET / HTTP/1.1\r\n"))
		if m == Yes && n != len(tc.in) && tc.bad == "" {
			t.Errorf("%s: the header has %d bytes, measured %d", tc.name, len(tc.in), n)
		}
		h, err := Parse([]byte(tc.in))
		if tc.bad != "" {
			if err == nil && m == Yes {
				t.Errorf("%s: taken as %v", tc.name, h)
			}
			continue
		}
		want := func(s string) netip.AddrPort { a, _ := netip.ParseAddrPort(s); return a }
		if err != nil || m != Yes || h.Source != want(tc.src) || h.Destination != want(tc.dst) {
			t.Errorf("%s: %v %v %v %v", tc.name, h.Source, h.Destination, m, err)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\nGET / HTTP/1.1\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(v2(0x21, 0x11, 192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 0xbb)))
	f.Add([]byte(v2(0x20, 0)))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	full := Header{
		Source: netip.MustParseAddrPort("[2001:db8::1]:4711"), Destination: netip.MustParseAddrPort("[2001:db8::2]:443"),
		ALPN: "h2", Authority: "shop.example", UniqueID: "42",
	}
	f.Add(full.AppendV2(nil))
	f.Add(full.AppendV1(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, m := Measure(b)
		// What the first bytes decide, more bytes do not change.
		for i := 1; i < len(b) && i < 120; i++ {
			if n2, m2 := Measure(b[:i]); m2 != More && (m2 != m || n2 != n) {
				t.Fatalf("%d bytes say %d %d, all say %d %d", i, m2, n2, m, n)
			}
		}
		if m == Yes && n <= len(b) {
			h, err := Parse(b[:n])
			if err != nil && h != (Header{}) || h.Source.IsValid() != h.Destination.IsValid() {
				t.Fatalf("%+v %v", h, err)
			}
			if err != nil {
				stricter(t, b[:n], err)
			}
			if err == nil {
				agree(t, b[:n], h)
				again(t, h)
			}
		}
	})
}

// quirks are why the twin refuses what we take: a reason begins with what it says.
var quirks = []string{
	twin.ErrLineMustEndWithCrlf.Error() + ": UNKNOWN with LF in it; all before CR LF is to be ignored (section 2.1)",
	twin.ErrInvalidLength.Error() + ": an unspecified family, or LOCAL, with bytes behind it; they are to be ignored (section 2.2)",
	twin.ErrUnsupportedAddressFamilyAndProtocol.Error() + ": LOCAL with any family, which is to be ignored (section 2.2)",
}

// agree holds what was read against another reader of the same bytes.
func agree(t *testing.T, b []byte, h Header) {
	t.Helper()
	got, err := twin.Read(bufio.NewReader(bytes.NewReader(b)))
	if err != nil {
		if h.Source.IsValid() || !slices.ContainsFunc(quirks, func(q string) bool { return strings.HasPrefix(q, err.Error()+": ") }) {
			t.Fatalf("%q: %+v, the twin says %v", b, h, err)
		}
		return
	}
	if !h.Source.IsValid() {
		return
	}
	if src, dst := addrOf(got.SourceAddr), addrOf(got.DestinationAddr); src != h.Source || dst != h.Destination {
		t.Fatalf("%q: %v %v, the twin says %v %v", b, h.Source, h.Destination, src, dst)
	}
	tlvs, err := got.TLVs()
	if err != nil {
		t.Fatalf("%q: the twin finds bad TLVs: %v", b, err)
	}
	want := map[twin.PP2Type]string{}
	for _, v := range tlvs {
		want[v.Type] = string(v.Value)
	}
	if h.ALPN != want[twin.PP2_TYPE_ALPN] || h.Authority != want[twin.PP2_TYPE_AUTHORITY] || h.UniqueID != want[twin.PP2_TYPE_UNIQUE_ID] {
		t.Fatalf("%q: %+v, the twin says %v", b, h, want)
	}
}

// line is the form of version 1 (section 2.1).
var line = regexp.MustCompile(`^PROXY TCP[46] [0-9a-fA-F:.]+ [0-9a-fA-F:.]+ (0|[1-9][0-9]*) (0|[1-9][0-9]*)\r\n$`)

// stricter holds that we refuse what the twin takes for a reason that is named here.
func stricter(t *testing.T, b []byte, refused error) {
	t.Helper()
	got, err := twin.Read(bufio.NewReader(bytes.NewReader(b)))
	switch {
	case err != nil, errors.Is(refused, ErrChecksum):
	case got.Version == 1 && !line.Match(b): // it takes ports with leading zeros, zones, and words behind them
	case got.Version == 2 && got.SourceAddr == nil: // it takes families and protocols that nobody has assigned, for no address
	case got.Version == 2: // it reads TLVs when it is asked for them, and checks none of their sizes
		tlvs, err := got.TLVs()
		if err == nil && !slices.ContainsFunc(tlvs, wrongSize) {
			t.Fatalf("%q: we say %v, the twin has %+v", b, refused, got)
		}
	default:
		t.Fatalf("%q: we say %v, the twin has %+v", b, refused, got)
	}
}

func wrongSize(v twin.TLV) bool {
	return v.Type == twin.PP2_TYPE_CRC32C && len(v.Value) != 4 || v.Type == twin.PP2_TYPE_UNIQUE_ID && len(v.Value) > 128
}

func addrOf(a net.Addr) netip.AddrPort {
	var p netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		p = a.AddrPort()
	case *net.UDPAddr:
		p = a.AddrPort()
	}
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// again writes a header and reads it back in both versions.
func again(t *testing.T, h Header) {
	t.Helper()
	short := h
	for _, s := range []*string{&short.ALPN, &short.Authority, &short.UniqueID} {
		if len(*s) > maxTLV {
			*s = ""
		}
	}
	if got, err := Parse(short.AppendV2(nil)); err != nil || got != short && h.Source.IsValid() {
		t.Fatalf("version 2: wrote %+v, read %+v %v", short, got, err)
	}
	plain := Header{Source: h.Source, Destination: h.Destination}
	if h.Datagram {
		plain = Header{}
	}
	if got, err := Parse(h.AppendV1(nil)); err != nil || got != plain {
		t.Fatalf("version 1: wrote %+v, read %+v %v", plain, got, err)
	}
}

func TestWrittenHeadersAreReadByOthers(t *testing.T) {
	ap := netip.MustParseAddrPort
	for _, h := range []Header{
		{},
		{Source: ap("192.0.2.1:4711"), Destination: ap("192.0.2.2:443"), ALPN: "h2", Authority: "shop.example", UniqueID: "01"},
		{Source: ap("[2001:db8::1]:1"), Destination: ap("[2001:db8::2]:65535"), Authority: "shop.example"},
		{Source: ap("192.0.2.1:4711"), Destination: ap("[2001:db8::2]:443")},
		{Source: ap("[::ffff:192.0.2.1]:4711"), Destination: ap("192.0.2.2:443")},
		{Source: ap("[fe80::1%eth0]:4711"), Destination: ap("[fe80::2%eth0]:443")},
		{Source: ap("192.0.2.1:4711"), Destination: ap("192.0.2.2:53"), Datagram: true},
	} {
		for _, b := range [][]byte{h.AppendV1(nil), h.AppendV2(nil)} {
			n, m := Measure(append(bytes.Clone(b), "GET /"...))
			if n != len(b) || m != Yes {
				t.Errorf("%q: measured %d %d", b, n, m)
			}
			got, err := Parse(b)
			if err != nil {
				t.Fatalf("%q: %v", b, err)
			}
			agree(t, b, got)
		}
	}
}

func TestEveryBitOfAChecksummedHeaderCounts(t *testing.T) {
	h := Header{Source: netip.MustParseAddrPort("192.0.2.1:4711"), Destination: netip.MustParseAddrPort("192.0.2.2:443"), Authority: "shop.example"}
	good := h.AppendV2(nil)
	for i := v2Fixed; i < len(good); i++ {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		got, err := Parse(bad)
		if typ := i == len(good)-7; err == nil && !typ { // the checksum's own type turned into another's
			t.Errorf("byte %d: read %+v", i, got)
		} else if err != nil && !errors.Is(err, ErrChecksum) && !errors.Is(err, ErrMalformed) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
}
