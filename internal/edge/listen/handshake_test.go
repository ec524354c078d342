package listen

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// BenchmarkHandshake is a full TLS 1.3 handshake over loopback, both sides in this process; with
// -cpuprofile and pprof -focus serveTLS it shows what the listener's side costs.
func BenchmarkHandshake(b *testing.B) {
	i := newIssuer(b, "bench")
	l := listener("a", withTLS)
	l.Spec.Protocols = []v1.Protocol{v1.ProtocolHTTP1}
	l.Certificates = []bundle.Key{"demo/c"}
	m := New(Config{Handler: &echo{}})
	in := inlineOf(b, i.leaf(func(*x509.Certificate) {}))
	if err := m.Apply([]bundle.Listener{l}, []bundle.Certificate{{Key: "demo/c", Spec: v1.CertificateSpec{Inline: in}}}); err != nil {
		b.Fatal(err)
	}
	ctx := b.Context()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = m.Run(ctx)
	}()
	b.Cleanup(func() { <-done })
	addr := m.Addrs()["demo/a"].String()
	c := &tls.Config{InsecureSkipVerify: true, ServerName: "a.example", CurvePreferences: []tls.CurveID{tls.X25519}}
	b.ReportAllocs()
	for b.Loop() {
		nc, err := tls.Dial("tcp", addr, c)
		if err != nil {
			b.Fatal(err)
		}
		_ = nc.Close()
	}
}
