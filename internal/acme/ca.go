// Package acme gets certificates: from ACME authorities (RFC 8555), and from the internal CA,
// which is a key pair in a directory of this machine.
package acme

import (
	"container/list"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	caLife    = 10 * 365 * 24 * time.Hour
	caRenew   = 30 * 24 * time.Hour // a CA certificate with less life left is made anew from its key
	leafLife  = 7 * 24 * time.Hour
	leafRenew = leafLife / 2
	backdate  = time.Hour // for clients whose clock is behind

	// maxLeaves bounds the leaf certificates kept; the one unused for the longest time goes first.
	maxLeaves = 1024
	// maxNames bounds the names of one leaf.
	maxNames = 100
)

// CA is the internal certificate authority. It is safe for concurrent use.
type CA struct {
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	now  func() time.Time

	mu     sync.Mutex
	leaves map[string]*list.Element // of *leaf
	recent *list.List               // the last used in front
}

type leaf struct {
	names string
	cert  *tls.Certificate
	renew time.Time
}

// OpenCA loads the CA that is kept in dir, or creates it: a P-256 key in ca-key.pem (mode
// 0600) and its certificate in ca.pem, valid for ten years. Several processes may open one
// directory at the same time; they get the same CA.
func OpenCA(dir string) (*CA, error) { return openCA(dir, time.Now) }

func openCA(dir string, now func() time.Time) (*CA, error) {
	ca := &CA{dir: dir, now: now, leaves: map[string]*list.Element{}, recent: list.New()}
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	if err := ca.loadKey(); err != nil {
		return nil, err
	}
	if err := ca.loadCert(); err != nil {
		return nil, err
	}
	return ca, nil
}

// CertPEM is the CA's certificate, for clients that shall trust it.
func (ca *CA) CertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// Issue returns a certificate for names: host names, wildcards of one label in front, or IP
// addresses. It is valid for seven days; the same one is returned until half of them are
// over. The caller does not change it.
func (ca *CA) Issue(names []string) (*tls.Certificate, error) {
	if len(names) == 0 || len(names) > maxNames {
		return nil, fmt.Errorf("a certificate needs 1 to %d names, not %d", maxNames, len(names))
	}
	names = slices.Clone(names)
	for i, n := range names {
		names[i] = strings.ToLower(strings.TrimSuffix(n, "."))
		if !validName(names[i]) {
			return nil, fmt.Errorf("%q is neither a host name nor an IP address; no certificate can be issued for it", n)
		}
	}
	id := strings.Join(names, " ")

	ca.mu.Lock()
	defer ca.mu.Unlock()
	now := ca.now()
	if e := ca.leaves[id]; e != nil {
		l := e.Value.(*leaf)
		if now.Before(l.renew) {
			ca.recent.MoveToFront(e)
			return l.cert, nil
		}
		ca.recent.Remove(e)
		delete(ca.leaves, id)
	}
	cert, err := ca.sign(names, now)
	if err != nil {
		return nil, fmt.Errorf("the internal CA in %s cannot sign a certificate for %s: %w", ca.dir, id, err)
	}
	if len(ca.leaves) >= maxLeaves {
		oldest := ca.recent.Back()
		ca.recent.Remove(oldest)
		delete(ca.leaves, oldest.Value.(*leaf).names)
	}
	ca.leaves[id] = ca.recent.PushFront(&leaf{id, cert, now.Add(leafRenew)})
	return cert, nil
}

func (ca *CA) sign(names []string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(leafLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if len(names[0]) <= 64 { // the upper bound of a common name (RFC 5280 appendix A)
		t.Subject = pkix.Name{CommonName: names[0]}
	}
	for _, n := range names {
		if a, err := netip.ParseAddr(n); err == nil {
			t.IPAddresses = append(t.IPAddresses, net.IP(a.AsSlice()))
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, ca.cert.Raw}, PrivateKey: key, Leaf: parsed}, nil
}

// selfSign makes the CA's certificate from its key. The subject names the key, so that two
// CAs in one trust store can be told apart.
func (ca *CA) selfSign() ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(&ca.key.PublicKey)
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(spki)
	now := ca.now()
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Relais"}, CommonName: "Relais internal CA " + hex.EncodeToString(id[:4])},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	return x509.CreateCertificate(rand.Reader, t, t, &ca.key.PublicKey, ca.key)
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

// validName says whether a certificate may be issued for n, which is in lower case.
func validName(n string) bool {
	if a, err := netip.ParseAddr(n); err == nil {
		return a.Zone() == ""
	}
	n, _ = strings.CutPrefix(n, "*.")
	if n == "" || len(n) > 253 {
		return false
	}
	for label := range strings.SplitSeq(n, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

var errNotPair = errors.New("the certificate does not belong to the key")
