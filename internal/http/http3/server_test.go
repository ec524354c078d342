package http3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/relais-edge/relais/internal/http/message"
)

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
		{"faster than the least rate", 8_000, true},
		{"no rate", 0, true},
		{"pings keep no connection", 10_000_000, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := ServerConfig{IdleTimeout: 2 * time.Second, WriteRate: tt.rate} // a busy machine is silent for shorter ones
			_, addr := own(t, cfg, &handler{serve: func(context.Context, *message.Request) *message.Response { return text(200, body) }})
			r := dialRaw(t, addr, settings, func(c *quic.Config) { c.KeepAlivePeriod = 50 * time.Millisecond })
			str := r.open(headers(get()...))
			_ = str.Close()
			n, err := takeSlowly(str, 2000, 200*time.Millisecond)
			if lasted := err == io.EOF && n > len(body); lasted != tt.lasted {
				t.Errorf("%d bytes, %v", n, err)
			}
			if tt.rate != 8_000 {
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
	// A stream's end is told after its client may have seen it.
	ends := func() int {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.ends)
	}
	until(t, "two answers have an end", func() bool { return ends() >= 2 })
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ends) != 2 || h.ends[0].Err == nil && h.ends[1].Err == nil {
		t.Errorf("%+v", h.ends)
	}
}

type panicBody struct{}

func (panicBody) Next(context.Context) ([]byte, error) { panic("on purpose") }

func (panicBody) Close(error) {}
