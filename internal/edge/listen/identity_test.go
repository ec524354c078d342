package listen

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
)

func newSerialForTest() *big.Int { return big.NewInt(time.Now().UnixNano()) }

// issuer is an authority of a test.
type issuer struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(t testing.TB, name string) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: newSerialForTest(), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	i := &issuer{t: t, key: key}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if i.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return i
}

func (i *issuer) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.cert.Raw}))
}

// leaf signs a certificate; change may alter it.
func (i *issuer) leaf(change func(*x509.Certificate)) *tls.Certificate {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: newSerialForTest(), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	change(c)
	der, err := x509.CreateCertificate(rand.Reader, c, i.cert, &key.PublicKey, i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, i.cert.Raw}, PrivateKey: key}
}

func withClients(mode, ca string) func(*v1.ListenerSpec) {
	return func(s *v1.ListenerSpec) {
		s.TLS = &v1.ListenerTLS{ClientAuth: &v1.ClientAuth{Mode: mode, CA: ca}}
		s.Protocols = []v1.Protocol{v1.ProtocolHTTP1, v1.ProtocolH2}
	}
}

func TestClientCertificatesAreVerified(t *testing.T) {
	r := newRig(t)
	good, bad := newIssuer(t, "good"), newIssuer(t, "bad")
	r.apply(listener("require", withClients("require", good.pem())), listener("ifgiven", withClients("verify-if-given", good.pem())))
	named := func(c *x509.Certificate) { c.Subject.CommonName = "client" }
	late := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	for _, c := range []struct {
		name, listener string
		cert           *tls.Certificate
		alert          string // what the client is told; empty when it is served
	}{
		{"the right authority", "require", good.leaf(named), ""},
		{"another authority", "require", bad.leaf(named), "unknown certificate authority"},
		{"an expired one", "require", good.leaf(late), "expired certificate"},
		{"none", "require", nil, "certificate required"},
		{"none, optional", "ifgiven", nil, ""},
		{"the right authority, optional", "ifgiven", good.leaf(named), ""},
		{"another authority, optional", "ifgiven", bad.leaf(named), "unknown certificate authority"},
	} {
		conf := &tls.Config{InsecureSkipVerify: true, ServerName: "a.example"}
		if c.cert != nil {
			conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.cert, nil }
		}
		nc, err := tls.Dial("tcp", r.addr(c.listener), conf)
		if err == nil {
			_, _ = io.WriteString(nc, "GET /a HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
			_, err = nc.Read(make([]byte, 100)) // in TLS 1.3 the alert comes after the client's handshake
			_ = nc.Close()
		}
		switch {
		case c.alert == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.alert != "" && (err == nil || !strings.Contains(err.Error(), c.alert)):
			t.Errorf("%s: got %v, want %q", c.name, err, c.alert)
		}
	}
	if got := r.metric(`relais_listener_handshake_failures_total{listener="demo/require",reason="client_certificate"}`); got != "3" {
		t.Errorf("failures counted: %s", got)
	}
}

func TestRFC9440TheVerifiedCertificateIsKept(t *testing.T) {
	i := newIssuer(t, "good")
	leaf := i.leaf(func(*x509.Certificate) {})
	c, err := x509.ParseCertificate(leaf.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	state := &tls.ConnectionState{ServerName: "Shop.Example.", Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{c}}
	if got := message.NewTLS(state); got.ClientCert != "" {
		t.Error("a certificate that was not verified is told")
	}
	state.VerifiedChains = [][]*x509.Certificate{{c, i.cert}}
	want := message.TLS{Version: tls.VersionTLS13, ServerName: "shop.example", ClientCert: ":" + base64.StdEncoding.EncodeToString(c.Raw) + ":"}
	got := message.NewTLS(state)
	if id := got.Identity; id == nil || id.Issuer != "CN=good" || len(id.Fingerprint) != 64 {
		t.Errorf("identity %+v", id)
	}
	want.Identity = got.Identity
	if *got != want {
		t.Errorf("got %+v", *got)
	}
}

// resumes says whether a session of one address is resumed at another.
func resumes(t *testing.T, first, second string) bool {
	t.Helper()
	c := &tls.Config{InsecureSkipVerify: true, ServerName: "a.example", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	resumed := false
	for _, addr := range []string{first, second} {
		nc, err := tls.Dial("tcp", addr, c)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(nc, "GET /a HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
		_, _ = nc.Read(make([]byte, 4096))
		resumed = nc.ConnectionState().DidResume
		_ = nc.Close()
	}
	return resumed
}

func TestEdgesThatShareTicketKeysResumeEachOthersSessions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	shared := func(s *v1.ListenerSpec) { s.TLS = &v1.ListenerTLS{TicketKeys: dir} }
	one, two, alone := newRig(t), newRig(t), newRig(t)
	one.apply(listener("a", shared))
	two.apply(listener("a", shared), listener("b", shared))
	alone.apply(listener("a", withTLS))
	if !resumes(t, one.addr("a"), two.addr("a")) {
		t.Error("the other edge does not know the session")
	}
	if resumes(t, one.addr("a"), two.addr("b")) {
		t.Error("another listener takes the session")
	}
	if resumes(t, one.addr("a"), alone.addr("a")) {
		t.Error("an edge without the keys takes the session")
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v %v", info, err)
	}
}

func TestSharedTicketKeysRotate(t *testing.T) {
	dir, now := t.TempDir(), time.Unix(1_800_000_000, 0)
	read := func(at time.Time) [][32]byte {
		t.Helper()
		keys, err := sharedKeys(dir, at)
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
	first := read(now)
	if len(first) != 1 || !slices.Equal(read(now.Add(time.Minute)), first) {
		t.Fatalf("%d keys at first", len(first))
	}
	slot := now.Truncate(ticketLife).Add(ticketLife) // Unix 0 is a multiple of 12 h, and so is this
	if ahead := read(slot.Add(-time.Minute)); len(ahead) != 2 || ahead[0] != first[0] {
		t.Error("the next key is not made ahead of its time, or seals before it")
	}
	second := read(slot.Add(time.Minute))
	if len(second) != 2 || second[1] != first[0] || second[0] == first[0] {
		t.Error("the new key does not seal, or the old one does not open")
	}
	for range 20 {
		slot = slot.Add(ticketLife)
		second = read(slot.Add(time.Minute))
	}
	if len(second) != ticketKeys || slices.Contains(second, first[0]) {
		t.Errorf("%d keys after ten days", len(second))
	}
	names, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(names) > 3*ticketKeys {
		t.Errorf("%d files stay", len(names))
	}
	for _, n := range names {
		if info, err := os.Stat(n); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", n, info.Mode(), err)
		}
	}
}

func TestBadTicketKeysDoNotStopAnEdge(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "40000.key"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sharedKeys(dir, time.Now()); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("got %v", err)
	}
	r := newRig(t)
	r.apply(listener("a", func(s *v1.ListenerSpec) { s.TLS = &v1.ListenerTLS{TicketKeys: dir} }))
	if !resumes(t, r.addr("a"), r.addr("a")) {
		t.Error("sessions are not resumed at all")
	}
}

func TestTheHybridKeyExchangeIsTaken(t *testing.T) {
	r := newRig(t)
	r.apply(listener("a", withTLS))
	for _, curve := range []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256} {
		nc, err := tls.Dial("tcp", r.addr("a"), &tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{curve}})
		if err != nil {
			t.Fatal(err)
		}
		if got := nc.ConnectionState().CurveID; got != curve {
			t.Errorf("asked for %v, got %v", curve, got)
		}
		_ = nc.Close()
	}
	for _, suite := range tls.InsecureCipherSuites() {
		nc, err := tls.Dial("tcp", r.addr("a"), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite.ID}})
		if err == nil {
			t.Errorf("%s was taken", suite.Name)
			_ = nc.Close()
		}
	}
}
