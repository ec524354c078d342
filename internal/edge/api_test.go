package edge

import (
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
	"log/slog"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

const apiPolicies = `
---
apiVersion: relais/v1
kind: JwtPolicy
metadata: {name: users}
spec:
  issuers:
    - secret: 0123456789abcdef0123456789abcdef
      forward: [{claim: sub, header: X-User}]
---
apiVersion: relais/v1
kind: ApiPolicy
metadata: {name: shop}
spec:
  mode: enforce
  unknown: refuse
  document:
    inline: |
      openapi: 3.1.0
      paths:
        /page: {get: {}}
        /basket: {post: {}}
        /orders:
          post:
            requestBody:
              required: true
              content:
                application/json:
                  schema:
                    type: object
                    required: [sku]
                    properties: {sku: {type: string}}
`

func tokenFor(t *testing.T, sub string) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: []byte("0123456789abcdef0123456789abcdef")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := json.Marshal(map[string]any{"sub": sub, "exp": time.Now().Add(time.Hour).Unix()})
	o, err := s.Sign(b)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := o.CompactSerialize()
	return "Authorization: Bearer " + text
}

// What the origin varies by a claim is told apart by the cache, and nobody gets another's by writing the field.
func TestClaimsAreSeenByTheCacheAndByNobodyElsesHand(t *testing.T) {
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=600")
		w.Header().Set("Vary", "X-User")
		fmt.Fprintf(w, "page of %s", r.Header.Get("X-User"))
	}, siteHead+"  jwt: users\n  cache: pages\n  routes: [{pool: shop}]\n"+apiPolicies+pages+pool)
	for _, proto := range []string{"http1", "h2", "h3", "std"} {
		for _, user := range []string{"ann", "bob", "ann"} {
			resp, text := b.get(proto, "/page", tokenFor(t, user), "X-User: ann")
			if resp.StatusCode != 200 || text != "page of "+user {
				t.Errorf("%s: %s got %d %q", proto, user, resp.StatusCode, text)
			}
		}
		if resp, text := b.get(proto, "/page", "X-User: ann"); resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") != `Bearer realm="site"` {
			t.Errorf("%s: without a token: %d %q", proto, resp.StatusCode, text)
		}
	}
}

func TestAnAPIThroughTheWholeEdge(t *testing.T) {
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "got %s", body)
	}, siteHead+"  api: shop\n  waf: rules\n  visitor: buyers\n  routes: [{pool: shop}]\n"+apiPolicies+buyers+pool+`
---
apiVersion: relais/v1
kind: WafPolicy
metadata: {name: rules}
spec: {mode: shadow}
`)
	post := func(body string, fields ...string) (*http.Response, string) {
		return b.send("http1", "POST", "/orders", strings.NewReader(body), append(fields, "Content-Type: application/json")...)
	}
	if resp, text := post(`{"sku":"a"}`); resp.StatusCode != 200 || text != `got {"sku":"a"}` {
		t.Errorf("a good order: %d %q", resp.StatusCode, text)
	}
	resp, _ := post(`{"sku":7}`)
	if resp.StatusCode != 400 {
		t.Errorf("a bad order: %d", resp.StatusCode)
	}
	id, _ := stage.ParseRequestID(resp.Header.Get("X-Request-Id"))
	e, ok := b.Explain(id)
	if text := fmt.Sprintf("%+v", e); !ok || !strings.Contains(text, "POST /orders: body /sku is of type number, not string") {
		t.Errorf("explained as %s", text)
	}
	if resp, _ := b.get("http1", "/nothing"); resp.StatusCode != 404 {
		t.Errorf("an unknown endpoint: %d", resp.StatusCode)
	}
	// Who has a basket passes.
	resp, _ = b.send("http1", "POST", "/basket", nil)
	cookie := "Cookie: " + strings.SplitN(resp.Header.Get("Set-Cookie"), ";", 2)[0]
	if resp, text := post(`{"sku":7}`, cookie); resp.StatusCode != 200 || text != `got {"sku":7}` {
		t.Errorf("a bad order with a basket: %d %q", resp.StatusCode, text)
	}
	list, ok := b.Endpoints("shop")
	if !ok || len(list) != 1 || list[0].Endpoints[0].Template != "/orders" || list[0].Endpoints[0].Requests != 3 {
		t.Errorf("endpoints %+v", list)
	}
	if text := b.scrape(); !strings.Contains(text, `relais_api_requests_total{outcome="basket",site="default/shop"} 1`) {
		t.Error("the basket that passed is not counted")
	}
}

// signed makes a certificate; of itself without an authority.
func signed(t *testing.T, c, ca *x509.Certificate, caKey *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if ca == nil {
		ca, caKey = c, key
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(1), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, ca, &key.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

func TestARouteAsksWhatIsInAClientsCertificate(t *testing.T) {
	ca := &x509.Certificate{Subject: pkix.Name{CommonName: "Partners"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, caKey := signed(t, ca, nil, nil)
	b := newBed(t, func(http.ResponseWriter, *http.Request) {}, fmt.Sprintf(`
apiVersion: relais/v1
kind: Listener
metadata: {name: mtls}
spec: {address: "127.0.0.1:0", protocols: [http1, h2], tls: {clientAuth: {mode: verify-if-given, ca: %q}}}
---`, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}))+siteHead+`
  routes:
    - match: [{path: {prefix: /partners}}]
      access: partners
      pool: shop
    - pool: shop
---
apiVersion: relais/v1
kind: AccessPolicy
metadata: {name: partners}
spec:
  rules: [{action: allow, clientCertificate: {uris: ["spiffe://partner.example/*"], issuers: ["CN=Partners"]}}]
  default: deny
`+pool)
	for name, want := range map[string]int{"": 403, "spiffe://partner.example/till": 200, "spiffe://other.example/till": 403} {
		conf := &tls.Config{InsecureSkipVerify: true}
		if name != "" {
			u, _ := url.Parse(name)
			der, key := signed(t, &x509.Certificate{URIs: []*url.URL{u}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca, caKey)
			conf.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
		}
		tr := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
		for path, status := range map[string]int{"/partners": want, "/": 200} {
			req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+b.listen.Addrs()["default/mtls"].String()+path, nil)
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != status {
				t.Errorf("%q %s: %d, want %d", name, path, resp.StatusCode, status)
			}
		}
		tr.CloseIdleConnections()
	}
}

func TestAFileThatHoldsNoPlacesIsRefusedAtTheStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "none.mmdb")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Data: t.TempDir(), Places: []string{file}, Explain: 1, Logger: slog.New(slog.DiscardHandler), Metrics: observe.New()}); err == nil || !strings.Contains(err.Error(), "MMDB") {
		t.Errorf("a file that is no database: %v", err)
	}
}
