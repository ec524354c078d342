package identity

import (
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// ErrNoCertificate says that a side has no certificate yet.
var ErrNoCertificate = errors.New("there is no certificate yet")

// Credentials are a certificate with its key, which are exchanged while they are in use, and whom to trust. It is safe for
// concurrent use.
type Credentials struct {
	trust *Trust
	own   atomic.Pointer[own]
}

type own struct {
	cert tls.Certificate
	id   Identity
}

// NewCredentials has no certificate until Set.
func NewCredentials(trust *Trust) *Credentials { return &Credentials{trust: trust} }

// Trust is whom these credentials trust.
func (c *Credentials) Trust() *Trust { return c.trust }

// Set takes a new certificate, in PEM with its issuer. Connections that are open stay so.
func (c *Credentials) Set(chain []byte, key *ecdsa.PrivateKey) error {
	certs, err := ParseCertificates(chain)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	id, err := Of(certs[0])
	if err != nil {
		return err
	}
	if key == nil || !key.PublicKey.Equal(certs[0].PublicKey) {
		return errors.New("identity: the key does not belong to the certificate")
	}
	o := &own{id: id, cert: tls.Certificate{PrivateKey: key, Leaf: certs[0]}}
	for _, cert := range certs {
		o.cert.Certificate = append(o.cert.Certificate, cert.Raw)
	}
	c.own.Store(o)
	return nil
}

// Identity is who these credentials say to be, or ErrNoCertificate.
func (c *Credentials) Identity() (Identity, error) {
	o := c.own.Load()
	if o == nil {
		return Identity{}, ErrNoCertificate
	}
	return o.id, nil
}

// Life is when the certificate begins and ends.
func (c *Credentials) Life() (from, until time.Time, err error) {
	o := c.own.Load()
	if o == nil {
		return time.Time{}, time.Time{}, ErrNoCertificate
	}
	return o.cert.Leaf.NotBefore, o.cert.Leaf.NotAfter, nil
}

// TLS is for both sides of connections on which each shows its certificate: TLS 1.3, and the peer is whom expect takes. A
// new certificate, other roots and new revocations hold from the next handshake on; there are no tickets with which a
// peer could come back without one.
func (c *Credentials) TLS(expect Expect) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		ClientAuth:             tls.RequireAnyClientCert,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.certificate() },
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.certificate() },
		// The library would verify a host name against roots that cannot change. VerifyConnection, which runs on both
		// sides and always, verifies the identity against the roots of now.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			id, err := c.trust.Verify(s.PeerCertificates)
			if err != nil {
				return err
			}
			return expect(id)
		},
	}
}

func (c *Credentials) certificate() (*tls.Certificate, error) {
	o := c.own.Load()
	if o == nil {
		return nil, ErrNoCertificate
	}
	return &o.cert, nil
}

// EnrolTLS is for the server at which machines without a certificate enrol: it asks for none, and shows the roots too, so
// that a client finds the one whose key its token names.
func (c *Credentials) EnrolTLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		NextProtos:             []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			o := c.own.Load()
			if o == nil {
				return nil, ErrNoCertificate
			}
			cert := o.cert
			cert.Certificate = slices.Clone(cert.Certificate)
			c.trust.mu.RLock()
			defer c.trust.mu.RUnlock()
			for _, r := range c.trust.roots {
				cert.Certificate = append(cert.Certificate, r.Raw)
			}
			return &cert, nil
		},
	}
}
