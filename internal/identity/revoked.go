package identity

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// MaxRevoked bounds a list: certificates live for a day, so it holds what was revoked in one.
const MaxRevoked = 10_000

// maxList bounds the text of a list, in bytes.
const maxList = 1 << 20

// listLife is for readers of X.509 alone: we keep a list in force until a newer one comes, as a control plane that is away
// must not take PoPs off-line.
const listLife = 30 * 24 * time.Hour

// Revoked is a certificate that is no longer good.
type Revoked struct {
	Serial string    `json:"serial"` // hexadecimal
	Until  time.Time `json:"until"`  // when it ends by itself, and leaves the list
}

// RevokedList signs a list of revoked certificates: the issuer's certificate and an X.509 CRL (RFC 5280 section 5), in PEM.
// Number orders lists; those of other control planes of the same domain too, so it comes from the store they share.
// Entries whose certificates ended are left out.
func (ca *CA) RevokedList(number uint64, list []Revoked) ([]byte, error) {
	now := ca.now()
	t := &x509.RevocationList{Number: new(big.Int).SetUint64(number), ThisUpdate: now.Add(-backdate), NextUpdate: now.Add(listLife)}
	for _, r := range list {
		if now.After(r.Until) {
			continue
		}
		n, ok := new(big.Int).SetString(r.Serial, 16)
		if !ok || n.Sign() <= 0 || n.BitLen() > 159 {
			return nil, fmt.Errorf("identity: %.40q is no serial", r.Serial)
		}
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: now})
	}
	if len(t.RevokedCertificateEntries) > MaxRevoked {
		return nil, fmt.Errorf("identity: %d certificates are to be revoked, and %d are the most; rotate the issuer", len(t.RevokedCertificateEntries), MaxRevoked)
	}
	der, err := x509.CreateRevocationList(rand.Reader, t, ca.issuer, ca.key)
	if err != nil {
		return nil, err
	}
	return slices.Concat(certPEM(ca.issuer.Raw), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})), nil
}

// SetRevoked takes a list that the authority signed. One that is older than the list in force is ErrOlder.
func (t *Trust) SetRevoked(list []byte) error {
	if len(list) > maxList {
		return fmt.Errorf("identity: a list of revoked certificates has more than %d bytes", maxList)
	}
	cert, text := pem.Decode(list)
	if cert == nil || cert.Type != "CERTIFICATE" {
		return errors.New("identity: a list of revoked certificates has no issuer")
	}
	crl, rest := pem.Decode(text)
	if crl == nil || crl.Type != "X509 CRL" || strings.TrimSpace(string(rest)) != "" {
		return errors.New("identity: a list of revoked certificates is not in PEM")
	}
	issuer, err := x509.ParseCertificate(cert.Bytes)
	if err != nil {
		return fmt.Errorf("identity: the issuer of the revoked: %w", err)
	}
	l, err := x509.ParseRevocationList(crl.Bytes)
	if err != nil {
		return fmt.Errorf("identity: the list of the revoked: %w", err)
	}
	if err := t.vouched(issuer); err != nil {
		return err
	}
	if err := l.CheckSignatureFrom(issuer); err != nil {
		return fmt.Errorf("%w: the list of the revoked: %w", ErrUntrusted, err)
	}
	if len(l.RevokedCertificateEntries) > MaxRevoked || l.Number == nil {
		return fmt.Errorf("identity: a list of revoked certificates has no number, or more than %d entries", MaxRevoked)
	}
	revoked := make(map[string]struct{}, len(l.RevokedCertificateEntries))
	for _, e := range l.RevokedCertificateEntries {
		revoked[e.SerialNumber.Text(16)] = struct{}{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.number != nil && l.Number.Cmp(t.number) < 0 {
		return fmt.Errorf("%w: %d after %d", ErrOlder, l.Number, t.number)
	}
	if t.number != nil && l.Number.Cmp(t.number) == 0 {
		return nil
	}
	t.number, t.revoked = l.Number, revoked
	t.tell()
	return nil
}

// vouched says whether an issuer is of a root that is trusted.
func (t *Trust) vouched(issuer *x509.Certificate) error {
	t.mu.RLock()
	pool, revoked := t.pool, t.revoked
	t.mu.RUnlock()
	if _, ok := revoked[issuer.SerialNumber.Text(16)]; ok || !issuer.IsCA {
		return fmt.Errorf("%w: the issuer of the list", ErrRevoked)
	}
	// A list stays good when its issuer ends: by then what it revokes has ended too.
	_, err := issuer.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: issuer.NotBefore.Add(time.Second), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return fmt.Errorf("%w: the issuer of the list: %w", ErrUntrusted, err)
	}
	return nil
}
