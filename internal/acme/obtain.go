package acme

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"reflect"
	"strings"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"

	"github.com/caddyserver/certmagic"
)

func sameSpec(a, b *v1.ACMECertificate) bool {
	x, y := *a, *b
	x.Hostnames, y.Hostnames = nil, nil
	return reflect.DeepEqual(x, y)
}

// Certificate gives the certificate of a document for a host name, wildcards among its names
// included; nil while there is none. It reads the storage at the first call for a name only.
func (i *Issuer) Certificate(key bundle.Key, host string) *tls.Certificate {
	if n := i.find(key, host); n != nil {
		return i.current(n)
	}
	return nil
}

// find finds the name of a document that covers a host.
func (i *Issuer) find(key bundle.Key, host string) *name {
	i.mu.Lock()
	defer i.mu.Unlock()
	o := i.orders[key]
	if o == nil {
		return nil
	}
	n := o.names[host]
	if n == nil {
		if _, parent, ok := strings.Cut(host, "."); ok {
			n = o.names["*."+parent]
		}
	}
	if n != nil {
		n.used = true
	}
	return n
}

// current reads the storage at its first call.
func (i *Issuer) current(n *name) *tls.Certificate {
	n.load.Lock()
	defer n.load.Unlock()
	if n.seen {
		return n.cert
	}
	n.seen = true
	cert, err := i.read(context.Background(), n) // a file of this machine
	if err == nil {
		n.cert = cert
	}
	return n.cert
}

// file is where key and certificate are kept, in one file so that they always fit each other.
func (n *name) file() string {
	return n.order.authority.dir + "/certificates/" + certmagic.StorageKeys.Safe(n.host) + ".pem"
}

// maxStored bounds a file of a key with its chain.
const maxStored = 1 << 20

// read reads what is stored; an error of fs.ErrNotExist when there is none.
func (i *Issuer) read(ctx context.Context, n *name) (*tls.Certificate, error) {
	b, err := i.storage.Load(ctx, n.file())
	if err != nil {
		return nil, err
	}
	if len(b) > maxStored {
		return nil, fmt.Errorf("%s is too long", i.storage.Filename(n.file()))
	}
	cert, err := tls.X509KeyPair(b, b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", i.storage.Filename(n.file()), err)
	}
	if err := cert.Leaf.VerifyHostname(strings.Replace(n.host, "*.", "a.", 1)); err != nil {
		return nil, fmt.Errorf("%s: %w", i.storage.Filename(n.file()), err)
	}
	if n.order.NoStaple {
		cert.Leaf.OCSPServer = nil
	}
	return &cert, nil
}

// renewal is when a certificate is renewed: when a third of its life is left.
func renewal(leaf *x509.Certificate) time.Time {
	return leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3)
}

// settled looks at the storage, and says whether a good certificate is there. What is not in use
// is not kept in memory.
func (i *Issuer) settled(ctx context.Context, n *name) bool {
	cert, err := i.read(ctx, n)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			i.cfg.Logger.Error("a stored certificate cannot be used; it is asked for anew", "certificate", n.order.Key, "host", n.host, "err", err)
		}
		return false
	}
	n.load.Lock()
	if n.seen {
		n.cert = cert
	}
	n.load.Unlock()
	due := renewal(cert.Leaf)
	if !time.Now().Before(due) {
		if !i.idle(n) {
			return false
		}
		i.drop(n)
		return true
	}
	i.ends(n, cert.Leaf)
	if soon := time.Now().Add(lookAgain); due.After(soon) {
		due = soon.Add(-rand.N(lookAgain / 4))
	}
	i.done(n, due)
	return true
}

// idle says that a name is there on demand and nobody has asked for it since the last look.
func (i *Issuer) idle(n *name) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	idle := n.demand && !n.used && !n.due.IsZero()
	n.used = false
	return idle
}

// ends tells the metric of the document when its first certificate ends.
func (i *Issuer) ends(n *name, leaf *x509.Certificate) {
	i.mu.Lock()
	defer i.mu.Unlock()
	n.failures = 0
	if o := n.order; o.first.IsZero() || n.host == o.firstHost || leaf.NotAfter.Before(o.first) {
		o.first, o.firstHost = leaf.NotAfter, n.host
		o.expiry.Set(float64(leaf.NotAfter.Unix()))
	}
}

// obtain asks the authority, one edge at a time, and keeps what it gives.
func (i *Issuer) obtain(life context.Context, n *name) {
	defer func() {
		if p := recover(); p != nil { // what an authority sends ends nothing but its order
			i.failed(n, fmt.Errorf("panic: %v", p))
		}
	}()
	limit := orderTimeout
	if d := n.order.Spec.DNS; d != nil {
		limit += v1.Value(d.Wait).Std() + 2*d.Timeout.Std()
	}
	ctx, cancel := context.WithTimeout(life, limit)
	defer cancel()
	cert, err := i.once(ctx, n)
	var paused *pausedError
	switch {
	case err != nil && life.Err() != nil: // the process ends
		i.done(n, time.Now())
		return
	case errors.As(err, &paused):
		i.done(n, paused.until.Add(rand.N(limitPause)))
		return
	case err != nil:
		i.failed(n, err)
		return
	}
	n.load.Lock()
	n.cert, n.seen = cert, true
	n.load.Unlock()
	i.ends(n, cert.Leaf)
	i.done(n, minTime(renewal(cert.Leaf), time.Now().Add(lookAgain)))
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// once makes one attempt, under a lock that all edges of the storage share.
func (i *Issuer) once(ctx context.Context, n *name) (*tls.Certificate, error) {
	lock := "issue_" + certmagic.StorageKeys.Safe(n.order.authority.id+"_"+n.host)
	if err := i.storage.Lock(ctx, lock); err != nil {
		return nil, fmt.Errorf("another edge holds the lock of %s: %w", n.host, err)
	}
	defer func() { _ = i.storage.Unlock(context.WithoutCancel(ctx), lock) }()
	if cert, err := i.read(ctx, n); err == nil && time.Now().Before(renewal(cert.Leaf)) {
		return cert, nil // another edge was first
	}
	key, err := newKey(n.order.Spec.KeyType)
	if err != nil {
		return nil, err
	}
	chain, err := n.order.authority.order(ctx, key, n.host)
	if err != nil {
		var paused *pausedError
		if !errors.As(err, &paused) {
			i.issued.With("failed").Inc()
		}
		return nil, err
	}
	i.issued.With("ok").Inc()
	b, err := bundlePEM(key, chain)
	if err != nil {
		return nil, err
	}
	if err := i.storage.Store(ctx, n.file(), b); err != nil {
		return nil, explain("keep the certificate in", i.storage.Filename(n.file()), err)
	}
	cert, err := i.read(ctx, n)
	if err != nil {
		return nil, err
	}
	i.cfg.Logger.Info("a certificate was issued", "certificate", n.order.Key, "host", n.host, "notAfter", cert.Leaf.NotAfter)
	return cert, nil
}

func bundlePEM(key crypto.Signer, chain []byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), chain...), nil
}

// failed says why there is no certificate and when it is tried again. What is served stays.
func (i *Issuer) failed(n *name, err error) {
	i.mu.Lock()
	n.failures++
	tries := n.failures
	i.mu.Unlock()
	wait := min(i.cfg.Retry<<min(tries-1, 20), lastRetry)
	wait += rand.N(wait/4 + 1)
	i.cfg.Logger.Error("no certificate from the ACME authority; what is there is served meanwhile", "certificate", n.order.Key,
		"host", n.host, "try", tries, "again", wait.Round(time.Second), "err", err, "mend", n.order.authority.advice(err))
	i.done(n, time.Now().Add(wait))
}
