package std

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/relais-edge/relais/internal/http/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handlerFunc answers; what it refuses has the code as its page.
type handlerFunc func(ctx context.Context, req *message.Request) *message.Response

func (f handlerFunc) Serve(ctx context.Context, req *message.Request) *message.Response {
	return f(ctx, req)
}

func (f handlerFunc) Refuse(_ context.Context, _ *message.Conn, status int, code, _ string) *message.Response {
	resp := &message.Response{Status: status}
	resp.SetBytes([]byte(code))
	return resp
}

// drainAndSay reads the body and says how it ended.
func drainAndSay(ctx context.Context, req *message.Request) *message.Response {
	resp := &message.Response{Status: 200}
	n, err := 0, error(nil)
	for req.Body != nil && err == nil {
		var b []byte
		b, err = req.Body.Next(ctx)
		n += len(b)
	}
	if err != nil && err != io.EOF {
		resp.Status = 400
	}
	resp.SetBytes([]byte(fmt.Sprintf("served %d %v", n, err)))
	return resp
}

// server serves one connection and returns the client's side of it.
func server(t *testing.T, cfg Config, h Handler, http2 bool) (net.Conn, *Server) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(cfg, h)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	facts := &message.Conn{Peer: netip.MustParseAddrPort("127.0.0.1:1")}
	go func() {
		defer close(done)
		if http2 {
			s.ServeHTTP2(ctx, nc, facts)
		} else {
			s.ServeHTTP1(ctx, nc, facts)
		}
	}()
	t.Cleanup(func() {
		cancel()
		client.Close()
		<-done
		if n := s.Conns(); n != 0 {
			t.Errorf("%d connections are still counted", n)
		}
	})
	_ = client.SetDeadline(time.Now().Add(10 * time.Second))
	return client, s
}

type line struct{ name, value string }

// sendHTTP2 sends one request of raw lines and returns the status, or "reset" or "closed".
func sendHTTP2(t *testing.T, head []line, body string, trailer []line) (status, page string) {
	t.Helper()
	nc, _ := server(t, Config{Limits: Limits{HeadBytes: 32 << 10, Fields: 64, TargetBytes: 1000}}, handlerFunc(drainAndSay), true)
	_, _ = io.WriteString(nc, http2.ClientPreface)
	fr := http2.NewFramer(nc, nc)
	fr.AllowIllegalWrites = true
	_ = fr.WriteSettings()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	write := func(lines []line, end bool) {
		block.Reset()
		for _, l := range lines {
			_ = enc.WriteField(hpack.HeaderField{Name: l.name, Value: l.value})
		}
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
	}
	write(head, body == "" && trailer == nil)
	if body != "" {
		_ = fr.WriteData(1, trailer == nil, []byte(body))
	}
	if trailer != nil {
		write(trailer, true)
	}
	dec := hpack.NewDecoder(4096, nil)
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return "closed", ""
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			lines, _ := dec.DecodeFull(f.HeaderBlockFragment())
			for _, l := range lines {
				if l.Name == ":status" && l.Value[0] != '1' {
					status = l.Value
				}
			}
			if f.StreamEnded() {
				return status, page
			}
		case *http2.DataFrame:
			page += string(f.Data())
			if f.StreamEnded() {
				return status, page
			}
		case *http2.RSTStreamFrame:
			return "reset", page
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return "closed", page
			}
		}
	}
}

// TestHTTP2RefusesWhatIsAmbiguous covers RFC 9113 sections 8.1 to 8.3, and what a translation to
// HTTP/1 could be made to misread.
func TestHTTP2RefusesWhatIsAmbiguous(t *testing.T) {
	base := func(more ...line) []line {
		return append([]line{{":method", "POST"}, {":scheme", "http"}, {":authority", "edge.test"}, {":path", "/c"}}, more...)
	}
	with := func(name, value string) []line {
		b := base()
		for i := range b {
			if b[i].name == name {
				b[i].value = value
			}
		}
		return b
	}
	for _, tc := range []struct {
		name    string
		head    []line
		body    string
		trailer []line
		served  bool
	}{
		{name: "content-length", head: base(line{"content-length", "5"}), body: "hello", served: true},
		{name: "te trailers", head: base(line{"te", "trailers"}), body: "hello", served: true},
		{name: "cookies", head: base(line{"cookie", "a=1"}, line{"cookie", "b=2"}), served: true},
		{name: "host equal", head: base(line{"host", "edge.test"}), served: true},
		{name: "trailer", head: base(line{"trailer", "x-a"}), body: "hello", trailer: []line{{"x-a", "b"}}, served: true},

		{name: "content-length too long", head: base(line{"content-length", "50"}), body: "hello"},
		{name: "content-length too short", head: base(line{"content-length", "2"}), body: "hello"},
		{name: "content-length twice", head: base(line{"content-length", "5"}, line{"content-length", "5"}), body: "hello"},
		{name: "content-length different", head: base(line{"content-length", "5"}, line{"content-length", "6"}), body: "hello"},
		{name: "content-length with sign", head: base(line{"content-length", "+5"}), body: "hello"},
		{name: "content-length list", head: base(line{"content-length", "5, 5"}), body: "hello"},
		{name: "transfer-encoding", head: base(line{"transfer-encoding", "chunked"}), body: "0\r\n\r\n"},
		{name: "transfer_encoding", head: base(line{"transfer_encoding", "chunked"}), body: "hello"},
		{name: "upper case", head: base(line{"X-A", "b"})},
		{name: "te gzip", head: base(line{"te", "gzip"})},
		{name: "te twice", head: base(line{"te", "trailers"}, line{"te", "gzip"})},
		{name: "connection", head: base(line{"connection", "close"})},
		{name: "keep-alive", head: base(line{"keep-alive", "1"})},
		{name: "proxy-connection", head: base(line{"proxy-connection", "x"})},
		{name: "upgrade", head: base(line{"upgrade", "h2c"})},
		{name: "authority with CR", head: with(":authority", "/x\rfoo")},
		{name: "authority with NUL", head: with(":authority", "x\x00y")},
		{name: "authority with user", head: with(":authority", "u:p@edge.test")},
		{name: "authority with two ports", head: with(":authority", "a:b:c")},
		{name: "authority markup", head: with(":authority", "<script>")},
		{name: "authority not IPv6", head: with(":authority", "[::1")},
		{name: "empty authority", head: with(":authority", "")},
		{name: "scheme with LF", head: with(":scheme", "/x\nGET /smuggled")},
		{name: "method with CR LF", head: with(":method", "GET / HTTP/1.1\r\nA: b")},
		{name: "method with tab", head: with(":method", "x\ty")},
		{name: "empty path", head: with(":path", "")},
		{name: "path with space", head: with(":path", "/x HTTP/1.1")},
		{name: "path with fragment", head: with(":path", "/c#f")},
		{name: "path without slash", head: with(":path", "c")},
		{name: "star with POST", head: with(":path", "*")},
		{name: "long path", head: with(":path", "/"+strings.Repeat("a", 1000))},
		{name: "value with CR LF", head: base(line{"x-a", "x\r\nTransfer-Encoding: chunked"})},
		{name: "value with NUL", head: base(line{"x-a", "b\x00c"})},
		{name: "value with control", head: base(line{"x-a", "b\x01c"})},
		{name: "name with CR LF", head: base(line{"x-a: b\r\ntransfer-encoding", "chunked"})},
		{name: "name with space", head: base(line{"x a", "c"})},
		{name: "name with high byte", head: base(line{"x\xffa", "c"})},
		{name: "empty name", head: base(line{"", "c"})},
		{name: "unknown pseudo-header", head: base(line{":foo", "c"})},
		{name: "late pseudo-header", head: append([]line{{":method", "POST"}, {"x-a", "b"}}, base()[1:]...)},
		{name: "method twice", head: base(line{":method", "GET"})},
		{name: "no method", head: base()[1:]},
		{name: "no authority", head: []line{{":method", "GET"}, {":scheme", "http"}, {":path", "/c"}}},
		{name: "host twice", head: []line{{":method", "GET"}, {":scheme", "http"}, {":path", "/c"}, {"host", "a"}, {"host", "b"}}},
		{name: "host differs", head: base(line{"host", "other.test"})},
		{name: "CONNECT with path", head: []line{{":method", "CONNECT"}, {":scheme", "http"}, {":authority", "edge.test:443"}, {":path", "/c"}}},
		{name: "other expectation", head: base(line{"expect", "200-ok"})},
		// Net/http drops trailers that were not announced, whatever they are.
		{name: "transfer-encoding in trailer", head: base(), body: "hello", trailer: []line{{"transfer-encoding", "chunked"}}, served: true},
		{name: "trailer with CR LF", head: base(), body: "hello", trailer: []line{{"x-a", "b\r\nX: y"}}},
		{name: "too many fields", head: base(slicesRepeat(line{"x-a", "b"}, 65)...)},
	} {
		status, page := sendHTTP2(t, tc.head, tc.body, tc.trailer)
		if served := status == "200"; served != tc.served {
			t.Errorf("%s: %s %q, served should be %v", tc.name, status, page, tc.served)
		}
		if n, err := strconv.Atoi(status); err == nil && !tc.served && (n < 400 || n > 499) {
			t.Errorf("%s: status %d", tc.name, n)
		}
	}
}

func slicesRepeat(l line, n int) (out []line) {
	for range n {
		out = append(out, l)
	}
	return out
}

func TestHTTP1RefusesWhatNetHTTPLetsPass(t *testing.T) {
	for _, tc := range []struct{ name, head, want string }{
		{"good", "GET /c HTTP/1.1\r\nHost: a\r\n", "200"},
		{"absolute", "GET http://a/c?d HTTP/1.1\r\nHost: a\r\n", "200"},
		{"options", "OPTIONS * HTTP/1.1\r\nHost: a\r\n", "200"},
		{"IPv6", "GET /c HTTP/1.1\r\nHost: [::1]:80\r\n", "200"},
		{"1.0 without host", "GET /c HTTP/1.0\r\n", "200"},
		{"port", "GET /c HTTP/1.1\r\nHost: a:80a\r\n", "400"},
		{"empty port", "GET /c HTTP/1.1\r\nHost: a:\r\n", "400"},
		{"two ports", "GET /c HTTP/1.1\r\nHost: a:b:c\r\n", "400"},
		{"no IPv6", "GET /c HTTP/1.1\r\nHost: [::1\r\n", "400"},
		{"empty host", "GET /c HTTP/1.1\r\nHost:\r\n", "400"},
		{"fragment", "GET /c#d HTTP/1.1\r\nHost: a\r\n", "400"},
		{"user", "GET http://u:p@a/c HTTP/1.1\r\nHost: a\r\n", "400"},
		{"other scheme", "GET ftp://a/c HTTP/1.1\r\nHost: a\r\n", "400"},
		{"content_length", "GET /c HTTP/1.1\r\nHost: a\r\nContent_Length: 0\r\n", "400"},
		{"x_forwarded_for", "GET /c HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1.1.1.1\r\n", "400"},
		{"connection names host", "GET /c HTTP/1.1\r\nHost: a\r\nConnection: close, Host\r\n", "400"},
		{"star", "GET * HTTP/1.1\r\nHost: a\r\n", "400"},
	} {
		nc, _ := server(t, Config{}, handlerFunc(drainAndSay), false)
		_, _ = io.WriteString(nc, tc.head+"Connection: close\r\n\r\n")
		b, _ := io.ReadAll(nc)
		if got := string(b); !strings.HasPrefix(got, "HTTP/1.1 "+tc.want) && !strings.HasPrefix(got, "HTTP/1.0 "+tc.want) {
			t.Errorf("%s: %q", tc.name, got)
		}
	}
}

// TestNoRequestHidesBehindAChunkedBody sends a Content-Length that net/http overlooks because
// of a folded Transfer-Encoding (RFC 9112 section 6.1).
func TestNoRequestHidesBehindAChunkedBody(t *testing.T) {
	const hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
	nc, _ := server(t, Config{}, handlerFunc(drainAndSay), false)
	_, _ = fmt.Fprintf(nc, "POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n%s", 5+len(hidden), hidden)
	b, _ := io.ReadAll(nc)
	if n := strings.Count(string(b), "HTTP/1.1 "); n != 1 || strings.Contains(string(b), "HTTP/1.1 200") && !strings.Contains(string(b), "Connection: close") {
		t.Errorf("%d answers: %q", n, b)
	}
}

func TestValidAuthority(t *testing.T) {
	for s, want := range map[string]bool{
		"a": true, "a.example:80": true, "127.0.0.1": true, "[::1]": true, "[::1]:443": true, "a_b-c.d~": true, "a%41": true, "a:65535": true,
		"": false, ":80": false, "a:": false, "a:65536": false, "a:-1": false, "u@a": false, "a/b": false, "a b": false, "a%4": false,
		"[::1": false, "::1": false, "[::1]x": false, "[127.0.0.1]": false, "[fe80::1%25eth0]": false, "\xffhost": false, "a\tb": false,
	} {
		if got := ValidAuthority(s); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func FuzzValidAuthority(f *testing.F) {
	for _, s := range []string{"a:80", "[::1]:443", "a%41", "[", "a:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if ValidAuthority(s) && strings.ContainsAny(s, "/?#@ \t\r\n\x00<>\"\\") {
			t.Errorf("%q is no authority", s)
		}
	})
}
