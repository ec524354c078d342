package l4

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/proxyproto"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakePools dial the first origin of a pool's first tier.
type fakePools struct {
	mu    sync.Mutex
	held  int
	froms []proxyproto.Header
}

func (f *fakePools) Pool(_ bundle.Key, spec *v1.OriginPoolSpec) (Pool, error) {
	return &fakePool{f, spec.Tiers[0].Origins[0].Address}, nil
}

func (f *fakePools) places() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held
}

type fakePool struct {
	f       *fakePools
	address string
}

func (p *fakePool) Connect(ctx context.Context, network string, from *proxyproto.Header, l *Link) error {
	l.Tries, l.Tier, l.Origin = 1, "home", p.address
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, p.address)
	if err != nil {
		return &stage.Error{Code: "connection_refused", Side: stage.SideOrigin, Err: err}
	}
	p.f.mu.Lock()
	p.f.held++
	p.f.froms = append(p.f.froms, *from)
	p.f.mu.Unlock()
	l.Conn, l.Place = nc, &fakePlace{f: p.f}
	return nil
}

type fakePlace struct {
	f    *fakePools
	once sync.Once
}

func (p *fakePlace) Release(bool) {
	p.once.Do(func() {
		p.f.mu.Lock()
		p.f.held--
		p.f.mu.Unlock()
	})
}

// bed is a Manager at work.
type bed struct {
	*Manager
	t     testing.TB
	pools fakePools
	reg   *observe.Registry

	mu    sync.Mutex
	ended []Ended
}

func newBed(t testing.TB) *bed {
	b := &bed{t: t, reg: observe.New()}
	b.Manager = New(Config{Pools: &b.pools, Metrics: b.reg, Record: func(e *Ended) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.ended = append(b.ended, *e)
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := b.pools.places(); n != 0 {
			t.Errorf("%d places are still held", n)
		}
	})
	return b
}

// apply has the Manager serve these.
func (b *bed) apply(services ...bundle.Service) {
	b.t.Helper()
	if err := b.Apply(services, nil); err != nil {
		b.t.Fatal(err)
	}
}

// address is where the service of that key, or the one address there is, receives.
func (b *bed) address(network string) string {
	b.t.Helper()
	b.Manager.mu.Lock()
	defer b.Manager.mu.Unlock()
	for p, e := range b.endpoints {
		if p.network == network {
			return e.addr().String()
		}
	}
	b.t.Fatal("no endpoint")
	return ""
}

// last waits for the n-th connection's end.
func (b *bed) last(n int) Ended {
	b.t.Helper()
	var e Ended
	eventually(b.t, "a connection is written down", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.ended) < n {
			return false
		}
		e = b.ended[n-1]
		return true
	})
	return e
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// serviceDoc makes a bundle's Service with defaults.
func serviceDoc(name, protocol, address, origin string, change ...func(*v1.ServiceSpec)) bundle.Service {
	d := &v1.Service{Metadata: v1.Metadata{Name: name}, Spec: v1.ServiceSpec{Protocol: protocol, Address: address, Pool: "p-" + name}}
	for _, c := range change {
		c(&d.Spec)
	}
	v1.Default(d)
	p := &v1.OriginPool{Spec: v1.OriginPoolSpec{Tiers: []v1.Tier{{Origins: []v1.Origin{{Address: origin}}}}}}
	v1.Default(p)
	return bundle.Service{Key: bundle.NewKey("default", name), Spec: d.Spec, Pool: &p.Spec}
}

func hostnames(h ...string) func(*v1.ServiceSpec) {
	return func(s *v1.ServiceSpec) { s.Hostnames = h }
}

// tcpOrigin serves each connection with do.
func tcpOrigin(t testing.TB, network, address string, do func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err) // a machine without IPv6
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[nc] = true
			mu.Unlock()
			wg.Go(func() {
				defer nc.Close()
				do(nc)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for nc := range open {
			_ = nc.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

// echo answers with what it gets, after a greeting.
func echo(greeting string) func(net.Conn) {
	return func(nc net.Conn) {
		_, _ = io.WriteString(nc, greeting)
		_, _ = io.Copy(nc, nc)
		_ = closeWrite(nc)
	}
}

// udpOrigin answers each datagram with greeting and what it got.
func udpOrigin(t testing.TB, greeting string) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65536)
		for {
			n, from, err := pc.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = pc.WriteTo(append([]byte(greeting), buf[:n]...), from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = pc.Close()
		<-done
	})
	return pc.LocalAddr().String()
}

func dial(t testing.TB, network, address string) net.Conn {
	t.Helper()
	nc, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	return nc
}

// ask writes and reads what comes back until want is there.
func ask(t testing.TB, nc net.Conn, send, want string) {
	t.Helper()
	if _, err := io.WriteString(nc, send); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(nc, got); err != nil || string(got) != want {
		t.Fatalf("sent %q: got %q %v, want %q", send, got, err, want)
	}
}

var loopback = netip.MustParseAddr("127.0.0.1")

// free is an address of tcp or udp at which nobody listens.
func free(t *testing.T, network string) string {
	t.Helper()
	if network == "udp" {
		pc, err := net.ListenPacket(network, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		return pc.LocalAddr().String()
	}
	ln, err := net.Listen(network, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
