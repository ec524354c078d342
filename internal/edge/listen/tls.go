package listen

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// selector chooses the certificate of a handshake.
type selector struct {
	certs []*certificate // in the order of the document
	ca    Authority      // not nil when certificates are made for the name asked for
	table atomic.Pointer[certTable]
}

// certTable finds certificates by name; wildcards are under what follows their star.
type certTable struct {
	exact, wildcard map[string][]*tls.Certificate
	first           []*tls.Certificate
}

// rebuild follows a change of the certificates.
func (s *selector) rebuild() {
	t := &certTable{exact: map[string][]*tls.Certificate{}, wildcard: map[string][]*tls.Certificate{}}
	for _, c := range s.certs {
		cert := c.current.Load()
		if cert == nil {
			continue
		}
		if t.first == nil {
			t.first = []*tls.Certificate{cert}
		}
		names := cert.Leaf.DNSNames
		if len(names) == 0 && len(cert.Leaf.IPAddresses) == 0 {
			names = []string{cert.Leaf.Subject.CommonName}
		}
		for _, n := range names {
			n = strings.ToLower(n)
			if rest, ok := strings.CutPrefix(n, "*."); ok {
				t.wildcard[rest] = append(t.wildcard[rest], cert)
			} else {
				t.exact[n] = append(t.exact[n], cert)
			}
		}
	}
	s.table.Store(t)
}

var errNoCertificate = errors.New("no certificate")

// get implements tls.Config.GetCertificate: by exact name, by wildcard, a new one from the
// internal CA where the listener has such, else the first.
func (s *selector) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	t := s.table.Load()
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if name != "" {
		if c := supported(t.exact[name], hello); c != nil {
			return c, nil
		}
		if _, parent, ok := strings.Cut(name, "."); ok {
			if c := supported(t.wildcard[parent], hello); c != nil {
				return c, nil
			}
		}
	}
	if s.ca != nil && (name != "" || len(t.first) == 0) {
		if c := s.issue(name, hello.Conn); c != nil {
			return c, nil
		}
	}
	if c := supported(t.first, hello); c != nil {
		return c, nil
	}
	return nil, errNoCertificate
}

// supported is the first that the client can use, else the first: it may take it anyhow.
func supported(certs []*tls.Certificate, hello *tls.ClientHelloInfo) *tls.Certificate {
	if len(certs) == 0 {
		return nil
	}
	if len(certs) > 1 {
		for _, c := range certs {
			if hello.SupportsCertificate(c) == nil {
				return c
			}
		}
	}
	return certs[0]
}

// issue makes a certificate for a name, or, without one, for this machine as it was reached.
func (s *selector) issue(name string, nc net.Conn) *tls.Certificate {
	if name != "" {
		if c, err := s.ca.Issue([]string{name}); err == nil {
			return c
		}
	}
	names := []string{"localhost", "127.0.0.1", "::1"}
	if nc != nil {
		if local := addrPortOf(nc.LocalAddr()).Addr(); local.IsValid() && !local.IsLoopback() && !local.IsUnspecified() {
			names = append(names, local.WithZone("").String())
		}
	}
	c, err := s.ca.Issue(names)
	if err != nil {
		return nil
	}
	return c
}

// addrPortOf takes a net.Addr as what it is, unmapped.
func addrPortOf(a net.Addr) netip.AddrPort {
	var p netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		p = a.AddrPort()
	case *net.UDPAddr:
		p = a.AddrPort()
	}
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

const (
	ticketLife = 12 * time.Hour
	ticketKeys = 3 // the newest seals, all open
)

// tickets are the keys that seal session tickets (RFC 8446 section 4.6.1). They outlive the
// tls.Config, so that a reload does not cost every visitor a full handshake.
type tickets struct {
	mu   sync.Mutex
	keys [][32]byte
	next time.Time
}

// turn makes a new key when it is time, and says so.
func (t *tickets) turn(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Before(t.next) {
		return false
	}
	var k [32]byte
	_, _ = rand.Read(k[:]) // crypto/rand ends the process rather than fail
	t.keys = append([][32]byte{k}, t.keys[:min(len(t.keys), ticketKeys-1)]...)
	t.next = now.Add(ticketLife)
	return true
}

func (t *tickets) apply(c *tls.Config) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.SetSessionTicketKeys(t.keys)
}

// tlsConfig is the listener's, for TCP. Key exchange is Go's own choice, which puts
// X25519MLKEM768 first.
func tlsConfig(minVersion string, protos []string, s *selector) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protos, GetCertificate: s.get}
	if minVersion == "1.3" {
		c.MinVersion = tls.VersionTLS13
	}
	return c
}

// The reasons of handshakes that fail, as counted.
const (
	failTimeout  = "timeout"
	failClosed   = "closed"     // by the client
	failPlain    = "plain_http" // HTTP in clear on a TLS port
	failProtocol = "protocol"   // no common ALPN protocol
	failTLS      = "tls"        // everything else
)

func failures() []string {
	return []string{failTimeout, failClosed, failPlain, failProtocol, failTLS}
}

// answerPlain tells a client that speaks HTTP in clear what is wrong.
const answerPlain = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: 67\r\n\r\n" +
	"This port speaks TLS. Use https:// in the address instead of http:\n"

// handshakeFailure names why a handshake failed, and answers where that helps.
func handshakeFailure(err error) string {
	var plain tls.RecordHeaderError
	var ne net.Error
	var alert tls.AlertError
	switch {
	case errors.As(err, &plain) && plain.Conn != nil:
		if h := string(plain.RecordHeader[:]); looksLikeHTTP(h) {
			_, _ = io.WriteString(plain.Conn, answerPlain)
			return failPlain
		}
	case errors.As(err, &ne) && ne.Timeout():
		return failTimeout
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return failClosed
	case errors.As(err, &alert):
		return failTLS
	case strings.Contains(err.Error(), "application protocol"): // crypto/tls has no sentinel for it
		return failProtocol
	}
	return failTLS
}

func looksLikeHTTP(h string) bool {
	switch h {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "PATCH", "DELET", "CONNE", "PRI *":
		return true
	}
	return false
}
