package http3

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/relais-edge/relais/internal/http/message"
)

// tunnelTo answers as an origin does that agrees, and echoes in capitals.
func tunnelTo(accept bool) func(context.Context, *message.Request) *message.Response {
	return func(_ context.Context, r *message.Request) *message.Response {
		if r.Method != message.CONNECT && string(r.Get(message.Upgrade)) != "websocket" {
			return text(400, "no")
		}
		if !accept {
			return text(403, "no")
		}
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			b := make([]byte, 100)
			for {
				n, err := far.Read(b)
				if err != nil {
					return
				}
				for i := range b[:n] {
					b[i] &^= 0x20
				}
				if _, err := far.Write(b[:n]); err != nil {
					return
				}
			}
		}()
		resp := &message.Response{Status: 200, Upgrade: near}
		if r.Method == message.GET {
			h := sha1.Sum([]byte(string(r.Get(message.SecWebSocketKey)) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
			resp.Status = 101
			resp.AddString(message.Upgrade, "websocket")
			resp.AddString(message.Connection, "Upgrade")
			resp.AddString(message.SecWebSocketAccept, base64.StdEncoding.EncodeToString(h[:]))
		}
		return resp
	}
}

// readFrame reads a frame.
func readFrame(t *testing.T, str *quic.Stream) (kind uint64, payload string) {
	t.Helper()
	var b []byte
	for {
		one := make([]byte, 1)
		if _, err := io.ReadFull(str, one); err != nil {
			t.Fatal(ended(err))
		}
		b = append(b, one[0])
		if k, length, n := frameHead(b); n > 0 {
			p := make([]byte, length)
			if _, err := io.ReadFull(str, p); err != nil {
				t.Fatal(ended(err))
			}
			return k, string(p)
		}
	}
}

func TestRFC9220WebSocketAndRFC9114Section44Connect(t *testing.T) {
	for name, head := range map[string]string{
		"extended CONNECT": headers(":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "a", ":path", "/chat", "sec-websocket-version", "13"),
		"CONNECT":          headers(":method", "CONNECT", ":authority", "a:443"),
	} {
		t.Run(name, func(t *testing.T) {
			h := &handler{serve: tunnelTo(true)}
			s, addr := own(t, ServerConfig{}, h)
			r := dialRaw(t, addr, settings)
			str := r.open(head)
			if kind, _ := readFrame(t, str); kind != frameHeaders {
				t.Fatal(kind)
			}
			for _, word := range []string{"hello", "there"} {
				_, _ = str.Write([]byte(frame(frameData, word)))
				if kind, got := readFrame(t, str); kind != frameData || got == word || len(got) != len(word) {
					t.Fatalf("%d %q", kind, got)
				}
			}
			_ = str.Close()
			if b, err := io.ReadAll(str); len(b) > 0 || err != nil {
				t.Errorf("%q %v", b, err)
			}
			until(t, "the end was not told", func() bool { _, o := h.last(); return o.Status == 200 && o.Body == 10 && o.Err == nil })
			if n := s.Stats().Tunnels; n != 1 {
				t.Error(n)
			}
		})
	}
}

func TestATunnelThatIsRefusedOrBroken(t *testing.T) {
	socket := headers(":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "a", ":path", "/chat")
	_, addr := own(t, ServerConfig{TunnelTimeout: 300 * time.Millisecond}, &handler{serve: tunnelTo(false)})
	if got := answer(dialRaw(t, addr, settings).open(socket)); got != "403 no" {
		t.Errorf("refused: %q", got)
	}
	_, addr = own(t, ServerConfig{TunnelTimeout: 300 * time.Millisecond}, &handler{serve: tunnelTo(true)})
	if got := answer(dialRaw(t, addr, settings).open(socket)); got != "stream 0x10f" {
		t.Errorf("silent: %q", got)
	}
	for name, f := range map[string]string{"HEADERS": headers("x-a", "1"), "SETTINGS": frame(frameSettings, ""), "PING of HTTP/2": frame(0x06, "")} {
		for _, head := range []string{socket, headers(":method", "CONNECT", ":authority", "a:443")} { // RFC 9114 section 4.4
			r := dialRaw(t, addr, settings)
			_ = r.open(head + frame(frameData, "x") + frame(0x21, "unknown") + f)
			if got := r.closed(); got != "connection 0x105" {
				t.Errorf("%s in a tunnel: %q", name, got)
			}
		}
	}
	// An origin that answers another handshake (RFC 6455 section 4.2.2).
	_, addr = own(t, ServerConfig{}, &handler{serve: func(_ context.Context, r *message.Request) *message.Response {
		r.Set(message.SecWebSocketKey, []byte("AAAAAAAAAAAAAAAAAAAAAA=="))
		resp := tunnelTo(true)(t.Context(), r)
		resp.Set(message.SecWebSocketAccept, []byte("x"))
		return resp
	}})
	if got := answer(dialRaw(t, addr, settings).open(socket)); got != "502 websocket_refused" {
		t.Errorf("another handshake: %q", got)
	}
}

// halfPipe is a connection whose ways end apart, as TCP's do.
type halfPipe struct {
	io.Reader
	*io.PipeWriter
}

func (p halfPipe) CloseWrite() error { return p.PipeWriter.Close() }

func TestRFC9114Section44AnOriginThatEndsFirstStillGetsWhatComes(t *testing.T) {
	got := make(chan string, 1)
	_, addr := own(t, ServerConfig{}, &handler{serve: func(ctx context.Context, _ *message.Request) *message.Response {
		r, w := io.Pipe()
		stop := context.AfterFunc(ctx, func() { _ = r.CloseWithError(context.Cause(ctx)) }) // as a connection to an origin does
		go func() {
			defer stop()
			b := make([]byte, len("still here"))
			n, err := io.ReadFull(r, b)
			if err != nil {
				got <- err.Error()
				return
			}
			got <- string(b[:n])
		}()
		return &message.Response{Status: 200, Upgrade: halfPipe{strings.NewReader("bye"), w}}
	}})
	str := dialRaw(t, addr, settings).open(headers(":method", "CONNECT", ":authority", "a:443"))
	if kind, _ := readFrame(t, str); kind != frameHeaders {
		t.Fatal(kind)
	}
	if kind, word := readFrame(t, str); kind != frameData || word != "bye" {
		t.Fatal(kind, word)
	}
	if b, err := io.ReadAll(str); len(b) > 0 || err != nil {
		t.Fatalf("%q %v", b, err)
	}
	if _, err := str.Write([]byte(frame(frameData, "still here"))); err != nil {
		t.Error(err)
	}
	_ = str.Close()
	if b := <-got; b != "still here" {
		t.Errorf("the origin got %q", b)
	}
}
