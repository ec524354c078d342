package access

import (
	"net/netip"
	"testing"
)

func FuzzNetwork(f *testing.F) {
	for _, s := range []string{"192.0.2.0/24", "::ffff:192.0.2.0/120", "2001:db8::/32", "::/0", "0.0.0.0/0", "1.2.3.4", "::1", "::ffff:0:0/95"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := network(s)
		if err != nil {
			return
		}
		if !p.IsValid() {
			t.Fatalf("%q gave no network and no error", s)
		}
		a := p.Masked().Addr()
		want := int16(0)
		if a.Is4In6() { // an IPv6 network wider than /96 holds no IPv4 address
			want = none
		}
		if got := newTable([][]netip.Prefix{{p}}).find(a); got != want {
			t.Fatalf("%q: the first address %s is in list %d, want %d", s, a, got, want)
		}
	})
}
