package limits_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/relais-edge/relais/internal/bus"
	busproof "github.com/relais-edge/relais/internal/bus/bustest"
	"github.com/relais-edge/relais/internal/bus/limits"
	"github.com/relais-edge/relais/internal/bus/nats"
	"github.com/relais-edge/relais/internal/edge/ratelimit"
	"github.com/relais-edge/relais/internal/edge/ratelimit/bustest"
	"github.com/relais-edge/relais/internal/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// over proves the exchange over a bus, of which join gives an end.
func over(t *testing.T, join func(t *testing.T, pop string) bus.Bus) {
	n := 0
	bustest.Run(t, func(t *testing.T) (ratelimit.Bus, func()) {
		n++
		pop := fmt.Sprint("p", n)
		b := join(t, pop)
		busproof.Up(t, b)
		x, err := limits.Join(b, pop)
		if err != nil {
			t.Fatal(err)
		}
		return x, func() {
			if err := x.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestOverMemory(t *testing.T) {
	var m bus.Memory
	over(t, func(t *testing.T, pop string) bus.Bus {
		e := m.JoinAs(bus.PopRights(pop))
		t.Cleanup(func() { _ = e.Close() })
		return e
	})
}

func TestOverNATS(t *testing.T) {
	const domain = "relais.test"
	root, err := identity.NewRoot(domain, time.Now(), identity.RootLife)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := identity.NewIssuer(domain, root, time.Now(), identity.IssuerLife)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := identity.OpenCA(domain, issuer, nil)
	if err != nil {
		t.Fatal(err)
	}
	trust, err := identity.NewTrust(domain, root.Certificate, nil)
	if err != nil {
		t.Fatal(err)
	}
	certify := func(kind identity.Kind, name string) *identity.Credentials {
		key, csr, err := identity.NewRequest()
		if err != nil {
			t.Fatal(err)
		}
		issued, err := ca.Issue(csr, identity.Identity{Domain: domain, Kind: kind, Name: name}, 0)
		if err != nil {
			t.Fatal(err)
		}
		c := identity.NewCredentials(trust)
		if err := c.Set(issued.Chain, key); err != nil {
			t.Fatal(err)
		}
		return c
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	srv, err := nats.NewServer(nats.ServerOptions{Listen: "127.0.0.1:0", Credentials: certify(identity.Control, "c"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	over(t, func(t *testing.T, pop string) bus.Bus {
		e, err := nats.Dial(nats.DialOptions{
			Addresses: []string{srv.Addr().String()}, TLS: certify(identity.Pop, pop).TLS(identity.Any(identity.Control)),
			Rights: bus.PopRights(pop), Log: log,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.Close() })
		return e
	})
}

func TestABusThatEndsEndsTheExchange(t *testing.T) {
	var m bus.Memory
	e := m.JoinAs(bus.PopRights("paris"))
	x, err := limits.Join(e, "paris")
	if err != nil {
		t.Fatal(err)
	}
	batch := []ratelimit.Taken{{Key: 1, Count: 1, Requests: 1, Per: time.Second}}
	e.Cut()
	if err := x.Publish(t.Context(), batch); !errors.Is(err, bus.ErrAway) {
		t.Errorf("without a connection: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := x.Publish(t.Context(), batch); !errors.Is(err, ratelimit.ErrClosed) {
		t.Errorf("on a closed bus: %v", err)
	}
	if _, err := limits.Join(e, "paris"); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("join: %v", err)
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
}

func TestNonsenseIsCountedAndNotReceived(t *testing.T) {
	var m bus.Memory
	c, e := m.Join(), m.JoinAs(bus.PopRights("paris"))
	defer func() { _, _ = c.Close(), e.Close() }()
	x, err := limits.Join(e, "paris")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Publish("peer.rome.limits", []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	busproof.Until(t, "it is counted", func() bool { _, bad := x.Lost(); return bad == 1 })
}

func TestABatchIsReadAsItWasWritten(t *testing.T) {
	full := make([]ratelimit.Taken, ratelimit.MaxBatch)
	for i := range full {
		full[i] = ratelimit.Taken{Key: math.MaxUint64 - uint64(i), Count: math.MaxUint32, Requests: math.MaxUint32, Burst: math.MaxUint32, Per: math.MaxInt64}
	}
	b := limits.Append(nil, full)
	if got, err := limits.Decode(b); err != nil || !slices.Equal(got, full) {
		t.Errorf("%v", err)
	}
	if len(b) > bus.MaxData {
		t.Errorf("a full batch has %d bytes", len(b))
	}
	if _, err := limits.Decode(limits.Append(nil, append(full, full[0]))); !errors.Is(err, ratelimit.ErrTooMany) {
		t.Errorf("one more: %v", err)
	}
	for i := range b[:200] {
		if _, err := limits.Decode(b[:i]); err == nil {
			t.Errorf("cut off at %d: taken", i)
		}
	}
	one := limits.Append(nil, full[:1])
	for name, bad := range map[string][]byte{
		"more behind":    append(slices.Clone(one), 0),
		"version":        append([]byte{2}, one[1:]...),
		"a long varint":  {1, 0x81, 0x00},
		"a large number": append([]byte{1, 1, 0, 0, 0, 0, 0, 0, 0, 0}, 0xff, 0xff, 0xff, 0xff, 0x1f, 1, 1, 1),
	} {
		if _, err := limits.Decode(bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(limits.Append(nil, []ratelimit.Taken{{Key: 1, Count: 2, Requests: 3, Burst: 4, Per: time.Second}}))
	f.Add(limits.Append(nil, nil))
	f.Add([]byte{1, 0x80, 0x80, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		batch, err := limits.Decode(b)
		if err != nil {
			return
		}
		if again := limits.Append(nil, batch); !bytes.Equal(again, b) {
			t.Errorf("%x is read as %x", b, again)
		}
	})
}
