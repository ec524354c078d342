package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/identity"
)

func TestIdentitiesAreWrittenInOneWay(t *testing.T) {
	for _, s := range []string{"spiffe://relais.test/pop/paris-1", "spiffe://relais.test/control/a", "spiffe://x/connector/acme/office"} {
		id, err := identity.Parse(s)
		if err != nil || id.String() != s {
			t.Errorf("%s: %v, %v", s, id, err)
		}
	}
	for _, s := range []string{
		"", "spiffe://relais.test/pop/", "spiffe://relais.test/pop/Paris", "spiffe://relais.test/pop/a.b", "spiffe://relais.test/pop/*", "spiffe://relais.test/pop/>",
		"spiffe://relais.test/pop/a/b", "spiffe://relais.test/connector/a", "spiffe:///pop/a", "spiffe://relais.test:1/pop/a", "spiffe://u@relais.test/pop/a",
		"SPIFFE://relais.test/pop/a", "spiffe://Relais.test/pop/a", "spiffe://relais.test/pop/a?x", "spiffe://relais.test/pop/a#x", "spiffe://relais.test/pop/%61",
		"spiffe://relais.test/root/a", "https://relais.test/pop/a", "spiffe://relais.test/pop/" + strings.Repeat("a", 64),
	} {
		if id, err := identity.Parse(s); !errors.Is(err, identity.ErrIdentity) {
			t.Errorf("%q: %v, %v", s, id, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("spiffe://relais.test/pop/paris")
	f.Add("spiffe://relais.test/connector/acme/office")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := identity.Parse(s); err == nil && id.String() != s {
			t.Errorf("%q is read as %q", s, id)
		}
	})
}

func TestTheAuthorityCertifiesWhatIsProved(t *testing.T) {
	p := newPlatform(t)
	id := p.id(identity.Pop, "paris")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p.must(err)
	request := func(tpl x509.CertificateRequest) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &tpl, key)
		p.must(err)
		return der
	}
	own, err := url.Parse(id.String())
	p.must(err)
	other, err := url.Parse("spiffe://relais.test/pop/rome")
	p.must(err)
	for name, csr := range map[string][]byte{
		"no names": request(x509.CertificateRequest{}),
		"its own":  request(x509.CertificateRequest{URIs: []*url.URL{own}, Subject: pkix.Name{CommonName: "paris"}}),
	} {
		if _, err := p.ca.Issue(csr, id, 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	p.must(err)
	ofRSA, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, rsaKey)
	p.must(err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p.must(err)
	of384, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, p384)
	p.must(err)
	forged := request(x509.CertificateRequest{})
	forged[len(forged)-1] ^= 1
	for name, csr := range map[string][]byte{
		"another name":  request(x509.CertificateRequest{URIs: []*url.URL{other}}),
		"another CN":    request(x509.CertificateRequest{Subject: pkix.Name{CommonName: "rome"}}),
		"two names":     request(x509.CertificateRequest{URIs: []*url.URL{own, other}}),
		"a host name":   request(x509.CertificateRequest{DNSNames: []string{"shop.example"}}),
		"another's key": forged, "RSA": ofRSA, "P-384": of384, "nonsense": []byte("x"), "too long": make([]byte, 1<<20),
	} {
		if _, err := p.ca.Issue(csr, id, 0); !errors.Is(err, identity.ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := request(x509.CertificateRequest{})
	for name, err := range map[string]error{
		"another domain": second(p.ca.Issue(good, identity.Identity{Domain: "other.test", Kind: identity.Pop, Name: "a"}, 0)),
		"too long":       second(p.ca.Issue(good, id, 366*24*time.Hour)),
		"too short":      second(p.ca.Issue(good, id, time.Second)),
	} {
		if err == nil {
			t.Errorf("%s: issued", name)
		}
	}
	p.jump(identity.IssuerLife - time.Hour)
	if _, err := p.ca.Issue(good, id, 0); err == nil {
		t.Error("a certificate outlives its issuer")
	}
	if !p.ca.Due() {
		t.Error("an issuer that ends in an hour is not due")
	}
}

func second(_ identity.Issued, err error) error { return err }

func TestAnIssuerSpeaksForItsDomainAlone(t *testing.T) {
	p := newPlatform(t)
	issuer, err := identity.NewIssuer("elsewhere.test", p.root, p.now(), identity.IssuerLife)
	p.must(err)
	ca, err := identity.OpenCA(domain, issuer, p.now) // it says that it is of relais.test
	p.must(err)
	issued, _ := p.issue(ca, p.id(identity.Pop, "paris"), 0)
	certs, err := identity.ParseCertificates(issued.Chain)
	p.must(err)
	if id, err := p.trust.Verify(certs); !errors.Is(err, identity.ErrUntrusted) {
		t.Errorf("%v, %v", id, err)
	}
	if _, err := identity.NewIssuer(domain, p.root, p.now().Add(identity.RootLife), identity.IssuerLife); err == nil {
		t.Error("an issuer outlives its root")
	}
	if _, err := identity.OpenCA(domain, identity.KeyPair{Certificate: p.root.Certificate, Key: issuer.Key}, nil); err == nil {
		t.Error("a key of another certificate is taken")
	}
}

func TestBothSidesVerifyWhoTheOtherIs(t *testing.T) {
	p := newPlatform(t)
	control, _ := p.credentials(identity.Control, "c1")
	paris, _ := p.credentials(identity.Pop, "paris")
	anyPop, anyControl := identity.Any(identity.Pop), identity.Any(identity.Control)
	if c, s := meet(t, paris.TLS(anyControl), control.TLS(anyPop)); c != nil || s != nil {
		t.Errorf("%v, %v", c, s)
	}
	if _, s := meet(t, paris.TLS(anyControl), control.TLS(identity.Is(identity.Pop, "rome"))); !errors.Is(s, identity.ErrIdentity) {
		t.Errorf("another PoP: %v", s)
	}
	if c, _ := meet(t, paris.TLS(identity.Is(identity.Control, "c2")), control.TLS(anyPop)); !errors.Is(c, identity.ErrIdentity) {
		t.Errorf("another control plane: %v", c)
	}
	if c, _ := meet(t, paris.TLS(anyControl), paris.TLS(anyPop)); !errors.Is(c, identity.ErrIdentity) {
		t.Errorf("a PoP as a server: %v", c)
	}
	stranger, _ := newPlatform(t).credentials(identity.Control, "c1")
	if c, _ := meet(t, paris.TLS(anyControl), stranger.TLS(anyPop)); !errors.Is(c, identity.ErrUntrusted) {
		t.Errorf("another authority: %v", c)
	}
	empty := identity.NewCredentials(p.trust)
	if _, s := meet(t, empty.TLS(anyControl), control.TLS(anyPop)); s == nil {
		t.Error("without a certificate: taken")
	}
}

// TestRootsRotateWithoutAGap keeps a connection open through all of it, and makes new ones at each step.
func TestRootsRotateWithoutAGap(t *testing.T) {
	p := newPlatform(t)
	control, _ := p.credentials(identity.Control, "c1")
	paris, _ := p.credentials(identity.Pop, "paris")
	anyPop, anyControl := identity.Any(identity.Pop), identity.Any(identity.Control)
	client, server := paris.TLS(anyControl), control.TLS(anyPop) // the same configurations all the while
	live, other, c, s := connect(t, client, server)
	if c != nil || s != nil {
		t.Fatalf("%v, %v", c, s)
	}
	defer func() { _, _ = live.Close(), other.Close() }()
	step := func(name string) {
		t.Helper()
		if c, s := meet(t, client, server); c != nil || s != nil {
			t.Errorf("%s: %v, %v", name, c, s)
		}
		done := make(chan error, 1)
		go func() { done <- echo(other) }()
		if err := errors.Join(ping(live), <-done); err != nil {
			t.Errorf("%s: the open connection: %v", name, err)
		}
	}
	old, oldCA := p.trust.Bundle(), p.ca
	root, ca := p.authority()
	both := append(append([]byte(nil), old...), root.Certificate...)
	reissue := func(c *identity.Credentials, kind identity.Kind, name string) {
		issued, key := p.issue(ca, p.id(kind, name), 0)
		p.must(c.Set(issued.Chain, key))
	}
	step("before")
	p.must(control.Trust().SetBundle(both))
	step("one side trusts both")
	p.must(paris.Trust().SetBundle(both))
	step("both trust both")
	reissue(paris, identity.Pop, "paris")
	step("one side has a new certificate")
	reissue(control, identity.Control, "c1")
	step("both have new ones")
	p.must(paris.Trust().SetBundle(root.Certificate))
	step("one side dropped the old root")
	p.must(control.Trust().SetBundle(root.Certificate))
	step("both did")
	late := identity.NewCredentials(paris.Trust())
	issued, key := p.issue(oldCA, p.id(identity.Pop, "late"), 0)
	p.must(late.Set(issued.Chain, key))
	if _, s := meet(t, late.TLS(anyControl), server); !errors.Is(s, identity.ErrUntrusted) {
		t.Errorf("of the old root: %v", s)
	}
}

func TestWhoIsRevokedIsRefused(t *testing.T) {
	p := newPlatform(t)
	control, _ := p.credentials(identity.Control, "c1")
	paris, issued := p.credentials(identity.Pop, "paris")
	rome, _ := p.credentials(identity.Pop, "rome")
	server := control.TLS(identity.Any(identity.Pop))
	anyControl := identity.Any(identity.Control)
	gone := identity.Revoked{Serial: "abc", Until: p.now().Add(-time.Second)}
	list, err := p.ca.RevokedList(7, []identity.Revoked{{Serial: issued.Serial, Until: issued.NotAfter}, gone})
	p.must(err)
	changed := control.Trust().Changed()
	p.must(control.Trust().SetRevoked(list))
	<-changed
	if _, s := meet(t, paris.TLS(anyControl), server); !errors.Is(s, identity.ErrRevoked) {
		t.Errorf("%v", s)
	}
	if c, s := meet(t, rome.TLS(anyControl), server); c != nil || s != nil {
		t.Errorf("another PoP: %v, %v", c, s)
	}
	older, err := p.ca.RevokedList(6, nil)
	p.must(err)
	if err := control.Trust().SetRevoked(older); !errors.Is(err, identity.ErrOlder) {
		t.Errorf("an older list: %v", err)
	}
	stranger, err := newPlatform(t).ca.RevokedList(9, nil)
	p.must(err)
	if err := control.Trust().SetRevoked(stranger); !errors.Is(err, identity.ErrUntrusted) {
		t.Errorf("a list of another authority: %v", err)
	}
	for name, bad := range map[string][]byte{"empty": nil, "cut off": list[:len(list)/2], "more": append(append([]byte(nil), list...), "x"...)} {
		if err := control.Trust().SetRevoked(bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	many := make([]identity.Revoked, identity.MaxRevoked+1)
	for i := range many {
		many[i] = identity.Revoked{Serial: "1f", Until: issued.NotAfter}
	}
	if _, err := p.ca.RevokedList(8, many); err == nil {
		t.Error("there is no bound")
	}
	full, err := p.ca.RevokedList(8, many[1:])
	p.must(err)
	if err := control.Trust().SetRevoked(full); err != nil {
		t.Errorf("a full list of %d bytes: %v", len(full), err)
	}
	if c, s := meet(t, paris.TLS(anyControl), server); c != nil || s != nil {
		t.Errorf("what left the list: %v, %v", c, s)
	}
}

func TestAWrongClockIsToldAsOne(t *testing.T) {
	p := newPlatform(t)
	control, _ := p.credentials(identity.Control, "c1")
	paris, issued := p.credentials(identity.Pop, "paris")
	anyPop, anyControl := identity.Any(identity.Pop), identity.Any(identity.Control)
	wrong := func(d time.Duration) error {
		trust, err := identity.NewTrust(domain, p.trust.Bundle(), func() time.Time { return time.Now().Add(d) })
		p.must(err)
		c := identity.NewCredentials(trust)
		key, csr, err := identity.NewRequest()
		p.must(err)
		mine, err := p.ca.Issue(csr, p.id(identity.Pop, "rome"), 0)
		p.must(err)
		p.must(c.Set(mine.Chain, key))
		got, _ := meet(t, c.TLS(anyControl), control.TLS(anyPop))
		return got
	}
	for _, d := range []time.Duration{-50 * time.Minute, 0, 23 * time.Hour} {
		if err := wrong(d); err != nil {
			t.Errorf("a clock that is off by %s: %v", d, err)
		}
	}
	for _, d := range []time.Duration{-3 * time.Hour, -2 * 365 * 24 * time.Hour, 25 * time.Hour, 2 * 365 * 24 * time.Hour} {
		err := wrong(d)
		wantClock(t, err)
		if err != nil && !strings.Contains(err.Error(), "set ") {
			t.Errorf("it does not say what to do: %v", err)
		}
	}
	if from := p.now().Sub(issued.NotBefore); from < time.Hour || from > time.Hour+time.Minute {
		t.Errorf("it is back-dated by %s", from)
	}
	p.jump(25 * time.Hour)
	late, _ := meet(t, paris.TLS(anyControl), control.TLS(anyPop))
	wantClock(t, late)
}
