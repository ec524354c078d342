package http1

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// handlerFunc is a Handler of a function; refusals get the plain page.
type handlerFunc func(ctx context.Context, r *message.Request) *message.Response

func (f handlerFunc) Serve(ctx context.Context, r *message.Request) *message.Response {
	return f(ctx, r)
}

func (f handlerFunc) Refuse(_ context.Context, _ *message.Conn, status int, code, _ string) *message.Response {
	return text(status, code)
}

func text(status int, s string) *message.Response {
	r := &message.Response{Status: status}
	r.SetBytes([]byte(s))
	return r
}

// listen serves h on loopback for the test and returns the address.
func listen(t testing.TB, cfg ServerConfig, h Handler) (*Server, string) {
	t.Helper()
	s := NewServer(cfg, h)
	return s, s.listen(t)
}

// listen serves on loopback for the test and returns the address.
func (s *Server) listen(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { _ = s.Run(ctx); close(ended) }()
	facts := &message.Conn{}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.ServeConn(ctx, c, facts)
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		cancel()
		<-ended
		for range 200 {
			if s.Conns() == 0 {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Errorf("%d connections are left", s.Conns())
	})
	return l.Addr().String()
}

func dial(t testing.TB, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// talk sends raw, then the end if half, and returns all that comes until the end.
func talk(t testing.TB, addr, raw string) string {
	t.Helper()
	c := dial(t, addr)
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	b, _ := io.ReadAll(bufio.NewReader(c))
	return string(b)
}

// undated removes the Date lines of answers.
func undated(s string) string {
	for {
		i := strings.Index(s, "Date: ")
		if i < 0 {
			return s
		}
		s = s[:i] + s[i+len("Date: Mon, 02 Jan 2006 15:04:05 GMT\r\n"):]
	}
}

func readBody(ctx context.Context, b message.Body) (string, error) {
	var out []byte
	if b == nil {
		return "", nil
	}
	for {
		p, err := b.Next(ctx)
		out = append(out, p...)
		if err == io.EOF {
			return string(out), nil
		}
		if err != nil {
			return string(out), err
		}
	}
}

// echo answers with the method, the target, and the body.
func echo(ctx context.Context, r *message.Request) *message.Response {
	b, err := readBody(ctx, r.Body)
	if err != nil {
		return text(err.(*message.BodyError).Status, err.Error())
	}
	return text(200, string(r.MethodName())+" "+string(r.Path())+" "+b)
}

func TestServerAnswers(t *testing.T) {
	_, addr := listen(t, ServerConfig{}, handlerFunc(echo))
	for _, c := range []struct{ name, in, want string }{
		{"GET then end of the client's side", "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nGET /a "},
		{"HEAD", "HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n"},
		{
			"HTTP/1.0 closes", "GET /a HTTP/1.0\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nGET /a ",
		},
		{
			"HTTP/1.0 keep-alive", "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: keep-alive\r\n\r\nGET /a ",
		},
		{
			"pipeline with bodies", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcPOST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\nGET /c HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nPOST /a abcHTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nPOST /b abcHTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nGET /c ",
		},
		{
			"100-continue", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
			"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nPOST /a abc",
		},
		{
			"truncated body", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc",
			"HTTP/1.1 400 Bad Request\r\nContent-Length: 28\r\nConnection: close\r\n\r\nrequest body: body_truncated",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := undated(talk(t, addr, c.in)); got != c.want {
				t.Errorf("got\n%q\nwant\n%q", got, c.want)
			}
		})
	}
}

// origin is a proxy's handler: it forwards to addr over one connection at a time.
type proxy struct {
	cl   *Client
	addr string
	idle chan *ClientConn
	free chan *hop
}

type hop struct {
	p    *proxy
	out  message.Request
	resp message.Response
}

func (h *hop) End(message.Outcome) { h.p.free <- h }

func newProxy(t testing.TB, addr string) *proxy {
	p := &proxy{cl: NewClient(ClientConfig{}), addr: addr, idle: make(chan *ClientConn, 256), free: make(chan *hop, 256)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { _ = p.cl.Run(ctx); close(ended) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		for {
			select {
			case c := <-p.idle:
				_ = c.Close()
				continue
			default:
			}
			break
		}
	})
	return p
}

func (p *proxy) Release(c *ClientConn, reusable bool) {
	if reusable {
		p.idle <- c
	}
}

func (p *proxy) conn() (*ClientConn, error) {
	for {
		select {
		case c := <-p.idle:
			if !c.Stale() {
				return c, nil
			}
			_ = c.Close()
			continue
		default:
		}
		nc, err := net.Dial("tcp", p.addr)
		if err != nil {
			return nil, err
		}
		return p.cl.NewConn(nc, p), nil
	}
}

func (p *proxy) Serve(ctx context.Context, r *message.Request) *message.Response {
	var h *hop
	select {
	case h = <-p.free:
	default:
		h = &hop{p: p}
	}
	if r.Control != nil {
		r.Control.MayBlock()
	}
	h.out.CopyFrom(r)
	up := r.Has(message.Upgrade)
	StripConnection(&h.out.Fields)
	if v := r.Get(message.Upgrade); up {
		h.out.Add(message.Upgrade, v)
	}
	h.out.AddString(message.Via, "1.1 relais")
	if r.Method == message.CONNECT {
		return text(405, "no")
	}
	c, err := p.conn()
	if err == nil {
		err = c.RoundTrip(ctx, &h.out, &h.resp, Try{Inform: r.Control, Upgrade: up})
	}
	if err != nil {
		return text(502, err.Error())
	}
	h.resp.Ender = h
	return &h.resp
}

func (p *proxy) Refuse(_ context.Context, _ *message.Conn, status int, code, _ string) *message.Response {
	return text(status, code)
}

func TestProxyCarriesEverything(t *testing.T) {
	_, origin := listen(t, ServerConfig{}, handlerFunc(echo))
	_, addr := listen(t, ServerConfig{}, newProxy(t, origin))
	big := strings.Repeat("0123456789abcdef", 40<<10)
	for range 3 {
		for _, c := range []struct{ in, want string }{
			{"GET /a HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nGET /a "},
			{"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nPOST /a abc"},
			{"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 655360\r\n\r\n" + big, "HTTP/1.1 200 OK\r\nContent-Length: 655368\r\n\r\nPOST /a " + big},
			{"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\na0000\r\n" + big + "\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 655368\r\n\r\nPOST /a " + big},
			{"POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nPOST /a abc"},
		} {
			got := undated(talk(t, addr, c.in))
			if got != c.want {
				t.Errorf("in %.60q\ngot  %.200q\nwant %.200q", c.in, got, c.want)
			}
		}
	}
}
