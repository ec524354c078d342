//go:build !race

package http2

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/message"
)

// script is a connection that gives the same bytes again and again, and takes everything.
type script struct {
	net.Conn
	next  []byte
	reads chan []byte
	done  chan struct{}
}

func (s *script) Read(b []byte) (int, error) {
	if len(s.next) == 0 {
		var ok bool
		if s.next, ok = <-s.reads; !ok {
			return 0, io.EOF
		}
	}
	n := copy(b, s.next)
	s.next = s.next[n:]
	return n, nil
}

func (s *script) Write(b []byte) (int, error) {
	if len(b) > 500 { // the answers of a batch
		s.done <- struct{}{}
	}
	return len(b), nil
}

func (s *script) Close() error                     { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

func TestHitsAllocateNothing(t *testing.T) {
	e := new(ender)
	resp := new(message.Response)
	body := make([]byte, 1000)
	s := NewServer(ServerConfig{}, handlerFunc(func(context.Context, *message.Request) *message.Response {
		resp.Reset()
		resp.Status = 200
		resp.AddString(message.ContentType, "text/plain")
		resp.AddString(message.CacheControl, "max-age=60")
		resp.SetBytes(body)
		resp.Ender = e
		return resp
	}))
	nc := &script{reads: make(chan []byte), done: make(chan struct{}, 1)}
	over := make(chan struct{})
	go func() {
		s.ServeConn(context.Background(), nc, &message.Conn{})
		close(over)
	}()
	nc.reads <- appendSettings([]byte(preface))
	id, out := uint32(1), []byte(nil)
	req := hpack.Append(nil, hpack.Method, nil, []byte("GET"), true)
	req = hpack.Append(req, hpack.Scheme, nil, []byte("http"), true)
	req = hpack.Append(req, hpack.Authority, nil, []byte("example.com"), true)
	req = hpack.Append(req, hpack.Path, nil, []byte("/some/path?and=query"), true)
	req = hpack.Append(req, message.UserAgent, nil, []byte("a browser"), true)
	req = hpack.Append(req, message.Cookie, nil, []byte("a=b; and=more; than=enough"), true)
	batch := func() {
		out = appendWindowUpdate(out[:0], 0, 10_000)
		for range 10 {
			at := len(out)
			out = endHeaders(append(beginHeaders(out), req...), at, id, true, minMaxFrame)
			id += 2
		}
		nc.reads <- out
		<-nc.done
	}
	for range 50 {
		batch()
	}
	if n := testing.AllocsPerRun(200, batch); n > 0.1 {
		t.Errorf("ten hits allocate %v times", n)
	}
	close(nc.reads)
	<-over
	if e.n != int(id/2) {
		t.Errorf("%d of %d Enders were told", e.n, id/2)
	}
}

// fixed answers each request on its connections with the same bytes.
func fixed(t *testing.T, answer []byte) (addr string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer func() { _ = nc.Close() }()
		b := make([]byte, 4096)
		for {
			if _, err := nc.Read(b); err != nil {
				return
			}
			_, _ = nc.Write(answer)
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-over })
	return ln.Addr().String()
}

// releases takes connections that are free again.
type releases chan bool

func (r releases) Release(_ *http1.ClientConn, reusable bool) { r <- reusable }

// A request that goes on to an origin by HTTP/1: nobody there waits for the end of its context with a
// channel, which would be made anew for each.
func TestProxiedRequestsAllocateNothing(t *testing.T) {
	body := make([]byte, 1000)
	nc, err := net.Dial("tcp", fixed(t, append([]byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n"), body...)))
	if err != nil {
		t.Fatal(err)
	}
	free := make(releases, 1)
	origin := http1.NewClient(http1.ClientConfig{}).NewConn(nc, free)
	defer func() { _ = origin.Close() }()
	var out message.Request
	resp := new(message.Response)
	free <- true
	s := NewServer(ServerConfig{}, handlerFunc(func(ctx context.Context, r *message.Request) *message.Response {
		r.Control.MayBlock()
		<-free
		out.CopyFrom(r)
		if err := origin.RoundTrip(ctx, &out, resp, http1.Try{}); err != nil {
			t.Error(err)
			return text(err.Error())
		}
		return resp
	}))
	far := &script{reads: make(chan []byte), done: make(chan struct{}, 1)}
	over := make(chan struct{})
	go func() {
		s.ServeConn(context.Background(), far, &message.Conn{})
		close(over)
	}()
	far.reads <- appendSettings([]byte(preface))
	req := block(":method", "GET", ":scheme", "http", ":authority", "example.com", ":path", "/a", "user-agent", "a browser")
	id, frames := uint32(1), []byte(nil)
	once := func() {
		frames = appendWindowUpdate(frames[:0], 0, 1000)
		at := len(frames)
		frames = endHeaders(append(beginHeaders(frames), req...), at, id, true, minMaxFrame)
		id += 2
		far.reads <- frames
		<-far.done
	}
	for range 50 {
		once()
	}
	if n := testing.AllocsPerRun(200, once); n > 0.1 {
		t.Errorf("%v allocations", n)
	}
	close(far.reads)
	<-over
}
