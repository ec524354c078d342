package budget

import (
	"net/netip"
	"testing"
	"time"
)

func TestARateBoundsASourceAndNoOther(t *testing.T) {
	tb := New(8)
	now := time.Now()
	r := PerMinute(3)
	for i := range 5 {
		if got := tb.Take(1, r, now); got != (i < 3) {
			t.Errorf("take %d: %v", i, got)
		}
	}
	if !tb.Take(3, r, now) {
		t.Error("another source shares the bound")
	}
	if tb.Take(1, r, now.Add(19*time.Second)) || !tb.Take(1, r, now.Add(20*time.Second)) {
		t.Error("a third of the minute is not one more")
	}
	if !tb.Take(1, PerMinute(0), now) {
		t.Error("no bound bounds")
	}
}

func TestCreditIsSpentAfterTheRate(t *testing.T) {
	tb := New(1)
	now := time.Now()
	r := PerMinute(1)
	tb.Credit(1, 2, 3, now)
	tb.Credit(1, 2, 3, now)
	n := 0
	for range 10 {
		if tb.Take(1, r, now) {
			n++
		}
	}
	if n != 1+3 {
		t.Errorf("%d were taken, want the rate's one and three of credit", n)
	}
}

func TestAFullSetForgetsWhoIsNearestToItsWholeBudget(t *testing.T) {
	tb := New(1)
	now := time.Now()
	r := PerMinute(10)
	for i := range 10 {
		tb.Take(1, r, now)
		_ = i
	}
	for i := uint64(2); i < 200; i++ {
		tb.Take(i*2+1, r, now)
	}
	if tb.Take(1, r, now) {
		t.Error("a source at its bound was washed out by new ones")
	}
}

func TestPrefixes(t *testing.T) {
	tb := New(1)
	a := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	for _, c := range []struct {
		a, b             string
		address, network bool
	}{
		{"192.0.2.1", "192.0.2.1", true, true},
		{"192.0.2.1", "::ffff:192.0.2.1", true, true},
		{"192.0.2.1", "192.0.2.2", false, true},
		{"192.0.2.1", "192.0.3.1", false, false},
		{"2001:db8:1:2::1", "2001:db8:1:2:ffff::2", true, true},
		{"2001:db8:1:2::1", "2001:db8:1:3::1", false, true},
		{"2001:db8:1::1", "2001:db8:2::1", false, false},
		{"192.0.2.1", "c000:201::", false, false},
	} {
		if got := tb.Address(7, a(c.a)) == tb.Address(7, a(c.b)); got != c.address {
			t.Errorf("%s and %s are one address: %v", c.a, c.b, got)
		}
		if got := tb.Network(7, a(c.a)) == tb.Network(7, a(c.b)); got != c.network {
			t.Errorf("%s and %s are one network: %v", c.a, c.b, got)
		}
	}
	if tb.Address(1, a("192.0.2.1")) == tb.Address(2, a("192.0.2.1")) {
		t.Error("scopes share a budget")
	}
}

func TestTakeAllocatesNothing(t *testing.T) {
	tb := New(64)
	a, now, r := netip.MustParseAddr("192.0.2.1"), time.Now(), PerMinute(5)
	if n := testing.AllocsPerRun(100, func() { tb.Take(tb.Address(1, a), r, now); tb.Take(tb.Network(1, a), r, now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
