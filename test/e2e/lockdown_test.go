package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

const httpDocs = `apiVersion: relais/v1
kind: Listener
metadata: {name: web}
spec:
  address: "%s"
  clientAddress: {trustedProxies: ["127.0.0.1"], field: CF-Connecting-IP}
---
apiVersion: relais/v1
kind: Site
metadata: {name: s}
spec: {hostnames: ["*"], routes: [{pool: o}]}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: o}
spec:
  tiers: [{origins: [{address: "%s"}]}]
  connection: %s
`

func TestTheOriginLearnsEachVisitorByTheProxyProtocol(t *testing.T) {
	for _, version := range []string{"v1", "v2"} {
		t.Run(version, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var wrong atomic.Int64
			srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				host, _, _ := net.SplitHostPort(r.RemoteAddr)
				if want := r.Header.Get("CF-Connecting-IP"); host != want {
					wrong.Add(1)
				}
				fmt.Fprint(w, r.RemoteAddr)
			})}
			go func() {
				_ = srv.Serve(&proxyproto.Listener{Listener: ln, ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) { return proxyproto.REQUIRE, nil }})
			}()
			t.Cleanup(func() { _ = srv.Close() })
			addr := ports(t, 1)[0]
			file := filepath.Join(t.TempDir(), "edge.yaml")
			write(t, file, fmt.Sprintf(httpDocs, addr, ln.Addr(), "{proxyProtocol: "+version+", maxPerOrigin: 4}"))
			serve(t, addr, file)
			// Many visitors over few connections: none may be taken for another.
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					for j := range 20 {
						who := fmt.Sprintf("192.0.2.%d", i*20+j%5+1)
						if i%2 == 0 {
							who = fmt.Sprintf("2001:db8::%d", i*20+j%5+1)
						}
						resp, body := get(t, "http://"+addr+"/", "CF-Connecting-IP", who)
						if from, err := netip.ParseAddrPort(body); resp.StatusCode != 200 || err != nil || from.Addr().String() != who {
							t.Errorf("%s was %q %s", who, body, resp.Status)
						}
					}
				})
			}
			wg.Wait()
			if n := wrong.Load(); n > 0 {
				t.Errorf("%d requests came on another visitor's connection", n)
			}
		})
	}
}

func TestAnOriginThatIsLockedDownTakesTheEdgeAndNobodyElse(t *testing.T) {
	ca := newAuthority(t)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const secret = "an origin's secret of 32 bytes !!"
	srv := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{ca.pair(t, "origin.test")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := verify(r, "edge-1", []byte(secret), time.Now()); err != nil {
				http.Error(w, err.Error(), http.StatusForbidden)
				return
			}
			host, _, _ := net.SplitHostPort(r.RemoteAddr)
			fmt.Fprint(w, r.TLS.PeerCertificates[0].Subject.CommonName, " from ", host)
		}),
	}
	go func() { _ = srv.ServeTLS(ln, "", "") }()
	t.Cleanup(func() { _ = srv.Close() })

	dir := t.TempDir()
	cert, key := ca.issue(t, "edge.test")
	for name, b := range map[string][]byte{"cert.pem": cert, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	addr := ports(t, 1)[0]
	file := filepath.Join(dir, "edge.yaml")
	docs := func(signature string) string {
		return fmt.Sprintf(httpDocs, addr, ln.Addr(), "\n    tls:\n      serverName: origin.test\n      clientCertificate: edge\n      ca: |\n        "+
			strings.ReplaceAll(strings.TrimSpace(string(ca.pem)), "\n", "\n        ")+
			"\n    sourceAddresses: [127.0.0.9, 2001:db8::9]\n"+signature) + fmt.Sprintf(`---
apiVersion: relais/v1
kind: Certificate
metadata: {name: edge}
spec: {files: {certificate: %s/cert.pem, key: %s/key.pem}}
`, dir, dir)
	}
	write(t, file, docs("    signature: {keyId: edge-1, secret: \""+secret+"\"}\n"))
	_, log := serve(t, addr, file)

	for _, path := range []string{"/", "/a/b?c=d&e", "/?"} {
		resp, body := get(t, "http://"+addr+path, "Signature", "relais=:AAAA:", "Signature-Input", `relais=();created=1`)
		if resp.StatusCode != 200 || body != "edge.test from 127.0.0.9" {
			t.Errorf("%s: %s %q", path, resp.Status, body)
		}
	}
	if code, out := run(t, nil, "ranges", "-f", file); code != 0 || out != "127.0.0.9/32\n2001:db8::9/128\n" {
		t.Errorf("ranges: %d %q", code, out)
	}
	if _, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{RootCAs: pool, ServerName: "origin.test", MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("the origin takes a client without certificate")
	}
	write(t, file, docs(""))
	eventually(t, "the reload is in service", func() bool { return logHas(t, log, "documents are in service") })
	if resp, body := get(t, "http://"+addr+"/"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("without a signature: %s %q", resp.Status, body)
	}
}
