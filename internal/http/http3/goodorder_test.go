package http3

import (
	"context"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

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
