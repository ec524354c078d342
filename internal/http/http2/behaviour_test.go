package http2

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
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

// limited runs one connection through a pipe in a bubble, where time stands still.
func limited(t *testing.T, cfg ServerConfig, h Handler, client func(p *peer, s *Server)) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(cfg, h)
		ctx, cancel := context.WithCancel(context.Background())
		go func() { _ = s.Run(ctx) }()
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() {
			s.ServeConn(ctx, far, &message.Conn{})
			close(done)
		}()
		p := &peer{t: t, nc: pipe{near, make(chan []byte, 1000)}}
		go p.nc.(pipe).pump()
		client(p, s)
		_ = near.Close()
		<-done
		cancel()
		synctest.Wait()
	})
}

// pipe reads all the time, as a socket's buffer does.
type pipe struct {
	net.Conn
	got chan []byte
}

func (p pipe) pump() {
	for {
		b := make([]byte, 4096)
		n, err := p.Conn.Read(b)
		if n > 0 {
			p.got <- b[:n]
		}
		if err != nil {
			close(p.got)
			return
		}
	}
}

func (p pipe) Read(b []byte) (int, error) {
	g, ok := <-p.got
	if !ok {
		return 0, io.EOF
	}
	return copy(b, g), nil
}

func (p pipe) SetReadDeadline(time.Time) error { return nil }

func TestLimitsOfTime(t *testing.T) {
	hit := handlerFunc(func(ctx context.Context, r *message.Request) *message.Response {
		if r.Body != nil {
			if _, err := readAll(ctx, r.Body); !errors.Is(err, message.ErrBodySlow) {
				t.Errorf("the body ended with %v", err)
			}
			return &message.Response{Status: http.StatusRequestTimeout}
		}
		return text(strings.Repeat("x", 1000))
	})
	cfg := ServerConfig{
		HeaderTimeout: 2 * time.Second, BodyTimeout: 3 * time.Second, WriteTimeout: 4 * time.Second, IdleTimeout: 10 * time.Second,
	}
	for name, c := range map[string]struct {
		do    func(p *peer)
		code  ErrCode
		after time.Duration
	}{
		"idle": {func(p *peer) { p.hello() }, NoError, 10 * time.Second},
		"no settings": {func(p *peer) {
			p.out = append(p.out, preface...)
			p.send()
		}, ProtocolError, 2 * time.Second},
		"no acknowledgement of SETTINGS (section 6.5.3)": {func(p *peer) {
			p.out = appendSettings(append(p.out, preface...))
			p.send()
		}, SettingsTimeout, 2 * time.Second},
		"half a frame": {func(p *peer) {
			p.hello()
			p.out = appendPing(p.out, [8]byte{}, false)[:12]
			p.send()
		}, ProtocolError, 2 * time.Second},
		"half a block": {func(p *peer) {
			p.hello()
			p.out = appendHead(p.out, 0, typeHeaders, 0, 1)
			p.send()
		}, ProtocolError, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			limited(t, cfg, hit, func(p *peer, _ *Server) {
				start := time.Now()
				c.do(p)
				if got := p.goAway(); got != c.code {
					t.Errorf("GOAWAY with %v", got)
				}
				if d := time.Since(start); d < c.after || d > c.after+time.Second {
					t.Errorf("after %v", d)
				}
			})
		})
	}
	t.Run("a body that stops", func(t *testing.T) {
		limited(t, cfg, hit, func(p *peer, s *Server) {
			p.hello()
			p.headers(1, false, get("/"))
			p.send()
			start := time.Now()
			if _, b := p.until(typeHeaders); len(b) == 0 {
				t.Error("no answer")
			}
			if d := time.Since(start); d < 3*time.Second || d > 4*time.Second || s.Stats().Slow != 1 {
				t.Errorf("after %v, %+v", d, s.Stats())
			}
		})
	})
	t.Run("a window that stays closed", func(t *testing.T) {
		limited(t, cfg, hit, func(p *peer, s *Server) {
			p.hello(setting{settingInitialWindow, 0})
			p.headers(1, true, get("/"))
			p.send()
			start := time.Now()
			if id, c := p.reset(); id != 1 || c != Cancel {
				t.Errorf("%v on stream %d", c, id)
			}
			if d := time.Since(start); d < 4*time.Second || d > 5*time.Second || s.Stats().Slow != 1 {
				t.Errorf("after %v, %+v", d, s.Stats())
			}
		})
	})
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
