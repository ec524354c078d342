package flood

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// filter is a Denier that remembers.
type filter struct {
	list    map[netip.Prefix]time.Time
	refuses bool
}

func (f *filter) Propose(p netip.Prefix, until time.Time, reason string) error {
	if f.refuses || reason != denyReason {
		return errors.New("no")
	}
	f.list[p] = until
	return nil
}

func (f *filter) Withdraw(p netip.Prefix, _ string) bool {
	_, had := f.list[p]
	delete(f.list, p)
	return had
}

// guarded is an attacked bed with a packet filter. Send has an address send n requests.
func guarded(t *testing.T) (b *bed, f *filter, send func(from string, n int, bot bool, change func(*stage.Exchange))) {
	t.Helper()
	b = attacked(t, short())
	if st := b.Status("")[0]; st.Step != "drop" {
		t.Fatalf("%+v", st)
	}
	f = &filter{list: map[netip.Prefix]time.Time{}}
	b.cfg.Denier = f
	var x stage.Exchange
	var in message.Request
	rng := rand.New(rand.NewPCG(3, 4))
	return b, f, func(from string, n int, bot bool, change func(*stage.Exchange)) {
		for range n {
			b.request(&x, &in, rng, bot)
			x.Client = netip.MustParseAddr(from)
			in.Conn = &message.Conn{Peer: netip.AddrPortFrom(x.Client, 1)}
			change(&x)
			_, _ = b.Serve(context.Background(), &x, missing{b})
		}
	}
}

func asItIs(*stage.Exchange) {}

func TestWhoIsDroppedAgainAndAgainIsDeniedByThePacketFilter(t *testing.T) {
	b, f, send := guarded(t)
	one := netip.MustParsePrefix("192.0.2.7/32")
	send("192.0.2.7", denyAfter-1, true, asItIs)
	b.denials.tell(f, b.now)
	if len(f.list) != 0 {
		t.Fatalf("%v after %d requests", f.list, denyAfter-1)
	}
	send("192.0.2.7", 1, true, asItIs)
	send("2001:db8::1", denyAfter, true, asItIs)
	b.denials.tell(f, b.now)
	if len(f.list) != 2 || !f.list[one].Equal(b.now.Add(denyFor)) || f.list[netip.MustParsePrefix("2001:db8::/64")].IsZero() {
		t.Fatalf("%v", f.list)
	}
	if n := b.Status("")[0].Denied; n != 2 {
		t.Errorf("%d are shown", n)
	}
	if err := b.Unblock(netip.MustParsePrefix("192.0.2.0/24"), b.now, b.now.Add(time.Minute)); err != nil || len(f.list) != 1 {
		t.Errorf("unblock: %v, %v", err, f.list)
	}
	if err := b.Shield("demo/shop", "off", "", time.Now().Add(time.Minute)); err != nil || len(f.list) != 0 {
		t.Errorf("shield off: %v, %v", err, f.list)
	}
}

func TestADenialEndsByItself(t *testing.T) {
	b, f, send := guarded(t)
	send("192.0.2.7", denyAfter, true, asItIs)
	b.denials.tell(f, b.now)
	if b.denials.tell(f, b.now.Add(denyFor)); b.denials.count()["demo/shop"] != 0 {
		t.Error("it is shown after its end")
	}
}

func TestNobodyIsCutOffForWhatOthersDoBehindTheSameAddress(t *testing.T) {
	for what, before := range map[string]func(send func(string, int, bool, func(*stage.Exchange))){
		"a visitor with signed state": func(send func(string, int, bool, func(*stage.Exchange))) {
			send("192.0.2.7", 1, false, func(x *stage.Exchange) { x.Visitor = stage.Visitor{Class: stage.Protected, Key: 5} })
		},
		"visitors without": func(send func(string, int, bool, func(*stage.Exchange))) { send("192.0.2.7", 20, false, asItIs) },
		"a verified program": func(send func(string, int, bool, func(*stage.Exchange))) {
			send("192.0.2.7", 1, false, func(x *stage.Exchange) { x.Visitor.Bot = "search" })
		},
	} {
		b, f, send := guarded(t)
		before(send)
		send("192.0.2.7", 3*denyAfter, true, asItIs)
		if b.denials.tell(f, b.now); len(f.list) != 0 {
			t.Errorf("%s: %v", what, f.list)
		}
	}
}

func TestAProxyIsNotDenied(t *testing.T) {
	for what, change := range map[string]func(x *stage.Exchange){
		"a trusted one":           func(x *stage.Exchange) { x.PeerTrusted = true },
		"with the PROXY protocol": func(x *stage.Exchange) { x.In.Conn.Peer = netip.MustParseAddrPort("10.0.0.1:9") },
		"of no known peer":        func(x *stage.Exchange) { x.In.Conn = nil },
	} {
		b, f, send := guarded(t)
		send("192.0.2.7", 3*denyAfter, true, change)
		if b.denials.tell(f, b.now); len(f.list) != 0 {
			t.Errorf("%s: %v", what, f.list)
		}
	}
}

func TestDenialsAreBounded(t *testing.T) {
	b, f, send := guarded(t)
	for i := range 2 * denialsATick {
		b.denials.mu.Lock()
		full := len(b.denials.queue) > denialsATick
		b.denials.mu.Unlock()
		if full {
			t.Fatal("the queue is longer than its bound")
		}
		send(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}).String(), denyAfter, true, asItIs)
	}
	if b.denials.tell(f, b.now); len(f.list) > denialsATick || len(f.list) < denialsATick/2 {
		t.Errorf("%d in a tick", len(f.list))
	}
	f.refuses = true
	send("203.0.113.9", denyAfter, true, asItIs)
	if b.denials.tell(f, b.now); b.denials.count()["demo/shop"] != len(f.list) {
		t.Error("one that the filter refused is shown")
	}
}

func TestATickThatAnotherGoroutineIsAheadOfTakesNothing(t *testing.T) {
	var s sources
	for range 5 {
		s.see(77, 1000, false, false)
	}
	if before := s.see(77, 999, false, false); before.pages != 5 {
		t.Errorf("%d pages are left, want 5", before.pages)
	}
	for range 4 {
		if !s.take(78, 1000, 4, 5) {
			t.Fatal("no token")
		}
	}
	if !s.take(78, 999, 4, 5) || s.take(78, 999, 4, 5) {
		t.Error("tokens came or went")
	}
}
