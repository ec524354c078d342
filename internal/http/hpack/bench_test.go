package hpack

import (
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/relais-edge/relais/internal/http/message"
)

// count is a Sink that does nothing else.
type count int

func (c *count) Field(message.ID, []byte, []byte, Traits) error { *c++; return nil }

type field struct {
	id          message.ID
	name, value []byte
}

// request is what a browser sends.
var request = makeRequest()

func makeRequest() []field {
	var out []field
	for _, l := range [][2]string{
		{":method", "GET"},
		{":scheme", "https"},
		{":authority", "shop.example.com"},
		{":path", "/img/products/4711/large.webp?v=3"},
		{"user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
		{"accept", "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"},
		{"accept-language", "en-US,en;q=0.5"},
		{"accept-encoding", "gzip, deflate, br, zstd"},
		{"referer", "https://shop.example.com/products"},
		{"cookie", "session=8f2b0c5e1d7a4f6bb3d94e0a12c7589d; theme=dark"},
		{"sec-fetch-dest", "image"},
		{"sec-fetch-mode", "no-cors"},
		{"sec-fetch-site", "same-origin"},
		{"x-own", "17"},
	} {
		out = append(out, field{identify([]byte(l[0])), []byte(l[0]), []byte(l[1])})
	}
	return out
}

func stateless(compress bool) (b []byte) {
	for _, f := range request {
		b = Append(b, f.id, f.name, f.value, compress)
	}
	return b
}

func BenchmarkDecodeHuffman(b *testing.B) {
	block, d := stateless(true), NewDecoder(4096)
	var n count
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		_ = d.Decode(block, 1<<16, &n)
	}
}

func BenchmarkDecodePlain(b *testing.B) {
	block, d := stateless(false), NewDecoder(4096)
	var n count
	for b.Loop() {
		_ = d.Decode(block, 1<<16, &n)
	}
}

func BenchmarkDecodeHuffmanTwin(b *testing.B) {
	block, d := stateless(true), hpack.NewDecoder(4096, func(hpack.HeaderField) {})
	for b.Loop() {
		_, _ = d.Write(block)
		_ = d.Close()
	}
}

func BenchmarkDecodeIndexed(b *testing.B) {
	e, d := NewEncoder(4096, true), NewDecoder(4096)
	var n count
	var block []byte
	for range 4 {
		block = block[:0]
		for _, f := range request {
			block = e.Append(block, f.id, f.name, f.value)
		}
		_ = d.Decode(block, 1<<16, &n)
	}
	for b.Loop() {
		_ = d.Decode(block, 1<<16, &n)
	}
}

func BenchmarkAppendStatelessPlain(b *testing.B)   { benchAppend(b, false) }
func BenchmarkAppendStatelessHuffman(b *testing.B) { benchAppend(b, true) }

func benchAppend(b *testing.B, compress bool) {
	var block []byte
	for b.Loop() {
		block = block[:0]
		for i := range request {
			f := &request[i]
			block = Append(block, f.id, f.name, f.value, compress)
		}
	}
}

func BenchmarkAppendTable(b *testing.B) {
	e := NewEncoder(4096, true)
	var block []byte
	for b.Loop() {
		block = block[:0]
		for i := range request {
			f := &request[i]
			block = e.Append(block, f.id, f.name, f.value)
		}
	}
}
