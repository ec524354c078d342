package l4

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/proxyproto"
)

// tell sends a datagram and returns the answer.
func tell(t *testing.T, nc net.Conn, send string) string {
	t.Helper()
	if _, err := io.WriteString(nc, send); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 65536)
	n, err := nc.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestUDPSessionsKeepTheirOrigin(t *testing.T) {
	b := newBed(t)
	s := serviceDoc("dns", "udp", free(t, "udp"), udpOrigin(t, "one "))
	b.apply(s)
	first, second := dial(t, "udp", s.Spec.Address), dial(t, "udp", s.Spec.Address)
	for _, text := range []string{"a", "", strings.Repeat("b", 60000)} {
		if got := tell(t, first, text); got != "one "+text {
			t.Errorf("got %.40q for %.40q", got, text)
		}
	}
	b.apply(serviceDoc("dns", "udp", s.Spec.Address, udpOrigin(t, "two ")))
	if got := tell(t, first, "x"); got != "one x" {
		t.Errorf("after a reload a session got %q", got)
	}
	if got := tell(t, second, "x"); got != "two x" {
		t.Errorf("a new session got %q", got)
	}
	if n := b.pools.places(); n != 2 {
		t.Errorf("%d places, want 2", n)
	}
}

func TestUDPSessionsEndWhenIdle(t *testing.T) {
	b := newBed(t)
	b.apply(serviceDoc("dns", "udp", "127.0.0.1:0", udpOrigin(t, ""), func(s *v1.ServiceSpec) { s.Idle = v1.Duration(time.Second) }))
	nc := dial(t, "udp", b.address("udp"))
	tell(t, nc, "hello")
	e := b.last(1)
	if e.Code != "" || e.Received != 5 || e.Sent != 5 || e.Proto != "udp" {
		t.Errorf("%+v", e)
	}
	if got := tell(t, nc, "again"); got != "again" {
		t.Errorf("a new session: %q", got)
	}
}

func TestUDPAnswersGoOnlyToALiveSession(t *testing.T) {
	b := newBed(t)
	origin, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer origin.Close()
	_ = origin.SetDeadline(time.Now().Add(10 * time.Second))
	b.apply(serviceDoc("a", "udp", "127.0.0.1:0", origin.LocalAddr().String()))
	nc := dial(t, "udp", b.address("udp"))
	_, _ = io.WriteString(nc, "x")
	buf := make([]byte, 10)
	_, from, err := origin.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	_, _ = stranger.WriteTo([]byte("from a stranger"), from)
	_, _ = origin.WriteTo([]byte("y"), from)
	if n, err := nc.Read(buf); err != nil || string(buf[:n]) != "y" {
		t.Errorf("got %q %v", buf[:n], err)
	}
	for _, e := range b.endpointsOf("udp") {
		e.endQuiet(b.clock()+int64(time.Hour), 24*time.Hour)
	}
	b.last(1)
	_, _ = origin.WriteTo([]byte("late"), from)
	_ = nc.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := nc.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the end got %q %v", buf[:n], err)
	}
}

func (b *bed) endpointsOf(network string) (out []*endpoint) {
	b.Manager.mu.Lock()
	defer b.Manager.mu.Unlock()
	for p, e := range b.endpoints {
		if p.network == network {
			out = append(out, e)
		}
	}
	return out
}

func TestUDPLimitsBySessionsAndAddress(t *testing.T) {
	b := newBed(t)
	b.apply(serviceDoc("a", "udp", "127.0.0.1:0", udpOrigin(t, ""), func(s *v1.ServiceSpec) { s.Limits.ConnectionsPerAddress = 2 }))
	for i := range 3 {
		nc := dial(t, "udp", b.address("udp"))
		if i < 2 {
			tell(t, nc, "x")
			continue
		}
		_, _ = io.WriteString(nc, "x")
		_ = nc.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the third: %v", err)
		}
	}
}

func TestUDPSessionOfAnOriginThatRefusesEnds(t *testing.T) {
	b := newBed(t)
	b.apply(serviceDoc("a", "udp", "127.0.0.1:0", free(t, "udp")))
	nc := dial(t, "udp", b.address("udp"))
	_, _ = io.WriteString(nc, "x")
	if e := b.last(1); e.Code != "connection_refused" {
		t.Errorf("%+v", e)
	}
}

func TestUDPSessionsFallSilentBeforeAServiceLeaves(t *testing.T) {
	b := newBed(t)
	b.apply(serviceDoc("a", "udp", "127.0.0.1:0", udpOrigin(t, "")))
	nc := dial(t, "udp", b.address("udp"))
	tell(t, nc, "x")
	b.apply()
	if got := tell(t, nc, "y"); got != "y" {
		t.Errorf("while it drains: %q", got)
	}
	if e := b.last(1); e.Code != "" || e.Received != 2 {
		t.Errorf("%+v", e)
	}
}

func TestEachDatagramCarriesTheClientWhereThePoolWantsIt(t *testing.T) {
	b := newBed(t)
	s := serviceDoc("a", "udp", "127.0.0.1:0", udpOrigin(t, ""))
	s.Pool.Connection.ProxyProtocol = "v2"
	b.apply(s)
	nc := dial(t, "udp", b.address("udp"))
	for _, text := range []string{"one", "two"} {
		got := []byte(tell(t, nc, text))
		n, m := proxyproto.Measure(got)
		if m != proxyproto.Yes || string(got[n:]) != text {
			t.Fatalf("%q", got)
		}
		h, err := proxyproto.Parse(got[:n])
		if err != nil || !h.Datagram || h.Source != nc.LocalAddr().(*net.UDPAddr).AddrPort() || h.Destination.String() != b.address("udp") {
			t.Errorf("%+v %v", h, err)
		}
	}
}

func TestAUDPAddressThatComesBackKeepsItsSocketAndSessions(t *testing.T) {
	b := newBed(t)
	s := serviceDoc("a", "udp", free(t, "udp"), udpOrigin(t, "one "))
	b.apply(s)
	nc := dial(t, "udp", s.Spec.Address)
	tell(t, nc, "x")
	b.apply()
	again := serviceDoc("b", "udp", s.Spec.Address, udpOrigin(t, "two "))
	b.apply(again)
	if got := tell(t, nc, "x"); got != "one x" {
		t.Errorf("the session: %q", got)
	}
	if got := tell(t, dial(t, "udp", s.Spec.Address), "x"); got != "two x" {
		t.Errorf("a new session: %q", got)
	}
}

// TestUDPAnswersComeFromTheAddressThatWasAsked needs a machine that has all of 127.0.0.0/8.
func TestUDPAnswersComeFromTheAddressThatWasAsked(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux is asked for the address")
	}
	for _, listen := range []string{"0.0.0.0:0", "[::]:0"} {
		b := newBed(t)
		b.apply(serviceDoc("a", "udp", listen, udpOrigin(t, "")))
		_, port, _ := net.SplitHostPort(b.address("udp"))
		for _, host := range []string{"127.0.0.1", "127.0.0.77", "::1"} {
			if strings.Contains(host, ":") && !strings.HasPrefix(listen, "[") {
				continue
			}
			nc := dial(t, "udp", net.JoinHostPort(host, port)) // takes answers from that address only
			if got := tell(t, nc, "x"); got != "x" {
				t.Errorf("%s: %q", host, got)
			}
		}
		b.pools.mu.Lock()
		var to []string
		for _, h := range b.pools.froms {
			to = append(to, h.Destination.Addr().String())
		}
		b.pools.mu.Unlock()
		slices.Sort(to)
		want := []string{"127.0.0.1", "127.0.0.77", "::1"}
		if !strings.HasPrefix(listen, "[") {
			want = want[:2]
		}
		if !slices.Equal(to, want) {
			t.Errorf("%s: sent to %v, want %v", listen, to, want)
		}
	}
}
