package origin

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
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
			if stamp := stampOf(cc.spec.Files); stamp != cc.stamp {
				_ = cc.load(c.authority) // half of a new pair is bad until the other half comes
				cc.stamp = stamp
			}
		}
	}
}

func (cc *clientCertificate) load(ca Authority) error {
	var cert tls.Certificate
	var err error
	switch s := &cc.spec; {
	case s.Internal != nil && ca == nil:
		return errors.New("it is of the internal CA, which this process has not; give files instead")
	case s.Internal != nil:
		issued, err := ca.Issue(s.Internal.Hostnames)
		if err != nil {
			return err
		}
		cert = *issued
	case s.Files != nil:
		cc.stamp = stampOf(s.Files)
		var chain, key []byte
		if chain, err = readPEM(s.Files.Certificate); err != nil {
			return err
		}
		if key, err = readPEM(s.Files.Key); err != nil {
			return err
		}
		cert, err = tls.X509KeyPair(chain, key)
	case s.Inline != nil:
		cert, err = tls.X509KeyPair([]byte(s.Inline.Certificate), []byte(s.Inline.Key))
	default:
		return errors.New("it has neither internal, files nor inline; give one of them")
	}
	if err != nil {
		return fmt.Errorf("%w; the certificate must be PEM, leaf first, and the key the leaf's", err)
	}
	cc.current = &cert
	return nil
}

// maxPEM bounds a certificate or key file.
const maxPEM = 1 << 20

func readPEM(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(b) > maxPEM {
		err = fmt.Errorf("%s is longer than %d bytes; it is not a certificate or key in PEM", path, maxPEM)
	}
	return b, err
}

// stampOf changes when one of the files does.
func stampOf(f *v1.CertificateFiles) string {
	s := ""
	for _, path := range [...]string{f.Certificate, f.Key} {
		if info, err := os.Stat(path); err != nil {
			s += " " + err.Error()
		} else {
			s += fmt.Sprintf(" %d %d", info.ModTime().UnixNano(), info.Size())
		}
	}
	return s
}
