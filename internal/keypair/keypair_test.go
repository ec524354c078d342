package keypair

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
)

// made returns a certificate for name and its key, in PEM.
func made(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	priv, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: priv})
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFilesAreReadAndTheirChangeIsSeen(t *testing.T) {
	dir := t.TempDir()
	f := &v1.CertificateFiles{Certificate: filepath.Join(dir, "c.pem"), Key: filepath.Join(dir, "k.pem")}
	none := Stamp(f)
	if _, err := Read(f); err == nil || !strings.Contains(err.Error(), "check the path") {
		t.Errorf("no file: %v", err)
	}
	cert, key := made(t, "a.example")
	write(t, f.Certificate, cert)
	write(t, f.Key, key)
	first := Stamp(f)
	if first == none || first != Stamp(f) {
		t.Error("the stamp does not follow the files")
	}
	p, err := Read(f)
	if err != nil || p.Leaf.DNSNames[0] != "a.example" {
		t.Fatalf("%v, %v", p, err)
	}
	other, _ := made(t, "longer.example.com")
	write(t, f.Certificate, other)
	if Stamp(f) == first {
		t.Error("a new certificate has the stamp of the old one")
	}
	if _, err := Read(f); err == nil || !strings.Contains(err.Error(), f.Key) || !strings.Contains(err.Error(), "the leaf's") {
		t.Errorf("half of a new pair: %v", err)
	}
}

func TestWhatIsNoCertificateIsExplained(t *testing.T) {
	long := filepath.Join(t.TempDir(), "long")
	write(t, long, make([]byte, maxPEM+1))
	if _, err := ReadPEM(long); err == nil || !strings.Contains(err.Error(), "longer than 1048576 bytes") {
		t.Errorf("a long file: %v", err)
	}
	write(t, long, make([]byte, maxPEM))
	if b, err := ReadPEM(long); err != nil || len(b) != maxPEM {
		t.Errorf("a file as long as allowed: %d, %v", len(b), err)
	}
	cert, key := made(t, "a.example")
	if p, err := Parse(cert, key); err != nil || p.Leaf == nil {
		t.Errorf("a good pair: %v", err)
	}
	for _, bad := range [][2][]byte{{key, cert}, {nil, key}, {cert, nil}, {cert, []byte("x")}} {
		if _, err := Parse(bad[0], bad[1]); err == nil || !strings.Contains(err.Error(), "PEM without a password") {
			t.Errorf("%.20q, %.20q: %v", bad[0], bad[1], err)
		}
	}
}
