package identity

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"
)

// maxRoots bounds a trust bundle: the root, the next one, and a few that somebody forgot.
const maxRoots = 8

// maxChain bounds the certificates that a peer may show.
const maxChain = 12

var (
	// ErrRevoked says that a certificate was taken back.
	ErrRevoked = errors.New("the certificate was revoked")
	// ErrUntrusted says that no root of the trust bundle vouches for a certificate.
	ErrUntrusted = errors.New("the certificate is not of an authority that is trusted here")
	// ErrOlder says that a list of revoked certificates is older than the one in force.
	ErrOlder = errors.New("the list of revoked certificates is older than the one in force")
)

// ClockError says that a certificate is not valid now, by the clock of this machine.
type ClockError struct {
	Subject   string // whose certificate
	Now       time.Time
	NotBefore time.Time
	NotAfter  time.Time
}

// Error says what the clock is, and what to do.
func (e *ClockError) Error() string {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	if e.Now.Before(e.NotBefore) {
		return fmt.Sprintf("the clock of this machine says %s, but the certificate of %s begins at %s: the clock is wrong by %s or more; set it (NTP)",
			at(e.Now), e.Subject, at(e.NotBefore), e.NotBefore.Sub(e.Now).Round(time.Second))
	}
	return fmt.Sprintf("the clock of this machine says %s, but the certificate of %s ended at %s: set the clock (NTP) if it is wrong, else the certificate was not renewed for %s",
		at(e.Now), e.Subject, at(e.NotAfter), e.Now.Sub(e.NotAfter).Round(time.Second))
}

// Trust is whom this process believes: the roots of a trust domain, and what was revoked. Both may change while it is in
// use. It is safe for concurrent use.
type Trust struct {
	domain string
	now    func() time.Time

	mu      sync.RWMutex
	roots   []*x509.Certificate
	pool    *x509.CertPool
	number  *big.Int            // of the list in force
	revoked map[string]struct{} // serials, hexadecimal
	changed chan struct{}
}

// NewTrust takes a bundle: the roots' certificates in PEM. Now is its clock; nil: time.Now.
func NewTrust(domain string, bundle []byte, now func() time.Time) (*Trust, error) {
	if !validDomain(domain) {
		return nil, fmt.Errorf("%w: %q is no trust domain; write a host name in lower case", ErrIdentity, domain)
	}
	if now == nil {
		now = time.Now
	}
	t := &Trust{domain: domain, now: now, changed: make(chan struct{})}
	return t, t.SetBundle(bundle)
}

// Domain is the trust domain.
func (t *Trust) Domain() string { return t.domain }

// SetBundle changes the roots. To rotate: first trust the old one and the new one everywhere, then issue by the new one,
// then trust the new one alone.
func (t *Trust) SetBundle(bundle []byte) error {
	roots, err := ParseCertificates(bundle)
	if err != nil {
		return fmt.Errorf("identity: the trust bundle: %w", err)
	}
	if len(roots) > maxRoots {
		return fmt.Errorf("identity: the trust bundle has %d roots, and %d are the most", len(roots), maxRoots)
	}
	pool := x509.NewCertPool()
	for _, r := range roots {
		if !r.IsCA || r.CheckSignatureFrom(r) != nil {
			return fmt.Errorf("identity: the trust bundle: %s is no root", r.Subject)
		}
		pool.AddCert(r)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.roots, t.pool = roots, pool
	t.tell()
	return nil
}

// Bundle is the roots in PEM.
func (t *Trust) Bundle() []byte {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var b bytes.Buffer
	for _, r := range t.roots {
		b.Write(certPEM(r.Raw))
	}
	return b.Bytes()
}

// Changed is closed when the roots or the list of revoked certificates change: what was verified before may be so no more.
func (t *Trust) Changed() <-chan struct{} {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.changed
}

func (t *Trust) tell() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Verify says whose certificate the first of a chain is. The error is ErrUntrusted, ErrRevoked, ErrIdentity or a
// *ClockError.
func (t *Trust) Verify(chain []*x509.Certificate) (Identity, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return Identity{}, fmt.Errorf("%w: it shows %d certificates", ErrUntrusted, len(chain))
	}
	t.mu.RLock()
	pool, revoked := t.pool, t.revoked
	t.mu.RUnlock()
	id, err := verify(chain, pool, t.now())
	if err != nil {
		return Identity{}, err
	}
	if id.Domain != t.domain {
		return Identity{}, fmt.Errorf("%w: %s is of another trust domain than %s", ErrIdentity, id, t.domain)
	}
	for _, c := range chain {
		if _, ok := revoked[c.SerialNumber.Text(16)]; ok {
			return Identity{}, fmt.Errorf("%w: %s, serial %s", ErrRevoked, id, c.SerialNumber.Text(16))
		}
	}
	return id, nil
}

func verify(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) (Identity, error) {
	leaf := chain[0]
	id, err := Of(leaf)
	if err != nil {
		return Identity{}, err
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if invalid := (x509.CertificateInvalidError{}); errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil {
		whose := id.String()
		if invalid.Cert.IsCA {
			whose = invalid.Cert.Subject.CommonName
		}
		return Identity{}, &ClockError{Subject: whose, Now: now, NotBefore: invalid.Cert.NotBefore, NotAfter: invalid.Cert.NotAfter}
	}
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %s: %w", ErrUntrusted, id, err)
	}
	if leaf.IsCA {
		return Identity{}, fmt.Errorf("%w: an authority is nobody", ErrIdentity)
	}
	return id, nil
}
