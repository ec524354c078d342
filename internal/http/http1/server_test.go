package http1

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// parts is a body of given parts; the last comes with end, or is followed by err.
type parts struct {
	list   []string
	err    error
	mu     sync.Mutex
	closed []error
}

func (p *parts) Next(context.Context) ([]byte, error) {
	if len(p.list) == 0 {
		return nil, p.err
	}
	b := []byte(p.list[0])
	p.list = p.list[1:]
	if len(p.list) == 0 && p.err == io.EOF {
		return b, io.EOF
	}
	return b, nil
}

func (p *parts) Close(cause error) {
	p.mu.Lock()
	p.closed = append(p.closed, cause)
	p.mu.Unlock()
}

// streamed answers with a body of parts and keeps what became of it.
type streamed struct {
	length int64
	list   []string
	err    error
	trail  bool
	body   *parts
	out    chan message.Outcome
}

func (s *streamed) Serve(context.Context, *message.Request) *message.Response {
	s.body = &parts{list: s.list, err: s.err}
	r := &message.Response{Status: 200, ContentLength: s.length, Body: s.body}
	if s.trail {
		r.Trailer = &message.Fields{}
		r.Trailer.AddLine([]byte("X-Sum"), []byte("1"))
	}
	r.AddString(message.Connection, "X-Hop")
	r.AddString(message.TransferEncoding, "gzip")
	r.AddString(message.KeepAlive, "timeout=5")
	r.Ender = enderFunc(func(o message.Outcome) { s.out <- o })
	return r
}

func (s *streamed) Refuse(context.Context, *message.Conn, int, string, string) *message.Response {
	return nil
}

func TestServerFramesAnswersAnew(t *testing.T) {
	const get11, get10 = "GET / HTTP/1.1\r\nHost: h\r\n", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n"
	for _, c := range []struct {
		name    string
		in      string
		s       streamed
		want    string
		aborted bool
	}{
		{"RFC 9112 7.1 chunked", get11, streamed{length: -1, list: []string{"ab", "", "c"}, err: io.EOF}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", false},
		{"an empty chunked body", get11, streamed{length: -1, err: io.EOF}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false},
		{"Content-Length", get11, streamed{length: 3, list: []string{"ab", "c"}, err: io.EOF}, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", false},
		{"HTTP/1.0 gets no chunks", get10, streamed{length: -1, list: []string{"ab", "c"}, err: io.EOF}, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc", false},
		{"trailers for who asked", get11 + "TE: trailers\r\nConnection: TE\r\n", streamed{length: -1, list: []string{"a"}, err: io.EOF, trail: true}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n", false},
		{"no trailers for others", get11, streamed{length: -1, list: []string{"a"}, err: io.EOF, trail: true}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", false},
		{"a body that breaks", get11, streamed{length: -1, list: []string{"a"}, err: io.ErrUnexpectedEOF}, "0\r\n\r\n", true},
		{"a body that breaks, to 1.0", get10, streamed{length: -1, list: []string{"a"}, err: io.ErrUnexpectedEOF}, "", true},
		{"a body too short", get11, streamed{length: 3, list: []string{"a"}, err: io.EOF}, "", true},
		{"a body too long", get11, streamed{length: 1, list: []string{"a", "b"}, err: io.EOF}, "ab", true},
		{"HEAD does not pull", "HEAD / HTTP/1.1\r\nHost: h\r\n", streamed{length: 3, list: []string{"abc"}, err: io.EOF}, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.s.out = make(chan message.Outcome, 2)
			_, addr := listen(t, ServerConfig{}, &c.s)
			nc := dial(t, addr)
			_, _ = io.WriteString(nc, c.in+"\r\n")
			o := <-c.s.out
			_ = nc.(*net.TCPConn).CloseWrite()
			b, err := io.ReadAll(nc)
			got := undated(string(b))
			if c.aborted {
				if err == nil || o.Err == nil || c.want != "" && strings.HasSuffix(got, c.want) {
					t.Errorf("taken for whole: %q, read %v, outcome %+v", got, err, o)
				}
			} else if got != c.want || err != nil || o.Err != nil {
				t.Errorf("got %q, %v, %+v\nwant %q", got, err, o, c.want)
			}
			c.s.body.mu.Lock()
			if len(c.s.body.closed) != 1 || (c.s.body.closed[0] == nil) != (!c.aborted && c.in[0] != 'H') {
				t.Errorf("the body was closed with %v", c.s.body.closed)
			}
			c.s.body.mu.Unlock()
			if len(c.s.out) != 0 {
				t.Error("the Ender was told twice")
			}
		})
	}
}

func TestPipelinedAnswersLeaveTogetherInOrder(t *testing.T) {
	var ends []int64
	var mu sync.Mutex
	n := 0
	_, addr := listen(t, ServerConfig{}, handlerFunc(func(_ context.Context, r *message.Request) *message.Response {
		n++
		if string(r.Path()) == "/slow" {
			r.Control.MayBlock()
			mu.Lock()
			if len(ends) != n-1 {
				t.Errorf("at /slow %d of %d answers had left", len(ends), n-1)
			}
			mu.Unlock()
		}
		resp := text(200, string(r.Path()))
		resp.Ender = enderFunc(func(o message.Outcome) {
			mu.Lock()
			ends = append(ends, o.Body)
			mu.Unlock()
		})
		return resp
	}))
	var in, want strings.Builder
	for i := range 40 {
		p := "/" + strings.Repeat("x", i)
		if i == 20 {
			p = "/slow"
		}
		in.WriteString("GET " + p + " HTTP/1.1\r\nHost: h\r\n\r\n")
		want.WriteString(p)
	}
	got := talk(t, addr, in.String())
	var bodies strings.Builder
	br := bufio.NewReader(strings.NewReader(got))
	for {
		l, err := br.ReadString('\n')
		if err != nil {
			bodies.WriteString(l)
			break
		}
		if i := strings.Index(l, "HTTP/1.1"); i >= 0 {
			bodies.WriteString(l[:i])
		}
	}
	if bodies.String() != want.String() {
		t.Errorf("got %q", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ends) != 40 {
		t.Errorf("%d ends", len(ends))
	}
}

func TestPanicIsAPageOnceAndCounted(t *testing.T) {
	s, addr := listen(t, ServerConfig{}, handlerFunc(func(context.Context, *message.Request) *message.Response { panic("x") }))
	got := undated(talk(t, addr, "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"))
	if got != "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\nConnection: close\r\n\r\npanic" || s.Stats().Panics != 1 {
		t.Errorf("%q %+v", got, s.Stats())
	}
}

func TestInformComesBeforeTheAnswerAndNotToHTTP10(t *testing.T) {
	_, addr := listen(t, ServerConfig{}, handlerFunc(func(_ context.Context, r *message.Request) *message.Response {
		var f message.Fields
		f.AddString(message.Link, "</a.css>; rel=preload")
		r.Control.Inform(103, &f)
		return text(200, "")
	}))
	if got := undated(talk(t, addr, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")); got != "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" {
		t.Errorf("%q", got)
	}
	if got := undated(talk(t, addr, "GET / HTTP/1.0\r\n\r\n")); got != "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" {
		t.Errorf("%q", got)
	}
}

func TestUnreadBodies(t *testing.T) {
	_, addr := listen(t, ServerConfig{BodyBytes: 1 << 20}, handlerFunc(func(context.Context, *message.Request) *message.Response { return text(200, "") }))
	const ok, next = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	const okClose = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	for _, c := range []struct{ name, in, want string }{
		{"a short one is drained", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000) + next, ok + ok},
		{"a short chunked one is drained", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n" + strings.Repeat("x", 100000) + "\r\n0\r\n\r\n" + next, ok + ok},
		{"a long one closes", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 500000\r\n\r\n" + strings.Repeat("x", 500000) + next, okClose},
		{"one that was not asked for closes", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n" + next, okClose},
		{"over the limit is 413", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1048577\r\n\r\nxxx", "HTTP/1.1 413 Content Too Large\r\nContent-Length: 14\r\nConnection: close\r\n\r\nbody_too_large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := undated(talk(t, addr, c.in)); got != c.want {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestChunkedBodyOverTheLimitIs413(t *testing.T) {
	_, addr := listen(t, ServerConfig{BodyBytes: 10}, handlerFunc(echo))
	got := undated(talk(t, addr, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n"))
	if !strings.HasPrefix(got, "HTTP/1.1 413 ") || !strings.Contains(got, "Connection: close") {
		t.Errorf("%q", got)
	}
}

func TestResetClientEndsTheContext(t *testing.T) {
	cancelled := make(chan error, 1)
	_, addr := listen(t, ServerConfig{}, handlerFunc(func(ctx context.Context, _ *message.Request) *message.Response {
		select {
		case <-ctx.Done():
			cancelled <- ctx.Err()
		case <-time.After(5 * time.Second):
			cancelled <- nil
		}
		return text(200, "")
	}))
	c := dial(t, addr)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\n")
	time.Sleep(50 * time.Millisecond)
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
	if err := <-cancelled; err == nil {
		t.Error("the context did not end")
	}
}

// bomb is a body that panics.
type bomb struct{ parts }

func (*bomb) Next(context.Context) ([]byte, error) { panic("bomb") }

func TestPanicOfABodyAbortsItsAnswerOnly(t *testing.T) {
	b := &bomb{}
	out := make(chan message.Outcome, 2)
	s, addr := listen(t, ServerConfig{}, handlerFunc(func(_ context.Context, r *message.Request) *message.Response {
		if string(r.Path()) == "/" {
			return text(200, "alive")
		}
		return &message.Response{Status: 200, ContentLength: -1, Body: b, Ender: enderFunc(func(o message.Outcome) { out <- o })}
	}))
	if got := talk(t, addr, "GET /bomb HTTP/1.1\r\nHost: h\r\n\r\n"); got != "" {
		t.Errorf("%q", got)
	}
	if o := <-out; o.Err == nil || len(out) != 0 || len(b.closed) != 1 || s.Stats().Panics != 1 {
		t.Errorf("%+v %v %+v", o, b.closed, s.Stats())
	}
	if got := talk(t, addr, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); !strings.HasSuffix(got, "alive") {
		t.Errorf("%q", got)
	}
}

// An HTTP/2 client with a broken preface must not read an answer of HTTP/1 as frames.
func TestRFC9113Section3_4WhoNamesAnotherProtocolGetsNoAnswerBesideHTTP2(t *testing.T) {
	const line = "INVALID CONNECTION PREFACE\r\n\r\n"
	for _, tc := range []struct {
		preface  bool
		in, want string
	}{
		{true, line, ""},
		{false, line, "HTTP/1.1 400 "},
		{true, "INVALID CONNECTION\r\n\r\n", "HTTP/1.1 400 "},
		{true, "GET /a b HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		{true, "GET / HTTP/1.1\r\nHost: h\r\n\r\n" + line, "HTTP/1.1 400 "},
	} {
		s, addr := listen(t, ServerConfig{Preface: tc.preface}, handlerFunc(echo))
		c := dial(t, addr)
		_, _ = io.WriteString(c, tc.in)
		b, err := io.ReadAll(c)
		if got := string(b); err != nil || tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
			t.Errorf("preface %v, %q: got %q, then %v", tc.preface, tc.in, got, err)
		}
		if got := s.Stats().Refused; got != 1 {
			t.Errorf("preface %v, %q: %d are counted refused", tc.preface, tc.in, got)
		}
	}
}
