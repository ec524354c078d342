package http1

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// rawOrigin answers each connection with f.
func rawOrigin(t *testing.T, f func(c net.Conn, br *bufio.Reader)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				f(c, bufio.NewReader(c))
			})
		}
	})
	return l.Addr().String()
}

func skipHead(br *bufio.Reader) string {
	var s string
	for {
		l, err := br.ReadString('\n')
		if s += l; err != nil || l == "\r\n" {
			return s
		}
	}
}

func clientOf(t *testing.T, addr string) (*ClientConn, *releases) {
	p := newProxy(t, addr)
	nc := dial(t, addr)
	_ = nc.SetDeadline(time.Time{})
	rel := &releases{}
	cc := p.cl.NewConn(nc, rel)
	t.Cleanup(func() { _ = cc.Close() })
	return cc, rel
}

func TestClientReadsAnswers(t *testing.T) {
	for _, c := range []struct {
		name, answer string
		status       int
		body         string
		bad          string // part of the error
		reusable     bool
	}{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, "abc", "", true},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\nX: y\r\n\r\n", 200, "abc", "", true},
		{"none", "HTTP/1.1 204 No Content\r\n\r\n", 204, "", "", true},
		{"RFC 9112 6.3 by the end of the connection", "HTTP/1.1 200 OK\r\n\r\nabc", 200, "abc", "", false},
		{"1.0 is not kept", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, "abc", "", false},
		{"1.0 kept", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc", 200, "abc", "", true},
		{"close", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", 200, "abc", "", false},
		// RFC 9110 section 5.6.1: a recipient ignores empty elements of a list.
		{"empty Connection", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection:\r\n\r\nabc", 200, "abc", "", true},
		{"Connection of empty elements", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: , keep-alive,,\t, \r\n\r\nabc", 200, "abc", "", true},
		{"close behind an empty element", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: ,close\r\n\r\nabc", 200, "abc", "", false},
		{"Connection that is no list of tokens", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: Keep-Alive; timeout=5\r\n\r\nabc", 200, "abc", "", false},
		{"close in quotes", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: \"close\"\r\n\r\nabc", 200, "abc", "", false},
		{"no token in a trailer's Connection", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nConnection: a b\r\n\r\n", 200, "", "trailer", false},
		{"interim", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "", "", true},
		{"bytes after the answer", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n\r\n", 200, "abc", "", false},
		{"bytes after no body", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc", 304, "", "", false},
		{"short length", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", 200, "abc", "unexpected EOF", false},
		{"short chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", 200, "abc", "unexpected EOF", false},
		{"nothing", "", 0, "", "unexpected EOF", false},
		{"half a head", "HTTP/1.1 200 OK\r\nA", 0, "", "unexpected EOF", false},
		{"no status line", "hello\r\n\r\n, this is no HTTP", 0, "", "bad_status_line", false},
		{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", 0, "", "bare_lf", false},
		{"length and chunked", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 0, "", "length_and_encoding", false},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 0, "", "bad_content_length", false},
		{"unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", 0, "", "unknown_transfer_encoding", false},
		{"NUL", "HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n", 0, "", "control_byte", false},
		{"fold", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", 0, "", "obs_fold", false},
		{"too many interim", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 20), 0, "", "too many interim", false},
		{"101 unasked", "HTTP/1.1 101 Switching Protocols\r\n\r\n", 0, "", "101", false},
		{"a head too long", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", 70<<10) + "\r\n\r\n", 0, "", "head_too_long", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := rawOrigin(t, func(nc net.Conn, br *bufio.Reader) {
				skipHead(br)
				_, _ = io.WriteString(nc, c.answer)
				if c.reusable {
					_, _ = br.ReadByte()
				}
			})
			cc, rel := clientOf(t, addr)
			var resp message.Response
			body := ""
			err := cc.RoundTrip(t.Context(), getRequest(), &resp, Try{})
			if err == nil {
				if resp.Status != c.status || resp.Has(message.Connection) || resp.Has(message.TransferEncoding) {
					t.Errorf("status %d, %s", resp.Status, appendFields(nil, &resp.Fields))
				}
				if resp.Body != nil {
					body, err = readBody(t.Context(), resp.Body)
					resp.Body.Close(err)
				}
			}
			if body != c.body {
				t.Errorf("body %q", body)
			}
			var e *Error
			switch {
			case c.bad == "" && err != nil:
				t.Error(err)
			case c.bad != "" && (!errors.As(err, &e) || !strings.Contains(err.Error(), c.bad) || !e.Sent):
				t.Errorf("error %v, want %s", err, c.bad)
			}
			if rel.good+rel.bad != 1 || (rel.good == 1) != c.reusable {
				t.Errorf("released %+v", rel)
			}
		})
	}
}

func TestStaleFindsTheEndAndUnaskedBytes(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(net.Conn)
		want bool
	}{
		{"quiet", func(net.Conn) {}, false},
		{"bytes", func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") }, true},
		{"end", func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite() }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			done := make(chan bool)
			addr := rawOrigin(t, func(nc net.Conn, br *bufio.Reader) {
				skipHead(br)
				_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				<-done
				c.do(nc)
				done <- true
				_, _ = br.ReadByte()
			})
			cc, _ := clientOf(t, addr)
			var resp message.Response
			if err := cc.RoundTrip(t.Context(), getRequest(), &resp, Try{}); err != nil {
				t.Fatal(err)
			}
			if cc.Stale() {
				t.Error("stale at once")
			}
			done <- true
			<-done
			time.Sleep(20 * time.Millisecond)
			if got := cc.Stale(); got != c.want {
				t.Errorf("stale is %v", got)
			}
			if n := testing.AllocsPerRun(10, func() { cc.Stale() }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

func TestEarlyAnswerIsPassedUpWhileTheBodyWaits(t *testing.T) {
	origin := rawOrigin(t, func(nc net.Conn, br *bufio.Reader) {
		skipHead(br)
		_, _ = io.WriteString(nc, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
		_, _ = io.Copy(io.Discard, br)
	})
	_, addr := listen(t, ServerConfig{}, newProxy(t, origin))
	c := dial(t, addr)
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nabc")
	from := time.Now()
	b, _ := io.ReadAll(c)
	if got := undated(string(b)); got != "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno" && got != "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno" {
		t.Errorf("%q", got)
	}
	if d := time.Since(from); d > 4*time.Second {
		t.Errorf("it took %v", d)
	}
}

func TestAbortedUploadIsNeverWholeToTheOrigin(t *testing.T) {
	for _, framing := range []string{"Content-Length: 1000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n186a0\r\n"} {
		got := make(chan string, 1)
		origin := rawOrigin(t, func(_ net.Conn, br *bufio.Reader) {
			b, _ := io.ReadAll(br)
			got <- string(b)
		})
		_, addr := listen(t, ServerConfig{}, newProxy(t, origin))
		answer := talk(t, addr, "POST / HTTP/1.1\r\nHost: h\r\n"+framing+"abc")
		s := <-got
		if strings.HasSuffix(s, "0\r\n\r\n") || !strings.HasSuffix(s, "abc") && !strings.HasSuffix(s, "abc\r\n") {
			t.Errorf("the origin got %q", s)
		}
		if !strings.HasPrefix(answer, "HTTP/1.1 502") {
			t.Errorf("the client got %q", answer)
		}
	}
}

func TestTunnelCopiesBothWaysAndHalfCloses(t *testing.T) {
	head := make(chan string, 1)
	origin := rawOrigin(t, func(nc net.Conn, br *bufio.Reader) {
		head <- skipHead(br)
		_, _ = io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX: y\r\n\r\nwelcome ")
		b, _ := io.ReadAll(br) // to the end of the client's side
		_, _ = nc.Write(b)
		_, _ = io.WriteString(nc, " bye")
	})
	s, addr := listen(t, ServerConfig{}, newProxy(t, origin))
	got := undated(talk(t, addr, "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly"))
	if got != "HTTP/1.1 101 Switching Protocols\r\nX: y\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nwelcome early bye" {
		t.Errorf("%q", got)
	}
	if h := <-head; h != "GET /chat HTTP/1.1\r\nHost: h\r\nVia: 1.1 relais\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n" {
		t.Errorf("the origin got %q", h)
	}
	if s.Stats().Tunnels != 1 {
		t.Errorf("%+v", s.Stats())
	}
}

func TestRequestsAreFramedAnew(t *testing.T) {
	head := make(chan string, 1)
	origin := rawOrigin(t, func(nc net.Conn, br *bufio.Reader) {
		b := make([]byte, 4096)
		n := 0
		for !strings.Contains(string(b[:n]), "END") {
			m, err := br.Read(b[n:])
			if n += m; err != nil {
				break
			}
		}
		head <- string(b[:n])
		_, _ = io.WriteString(nc, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	})
	_, addr := listen(t, ServerConfig{}, newProxy(t, origin))
	const via = "Via: 1.1 relais\r\n"
	for _, c := range []struct{ in, want string }{
		{"POST http://h/?a HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nConnection: x-a\r\nContent-Length: 0003\r\n\r\nEND", "POST /?a HTTP/1.1\r\nHost: h\r\n" + via + "Content-Length: 3\r\n\r\nEND"},
		{"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\nE\r\n002\r\nND\r\n0\r\nContent-Length: 3\r\n\r\n", "PUT / HTTP/1.1\r\nHost: h\r\n" + via + "Transfer-Encoding: chunked\r\n\r\n3\r\nEND\r\n0\r\n\r\n"},
		{"POST /END HTTP/1.0\r\nHost: h\r\n\r\n", "POST /END HTTP/1.1\r\nHost: h\r\n" + via + "Content-Length: 0\r\n\r\n"},
	} {
		got := talk(t, addr, c.in)
		if h := <-head; h != c.want || !strings.HasPrefix(got, "HTTP/1.1 204") {
			t.Errorf("in %q\nthe origin got %q\nwant           %q\nthe client got %q", c.in, h, c.want, got)
		}
	}
}

// An origin that agrees to another handshake than the client's is no origin of WebSocket.
func TestRFC6455Section4_2_2WrongAcceptOfTheOriginIsAnError(t *testing.T) {
	for accept, want := range map[string]error{"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=": nil, "s3pPLMBiTxaQ9kYGzzhZRbK+xO0=": ErrWebSocket, "": ErrWebSocket} {
		cc, rel := clientOf(t, rawOrigin(t, func(nc net.Conn, br *bufio.Reader) {
			_ = skipHead(br)
			_, _ = io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+accept+"\r\n\r\n")
		}))
		req := getRequest()
		req.AddString(message.Upgrade, "WebSocket")
		req.AddString(message.SecWebSocketKey, "dGhlIHNhbXBsZSBub25jZQ==")
		var resp message.Response
		err := cc.RoundTrip(t.Context(), req, &resp, Try{Upgrade: true})
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%q: %v, want %v", accept, err, want)
		}
		if want == nil {
			_ = resp.Upgrade.Close()
		}
		if rel.bad != 1 {
			t.Errorf("%q: the connection was not given up: %+v", accept, rel)
		}
	}
}
