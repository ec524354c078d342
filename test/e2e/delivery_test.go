package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

const delivered = `apiVersion: relais/v1
kind: Listener
metadata: {name: web}
spec: {address: "%[1]s"}
---
apiVersion: relais/v1
kind: Listener
metadata: {name: web-tls}
spec: {address: "%[2]s", tls: {}}
---
apiVersion: relais/v1
kind: Site
metadata: {name: s}
spec:
  hostnames: ["*"]
  visitor: buyers
  cache: pages
  compression: {}
  earlyHints: true
  https: {redirect: true, hsts: {maxAge: 8760h}}
  %[5]s
  routes: [{pool: o, mirror: {pool: m}}]
---
apiVersion: relais/v1
kind: VisitorPolicy
metadata: {name: buyers}
spec: {basket: [{path: /basket}]}
---
apiVersion: relais/v1
kind: CachePolicy
metadata: {name: pages}
spec: {}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: o}
spec: {tiers: [{origins: [{address: "%[3]s"}]}]}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: m}
spec: {tiers: [{origins: [{address: "%[4]s"}]}]}
`

// TestDeliveryOfAShop follows a visitor from a link in clear to an order during maintenance.
func TestDeliveryOfAShop(t *testing.T) {
	addrs := ports(t, 2)
	page := strings.Repeat("<p>shoes</p>", 500)
	var asked, orders atomic.Int64
	back := origin(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Method == http.MethodPost {
			orders.Add(1)
		}
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, page)
	})
	copies := make(chan string, 100)
	other := origin(t, func(_ http.ResponseWriter, r *http.Request) {
		copies <- r.Method + r.URL.Path + r.Header.Get("Relais-Mirror")
	})
	file := filepath.Join(t.TempDir(), "edge.yaml")
	write(t, file, fmt.Sprintf(delivered, addrs[0], addrs[1], back, other, "maintenance: {}"))
	serve(t, addrs[0], file)

	client := &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	ask := func(method, url string, fields ...string) (*http.Response, []byte) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(fields); i += 2 {
			req.Header.Set(fields[i], fields[i+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, b
	}
	resp, _ := ask("GET", "http://"+addrs[0]+"/shoes")
	to := resp.Header.Get("Location")
	if resp.StatusCode != 301 || to != "https://"+addrs[1]+"/shoes" {
		t.Fatalf("in clear: %d %s", resp.StatusCode, to)
	}
	for i := range 3 {
		resp, b := ask("GET", to, "Accept-Encoding", "gzip")
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil || resp.ProtoMajor != 2 || resp.Header.Get("Strict-Transport-Security") != "max-age=31536000" {
			t.Fatalf("%d: %s %v %v", i, resp.Proto, resp.Header, err)
		}
		if got, err := io.ReadAll(z); err != nil || string(got) != page || len(b) > len(page)/10 {
			t.Errorf("%d: %d bytes, %v", i, len(b), err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the origin was asked %d times, want once", n)
	}
	if c := <-copies; c != "GET/shoes1" {
		t.Errorf("copy %s", c)
	}
	resp, _ = ask("POST", "https://"+addrs[1]+"/basket")
	cookie := strings.SplitN(resp.Header.Get("Set-Cookie"), ";", 2)[0]
	write(t, file, fmt.Sprintf(delivered, addrs[0], addrs[1], back, other, `maintenance: {enabled: true, retryAfter: 1m, page: {json: '{"id":"${request.id}"}'}}`))
	eventually(t, "maintenance", func() bool {
		resp, _ := ask("GET", to)
		return resp.StatusCode == 503
	})
	resp, b := ask("GET", to, "Accept", "application/json")
	var told struct{ ID string }
	if err := json.Unmarshal(b, &told); err != nil || told.ID != resp.Header.Get("X-Request-Id") || resp.Header.Get("Retry-After") != "60" {
		t.Errorf("%s %v %v", b, resp.Header, err)
	}
	if resp, _ = ask("POST", "https://"+addrs[1]+"/checkout", "Cookie", cookie); resp.StatusCode != 200 || orders.Load() != 2 {
		t.Errorf("an order during maintenance: %d, %d posts", resp.StatusCode, orders.Load())
	}
	for len(copies) > 0 {
		if c := <-copies; strings.HasPrefix(c, "POST") {
			t.Errorf("an order was mirrored: %s", c)
		}
	}
}
