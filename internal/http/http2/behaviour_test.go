package http2

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

func TestFullDuplexAndTrailersBothWays(t *testing.T) {
	_, addr := serve(t, ServerConfig{}, handlerFunc(func(ctx context.Context, r *message.Request) *message.Response {
		r.Control.MayBlock()
		p := newPieces()
		resp := &message.Response{Status: 200, ContentLength: -1, Body: p, Trailer: new(message.Fields)}
		go func() {
			for {
				b, err := r.Body.Next(ctx)
				if len(b) > 0 {
					p.ch <- "echo " + string(b)
				}
				if err != nil {
					resp.Trailer.AddLine([]byte("got"), r.Trailer.Lookup("sum"))
					close(p.ch)
					return
				}
			}
		}()
		return resp
	}), nil)
	p := dial(t, addr)
	p.headers(1, false, block(":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/", "te", "trailers"))
	p.send()
	p.until(typeHeaders)
	for _, word := range []string{"one", "two"} {
		p.out = appendData(p.out, 1, []byte(word), false)
		p.send()
		if _, b := p.until(typeData); string(b) != "echo "+word {
			t.Fatalf("got %q before the request has ended", b)
		}
	}
	p.headers(1, true, block("sum", "42"))
	p.send()
	h, b := p.until(typeHeaders)
	fields := collect{}
	_ = p.dec.Decode(b, 1<<16, fields)
	if !h.has(flagEndStream) || fields["got"] != "42" {
		t.Errorf("trailer %v, end %v", fields, h.has(flagEndStream))
	}
}

func TestContentLengthMustBeThatOfTheDataRFC9113Section811(t *testing.T) {
	ends := make(outcomes, 10)
	_, addr := serve(t, ServerConfig{}, handlerFunc(func(ctx context.Context, r *message.Request) *message.Response {
		_, err := readAll(ctx, r.Body)
		if !errors.Is(err, message.ErrBodyMalformed) && !errors.Is(err, message.ErrBodyTruncated) {
			t.Errorf("the body ended with %v", err)
		}
		resp := text("late")
		resp.Ender = ends
		return resp
	}), nil)
	p := dial(t, addr)
	for i, data := range []string{"1234", "123456"} {
		id := uint32(2*i + 1)
		p.headers(id, false, block(":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/", "content-length", "5"))
		p.out = appendData(p.out, id, []byte(data), true)
		p.send()
		if got, c := p.reset(); got != id || c != ProtocolError {
			t.Errorf("%d bytes for 5: %v on stream %d", len(data), c, got)
		}
		if o := <-ends; o.Err == nil || o.Status != 0 {
			t.Errorf("outcome %+v", o)
		}
	}
}

func TestTheBodysPullOpensTheWindows(t *testing.T) {
	pull := make(chan struct{})
	_, addr := serve(t, ServerConfig{StreamWindow: 1 << 16, ConnWindow: 1 << 16}, handlerFunc(func(ctx context.Context, r *message.Request) *message.Response {
		r.Control.MayBlock()
		<-pull
		s, _ := readAll(ctx, r.Body)
		return text(s[:4])
	}), nil)
	p := dial(t, addr)
	p.headers(1, false, block(":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/"))
	for range 4 {
		p.out = appendData(p.out, 1, make([]byte, 16_000), false)
	}
	p.out = appendPing(p.out, [8]byte{1}, false)
	p.send()
	for {
		h, _, _ := p.frame()
		if h.typ == typeWindowUpdate && h.stream == 1 {
			t.Fatal("the window was opened before anything was pulled")
		}
		if h.typ == typePing {
			break
		}
	}
	close(pull)
	for {
		if h, b := p.until(typeWindowUpdate); h.stream == 1 {
			if number(b) < 16_000 {
				t.Errorf("opened by %d", number(b))
			}
			break
		}
	}
	p.out = appendData(p.out, 1, nil, true)
	p.send()
	if a := p.responses(1)[1]; len(a.body) != 4 {
		t.Errorf("got %+v", a)
	}
}

func TestUrgentAnswersLeaveFirstRFC9218(t *testing.T) {
	big := strings.Repeat("x", 60_000)
	_, addr := serve(t, ServerConfig{}, handlerFunc(func(context.Context, *message.Request) *message.Response {
		return text(big)
	}), nil)
	p := dial(t, addr, setting{settingInitialWindow, 1 << 20})
	p.headers(1, true, get("/", "priority", "u=5"))
	p.headers(3, true, get("/", "priority", "u=3, i"))
	p.headers(5, true, get("/", "priority", "u=3, i"))
	p.headers(7, true, get("/", "priority", "u=1"))
	p.headers(9, true, get("/", "priority", "u=4"))
	p.out = append(appendHead(p.out, 7, typePriorityUpdate, 0, 0), 0, 0, 0, 9, 'u', '=', '0')
	p.out = appendWindowUpdate(p.out, 0, 1<<20)
	p.send()
	var order []uint32
	for ended := 0; ended < 5; {
		h, _ := p.until(typeData)
		if n := len(order); n == 0 || order[n-1] != h.stream {
			order = append(order, h.stream)
		}
		if h.has(flagEndStream) {
			ended++
		}
	}
	if order[0] != 9 || order[1] != 7 || order[len(order)-1] != 1 {
		t.Errorf("order %v: not by urgency", order)
	}
	if len(order) < 7 {
		t.Errorf("order %v: incremental answers do not take turns", order)
	}
}

func TestAStreamingAnswerDoesNotHoldOthersUp(t *testing.T) {
	slow := newPieces("first")
	_, addr := serve(t, ServerConfig{}, handlerFunc(func(_ context.Context, r *message.Request) *message.Response {
		if string(r.Path()) == "/slow" {
			return &message.Response{Status: 200, ContentLength: -1, Body: slow}
		}
		return text("quick")
	}), nil)
	p := dial(t, addr)
	p.headers(1, true, get("/slow"))
	p.headers(3, true, get("/quick"))
	p.send()
	seen := map[string]bool{}
	for !seen["first"] || !seen["quick"] {
		_, b := p.until(typeData)
		seen[string(b)] = true
	}
	p.out = appendReset(p.out, 1, Cancel)
	p.send()
	if err := <-slow.closed; !errors.Is(err, errReset) && !errors.Is(err, context.Canceled) {
		t.Errorf("closed with %v", err)
	}
}

func TestAPanicEndsItsRequestOnly(t *testing.T) {
	s, addr := serve(t, ServerConfig{}, handlerFunc(func(_ context.Context, r *message.Request) *message.Response {
		if string(r.Path()) == "/panic" {
			panic("a mistake")
		}
		return text("fine")
	}), nil)
	p := dial(t, addr)
	p.headers(1, true, get("/panic"))
	p.headers(3, true, get("/"))
	p.send()
	all := p.responses(2)
	if all[1].fields[":status"] != "500" || all[3].body != "fine" || s.Stats().Panics != 1 {
		t.Errorf("%+v, %+v, %+v", all[1], all[3], s.Stats())
	}
}

func TestExpect100ContinueRFC9110Section1011(t *testing.T) {
	_, addr := serve(t, ServerConfig{}, handlerFunc(func(ctx context.Context, r *message.Request) *message.Response {
		var f message.Fields
		f.AddString(message.Link, "</a.css>; rel=preload")
		r.Control.Inform(103, &f)
		s, _ := readAll(ctx, r.Body)
		return text(s)
	}), nil)
	p := dial(t, addr)
	p.headers(1, false, block(":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/", "expect", "100-continue"))
	p.send()
	for _, want := range []string{"103", "100"} {
		_, b := p.until(typeHeaders)
		f := collect{}
		_ = p.dec.Decode(b, 1<<16, f)
		if f[":status"] != want {
			t.Fatalf("got %v, want %s", f, want)
		}
	}
	p.out = appendData(p.out, 1, []byte("body"), true)
	p.send()
	if a := p.responses(1)[1]; a.body != "body" {
		t.Errorf("got %+v", a)
	}
}

func TestDrainIsGracefulRFC9113Section68(t *testing.T) {
	release := make(chan struct{})
	s, addr := serve(t, ServerConfig{}, handlerFunc(func(_ context.Context, r *message.Request) *message.Response {
		r.Control.MayBlock()
		<-release
		return text("whole")
	}), nil)
	p := dial(t, addr)
	p.headers(1, true, get("/"))
	p.send()
	p.until(typeSettings)
	for s.Stats().Requests == 0 {
		time.Sleep(time.Millisecond)
	}
	s.Drain()
	_, b := goAwayFrame(p)
	if last, c, _ := parseGoAway(b); last != maxWindow || c != NoError {
		t.Errorf("first GOAWAY %d %v", last, c)
	}
	_, ping := p.until(typePing)
	p.headers(3, true, get("/")) // it was on its way
	p.out = appendPing(p.out, [8]byte(ping), true)
	p.send()
	_, b = goAwayFrame(p)
	if last, c, _ := parseGoAway(b); last != 3 || c != NoError {
		t.Errorf("last GOAWAY %d %v", last, c)
	}
	close(release)
	if all := p.responses(2); all[1].body != "whole" || all[3].body != "whole" {
		t.Errorf("%+v", all)
	}
	if _, _, ok := p.frame(); ok {
		t.Error("the connection goes on")
	}
}

func goAwayFrame(p *peer) (frameHead, []byte) {
	p.t.Helper()
	for {
		h, b, ok := p.frame()
		if !ok {
			p.t.Fatal("no GOAWAY")
		}
		if h.typ == typeGoAway {
			return h, b
		}
	}
}

// TestABrokenAnswerIsResetAtOnce: the client sends nothing more, so nothing else makes us write.
func TestABrokenAnswerIsResetAtOnce(t *testing.T) {
	list := newPieces("first")
	list.end = errors.New("the origin broke off")
	_, addr := serve(t, ServerConfig{}, handlerFunc(func(_ context.Context, r *message.Request) *message.Response {
		r.Control.MayBlock()
		return &message.Response{Status: 200, ContentLength: -1, Body: list}
	}), nil)
	p := dial(t, addr)
	p.headers(1, true, get("/"))
	p.send()
	p.until(typeData)
	close(list.ch)
	if id, code := p.reset(); id != 1 || code != InternalError {
		t.Errorf("stream %d is reset with %v", id, code)
	}
}
