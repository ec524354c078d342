package origin

import (
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/keypair"
)

// Authority issues certificates; the internal CA is one.
type Authority interface {
	// Issue returns a certificate for host names. It keeps what it issued.
	Issue(names []string) (*tls.Certificate, error)
}

// clientCertificates are those that are shown to origins.
type clientCertificates struct {
	authority Authority

	mu    sync.Mutex
	byKey map[bundle.Key]*clientCertificate
	next  time.Time // when files are looked at again
}

type clientCertificate struct {
	spec    v1.CertificateSpec
	current *tls.Certificate
	stamp   string // of the files that current is from, or that are bad
}

// recheck is how often the files of client certificates are looked at.
const recheck = 10 * time.Second

// SetCertificates makes these the certificates that pools can show to origins. An error says which one
// is bad and changes nothing.
func (h *Handler) SetCertificates(list []bundle.Certificate) error {
	c := &h.certificates
	next := make(map[bundle.Key]*clientCertificate, len(list))
	for i := range list {
		cc := &clientCertificate{spec: list[i].Spec}
		if err := cc.load(c.authority); err != nil {
			return fmt.Errorf("certificate %s, shown to origins: %w", list[i].Key, err)
		}
		next[list[i].Key] = cc
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byKey = next
	return nil
}

// show returns what tls.Config.GetClientCertificate asks at each handshake.
func (c *clientCertificates) show(key bundle.Key) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if cc := c.byKey[key]; cc != nil {
			return cc.current, nil
		}
		return nil, fmt.Errorf("certificate %s is not in service", key)
	}
}

// refresh takes up new files and renewed certificates. What is bad leaves the old one in use.
func (c *clientCertificates) refresh() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Before(c.next) {
		return
	}
	c.next = now.Add(recheck)
	for _, cc := range c.byKey {
		switch {
		case cc.spec.Internal != nil:
			_ = cc.load(c.authority)
		case cc.spec.Files != nil:
			if keypair.Stamp(cc.spec.Files) != cc.stamp {
				_ = cc.load(c.authority) // half of a new pair is bad until the other half comes
			}
		}
	}
}

func (cc *clientCertificate) load(ca Authority) (err error) {
	var cert *tls.Certificate
	switch s := &cc.spec; {
	case s.Internal != nil && ca == nil:
		return errors.New("it is of the internal CA, which this process has not; give files instead")
	case s.Internal != nil:
		cert, err = ca.Issue(s.Internal.Hostnames)
	case s.Files != nil:
		cc.stamp = keypair.Stamp(s.Files)
		cert, err = keypair.Read(s.Files)
	case s.Inline != nil:
		cert, err = keypair.Parse([]byte(s.Inline.Certificate), []byte(s.Inline.Key))
	default:
		return errors.New("it has neither internal, files nor inline; give one of them")
	}
	if err == nil {
		cc.current = cert
	}
	return err
}
