package budget

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// network is the n-th of 256 IPv4 /24s.
func network(n int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(n), 1}) }

func TestAnIdIsGoodForItsFirstNetworksOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSpread(64, 4, 10*time.Minute)
		in := 0
		for n := range 120 {
			if s.Use(7, network(n), 0, time.Now()) {
				in++
			}
		}
		if in != 4 {
			t.Errorf("one id was used from %d networks", in)
		}
		for n := range 4 {
			if !s.Use(7, network(n), 0, time.Now()) {
				t.Errorf("the network %d, which was first, is refused", n)
			}
		}
		if !s.Use(8, network(100), 0, time.Now()) {
			t.Error("another id is refused")
		}
		if !s.Use(7, netip.MustParseAddr("198.18.0.200"), 0, time.Now()) {
			t.Error("a neighbour in a network that has used it is refused")
		}
	})
}

func TestATelephoneMayMoveOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSpread(64, 4, 10*time.Minute)
		for n := range 100 {
			if !s.Use(7, network(n), 0, time.Now()) {
				t.Fatalf("refused in its network %d", n)
			}
			time.Sleep(3 * time.Minute)
		}
		if s.Use(7, network(200), 0, time.Now()); !s.Use(7, network(99), 0, time.Now()) {
			t.Error("the network it was last in is refused")
		}
	})
}

func TestOnePlaceIsOneNetworkWithOneProgram(t *testing.T) {
	s, now := NewSpread(1, 1, time.Hour), time.Now()
	if !s.Use(1, network(1), 1, now) || s.Use(1, network(1), 2, now) || s.Use(1, network(2), 1, now) || !s.Use(1, network(1), 1, now) {
		t.Error("one place is not one network with one program")
	}
}

// TestAnIdThatIsUsedAllTheTimeIsNotWashedOut has others come in between.
func TestAnIdThatIsUsedAllTheTimeIsNotWashedOut(t *testing.T) {
	s, now := NewSpread(1, 4, 10*time.Minute), time.Now()
	in := 0
	for n := range 100 {
		now = now.Add(time.Second)
		if s.Use(7, network(n), 0, now) {
			in++
		}
		s.Use(uint64(1000+n), network(n), 0, now.Add(-500*time.Millisecond))
	}
	if in != 4 {
		t.Errorf("washed out: used from %d networks", in)
	}
}

func TestBindTellsNetworksAndProgramsApart(t *testing.T) {
	n, c := Bind(5, network(1), []byte("a"))
	if n2, c2 := Bind(5, netip.MustParseAddr("198.18.1.77"), []byte("a")); n2 != n || c2 != c {
		t.Error("a neighbour is another")
	}
	if n2, c2 := Bind(5, network(2), []byte("b")); n2 == n || c2 == c {
		t.Error("another network or program is the same")
	}
	if n2, c2 := Bind(6, network(1), []byte("a")); n2 == n || c2 == c {
		t.Error("two ids can be joined")
	}
}
