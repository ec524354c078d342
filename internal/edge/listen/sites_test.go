package listen

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// inline makes a certificate of the rig's CA a document's text.
func (r *rig) inline(names ...string) *v1.CertificateInline {
	r.t.Helper()
	c, err := r.ca.Issue(names)
	if err != nil {
		r.t.Fatal(err)
	}
	return inlineOf(r.t, c)
}

func inlineOf(t testing.TB, c *tls.Certificate) *v1.CertificateInline {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	in := &v1.CertificateInline{Key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))}
	for _, der := range c.Certificate {
		in.Certificate += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return in
}

func TestSitesCertificatesAreChosenByTheirHostsAndReadAtFirstUse(t *testing.T) {
	r := newRig(t)
	l := listener("a", withTLS)
	l.Certificates = []bundle.Key{"demo/own"}
	l.Hosts = []bundle.CertificateHosts{
		{Hostnames: []string{"one.example", "*.one.example"}, Certificates: []bundle.Key{"tenant/one"}},
		{Hostnames: []string{"bad.example"}, Certificates: []bundle.Key{"tenant/bad"}},
		{Hostnames: []string{"unused.example"}, Certificates: []bundle.Key{"tenant/unused"}},
	}
	certs := []bundle.Certificate{
		{Key: "demo/own", Spec: v1.CertificateSpec{Inline: r.inline("own.example")}},
		{Key: "tenant/one", Spec: v1.CertificateSpec{Inline: r.inline("one.example", "*.one.example")}},
		{Key: "tenant/bad", Spec: v1.CertificateSpec{Files: &v1.CertificateFiles{Certificate: "/nowhere.pem", Key: "/nowhere.key"}}},
		{Key: "tenant/unused", Spec: v1.CertificateSpec{Inline: r.inline("unused.example")}},
	}
	if err := r.m.Apply([]bundle.Listener{l}, certs); err != nil {
		t.Fatalf("a site's bad certificate keeps the others from being served: %v", err)
	}
	if r.m.certs["tenant/one"].current.Load() != nil {
		t.Error("a certificate was read before anybody asked")
	}
	for sni, want := range map[string]string{
		"one.example": "one.example", "www.one.example": "one.example", "bad.example": "own.example", "other.example": "own.example",
	} {
		if leaf, _ := r.leafFor(r.addr("a"), sni); leaf.DNSNames[0] != want {
			t.Errorf("SNI %s: got the certificate of %v, want %s", sni, leaf.DNSNames, want)
		}
	}
	if r.m.certs["tenant/one"].current.Load() == nil || r.m.certs["tenant/unused"].current.Load() != nil {
		t.Error("not those are in memory that were asked for")
	}
	// A change of the sites' certificates is no change of the listener: connections and settings go on.
	before := r.m.Listener("demo/a")
	l.Hosts = l.Hosts[:1]
	if err := r.m.Apply([]bundle.Listener{l}, certs[:2]); err != nil {
		t.Fatal(err)
	}
	if r.m.Listener("demo/a") != before {
		t.Error("the listener was made anew")
	}
	if leaf, _ := r.leafFor(r.addr("a"), "unused.example"); leaf.DNSNames[0] != "own.example" {
		t.Errorf("a certificate is shown that no site names any more: %v", leaf.DNSNames)
	}
}

func TestUnusedCertificatesOfSitesAreGivenBack(t *testing.T) {
	r := newRig(t)
	l := listener("a", withTLS)
	l.Hosts = []bundle.CertificateHosts{{Hostnames: []string{"one.example"}, Certificates: []bundle.Key{"tenant/one"}}}
	if err := r.m.Apply([]bundle.Listener{l}, []bundle.Certificate{{Key: "tenant/one", Spec: v1.CertificateSpec{Inline: r.inline("one.example")}}}); err != nil {
		t.Fatal(err)
	}
	r.leafFor(r.addr("a"), "one.example")
	r.m.tidying.Lock() // the rig's own clock shall not count
	c := r.m.certs["tenant/one"]
	for range idleLooks + 2 {
		r.m.refresh(time.Now())
	}
	gone := c.current.Load() == nil
	r.m.tidying.Unlock()
	if !gone {
		t.Error("it is still in memory")
	}
	if leaf, _ := r.leafFor(r.addr("a"), "one.example"); leaf.DNSNames[0] != "one.example" {
		t.Errorf("it does not come back: %v", leaf.DNSNames)
	}
}

// many makes documents of n certificates of sites, all with the same text.
func many(n int, in *v1.CertificateInline) (bundle.Listener, []bundle.Certificate) {
	l := listener("a", withTLS)
	l.Spec.Protocols = []v1.Protocol{v1.ProtocolHTTP1}
	l.Hosts = make([]bundle.CertificateHosts, n)
	certs := make([]bundle.Certificate, n)
	for i := range n {
		key := bundle.NewKey("tenant", fmt.Sprintf("c%06d", i))
		l.Hosts[i] = bundle.CertificateHosts{Hostnames: []string{fmt.Sprintf("h%06d.example", i)}, Certificates: []bundle.Key{key}}
		certs[i] = bundle.Certificate{Key: key, Spec: v1.CertificateSpec{Inline: in}}
	}
	return l, certs
}

// BenchmarkCertificates shows what very many certificates of sites cost: the start, and a choice
// in a handshake once the certificate is in memory, over all of 100 of them.
func BenchmarkCertificates(b *testing.B) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: newSerialForTest(), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"h.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		b.Fatal(err)
	}
	in := inlineOf(b, &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
	for _, n := range []int{100, 10_000, 100_000} {
		l, certs := many(n, in)
		b.Run(fmt.Sprintf("start/%d", n), func(b *testing.B) {
			for b.Loop() {
				m := New(Config{})
				if err := m.Apply([]bundle.Listener{l}, certs); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				m.stop()
				b.StartTimer()
			}
		})
		b.Run(fmt.Sprintf("choose/%d", n), func(b *testing.B) {
			m := New(Config{})
			if err := m.Apply([]bundle.Listener{l}, certs); err != nil {
				b.Fatal(err)
			}
			defer m.stop()
			s := m.Listener("demo/a").selector
			hellos := make([]*tls.ClientHelloInfo, 100)
			for i := range hellos {
				hellos[i] = &tls.ClientHelloInfo{ServerName: l.Hosts[i*n/100].Hostnames[0]}
				if _, err := s.get(hellos[i]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := s.get(hellos[i]); err != nil {
					b.Fatal(err)
				}
				if i++; i == len(hellos) {
					i = 0
				}
			}
		})
	}
}
