package http2

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/message"
)

func TestRFC9113Section8_7WhatWasNotDoneIsSafeToRetry(t *testing.T) {
	for name, tc := range map[string]struct {
		send func(id uint32) []byte
		want error
		sent bool
	}{
		"REFUSED_STREAM":           {func(id uint32) []byte { return appendReset(nil, id, RefusedStream) }, ErrRefused, false},
		"HTTP_1_1_REQUIRED":        {func(id uint32) []byte { return appendReset(nil, id, HTTP11Required) }, ErrHTTP11Required, false},
		"GOAWAY below the stream":  {func(uint32) []byte { return appendGoAway(nil, 0, EnhanceYourCalm, "x") }, ErrGoAway, false},
		"INTERNAL_ERROR":           {func(id uint32) []byte { return appendReset(nil, id, InternalError) }, nil, true},
		"a refusal after the head": {func(id uint32) []byte { return appendReset(head(id, false, ":status", "200"), id, RefusedStream) }, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			b, r := newRaw(t, ClientConfig{})
			got := b.ask(request("POST", "/"), http1.Try{})
			id, _ := r.request()
			r.send(tc.send(id))
			a := <-got
			var e *http1.Error
			if !errors.As(a.err, &e) || e.Sent != tc.sent || tc.want != nil && !errors.Is(a.err, tc.want) {
				t.Errorf("%#v", a.err)
			}
		})
	}
}

func TestRFC9113Section6_8GOAWAYLetsTheStreamsBelowEnd(t *testing.T) {
	b, r := newRaw(t, ClientConfig{})
	one := b.ask(request("GET", "/1"), http1.Try{})
	id, _ := r.request()
	two := b.ask(request("GET", "/2"), http1.Try{})
	r.request()
	r.send(appendGoAway(nil, id, NoError, ""))
	if a := <-two; !errors.Is(a.err, ErrGoAway) {
		t.Error(a.err)
	}
	if b.c.Reserve() || !b.c.Draining() || b.c.Closed() {
		t.Error("the connection takes more")
	}
	r.send(appendData(head(id, false, ":status", "200"), id, []byte("one"), true))
	if a := <-one; a.err != nil || a.body != "one" {
		t.Error(a.err, a.body)
	}
	if err := <-b.ran; !errors.Is(err, http1.ErrClosed) {
		t.Error(err)
	}
	b.ran <- nil
}

func TestTheOriginsLimitOfStreamsIsKept(t *testing.T) {
	b, r := newRaw(t, ClientConfig{}, setting{settingMaxStreams, 2})
	<-b.c.settled
	if n := b.c.Room(); n != 2 {
		t.Fatal(n)
	}
	one := b.ask(request("GET", "/1"), http1.Try{})
	id, _ := r.request()
	if !b.c.Reserve() || b.c.Reserve() {
		t.Error("the limit is not 2")
	}
	was := b.changes.Load()
	r.send(head(id, true, ":status", "204"))
	<-one
	if b.changes.Load() == was || !b.c.Reserve() {
		t.Error("the place was not given back")
	}
	var resp message.Response
	for range 2 { // give the places back
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.c.RoundTrip(ctx, request("GET", "/"), &resp, http1.Try{}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

func TestRFC9113Section6_9TheOriginsWindowsAreKept(t *testing.T) {
	b, r := newRaw(t, ClientConfig{}, setting{settingInitialWindow, 5})
	<-b.c.settled
	req := request("POST", "/")
	req.Body, req.ContentLength = &clientPieces{list: [][]byte{[]byte("0123456789")}}, 10
	req.Trailer = &message.Fields{}
	got := b.ask(req, http1.Try{})
	id, f := r.request()
	if f["content-length"] != "10" {
		t.Error(f)
	}
	if _, p := r.next(typeData); string(p) != "01234" {
		t.Errorf("%q", p)
	}
	r.send(appendWindowUpdate(nil, id, 2))
	if _, p := r.next(typeData); string(p) != "56" {
		t.Errorf("%q", p)
	}
	r.send(appendSettings(nil, setting{settingInitialWindow, 2})) // the window is -3 now
	r.send(appendWindowUpdate(nil, id, 4))
	if _, p := r.next(typeData); string(p) != "7" {
		t.Errorf("%q", p)
	}
	r.send(appendSettings(nil, setting{settingInitialWindow, 9}))
	if h, p := r.next(typeData); string(p) != "89" || !h.has(flagEndStream) {
		t.Errorf("%q", p)
	}
	r.send(head(id, true, ":status", "204"))
	if a := <-got; a.err != nil {
		t.Error(a.err)
	}
}

func TestTheTrailerOfARequestFollowsItsBody(t *testing.T) {
	b, r := newRaw(t, ClientConfig{})
	for _, data := range []string{"", "body"} {
		req := request("POST", "/")
		req.Body, req.ContentLength = &clientPieces{list: [][]byte{[]byte(data)}}, -1
		req.Trailer = &message.Fields{}
		req.Trailer.AddLine([]byte("X-Sum"), []byte("7"))
		req.Trailer.AddLine([]byte("Host"), []byte("evil"))
		got := b.ask(req, http1.Try{})
		id, _ := r.request()
		if data != "" {
			r.next(typeData)
		}
		h, block := r.next(typeHeaders)
		m := fieldMap{}
		if err := r.dec.Decode(block, 1<<16, m); err != nil || !h.has(flagEndStream) || len(m) != 1 || m["x-sum"] != "7" {
			t.Errorf("%v %v", err, m)
		}
		r.send(append(head(id, false, ":status", "200"), head(id, true, "grpc-status", "0", "set-cookie", "a=b")...))
		a := <-got
		if a.err != nil {
			t.Error(a.err)
		}
	}
}

func TestRFC8441AWebSocketGoesAsExtendedConnect(t *testing.T) {
	b, r := newRaw(t, ClientConfig{}, setting{settingConnectProtocol, 1})
	req := request("GET", "/chat")
	req.AddString(message.Upgrade, "websocket")
	req.AddString(message.SecWebSocketKey, "dGhlIHNhbXBsZSBub25jZQ==")
	req.AddString(message.SecWebSocketVersion, "13")
	<-b.c.settled
	b.c.Reserve()
	var resp message.Response
	ran := make(chan error, 1)
	go func() { ran <- b.c.RoundTrip(t.Context(), req, &resp, http1.Try{Upgrade: true}) }()
	id, f := r.request()
	if f[":method"] != "CONNECT" || f[":protocol"] != "websocket" || f[":path"] != "/chat" || f["sec-websocket-key"] != "" || f["upgrade"] != "" || f["sec-websocket-version"] != "13" {
		t.Error(f)
	}
	r.send(head(id, false, ":status", "200"))
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if resp.Status != 101 || string(resp.Get(message.SecWebSocketAccept)) != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("%d %q", resp.Status, resp.Get(message.SecWebSocketAccept))
	}
	if _, err := resp.Upgrade.Write([]byte("ping")); err != nil {
		t.Error(err)
	}
	if _, p := r.next(typeData); string(p) != "ping" {
		t.Errorf("%q", p)
	}
	r.send(appendData(nil, id, []byte("pong"), true))
	if got, err := io.ReadAll(resp.Upgrade); err != nil || string(got) != "pong" {
		t.Errorf("%q %v", got, err)
	}
	_ = resp.Upgrade.(interface{ CloseWrite() error }).CloseWrite()
	if h, _ := r.next(typeData); !h.has(flagEndStream) {
		t.Error("no end")
	}
	_ = resp.Upgrade.Close()
	_ = resp.Upgrade.Close()
}

func TestAnUpgradeThatTheOriginDoesNotTakeLeavesNothing(t *testing.T) {
	b, _ := newRaw(t, ClientConfig{})
	for _, p := range []string{"websocket", "other"} {
		req := request("GET", "/chat")
		req.AddString(message.Upgrade, p)
		a := <-b.ask(req, http1.Try{Upgrade: true})
		var e *http1.Error
		if !errors.As(a.err, &e) || e.Sent || !errors.Is(a.err, ErrNoConnect) {
			t.Errorf("%#v", a.err)
		}
	}
}

func TestRFC9113Section5_1_1AConnectionWithoutIDsIsLeft(t *testing.T) {
	b, r := newRaw(t, ClientConfig{})
	<-b.c.settled
	b.c.mu.Lock()
	b.c.next = maxWindow
	b.c.mu.Unlock()
	got := b.ask(request("GET", "/"), http1.Try{})
	id, _ := r.request()
	if s := b.c.State(); !s.Draining || s.Closed || s.Room != 0 || id != maxWindow {
		t.Errorf("%+v %d", s, id)
	}
	r.send(head(id, true, ":status", "204"))
	if a := <-got; a.err != nil {
		t.Error(a.err)
	}
	<-b.ran
	b.ran <- nil
}
