package http2

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

func TestWebSocketOverExtendedConnectRFC8441(t *testing.T) {
	near, far := net.Pipe()
	_, addr := serve(t, ServerConfig{}, handlerFunc(func(_ context.Context, r *message.Request) *message.Response {
		if r.Method != message.GET || string(r.Get(message.Upgrade)) != "websocket" || r.Body != nil {
			t.Errorf("%s with Upgrade %q", r.MethodName(), r.Get(message.Upgrade))
		}
		resp := &message.Response{Status: 101, Upgrade: near}
		resp.AddString(message.SecWebSocketAccept, webSocketAccept(string(r.Get(message.SecWebSocketKey))))
		return resp
	}), nil)
	p := dial(t, addr)
	p.headers(1, false, block(":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/chat"))
	p.out = appendData(p.out, 1, []byte("hello"), false)
	p.send()
	_, b := p.until(typeHeaders)
	f := collect{}
	_ = p.dec.Decode(b, 1<<16, f)
	if f[":status"] != "200" || f["upgrade"] != "" || f["sec-websocket-accept"] != "" {
		t.Errorf("got %v", f)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(far, got); err != nil || string(got) != "hello" {
		t.Errorf("the origin got %q, %v", got, err)
	}
	go func() { _, _ = far.Write([]byte("back")); _ = far.Close() }()
	if _, b := p.until(typeData); string(b) != "back" {
		t.Errorf("the client got %q", b)
	}
	h, _ := p.until(typeData)
	if !h.has(flagEndStream) {
		t.Error("the origin's end is not passed on")
	}
	p.out = appendData(p.out, 1, nil, true)
	p.headers(3, false, block(":method", "CONNECT", ":protocol", "other", ":scheme", "http", ":authority", "a", ":path", "/"))
	p.send()
	for {
		h, b := p.until(typeHeaders)
		f := collect{}
		_ = p.dec.Decode(b, 1<<16, f)
		if h.stream == 3 {
			if f[":status"] != "501" {
				t.Errorf("an unknown protocol got %v", f)
			}
			return
		}
	}
}

// A tunnel in which neither side says anything ends alone: the connection goes on.
func TestASilentTunnelIsReset(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	_, addr := serve(t, ServerConfig{TunnelTimeout: 300 * time.Millisecond}, handlerFunc(func(_ context.Context, r *message.Request) *message.Response {
		if r.Method == message.GET && !r.Has(message.Upgrade) {
			return text("still here")
		}
		resp := &message.Response{Status: 101, Upgrade: near}
		resp.AddString(message.SecWebSocketAccept, webSocketAccept(string(r.Get(message.SecWebSocketKey))))
		return resp
	}), nil)
	p := dial(t, addr)
	p.headers(1, false, block(":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/chat"))
	p.send()
	if h, _ := p.until(typeReset); h.stream != 1 {
		t.Errorf("stream %d was reset", h.stream)
	}
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the origin's side: %v", err)
	}
	p.headers(3, true, get("/"))
	p.send()
	if a := p.responses(1)[3]; a.body != "still here" {
		t.Errorf("got %+v", a)
	}
}

func TestARefusedExtendedConnectLeavesNothingBehind(t *testing.T) {
	s, addr := serve(t, ServerConfig{}, handlerFunc(func(context.Context, *message.Request) *message.Response {
		body := &pieces{ch: make(chan string, 1), closed: make(chan error, 1), end: io.EOF}
		body.ch <- "no"
		close(body.ch)
		return &message.Response{Status: 403, ContentLength: -1, Body: body}
	}), nil)
	for n := range uint64(20) {
		p := dial(t, addr)
		for id := uint32(1); id < 20; id += 2 {
			p.headers(id, false, block(":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/chat"))
		}
		p.send()
		for s.Stats().Requests < 10*(n+1) {
			time.Sleep(time.Millisecond)
		}
		_ = p.nc.Close()
	}
	p := dial(t, addr)
	p.headers(1, true, get("/"))
	p.send()
	if a := p.responses(1)[1]; a.body != "no" {
		t.Errorf("after that: %+v", a)
	}
	if n := s.Stats().Panics; n != 0 {
		t.Errorf("%d panics", n)
	}
}
