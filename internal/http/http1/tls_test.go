package http1

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// certificate returns a throw-away certificate.
func certificate(t *testing.T) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"h"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// tlsPair is a connected pair of TLS connections over loopback.
func tlsPair(t *testing.T) (server, client *tls.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c := dial(t, l.Addr().String())
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return tls.Server(s, &tls.Config{Certificates: []tls.Certificate{certificate(t)}}), tls.Client(c, &tls.Config{InsecureSkipVerify: true})
}

func TestTLSAnswersAndAborts(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 20<<10)
	h := handlerFunc(func(_ context.Context, r *message.Request) *message.Response {
		switch string(r.Path()) {
		case "/big":
			return text(200, big)
		case "/cut":
			return &message.Response{Status: 200, ContentLength: -1, Body: &parts{list: []string{"abc"}, err: io.ErrUnexpectedEOF}}
		}
		return text(200, "small")
	})
	s := NewServer(ServerConfig{}, h)
	srv, cli := tlsPair(t)
	ended := make(chan bool)
	go func() {
		s.ServeConn(context.Background(), srv, &message.Conn{TLS: &message.TLS{}})
		close(ended)
	}()
	cl := NewClient(ClientConfig{})
	rel := &releases{}
	cc := cl.NewConn(cli, rel)
	for _, c := range []struct {
		path, want string
		whole      bool
	}{{"/", "small", true}, {"/big", big, true}, {"/", "small", true}, {"/cut", "abc", false}} {
		req := getRequest()
		req.SetPath([]byte(c.path))
		var resp message.Response
		if err := cc.RoundTrip(t.Context(), req, &resp, Try{}); err != nil {
			t.Fatal(c.path, err)
		}
		got, err := readBody(t.Context(), resp.Body)
		resp.Body.Close(err)
		if got != c.want || (err == nil) != c.whole || errors.Is(err, io.EOF) {
			t.Errorf("%s: %d bytes, %v", c.path, len(got), err)
		}
		if c.whole && cc.Stale() {
			t.Error("stale")
		}
	}
	if rel.good != 3 || rel.bad != 1 {
		t.Errorf("%+v", rel)
	}
	<-ended
}

func TestStaleConnectionIsFoundBeforeTheBodyIsPulled(t *testing.T) {
	_, addr := listen(t, ServerConfig{Requests: 1}, handlerFunc(echo))
	for _, method := range []string{"GET", "POST"} {
		cc, rel := clientOf(t, addr)
		var resp message.Response
		_ = cc.nc.(*net.TCPConn).CloseWrite() // the server closes its side
		time.Sleep(30 * time.Millisecond)
		cc.uses = 1
		req := getRequest()
		req.SetMethod([]byte(method))
		b := &parts{list: []string{"abc"}, err: io.EOF}
		if method == "POST" {
			req.Body, req.ContentLength = b, 3
		}
		err := cc.RoundTrip(t.Context(), req, &resp, Try{})
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, ErrStale) || e.Sent || !e.Reused || len(b.list) != 1 || rel.bad != 1 {
			t.Errorf("%s: %+v, body %v, released %+v", method, e, b.list, rel)
		}
	}
}

func TestSilentTunnelIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near1, far := net.Pipe()
		defer func() { _ = far.Close() }()
		_, nc := pipe(t, ServerConfig{TunnelTimeout: 10 * time.Second}, handlerFunc(func(context.Context, *message.Request) *message.Response {
			return &message.Response{Status: 101, Upgrade: near1}
		}))
		_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		go func() {
			time.Sleep(4 * time.Second)
			_, _ = io.WriteString(far, "ping")
		}()
		got, took := rest(nc)
		if !strings.HasSuffix(got, "\r\n\r\nping") {
			t.Errorf("%q", got)
		}
		near(t, took, 14*time.Second)
	})
}

// hidden is a connection under TLS that says nothing of its socket, and counts what is written.
type hidden struct {
	net.Conn
	written *atomic.Int64
}

func (h hidden) Write(b []byte) (int, error) {
	n, err := h.Conn.Write(b)
	h.written.Add(int64(n))
	return n, err
}

// A write that was cut short ends in the middle of a record: an alert would be taken for its rest.
func TestAConnectionThatIsResetGetsNoAlert(t *testing.T) {
	known, client := tlsPair(t)
	var written atomic.Int64
	srv := tls.Server(hidden{known.NetConn(), &written}, &tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	shaken := make(chan error, 1)
	go func() { shaken <- client.Handshake() }()
	if err := cmp.Or(srv.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	before := written.Load()
	if reset(srv, nil); written.Load() != before {
		t.Error("something was written")
	}
}
