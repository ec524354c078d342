package listen

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/relais-edge/relais/internal/keypair"
	"github.com/relais-edge/relais/internal/observe"
)

const (
	stapleTick    = time.Second
	stapleTimeout = 10 * time.Second
	// stapleRetry and stapleRetryMax bound the wait after a failure, which doubles.
	stapleRetry    = time.Minute
	stapleRetryMax = 6 * time.Hour
	// stapleWorkers bounds the questions under way.
	stapleWorkers = 4
	// stapleWait is how long the first handshake of a must-staple certificate waits.
	stapleWait = 5 * time.Second
	// stapleIdle is how long an answer is kept fresh that no handshake needs.
	stapleIdle = 2 * time.Hour
	// maxStaple bounds an answer; maxStaples the certificates that are looked after.
	maxStaple  = 64 << 10
	maxStaples = 100_000
	// stapleFresh is the life of an answer that does not say its own.
	stapleFresh = 12 * time.Hour
)

// stapler keeps the answers of OCSP responders (RFC 6960) to staple to handshakes (RFC 6066
// section 8): it asks when a certificate is first used, again at half of an answer's life, and
// drops what is too old. A handshake waits only for a certificate that must have a staple.
type stapler struct {
	dir  string
	log  *slog.Logger
	web  *http.Client
	wake chan struct{}
	asks *observe.Family[observe.Counter]

	entries sync.Map // of *staple by *tls.Certificate
	count   atomic.Int64
	places  chan struct{}
}

// staple is what is known of one certificate.
type staple struct {
	cert   *tls.Certificate
	issuer *x509.Certificate
	must   bool
	with   atomic.Pointer[tls.Certificate] // cert with an answer; nil while there is none
	used   atomic.Int64                    // Unix seconds
	ready  chan struct{}                   // closed after the first attempt

	// Of the one goroutine that works on it.
	busy     atomic.Bool
	next     time.Time
	until    time.Time // of the answer
	failures int
	begun    bool
}

func newStapler(cfg Config) *stapler {
	s := &stapler{
		dir: cfg.Staples, log: cfg.Logger, wake: make(chan struct{}, 1), places: make(chan struct{}, stapleWorkers),
		web:  &http.Client{Timeout: stapleTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		asks: cfg.Metrics.Counters("relais_ocsp_answers_total", "Questions to OCSP responders, by result.", 4, "result"),
	}
	return s
}

// with gives a certificate with its staple, or as it is.
func (s *stapler) with(ctx context.Context, c *tls.Certificate) *tls.Certificate {
	if c.Leaf == nil || len(c.Leaf.OCSPServer) == 0 {
		return c
	}
	v, ok := s.entries.Load(c)
	if !ok {
		if v = s.begin(c); v == nil {
			return c
		}
	}
	e := v.(*staple)
	if now := time.Now().Unix(); e.used.Load() != now {
		e.used.Store(now)
	}
	if w := e.with.Load(); w != nil {
		return w
	}
	if e.must {
		t := time.NewTimer(stapleWait)
		defer t.Stop()
		select {
		case <-e.ready:
		case <-ctx.Done():
		case <-t.C:
		}
		if w := e.with.Load(); w != nil {
			return w
		}
	}
	return c
}

// begin takes up a certificate.
func (s *stapler) begin(c *tls.Certificate) any {
	if s.count.Load() >= maxStaples {
		return nil
	}
	e := &staple{cert: c, ready: make(chan struct{})}
	if e.issuer = issuerOf(c); e.issuer != nil {
		e.must = mustStaple(c.Leaf)
	} else {
		e.next = c.Leaf.NotAfter // nobody can be asked
	}
	v, there := s.entries.LoadOrStore(c, e)
	if !there {
		s.count.Add(1)
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return v
}

// issuerOf is the issuer in the chain; nil when it is not there.
func issuerOf(c *tls.Certificate) *x509.Certificate {
	if len(c.Certificate) < 2 {
		return nil
	}
	issuer, err := x509.ParseCertificate(c.Certificate[1])
	if err != nil || c.Leaf.CheckSignatureFrom(issuer) != nil {
		return nil
	}
	return issuer
}

// mustStaple says whether a certificate has the feature status_request (RFC 7633).
func mustStaple(c *x509.Certificate) bool {
	for _, x := range c.Extensions {
		if x.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}) {
			var features []int
			_, err := asn1.Unmarshal(x.Value, &features)
			return err == nil && slices.Contains(features, 5)
		}
	}
	return false
}

// run asks until ctx ends.
func (s *stapler) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(stapleTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-tick.C:
		}
		now := time.Now()
		s.entries.Range(func(key, v any) bool {
			e := v.(*staple)
			if e.busy.Load() || now.Before(e.next) {
				return true
			}
			if e.begun && now.Sub(time.Unix(e.used.Load(), 0)) > stapleIdle || now.After(e.cert.Leaf.NotAfter) {
				s.entries.Delete(key)
				s.count.Add(-1)
				return true
			}
			select {
			case s.places <- struct{}{}:
			default:
				return false // later
			}
			e.busy.Store(true)
			wg.Go(func() {
				defer func() { <-s.places }()
				defer e.busy.Store(false)
				s.work(ctx, e)
			})
			return true
		})
	}
}

// work takes an answer from the disk at the first time, and asks for a new one where that is due.
func (s *stapler) work(ctx context.Context, e *staple) {
	now := time.Now()
	if !e.begun {
		e.begun = true
		defer close(e.ready)
		if b := s.load(e); b != nil && s.take(e, b, now) == nil && now.Before(e.next) {
			return
		}
	}
	b, err := s.fetch(ctx, e)
	if err == nil {
		if err = s.take(e, b, now); err == nil {
			e.failures = 0
			s.asks.With("ok").Inc()
			s.save(e, b)
			return
		}
	}
	if ctx.Err() != nil {
		return
	}
	s.asks.With("failed").Inc()
	e.next = now.Add(min(stapleRetry<<min(e.failures, 16), stapleRetryMax))
	e.failures++
	if now.After(e.until) {
		e.with.Store(nil)
	} else if e.next.After(e.until) {
		e.next = e.until
	}
	s.log.Warn("no OCSP answer for a certificate; check that this machine reaches the responder", "names", e.cert.Leaf.DNSNames,
		"responder", e.cert.Leaf.OCSPServer[0], "mustStaple", e.must, "stapled", e.with.Load() != nil, "err", err)
}

var errRevoked = errors.New("the authority says that the certificate is revoked; get a new one")

// take makes an answer the staple, if it is good now.
func (s *stapler) take(e *staple, b []byte, now time.Time) error {
	r, err := ocsp.ParseResponseForCert(b, e.cert.Leaf, e.issuer)
	if err != nil {
		return err
	}
	until := r.NextUpdate
	if until.IsZero() {
		until = r.ThisUpdate.Add(stapleFresh)
	}
	switch {
	case r.Status == ocsp.Revoked:
		e.with.Store(nil)
		s.asks.With("revoked").Inc()
		return errRevoked
	case r.Status != ocsp.Good:
		return errors.New("the responder does not know the certificate")
	case now.Before(r.ThisUpdate.Add(-5 * time.Minute)):
		return fmt.Errorf("the answer is from the future, %s; check this machine's clock", r.ThisUpdate)
	case !now.Before(until):
		return fmt.Errorf("the answer has ended at %s", until)
	}
	w := *e.cert
	w.OCSPStaple = b
	e.with.Store(&w)
	e.until = until
	half := r.ThisUpdate.Add(until.Sub(r.ThisUpdate) / 2)
	e.next = half.Add(rand.N(until.Sub(r.ThisUpdate)/10 + 1))
	return nil
}

// fetch asks the responder (RFC 6960 appendix A).
func (s *stapler) fetch(ctx context.Context, e *staple) ([]byte, error) {
	q, err := ocsp.CreateRequest(e.cert.Leaf, e.issuer, nil)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(e.cert.Leaf.OCSPServer[0])
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("the certificate names no address of a responder: %q", e.cert.Leaf.OCSPServer[0])
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(q))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	req.Header.Set("Accept", "application/ocsp-response")
	resp, err := s.web.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the responder answers %s", resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxStaple+1))
	if err == nil && len(b) > maxStaple {
		err = fmt.Errorf("the answer is longer than %d bytes", maxStaple)
	}
	return b, err
}

func (s *stapler) file(e *staple) string {
	sum := sha256.Sum256(e.cert.Certificate[0])
	return filepath.Join(s.dir, hex.EncodeToString(sum[:])+".der")
}

// load gives what was kept of an answer; nil when there is none.
func (s *stapler) load(e *staple) []byte {
	if s.dir == "" {
		return nil
	}
	b, err := keypair.ReadPEM(s.file(e))
	if err != nil {
		return nil
	}
	return b
}

// save keeps an answer, whole or not at all. That it cannot costs a question after the next start.
func (s *stapler) save(e *staple, b []byte) {
	if s.dir == "" {
		return
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return
	}
	f, err := os.CreateTemp(s.dir, ".new-*")
	if err != nil {
		return
	}
	_, err = f.Write(b)
	if errors.Join(err, f.Close()) != nil || os.Rename(f.Name(), s.file(e)) != nil {
		_ = os.Remove(f.Name())
	}
}
