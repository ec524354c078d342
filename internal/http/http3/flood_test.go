package http3

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

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

func TestAFloodIsToldOf(t *testing.T) {
	told := make(chan string, 10)
	_, addr := own(t, ServerConfig{OnAbuse: func(c *message.Conn) { told <- c.Client.String() }}, &handler{serve: say})
	r := dialRaw(t, addr, settings)
	r.open(strings.Repeat(frame(0x21, ""), maxUnknown+1))
	r.closed()
	if got := <-told; got == "" || len(told) != 0 {
		t.Errorf("told of %q, and of %d more", got, len(told))
	}
}
