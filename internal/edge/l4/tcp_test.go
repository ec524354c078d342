package l4

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/proxyproto"
)

func TestTCPIsForwardedBothWaysWithHalfClose(t *testing.T) {
	b := newBed(t)
	// The origin speaks first, and answers only when the client has ended its side.
	origin := tcpOrigin(t, "tcp", "127.0.0.1:0", func(nc net.Conn) {
		_, _ = io.WriteString(nc, "220 ready\r\n")
		all, _ := io.ReadAll(nc)
		_, _ = nc.Write(bytes.ToUpper(all))
	})
	b.apply(serviceDoc("mail", "tcp", "127.0.0.1:0", origin))
	nc := dial(t, "tcp", b.address("tcp"))
	ask(t, nc, "", "220 ready\r\n")
	_, _ = io.WriteString(nc, "hello")
	_ = nc.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(nc); string(got) != "HELLO" || err != nil {
		t.Fatalf("%q %v", got, err)
	}
	e := b.last(1)
	if e.Received != 5 || e.Sent != 16 || e.Code != "" || e.Client != loopback || e.Tier != "home" || e.Origin != origin || e.Service != "default/mail" {
		t.Errorf("%+v", e)
	}
}

func TestALargeTransferIsWhole(t *testing.T) {
	b := newBed(t)
	data := make([]byte, 8<<20)
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(data)
	b.apply(serviceDoc("bulk", "tcp", "127.0.0.1:0", tcpOrigin(t, "tcp", "127.0.0.1:0", echo(""))))
	nc := dial(t, "tcp", b.address("tcp"))
	go func() {
		_, _ = nc.Write(data)
		_ = nc.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(nc)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d of %d bytes, %v", len(got), len(data), err)
	}
}

func TestIPv6ClientsAndOrigins(t *testing.T) {
	b := newBed(t)
	origin := tcpOrigin(t, "tcp6", "[::1]:0", echo("six "))
	b.apply(serviceDoc("six", "tcp", "[::]:0", origin, func(s *v1.ServiceSpec) { s.Limits.ConnectionsPerAddress = 1 }))
	_, port, _ := net.SplitHostPort(b.address("tcp"))
	for i, tc := range []struct{ dial, client string }{{"[::1]:", "::1"}, {"127.0.0.1:", "127.0.0.1"}} {
		nc := dial(t, "tcp", tc.dial+port)
		ask(t, nc, "hello", "six hello")
		_ = nc.Close()
		if e := b.last(i + 1); e.Client.String() != tc.client {
			t.Errorf("client is %s, want %s", e.Client, tc.client)
		}
	}
}

func TestLimitsCountAnIPv4AddressOrAnIPv6Network64(t *testing.T) {
	m := New(Config{})
	s := newService(m, "default/a")
	s.series = m.metrics.series("default/a")
	set := &settings{perAddress: 1}
	set.spec.Limits.Connections = 4
	enter := func(a string) (*connection, string) {
		c := &connection{s: s, set: set}
		c.Client = netip.MustParseAddr(a)
		return c, s.enter(c)
	}
	first, r := enter("2001:db8::1")
	if r != "" {
		t.Fatal(r)
	}
	for _, tc := range [][2]string{
		{"2001:db8::2", refuseAddress},
		{"2001:db8:0:1::1", ""},
		{"192.0.2.1", ""},
		{"192.0.2.1", refuseAddress},
		{"192.0.2.2", ""},
		{"192.0.2.3", refuseConnections},
	} {
		if _, r := enter(tc[0]); r != tc[1] {
			t.Errorf("%s: %q, want %q", tc[0], r, tc[1])
		}
	}
	s.exit(first)
	if _, r := enter("2001:db8::2"); r != "" {
		t.Errorf("after an end: %q", r)
	}
}

func TestAConnectionBeyondTheLimitIsRefusedAndTheOthersGoOn(t *testing.T) {
	b := newBed(t)
	b.apply(serviceDoc("a", "tcp", "127.0.0.1:0", tcpOrigin(t, "tcp", "127.0.0.1:0", echo("")), func(s *v1.ServiceSpec) { s.Limits.Connections = 1 }))
	first := dial(t, "tcp", b.address("tcp"))
	ask(t, first, "a", "a")
	if got := knock(b.address("tcp"), "x"); got != "" {
		t.Errorf("the second got %q", got)
	}
	ask(t, first, "b", "b")
	_ = first.Close()
	b.last(1)
	ask(t, dial(t, "tcp", b.address("tcp")), "c", "c")
}

func TestAnIdleConnectionEndsAndABusyOneDoesNot(t *testing.T) {
	for _, name := range []string{"system", "counted"} {
		t.Run(name, func(t *testing.T) {
			client, ours := tcpPair(t)
			origin, far := tcpPair(t)
			c := &connection{set: &settings{spec: v1.ServiceSpec{Idle: v1.Duration(300 * time.Millisecond)}}, client: ours}
			c.link.Conn = far
			if name == "counted" {
				c.client, c.link.Conn = &begun{Conn: ours}, &begun{Conn: far}
			}
			done := make(chan struct{})
			go func() { defer close(done); c.pipe(context.Background(), nil) }()
			begin := time.Now()
			for time.Since(begin) < 900*time.Millisecond {
				ask(t, client, "x", "")
				ask(t, origin, "", "x")
				time.Sleep(50 * time.Millisecond)
			}
			quiet := time.Now()
			<-done
			if d := time.Since(quiet); c.code != "idle" || d > 3*time.Second {
				t.Errorf("ended as %q after %s", c.code, d)
			}
		})
	}
}

func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = nc.Close(), other.Close() })
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	return nc.(*net.TCPConn), other.(*net.TCPConn)
}

func TestAnOriginThatCannotBeHadIsWrittenDown(t *testing.T) {
	b := newBed(t)
	b.apply(serviceDoc("a", "tcp", "127.0.0.1:0", free(t, "tcp")))
	nc := dial(t, "tcp", b.address("tcp"))
	if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	if e := b.last(1); e.Code != "connection_refused" || e.Cause == "" || e.Tries != 1 {
		t.Errorf("%+v", e)
	}
}

func TestProxyProtocolIn(t *testing.T) {
	mode := func(m string, trusted ...string) func(*v1.ServiceSpec) {
		return func(s *v1.ServiceSpec) {
			s.ClientAddress.ProxyProtocol, s.ClientAddress.TrustedProxies = m, trusted
			s.Hello = v1.Duration(300 * time.Millisecond)
		}
	}
	const v1Header = "PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n"
	h := proxyproto.Header{Source: netip.MustParseAddrPort("192.0.2.9:80"), Destination: netip.MustParseAddrPort("192.0.2.2:443"), Authority: "x"}
	v2Header := string(h.AppendV2(nil))
	bad := []byte(v2Header)
	bad[len(bad)-1] ^= 1
	for _, tc := range []struct {
		name, send, client string
		change             func(*v1.ServiceSpec)
	}{
		{"off", v1Header + "hello", "127.0.0.1", mode("off")},
		{"required", v1Header + "hello", "2001:db8::1", mode("required", "127.0.0.0/8")},
		{"required 2", v2Header + "hello", "192.0.2.9", mode("required", "127.0.0.1")},
		{"required, absent", "hello", "", mode("required", "127.0.0.0/8")},
		{"required, bad checksum", string(bad) + "hello", "", mode("required", "127.0.0.0/8")},
		{"required, nothing comes", "", "", mode("required", "127.0.0.0/8")},
		{"required, untrusted", v1Header + "hello", "", mode("required", "10.0.0.0/8")},
		{"optional", v1Header + "hello", "2001:db8::1", mode("optional", "127.0.0.0/8")},
		{"optional, absent", "hello", "127.0.0.1", mode("optional", "127.0.0.0/8")},
		{"optional, server first", "", "127.0.0.1", mode("optional", "127.0.0.0/8")},
		{"optional, untrusted", v1Header + "hello", "127.0.0.1", mode("optional", "10.0.0.0/8")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t)
			b.apply(serviceDoc("a", "tcp", "127.0.0.1:0", tcpOrigin(t, "tcp", "127.0.0.1:0", echo("> ")), tc.change))
			if tc.client == "" {
				if got := knock(b.address("tcp"), tc.send); got != "" {
					t.Errorf("got %q", got)
				}
				return
			}
			nc := dial(t, "tcp", b.address("tcp"))
			_, _ = io.WriteString(nc, tc.send)
			want := "> " + tc.send
			if tc.client != "127.0.0.1" {
				want = "> hello"
			}
			ask(t, nc, "", want)
			_ = nc.Close()
			if e := b.last(1); e.Client.String() != tc.client {
				t.Errorf("client is %s", e.Client)
			}
		})
	}
}

func TestAReloadKeepsConnectionsAndARemovalDrainsThem(t *testing.T) {
	b := newBed(t)
	one, two := tcpOrigin(t, "tcp", "127.0.0.1:0", echo("one ")), tcpOrigin(t, "tcp", "127.0.0.1:0", echo("two "))
	address := free(t, "tcp")
	drain := v1.Duration(300 * time.Millisecond)
	b.apply(serviceDoc("a", "tcp", address, one))
	first := dial(t, "tcp", address)
	ask(t, first, "x", "one x")
	b.apply(serviceDoc("a", "tcp", address, two, func(s *v1.ServiceSpec) { s.Drain = &drain }))
	second := dial(t, "tcp", address)
	ask(t, second, "y", "two y")
	ask(t, first, "z", "z")
	b.apply()
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("a service that is gone takes connections")
	}
	ask(t, first, "still", "still")
	if _, err := first.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the drain time: %v", err)
	}
	if e := b.last(1); e.Code != "drain" {
		t.Errorf("%+v", e)
	}
}

func TestDrainWaitsForWhatIsUnderWay(t *testing.T) {
	b := newBed(t)
	b.apply(serviceDoc("a", "tcp", "127.0.0.1:0", tcpOrigin(t, "tcp", "127.0.0.1:0", echo(""))))
	nc := dial(t, "tcp", b.address("tcp"))
	ask(t, nc, "x", "x")
	done := make(chan error, 1)
	go func() { done <- b.Drain(context.Background()) }()
	time.Sleep(50 * time.Millisecond)
	ask(t, nc, "y", "y")
	select {
	case err := <-done:
		t.Fatalf("the drain did not wait: %v", err)
	default:
	}
	_ = nc.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if e := b.last(1); e.Code != "" {
		t.Errorf("%+v", e)
	}
}

func TestABadChangeLeavesAllAsItWas(t *testing.T) {
	b := newBed(t)
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	good := serviceDoc("a", "tcp", free(t, "tcp"), tcpOrigin(t, "tcp", "127.0.0.1:0", echo("")))
	b.apply(good)
	bad := serviceDoc("b", "tcp", held.Addr().String(), "127.0.0.1:1")
	err = b.Apply([]bundle.Service{good, bad}, nil)
	if err == nil || !strings.Contains(err.Error(), "service default/b: cannot receive on "+held.Addr().String()) {
		t.Errorf("%v", err)
	}
	ask(t, dial(t, "tcp", good.Spec.Address), "x", "x")
}

func TestYieldFreesTheAddressAndApplyTakesItBack(t *testing.T) {
	b := newBed(t)
	s := serviceDoc("a", "tcp", free(t, "tcp"), tcpOrigin(t, "tcp", "127.0.0.1:0", echo("")))
	b.apply(s)
	nc := dial(t, "tcp", s.Spec.Address)
	ask(t, nc, "x", "x")
	b.Yield(map[string]bool{s.Spec.Address: true})
	ln, err := net.Listen("tcp", s.Spec.Address)
	if err != nil {
		t.Fatal(err)
	}
	ask(t, nc, "y", "y")
	_ = ln.Close()
	b.apply(s)
	ask(t, dial(t, "tcp", s.Spec.Address), "z", "z")
}

func TestManyConnectionsAtOnceLoseNothing(t *testing.T) {
	b := newBed(t)
	b.apply(serviceDoc("a", "tcp", "127.0.0.1:0", tcpOrigin(t, "tcp", "127.0.0.1:0", echo(""))))
	address := b.address("tcp")
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			nc, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			defer nc.Close()
			_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
			text := strings.Repeat("x", 1000)
			_, _ = io.WriteString(nc, text)
			_ = nc.(*net.TCPConn).CloseWrite()
			if got, err := io.ReadAll(nc); string(got) != text {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	b.last(50)
}

// knock sends something and returns all that comes back. A connection that is refused at once may be
// seen while dialling.
func knock(address, send string) string {
	nc, err := net.Dial("tcp", address)
	if err != nil {
		return ""
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(nc, send)
	got, err := io.ReadAll(nc)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "nothing for ten seconds"
	}
	return string(got)
}
