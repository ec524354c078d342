package origin

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/proxyproto"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// from makes an exchange of a visitor who came on a connection.
func from(x *stage.Exchange, peer, client string) *stage.Exchange {
	p := netip.MustParseAddrPort(peer)
	x.In.Conn = &message.Conn{Peer: p, Client: p.Addr(), Local: netip.MustParseAddrPort("[2001:db8::80]:443"), TLS: &message.TLS{ServerName: "shop.example"}}
	x.Client = p.Addr()
	if client != "" {
		x.Client = netip.MustParseAddr(client)
	}
	return x
}

// proxied reads a PROXY header and answers every request with what it said.
func proxied(t *testing.T, seen func(proxyproto.Header)) func(net.Conn, *bufio.Reader) {
	return func(nc net.Conn, r *bufio.Reader) {
		b, err := r.Peek(8)
		for n := 8; err == nil; n++ {
			if l, m := proxyproto.Measure(b); m == proxyproto.Yes && l <= len(b) {
				break
			}
			b, err = r.Peek(n)
		}
		n, _ := proxyproto.Measure(b)
		h, err := proxyproto.Parse(b[:min(n, len(b))])
		if err != nil {
			t.Errorf("%q: %v", b, err)
			return
		}
		_, _ = r.Discard(n)
		seen(h)
		answering(ok(h.Source.String()))(nc, r)
	}
}

func TestAConnectionWithAProxyHeaderIsOneVisitors(t *testing.T) {
	for _, version := range []string{"v1", "v2"} {
		var mu sync.Mutex
		var headers []proxyproto.Header
		address := listen(t, proxied(t, func(h proxyproto.Header) {
			mu.Lock()
			defer mu.Unlock()
			headers = append(headers, h)
		}))
		h := newHandler(t)
		spec := connection()
		spec.ProxyProtocol = version
		e := open(t, h, address, spec)
		for _, tc := range [][3]string{
			{"192.0.2.1:1000", "", "192.0.2.1:1000"},
			{"192.0.2.1:1000", "", "192.0.2.1:1000"}, // the same connection, used again
			{"192.0.2.1:1001", "", "192.0.2.1:1001"},
			{"192.0.2.2:1000", "", "192.0.2.2:1000"},
			{"[2001:db8::1]:1000", "", "[2001:db8::1]:1000"},
			{"192.0.2.1:1000", "198.51.100.1", "198.51.100.1:0"}, // through a trusted proxy
			{"192.0.2.1:1000", "", "192.0.2.1:1000"},
		} {
			x := from(request("GET", "/", e), tc[0], tc[1])
			resp, err := h.Serve(context.Background(), x)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := read(context.Background(), resp); got != tc[2] || err != nil {
				t.Errorf("%s: %v: the origin saw %s, %v", version, tc, got, err)
			}
			x.End(message.Outcome{})
		}
		mu.Lock()
		if len(headers) != 5 {
			t.Errorf("%s: %d connections, want 5", version, len(headers))
		}
		if version == "v2" && headers[0].Authority != "shop.example" {
			t.Errorf("%+v", headers[0])
		}
		headers = nil
		mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if err := h.Probe(ctx, e, "shop.example", &v1.HealthSpec{Path: "/"}); err != nil {
			t.Error(err)
		}
		cancel()
		mu.Lock()
		if len(headers) != 1 || headers[0].Source.IsValid() {
			t.Errorf("%s: a check says %+v", version, headers)
		}
		mu.Unlock()
	}
}

func TestSignatureOverWhatIsSent(t *testing.T) {
	s := newSigner(&v1.OriginSignature{KeyID: "k", Secret: "0123456789abcdef"})
	now := time.Unix(1_700_000_000, 0)
	for _, tc := range []struct {
		authority, path, query, base string
		secure                       bool
	}{
		{"Shop.Example", "/a", "", "\"@authority\": shop.example\n\"@path\": /a\n\"@query\": ?\n", false},
		{"shop.example:80", "/", "x=1&y=%20", "\"@authority\": shop.example\n\"@path\": /\n\"@query\": ?x=1&y=%20\n", false},
		{"shop.example:80", "/", "", "\"@authority\": shop.example:80\n\"@path\": /\n\"@query\": ?\n", true},
		{"[2001:db8::1]:443", "/", "", "\"@authority\": [2001:db8::1]\n\"@path\": /\n\"@query\": ?\n", true},
	} {
		req := &message.Request{}
		req.SetMethod([]byte("POST"))
		req.SetAuthority([]byte(tc.authority))
		req.SetPath([]byte(tc.path))
		if tc.query != "" {
			req.SetQuery([]byte(tc.query))
		}
		req.AddString(message.XRequestId, "id-1")
		// A visitor's own go, wherever they stand, and so does that of the try before.
		req.AddLine([]byte("signature"), []byte("relais=:AAAA:"))
		req.AddLine([]byte("Signature-Input"), []byte("relais=();created=1"))
		req.AddLine([]byte("SIGNATURE"), []byte("other=:AAAA:"))
		s.sign(req, tc.secure, now)
		s.sign(req, tc.secure, now)
		const params = `("@method" "@authority" "@path" "@query" "x-request-id");created=1700000000;keyid="k";alg="hmac-sha256"`
		mac := hmac.New(sha256.New, []byte("0123456789abcdef"))
		mac.Write([]byte("\"@method\": POST\n" + tc.base + "\"x-request-id\": id-1\n\"@signature-params\": " + params))
		want := "relais=:" + base64.StdEncoding.EncodeToString(mac.Sum(nil)) + ":"
		var all []string
		for i := range req.Len() {
			if _, name, value := req.At(i); strings.HasPrefix(strings.ToLower(string(name)), "signature") {
				all = append(all, string(value))
			}
		}
		if len(all) != 2 || string(req.Lookup("Signature")) != want || string(req.Lookup("Signature-Input")) != "relais="+params {
			t.Errorf("%s: %q, want %q", tc.authority, all, want)
		}
	}
}

func TestSourceAddressByFamily(t *testing.T) {
	address := listen(t, func(nc net.Conn, r *bufio.Reader) {
		host, _, _ := net.SplitHostPort(nc.RemoteAddr().String())
		answering(ok(host))(nc, r)
	})
	h := newHandler(t)
	spec := connection()
	spec.SourceAddresses = []string{"127.0.0.9", "2001:db8::9"}
	e := open(t, h, address, spec)
	resp, err := h.Serve(context.Background(), request("GET", "/", e))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := read(context.Background(), resp); got != "127.0.0.9" {
		t.Errorf("the origin saw %s", got)
	}
	spec = connection()
	spec.SourceAddresses = []string{"2001:db8::9"}
	if _, err := h.Serve(context.Background(), request("GET", "/", open(t, h, address, spec))); !errors.Is(err, errNoSource) {
		t.Errorf("no address of the family: %v", err)
	}
	spec.SourceAddresses = []string{"192.0.2.1"}
	if _, err := h.Serve(context.Background(), request("GET", "/", open(t, h, address, spec))); err == nil || !strings.Contains(err.Error(), "is it an address of this machine") {
		t.Errorf("an address that the machine has not: %v", err)
	}
}

func TestDialIsGuardedAndSpeaksTLSWithoutHTTP(t *testing.T) {
	cert, ca := certificate(t, "origin.test")
	address := listen(t, func(nc net.Conn, _ *bufio.Reader) {
		tc := tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
		if tc.Handshake() == nil {
			_, _ = tc.Write([]byte("hello"))
		}
		_ = tc.Close()
	})
	h := newHandler(t)
	spec := connection()
	spec.TLS = &v1.OriginTLS{CA: ca, ServerName: "origin.test"}
	nc, err := h.Dial(context.Background(), open(t, h, address, spec), "tcp", &proxyproto.Header{})
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if n, err := nc.Read(b); string(b[:n]) != "hello" {
		t.Errorf("%q %v", b[:n], err)
	}
	_ = nc.Close()
	spec = connection()
	spec.Public = true
	for _, network := range []string{"tcp", "udp"} {
		_, err = h.Dial(context.Background(), open(t, h, address, spec), network, nil)
		if e := stage.AsError(err); err == nil || e.Code != "destination_ip_prohibited" {
			t.Errorf("%s: %v", network, err)
		}
	}
}

func TestClientCertificatesFollowTheirFiles(t *testing.T) {
	dir := t.TempDir()
	put := func(name string) {
		cert, chain := certificate(t, name)
		der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		for file, b := range map[string][]byte{"cert.pem": []byte(chain), "key.pem": key} {
			if err := os.WriteFile(filepath.Join(dir, file), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	files := bundle.Certificate{Key: "org/edge", Spec: v1.CertificateSpec{Files: &v1.CertificateFiles{
		Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"),
	}}}
	h := New(Config{}, observe.New())
	if err := h.SetCertificates([]bundle.Certificate{files}); err == nil || !strings.Contains(err.Error(), "org/edge") {
		t.Errorf("without files: %v", err)
	}
	show := h.certificates.show("org/edge")
	if _, err := show(nil); err == nil {
		t.Error("a certificate that is not there is shown")
	}
	put("one.test")
	if err := h.SetCertificates([]bundle.Certificate{files}); err != nil {
		t.Fatal(err)
	}
	name := func() string {
		c, err := show(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.DNSNames[0]
	}
	if got := name(); got != "one.test" {
		t.Error(got)
	}
	if err := os.WriteFile(filepath.Join(dir, "key.pem"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.certificates.next = time.Time{}
	h.certificates.refresh()
	if got := name(); got != "one.test" {
		t.Errorf("with half of a pair: %s", got)
	}
	put("two.test")
	h.certificates.next = time.Time{}
	h.certificates.refresh()
	if got := name(); got != "two.test" {
		t.Error(got)
	}
}
