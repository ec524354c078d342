package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/challtestsrv"
	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"

	"github.com/relais-edge/relais/internal/edge"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/pop"
	"github.com/relais-edge/relais/test/proc"
)

// authority is a Pebble with its DNS.
type authority struct {
	t            *testing.T
	dns          *challtestsrv.ChallSrv
	url, rootPEM string
	http, tls    int // the ports that challenges come to
	roots        *x509.CertPool
	orders       atomic.Int64 // that it took
	broken       atomic.Bool  // it answers 500
}

func ports(t *testing.T, n int) []int {
	t.Helper()
	p, err := proc.Ports(n)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// start starts an authority whose certificates live for some seconds; 0 is Pebble's own choice.
func start(t *testing.T, life uint64) *authority {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "5")
	t.Setenv("PEBBLE_AUTHZREUSE", "0")
	p := ports(t, 3)
	a := &authority{t: t, http: p[0], tls: p[1], roots: x509.NewCertPool()}
	resolver := proc.Addr(p[2])
	quiet := log.New(io.Discard, "", 0)
	var err error
	if a.dns, err = challtestsrv.New(challtestsrv.Config{DNSAddrs: []string{resolver}, Log: quiet}); err != nil {
		t.Fatal(err)
	}
	a.dns.SetDefaultDNSIPv4("127.0.0.1")
	a.dns.SetDefaultDNSIPv6("")
	go a.dns.Run()
	t.Cleanup(a.dns.Shutdown)
	store := db.NewMemoryStore()
	signer := ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {Description: "test", ValidityPeriod: life}})
	checks := va.New(quiet, a.http, a.tls, true, resolver, store)
	front := wfe.New(quiet, store, checks, signer, []string{"pebble.test"}, true, false, 1, 1)
	h := front.Handler()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.broken.Load() {
			http.Error(w, "broken", http.StatusInternalServerError)
			return
		}
		answer := &statusWriter{ResponseWriter: w}
		h.ServeHTTP(answer, r)
		if strings.HasPrefix(r.URL.Path, "/order-plz") && answer.status == http.StatusCreated {
			a.orders.Add(1) // others are refused for their nonce, one of twenty, and asked for again (RFC 8555 section 6.5)
		}
	}))
	s.Config.ErrorLog = quiet
	s.StartTLS()
	t.Cleanup(s.Close)
	a.url = s.URL + "/dir"
	a.rootPEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	a.roots.AppendCertsFromPEM(signer.GetRootCert(0).PEM())
	return a
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// node is an edge under test.
type node struct {
	t    *testing.T
	a    *authority
	reg  *observe.Registry
	edge *edge.Edge
	end  func()
}

// serve runs an edge with documents; $URL, $CA, $HTTP and $TLS stand for the authority's.
func (a *authority) serve(data, documents string, clear, secure int) *node {
	a.t.Helper()
	n := &node{t: a.t, a: a, reg: observe.New()}
	var err error
	n.edge, err = edge.New(edge.Config{
		Data: data, CacheBytes: 1 << 20, Explain: 16, Metrics: n.reg,
		Logger: slog.New(slog.NewTextHandler(a.t.Output(), nil)),
	})
	if err != nil {
		a.t.Fatal(err)
	}
	n.apply(documents, clear, secure)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := n.edge.Run(ctx); err != nil {
			a.t.Error(err)
		}
	}()
	n.end = func() {
		cancel()
		<-done
	}
	a.t.Cleanup(n.end)
	return n
}

func (n *node) apply(documents string, clear, secure int) {
	n.t.Helper()
	path := filepath.Join(n.t.TempDir(), "documents.yaml")
	head := listeners
	if strings.Contains(documents, "onDemand") {
		head = strings.Replace(head, "tls: {}", "tls: {certificates: [le]}", 1)
	}
	if err := os.WriteFile(path, []byte(head+documents), 0o600); err != nil {
		n.t.Fatal(err)
	}
	env := map[string]string{
		"URL": n.a.url, "CA": n.a.rootPEM, "HTTP": proc.Addr(clear), "TLS": proc.Addr(secure),
	}
	b, problems := pop.Compile([]string{path}, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	if len(problems) > 0 {
		n.t.Fatal(problems)
	}
	if err := n.edge.Apply(context.Background(), b); err != nil {
		n.t.Fatal(err)
	}
}

const listeners = `apiVersion: relais/v1
kind: Listener
metadata: {name: clear}
spec: {address: "${HTTP}"}
---
apiVersion: relais/v1
kind: Listener
metadata: {name: secure}
spec: {address: "${TLS}", protocols: [http1, h2], tls: {}}
---
`

// leaf does a handshake and gives the certificate, and whether the authority's root is good for it.
func (a *authority) leaf(port int, name string) (*x509.Certificate, bool) {
	a.t.Helper()
	d := &net.Dialer{Timeout: 15 * time.Second}
	nc, err := tls.DialWithDialer(d, "tcp", proc.Addr(port), &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		a.t.Fatalf("%s: %v", name, err)
	}
	defer nc.Close()
	s := nc.ConnectionState()
	mid := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		mid.AddCert(c)
	}
	_, err = s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: a.roots, Intermediates: mid, DNSName: name})
	return s.PeerCertificates[0], err == nil
}

// await waits until the authority's certificate is shown for a name.
func (a *authority) await(port int, name string) *x509.Certificate {
	a.t.Helper()
	end := time.Now().Add(30 * time.Second)
	for {
		leaf, ok := a.leaf(port, name)
		if ok {
			return leaf
		}
		if time.Now().After(end) {
			a.t.Fatalf("%s: there is no certificate of the authority after 30 s; the last one is for %v", name, leaf.DNSNames)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (n *node) metric(line string) string {
	rec := httptest.NewRecorder()
	n.reg.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	for l := range strings.Lines(rec.Body.String()) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(l), line+" "); ok {
			return v
		}
	}
	return fmt.Sprintf("no %s", line)
}
