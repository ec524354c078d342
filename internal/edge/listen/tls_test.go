package listen

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// leafFor does a handshake and returns the certificate that was shown and the protocol.
func (r *rig) leafFor(addr, name string, protos ...string) (*x509.Certificate, string) {
	r.t.Helper()
	nc, err := tls.Dial("tcp", addr, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: protos})
	if err != nil {
		r.t.Fatal(err)
	}
	defer nc.Close()
	s := nc.ConnectionState()
	return s.PeerCertificates[0], s.NegotiatedProtocol
}

// pemFor writes a certificate of the CA, and its key, as files.
func (r *rig) pemFor(dir string, names ...string) *v1.CertificateFiles {
	r.t.Helper()
	c, err := r.ca.Issue(names)
	if err != nil {
		r.t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		r.t.Fatal(err)
	}
	f := &v1.CertificateFiles{Certificate: filepath.Join(dir, "c.pem"), Key: filepath.Join(dir, "k.pem")}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
	for path, b := range map[string][]byte{f.Certificate: cert, f.Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
	return f
}

func TestInternalCertificates(t *testing.T) {
	r := newRig(t)
	r.apply(listener("a", withTLS))
	addr := r.addr("a")
	for _, tc := range []struct{ sni, good string }{
		{"", "localhost"}, // a client without SNI
		{"", "127.0.0.1"},
		{"shop.example", "shop.example"},
		{"Shop.Example", "shop.example"},
		{"not a name", "localhost"},
	} {
		leaf, _ := r.leafFor(addr, tc.sni)
		if err := leaf.VerifyHostname(tc.good); err != nil {
			t.Errorf("SNI %q: %v", tc.sni, err)
		}
	}
}

func TestCertificatesAreChosenBySNI(t *testing.T) {
	r := newRig(t)
	given := func(name string, names ...string) bundle.Certificate {
		return bundle.Certificate{Key: bundle.NewKey("demo", name), Spec: v1.CertificateSpec{Files: r.pemFor(t.TempDir(), names...)}}
	}
	l := listener("a", withTLS)
	l.Certificates = []bundle.Key{"demo/first", "demo/exact", "demo/wild", "demo/internal"}
	err := r.m.Apply([]bundle.Listener{l}, []bundle.Certificate{
		given("first", "first.example"), given("exact", "www.shop.example"), given("wild", "*.shop.example"),
		{Key: "demo/internal", Spec: v1.CertificateSpec{Internal: &v1.InternalCertificate{Hostnames: []string{"internal.example"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for sni, want := range map[string]string{
		"": "first.example", "unknown.example": "first.example", "www.shop.example": "www.shop.example",
		"m.shop.example": "*.shop.example", "a.b.shop.example": "first.example", "internal.example": "internal.example",
	} {
		if leaf, _ := r.leafFor(r.addr("a"), sni); leaf.DNSNames[0] != want {
			t.Errorf("SNI %q: got the certificate of %v, want %s", sni, leaf.DNSNames, want)
		}
	}
}

func TestALPNOffersTheProtocols(t *testing.T) {
	r := newRig(t)
	only := func(p ...v1.Protocol) func(*v1.ListenerSpec) {
		return func(s *v1.ListenerSpec) { s.TLS, s.Protocols = &v1.ListenerTLS{MinVersion: "1.3"}, p }
	}
	r.apply(listener("both", withTLS), listener("one", only(v1.ProtocolHTTP1)), listener("two", only(v1.ProtocolH2)))
	if _, p := r.leafFor(r.addr("both"), "", "h2", "http/1.1"); p != "h2" {
		t.Errorf("both: %q", p)
	}
	if _, p := r.leafFor(r.addr("one"), "", "h2", "http/1.1"); p != "http/1.1" {
		t.Errorf("one: %q", p)
	}
	nc, err := tls.Dial("tcp", r.addr("two"), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err == nil { // crypto/tls lets such clients pass, without a protocol
		defer nc.Close()
		if !closedUnserved(t, nc) {
			t.Error("two: http/1.1 was served")
		}
	}
	if _, err := tls.Dial("tcp", r.addr("one"), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 was taken below minVersion")
	}
	if got := r.metric(`relais_listener_connections_refused_total{listener="demo/two",reason="protocol"}`); got != "1" {
		t.Errorf("refused connections: %s", got)
	}
	if _, err := tls.Dial("tcp", r.addr("two"), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"spdy/1"}}); err == nil {
		t.Error("two: an unknown protocol was taken")
	}
	wait(t, func() bool {
		return r.metric(`relais_listener_handshake_failures_total{listener="demo/two",reason="protocol"}`) == "1"
	})
}

func TestChangedFilesAreReadAgainAndBadOnesAreNot(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	files := r.pemFor(dir, "old.example")
	l := listener("a", withTLS)
	l.Certificates = []bundle.Key{"demo/c"}
	if err := r.m.Apply([]bundle.Listener{l}, []bundle.Certificate{{Key: "demo/c", Spec: v1.CertificateSpec{Files: files}}}); err != nil {
		t.Fatal(err)
	}
	shown := func() string {
		leaf, _ := r.leafFor(r.addr("a"), "")
		return leaf.DNSNames[0]
	}
	if got := shown(); got != "old.example" {
		t.Fatal(got)
	}
	r.pemFor(dir, "new.example")
	wait(t, func() bool { return shown() == "new.example" })
	if err := os.WriteFile(files.Certificate, []byte("half a certif"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.m.tidy(time.Now())
	if got := shown(); got != "new.example" {
		t.Errorf("a bad file took the place of a good certificate: %s", got)
	}
}

func TestSessionsAreResumedAfterAReload(t *testing.T) {
	r := newRig(t)
	r.apply(listener("a", withTLS))
	c := &tls.Config{InsecureSkipVerify: true, ServerName: "a.example", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	dial := func() bool {
		nc, err := tls.Dial("tcp", r.addr("a"), c)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_, _ = nc.Write([]byte("GET /a HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"))
		_, _ = nc.Read(make([]byte, 4096)) // the ticket comes before the answer
		return nc.ConnectionState().DidResume
	}
	if dial() {
		t.Fatal("the first session was resumed")
	}
	r.apply(listener("a", withTLS, func(s *v1.ListenerSpec) { s.Limits.Streams = 5 }))
	if !dial() {
		t.Error("the session was not resumed")
	}
}

func TestPlainHTTPOnATLSPortIsToldSo(t *testing.T) {
	r := newRig(t)
	r.apply(listener("a", withTLS))
	got := r.raw(r.addr("a"), "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.HasSuffix(got, "Use https:// in the address instead of http:\n") {
		t.Errorf("got %q", got)
	}
}

func TestAltSvcNamesThePortOfHTTP3(t *testing.T) {
	r := newRig(t)
	r.apply(listener("a", withTLS), listener("b"))
	_, port, _ := strings.Cut(r.addr("a"), ":")
	if got, want := r.m.Listener("demo/a").AltSvc, `h3=":`+port+`"; ma=86400`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := r.m.Listener("demo/b").AltSvc; got != "" {
		t.Errorf("a listener in clear has Alt-Svc %q", got)
	}
}

func TestASlowHandshakeIsEnded(t *testing.T) {
	r := newRig(t)
	r.apply(listener("a", withTLS, func(s *v1.ListenerSpec) { s.Timeouts.Handshake = v1.Duration(100 * time.Millisecond) }))
	if got := r.raw(r.addr("a"), "\x16"); got != "" && !strings.Contains(got, "reset") {
		t.Errorf("got %q", got)
	}
	wait(t, func() bool {
		return r.metric(`relais_listener_handshake_failures_total{listener="demo/a",reason="timeout"}`) == "1"
	})
}
