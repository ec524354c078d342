//go:build !race

package http3

import (
	"testing"

	"github.com/relais-edge/relais/internal/http/message"
)

// TestAHitAllocatesNothing counts what is ours: the transport's streams allocate.
func TestAHitAllocatesNothing(t *testing.T) {
	s := NewServer(ServerConfig{}, &handler{})
	block := []byte(sectionOf(get("user-agent", "Mozilla/5.0", "cookie", "a=1", "cookie", "b=2", "accept-encoding", "gzip", "x-other", "1")...))
	stream := append(appendVarint([]byte{frameHeaders}, uint64(len(block))), block...)
	resp := &message.Response{Status: 200}
	resp.AddString(message.ContentType, "text/html")
	resp.AddString(message.CacheControl, "max-age=60")
	resp.AddLine([]byte("X-Other"), []byte("1"))
	resp.SetBytes(make([]byte, 1024))
	c := &serverConn{s: s}
	src := &trickle{n: 1 << 20}
	x := &exchange{c: c, src: src, in: make([]byte, firstRead)}
	if n := testing.AllocsPerRun(1000, func() {
		src.b = stream
		x.r, x.w, x.eof = 0, 0, false
		_ = x.fill()
		if x.readHead() != nil || x.req.Get(message.Cookie) == nil {
			t.Fatal("the request was refused")
		}
		x.buildHead(resp, x.length(resp))
		x.out = appendVarint(append(x.out, frameData), uint64(len(resp.Bytes)))
		x.out = append(x.out, resp.Bytes...)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkHead(b *testing.B) {
	s := NewServer(ServerConfig{}, &handler{})
	block := []byte(sectionOf(get("user-agent", "quic-go HTTP/3", "accept-encoding", "gzip")...))
	x := &exchange{c: &serverConn{s: s}}
	b.ReportAllocs()
	for b.Loop() {
		if x.section.parseHead(block, &s.cfg.Limits, &x.req, &x.head) != nil {
			b.Fatal("refused")
		}
	}
}
