package edge

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/balance"
	"github.com/relais-edge/relais/internal/edge/l4"
	"github.com/relais-edge/relais/internal/edge/origin"
	"github.com/relais-edge/relais/internal/edge/proxyproto"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// servicePoolOf makes a pool of these tiers, each of one origin.
func servicePoolOf(t *testing.T, inFlight int, attempts int, origins ...string) (l4.Pool, *balance.Stage) {
	t.Helper()
	doc := &v1.OriginPool{Spec: v1.OriginPoolSpec{Algorithm: v1.First, Retries: v1.RetrySpec{Attempts: &attempts}}}
	for _, o := range origins {
		doc.Spec.Tiers = append(doc.Spec.Tiers, v1.Tier{Name: "t" + o[len(o)-1:], Capacity: v1.Capacity{InFlight: new(inFlight)}, Origins: []v1.Origin{{Address: o}}})
	}
	v1.Default(doc)
	reg := observe.New()
	o := origin.New(origin.Config{}, reg)
	b := balance.New(balance.Config{}, o, reg)
	p, err := servicePools{b, o}.Pool("default/p", &doc.Spec)
	if err != nil {
		t.Fatal(err)
	}
	return p, b
}

// acceptor takes connections and leaves them open.
func acceptor(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln.Addr().String()
}

// nobody is an address at which nobody is.
func nobody(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func inFlight(b *balance.Stage) (n int64) {
	for _, p := range b.Status() {
		for _, t := range p.Tiers {
			n += t.InFlight
		}
	}
	return n
}

func TestAServiceTriesAnotherOriginWhenOneCannotBeHad(t *testing.T) {
	from := &proxyproto.Header{Source: netip.MustParseAddrPort("192.0.2.1:1")}
	dead, live := nobody(t), acceptor(t)
	p, b := servicePoolOf(t, 0, 2, dead, live)
	var l l4.Link
	if err := p.Connect(t.Context(), "tcp", from, &l); err != nil || l.Origin != live || l.Tries != 2 || !l.Spilled {
		t.Fatalf("%+v %v", l, err)
	}
	if n := inFlight(b); n != 1 {
		t.Errorf("%d in flight, want 1", n)
	}
	_ = l.Conn.Close()
	l.Place.Release(false)
	if n := inFlight(b); n != 0 {
		t.Errorf("%d in flight after the end", n)
	}
}

func TestAServiceGivesUpAfterThePoolsAttempts(t *testing.T) {
	from := &proxyproto.Header{Source: netip.MustParseAddrPort("192.0.2.1:1")}
	for attempts, tries := range map[int]int{0: 1, 2: 3} {
		p, b := servicePoolOf(t, 0, attempts, nobody(t))
		var l l4.Link
		err := p.Connect(t.Context(), "tcp", from, &l)
		if e := stage.AsError(err); err == nil || e.Code != "connection_refused" || l.Tries != tries || l.Conn != nil || l.Place != nil {
			t.Errorf("%d attempts: %+v %v", attempts, l, err)
		}
		if n := inFlight(b); n != 0 {
			t.Errorf("%d in flight after a failure", n)
		}
	}
}

func TestAServiceWhosePoolIsFullRefuses(t *testing.T) {
	p, _ := servicePoolOf(t, 1, 2, acceptor(t))
	from := &proxyproto.Header{Source: netip.MustParseAddrPort("[2001:db8::1]:1")}
	var first, second l4.Link
	if err := p.Connect(t.Context(), "tcp", from, &first); err != nil {
		t.Fatal(err)
	}
	defer first.Conn.Close()
	if err := p.Connect(t.Context(), "tcp", from, &second); !errors.Is(err, balance.ErrFull) || second.Tries != 0 {
		t.Errorf("%+v %v", second, err)
	}
	first.Place.Release(false)
	if err := p.Connect(t.Context(), "tcp", from, &second); err != nil {
		t.Error(err)
	} else {
		_ = second.Conn.Close()
		second.Place.Release(false)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var third l4.Link
	if err := p.Connect(ctx, "tcp", from, &third); err == nil || third.Place != nil {
		t.Errorf("for a client that is gone: %+v %v", third, err)
	}
}
