package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	v1 "github.com/relais-edge/relais/api/v1"
)

// authority is an account at an ACME authority.
type authority struct {
	id, dir string // of the directory and the account: a name, and where things are kept
	spec    *v1.ACMECertificate
	storage *certmagic.FileStorage
	client  *acmez.Client

	mu      sync.Mutex
	account *acme.Account // nil until it is first used
	pause   time.Time     // until when the authority wants not to be asked
}

// limitPause is how long an authority is left alone that says it is asked too often.
const limitPause = 15 * time.Minute

// pausedError says that an authority is not asked now.
type pausedError struct{ until time.Time }

// Error implements error.
func (e *pausedError) Error() string {
	return "the authority is asked again at " + e.until.Format(time.RFC3339)
}

// paused says whether the authority is left alone for now.
func (a *authority) paused() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Now().Before(a.pause) {
		return &pausedError{a.pause}
	}
	return nil
}

func (i *Issuer) newAuthority(spec *v1.ACMECertificate) *authority {
	sum := sha256.Sum256([]byte(spec.Directory + "\x00" + spec.Email + "\x00" + externalKey(spec) + "\x00" + spec.KeyType))
	a := &authority{id: hex.EncodeToString(sum[:8]), spec: spec, storage: i.storage}
	host := strings.TrimPrefix(spec.Directory, "https://")
	host, _, _ = strings.Cut(host, "/")
	a.dir = "acme/" + certmagic.StorageKeys.Safe(host) + "-" + a.id
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if spec.CA != "" {
		t.RootCAs = x509.NewCertPool()
		t.RootCAs.AppendCertsFromPEM([]byte(spec.CA))
	}
	a.client = &acmez.Client{
		Client: &acme.Client{
			Directory: spec.Directory, UserAgent: "Relais", PollTimeout: 2 * time.Minute,
			HTTPClient: &http.Client{
				Timeout: 30 * time.Second,
				Transport: &http.Transport{
					Proxy: http.ProxyFromEnvironment, TLSClientConfig: t, TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true,
					ResponseHeaderTimeout: 30 * time.Second, IdleConnTimeout: 5 * time.Second, MaxResponseHeaderBytes: 64 << 10,
					DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
				},
			},
		},
		ChallengeSolvers: map[string]acmez.Solver{},
	}
	for _, c := range spec.Allowed() {
		switch c {
		case v1.ChallengeDNS01:
			a.client.ChallengeSolvers[c] = &dnsSolver{hook: spec.DNS, web: i.web}
		default:
			a.client.ChallengeSolvers[c] = &solver{kind: c, challenges: i.challenges}
		}
	}
	return a
}

func externalKey(spec *v1.ACMECertificate) string {
	if spec.ExternalAccount == nil {
		return ""
	}
	return spec.ExternalAccount.KeyID
}

// order gets a chain for a host name, as PEM.
func (a *authority) order(ctx context.Context, key crypto.Signer, host string) ([]byte, error) {
	if err := a.paused(); err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		account, err := a.open(ctx)
		if err != nil {
			return nil, fmt.Errorf("the account at %s: %w", a.spec.Directory, err)
		}
		got, err := a.client.ObtainCertificateForSANs(ctx, *account, key, []string{host})
		var problem acme.Problem
		switch {
		case err == nil && len(got) > 0:
			return got[0].ChainPEM, nil
		case err == nil:
			return nil, errors.New("the authority gave no chain")
		case try == 0 && errors.As(err, &problem) && problem.Type == acme.ProblemTypeAccountDoesNotExist:
			a.mu.Lock() // it has forgotten us: the same key makes a new account
			a.account = nil
			a.mu.Unlock()
		case errors.As(err, &problem) && problem.Type == acme.ProblemTypeRateLimited:
			a.mu.Lock() // all its names wait: more questions make it longer
			a.pause = time.Now().Add(limitPause)
			a.mu.Unlock()
			return nil, err
		default:
			return nil, err
		}
	}
}

// open finds or makes the account. Its key is kept, so the authority knows us again (RFC 8555
// section 7.3.1).
func (a *authority) open(ctx context.Context) (*acme.Account, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.account != nil {
		return a.account, nil
	}
	lock := "account_" + a.id
	if err := a.storage.Lock(ctx, lock); err != nil {
		return nil, err
	}
	defer func() { _ = a.storage.Unlock(context.WithoutCancel(ctx), lock) }()
	key, err := a.accountKey(ctx)
	if err != nil {
		return nil, err
	}
	account := acme.Account{PrivateKey: key, TermsOfServiceAgreed: true}
	if a.spec.Email != "" {
		account.Contact = []string{"mailto:" + a.spec.Email}
	}
	if e := a.spec.ExternalAccount; e != nil {
		if err := account.SetExternalAccountBinding(ctx, a.client.Client, acme.EAB{KeyID: e.KeyID, MACKey: e.HMAC}); err != nil {
			return nil, err
		}
	}
	account, err = a.client.NewAccount(ctx, account)
	if err != nil {
		return nil, err
	}
	account.PrivateKey = key
	a.account = &account
	return a.account, nil
}

func (a *authority) accountKey(ctx context.Context) (crypto.Signer, error) {
	name := a.dir + "/account.pem"
	b, err := a.storage.Load(ctx, name)
	if err == nil {
		if block, _ := pem.Decode(b); block != nil {
			if k, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
				if s, ok := k.(crypto.Signer); ok {
					return s, nil
				}
			}
		}
		return nil, damaged(a.storage.Filename(name), a.storage.Path, errors.New("it holds no key"))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, explain("read", a.storage.Filename(name), err)
	}
	key, err := newKey("p256")
	if err != nil {
		return nil, err
	}
	b, err = bundlePEM(key, nil)
	if err != nil {
		return nil, err
	}
	if err := a.storage.Store(ctx, name, b); err != nil {
		return nil, explain("write", a.storage.Filename(name), err)
	}
	return key, nil
}

func newKey(kind string) (crypto.Signer, error) {
	switch kind {
	case "p384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "rsa2048":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "rsa4096":
		return rsa.GenerateKey(rand.Reader, 4096)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// advice says what to do about an error.
func (a *authority) advice(err error) string {
	var problem acme.Problem
	var dns *net.DNSError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return "the directory's certificate is of an unknown authority; give acme.ca"
	case errors.As(err, &dns):
		return "a name cannot be resolved; check acme.directory and this machine's DNS"
	case !errors.As(err, &problem):
		return "check that this machine reaches " + a.spec.Directory
	}
	switch strings.TrimPrefix(problem.Type, acme.ProblemTypeNamespace) {
	case "rateLimited":
		return "the authority limits how often it is asked; wait, or ask for fewer names"
	case "externalAccountRequired":
		return "the authority wants acme.externalAccount; it gives out keyId and hmac"
	case "dns", "connection", "unauthorized", "tls", "incorrectResponse":
		return "the authority could not check the name: its DNS must lead to this edge, http-01 comes to port 80 in clear, tls-alpn-01 to port 443"
	case "caa":
		return "the name's CAA record in DNS forbids this authority; add it there"
	case "rejectedIdentifier":
		return "the authority gives no certificates for this name; remove it"
	}
	return "see the authority's detail"
}
