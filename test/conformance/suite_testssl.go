package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/relais-edge/relais/test/proc"
)

// testsslSuite is testssl.sh on a TLS listener with every default, and a certificate such as a
// public authority gives: three months, with an OCSP responder, which runs here. It takes minutes,
// so it runs only when it is named.
type testsslSuite struct{ relais string }

// Name implements Suite.
func (testsslSuite) Name() string { return "testssl" }

const testsslDocuments = `apiVersion: relais/v1
kind: Certificate
metadata: {name: public}
spec: {files: {certificate: %q, key: %q}}
---
apiVersion: relais/v1
kind: Listener
metadata: {name: tls}
spec: {address: %q, tls: {certificates: [public]}}
---
apiVersion: relais/v1
kind: Site
metadata: {name: site}
spec:
  hostnames: ["*"]
  routes:
    - respond: {body: hello}
      filters: # what testssl looks for in a site's own answers
        responseHeaders:
          set:
            - {name: Strict-Transport-Security, value: max-age=31536000}
            - {name: X-Content-Type-Options, value: nosniff}
            - {name: X-Frame-Options, value: DENY}
            - {name: Content-Security-Policy, value: default-src 'self'}
`

// Run implements Suite. It always runs all cases.
func (t testsslSuite) Run(ctx context.Context, _ *Subject, _ []string) ([]Outcome, error) {
	program, err := exec.LookPath("testssl")
	if err != nil {
		return nil, fmt.Errorf("%w; install it with: apt-get install testssl.sh", err)
	}
	dir, err := os.MkdirTemp("", "relais-testssl-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	stop, err := publicCertificate(dir)
	if err != nil {
		return nil, err
	}
	defer stop()
	ports, err := proc.Ports(1)
	if err != nil {
		return nil, err
	}
	addr, doc := proc.Addr(ports[0]), filepath.Join(dir, "site.yaml")
	text := fmt.Sprintf(testsslDocuments, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), addr)
	if err := os.WriteFile(doc, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p, err := proc.Start(proc.Spec{
		Name: "relais", Args: []string{t.relais, "serve", "-f", doc, "--data", filepath.Join(dir, "data")},
		Log: filepath.Join(dir, "output.log"), Core: proc.AnyCore,
	})
	if err != nil {
		return nil, err
	}
	defer p.Stop(time.Second)
	if err := p.WaitListen(ctx, addr); err != nil {
		return nil, err
	}
	found := filepath.Join(dir, "found.json")
	cmd := exec.CommandContext(ctx, program, "--quiet", "--warnings", "off", "--color", "0", "--ip", "127.0.0.1",
		"--add-ca", filepath.Join(dir, "ca.pem"), "--jsonfile", found, fmt.Sprintf("localhost:%d", ports[0]))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput() // its status counts findings
	b, rerr := os.ReadFile(found)
	if rerr != nil {
		return nil, fmt.Errorf("testssl did not finish: %w\n%s", errors.Join(err, rerr), tail(string(out), 1000))
	}
	return fromTestssl(b)
}

// fromTestssl reads the findings. Those above "low" are failures; what is only told is left out.
func fromTestssl(b []byte) ([]Outcome, error) {
	var all []struct{ ID, Severity, Finding string }
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("findings of testssl: %w", err)
	}
	var out []Outcome
	seen := map[string]bool{}
	for _, f := range all {
		o := Outcome{Case: f.ID, Verdict: Pass}
		switch f.Severity {
		case "OK", "LOW":
		case "INFO", "WARN", "DEBUG":
			continue
		default:
			o.Verdict, o.Detail = Fail, f.Severity+": "+f.Finding
		}
		if !seen[o.Case] {
			seen[o.Case] = true
			out = append(out, o)
		}
	}
	if len(out) < 20 {
		return nil, fmt.Errorf("testssl has only %d findings; it did not reach the listener", len(out))
	}
	return out, nil
}

// publicCertificate writes ca.pem, cert.pem and key.pem and runs the responder.
func publicCertificate(dir string) (stop func(), err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	now := time.Now()
	sign := func(c, parent *x509.Certificate, key, by *ecdsa.PrivateKey) (*x509.Certificate, error) {
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
		if err != nil {
			return nil, err
		}
		return x509.ParseCertificate(der)
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "Test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	ca, err := sign(root, root, caKey, caKey)
	if err != nil {
		return nil, err
	}
	leaf, err := sign(&x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano() + 1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 0, 90), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, OCSPServer: []string{"http://" + ln.Addr().String()},
	}, ca, key, caKey)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	block := func(kind string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}) }
	for name, b := range map[string][]byte{
		"ca.pem": block("CERTIFICATE", ca.Raw), "key.pem": block("PRIVATE KEY", der),
		"cert.pem": append(block("CERTIFICATE", leaf.Raw), block("CERTIFICATE", ca.Raw)...),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return nil, err
		}
	}
	s := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 64<<10))
		t := time.Now()
		b, err := ocsp.CreateResponse(ca, ca, ocsp.Response{Status: ocsp.Good, SerialNumber: leaf.SerialNumber, ThisUpdate: t.Add(-time.Minute), NextUpdate: t.Add(time.Hour)}, caKey)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/ocsp-response")
		_, _ = w.Write(b)
	})}
	go func() { _ = s.Serve(ln) }()
	return func() { _ = s.Close() }, nil
}
