package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/goleak"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ordered(key bundle.Key, spec *v1.ACMECertificate, hosts ...string) bundle.ACME {
	if spec.Directory == "" {
		spec.Directory = "https://127.0.0.1:1/dir"
	}
	return bundle.ACME{Key: key, Spec: spec, Hostnames: hosts}
}

// keep puts a certificate of a CA of our own where the issuer keeps its own.
func keep(t *testing.T, i *Issuer, key bundle.Key, host string) *tls.Certificate {
	t.Helper()
	ca, err := OpenCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c, err := ca.Issue([]string{host})
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for _, d := range c.Certificate {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d})...)
	}
	n := &name{order: i.orders[key], host: host}
	if err := i.storage.Store(context.Background(), n.file(), b); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestStoredCertificatesAreReadAtFirstUseAndCoverTheirWildcard(t *testing.T) {
	i := New(Config{Dir: t.TempDir()})
	spec := &v1.ACMECertificate{DNS: &v1.ACMEHook{Exec: []string{"hook"}}}
	i.Manage([]bundle.ACME{ordered("o/c", spec, "a.test", "*.a.test", "b.test")})
	want := keep(t, i, "o/c", "*.a.test")
	for host, there := range map[string]bool{"www.a.test": true, "a.test": false, "x.www.a.test": false, "other.test": false} {
		if got := i.Certificate("o/c", host); (got != nil) != there || there && !got.Leaf.Equal(want.Leaf) {
			t.Errorf("%s: got %v", host, got)
		}
	}
	if n := i.orders["o/c"].names["b.test"]; n.seen {
		t.Error("a certificate was looked for that nobody asked for")
	}
	if i.Certificate("o/other", "a.test") != nil {
		t.Error("a document that is not there has a certificate")
	}
}

func TestAChangeKeepsWhatItCan(t *testing.T) {
	i := New(Config{Dir: t.TempDir()})
	i.Manage([]bundle.ACME{ordered("o/c", &v1.ACMECertificate{}, "a.test", "b.test")})
	keep(t, i, "o/c", "a.test")
	first := i.Certificate("o/c", "a.test")
	i.Manage([]bundle.ACME{ordered("o/c", &v1.ACMECertificate{}, "a.test", "c.test")})
	o := i.orders["o/c"]
	if i.Certificate("o/c", "a.test") != first || len(o.names) != 2 || o.names["b.test"] != nil || len(i.queue) != 2 {
		t.Errorf("%d names, %d in the queue", len(o.names), len(i.queue))
	}
	// Another challenge is other settings, but the same account: what is in memory stays.
	i.Manage([]bundle.ACME{ordered("o/c", &v1.ACMECertificate{Challenges: []string{"http-01"}}, "a.test")})
	if i.orders["o/c"] == o || i.Certificate("o/c", "a.test") != first || len(i.queue) != 1 {
		t.Errorf("the certificate is read anew, or %d in the queue", len(i.queue))
	}
	i.Manage(nil)
	if len(i.orders) != 0 || len(i.queue) != 0 || i.Certificate("o/c", "a.test") != nil {
		t.Error("a document that is gone is still served")
	}
}

func TestADamagedOrForeignFileIsNotServed(t *testing.T) {
	i := New(Config{Dir: t.TempDir()})
	i.Manage([]bundle.ACME{ordered("o/c", &v1.ACMECertificate{}, "a.test", "b.test")})
	keep(t, i, "o/c", "a.test")
	a := i.storage.Filename((&name{order: i.orders["o/c"], host: "a.test"}).file())
	b := i.storage.Filename((&name{order: i.orders["o/c"], host: "b.test"}).file())
	if err := os.Rename(a, b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"a.test", "b.test"} {
		if i.Certificate("o/c", host) != nil {
			t.Errorf("%s is served", host)
		}
	}
}

func TestDemandIsBounded(t *testing.T) {
	i := New(Config{Dir: t.TempDir()})
	on := &v1.ACMECertificate{OnDemand: &v1.ACMEOnDemand{PerMinute: 3}}
	i.Manage([]bundle.ACME{ordered("o/c", on), ordered("o/off", &v1.ACMECertificate{}, "x.test")})
	over, cancel := context.WithCancel(context.Background())
	cancel() // no handshake waits here
	for n, host := range []string{"a.test", "b.test", "c.test", "d.test"} {
		if i.Demand(over, "o/c", host, true) != nil {
			t.Error("there is a certificate")
		}
		if want := min(n+1, 3); len(i.orders["o/c"].names) != want {
			t.Errorf("%d names after %d", len(i.orders["o/c"].names), n+1)
		}
	}
	for _, host := range []string{"", "localhost", "*.a.test", "a b.test", "../a.test", strings.Repeat("a.", 200) + "test"} {
		i.Demand(over, "o/c", host, true)
	}
	i.Demand(over, "o/c", "unsure.test", false) // there is no ask
	i.Demand(over, "o/off", "y.test", true)
	if len(i.orders["o/c"].names) != 3 || len(i.orders["o/off"].names) != 1 {
		t.Error("a name was taken that must not be")
	}
	i.orders["o/c"].filled = time.Now().Add(-time.Minute)
	if i.Demand(over, "o/c", "e.test", true); len(i.orders["o/c"].names) != 4 {
		t.Error("a minute later there is no place")
	}
}

func TestDemandTakesUpWhatIsStored(t *testing.T) {
	i := New(Config{Dir: t.TempDir()})
	i.Manage([]bundle.ACME{ordered("o/c", &v1.ACMECertificate{OnDemand: &v1.ACMEOnDemand{PerMinute: 1}})})
	keep(t, i, "o/c", "a.test")
	for range 3 {
		if i.Demand(t.Context(), "o/c", "a.test", true) == nil {
			t.Fatal("it is not served")
		}
	}
	if o := i.orders["o/c"]; o.demanded != 1 || len(i.queue) != 1 {
		t.Errorf("%d names, %d in the queue for renewal", o.demanded, len(i.queue))
	}
}

func TestChallengesAreFoundByTheirOwnNameOnly(t *testing.T) {
	dir := t.TempDir()
	i, other := New(Config{Dir: dir}), New(Config{Dir: dir})
	h := &solver{kind: v1.ChallengeHTTP01, challenges: i.challenges}
	a := &solver{kind: v1.ChallengeTLSALPN01, challenges: i.challenges}
	ch := acme.Challenge{Token: "Tok-en_1", KeyAuthorization: "Tok-en_1.thumb", Identifier: acme.Identifier{Type: "dns", Value: "a.test"}}
	for _, s := range []*solver{h, a} {
		if err := s.Present(t.Context(), ch); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range []*Issuer{i, other} { // the authority may reach either edge
		if got, ok := e.KeyAuthorization("Tok-en_1"); !ok || got != ch.KeyAuthorization {
			t.Errorf("http-01: %q %v", got, ok)
		}
		if e.ChallengeCertificate("a.test") == nil {
			t.Error("tls-alpn-01: no certificate")
		}
		for _, token := range []string{"", "tok-en_1", "Tok-en_2", "../Tok-en_1", "Tok-en_1/", strings.Repeat("a", 300)} {
			if _, ok := e.KeyAuthorization(token); ok {
				t.Errorf("%q is answered", token)
			}
		}
	}
	for _, s := range []*solver{h, a} {
		if err := s.CleanUp(t.Context(), ch); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := other.KeyAuthorization("Tok-en_1"); ok || i.ChallengeCertificate("a.test") != nil {
		t.Error("a challenge outlives its end")
	}
}

func TestLooksForForeignChallengesAreBounded(t *testing.T) {
	c := newChallenges(New(Config{Dir: t.TempDir()}).storage)
	allowed := 0
	for range 10 * maxLooks {
		if c.mayLook(7) {
			allowed++
		}
	}
	if allowed != maxLooks || !c.mayLook(8) {
		t.Errorf("%d looks in a second", allowed)
	}
}

func TestAHooksFailureSaysWhatItSaid(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no such zone", http.StatusForbidden)
	}))
	defer s.Close()
	script := filepath.Join(t.TempDir(), "hook.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"no zone for $2\" >&2\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ch := acme.Challenge{KeyAuthorization: "x", Identifier: acme.Identifier{Type: "dns", Value: "*.a.test"}}
	minute := v1.Duration(time.Minute)
	for _, c := range []struct {
		hook *v1.ACMEHook
		want string
	}{
		{&v1.ACMEHook{Exec: []string{script}, Timeout: minute}, "no zone for _acme-challenge.a.test."},
		{&v1.ACMEHook{Webhook: s.URL, Timeout: minute}, "no such zone"},
		{&v1.ACMEHook{Exec: []string{"/nowhere/hook"}, Timeout: minute}, "no such file"},
		{&v1.ACMEHook{Exec: []string{"/bin/sleep", "60"}, Timeout: v1.Duration(50 * time.Millisecond)}, "present"},
	} {
		d := &dnsSolver{hook: c.hook, web: &http.Client{}}
		if err := d.Present(t.Context(), ch); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestAnAuthorityThatIsAskedTooOftenIsLeftAlone(t *testing.T) {
	i := New(Config{Dir: t.TempDir()})
	a := i.newAuthority(&v1.ACMECertificate{Directory: "https://127.0.0.1:1/dir"})
	a.pause = time.Now().Add(time.Hour)
	key, err := newKey("p256")
	if err != nil {
		t.Fatal(err)
	}
	var paused *pausedError
	if _, err := a.order(t.Context(), key, "a.test"); !errors.As(err, &paused) || !paused.until.Equal(a.pause) {
		t.Errorf("got %v", err)
	}
}

func TestAdviceFitsTheProblem(t *testing.T) {
	a := &authority{spec: &v1.ACMECertificate{Directory: "https://ca.test/dir"}}
	for kind, want := range map[string]string{
		"rateLimited": "limits", "externalAccountRequired": "externalAccount", "connection": "port 80", "caa": "CAA", "rejectedIdentifier": "remove it", "malformed": "detail",
	} {
		if got := a.advice(fmt.Errorf("x: %w", acme.Problem{Type: acme.ProblemTypeNamespace + kind})); !strings.Contains(got, want) {
			t.Errorf("%s: %q does not say %q", kind, got, want)
		}
	}
	if got := a.advice(errors.New("no route")); !strings.Contains(got, "ca.test") {
		t.Errorf("got %q", got)
	}
}

// BenchmarkManage shows what very many names cost at a start.
func BenchmarkManage(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		hosts := make([]string, n)
		for i := range hosts {
			hosts[i] = fmt.Sprintf("h%06d.test", i)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				New(Config{Dir: b.TempDir()}).Manage([]bundle.ACME{ordered("o/c", &v1.ACMECertificate{}, hosts...)})
			}
		})
	}
}
