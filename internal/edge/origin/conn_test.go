package origin

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// certificate makes a self-signed certificate for a name and its PEM.
func certificate(t *testing.T, name string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestTLSToTheOrigin(t *testing.T) {
	cert, ca := certificate(t, "origin.example")
	_, otherCA := certificate(t, "origin.example")
	var conns, resumed atomic.Int64
	names := make(chan string, 16)
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	address := listen(t, func(nc net.Conn, _ *bufio.Reader) {
		tc := tls.Server(nc, config)
		if tc.Handshake() != nil {
			return
		}
		conns.Add(1)
		if tc.ConnectionState().DidResume {
			resumed.Add(1)
		}
		names <- tc.ConnectionState().ServerName
		answering(ok("hello"))(tc, bufio.NewReader(tc))
	})
	get := func(e *endpoint, authority string) error {
		x := request("GET", "/", e)
		x.Out.SetAuthority([]byte(authority))
		defer x.End(message.Outcome{})
		resp, err := e.h.Serve(t.Context(), x)
		if err != nil {
			return err
		}
		_, err = read(t.Context(), resp)
		return err
	}
	code := func(err error) string {
		if err == nil {
			return ""
		}
		return stage.AsError(err).Code
	}
	h := newHandler(t)
	with := func(o v1.OriginTLS) *endpoint {
		spec := connection()
		spec.TLS = &o
		return open(t, h, address, spec)
	}
	named := with(v1.OriginTLS{ServerName: "origin.example", CA: ca})
	if err := get(named, "shop.example"); err != nil {
		t.Fatal(err)
	}
	if n := <-names; n != "origin.example" {
		t.Errorf("SNI %q", n)
	}
	named.expire(named.h.clock() + int64(time.Hour))
	if err := get(named, "shop.example"); err != nil || resumed.Load() != 1 {
		t.Errorf("%v; %d sessions resumed, want 1", err, resumed.Load())
	}
	<-names
	if c := code(get(with(v1.OriginTLS{ServerName: "origin.example", CA: otherCA}), "a")); c != "tls_certificate_error" {
		t.Errorf("unknown authority: %s", c)
	}
	if c := code(get(with(v1.OriginTLS{ServerName: "else.example", CA: ca}), "a")); c != "tls_certificate_error" {
		t.Errorf("other name: %s", c)
	}
	if c := code(get(with(v1.OriginTLS{InsecureSkipVerify: true}), "a.example:8443")); c != "" {
		t.Errorf("without verification: %s", c)
	}
	if n := <-names; n != "a.example" {
		t.Errorf("SNI %q, want the request's host", n)
	}
	// The request's host is sent and checked, and a connection serves one host only.
	conns.Store(0)
	byHost := with(v1.OriginTLS{CA: ca})
	if c := code(get(byHost, "origin.example")); c != "" {
		t.Errorf("request's host: %s", c)
	}
	if c := code(get(byHost, "other.example")); c != "tls_certificate_error" {
		t.Errorf("another host on the same pool: %s", c)
	}
	if c := code(get(byHost, "origin.example:443")); c != "" || conns.Load() != 1 {
		t.Errorf("the first host again: %s, %d connections", c, conns.Load())
	}
	if _, err := h.Open("org/pool", address, &v1.ConnectionSpec{TLS: &v1.OriginTLS{CA: "nonsense"}}); err == nil {
		t.Error("a CA without a certificate was accepted")
	}
}

// control records what is told to the client before the answer.
type control struct{ informed []string }

func (c *control) Inform(status int, f *message.Fields) {
	c.informed = append(c.informed, string(f.Get(message.Link)))
}
func (c *control) MayBlock() {}

func TestInterimAnswersPassOn(t *testing.T) {
	h := newHandler(t)
	x := request("GET", "/", open(t, h, listen(t, answering("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"+ok("hello"))), connection()))
	c := &control{}
	x.In.Control = c
	resp, err := h.Serve(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := read(t.Context(), resp); b != "hello" || err != nil || len(c.informed) != 1 || c.informed[0] != "</a.css>" {
		t.Errorf("%q %v %v", b, err, c.informed)
	}
	x.End(message.Outcome{})
}

func TestUpgradePassesThrough(t *testing.T) {
	h := newHandler(t)
	e := open(t, h, listen(t, func(nc net.Conn, r *bufio.Reader) {
		head, _ := readHead(r)
		if !strings.Contains(head, "Upgrade: echo\r\n") {
			return
		}
		_, _ = io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(nc, r)
	}), connection())
	x := request("GET", "/", e)
	x.Out.AddString(message.Upgrade, "echo")
	resp, err := h.Serve(t.Context(), x)
	if err != nil || resp.Status != 101 || resp.Upgrade == nil {
		t.Fatalf("%+v, %v", resp, err)
	}
	_, _ = io.WriteString(resp.Upgrade, "ping")
	b := make([]byte, 4)
	if _, err := io.ReadFull(resp.Upgrade, b); err != nil || string(b) != "ping" {
		t.Errorf("%q, %v", b, err)
	}
	_ = resp.Upgrade.Close()
	x.End(message.Outcome{})
	if e.open != 0 {
		t.Errorf("%d open", e.open)
	}
}

func TestH2CIsNotAskedFor(t *testing.T) {
	for value, ok := range map[string]bool{"websocket": true, "h2c": false, "H2C": false, "websocket, h2c": false, "HTTP/2.0": false} {
		if mayUpgrade([]byte(value)) != ok {
			t.Errorf("%q: %v", value, !ok)
		}
	}
	h := newHandler(t)
	heads := make(chan string, 1)
	x := request("GET", "/", open(t, h, listen(t, func(nc net.Conn, r *bufio.Reader) {
		head, _ := readHead(r)
		heads <- head
		_, _ = io.WriteString(nc, ok("hello"))
	}), connection()))
	x.Out.AddString(message.Upgrade, "h2c")
	if _, err := h.Serve(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	if head := <-heads; strings.Contains(strings.ToLower(head), "upgrade") {
		t.Errorf("%q", head)
	}
	x.End(message.Outcome{})
}

func TestATrailerOutlivesItsConnection(t *testing.T) {
	h := newHandler(t)
	e := open(t, h, listen(t, answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: ETag\r\n\r\n5\r\nhello\r\n0\r\nETag: \"1\"\r\n\r\n")), connection())
	x, y := request("GET", "/", e), request("GET", "/", e)
	resp, err := h.Serve(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := read(t.Context(), resp); b != "hello" || err != nil {
		t.Fatal(b, err)
	}
	other, err := h.Serve(t.Context(), y)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Trailer == nil || string(resp.Trailer.Get(message.ETag)) != `"1"` {
		t.Errorf("trailer: %v", resp.Trailer)
	}
	other.Body.Close(io.ErrClosedPipe)
	x.End(message.Outcome{})
	y.End(message.Outcome{})
}

func TestIdleConnectionsEnd(t *testing.T) {
	h := newHandler(t)
	spec := connection()
	spec.MaxIdlePerOrigin = new(2)
	address := listen(t, answering(ok("hello")))
	e := open(t, h, address, spec)
	burst := func() {
		t.Helper()
		var held []*stage.Exchange
		for range 4 {
			x := request("GET", "/", e)
			if _, err := h.Serve(t.Context(), x); err != nil {
				t.Fatal(err)
			}
			held = append(held, x)
		}
		for _, x := range held {
			w := x.Local[3].(*work)
			if _, err := read(t.Context(), &w.resp); err != nil {
				t.Fatal(err)
			}
			x.End(message.Outcome{})
		}
	}
	burst()
	if e.open != 2 || len(e.idle) != 2 {
		t.Errorf("%d open, %d idle, want 2 and 2", e.open, len(e.idle))
	}
	e.expire(h.clock() + int64(spec.Idle) - int64(5*time.Second))
	if len(e.idle) != 2 {
		t.Errorf("%d idle before the time for it", len(e.idle))
	}
	e.expire(h.clock() + int64(spec.Idle))
	if e.open != 0 || len(e.idle) != 0 {
		t.Errorf("%d open, %d idle after the time for it", e.open, len(e.idle))
	}
	burst()
	x := request("GET", "/", e)
	resp, err := h.Serve(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	h.Close(e)
	if e.open != 1 || len(e.idle) != 0 {
		t.Errorf("%d open, %d idle after Close, want the busy one", e.open, len(e.idle))
	}
	if b, err := read(t.Context(), resp); b != "hello" || err != nil {
		t.Errorf("a request under way was disturbed: %q, %v", b, err)
	}
	x.End(message.Outcome{})
	if e.open != 0 {
		t.Errorf("%d open", e.open)
	}
	burst()
	if e.open != 0 {
		t.Errorf("a closed target kept %d connections", e.open)
	}
}

func TestABodyThatNobodyClosedEndsWithTheExchange(t *testing.T) {
	h := newHandler(t)
	e := open(t, h, listen(t, answering(ok(strings.Repeat("x", 1<<20)))), connection())
	x := request("GET", "/", e)
	resp, err := h.Serve(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = resp.Body.Next(t.Context())
	x.End(message.Outcome{})
	if e.open != 0 {
		t.Errorf("%d open", e.open)
	}
}

func TestTheVisitorGoesAway(t *testing.T) {
	h := newHandler(t)
	e := open(t, h, listen(t, func(_ net.Conn, r *bufio.Reader) {
		readHead(r)
		_, _ = r.ReadByte()
	}), connection())
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	x := request("GET", "/", e)
	_, err := h.Serve(ctx, x)
	if f := stage.AsError(err); f.Side != stage.SideClient || f.Retry {
		t.Errorf("%+v", f)
	}
	x.End(message.Outcome{})
}

func TestProbe(t *testing.T) {
	h := newHandler(t)
	heads := make(chan string, 1)
	e := open(t, h, listen(t, func(nc net.Conn, r *bufio.Reader) {
		head, _ := readHead(r)
		heads <- head
		_, _ = io.WriteString(nc, "HTTP/1.1 418 I'm a teapot\r\nContent-Length: 100000\r\n\r\n")
	}), connection())
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err := h.Probe(ctx, e, "shop.example", &v1.HealthSpec{Path: "/healthz?deep=1", Statuses: []string{"418"}})
	if err != nil {
		t.Error(err)
	}
	if head := <-heads; !strings.HasPrefix(head, "GET /healthz?deep=1 HTTP/1.1\r\nHost: shop.example\r\n") {
		t.Errorf("%q", head)
	}
	spec := connection()
	spec.Public = true
	if err := h.Probe(ctx, open(t, h, "127.0.0.1:80", spec), "a", &v1.HealthSpec{Path: "/"}); stage.AsError(err).Code != "destination_ip_prohibited" {
		t.Errorf("%v", err)
	}
}

func TestAProbeAsksNoMetadataAddress(t *testing.T) {
	h := newHandler(t)
	for _, health := range []v1.HealthSpec{{Path: "/latest/meta-data/"}, {Connect: true}} {
		for _, address := range []string{"169.254.169.254:80", "[fd00:ec2::254]:80", "100.100.100.200:80"} {
			err := h.Probe(t.Context(), open(t, h, address, connection()), "a", &health)
			if stage.AsError(err).Code != "destination_ip_prohibited" {
				t.Errorf("%s: %v", address, err)
			}
		}
	}
}
