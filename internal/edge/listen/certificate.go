package listen

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/keypair"
)

// Authority issues certificates; the internal CA is one.
type Authority interface {
	// Issue returns a certificate for host names, wildcards and IP addresses. It is called
	// at every handshake, so it keeps what it issued.
	Issue(names []string) (*tls.Certificate, error)
}

// certificate is a Certificate document in use.
type certificate struct {
	spec    bundle.Certificate
	lazy    bool // a site names it: it is read at its first use
	current atomic.Pointer[tls.Certificate]
	used    atomic.Bool // since it was last looked at

	mu     sync.Mutex // held while it is read
	retry  time.Time  // when a lazy one that is bad is read again
	idle   int        // how often it was looked at without having been used
	stamp  string     // of the files that current is from
	failed string     // the stamp of files that could not be read
}

// badPause is how long a bad certificate is not read again by handshakes.
const badPause = 10 * time.Second

// get gives a certificate that a site names, and reads it when it is the first to ask; nil when
// it cannot be had.
func (c *certificate) get(m *Manager) *tls.Certificate {
	if cert := c.current.Load(); cert != nil {
		if !c.used.Load() {
			c.used.Store(true)
		}
		return cert
	}
	if !c.lazy {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if cert := c.current.Load(); cert != nil {
		return cert
	}
	now := time.Now()
	if now.Before(c.retry) {
		return nil
	}
	if err := c.load(m.cfg.Authority, m.cfg.Logger); err != nil {
		c.retry = now.Add(badPause)
		m.cfg.Logger.Error("a site's certificate cannot be used; the listener's own is shown", "certificate", c.spec.Key, "err", err)
		return nil
	}
	c.used.Store(true)
	m.loaded.add(c)
	m.expires(c)
	return c.current.Load()
}

// names says whether an ACME document names a host itself, or a wildcard right above it.
func (c *certificate) names(host string) bool {
	_, parent, _ := strings.Cut(host, ".")
	for _, h := range c.spec.Spec.ACME.Hostnames {
		if h == host || len(h) > 2 && h[0] == '*' && h[2:] == parent {
			return true
		}
	}
	return false
}

// loaded are the certificates in memory, which are looked at in turn.
type loaded struct {
	mu   sync.Mutex
	list []*certificate
	at   int
}

func (l *loaded) add(c *certificate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, c)
}

const (
	// looks bounds the certificates whose files are looked at in a second.
	looks = 256
	// idleLooks is how many looks without use give a site's certificate back.
	idleLooks = 3600
)

// some gives the next ones.
func (l *loaded) some() []*certificate {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(looks, len(l.list))
	out := make([]*certificate, 0, n)
	for range n {
		l.at = (l.at + 1) % len(l.list)
		out = append(out, l.list[l.at])
	}
	return out
}

// drop takes out those that are not needed.
func (l *loaded) drop(gone func(*certificate) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = slices.DeleteFunc(l.list, gone)
	if l.at >= len(l.list) {
		l.at = 0
	}
}

// expires tells when a certificate in memory ends.
func (m *Manager) expires(c *certificate) {
	if cert := c.current.Load(); cert != nil {
		m.metrics.expiry.With(string(c.spec.Key)).Set(float64(cert.Leaf.NotAfter.Unix()))
	}
}

// refresh looks after some of the certificates in memory, and says whether a listener's own has
// changed. Those of sites that nobody uses are given back.
func (m *Manager) refresh(time.Time) (changed bool) {
	for _, c := range m.loaded.some() {
		m.mu.Lock()
		gone := m.certs[c.spec.Key] != c
		m.mu.Unlock()
		if !gone && c.lazy && !c.used.Swap(false) {
			c.idle++
			gone = c.idle > idleLooks
		} else {
			c.idle = 0
		}
		if gone {
			m.loaded.drop(func(o *certificate) bool { return o == c })
			m.metrics.expiry.Forget(string(c.spec.Key))
			if c.lazy {
				c.current.Store(nil)
			}
			continue
		}
		c.mu.Lock()
		now := c.refresh(m.cfg.Authority, m.cfg.Logger)
		c.mu.Unlock()
		if now {
			m.metrics.expiry.Forget(string(c.spec.Key))
			m.expires(c)
		}
		changed = changed || now && !c.lazy
	}
	return changed
}

// issued says whether certificates are made for whatever name is asked for.
func (c *certificate) issued() bool {
	i := c.spec.Spec.Internal
	return i != nil && len(i.Hostnames) == 0
}

// load reads the certificate for the first time.
func (c *certificate) load(ca Authority, log *slog.Logger) error {
	spec := &c.spec.Spec
	switch {
	case spec.Internal != nil:
		if ca == nil {
			return errors.New("it is of the internal CA, which this process has not; give files instead")
		}
		if c.issued() {
			return nil
		}
		cert, err := ca.Issue(spec.Internal.Hostnames)
		if err != nil {
			return err
		}
		c.put(cert)
	case spec.Files != nil:
		cert, err := keypair.Read(spec.Files)
		if err != nil {
			return err
		}
		c.stamp = keypair.Stamp(spec.Files)
		c.put(cert)
	case spec.Inline != nil:
		cert, err := keypair.Parse([]byte(spec.Inline.Certificate), []byte(spec.Inline.Key))
		if err != nil {
			return err
		}
		c.put(cert)
	case spec.ACME != nil:
		return nil
	default:
		return errors.New("it has neither internal, files, inline nor acme; give one of them")
	}
	if cert := c.current.Load(); cert != nil && time.Now().After(cert.Leaf.NotAfter) {
		log.Warn("a certificate has ended; clients will refuse it", "certificate", c.spec.Key, "notAfter", cert.Leaf.NotAfter)
	}
	return nil
}

// put takes a certificate into use, without its responder where the document wants no staple.
func (c *certificate) put(cert *tls.Certificate) {
	if c.spec.Spec.OCSP == "off" {
		cert.Leaf.OCSPServer = nil
	}
	c.current.Store(cert)
}

// refresh takes up new files and renewed certificates, and says whether there was one. What
// is bad is logged once and the old one stays.
func (c *certificate) refresh(ca Authority, log *slog.Logger) bool {
	switch spec := &c.spec.Spec; {
	case spec.Internal != nil && !c.issued():
		cert, err := ca.Issue(spec.Internal.Hostnames)
		if err != nil {
			if c.failed == "" {
				log.Error("a certificate cannot be renewed; the old one stays", "certificate", c.spec.Key, "err", err)
			}
			c.failed = "issue"
			return false
		}
		c.failed = ""
		return c.current.Swap(cert) != cert
	case spec.Files != nil:
		stamp := keypair.Stamp(spec.Files)
		if stamp == c.stamp || stamp == c.failed {
			return false
		}
		cert, err := keypair.Read(spec.Files)
		if err != nil {
			// Certificate and key are seldom replaced in the same instant; a half new pair is bad
			// until its other half comes, and then the stamp differs again.
			c.failed = stamp
			log.Error("a certificate file has changed and is bad; the old certificate stays", "certificate", c.spec.Key, "err", err)
			return false
		}
		c.stamp, c.failed = stamp, ""
		c.put(cert)
		log.Info("a certificate was read again", "certificate", c.spec.Key, "notAfter", cert.Leaf.NotAfter)
		return true
	}
	return false
}

// CheckInline parses the certificates that documents hold, which serving does only at their first
// use, and yields what is wrong. It reads no file.
func CheckInline(certs []bundle.Certificate) func(yield func(bundle.Key, error) bool) {
	return func(yield func(bundle.Key, error) bool) {
		for i := range certs {
			in := certs[i].Spec.Inline
			if in == nil {
				continue
			}
			if _, err := keypair.Parse([]byte(in.Certificate), []byte(in.Key)); err != nil && !yield(certs[i].Key, err) {
				return
			}
		}
	}
}
