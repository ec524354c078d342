package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"
)

// Lives and bounds of certificates.
const (
	RootLife   = 20 * 365 * 24 * time.Hour
	IssuerLife = 365 * 24 * time.Hour
	LeafLife   = 24 * time.Hour

	minLife  = time.Minute
	maxLife  = 31 * 24 * time.Hour
	backdate = time.Hour // for machines whose clock is behind
	maxCSR   = 8 << 10   // bytes
	maxPEM   = 256 << 10 // bytes of what is read as PEM
)

// ErrRequest says that a certificate request is not one that can be granted.
var ErrRequest = errors.New("the certificate request cannot be granted")

// KeyPair is a certificate of the authority with its key, both in PEM. The key is in PKCS #8, and its keeper closes it.
type KeyPair struct {
	Certificate []byte `json:"certificate"`
	Key         []byte `json:"key"`
}

// NewRoot makes the root of a trust domain: a P-256 key and its certificate.
func NewRoot(domain string, now time.Time, life time.Duration) (KeyPair, error) {
	if !validDomain(domain) {
		return KeyPair{}, fmt.Errorf("%w: %q is no trust domain; write a host name in lower case", ErrIdentity, domain)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return KeyPair{}, err
	}
	t, err := authorityTemplate(domain, "root", key, now, life)
	if err != nil {
		return KeyPair{}, err
	}
	return certify(t, t, key, key)
}

// NewIssuer makes an intermediate certificate that signs leaves, so that the root's key can stay closed. The issuer signs
// for its trust domain alone (a name constraint, RFC 5280 section 4.2.1.10), and never another authority.
func NewIssuer(domain string, root KeyPair, now time.Time, life time.Duration) (KeyPair, error) {
	parent, signer, err := root.open()
	if err != nil {
		return KeyPair{}, fmt.Errorf("identity: the root: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return KeyPair{}, err
	}
	t, err := authorityTemplate(domain, "issuer", key, now, life)
	if err != nil {
		return KeyPair{}, err
	}
	if t.NotAfter.After(parent.NotAfter) {
		return KeyPair{}, fmt.Errorf("identity: the root ends on %s, before an issuer of %s would; make a new root first", parent.NotAfter.Format(time.DateOnly), life)
	}
	t.MaxPathLenZero = true
	t.PermittedURIDomains, t.PermittedDNSDomainsCritical = []string{domain}, true
	return certify(t, parent, key, signer)
}

func authorityTemplate(domain, role string, key *ecdsa.PrivateKey, now time.Time, life time.Duration) (*x509.Certificate, error) {
	if life < minLife || life > 2*RootLife {
		return nil, fmt.Errorf("identity: an authority cannot live for %s", life)
	}
	id, err := Pin(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial,
		// The subject names the key, so that two roots of one domain can be told apart.
		Subject:               pkix.Name{Organization: []string{domain}, CommonName: "Relais " + role + " " + hex.EncodeToString(id[:4])},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(life),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil
}

func certify(t, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (KeyPair, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, signer)
	if err != nil {
		return KeyPair{}, err
	}
	text, err := MarshalKey(key)
	return KeyPair{Certificate: certPEM(der), Key: text}, err
}

func (p KeyPair) open() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certs, err := ParseCertificates(p.Certificate)
	if err != nil {
		return nil, nil, err
	}
	if len(certs) != 1 || !certs[0].IsCA {
		return nil, nil, errors.New("its certificate is not one of an authority")
	}
	key, err := ParseKey(p.Key)
	if err != nil {
		return nil, nil, err
	}
	if !key.PublicKey.Equal(certs[0].PublicKey) {
		return nil, nil, errors.New("its key does not belong to its certificate")
	}
	return certs[0], key, nil
}

// CA issues certificates of a trust domain. It is safe for concurrent use, and never changes: to rotate, open another.
type CA struct {
	domain string
	issuer *x509.Certificate
	key    crypto.Signer
	now    func() time.Time
}

// OpenCA takes an issuer of NewIssuer. Now is its clock; nil: time.Now.
func OpenCA(domain string, issuer KeyPair, now func() time.Time) (*CA, error) {
	if !validDomain(domain) {
		return nil, fmt.Errorf("%w: %q is no trust domain; write a host name in lower case", ErrIdentity, domain)
	}
	cert, key, err := issuer.open()
	if err != nil {
		return nil, fmt.Errorf("identity: the issuer: %w", err)
	}
	if now == nil {
		now = time.Now
	}
	return &CA{domain: domain, issuer: cert, key: key, now: now}, nil
}

// Domain is the trust domain.
func (ca *CA) Domain() string { return ca.domain }

// Due says that a third of the issuer's life or less is left: time for a new one.
func (ca *CA) Due() bool {
	return 3*ca.issuer.NotAfter.Sub(ca.now()) <= ca.issuer.NotAfter.Sub(ca.issuer.NotBefore)
}

// Issued is a certificate as it was made.
type Issued struct {
	Identity  Identity
	Chain     []byte // PEM: the leaf, then its issuer
	Serial    string // hexadecimal
	NotBefore time.Time
	NotAfter  time.Time
}

// Issue certifies the key of a certificate request (PKCS #10, DER) for an identity; life 0 is LeafLife. The request proves
// its key by its signature, is of P-256, and names nobody, or exactly this identity.
func (ca *CA) Issue(csr []byte, id Identity, life time.Duration) (Issued, error) {
	if life == 0 {
		life = LeafLife
	}
	if life < minLife || life > maxLife {
		return Issued{}, fmt.Errorf("identity: a certificate lives for %s to %s, and not %s", minLife, maxLife, life)
	}
	if id.Domain != ca.domain {
		return Issued{}, fmt.Errorf("%w: %s is not of %s", ErrIdentity, id, ca.domain)
	}
	uri, err := id.url()
	if err != nil {
		return Issued{}, err
	}
	key, err := checkRequest(csr, id)
	if err != nil {
		return Issued{}, err
	}
	now := ca.now()
	if now.Add(life).After(ca.issuer.NotAfter) {
		return Issued{}, fmt.Errorf("identity: the issuer ends at %s, before this certificate would; make a new issuer", ca.issuer.NotAfter.UTC().Format(time.RFC3339))
	}
	serial, err := newSerial()
	if err != nil {
		return Issued{}, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: id.Name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{uri},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca.issuer, key, ca.key)
	if err != nil {
		return Issued{}, err
	}
	return Issued{
		Identity: id, Chain: append(certPEM(der), certPEM(ca.issuer.Raw)...), Serial: serial.Text(16),
		NotBefore: t.NotBefore.Truncate(time.Second), NotAfter: t.NotAfter.Truncate(time.Second),
	}, nil
}

// checkRequest gives the key that a request proves to have.
func checkRequest(csr []byte, id Identity) (*ecdsa.PublicKey, error) {
	r, err := parseRequest(csr)
	if err != nil {
		return nil, err
	}
	key, ok := r.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: its key is not of P-256", ErrRequest)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: it does not prove that it has its key: %w", ErrRequest, err)
	}
	if len(r.DNSNames)+len(r.IPAddresses)+len(r.EmailAddresses) > 0 || len(r.URIs) > 1 {
		return nil, fmt.Errorf("%w: it asks for other names than %s", ErrRequest, id)
	}
	if len(r.URIs) == 1 && r.URIs[0].String() != id.String() || r.Subject.CommonName != "" && r.Subject.CommonName != id.Name {
		return nil, fmt.Errorf("%w: it asks for another name than %s", ErrRequest, id)
	}
	return key, nil
}

func parseRequest(csr []byte) (*x509.CertificateRequest, error) {
	if len(csr) > maxCSR {
		return nil, fmt.Errorf("%w: it has more than %d bytes", ErrRequest, maxCSR)
	}
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return r, nil
}

// NewRequest makes a key of P-256 and the request (PKCS #10, DER) that proves it, for nobody in particular: whom the
// certificate names is the issuer's word.
func NewRequest() (key *ecdsa.PrivateKey, csr []byte, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	csr, err = requestFor(key)
	return key, csr, err
}

func requestFor(key *ecdsa.PrivateKey) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
}

// Pin is the SHA-256 of a public key (SubjectPublicKeyInfo, as in RFC 7469 section 2.4).
func Pin(key crypto.PublicKey) ([sha256.Size]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return sha256.Sum256(der), nil
}

// newSerial is random: 127 bits that nobody else has (RFC 5280 section 4.1.2.2).
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return n.Add(n, big.NewInt(1)), nil
}

// MarshalKey writes a key as PEM (PKCS #8).
func MarshalKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseKey reads what MarshalKey wrote.
func ParseKey(text []byte) (*ecdsa.PrivateKey, error) {
	b, rest := pem.Decode(text)
	if b == nil || b.Type != "PRIVATE KEY" || len(rest) > 0 {
		return nil, errors.New("there is not one private key in PEM")
	}
	k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the private key cannot be read: %w", err)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the private key is not of P-256")
	}
	return key, nil
}

// ParseCertificates reads certificates in PEM, and nothing besides, at most 16.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("more than %d bytes of certificates", maxPEM)
	}
	var certs []*x509.Certificate
	for len(text) > 0 {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil || b.Type != "CERTIFICATE" || len(certs) == 16 {
			return nil, errors.New("there is something else than up to 16 certificates in PEM")
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("a certificate cannot be read: %w", err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("there is no certificate")
	}
	return certs, nil
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
