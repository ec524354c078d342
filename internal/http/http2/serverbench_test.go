package http2

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	xhpack "golang.org/x/net/http2/hpack"

	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/message"
)

// replay is a client that sends batches of requests until the benchmark ends, and reads what
// comes without looking at it. It wakes nobody, so that only the server's work is measured.
type replay struct {
	net.Conn
	first []byte
	block []byte // of the first request of a connection, and
	again []byte // of those that follow
	out   []byte
	id    uint32
	batch int
	left  int
}

func (r *replay) Read(b []byte) (int, error) {
	if len(r.out) == 0 {
		if r.left <= 0 {
			return 0, io.EOF
		}
		r.out = r.out[:0]
		if r.first != nil {
			r.out, r.first = append(r.out, r.first...), nil
		}
		r.out = appendWindowUpdate(r.out, 0, r.batch*1100)
		for range r.batch {
			block := r.again
			if r.id == 1 {
				block = r.block
			}
			at := len(r.out)
			r.out = endHeaders(append(beginHeaders(r.out), block...), at, r.id, true, minMaxFrame)
			r.id += 2
		}
		r.left -= r.batch
	}
	n := copy(b, r.out)
	r.out = r.out[:copy(r.out, r.out[n:])]
	return n, nil
}

func (r *replay) Write(b []byte) (int, error)      { return len(b), nil }
func (r *replay) Close() error                     { return nil }
func (r *replay) SetReadDeadline(time.Time) error  { return nil }
func (r *replay) SetWriteDeadline(time.Time) error { return nil }

// visit is a request as a benchmark tool, or as a browser, sends it.
func visit(browser bool) [][2]string {
	list := [][2]string{
		{":method", "GET"},
		{":scheme", "https"},
		{":authority", "127.0.0.1:18443"},
		{"user-agent", "h2load nghttp2/1.64.0"},
	}
	if browser {
		list[3][1] = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
		list = append(list, [][2]string{
			{"sec-ch-ua", `"Chromium";v="140", "Not=A?Brand";v="24", "Google Chrome";v="140"`},
			{"sec-ch-ua-mobile", "?0"},
			{"sec-ch-ua-platform", `"Linux"`},
			{"accept", "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"},
			{"sec-fetch-site", "same-origin"},
			{"sec-fetch-mode", "no-cors"},
			{"sec-fetch-dest", "image"},
			{"referer", "https://shop.example.com/some/category?page=2"},
			{"accept-encoding", "gzip, deflate, br, zstd"},
			{"accept-language", "en-GB,en;q=0.9,de;q=0.8"},
			{"cookie", "session=0123456789abcdef0123456789abcdef; basket=42; consent=all"},
		}...)
	}
	return list
}

func newReplay(n int, browser bool) *replay {
	r := &replay{first: appendSettings([]byte(preface)), id: 1, batch: 10, left: n}
	var block bytes.Buffer
	enc := xhpack.NewEncoder(&block)
	for _, to := range []*[]byte{&r.block, &r.again} {
		block.Reset()
		_, _ = block.Write(hpack.Append(nil, hpack.Path, nil, []byte("/hit/1k"), true)) // enters no table
		for _, f := range visit(browser) {
			_ = enc.WriteField(xhpack.HeaderField{Name: f[0], Value: f[1]})
		}
		*to = bytes.Clone(block.Bytes())
	}
	return r
}

// hit is an answer from memory, as the whole pipeline gives it.
func hit(resp *message.Response, e message.Ender, body []byte) {
	resp.Reset()
	resp.Status = 200
	resp.AddString(message.Server, "backend")
	resp.AddString(message.Date, "Mon, 23 Nov 2026 02:38:15 GMT")
	resp.AddString(message.ContentType, "text/plain")
	resp.AddString(message.CacheControl, "max-age=86400")
	resp.AddString(message.Age, "3")
	resp.AddString(message.CacheStatus, "relais; hit; ttl=86396")
	resp.AddString(message.XRequestId, "02c01fye13ss0f2f4b1ze25gpc")
	resp.AddString(message.AltSvc, `h3=":18590"; ma=86400`)
	resp.SetBytes(body)
	resp.Ender = e
}

func BenchmarkHit(b *testing.B) {
	for _, browser := range []bool{false, true} {
		name := "tool"
		if browser {
			name = "browser"
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			e := new(ender)
			resp := make([]message.Response, 16)
			body := make([]byte, 1024)
			n := 0
			for i := range resp {
				hit(&resp[i], e, body)
			}
			s := NewServer(ServerConfig{}, handlerFunc(func(context.Context, *message.Request) *message.Response {
				n++
				return &resp[n%16]
			}))
			s.ServeConn(context.Background(), newReplay(b.N, browser), &message.Conn{TLS: &message.TLS{}})
			if n < b.N || e.n != n {
				b.Fatalf("%d of %d requests were answered, %d Enders told", n, b.N, e.n)
			}
		})
	}
}
