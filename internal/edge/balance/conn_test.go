package balance

import (
	"net/netip"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
)

func TestAConnectionHoldsItsPlaceUntilItsEnd(t *testing.T) {
	b := newBed(t, poolSpec(v1.RoundRobin, tierSpec("home", 1, 2, 0), tierSpec("next", 1, 0, 0)))
	client := netip.MustParseAddr("192.0.2.1")
	var held []Slot
	for _, want := range []string{"home", "home", "next"} {
		s, err := b.Place(client, &Tried{})
		if err != nil || s.Tier() != want {
			t.Fatalf("%s %v, want %s", s.Tier(), err, want)
		}
		s.Reached()
		held = append(held, s)
		client = client.Next() // a client stays where it was lately
	}
	held[0].Release(Abandoned)
	if st := b.status(); st.Tiers[0].InFlight != 1 || st.Tiers[1].InFlight != 1 {
		t.Errorf("after an end: %+v", st)
	}
}

func TestAnIPv6NetworkIsOneClientOfAHash(t *testing.T) {
	b := newBed(t, poolSpec(v1.ConsistentHash, tierSpec("home", 20, 0, 0)))
	at := func(a string) string {
		s, err := b.Place(netip.MustParseAddr(a), &Tried{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Release(Succeeded)
		return s.Address()
	}
	if a, c := at("2001:db8:0:1::1"), at("2001:db8:0:1:ffff::2"); a != c {
		t.Errorf("one /64 goes to %s and %s", a, c)
	}
	if a, c := at("192.0.2.1"), at("::ffff:192.0.2.1"); a != c {
		t.Errorf("one IPv4 address goes to %s and %s", a, c)
	}
	others := map[string]bool{}
	for _, a := range []string{"2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:0:3::1", "2001:db8:0:4::1", "192.0.2.1", "192.0.2.2"} {
		others[at(a)] = true
	}
	if len(others) < 2 {
		t.Errorf("all go to %v", others)
	}
}

func TestPlaceLeavesOutWhatWasTriedAndAllocatesNothing(t *testing.T) {
	b := newBed(t, poolSpec(v1.First, tierSpec("home", 2, 0, 0)))
	client := netip.MustParseAddr("2001:db8::1")
	var tried Tried
	first, err := b.Place(client, &tried)
	if err != nil {
		t.Fatal(err)
	}
	first.Release(Failed)
	tried.Add(&first)
	second, err := b.Place(client, &tried)
	if err != nil || second.Address() == first.Address() || second.Target().Address() != second.Address() {
		t.Errorf("%s, then %s %v", first.Address(), second.Address(), err)
	}
	second.Release(Abandoned)
	if n := testing.AllocsPerRun(100, func() {
		s, err := b.Place(client, &tried)
		if err != nil {
			t.Fatal(err)
		}
		s.Release(Succeeded)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRetriesOfConnectionsHaveTheBudgetOfThePool(t *testing.T) {
	b := newBed(t, poolSpec(v1.First, tierSpec("home", 1, 0, 0)))
	n := 0
	for b.Retry() {
		n++
	}
	if n != retryFloor || b.Attempts() != 2 {
		t.Errorf("%d retries at once, %d attempts", n, b.Attempts())
	}
	b.EndRetry()
	if !b.Retry() {
		t.Error("a retry that ended leaves no room")
	}
}
