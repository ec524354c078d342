package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/relais-edge/relais/internal/document"
	"github.com/relais-edge/relais/internal/observe"
)

// bed is an edge with all its stages, listeners and an origin that the test plays.
type bed struct {
	*Edge
	t       *testing.T
	origin  string
	metrics *observe.Registry
}

const listeners = `
apiVersion: relais/v1
kind: Listener
metadata: {name: web}
spec: {address: "127.0.0.1:0"}
---
apiVersion: relais/v1
kind: Listener
metadata: {name: web-tls}
spec: {address: "127.0.0.1:0", tls: {}}
---
apiVersion: relais/v1
kind: Listener
metadata: {name: web-std}
spec: {address: "127.0.0.1:0", engine: std}
---
`

// newBed starts an edge with documents, in which ORIGIN is the address of h.
func newBed(t *testing.T, h http.HandlerFunc, docs string, with ...func(*Config)) *bed {
	t.Helper()
	m := observe.New()
	cfg := Config{
		Data: t.TempDir(), AccessLog: io.Discard, CacheBytes: 16 << 20, Explain: 64, Logger: slog.New(slog.DiscardHandler), Metrics: m,
	}
	for _, f := range with {
		f(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	b := &bed{Edge: e, t: t, origin: newOrigin(t, h), metrics: m}
	b.apply(docs)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return b
}

// newOrigin starts a server and returns its host:port.
func newOrigin(t *testing.T, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return strings.TrimPrefix(s.URL, "http://")
}

// apply puts documents in service.
func (b *bed) apply(docs string) {
	b.t.Helper()
	set, problems := document.Read([]document.File{{Name: "edge.yaml", Text: []byte(listeners + docs)}}, func(name string) (string, bool) {
		return b.origin, name == "ORIGIN"
	})
	bundle, more := set.Compile()
	for _, p := range append(problems, more...) {
		b.t.Fatal(p)
	}
	if err := b.Apply(b.t.Context(), bundle); err != nil {
		b.t.Fatal(err)
	}
}

// base is the beginning of the URLs of a protocol.
func (b *bed) base(proto string) string {
	key, scheme := "default/web", "http://"
	switch proto {
	case "https", "h2", "h3":
		key, scheme = "default/web-tls", "https://"
	case "std":
		key = "default/web-std"
	}
	return scheme + b.listen.Addrs()[key].String()
}

// clientOf speaks one protocol: http1, https, h2c, h2, h3, or std for HTTP/1.1 to the other engine.
func clientOf(t *testing.T, proto string) *http.Client {
	conf := &tls.Config{InsecureSkipVerify: true}
	var tr http.RoundTripper
	if proto == "h3" {
		h := &http3.Transport{TLSClientConfig: conf, DisableCompression: true}
		t.Cleanup(func() { h.Close() })
		tr = h
	} else {
		p := new(http.Protocols)
		p.SetHTTP1(proto == "http1" || proto == "https" || proto == "std")
		p.SetHTTP2(proto == "h2")
		p.SetUnencryptedHTTP2(proto == "h2c")
		h := &http.Transport{Protocols: p, TLSClientConfig: conf, DisableCompression: true, DialContext: (&net.Dialer{}).DialContext}
		t.Cleanup(h.CloseIdleConnections)
		tr = h
	}
	return &http.Client{Transport: tr, Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// send asks and returns the answer with its whole body. Fields are "Name: value".
func (b *bed) send(proto, method, path string, body io.Reader, fields ...string) (*http.Response, string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.base(proto)+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range fields {
		n, v, _ := strings.Cut(f, ": ")
		req.Header.Add(n, v)
	}
	resp, err := clientOf(b.t, proto).Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp, string(text)
}

func (b *bed) get(proto, path string, fields ...string) (*http.Response, string) {
	b.t.Helper()
	return b.send(proto, "GET", path, nil, fields...)
}

// scrape lends the metrics as text.
func (b *bed) scrape() string {
	w := httptest.NewRecorder()
	b.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	return w.Body.String()
}

const pool = `
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: shop}
spec: {tiers: [{origins: [{address: "${ORIGIN}"}]}]}
`
