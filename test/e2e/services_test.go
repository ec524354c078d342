package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

// tcpServer serves each connection with do; it ends with the test.
func tcpServer(t *testing.T, network, address string, do func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				do(nc)
			}()
		}
	}()
	t.Cleanup(func() { _ = ln.Close() })
	return ln.Addr().String()
}

// greeter says its name and whom the PROXY protocol names, and then echoes.
func greeter(name string, proxy bool) func(net.Conn) {
	return func(nc net.Conn) {
		r := bufio.NewReader(nc)
		from := ""
		if proxy {
			h, err := proxyproto.Read(r)
			if err != nil {
				return
			}
			if h.SourceAddr != nil && !h.Command.IsLocal() {
				from = " " + h.SourceAddr.(*net.TCPAddr).String()
			}
		}
		_, _ = io.WriteString(nc, name+from+"\n")
		_, _ = io.Copy(nc, r)
	}
}

func udpServer(t *testing.T, name string) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(append([]byte(name+" "), buf[:n]...), from)
		}
	}()
	t.Cleanup(func() { _ = pc.Close() })
	return pc.LocalAddr().String()
}

// line connects and reads a line; the connection stays open until the test ends.
func line(t *testing.T, address string) (net.Conn, string) {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	s, err := bufio.NewReader(nc).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return nc, strings.TrimSpace(s)
}

// authority is a CA of the test's own.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return &authority{c, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue makes a certificate in PEM.
func (a *authority) issue(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, k.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	kder, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kder})
}

func (a *authority) pair(t *testing.T, name string) tls.Certificate {
	t.Helper()
	p, err := tls.X509KeyPair(a.issue(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTheServicesExampleServesTCPUDPAndTLSBesideHTTPS(t *testing.T) {
	ca := newAuthority(t)
	vault := ca.pair(t, "vault.test")
	tlsOrigin := tcpServer(t, "tcp", "127.0.0.1:0", func(nc net.Conn) {
		tc := tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{vault}})
		_, _ = io.WriteString(tc, "vault\n")
		_ = tc.Close()
	})
	web := origin(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "web") })
	addr := ports(t, 4)
	dir := t.TempDir()
	log := filepath.Join(dir, "access.json")
	down := ports(t, 1)[0] // nobody is there
	start(t, addr[0], []string{
		"LISTEN_TCP=" + addr[0], "LISTEN_UDP=" + addr[1], "LISTEN_TLS=" + addr[2], "LISTEN=" + addr[3], "PASSTHROUGH=vault.test", "ORIGIN=" + web,
		"ORIGIN_TCP=" + down, "ORIGIN_TCP_OVERFLOW=" + tcpServer(t, "tcp", "127.0.0.1:0", greeter("overflow", true)),
		"ORIGIN_UDP=" + udpServer(t, "dns"), "ORIGIN_TLS=" + tlsOrigin, "RELAIS_DATA=" + filepath.Join(dir, "data"),
	}, "serve", "-f", "../../examples/services.yaml", "--access-log", log)

	nc, got := line(t, addr[0])
	if want := "overflow " + nc.LocalAddr().String(); got != want {
		t.Errorf("tcp: got %q, want %q", got, want)
	}
	_ = nc.Close()

	uc, err := net.Dial("udp", addr[1])
	if err != nil {
		t.Fatal(err)
	}
	defer uc.Close()
	_ = uc.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(uc, "who?")
	buf := make([]byte, 100)
	if n, err := uc.Read(buf); err != nil || string(buf[:n]) != "dns who?" {
		t.Errorf("udp: got %q %v", buf[:n], err)
	}

	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	tc, err := tls.Dial("tcp", addr[2], &tls.Config{ServerName: "vault.test", RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(tc); string(b) != "vault\n" {
		t.Errorf("passthrough: got %q %v", b, err)
	}
	_ = tc.Close()
	client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{ServerName: "shop.test", InsecureSkipVerify: true}}}
	resp, err := client.Get("https://" + addr[2] + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); string(b) != "web" || resp.ProtoMajor != 2 {
		t.Errorf("https beside it: %s %q %v", resp.Proto, b, err)
	}

	var id string
	eventually(t, "the log has the connections", func() bool {
		b, _ := os.ReadFile(log)
		for l := range bytes.Lines(b) {
			var e struct{ ID, Service, Host, Proto, Tier, Client string }
			if json.Unmarshal(l, &e) == nil && e.Service == "default/vault" && e.Host == "vault.test" && e.Proto == "tls" && e.Client == "127.0.0.1" {
				id = e.ID
			}
		}
		return id != "" && bytes.Contains(b, []byte(`"service":"default/mail"`))
	})
	if code, out := run(t, nil, "explain", "--data", filepath.Join(dir, "data"), id); code != 0 || !strings.Contains(out, "connection to service default/vault vault.test") {
		t.Errorf("explain: %d %s", code, out)
	}
}

const tcpDocs = `apiVersion: relais/v1
kind: Service
metadata: {name: a}
spec: {protocol: tcp, address: "%s", pool: o, drain: 3s}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: o}
spec:
  algorithm: first
  tiers:
    - {name: home, capacity: {inFlight: 2, softMark: 100%%}, origins: [{address: "%s"}]}
    - {name: overflow, origins: [{address: "%s"}]}
  health: {connect: true, interval: 200ms, unhealthyAfter: 1, healthyAfter: 1}
`

func TestATCPServiceOverflowsAndFollowsHealthAndReloads(t *testing.T) {
	addr := ports(t, 1)[0]
	home, overflow := tcpServer(t, "tcp6", "[::1]:0", greeter("home", false)), tcpServer(t, "tcp", "127.0.0.1:0", greeter("overflow", false))
	file := filepath.Join(t.TempDir(), "edge.yaml")
	write(t, file, fmt.Sprintf(tcpDocs, addr, home, overflow))
	p, log := serve(t, addr, file)
	eventually(t, "the knock of the test is over", func() bool {
		nc, got := line(t, addr)
		_ = nc.Close()
		return got == "home"
	})
	var held []net.Conn
	eventually(t, "home is full", func() bool {
		nc, got := line(t, addr)
		if got == "home" {
			held = append(held, nc)
		} else {
			_ = nc.Close()
		}
		return len(held) >= 2 && got == "overflow"
	})
	if len(held) != 2 {
		t.Errorf("%d connections at home, want 2", len(held))
	}
	// A reload keeps what is under way, and new connections go where the new documents say.
	moved := tcpServer(t, "tcp", "127.0.0.1:0", greeter("moved", false))
	write(t, file, fmt.Sprintf(tcpDocs, addr, moved, overflow))
	eventually(t, "the reload is in service", func() bool { return logHas(t, log, "documents are in service") })
	for _, nc := range held {
		_, _ = io.WriteString(nc, "still here\n")
		if s, err := bufio.NewReader(nc).ReadString('\n'); s != "still here\n" {
			t.Errorf("after a reload: %q %v", s, err)
		}
	}
	_ = held[1].Close()
	eventually(t, "a place at home is free", func() bool {
		nc, got := line(t, addr)
		_ = nc.Close()
		return got == "moved"
	})
	// The process ends when the last connection has, or when the drain time is over.
	begin := time.Now()
	go p.Stop(20 * time.Second)
	eventually(t, "it drains", func() bool { return logHas(t, log, "draining") })
	_, _ = io.WriteString(held[0], "the end\n")
	if s, err := bufio.NewReader(held[0]).ReadString('\n'); s != "the end\n" {
		t.Errorf("while it drains: %q %v", s, err)
	}
	_ = held[0].Close()
	<-p.Done()
	if d := time.Since(begin); d > 3*time.Second {
		t.Errorf("the drain took %s", d)
	}
}

func TestIPv6FromEndToEnd(t *testing.T) {
	ln, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("this machine has no IPv6: ", err)
	}
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Host, " ", r.Header.Get("X-Forwarded-For"))
	})}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	_, port, _ := net.SplitHostPort(ports(t, 1)[0])
	file := filepath.Join(t.TempDir(), "edge.yaml")
	write(t, file, fmt.Sprintf(`apiVersion: relais/v1
kind: Listener
metadata: {name: web}
spec: {address: "[::]:%s"}
---
apiVersion: relais/v1
kind: Site
metadata: {name: s}
spec:
  hostnames: ["*"]
  rateLimits: [few]
  access: some
  routes: [{pool: o}]
---
apiVersion: relais/v1
kind: RateLimit
metadata: {name: few}
spec: {requests: 3, per: 1h}
---
apiVersion: relais/v1
kind: AccessPolicy
metadata: {name: some}
spec: {default: deny, rules: [{action: allow, addresses: ["::1", "127.0.0.0/8"]}]}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: o}
spec: {tiers: [{origins: [{address: "%s"}]}], health: {path: /, interval: 200ms}}
`, port, ln.Addr()))
	serve(t, "127.0.0.1:"+port, file)
	// A dual-stack socket: an IPv4 visitor is one, and not an IPv6 one; each has a limit of its own.
	for _, tc := range [][2]string{{"[::1]:" + port, "::1"}, {"127.0.0.1:" + port, "127.0.0.1"}} {
		var codes []int
		for range 4 {
			resp, body := get(t, "http://"+tc[0]+"/")
			codes = append(codes, resp.StatusCode)
			if want := tc[0] + " " + tc[1]; resp.StatusCode == 200 && body != want {
				t.Errorf("got %q, want %q", body, want)
			}
		}
		if !slices.Equal(codes, []int{200, 200, 200, 429}) {
			t.Errorf("%s: %v", tc[0], codes)
		}
	}
}

func TestAPortMovesBetweenServiceAndListener(t *testing.T) {
	addr := ports(t, 1)[0]
	back := tcpServer(t, "tcp", "127.0.0.1:0", greeter("raw", false))
	web := origin(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "web") })
	file := filepath.Join(t.TempDir(), "edge.yaml")
	write(t, file, fmt.Sprintf(tcpDocs, addr, back, ports(t, 1)[0]))
	serve(t, addr, file)
	held, got := line(t, addr)
	if got != "raw" {
		t.Fatal(got)
	}
	write(t, file, fmt.Sprintf(plain, addr, "1", web))
	eventually(t, "the listener has the port", func() bool {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
		resp, err := client.Get("http://" + addr + "/")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return string(b) == "web"
	})
	_, _ = io.WriteString(held, "x\n") // it drains, for three seconds
	if s, err := bufio.NewReader(held).ReadString('\n'); s != "x\n" {
		t.Errorf("the service's connection: %q %v", s, err)
	}
	write(t, file, fmt.Sprintf(tcpDocs, addr, back, ports(t, 1)[0]))
	eventually(t, "the service has it back", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return false
		}
		defer nc.Close()
		_ = nc.SetDeadline(time.Now().Add(time.Second))
		s, _ := bufio.NewReader(nc).ReadString('\n')
		return s == "raw\n"
	})
}
