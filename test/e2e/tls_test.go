package e2e

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const tenants = `apiVersion: relais/v1
kind: Listener
metadata: {name: clear}
spec: {address: "${LISTEN}"}
---
apiVersion: relais/v1
kind: Listener
metadata: {name: tls}
spec: {address: "${LISTEN_TLS}", protocols: [http1, h2], tls: {clientAuth: {mode: verify-if-given, ca: "${CLIENTS}"}}}
---
apiVersion: relais/v1
kind: Site
metadata: {name: one, organization: a}
spec: {hostnames: [one.test], routes: [{pool: origin}]}
---
apiVersion: relais/v1
kind: Site
metadata: {name: other, organization: a}
spec: {hostnames: [other.test], routes: [{pool: origin}]}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: origin, organization: a}
spec: {tiers: [{origins: [{address: "${ORIGIN}"}]}]}
---
apiVersion: relais/v1
kind: Site
metadata: {name: rival, organization: b}
spec: {hostnames: [rival.test], routes: [{respond: {body: rival}}]}
`

// clientOf makes an authority of clients, as PEM, and one client.
func clientOf(t *testing.T) (string, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "clients"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	root, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "client"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root})), tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestAConnectionBelongsToItsOrganizationAndItsClient(t *testing.T) {
	back := origin(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "cert=%v", r.Header.Values("Client-Cert"))
	})
	file := filepath.Join(t.TempDir(), "tenants.yaml")
	if err := os.WriteFile(file, []byte(tenants), 0o600); err != nil {
		t.Fatal(err)
	}
	authority, client := clientOf(t)
	a := ports(t, 2)
	serve(t, a[0], file, "LISTEN="+a[0], "LISTEN_TLS="+a[1], "ORIGIN="+back, "CLIENTS="+authority)
	identity := ":" + base64.StdEncoding.EncodeToString(client.Certificate[0]) + ":"
	for _, c := range []struct {
		sni, host string
		client    bool
		status    int
		body      string
	}{
		{"one.test", "one.test", false, 200, "cert=[]"},
		{"one.test", "one.test", true, 200, "cert=[" + identity + "]"},
		{"one.test", "other.test", false, 200, "cert=[]"}, // of the same organization
		{"one.test", "rival.test", false, 421, ""},
		{"rival.test", "one.test", true, 421, ""},
		{"rival.test", "rival.test", false, 200, "rival"},
		{"one.test", "nobody.test", false, 421, ""},
		{"", "rival.test", false, 200, "rival"}, // a client without SNI has chosen nobody
	} {
		conf := &tls.Config{ServerName: c.sni, InsecureSkipVerify: true}
		if c.client {
			conf.Certificates = []tls.Certificate{client}
		}
		nc, err := tls.Dial("tcp", a[1], conf)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(nc, "GET / HTTP/1.1\r\nHost: %s\r\nClient-Cert: :Zm9yZ2Vk:\r\nConnection: close\r\n\r\n", c.host)
		resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		_, _ = bufio.NewReader(resp.Body).WriteTo(&b)
		_ = nc.Close()
		if resp.StatusCode != c.status || c.body != "" && b.String() != c.body {
			t.Errorf("SNI %q, Host %s: %d %s", c.sni, c.host, resp.StatusCode, b.String())
		}
	}
	// In clear nothing vouches for the field.
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a[0]+"/", nil)
	req.Host = "one.test"
	req.Header.Set("Client-Cert", ":Zm9yZ2Vk:")
	resp, err := (&http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	_, _ = bufio.NewReader(resp.Body).WriteTo(&b)
	if b.String() != "cert=[]" {
		t.Errorf("in clear: %s", b.String())
	}
}
