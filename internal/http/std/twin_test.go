package std

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// twin is a handler of a function.
type twin func(ctx context.Context, r *message.Request) *message.Response

func (f twin) Serve(ctx context.Context, r *message.Request) *message.Response { return f(ctx, r) }

func (f twin) Refuse(_ context.Context, _ *message.Conn, status int, code, _ string) *message.Response {
	return twinText(status, code)
}

func twinText(status int, s string) *message.Response {
	r := &message.Response{Status: status}
	r.SetBytes([]byte(s))
	return r
}

// serveTwin serves f as HTTP/1 on one connection and returns the client's end.
func serveTwin(t *testing.T, f twin) *net.TCPConn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(Config{Timeouts: Timeouts{Header: 5 * time.Second, Body: 5 * time.Second, Write: 5 * time.Second, Idle: 5 * time.Second}}, f)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer ln.Close()
		if nc, err := ln.Accept(); err == nil {
			s.ServeHTTP1(context.Background(), nc, &message.Conn{})
		}
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	t.Cleanup(func() {
		_ = c.Close()
		<-ended
	})
	return c.(*net.TCPConn)
}

func TestAsOurOwnCoreAnswers(t *testing.T) {
	trailer := func(r *message.Request) *message.Response {
		resp := &message.Response{Status: 200, ContentLength: -1, Body: &twinBody{pieces: []string{"ab"}}, Trailer: &message.Fields{}}
		resp.Trailer.AddLine([]byte("X-Sum"), []byte("1"))
		return resp
	}
	upgrade := func(r *message.Request) *message.Response {
		return twinText(200, string(r.Get(message.Upgrade)))
	}
	pull := func(r *message.Request) *message.Response {
		for {
			_, err := r.Body.Next(context.Background())
			var b *message.BodyError
			switch {
			case errors.As(err, &b):
				return twinText(b.Status, b.Code)
			case err == io.EOF:
				return twinText(200, "whole")
			case err != nil:
				return twinText(502, err.Error())
			}
		}
	}
	plain := func(*message.Request) *message.Response { return twinText(200, "") }
	tests := []struct {
		name, raw string
		serve     func(*message.Request) *message.Response
		want      string // in what comes
		not       string
	}{
		{"RFC 9110 section 6.5.1: no trailer unasked", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", trailer, "200 OK", "X-Sum"},
		{"RFC 9110 section 6.5.1: a trailer to who asks", "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n", trailer, "X-Sum: 1", ""},
		{"RFC 9110 section 7.8: no Upgrade on HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", upgrade, "200 OK", "echo"},
		{"RFC 9110 section 7.8: no Upgrade without Connection", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\n\r\n", upgrade, "200 OK", "echo"},
		{"RFC 9110 section 7.8: Upgrade", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", upgrade, "\r\n\r\necho", ""},
		{"RFC 9112 section 7.1.2: a bad trailer is the client's fault", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum\r\n\r\n", pull, "body_malformed", ""},
		{"RFC 9112 section 8: a trailer cut short is the client's fault", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-S", pull, "400 Bad Request", ""},
		{"RFC 9112 section 2.3: another minor version", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", plain, "505 ", ""},
		{"RFC 9112 section 3: a long method", strings.Repeat("M", 40) + " / HTTP/1.1\r\nHost: a\r\n\r\n", plain, "501 ", ""},
		{"RFC 9110 section 4.2.4: user information", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", plain, "400 ", ""},
		{"RFC 9110 section 4.2.1: no host", "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", plain, "400 ", ""},
		{"RFC 9110 section 8.6: the length of nothing to HEAD", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", plain, "Content-Length: 0", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := serveTwin(t, func(_ context.Context, r *message.Request) *message.Response { return tt.serve(r) })
			_, _ = io.WriteString(c, tt.raw)
			_ = c.CloseWrite()
			b, err := io.ReadAll(c)
			if err != nil || !strings.Contains(string(b), tt.want) || tt.not != "" && strings.Contains(string(b), tt.not) {
				t.Errorf("%q, then %v", b, err)
			}
		})
	}
}

// twinBody is a body of pieces that ends well, or with err.
type twinBody struct {
	pieces []string
	err    error
}

func (b *twinBody) Next(context.Context) ([]byte, error) {
	if len(b.pieces) == 0 {
		if b.err != nil {
			return nil, b.err
		}
		return nil, io.EOF
	}
	p := b.pieces[0]
	b.pieces = b.pieces[1:]
	return []byte(p), nil
}

func (b *twinBody) Close(error) {}

// An answer that the end of the connection ends must not look whole when it broke off.
func TestRFC9112Section8BrokenAnswerThatTheConnectionEndsIsReset(t *testing.T) {
	c := serveTwin(t, func(context.Context, *message.Request) *message.Response {
		return &message.Response{Status: 200, ContentLength: -1, Body: &twinBody{pieces: []string{"ab"}, err: errors.New("it broke")}}
	})
	_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
	if b, err := io.ReadAll(c); err == nil {
		t.Errorf("%q, and then an end in good order", b)
	}
}

func TestABodyThatNobodyPulledDoesNotEndTheConnection(t *testing.T) {
	// A chunked body ends it in any case: see content.
	for _, framing := range []string{"Content-Length: 5\r\n\r\n12345"} {
		c := serveTwin(t, func(context.Context, *message.Request) *message.Response { return twinText(403, "no") })
		br := bufio.NewReader(c)
		for range 3 {
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\n"+framing)
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatalf("%q: %v", framing, err)
			}
			if _, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 403 || resp.Close {
				t.Errorf("%q: %d, close %v, %v", framing, resp.StatusCode, resp.Close, err)
			}
		}
	}
}

// What remains of a broken body must never be read as a request.
func TestABrokenBodyThatNobodyPulledEndsTheConnection(t *testing.T) {
	asked := make(chan string, 2)
	c := serveTwin(t, func(_ context.Context, r *message.Request) *message.Response {
		asked <- string(r.Path())
		return twinText(403, "no")
	})
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n")
	_ = c.CloseWrite()
	b, _ := io.ReadAll(c)
	if strings.Count(string(b), "HTTP/1.1 ") != 1 || len(asked) != 1 {
		t.Errorf("asked %d times: %q", len(asked), b)
	}
}

// A try at the origin that is given up does not spoil the body for the next one.
func TestAPullThatWasGivenUpCanGoOn(t *testing.T) {
	given := make(chan struct{})
	c := serveTwin(t, func(ctx context.Context, r *message.Request) *message.Response {
		for range 50 {
			try, giveUp := context.WithCancel(ctx)
			go giveUp()
			if _, err := r.Body.Next(try); !errors.Is(err, context.Canceled) {
				return twinText(500, "not given up")
			}
		}
		close(given)
		for {
			if _, err := r.Body.Next(ctx); err == io.EOF {
				return twinText(200, "whole")
			} else if err != nil {
				return twinText(502, err.Error())
			}
		}
	})
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\n")
	<-given
	_, _ = io.WriteString(c, "12345")
	if b, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(b), "whole") {
		t.Errorf("%q, then %v", b, err)
	}
}
