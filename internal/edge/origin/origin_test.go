package origin

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

func TestConnectionsAreUsedAgainAndTheLastFirst(t *testing.T) {
	var conns atomic.Int64
	h := newHandler(t)
	e := open(t, h, listen(t, func(nc net.Conn, r *bufio.Reader) {
		conns.Add(1)
		answering(ok("hello"))(nc, r)
	}), connection())
	x := &stage.Exchange{}
	for range 50 {
		prepare(x, "GET", "/", e)
		resp, err := h.Serve(t.Context(), x)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := read(t.Context(), resp); b != "hello" || err != nil {
			t.Fatalf("%q, %v", b, err)
		}
		x.End(message.Outcome{})
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections for 50 requests in turn", n)
	}
	if e.open != 1 || len(e.idle) != 1 {
		t.Errorf("%d open, %d idle", e.open, len(e.idle))
	}
}

func TestFaultsHaveTheirNames(t *testing.T) {
	closed := func(nc net.Conn, r *bufio.Reader) { readHead(r) }
	reset := func(nc net.Conn, r *bufio.Reader) {
		readHead(r)
		_ = nc.(*net.TCPConn).SetLinger(0)
	}
	stall := func(nc net.Conn, r *bufio.Reader) {
		readHead(r)
		_, _ = r.ReadByte()
	}
	for _, c := range []struct {
		name    string
		do      func(net.Conn, *bufio.Reader)
		address string
		change  func(*v1.ConnectionSpec, *stage.Exchange)
		code    string
		status  int
		side    stage.Side
		retry   bool
		sent    bool
	}{
		{name: "refused", address: "127.0.0.1:1", code: "connection_refused", status: 502, side: stage.SideOrigin, retry: true},
		{name: "no such name", address: "nothing.invalid:80", code: "dns_error", status: 502, side: stage.SideOrigin, retry: true},
		{
			name: "not public", do: closed, code: "destination_ip_prohibited", status: 502, side: stage.SideOrigin, retry: true,
			change: func(c *v1.ConnectionSpec, _ *stage.Exchange) { c.Public = true },
		},
		{
			name: "a name that is not public", address: "localhost:80", code: "destination_ip_prohibited", status: 502, side: stage.SideOrigin, retry: true,
			change: func(c *v1.ConnectionSpec, _ *stage.Exchange) { c.Public = true },
		},
		{name: "closed", do: closed, code: "connection_terminated", status: 502, side: stage.SideOrigin, retry: true, sent: true},
		{name: "reset", do: reset, code: "connection_terminated", status: 502, side: stage.SideOrigin, retry: true, sent: true},
		{name: "half a head", do: answeringOnce("HTTP/1.1 200 OK\r\nContent-"), code: "connection_terminated", status: 502, side: stage.SideOrigin, retry: true, sent: true},
		{name: "garbage", do: answeringOnce("SSH-2.0-OpenSSH_9.2\r\n\r\n"), code: "http_protocol_error", status: 502, side: stage.SideOrigin, retry: true, sent: true},
		{
			name: "two lengths", do: answeringOnce("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
			code: "http_protocol_error", status: 502, side: stage.SideOrigin, retry: true, sent: true,
		},
		{
			name: "an unknown transfer coding", do: answeringOnce("HTTP/1.1 200 OK\r\nTransfer-Encoding: ours, chunked\r\n\r\n0\r\n\r\n"),
			code: "http_protocol_error", status: 502, side: stage.SideOrigin, retry: true, sent: true,
		},
		{name: "a status below 100", do: answeringOnce("HTTP/1.1 099 Low\r\n\r\n"), code: "http_protocol_error", status: 502, side: stage.SideOrigin, retry: true, sent: true},
		{name: "a status above 999", do: answeringOnce("HTTP/1.1 1000 High\r\n\r\n"), code: "http_protocol_error", status: 502, side: stage.SideOrigin, retry: true, sent: true},
		{
			name: "304 to a request without a condition", do: answeringOnce("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nConnection: close\r\n\r\n"),
			code: "http_protocol_error", status: 502, side: stage.SideOrigin, sent: true,
		},
		{
			name: "a head without end", do: answeringOnce("HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 100<<10)),
			code: "http_protocol_error", status: 502, side: stage.SideOrigin, retry: true, sent: true,
		},
		{
			name: "silent", do: stall, code: "http_response_timeout", status: 504, side: stage.SideOrigin, retry: true, sent: true,
			change: func(_ *v1.ConnectionSpec, x *stage.Exchange) { x.Deadline = time.Now().Add(50 * time.Millisecond) },
		},
		{
			name: "TLS at a clear port", do: func(nc net.Conn, r *bufio.Reader) {
				_, _ = io.WriteString(nc, "HTTP/1.1 400 Bad Request\r\n\r\n")
				_, _ = io.Copy(io.Discard, r)
			}, code: "tls_protocol_error", status: 502, side: stage.SideOrigin, retry: true,
			change: func(c *v1.ConnectionSpec, _ *stage.Exchange) { c.TLS = &v1.OriginTLS{} },
		},
		{
			name: "no hands for TLS", do: stall, code: "connection_timeout", status: 504, side: stage.SideOrigin, retry: true,
			change: func(c *v1.ConnectionSpec, _ *stage.Exchange) {
				c.TLS, c.Connect = &v1.OriginTLS{}, v1.Duration(50*time.Millisecond)
			},
		},
		{
			name: "a request that is shorter than it says", do: stall, code: "http_request_error", status: 400, side: stage.SideClient, sent: true,
			change: func(_ *v1.ConnectionSpec, x *stage.Exchange) {
				x.Out.SetMethod([]byte("POST"))
				x.Out.Body, x.Out.ContentLength = &textBody{text: "abc"}, 5
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHandler(t)
			if c.address == "" {
				c.address = listen(t, c.do)
			}
			x, spec := request("GET", "/", nil), connection()
			if c.change != nil {
				c.change(spec, x)
			}
			e := open(t, h, c.address, spec)
			x.Target = e
			resp, err := h.Serve(t.Context(), x)
			if err == nil {
				t.Fatalf("an answer: %d", resp.Status)
			}
			f := stage.AsError(err)
			if f.Code != c.code || f.Status != c.status || f.Side != c.side || f.Retry != c.retry {
				t.Errorf("%s %d %v retry %v (%v); want %s %d %v retry %v", f.Code, f.Status, f.Side, f.Retry, f.Err, c.code, c.status, c.side, c.retry)
			}
			if x.Sent != c.sent && c.name != "a request that is shorter than it says" {
				t.Errorf("sent: %v", x.Sent)
			}
			x.End(message.Outcome{})
			if e.open != 0 {
				t.Errorf("%d connections are counted as open", e.open)
			}
		})
	}
}

// answeringOnce answers one request and closes.
func answeringOnce(answer string) func(net.Conn, *bufio.Reader) {
	return func(nc net.Conn, r *bufio.Reader) {
		readHead(r)
		_, _ = io.WriteString(nc, answer)
	}
}

func TestABrokenBodyIsAnErrorAndNeverWhole(t *testing.T) {
	for name, c := range map[string]struct{ answer, got, code string }{
		"short":         {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "half", "http_response_incomplete"},
		"chunks end":    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "half", "http_response_incomplete"},
		"not a chunk":   {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n", "half", "http_protocol_error"},
		"slow":          {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "half", "http_response_timeout"},
		"by the close":  {"HTTP/1.1 200 OK\r\n\r\nwhole", "whole", ""},
		"nothing after": {"HTTP/1.1 204 No Content\r\n\r\n", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHandler(t)
			spec := connection()
			do := answeringOnce(c.answer)
			if name == "slow" {
				spec.Read = v1.Duration(50 * time.Millisecond)
				do = func(nc net.Conn, r *bufio.Reader) {
					answeringOnce(c.answer)(nc, r)
					_, _ = r.ReadByte()
				}
			}
			x := request("GET", "/", open(t, h, listen(t, do), spec))
			resp, err := h.Serve(t.Context(), x)
			if err != nil {
				t.Fatal(err)
			}
			got, err := read(t.Context(), resp)
			if !strings.HasPrefix(c.got, got) || err == nil && got != c.got || (err == nil) != (c.code == "") {
				t.Fatalf("%q, %v", got, err)
			}
			if err != nil && stage.AsError(err).Code != c.code {
				t.Errorf("%v, want %s", err, c.code)
			}
			x.End(message.Outcome{})
		})
	}
}

func TestADeadIdleConnectionIsReplacedOnlyWhenARepeatDoesNoHarm(t *testing.T) {
	for _, c := range []struct {
		name         string
		method       string
		key          bool
		body         *textBody
		ok           bool
		seen, pulled int
	}{
		{name: "GET", method: "GET", ok: true, seen: 2},
		{name: "PUT that can be sent again", method: "PUT", body: &textBody{text: "abc", again: true}, ok: true, seen: 2, pulled: 2},
		{name: "PUT that cannot", method: "PUT", body: &textBody{text: "abc"}, seen: 1, pulled: 1},
		{name: "POST with a key", method: "POST", key: true, body: &textBody{text: "abc", again: true}, ok: true, seen: 2, pulled: 2},
		{name: "POST without a key", method: "POST", body: &textBody{text: "abc", again: true}, seen: 1, pulled: 1},
		{name: "POST without a key or body", method: "POST", seen: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var seen atomic.Int64
			// The origin answers the first request of a connection, reads the next and closes.
			address := listen(t, func(nc net.Conn, r *bufio.Reader) {
				for i := range 2 {
					head, isThere := readHead(r)
					if !isThere {
						return
					}
					if strings.Contains(head, "Content-Length: 3") {
						_, _ = r.Discard(3)
					}
					if !strings.Contains(head, "/first") {
						seen.Add(1)
					}
					if i == 0 {
						_, _ = io.WriteString(nc, ok("hello"))
					}
				}
			})
			h := newHandler(t)
			e := open(t, h, address, connection())
			x := request("GET", "/first", e)
			resp, err := h.Serve(t.Context(), x)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = read(t.Context(), resp)
			x.End(message.Outcome{})

			prepare(x, c.method, "/", e)
			if c.key {
				x.Out.AddString(message.IdempotencyKey, "k1")
			}
			if c.body != nil {
				x.Out.Body, x.Out.ContentLength = c.body, 3
			}
			resp, err = h.Serve(t.Context(), x)
			if (err == nil) != c.ok {
				t.Fatalf("%v", err)
			}
			if err == nil {
				if b, err := read(t.Context(), resp); b != "hello" || err != nil {
					t.Errorf("%q, %v", b, err)
				}
			} else if f := stage.AsError(err); f.Code != "connection_terminated" || !x.Sent {
				t.Errorf("%v, sent %v", f, x.Sent)
			}
			x.End(message.Outcome{})
			if n := int(seen.Load()); n != c.seen {
				t.Errorf("the origin saw it %d times, want %d", n, c.seen)
			}
			if c.body != nil && c.body.pulled != c.pulled {
				t.Errorf("the body was pulled %d times", c.body.pulled)
			}
		})
	}
}

func TestAnIdleConnectionThatWasClosedIsNotUsedForAPost(t *testing.T) {
	closed := make(chan struct{}, 8)
	var n atomic.Int64
	h := newHandler(t)
	e := open(t, h, listen(t, func(nc net.Conn, r *bufio.Reader) {
		readHead(r)
		n.Add(1)
		_, _ = io.WriteString(nc, ok("hello"))
		_ = nc.Close()
		closed <- struct{}{}
	}), connection())
	for i := range 5 {
		x := request("POST", "/", e)
		resp, err := h.Serve(t.Context(), x)
		if err != nil {
			t.Fatalf("number %d: %v", i, err)
		}
		_, _ = read(t.Context(), resp)
		x.End(message.Outcome{})
		<-closed
	}
	if n.Load() != 5 {
		t.Errorf("the origin saw %d requests, want 5", n.Load())
	}
}

func TestTooManyRequestsWaitInTurnAndNotForLong(t *testing.T) {
	release := make(chan struct{})
	h := newHandler(t)
	h.cfg.MaxWaiting = 2
	spec := connection()
	spec.MaxPerOrigin = 1
	e := open(t, h, listen(t, func(nc net.Conn, r *bufio.Reader) {
		for {
			if _, isThere := readHead(r); !isThere {
				return
			}
			<-release
			if _, err := io.WriteString(nc, ok("hello")); err != nil {
				return
			}
		}
	}), spec)
	type result struct {
		i   int
		err error
	}
	results := make(chan result, 4)
	send := func(i int, deadline time.Duration) {
		x := request("GET", "/", e)
		if deadline > 0 {
			x.Deadline = time.Now().Add(deadline)
		}
		resp, err := h.Serve(t.Context(), x)
		if err == nil {
			_, err = read(t.Context(), resp)
		}
		results <- result{i, err}
		x.End(message.Outcome{})
	}
	waiting := func(n int) {
		t.Helper()
		for range 2000 {
			e.mu.Lock()
			m, o := e.waiting.n, e.open
			e.mu.Unlock()
			if m == n && o == 1 {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatalf("never %d waiting", n)
	}
	go send(0, 0)
	waiting(0)
	go send(1, 0)
	waiting(1)
	go send(2, 30*time.Millisecond)
	waiting(2)
	send(3, 0)
	if r := <-results; r.i != 3 || stage.AsError(r.err).Code != "connection_limit_reached" || !errors.Is(r.err, errQueue) {
		t.Errorf("the queue is full: %+v", r)
	}
	if r := <-results; r.i != 2 || stage.AsError(r.err).Status != 503 || !errors.Is(r.err, errLimit) {
		t.Errorf("the wait was too long: %+v", r)
	}
	close(release)
	for range 2 { // the one may tell before the other
		if r := <-results; r.i > 1 || r.err != nil {
			t.Errorf("want numbers 0 and 1 without error: %+v", r)
		}
	}
	if e.open != 1 || len(e.idle) != 1 || e.waiting.n != 0 {
		t.Errorf("%d open, %d idle, %d waiting", e.open, len(e.idle), e.waiting.n)
	}
}

func TestAProxiedGetAllocatesNothing(t *testing.T) {
	h := newHandler(t)
	answer := []byte(ok(strings.Repeat("x", 1024)))
	address := listen(t, func(nc net.Conn, r *bufio.Reader) {
		buf := make([]byte, 4096)
		for {
			if _, err := nc.Read(buf); err != nil {
				return
			}
			if _, err := nc.Write(answer); err != nil {
				return
			}
		}
	})
	e := open(t, h, address, connection())
	x := &stage.Exchange{}
	in := &message.Request{}
	do := func() {
		x.Reset()
		x.Start, x.In, x.Target = time.Now(), in, e
		x.Out.SetMethod([]byte("GET"))
		x.Out.SetAuthority([]byte("shop.example"))
		x.Out.SetPath([]byte("/"))
		resp, err := h.Serve(t.Context(), x)
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := resp.Body.Next(t.Context()); err != nil {
				resp.Body.Close(nil)
				break
			}
		}
		x.End(message.Outcome{Status: 200})
	}
	do()
	if n := testing.AllocsPerRun(300, do); n >= 1 && !racing {
		t.Errorf("%v allocations a request", n)
	}
}

func BenchmarkProxiedGet(b *testing.B) {
	h := newHandler(b)
	answer := []byte(ok(strings.Repeat("x", 1024)))
	e := open(b, h, listen(b, func(nc net.Conn, _ *bufio.Reader) {
		buf := make([]byte, 4096)
		for {
			if _, err := nc.Read(buf); err != nil {
				return
			}
			if _, err := nc.Write(answer); err != nil {
				return
			}
		}
	}), connection())
	x := &stage.Exchange{}
	in := &message.Request{}
	b.ReportAllocs()
	for b.Loop() {
		x.Reset()
		x.Start, x.In, x.Target = time.Now(), in, e
		x.Out.SetMethod([]byte("GET"))
		x.Out.SetAuthority([]byte("shop.example"))
		x.Out.SetPath([]byte("/"))
		resp, err := h.Serve(context.Background(), x)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := read2(resp.Body); err != io.EOF {
			b.Fatal(err)
		}
		resp.Body.Close(nil)
		x.End(message.Outcome{})
	}
}

// read2 pulls a body to its end without keeping it.
func read2(b message.Body) (n int, err error) {
	for err == nil {
		var p []byte
		p, err = b.Next(context.Background())
		n += len(p)
	}
	return n, err
}
