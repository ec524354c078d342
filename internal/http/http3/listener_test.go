package http3

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
	"go.uber.org/goleak"

	"github.com/relais-edge/relais/internal/http/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// acceptor takes every connection.
type acceptor struct {
	set      Settings
	h        http.Handler
	own      *Server
	admitted atomic.Int64
	full     atomic.Bool
	verified atomic.Bool // the last that was admitted
	failed   sync.Map
	open     atomic.Int64
	total    atomic.Int64
	refuse   atomic.Bool
}

func (a *acceptor) Settings() *Settings { return &a.set }

func (a *acceptor) Admit(peer netip.AddrPort, verified bool) (func(Failure), bool) {
	if a.full.Load() || !peer.IsValid() {
		return nil, false
	}
	a.admitted.Add(1)
	a.verified.Store(verified)
	return func(f Failure) {
		a.admitted.Add(-1)
		if f != "" {
			a.failed.Store(string(f), true)
		}
	}, true
}

func (a *acceptor) Accept(peer, local netip.AddrPort, state *tls.ConnectionState) (*Service, func()) {
	if a.refuse.Load() || !peer.IsValid() || !local.IsValid() || state.NegotiatedProtocol != "h3" {
		return nil, nil
	}
	a.open.Add(1)
	a.total.Add(1)
	if a.own != nil {
		return &Service{Own: a.own, Facts: &message.Conn{Peer: peer, Local: local, Client: peer.Addr(), TLS: message.NewTLS(state)}}, func() { a.open.Add(-1) }
	}
	return &Service{Std: a.h}, func() { a.open.Add(-1) }
}

// selfSigned is a certificate for the host a.
func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serve runs a server and returns its address.
func serve(t testing.TB, a *acceptor) (*Listener, string) {
	t.Helper()
	a.set.TLS = TLSConfig(&tls.Config{Certificates: []tls.Certificate{selfSigned(t)}})
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewListener(pc.(*net.UDPConn), nil, a)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
		if n := a.open.Load(); n != 0 || s.Conns() != 0 {
			t.Errorf("%d connections are still open", n)
		}
	})
	return s, "https://" + pc.LocalAddr().String() + "/"
}

func client(t *testing.T) *http.Client {
	tr := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(func() { _ = tr.Close() })
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func fetch(t *testing.T, c *http.Client, url string) (string, error) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

func TestAConnectionIsClosedAfterItsRequests(t *testing.T) {
	a := &acceptor{h: http.HandlerFunc(hello), set: Settings{Streams: 10, Requests: 2}}
	_, url := serve(t, a)
	c := client(t)
	for range 2 {
		if b, err := fetch(t, c, url); b != "hello" {
			t.Fatal(b, err)
		}
	}
	for end := time.Now().Add(10 * time.Second); a.open.Load() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the connection is still open")
		}
	}
	if b, err := fetch(t, c, url); b != "hello" || a.total.Load() != 2 {
		t.Errorf("on another connection: %q %v, %d connections", b, err, a.total.Load())
	}
}

func TestDrainLetsRequestsEndAndRefusesConnections(t *testing.T) {
	in, gate := make(chan struct{}), make(chan struct{})
	a := &acceptor{set: Settings{Streams: 10}, h: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in <- struct{}{}
		<-gate
		hello(w, r)
	})}
	s, url := serve(t, a)
	c := client(t)
	type result struct {
		b   string
		err error
	}
	got := make(chan result, 1)
	go func() {
		b, err := fetch(t, c, url)
		got <- result{b, err}
	}()
	<-in
	s.Drain()
	begin := time.Now()
	if _, err := fetch(t, client(t), url); err == nil {
		t.Error("a new connection was taken")
	} else if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("the refusal took %v", d)
	}
	close(gate)
	if r := <-got; r.b != "hello" {
		t.Errorf("the request under way: %q %v", r.b, r.err)
	}
}

func TestARefusedConnectionIsClosed(t *testing.T) {
	a := &acceptor{h: http.HandlerFunc(hello), set: Settings{Streams: 10}}
	a.refuse.Store(true)
	_, url := serve(t, a)
	if b, err := fetch(t, client(t), url); err == nil {
		t.Errorf("got %q", b)
	}
}

func TestAltSvc(t *testing.T) {
	if got := AltSvc(8443); got != `h3=":8443"; ma=86400` {
		t.Error(got)
	}
}
