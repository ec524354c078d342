package std

import (
	"bufio"
	"bytes"
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

// ends is an Ender that remembers.
type ends chan message.Outcome

func (e ends) End(o message.Outcome) { e <- o }

// stream is a body of chunks that are given one by one.
type stream struct {
	next   chan string
	closed chan error
	err    error
}

func (s *stream) Next(ctx context.Context) ([]byte, error) {
	select {
	case c, ok := <-s.next:
		if !ok {
			return nil, s.err
		}
		return []byte(c), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *stream) Close(cause error) { s.closed <- cause }

func newStream(err error) *stream {
	return &stream{next: make(chan string), closed: make(chan error, 1), err: err}
}

// client is a client of one connection.
func client(t *testing.T, nc net.Conn, http2 bool) *http.Client {
	tr := &http.Transport{
		Protocols: new(http.Protocols), DisableCompression: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return nc, nil },
	}
	tr.Protocols.SetHTTP1(!http2)
	tr.Protocols.SetUnencryptedHTTP2(http2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func each(t *testing.T, f func(t *testing.T, http2 bool)) {
	t.Run("http1", func(t *testing.T) { f(t, false) })
	t.Run("http2", func(t *testing.T) { f(t, true) })
}

func TestChunksLeaveAsTheyCome(t *testing.T) {
	each(t, func(t *testing.T, http2 bool) {
		body, over := newStream(io.EOF), make(ends, 1)
		nc, _ := server(t, Config{}, handlerFunc(func(context.Context, *message.Request) *message.Response {
			return &message.Response{Status: 200, ContentLength: -1, Body: body, Ender: over}
		}), http2)
		go func() { body.next <- "one" }()
		resp, err := client(t, nc, http2).Get("http://a/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b := make([]byte, 16)
		for _, want := range []string{"one", "two", "three"} {
			if n, err := resp.Body.Read(b); string(b[:n]) != want || err != nil {
				t.Fatalf("got %q %v, want %q", b[:n], err, want)
			}
			switch want {
			case "one":
				body.next <- "two"
			case "two":
				body.next <- "three"
			}
		}
		close(body.next)
		if n, err := resp.Body.Read(b); n != 0 || err != io.EOF {
			t.Fatal(n, err)
		}
		if o := <-over; o.Err != nil || o.Status != 200 || o.Body != 11 {
			t.Errorf("outcome %+v", o)
		}
		if err := <-body.closed; err != nil {
			t.Errorf("the body was closed with %v", err)
		}
	})
}

// TestABrokenBodyNeverLooksWhole covers bodies that fail, that are short, and that are long.
func TestABrokenBodyNeverLooksWhole(t *testing.T) {
	fail := errors.New("the origin died")
	each(t, func(t *testing.T, http2 bool) {
		for _, tc := range []struct {
			name   string
			length int64
			err    error
			want   error
		}{{"fails", -1, fail, fail}, {"fails with length", 100, fail, fail}, {"short", 100, io.EOF, errShort}, {"long", 4, io.EOF, errLong}} {
			body, over := newStream(tc.err), make(ends, 1)
			nc, _ := server(t, Config{}, handlerFunc(func(context.Context, *message.Request) *message.Response {
				return &message.Response{Status: 200, ContentLength: tc.length, Body: body, Ender: over}
			}), http2)
			go func() {
				for _, c := range []string{"one", "two"} {
					select {
					case body.next <- c:
					case <-time.After(time.Second):
						return
					}
				}
				close(body.next)
			}()
			resp, err := client(t, nc, http2).Get("http://a/")
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			if err == nil {
				t.Errorf("%s: the answer looks whole", tc.name)
			}
			if o := <-over; !errors.Is(o.Err, tc.want) {
				t.Errorf("%s: outcome %+v, want %v", tc.name, o, tc.want)
			}
			if cause := <-body.closed; !errors.Is(cause, tc.want) {
				t.Errorf("%s: the body was closed with %v", tc.name, cause)
			}
		}
	})
}

func TestASlowBodyIsNotWaitedForLonger(t *testing.T) {
	each(t, func(t *testing.T, http2 bool) {
		got := make(chan error, 1)
		nc, _ := server(t, Config{Timeouts: Timeouts{Body: 50 * time.Millisecond}}, handlerFunc(func(ctx context.Context, req *message.Request) *message.Response {
			err := error(nil)
			for err == nil {
				_, err = req.Body.Next(ctx)
			}
			got <- err
			resp := &message.Response{Status: 408}
			resp.SetBytes([]byte("slow"))
			return resp
		}), http2)
		pr, pw := io.Pipe()
		defer pw.Close()
		go func() { _, _ = io.WriteString(pw, "some") }()
		resp, err := client(t, nc, http2).Post("http://a/", "text/plain", pr)
		if e := <-got; e != message.ErrBodySlow {
			t.Errorf("the body ended with %v", e)
		}
		if err == nil {
			if resp.StatusCode != 408 {
				t.Errorf("status %d", resp.StatusCode)
			}
			resp.Body.Close()
		}
	})
}

func TestABodyIsReadNoLongerThanTheCallerWants(t *testing.T) {
	each(t, func(t *testing.T, http2 bool) {
		got := make(chan error, 1)
		nc, _ := server(t, Config{Timeouts: Timeouts{Body: 10 * time.Second}}, handlerFunc(func(ctx context.Context, req *message.Request) *message.Response {
			ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			_, err := req.Body.Next(ctx)
			got <- err
			resp := &message.Response{Status: 504}
			resp.SetBytes([]byte("late"))
			return resp
		}), http2)
		pr, pw := io.Pipe()
		defer pw.Close()
		resp, err := client(t, nc, http2).Post("http://a/", "text/plain", pr)
		if e := <-got; !errors.Is(e, context.DeadlineExceeded) {
			t.Errorf("the body ended with %v", e)
		}
		if err == nil {
			resp.Body.Close()
		}
	})
}

func TestAClientThatTakesNothingIsCutOff(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		over := make(ends, 1)
		nc, _ := server(t, Config{Timeouts: Timeouts{Write: 100 * time.Millisecond}}, handlerFunc(func(context.Context, *message.Request) *message.Response {
			resp := &message.Response{Status: 200, Ender: over}
			resp.SetBytes(make([]byte, 32<<20))
			return resp
		}), http2)
		if !http2 {
			_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		} else {
			resp, err := client(t, nc, true).Get("http://a/")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close() // and reads nothing
		}
		select {
		case o := <-over:
			if o.Err == nil {
				t.Errorf("outcome %+v", o)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("the write waits for ever")
		}
	}
}

func TestRequestsPerConnection(t *testing.T) {
	each(t, func(t *testing.T, http2 bool) {
		nc, _ := server(t, Config{Limits: Limits{Requests: 2}}, handlerFunc(drainAndSay), http2)
		c := client(t, nc, http2)
		for i := range 2 {
			resp, err := c.Get("http://a/")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.ReadAll(resp.Body)
			resp.Body.Close()
			if !http2 && resp.Close != (i == 1) {
				t.Errorf("request %d: Connection: close is %v", i, resp.Close)
			}
		}
		if _, err := c.Get("http://a/"); err == nil {
			t.Error("a third request was served")
		}
	})
}

func TestDrainEndsIdleConnectionsAfterAMoment(t *testing.T) {
	each(t, func(t *testing.T, http2 bool) {
		nc, s := server(t, Config{}, handlerFunc(drainAndSay), http2)
		c := client(t, nc, http2)
		resp, err := c.Get("http://a/")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadAll(resp.Body)
		resp.Body.Close()
		s.Drain()
		for end := time.Now().Add(5 * time.Second); s.Conns() > 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the connection is still open")
			}
		}
	})
}

// pipe is the far side of a tunnel.
type pipe struct {
	io.Reader
	io.Writer
	close func() error
}

func (p pipe) Close() error { return p.close() }

func TestTunnels(t *testing.T) {
	upgrade := func(over ends, done chan struct{}) handlerFunc {
		return func(_ context.Context, req *message.Request) *message.Response {
			near, far := net.Pipe()
			go func() {
				defer close(done)
				_, _ = io.Copy(far, far) // an echo
				far.Close()
			}()
			resp := &message.Response{Status: 101, Upgrade: near, Ender: over}
			if req.Method == message.CONNECT {
				resp.Status = 200
			} else {
				resp.AddLine([]byte("Connection"), []byte("Upgrade"))
				resp.AddLine([]byte("Upgrade"), []byte("websocket"))
			}
			return resp
		}
	}
	for _, head := range []string{
		"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
	} {
		over, done := make(ends, 1), make(chan struct{})
		nc, _ := server(t, Config{Timeouts: Timeouts{Tunnel: time.Minute}}, upgrade(over, done), false)
		// The first bytes of the tunnel come with the head.
		_, _ = io.WriteString(nc, head+"ping")
		br := bufio.NewReader(nc)
		resp, err := http.ReadResponse(br, &http.Request{Method: strings.Fields(head)[0]})
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode == 101 && (resp.Header.Get("Upgrade") != "websocket" || resp.Header.Get("Connection") != "Upgrade") {
			t.Errorf("head %v", resp.Header)
		}
		b := make([]byte, 4)
		if _, err := io.ReadFull(br, b); err != nil || string(b) != "ping" {
			t.Fatalf("%q %v", b, err)
		}
		_, _ = nc.Write([]byte("pong"))
		if _, err := io.ReadFull(br, b); err != nil || string(b) != "pong" {
			t.Fatalf("%q %v", b, err)
		}
		nc.Close()
		<-done
		if o := <-over; o.Body != 8 {
			t.Errorf("outcome %+v", o)
		}
	}
	t.Run("CONNECT on HTTP/2", func(t *testing.T) {
		over, done := make(ends, 1), make(chan struct{})
		nc, _ := server(t, Config{}, upgrade(over, done), true)
		pr, pw := io.Pipe()
		q, _ := http.NewRequest("CONNECT", "http://a:443", pr)
		resp, err := client(t, nc, true).Do(q)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			go func() { _, _ = pw.Write([]byte("ping")) }()
			b := make([]byte, 4)
			if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "ping" {
				t.Fatalf("%q %v", b, err)
			}
		}
		pw.Close()
		resp.Body.Close()
		<-done
		<-over
	})
	t.Run("a silent tunnel ends", func(t *testing.T) {
		over, done := make(ends, 1), make(chan struct{})
		nc, _ := server(t, Config{Timeouts: Timeouts{Tunnel: 50 * time.Millisecond}}, upgrade(over, done), false)
		_, _ = io.WriteString(nc, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
		_, _ = io.ReadAll(nc)
		<-done
		<-over
	})
	t.Run("an upgrade that nobody can take", func(t *testing.T) {
		over := make(ends, 1)
		closed := make(chan struct{})
		nc, _ := server(t, Config{}, handlerFunc(func(context.Context, *message.Request) *message.Response {
			return &message.Response{Status: 101, Ender: over, Upgrade: pipe{strings.NewReader(""), io.Discard, func() error { close(closed); return nil }}}
		}), true)
		if _, err := client(t, nc, true).Get("http://a/"); err == nil {
			t.Error("a 101 came through HTTP/2")
		}
		<-closed
		if o := <-over; !errors.Is(o.Err, errTunnel) {
			t.Errorf("outcome %+v", o)
		}
	})
}

func TestFieldsForOneHopStayHere(t *testing.T) {
	nc, _ := server(t, Config{}, handlerFunc(func(context.Context, *message.Request) *message.Response {
		resp := &message.Response{Status: 200}
		for _, f := range [][2]string{{"Connection", "X-Hop"}, {"X-Hop", "1"}, {"Keep-Alive", "5"}, {"Transfer-Encoding", "gzip"}, {"Content-Length", "99"}, {"X-End", "2"}, {"ETag", `"a"`}} {
			resp.AddLine([]byte(f[0]), []byte(f[1]))
		}
		resp.SetBytes([]byte("body"))
		return resp
	}), false)
	resp, err := client(t, nc, false).Get("http://a/")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(b) != "body" || resp.Header.Get("X-End") != "2" || resp.Header.Get("ETag") != `"a"` {
		t.Errorf("%q %v", b, resp.Header)
	}
	for _, n := range []string{"X-Hop", "Keep-Alive", "Transfer-Encoding", "Connection", "Content-Type"} {
		if _, ok := resp.Header[n]; ok {
			t.Errorf("%s was sent", n)
		}
	}
}

func TestAHalfClosedClientIsAnswered(t *testing.T) {
	nc, _ := server(t, Config{}, handlerFunc(func(ctx context.Context, _ *message.Request) *message.Response {
		resp := &message.Response{Status: 200}
		select {
		case <-ctx.Done():
			resp.SetBytes([]byte("given up"))
		case <-time.After(100 * time.Millisecond):
			resp.SetBytes([]byte("answered"))
		}
		return resp
	}), false)
	_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	_ = nc.(*net.TCPConn).CloseWrite()
	if b, _ := io.ReadAll(nc); !bytes.HasSuffix(b, []byte("answered")) {
		t.Errorf("got %q", b)
	}
}

func TestARefusedStreamLeavesTheOthersAlone(t *testing.T) {
	nc, _ := server(t, Config{Limits: Limits{BodyBytes: 10}}, handlerFunc(func(_ context.Context, req *message.Request) *message.Response {
		resp := &message.Response{Status: 200}
		if req.Body != nil {
			resp.Status = 400
			resp.AddString(message.Connection, "close")
		}
		return resp
	}), true)
	c := client(t, nc, true)
	for _, tc := range []struct {
		body string
		want int
	}{{"", 200}, {"small", 400}, {"over the limit", 413}, {"", 200}, {"small", 400}} {
		resp, err := c.Post("http://a/", "text/plain", strings.NewReader(tc.body))
		if err != nil {
			t.Fatalf("%q: %v", tc.body, err)
		}
		resp.Body.Close()
		if resp.StatusCode != tc.want {
			t.Errorf("%q: status %d, want %d", tc.body, resp.StatusCode, tc.want)
		}
	}
}

func TestNotModifiedNamesNoLength(t *testing.T) {
	each(t, func(t *testing.T, http2 bool) {
		nc, _ := server(t, Config{}, handlerFunc(func(context.Context, *message.Request) *message.Response {
			return &message.Response{Status: 304, ContentLength: 5}
		}), http2)
		resp, err := client(t, nc, http2).Get("http://a/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); len(b) > 0 || err != nil || resp.Header.Get("Content-Length") != "" {
			t.Errorf("body %q, %v, Content-Length %q", b, err, resp.Header.Get("Content-Length"))
		}
	})
}
