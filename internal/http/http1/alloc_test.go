package http1

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/relais-edge/relais/internal/http/message"
)

// hit answers from memory and reuses its answer.
type hit struct {
	stored message.Fields
	body   []byte
	resp   message.Response
}

func newHit(size int) *hit {
	h := &hit{body: make([]byte, size)}
	h.stored.AddString(message.ContentType, "text/plain")
	h.stored.AddString(message.CacheControl, "max-age=60")
	h.stored.AddString(message.ETag, `"abcdef0123456789"`)
	return h
}

func (h *hit) Serve(context.Context, *message.Request) *message.Response {
	h.resp.Reset()
	h.resp.Status = 200
	h.resp.CopyFrom(&h.stored)
	h.resp.AddInt(message.Age, 3)
	h.resp.SetBytes(h.body)
	return &h.resp
}

func (h *hit) Refuse(context.Context, *message.Conn, int, string, string) *message.Response {
	return nil
}

const browserGet = "GET /img/logo.png?v=3 HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
	"Accept: image/avif,image/webp,*/*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\nReferer: https://shop.example.com/\r\n" +
	"Connection: keep-alive\r\nCookie: session=0123456789abcdef; basket=42\r\n\r\n"

// exchanger sends raw on a connection and reads the answer, whose length it learns at first.
func exchanger(t testing.TB, addr, raw string) func() {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	in, buf := []byte(raw), make([]byte, 256<<10)
	if _, err := nc.Write(in); err != nil {
		t.Fatal(err)
	}
	size := answerLen(t, nc, buf)
	return func() {
		if _, err := nc.Write(in); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(nc, buf[:size]); err != nil {
			t.Fatal(err)
		}
	}
}

func answerLen(t testing.TB, nc net.Conn, buf []byte) int {
	var r message.Response
	var h head
	lim := Limits{}
	lim.fill(128)
	for n := 0; ; {
		m, err := nc.Read(buf[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += m
		at, _, flt := parseResponse(buf[:n], &lim, &r, &h)
		if flt != nil {
			t.Fatal(flt)
		}
		if at > 0 {
			size := at + int(h.length)
			if _, err := io.ReadFull(nc, buf[n:size]); err != nil {
				t.Fatal(err)
			}
			return size
		}
	}
}

func TestParsingAllocatesNothing(t *testing.T) {
	var r message.Request
	var h requestHead
	lim := Limits{}
	lim.fill(128)
	in := []byte(browserGet)
	n := testing.AllocsPerRun(100, func() {
		if n, flt := parseRequest(in, &lim, &r, &h); n != len(in) || flt != nil {
			t.Fatal(n, flt)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParseRequest(b *testing.B) {
	var r message.Request
	var h requestHead
	lim := Limits{}
	lim.fill(128)
	in := []byte(browserGet)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if n, _ := parseRequest(in, &lim, &r, &h); n != len(in) {
			b.Fatal(n)
		}
	}
}

func BenchmarkServeHit(b *testing.B) {
	_, addr := listen(b, ServerConfig{}, newHit(1<<10))
	once := exchanger(b, addr, browserGet)
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
}

func BenchmarkProxy(b *testing.B) {
	_, origin := listen(b, ServerConfig{}, newHit(1<<10))
	_, addr := listen(b, ServerConfig{}, newProxy(b, origin))
	once := exchanger(b, addr, browserGet)
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
}
