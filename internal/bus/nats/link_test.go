package nats_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"testing"

	"github.com/relais-edge/relais/internal/identity"
)

// link carries connections to a server, until it is frozen: then it carries nothing and closes nothing.
type link struct {
	addr string

	mu     sync.Mutex
	frozen chan struct{} // closed while it flows
	ends   []net.Conn
	over   bool
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{addr: l.Addr().String(), frozen: make(chan struct{})}
	close(k.frozen)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil || !k.keep(in, out) {
				_ = in.Close()
				continue
			}
			all.Go(func() { k.carry(in, out) })
			all.Go(func() { k.carry(out, in) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		k.thaw()
		k.mu.Lock()
		k.over = true
		for _, c := range k.ends {
			_ = c.Close()
		}
		k.mu.Unlock()
		all.Wait()
	})
	return k
}

func (k *link) keep(conns ...net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ends = append(k.ends, conns...)
	if k.over {
		for _, c := range conns {
			_ = c.Close()
		}
	}
	return !k.over
}

func (k *link) carry(from, to net.Conn) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		k.mu.Lock()
		flows := k.frozen
		k.mu.Unlock()
		<-flows
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}

func (k *link) freeze() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.frozen = make(chan struct{})
}

func (k *link) thaw() {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.frozen:
	default:
		close(k.frozen)
	}
}

// stateOf is a connection on which these credentials are shown.
func stateOf(t *testing.T, c *identity.Credentials) tls.ConnectionState {
	t.Helper()
	cert, err := c.TLS(identity.Any()).GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	var s tls.ConnectionState
	for _, der := range cert.Certificate {
		x, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		s.PeerCertificates = append(s.PeerCertificates, x)
	}
	return s
}
