package http2

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/message"
)

// FuzzServer gives a server any frames after the hello. It must neither panic nor leave a
// request behind, each Ender is told once, and what it says must be frames.
func FuzzServer(f *testing.F) {
	open := func(id uint32, end bool, b []byte) []byte {
		return endHeaders(append(beginHeaders(nil), b...), 0, id, end, minMaxFrame)
	}
	f.Add(open(1, true, get("/")))
	f.Add(append(open(1, false, get("/body")), appendData(nil, 1, []byte("data"), true)...))
	f.Add(append(open(1, false, get("/stream")), appendReset(nil, 1, Cancel)...))
	f.Add(append(appendSettings(nil, setting{settingInitialWindow, 0}), open(1, true, get("/"))...))
	f.Add(append(open(1, false, block(":method", "CONNECT", ":authority", "a:1")), appendData(nil, 1, []byte("x"), true)...))
	f.Add(append(open(3, false, get("/body")), open(3, true, block("sum", "1"))...))
	f.Add(append(appendPing(nil, [8]byte{}, false), appendGoAway(nil, 0, NoError, "")...))
	f.Fuzz(func(t *testing.T, b []byte) {
		synctest.Test(t, func(t *testing.T) { serveAny(t, b, len(b)+headLen) })
		synctest.Test(t, func(t *testing.T) { serveAny(t, b, len(b)%23+1) })
	})
}

// serveAny gives the server step bytes at a time. It runs in a bubble: its limit of time is no matter of
// how busy the machine is.
func serveAny(t *testing.T, b []byte, step int) {
	most := len(b) / headLen // requests, of a frame each
	told, asked := make(chan message.Outcome, most), make(chan struct{}, most)
	s := NewServer(ServerConfig{Streams: 20}, handlerFunc(func(ctx context.Context, r *message.Request) *message.Response {
		asked <- struct{}{}
		resp := text("hit")
		switch string(r.Path()) {
		case "/body":
			if _, err := readAll(ctx, r.Body); err != nil {
				resp = &message.Response{Status: 400}
			}
		case "/stream", "":
			p := newPieces("a", "b")
			close(p.ch)
			resp = &message.Response{Status: 200, ContentLength: -1, Body: p}
		}
		resp.Ender = outcomes(told)
		return resp
	}))
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		s.ServeConn(t.Context(), far, &message.Conn{})
		close(done)
	}()
	said := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(near)
		said <- all
	}()
	_ = near.SetWriteDeadline(time.Now().Add(30 * time.Second))
	_, err := near.Write(appendSettings([]byte(preface)))
	for rest := b; len(rest) > 0 && err == nil; {
		n := min(step, len(rest))
		_, err = near.Write(rest[:n])
		rest = rest[n:]
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the server does not read")
	}
	_ = near.Close()
	<-done
	if len(told) != len(asked) || s.Stats().Panics != 0 {
		t.Fatalf("%d requests, %d ends, %d panics", len(asked), len(told), s.Stats().Panics)
	}
	dec := hpack.NewDecoder(4096)
	for out := <-said; len(out) > 0; {
		h, payload, n, _, flt := nextFrame(out, minMaxFrame)
		if flt != nil {
			t.Fatalf("the server said %+v: %v", h, flt)
		}
		if n == 0 {
			return // cut off by the end
		}
		if h.typ == typeHeaders {
			if err := dec.Decode(payload, 1<<20, nil); err != nil {
				t.Fatal(err)
			}
		}
		out = out[n:]
	}
}
