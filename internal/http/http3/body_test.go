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
	"strings"
	"sync"
	"testing"
	"time"

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
		c.Timeout = 5 * time.Minute // a busy machine, with the race detector
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
