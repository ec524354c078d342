package http3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/relais-edge/relais/internal/http/message"
)

// pieces is a body of what comes on a channel.
type pieces struct {
	c    chan string
	err  error
	done chan error
}

func (p *pieces) Next(ctx context.Context) ([]byte, error) {
	select {
	case s, ok := <-p.c:
		if ok {
			return []byte(s), nil
		}
		if p.err != nil {
			return nil, p.err
		}
		return nil, io.EOF
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (p *pieces) Close(err error) {
	if p.done != nil {
		p.done <- err
	}
}

// pattern is a body of n bytes that repeat every 251.
type pattern struct{ n, at int64 }

func (p *pattern) Next(context.Context) ([]byte, error) {
	b := make([]byte, min(64<<10, p.n-p.at))
	for i := range b {
		b[i] = byte((p.at + int64(i)) % 251)
	}
	if p.at += int64(len(b)); p.at == p.n {
		return b, io.EOF
	}
	return b, nil
}

func (p *pattern) Close(error) {}

func (p *pattern) Read(b []byte) (int, error) {
	if p.at == p.n {
		return 0, io.EOF
	}
	n := copy(b[:min(int64(len(b)), p.n-p.at)], make([]byte, len(b)))
	for i := range n {
		b[i] = byte((p.at + int64(i)) % 251)
	}
	p.at += int64(n)
	return n, nil
}

func sumOf(n int64) [32]byte {
	h := sha256.New()
	_, _ = io.Copy(h, &pattern{n: n})
	return [32]byte(h.Sum(nil))
}

func TestALargeBodyPassesBothWays(t *testing.T) {
	n := int64(32 << 20) // test/e2e has 200 MiB
	if testing.Short() {
		n = 8 << 20
	}
	want := sumOf(n)
	for _, known := range []bool{true, false} {
		_, addr := own(t, ServerConfig{}, &handler{serve: func(ctx context.Context, r *message.Request) *message.Response {
			if r.Body == nil {
				resp := &message.Response{Status: 200, ContentLength: -1, Body: &pattern{n: n}}
				if known {
					resp.ContentLength = n
				}
				return resp
			}
			h := sha256.New()
			for {
				b, err := r.Body.Next(ctx)
				h.Write(b)
				if err == io.EOF {
					return text(200, string(h.Sum(nil)))
				}
				if err != nil {
					return text(500, err.Error())
				}
			}
		}})
		c := client(t)
		c.Timeout = time.Minute
		resp, err := c.Get("https://" + addr)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		h := sha256.New()
		if m, err := io.Copy(h, resp.Body); m != n || err != nil || [32]byte(h.Sum(nil)) != want {
			t.Errorf("down, length known %v: %d of %d bytes, %v", known, m, n, err)
		}
		req, _ := http.NewRequest(http.MethodPost, "https://"+addr, &pattern{n: n})
		if known {
			req.ContentLength = n
		}
		if resp, err = c.Do(req); err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); string(b) != string(want[:]) || err != nil {
			t.Errorf("up, length known %v: %d %.80q %v", known, resp.StatusCode, b, err)
		}
		n = 8 << 20
		want = sumOf(n)
	}
}

func TestPiecesAreNotHeldBack(t *testing.T) {
	c := make(chan string)
	_, addr := own(t, ServerConfig{}, &handler{serve: func(context.Context, *message.Request) *message.Response {
		return &message.Response{Status: 200, ContentLength: -1, Body: &pieces{c: c}}
	}})
	go func() { c <- "data: 0\n\n" }()
	resp, err := client(t).Get("https://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b := make([]byte, 100)
	for i := range 3 {
		n, err := resp.Body.Read(b)
		if want := "data: " + string(rune('0'+i)) + "\n\n"; string(b[:n]) != want || err != nil {
			t.Fatalf("%q %v", b[:n], err)
		}
		if i < 2 {
			c <- "data: " + string(rune('1'+i)) + "\n\n" // only after the one before has arrived
		}
	}
	close(c)
	if n, err := resp.Body.Read(b); n != 0 || err != io.EOF {
		t.Error(n, err)
	}
}

func TestBothWaysAtOnce(t *testing.T) {
	_, addr := own(t, ServerConfig{}, &handler{serve: func(_ context.Context, r *message.Request) *message.Response {
		return &message.Response{Status: 200, ContentLength: -1, Body: r.Body}
	}})
	pr, pw := io.Pipe()
	req, _ := http.NewRequest(http.MethodPost, "https://"+addr, pr)
	go func() { _, _ = pw.Write([]byte("a")) }()
	resp, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b := make([]byte, 10)
	for _, s := range []string{"a", "b", "c"} {
		if n, err := io.ReadFull(resp.Body, b[:1]); string(b[:n]) != s || err != nil {
			t.Fatalf("%q %v", b[:n], err)
		}
		if s != "c" {
			_, _ = pw.Write([]byte{s[0] + 1})
		}
	}
	_ = pw.Close()
	if n, err := resp.Body.Read(b); n != 0 || err != io.EOF {
		t.Error(n, err)
	}
}

func TestRFC9110Section15InterimAnswersAndTrailers(t *testing.T) {
	_, addr := own(t, ServerConfig{}, &handler{serve: func(ctx context.Context, r *message.Request) *message.Response {
		f := new(message.Fields)
		f.AddString(message.Link, "</a.css>")
		r.Control.Inform(103, f)
		got, _ := drain(ctx, r.Body)
		c := make(chan string, 1)
		c <- got
		close(c)
		resp := &message.Response{Status: 200, ContentLength: -1, Body: &pieces{c: c}, Trailer: new(message.Fields)}
		resp.Trailer.AddLine([]byte("X-Sum"), []byte("7"))
		return resp
	}})
	var codes []int
	req, _ := http.NewRequest(http.MethodPost, "https://"+addr, strings.NewReader("hello"))
	req.Header.Set("Expect", "100-continue")
	req.Header.Set("TE", "trailers")
	req = req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { codes = append(codes, code); return nil },
	}))
	resp, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if string(b) != "hello" || err != nil || resp.Trailer.Get("X-Sum") != "7" || len(codes) < 1 || codes[0] != 103 {
		t.Errorf("%q %v %v %v", b, err, resp.Trailer, codes)
	}
}

func TestHeadAndStatusesWithoutBody(t *testing.T) {
	_, addr := own(t, ServerConfig{}, &handler{serve: func(_ context.Context, r *message.Request) *message.Response {
		switch string(r.Path()) {
		case "/204":
			return &message.Response{Status: 204}
		case "/304":
			resp := &message.Response{Status: 304, ContentLength: 10}
			resp.AddString(message.ETag, `"x"`)
			return resp
		case "/bad":
			return &message.Response{Status: 99}
		case "/large":
			resp := text(200, "")
			resp.AddLine([]byte("X-Large"), bytes.Repeat([]byte("a"), 20<<10))
			return resp
		}
		return text(200, "hello")
	}})
	c := client(t)
	for _, tt := range []struct {
		method, path string
		status       int
		length       string
	}{{"HEAD", "/", 200, "5"}, {"GET", "/204", 204, ""}, {"GET", "/304", 304, ""}, {"GET", "/bad", 500, "0"}, {"GET", "/large", 200, "0"}} {
		req, _ := http.NewRequest(tt.method, "https://"+addr+tt.path, nil)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if len(b) > 0 || err != nil || resp.StatusCode != tt.status || resp.Header.Get("Content-Length") != tt.length || resp.Header.Get("Date") == "" {
			t.Errorf("%s %s: %d %q %v %v", tt.method, tt.path, resp.StatusCode, b, err, resp.Header)
		}
		if tt.path == "/large" && len(resp.Header.Get("X-Large")) != 20<<10 {
			t.Error("the large head came short")
		}
	}
}

func TestHeadsOverTheLimit(t *testing.T) {
	cfg := ServerConfig{Limits: Limits{HeadBytes: 2000, Fields: 10, TargetBytes: 200}, BodyBytes: 10}
	_, addr := own(t, cfg, &handler{serve: say})
	r := dialRaw(t, addr, settings)
	many := get()
	for range 11 {
		many = append(many, "x-a", "1")
	}
	long := strings.Repeat("a", 300)
	for _, tt := range []struct{ name, bytes, want string }{
		{"fields", headers(many...), "431 too_many_fields"},
		{"bytes of one value", headers(get("x-a", strings.Repeat("a", 2000))...), "431 head_too_long"},
		{"bytes together", headers(get("x-a", strings.Repeat("a", 900), "x-b", strings.Repeat("a", 900), "x-c", long)...), "431 head_too_long"},
		{"a frame that never comes", string(appendVarint([]byte{frameHeaders}, 1<<40)), "431 head_too_long"},
		{"target", headers(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/"+long), "414 target_too_long"},
		{"body by its length", headers(post("content-length", "11")...), "413 body_too_large"},
		{"body as it comes", headers(post()...) + frame(frameData, "12345678901"), "200 POST a / length=-1 body= request body: body_too_large"},
	} {
		if got := r.ask(tt.bytes); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestASlowRequestDoesNotKeepOthersWaiting(t *testing.T) {
	gate := make(chan struct{})
	_, addr := own(t, ServerConfig{}, &handler{serve: func(ctx context.Context, r *message.Request) *message.Response {
		if string(r.Path()) == "/wait" {
			r.Control.MayBlock()
			<-gate
		}
		return text(200, "x")
	}})
	r := dialRaw(t, addr, settings)
	var waiting []func() string
	for i := range 8 {
		var str interface {
			io.Reader
			Close() error
		}
		switch {
		case i%2 == 0: // waits in the handler
			str = r.open(headers(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/wait"))
			_ = str.Close()
		default: // waits for its head
			s := r.open(headers(get()...)[:3])
			str = s
			waiting = append(waiting, func() string {
				_, _ = s.Write([]byte(headers(get()...)[3:]))
				_ = s.Close()
				return answer(s)
			})
			continue
		}
		s := str
		waiting = append(waiting, func() string {
			b, err := io.ReadAll(s)
			if err != nil || !bytes.HasSuffix(b, []byte("\x00\x01x")) {
				return string(b)
			}
			return "200 x"
		})
	}
	for range 20 {
		if got := r.ask(headers(get()...)); got != "200 x" {
			t.Fatal(got)
		}
	}
	close(gate)
	for _, w := range waiting {
		if got := w(); got != "200 x" {
			t.Errorf("%q", got)
		}
	}
}

func TestLimitsOfTime(t *testing.T) {
	h := &handler{serve: say}
	s, addr := own(t, ServerConfig{HeaderTimeout: 200 * time.Millisecond, BodyTimeout: 200 * time.Millisecond, WriteTimeout: 200 * time.Millisecond}, h)
	r := dialRaw(t, addr, settings)
	head := headers(get()...)
	for _, tt := range []struct{ name, bytes, want string }{
		{"a head that does not end", head[:5], "408 head_timeout"},
		{"a stream that does not begin", "", ""},
		{"a GET that does not end", head, "408 head_timeout"},
		{"a body that does not come", headers(post("content-length", "5")...), "200 POST a / Content-Length=5 length=5 body= request body: body_timeout"},
		{"a body that stops", headers(post("content-length", "5")...) + frame(frameData, "abc"), "200 POST a / Content-Length=5 length=5 body=abc request body: body_timeout"},
	} {
		if tt.bytes == "" {
			continue // without a byte no stream is there
		}
		if got := answer(r.open(tt.bytes)); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	if n := s.Stats().Slow; n < 4 {
		t.Errorf("%d slow streams were counted", n)
	}
}

func TestAClientThatDoesNotReadIsGivenUp(t *testing.T) {
	h := &handler{serve: func(context.Context, *message.Request) *message.Response {
		return &message.Response{Status: 200, ContentLength: 100 << 20, Body: &pattern{n: 100 << 20}}
	}}
	s, addr := own(t, ServerConfig{WriteTimeout: 300 * time.Millisecond}, h)
	r := dialRaw(t, addr, settings)
	str := r.open(headers(get()...))
	_ = str.Close()
	until(t, "the answer was never given up", func() bool { _, o := h.last(); return o.Err != nil })
	if _, o := h.last(); !errors.Is(o.Err, os.ErrDeadlineExceeded) {
		t.Error(o.Err)
	}
	if st := s.Stats(); st.Slow != 1 || st.Aborted != 1 {
		t.Errorf("%+v", st)
	}
	if got := r.ask(headers(get()...)[:0]); got != "stream 0x10d" {
		t.Errorf("the connection goes on: %q", got)
	}
}

// The answer leaves at once, and waits at the client, which reads it for longer than the connection may be
// idle. What is heard of it meanwhile are pings.
func TestWhoStillReadsIsNotIdle(t *testing.T) {
	body := strings.Repeat("0123456789", 6000)
	for _, tt := range []struct {
		name   string
		rate   int64
		lasted bool
	}{
		{"faster than the least rate", 10_000, true},
		{"no rate", 0, true},
		{"pings keep no connection", 10_000_000, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := ServerConfig{IdleTimeout: 500 * time.Millisecond, WriteRate: tt.rate}
			_, addr := own(t, cfg, &handler{serve: func(context.Context, *message.Request) *message.Response { return text(200, body) }})
			r := dialRaw(t, addr, settings, func(c *quic.Config) { c.KeepAlivePeriod = 50 * time.Millisecond })
			str := r.open(headers(get()...))
			_ = str.Close()
			n, err := takeSlowly(str, 2000, 100*time.Millisecond)
			if lasted := err == io.EOF && n > len(body); lasted != tt.lasted {
				t.Errorf("%d bytes, %v", n, err)
			}
			if tt.rate != 10_000 {
				return
			}
			select {
			case <-r.qc.Context().Done():
			case <-time.After(20 * time.Second):
				t.Error("it is never idle")
			}
		})
	}
}

func TestAnIdleConnectionEndsInGoodOrder(t *testing.T) {
	_, addr := own(t, ServerConfig{IdleTimeout: 200 * time.Millisecond}, &handler{serve: say})
	r := dialRaw(t, addr, settings)
	if got := r.ask(headers(get()...)); got != "200 GET a / length=0" {
		t.Fatal(got)
	}
	if got := r.closed(); got != "connection 0x100" {
		t.Error(got)
	}
}

// goAways reads the server's control stream and lends the ids of its GOAWAYs.
func goAways(r *raw) <-chan uint64 {
	c := make(chan uint64, 10)
	str, err := r.qc.AcceptUniStream(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	go func() {
		defer close(c)
		in := &reader{str: str}
		if kind, err := in.number(); kind != streamControl || err != nil {
			return
		}
		for {
			kind, err := in.number()
			if err != nil {
				return
			}
			length, _ := in.number()
			p, err := in.payload(int(length))
			if err != nil {
				return
			}
			if kind == frameGoAway {
				id, _ := varint(p)
				c <- id
			}
		}
	}()
	return c
}

func TestRFC9114Section52GoAway(t *testing.T) {
	gate := make(chan struct{})
	s, addr := own(t, ServerConfig{}, &handler{serve: func(_ context.Context, r *message.Request) *message.Response {
		if string(r.Path()) == "/wait" {
			r.Control.MayBlock()
			<-gate
		}
		return text(200, "x")
	}})
	r := dialRaw(t, addr, settings)
	ids := goAways(r)
	str := r.open(headers(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/wait"))
	_ = str.Close()
	until(t, "the request has not come", func() bool { return s.Stats().Requests == 1 })
	s.Drain()
	if id := <-ids; id != lastRequestID {
		t.Errorf("the first GOAWAY has id %d", id)
	}
	if got := r.ask(headers(get()...)); got != "200 x" {
		t.Errorf("a request on its way: %q", got)
	}
	if id := <-ids; id != 8 {
		t.Errorf("the second GOAWAY has id %d", id)
	}
	if got := r.ask(headers(get()...)); got != "stream 0x10b" {
		t.Errorf("a request after it: %q", got)
	}
	close(gate)
	if got := answer(str); got != "200 x" {
		t.Errorf("the request under way: %q", got)
	}
	if got := r.closed(); got != "connection 0x100" {
		t.Error(got)
	}
}

// An answer may come before the whole request, of which no more is wanted then.
func TestRFC9114Section41AnEarlyAnswerStopsTheRequest(t *testing.T) {
	_, addr := own(t, ServerConfig{}, &handler{serve: func(context.Context, *message.Request) *message.Response { return text(200, "x") }})
	r := dialRaw(t, addr, settings)
	str := r.open(headers(post()...) + frame(frameData, "abc"))
	if got := answer(str); got != "200 x" {
		t.Error(got)
	}
	select {
	case <-str.Context().Done():
		if got := ended(context.Cause(str.Context())); got != "stream 0x100" {
			t.Error(got)
		}
	case <-time.After(10 * time.Second):
		t.Error("more is wanted")
	}
	if got := r.ask(headers(get()...)); got != "200 x" {
		t.Errorf("the next request: %q", got)
	}
}

func TestAConnectionEndsInGoodOrderAfterItsRequests(t *testing.T) {
	_, addr := own(t, ServerConfig{Requests: 3}, &handler{serve: say})
	r := dialRaw(t, addr, settings)
	ids := goAways(r)
	for range 3 {
		if got := r.ask(headers(get()...)); got != "200 GET a / length=0" {
			t.Fatal(got)
		}
	}
	if id := <-ids; id != lastRequestID {
		t.Error(id)
	}
	if got := r.closed(); got != "connection 0x100" {
		t.Error(got)
	}
}

func TestAnAnswerMayEndTheConnection(t *testing.T) {
	_, addr := own(t, ServerConfig{}, &handler{serve: func(_ context.Context, r *message.Request) *message.Response {
		resp := text(200, "x")
		resp.AddString(message.Connection, "x, close")
		return resp
	}})
	r := dialRaw(t, addr, settings)
	ids := goAways(r)
	if got := r.ask(headers(get()...)); got != "200 x" {
		t.Fatal(got)
	}
	if id := <-ids; id != lastRequestID {
		t.Error(id)
	}
	if got := r.closed(); got != "connection 0x100" {
		t.Error(got)
	}
}

func TestFloods(t *testing.T) {
	const excessive = "connection 0x107"
	for _, tt := range []struct {
		name string
		do   func(r *raw)
	}{
		{"unknown frames", func(r *raw) { r.open(strings.Repeat(frame(0x21, ""), maxUnknown+1)) }},
		{"a large unknown frame", func(r *raw) { r.open(string(appendVarint([]byte{0x21}, maxUnknownSize+1))) }},
		{"empty DATA", func(r *raw) { r.open(headers(post()...) + strings.Repeat(frame(frameData, ""), maxEmptyData+1)) }},
		{"frames of the control stream", func(r *raw) {
			_, _ = r.control.Write([]byte(strings.Repeat(frame(frameMaxPushID, "\x01"), maxControl+10)))
		}},
		{"a large frame of the control stream", func(r *raw) {
			_, _ = r.control.Write(appendVarint([]byte{0x21}, maxUnknownSize+1))
		}},
		{"a large PRIORITY_UPDATE", func(r *raw) {
			_, _ = r.control.Write([]byte(frame(framePriorityRequest, strings.Repeat(" ", maxControlFrame+1))))
		}},
		{"settings", func(r *raw) {}},
		{"capacities", func(r *raw) { r.uni("\x02" + strings.Repeat("\x20", maxControl+1)) }},
		{"the decoder stream", func(r *raw) { r.uni("\x03" + strings.Repeat("\x44", maxDecoder+1)) }},
		{"unknown streams", func(r *raw) {
			for range maxStrayUni + 1 {
				str, err := r.qc.OpenUniStreamSync(r.t.Context())
				if err != nil {
					return
				}
				_, _ = str.Write([]byte{0x21})
				_ = str.Close()
			}
		}},
		{"malformed requests", func(r *raw) {
			for range maxResets + 1 {
				str, err := r.qc.OpenStreamSync(r.t.Context())
				if err != nil {
					return
				}
				_, _ = str.Write([]byte(headers(get("X", "1")...)))
				_ = str.Close()
			}
		}},
		{"refused requests", func(r *raw) {
			for range maxResets + 1 {
				str, err := r.qc.OpenStreamSync(r.t.Context())
				if err != nil {
					return
				}
				_, _ = str.Write([]byte(headers(get("content_length", "1")...)))
				_ = str.Close()
			}
		}},
		{"rapid reset", func(r *raw) {
			for range maxResets + 20 {
				ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
				str, err := r.qc.OpenStreamSync(ctx)
				cancel()
				if err != nil {
					return
				}
				_, _ = str.Write([]byte(headers(post()...)))
				time.Sleep(time.Millisecond)
				str.CancelWrite(codeRequestCancelled)
				str.CancelRead(codeRequestCancelled)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, addr := own(t, ServerConfig{}, &handler{serve: say})
			begin := settings
			if tt.name == "settings" {
				var p []byte
				for i := range 65 {
					p = appendVarint(appendVarint(p, uint64(0x21+i)), 0)
				}
				begin = "\x00" + frame(frameSettings, string(p))
			}
			r := dialRaw(t, addr, begin)
			tt.do(r)
			if got := r.closed(); got != excessive {
				t.Errorf("got %q, want %q", got, excessive)
			}
			if n := s.Stats().Floods; n != 1 {
				t.Errorf("%d floods were counted", n)
			}
		})
	}
}

// TestRequestsGivenUpStillCount shows that a client cannot have more requests served at once
// than its streams by resetting them: a stream is given back when we are done with it.
func TestRequestsGivenUpStillCount(t *testing.T) {
	gate := make(chan struct{})
	var at, most atomic.Int64
	_, addr := own(t, ServerConfig{}, &handler{serve: func(_ context.Context, r *message.Request) *message.Response {
		r.Control.MayBlock()
		for n := at.Add(1); ; {
			m := most.Load()
			if n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		<-gate
		at.Add(-1)
		return text(200, "x")
	}}, func(a *acceptor) { a.set.Streams = 5 })
	r := dialRaw(t, addr, settings)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	n := 0
	for ; n < 20; n++ {
		str, err := r.qc.OpenStreamSync(ctx)
		if err != nil {
			break
		}
		_, _ = str.Write([]byte(headers(get()...)))
		_ = str.Close()
		str.CancelRead(codeRequestCancelled)
	}
	close(gate)
	if n > 6 || most.Load() > 5 {
		t.Errorf("%d streams were opened, %d served at once", n, most.Load())
	}
}

func TestTheContextEndsWhenTheClientGivesUp(t *testing.T) {
	in, out := make(chan struct{}), make(chan error, 1)
	s, addr := own(t, ServerConfig{}, &handler{serve: func(ctx context.Context, r *message.Request) *message.Response {
		r.Control.MayBlock()
		close(in)
		<-ctx.Done()
		out <- ctx.Err()
		return text(200, "x")
	}})
	r := dialRaw(t, addr, settings)
	str := r.open(headers(get()...))
	_ = str.Close()
	<-in
	str.CancelRead(codeRequestCancelled)
	if err := <-out; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	until(t, "it was not counted", func() bool { return s.Stats().Gone == 1 })
}

func TestPanics(t *testing.T) {
	h := &handler{serve: func(_ context.Context, r *message.Request) *message.Response {
		switch string(r.Path()) {
		case "/serve":
			panic("on purpose")
		case "/body":
			return &message.Response{Status: 200, ContentLength: -1, Body: panicBody{}}
		}
		return text(200, "x")
	}}
	s, addr := own(t, ServerConfig{}, h)
	r := dialRaw(t, addr, settings)
	at := func(path string) string {
		return r.ask(headers(":method", "GET", ":scheme", "https", ":authority", "a", ":path", path))
	}
	if got := at("/serve"); got != "500 panic" {
		t.Error(got)
	}
	if got := at("/body"); got != "stream 0x102" {
		t.Error(got)
	}
	if got := at("/"); got != "200 x" {
		t.Error(got)
	}
	if n := s.Stats().Panics; n != 2 {
		t.Error(n)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ends) != 2 || h.ends[0].Err == nil && h.ends[1].Err == nil {
		t.Errorf("%+v", h.ends)
	}
}

type panicBody struct{}

func (panicBody) Next(context.Context) ([]byte, error) { panic("on purpose") }
func (panicBody) Close(error)                          {}

// A try at the origin that is given up does not spoil the body for the next one.
func TestAPullThatWasGivenUpCanGoOn(t *testing.T) {
	given := make(chan struct{})
	_, addr := own(t, ServerConfig{}, &handler{serve: func(ctx context.Context, r *message.Request) *message.Response {
		for range 50 {
			try, giveUp := context.WithCancel(ctx)
			go giveUp()
			if _, err := r.Body.Next(try); !errors.Is(err, context.Canceled) {
				return text(500, "not given up")
			}
		}
		close(given)
		b, err := drain(ctx, r.Body)
		return text(200, b+" "+err.Error())
	}})
	r := dialRaw(t, addr, settings)
	str := r.open(headers(post("content-length", "5")...))
	<-given
	_, _ = str.Write([]byte(frame(frameData, "12345")))
	_ = str.Close()
	if got := answer(str); got != "200 12345 EOF" {
		t.Error(got)
	}
}

func TestABrokenAnswerIsReset(t *testing.T) {
	var wg sync.WaitGroup
	for _, tt := range []struct {
		length int64
		err    error
		want   error
	}{{-1, io.ErrUnexpectedEOF, io.ErrUnexpectedEOF}, {10, nil, errTooShort}, {1, nil, errTooLong}} {
		wg.Go(func() {
			h := &handler{serve: func(context.Context, *message.Request) *message.Response {
				c := make(chan string, 1)
				c <- "abc"
				close(c)
				return &message.Response{Status: 200, ContentLength: tt.length, Body: &pieces{c: c, err: tt.err}}
			}}
			_, addr := own(t, ServerConfig{}, h)
			r := dialRaw(t, addr, settings)
			if got := r.ask(headers(get()...)); got != "stream 0x102" {
				t.Error(got)
			}
			// The client may see the reset before the handler is told.
			until(t, tt.want.Error()+": not told", func() bool { _, o := h.last(); return errors.Is(o.Err, tt.want) })
		})
	}
	wg.Wait()
}
