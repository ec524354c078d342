package identity_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/relais-edge/relais/internal/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const domain = "relais.test"

// platform is a root, an issuer, and a clock that may jump.
type platform struct {
	t     *testing.T
	root  identity.KeyPair
	ca    *identity.CA
	trust *identity.Trust

	mu  sync.Mutex
	off time.Duration
}

func (p *platform) now() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Add(p.off)
}

func (p *platform) jump(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.off += d
}

// issuer is the CA that issues now, and succeed makes another one that.
func (p *platform) issuer() *identity.CA {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ca
}

func (p *platform) succeed(ca *identity.CA) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ca = ca
}

func newPlatform(t *testing.T) *platform {
	t.Helper()
	p := &platform{t: t}
	p.root, p.ca = p.authority()
	trust, err := identity.NewTrust(domain, p.root.Certificate, p.now)
	p.must(err)
	p.trust = trust
	return p
}

func (p *platform) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *platform) authority() (identity.KeyPair, *identity.CA) {
	p.t.Helper()
	root, err := identity.NewRoot(domain, p.now(), identity.RootLife)
	p.must(err)
	issuer, err := identity.NewIssuer(domain, root, p.now(), identity.IssuerLife)
	p.must(err)
	ca, err := identity.OpenCA(domain, issuer, p.now)
	p.must(err)
	return root, ca
}

func (p *platform) id(kind identity.Kind, name string) identity.Identity {
	return identity.Identity{Domain: domain, Kind: kind, Name: name}
}

func (p *platform) issue(ca *identity.CA, id identity.Identity, life time.Duration) (identity.Issued, *ecdsa.PrivateKey) {
	p.t.Helper()
	key, csr, err := identity.NewRequest()
	p.must(err)
	issued, err := ca.Issue(csr, id, life)
	p.must(err)
	return issued, key
}

// credentials trust what the platform trusts now, and go their own way from then on.
func (p *platform) credentials(kind identity.Kind, name string) (*identity.Credentials, identity.Issued) {
	p.t.Helper()
	trust, err := identity.NewTrust(domain, p.trust.Bundle(), p.now)
	p.must(err)
	c := identity.NewCredentials(trust)
	issued, key := p.issue(p.ca, p.id(kind, name), 0)
	p.must(c.Set(issued.Chain, key))
	return c, issued
}

func (p *platform) pin() [32]byte {
	p.t.Helper()
	certs, err := identity.ParseCertificates(p.root.Certificate)
	p.must(err)
	pin, err := identity.Pin(certs[0].PublicKey)
	p.must(err)
	return pin
}

// meet has a client and a server shake hands and exchange a byte each way. It gives the errors of both, and closes.
func meet(t *testing.T, client, server *tls.Config) (atClient, atServer error) {
	t.Helper()
	c, s, atClient, atServer := connect(t, client, server)
	_, _ = c.Close(), s.Close()
	return atClient, atServer
}

func connect(t *testing.T, client, server *tls.Config) (c, s *tls.Conn, atClient, atServer error) {
	t.Helper()
	a, b := wire(t)
	c, s = tls.Client(a, client), tls.Server(b, server)
	done := make(chan error, 1)
	go func() {
		err := s.HandshakeContext(t.Context())
		if err != nil {
			_ = b.Close()
			done <- err
			return
		}
		done <- echo(s)
	}()
	atClient = c.HandshakeContext(t.Context())
	if atClient == nil {
		atClient = ping(c)
	}
	if atClient != nil {
		_ = a.Close()
	}
	return c, s, atClient, <-done
}

// wire is a connection: a pipe has no buffer, so that both sides could wait for each other with an alert.
func wire(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func ping(c net.Conn) error {
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

func echo(c net.Conn) error {
	b := make([]byte, 1)
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	_, err := c.Write(b)
	return err
}

// tokens is a store of tokens in memory. The real one is control/enrol.
type tokens struct {
	now func() time.Time

	mu   sync.Mutex
	kept map[string]*keptToken
}

type keptToken struct {
	pop     string
	hash    [32]byte
	expires time.Time
	used    time.Time
	key     [32]byte
	answer  []byte
}

func (k *tokens) Redeem(_ context.Context, r identity.Redemption, issue func(string) (identity.Issued, []byte, error)) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.kept[r.ID]
	switch {
	case t == nil || t.hash != r.Hash:
		return nil, identity.ErrToken
	case !t.used.IsZero() && t.key == r.Key && k.now().Sub(t.used) < identity.RetryTime:
		return t.answer, nil
	case !t.used.IsZero() || !k.now().Before(t.expires):
		return nil, identity.ErrToken
	}
	_, answer, err := issue(t.pop)
	if err != nil {
		return nil, err
	}
	t.used, t.key, t.answer = k.now(), r.Key, answer
	return answer, nil
}

// door is a control plane at which machines enrol.
type door struct {
	*platform
	tokens *tokens
	url    string

	mu     sync.Mutex
	events []identity.Event
	drop   bool // answers are lost
}

func newDoor(t *testing.T, p *platform) *door {
	t.Helper()
	d := &door{platform: p, tokens: &tokens{now: p.now, kept: map[string]*keptToken{}}}
	e := &identity.Enrolment{
		CA: p.issuer, Trust: p.trust, Tokens: d.tokens, Now: p.now,
		Welcome: func(context.Context, string) (identity.Welcome, error) {
			return identity.Welcome{Addresses: []string{"bus.example:4222"}, Keys: map[string][]byte{"k1": []byte("public")}}, nil
		},
		Audit: func(ev identity.Event) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.events = append(d.events, ev)
		},
	}
	creds, _ := p.credentials(identity.Control, "c1")
	d.url = serve(t, creds.EnrolTLS(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		drop := d.drop
		d.mu.Unlock()
		if drop {
			e.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		e.ServeHTTP(w, r)
	}))
	return d
}

func (d *door) setDrop(drop bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop = drop
}

func (d *door) audit() []identity.Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]identity.Event(nil), d.events...)
}

func serve(t *testing.T, config *tls.Config, h http.Handler) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.TLS = config
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	l := tls.NewListener(s.Listener, config)
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return "https://" + l.Addr().String()
}

func (d *door) token(pop string, urls ...string) identity.Token {
	d.t.Helper()
	if len(urls) == 0 {
		urls = []string{d.url}
	}
	tok, err := identity.NewToken(urls, d.pin())
	d.must(err)
	d.tokens.mu.Lock()
	defer d.tokens.mu.Unlock()
	d.tokens.kept[tok.ID] = &keptToken{pop: pop, hash: tok.Hash(), expires: d.now().Add(time.Hour)}
	return tok
}

func leafOf(t *testing.T, chain string) *x509.Certificate {
	t.Helper()
	certs, err := identity.ParseCertificates([]byte(chain))
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

func wantClock(t *testing.T, err error) {
	t.Helper()
	var clock *identity.ClockError
	if !errors.As(err, &clock) {
		t.Errorf("no error of the clock: %v", err)
	}
}
