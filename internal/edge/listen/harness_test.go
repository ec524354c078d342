package listen

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
	"go.uber.org/goleak"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/acme"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers with what it was asked.
type echo struct {
	m    *Manager
	mu   sync.Mutex
	ends map[string]int
	gate chan struct{} // when not nil, /wait waits for it
	in   chan struct{} // told when /wait has come
	far  chan net.Conn // the other side of /tunnel
}

func (h *echo) Serve(ctx context.Context, req *message.Request) *message.Response {
	resp := &message.Response{Status: 200, ContentLength: -1, Ender: ender(func(o message.Outcome) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.ends == nil {
			h.ends = map[string]int{}
		}
		h.ends[fmt.Sprintf("%d %v", o.Status, o.Err)]++
	})}
	resp.AddString(message.ContentType, "text/plain")
	switch path := string(req.Path()); path {
	case "/wait":
		h.in <- struct{}{}
		<-h.gate
	case "/client":
		a := h.m.Listener(req.Conn.Listener)
		resp.SetBytes([]byte(a.Client(req).String()))
		return resp
	case "/stream":
		resp.Body = &ticks{n: 3}
		return resp
	case "/short":
		resp.ContentLength = 10
		resp.Body = &ticks{n: 1}
		return resp
	case "/break":
		resp.Body = &ticks{n: 2, err: io.ErrUnexpectedEOF}
		return resp
	case "/tunnel": // whose other side says nothing
		near, far := net.Pipe()
		resp.Status, resp.Upgrade = 101, near
		h.far <- far
		return resp
	case "/empty":
		resp.Status, resp.ContentLength = 204, 0
		return resp
	case "/trailer":
		resp.Trailer = new(message.Fields)
		resp.Body = &ticks{n: 1, end: func() { resp.Trailer.AddLine([]byte("X-Sum"), []byte("42")) }}
		return resp
	case "/hint":
		f := new(message.Fields)
		f.AddString(message.Link, "</a.css>; rel=preload")
		req.Control.Inform(103, f)
	case "/panic":
		panic("on purpose")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s %s", req.MethodName(), req.Authority(), req.Path())
	if req.HasQuery() {
		fmt.Fprintf(&b, " query=%s", req.Query())
	}
	var fields []string
	for i := range req.Len() {
		id, name, value := req.At(i)
		switch id {
		case message.Host, message.AcceptEncoding, message.UserAgent, message.TransferEncoding, message.TE, message.Trailer:
		default:
			fields = append(fields, strings.ToLower(string(name))+"="+string(value))
		}
	}
	slices.Sort(fields)
	fmt.Fprintf(&b, " fields=%s length=%d", fields, req.ContentLength)
	if req.Body != nil {
		n, err := 0, error(nil)
		var sum bytes.Buffer
		for err == nil {
			var c []byte
			c, err = req.Body.Next(ctx)
			n += len(c)
			sum.Write(c[:min(len(c), 8)])
		}
		req.Body.Close(nil)
		fmt.Fprintf(&b, " body=%d %v", n, err)
		if v := req.Trailer.Lookup("X-Sum"); v != nil {
			fmt.Fprintf(&b, " sum=%s", v)
		}
	}
	resp.SetBytes(b.Bytes())
	return resp
}

func (h *echo) Refuse(_ context.Context, _ *message.Conn, status int, code, _ string) *message.Response {
	resp := &message.Response{Status: status}
	resp.SetBytes([]byte(code))
	return resp
}

func (h *echo) ended(outcome string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ends[outcome]
}

type ender func(message.Outcome)

func (e ender) End(o message.Outcome) { e(o) }

// ticks is a body of n chunks.
type ticks struct {
	n   int
	err error
	end func()
}

func (b *ticks) Next(context.Context) ([]byte, error) {
	if b.n == 0 {
		if b.err != nil {
			return nil, b.err
		}
		if b.end != nil {
			b.end()
		}
		return nil, io.EOF
	}
	b.n--
	return []byte("tick\n"), nil
}

func (b *ticks) Close(error) {}

// rig is a Manager that runs.
type rig struct {
	t    testing.TB
	m    *Manager
	h    *echo
	ca   *acme.CA
	reg  *observe.Registry
	stop context.CancelFunc
	done chan struct{}
}

func newRig(t testing.TB) *rig {
	t.Helper()
	ca, err := acme.OpenCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, ca: ca, h: &echo{}, reg: observe.New(), done: make(chan struct{})}
	r.m = New(Config{Handler: r.h, Authority: ca, Metrics: r.reg})
	r.h.m = r.m
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() {
		defer close(r.done)
		if err := r.m.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-r.done
	})
	return r
}

// listener is a listener with the defaults of the documents.
func listener(name string, change ...func(*v1.ListenerSpec)) bundle.Listener {
	l := bundle.Listener{Key: bundle.NewKey("demo", name)}
	s := &l.Spec
	s.Address = "127.0.0.1:0"
	s.Engine = v1.EngineRelais
	s.Limits = v1.ListenerLimits{
		Connections: 1000, HeaderBytes: 32 << 10, HeaderFields: 128, TargetBytes: 8 << 10, BodyBytes: new(v1.Size(1 << 20)), Streams: 128,
	}
	sec := v1.Duration(time.Second)
	s.Timeouts = v1.ListenerTimeouts{Handshake: 10 * sec, Header: 10 * sec, Body: 30 * sec, Write: 30 * sec, Idle: 75 * sec, Drain: new(30 * sec)}
	for _, c := range change {
		c(s)
	}
	return l
}

func withTLS(s *v1.ListenerSpec) { s.TLS = &v1.ListenerTLS{} }

func withStd(s *v1.ListenerSpec) { s.Engine = v1.EngineStd }

func (r *rig) apply(listeners ...bundle.Listener) {
	r.t.Helper()
	if err := r.m.Apply(listeners, nil); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) addr(name string) string {
	r.t.Helper()
	a := r.m.Addrs()["demo/"+name]
	if a == nil {
		r.t.Fatalf("listener %s has no address", name)
	}
	return a.String()
}

func (r *rig) roots() *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.ca.CertPEM())
	return &tls.Config{RootCAs: pool}
}

// client speaks one protocol only.
func (r *rig) client(proto string) *http.Client {
	t := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: r.roots(), DisableCompression: true, ExpectContinueTimeout: 5 * time.Second, MaxIdleConnsPerHost: 100}
	switch proto {
	case "http1":
		t.Protocols.SetHTTP1(true)
	case "h2":
		t.Protocols.SetHTTP2(true)
	case "h2c":
		t.Protocols.SetUnencryptedHTTP2(true)
	case "h3":
		t := &http3.Transport{TLSClientConfig: r.roots(), DisableCompression: true}
		r.t.Cleanup(func() { _ = t.Close() })
		return &http.Client{Transport: t, Timeout: 20 * time.Second}
	}
	r.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 20 * time.Second}
}

// raw sends bytes and returns all that comes back until the connection is closed.
func (r *rig) raw(addr, text string) string {
	r.t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return err.Error() // closed as soon as it was accepted
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(nc, text); err != nil {
		return err.Error()
	}
	b, err := io.ReadAll(nc)
	if err != nil && len(b) == 0 {
		return err.Error()
	}
	return string(b)
}

func (r *rig) dial(addr string) net.Conn {
	r.t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		r.t.Fatal(err)
	}
	return nc
}
