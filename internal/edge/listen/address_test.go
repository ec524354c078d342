package listen

import (
	"net/netip"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
)

// newFrom makes a request that came from peer with field lines name, value, name, value …
func newFrom(peer string, lines ...string) *message.Request {
	q := &message.Request{Conn: &message.Conn{Client: netip.MustParseAddr(peer)}}
	for i := 0; i < len(lines); i += 2 {
		q.AddLine([]byte(lines[i]), []byte(lines[i+1]))
	}
	return q
}

func TestClientIsTheLastAddressThatNoTrustedProxyHas(t *testing.T) {
	const proxy, visitor = "10.0.0.1", "198.51.100.7"
	for _, tc := range []struct {
		name, field, peer string
		lines             []string
		want              string
	}{
		{"direct", "X-Forwarded-For", visitor, nil, visitor},
		{"spoofed by an untrusted peer", "X-Forwarded-For", visitor, []string{"X-Forwarded-For", "1.1.1.1"}, visitor},
		{"through a proxy", "X-Forwarded-For", proxy, []string{"X-Forwarded-For", visitor}, visitor},
		{"spoofed before a proxy", "X-Forwarded-For", proxy, []string{"X-Forwarded-For", "1.1.1.1, " + visitor}, visitor},
		{"spoofed in a line of its own", "X-Forwarded-For", proxy, []string{"X-Forwarded-For", "1.1.1.1", "X-Forwarded-For", visitor}, visitor},
		{"through two proxies", "X-Forwarded-For", proxy, []string{"X-Forwarded-For", "1.1.1.1, " + visitor + ", 10.9.9.9"}, visitor},
		{"proxies only", "X-Forwarded-For", proxy, []string{"X-Forwarded-For", "10.0.0.3,10.0.0.2"}, "10.0.0.3"},
		{"garbage", "X-Forwarded-For", proxy, []string{"X-Forwarded-For", visitor + ", x"}, proxy},
		{"empty element", "X-Forwarded-For", proxy, []string{"X-Forwarded-For", visitor + ","}, proxy},
		{"absent", "X-Forwarded-For", proxy, nil, proxy},
		{"other field", "X-Forwarded-For", proxy, []string{"X-Real-IP", visitor}, proxy},
		{"port", "X-Forwarded-For", proxy, []string{"X-Forwarded-For", visitor + ":4711"}, visitor},
		{"IPv6", "X-Forwarded-For", proxy, []string{"X-Forwarded-For", "2001:db8::1"}, "2001:db8::1"},
		{"IPv6 with port", "X-Forwarded-For", proxy, []string{"X-Forwarded-For", "[2001:db8::1]:443"}, "2001:db8::1"},
		{"mapped", "X-Forwarded-For", proxy, []string{"X-Forwarded-For", "::ffff:198.51.100.7"}, visitor},
		{"mapped proxy", "X-Forwarded-For", proxy, []string{"X-Forwarded-For", visitor + ", ::ffff:10.0.0.2"}, visitor},
		{"zone", "X-Forwarded-For", proxy, []string{"X-Forwarded-For", "fe80::1%eth0"}, proxy},
		{"too many hops", "X-Forwarded-For", proxy, []string{"X-Forwarded-For", strings.Repeat("10.0.0.2,", 100) + "10.0.0.2"}, proxy},
		{"IPv6 proxy", "X-Forwarded-For", "2001:db8:ffff::1", []string{"X-Forwarded-For", visitor}, visitor},
		{"real IP", "X-Real-IP", proxy, []string{"X-Real-IP", visitor}, visitor},
		{"real IP twice", "X-Real-IP", proxy, []string{"X-Real-IP", visitor, "X-Real-IP", "1.1.1.1"}, proxy},
		{"real IP spoofed", "X-Real-IP", visitor, []string{"X-Real-IP", "1.1.1.1"}, visitor},
		{"forwarded", "Forwarded", proxy, []string{"Forwarded", "for=1.1.1.1;proto=http, by=x; For=\"" + visitor + ":80\""}, visitor},
		{"forwarded IPv6", "Forwarded", proxy, []string{"Forwarded", `for="[2001:db8::1]:443"`}, "2001:db8::1"},
		{"custom", "CF-Connecting-IP", proxy, []string{"cf-connecting-ip", visitor}, visitor},
		{"custom IPv6", "True-Client-IP", proxy, []string{"True-Client-IP", " 2001:db8::1 "}, "2001:db8::1"},
		{"custom from a stranger", "CF-Connecting-IP", "192.0.2.99", []string{"CF-Connecting-IP", visitor}, "192.0.2.99"},
		{"custom twice", "CF-Connecting-IP", proxy, []string{"CF-Connecting-IP", visitor, "CF-Connecting-IP", "1.1.1.1"}, proxy},
		{"custom list", "CF-Connecting-IP", proxy, []string{"CF-Connecting-IP", "1.1.1.1, " + visitor}, proxy},
		{"custom, another field", "CF-Connecting-IP", proxy, []string{"X-Forwarded-For", visitor}, proxy},
		{"custom, empty", "CF-Connecting-IP", proxy, []string{"CF-Connecting-IP", ""}, proxy},
		{"lower case", "x-forwarded-for", proxy, []string{"X-Forwarded-For", "1.1.1.1, " + visitor}, visitor},
		{"forwarded unknown", "Forwarded", proxy, []string{"Forwarded", "for=unknown"}, proxy},
		{"forwarded obfuscated", "Forwarded", proxy, []string{"Forwarded", "for=_hidden"}, proxy},
		{"forwarded quoted comma", "Forwarded", proxy, []string{"Forwarded", `for="1.1.1.1, for=2.2.2.2"`}, proxy},
	} {
		trusted, err := newRanges([]string{"10.0.0.0/8", "10.1.0.0/16", "2001:db8:ffff::/48", "192.168.1.1"})
		if err != nil {
			t.Fatal(err)
		}
		a := &Active{trusted: trusted, source: sourceOf(tc.field), Spec: &v1.ListenerSpec{ClientAddress: v1.ClientAddress{Field: tc.field}}}
		q := newFrom(tc.peer, tc.lines...)
		if got := a.Client(q).String(); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
		if n := testing.AllocsPerRun(100, func() { a.Client(q) }); n != 0 {
			t.Errorf("%s: %v allocations", tc.name, n)
		}
	}
}

func TestRangesHoldNestedPrefixes(t *testing.T) {
	rs, err := newRanges([]string{"10.1.0.0/16", "10.3.0.0/16", "10.0.0.0/8", "::ffff:192.0.2.0/120", "2001:db8::/33", "0.0.0.0/32"})
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{
		"9.255.255.255": false, "10.0.0.0": true, "10.2.0.1": true, "10.3.255.255": true, "10.200.0.1": true, "10.255.255.255": true,
		"11.0.0.0": false, "192.0.2.255": true, "192.0.3.0": false, "2001:db8::": true, "2001:db8:7fff:ffff::1": true,
		"2001:db8:8000::": false, "0.0.0.0": true, "0.0.0.1": false, "255.255.255.255": false, "::": false,
	} {
		if got := rs.contains(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	if len(rs) != 4 {
		t.Errorf("%d ranges, want 4: %v", len(rs), rs)
	}
}

func FuzzParseIPAgreesWithNetip(f *testing.F) {
	for _, s := range []string{
		"1.2.3.4", "01.2.3.4", "1.2.3", "256.1.1.1", "::", "::1", "1::", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::1.2.3.4",
		"::ffff:1.2.3.4", "1::2::3", "1:2:3:4:5:6:1.2.3.4", "12345::", ":1", "1:", "fe80::1%a", "", ":::", "1:2:3:4:5:6:7:8:9",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := netip.ParseAddr(s)
		got, ok := parseIP([]byte(s))
		if ok != (err == nil && want.Zone() == "") || ok && got != want.Unmap() {
			t.Errorf("%q: %v %v, netip: %v %v", s, got, ok, want, err)
		}
	})
}

func FuzzClient(f *testing.F) {
	f.Add("1.1.1.1, 10.0.0.1", uint8(0))
	f.Add(`for="[::1]:80";by=x,for=10.0.0.1`, uint8(2))
	f.Fuzz(func(t *testing.T, value string, field uint8) {
		trusted, _ := newRanges([]string{"10.0.0.0/8"})
		a := &Active{trusted: trusted, source: source(field % 3)}
		names := []string{"X-Forwarded-For", "X-Real-IP", "Forwarded"}
		got := a.Client(newFrom("10.0.0.1", names[field%3], value))
		if !got.IsValid() || got.Is4In6() || got.Zone() != "" {
			t.Errorf("%q: %v", value, got)
		}
	})
}
