//go:build !race

package http2

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/hpack"
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
