package packet

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// slowly finds the rule that decides on an address as the longest prefix says.
func slowly(list []*entry, a netip.Addr) (best *entry) {
	for _, e := range list {
		if e.Prefix.Contains(a) && (best == nil || e.Prefix.Bits() > best.Prefix.Bits()) {
			best = e
		}
	}
	return best
}

func TestIntervalsDecideAsTheLongestPrefixDoes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		seen := map[netip.Prefix]bool{}
		var list []*entry
		for range r.IntN(12) {
			// In one corner of the addresses, so that prefixes meet; and in the last one.
			a := netip.AddrFrom4([4]byte{255, 255, byte(254 + r.IntN(2)), byte(r.UintN(256))})
			p := netip.PrefixFrom(a, 20+r.IntN(13)).Masked()
			if seen[p] {
				continue
			}
			seen[p] = true
			act := Deny
			if r.IntN(3) == 0 {
				act = Allow
			}
			list = append(list, &entry{Rule: Rule{Prefix: p, Action: act, Until: time.Unix(int64(len(list)), 0)}})
		}
		all := spans(list)
		for i := range all {
			if all[i].last.Less(all[i].first) || i > 0 && !all[i-1].last.Less(all[i].first) {
				t.Fatalf("%v: intervals overlap or lie backwards: %v", list, all)
			}
		}
		for range 400 {
			a := netip.AddrFrom4([4]byte{255, 255, byte(252 + r.IntN(4)), byte(r.UintN(256))})
			var got *span
			for i := range all {
				if !a.Less(all[i].first) && !all[i].last.Less(a) {
					got = &all[i]
				}
			}
			want := slowly(list, a)
			if (got == nil) != (want == nil) || got != nil && (got.action != want.Action || !got.until.Equal(want.Until)) {
				t.Fatalf("%v: %v, want %v, of %v", a, got, want, all)
			}
		}
	}
}

func TestTheLastAddressOfAPrefix(t *testing.T) {
	for p, want := range map[string]string{"192.0.2.0/24": "192.0.2.255", "192.0.2.1/32": "192.0.2.1", "2001:db8::/47": "2001:db8:1:ffff:ffff:ffff:ffff:ffff", "240.0.0.0/4": "255.255.255.255"} {
		if got := lastOf(pfx(p)); got != netip.MustParseAddr(want) {
			t.Errorf("%s: %s, want %s", p, got, want)
		}
	}
}
