package encode

import (
	"fmt"
	"io"
	"runtime"
	"testing"
)

// BenchmarkEncode compresses 64 KiB of text that repeats itself little more than markup does.
func BenchmarkEncode(b *testing.B) {
	page := make([]byte, 0, 64<<10)
	for i := 0; len(page) < 64<<10; i++ {
		page = fmt.Appendf(page, "<li class=\"item\" id=\"p%d\"><a href=\"/product/%x\">%s %d</a></li>\n", i, i*2654435761, text[i%400:i%400+30], i*7919%1000)
	}
	for c := zstdCoding; c < codings; c++ {
		for l := fast; l < levels; l++ {
			b.Run(fmt.Sprint(codingNames[c], "/", [levels]string{"fast", "balanced", "small"}[l]), func(b *testing.B) {
				e := &encoders{max: 10 << 20}
				out := &buffer{}
				b.SetBytes(int64(len(page)))
				for b.Loop() {
					out.b = out.b[:0]
					enc := e.take(c, l, false, out)
					enc.Write(page)
					enc.Close()
					e.give(enc, c, l, false)
				}
				b.ReportMetric(float64(len(page))/float64(len(out.b)), "ratio")
			})
		}
	}
}

// BenchmarkEncoderMemory tells what an encoder holds while an answer lasts.
func BenchmarkEncoderMemory(b *testing.B) {
	page := []byte(text)
	for c := zstdCoding; c < codings; c++ {
		for l := fast; l < levels; l++ {
			b.Run(fmt.Sprint(codingNames[c], "/", [levels]string{"fast", "balanced", "small"}[l]), func(b *testing.B) {
				var before, after runtime.MemStats
				const n = 20
				for b.Loop() {
					runtime.GC()
					runtime.ReadMemStats(&before)
					var held [n]encoder
					for i := range held {
						held[i] = newEncoder(c, l, io.Discard)
						for range 8 {
							held[i].Write(page)
						}
						held[i].Flush()
					}
					runtime.GC()
					runtime.ReadMemStats(&after)
					runtime.KeepAlive(&held)
				}
				b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/n/1024, "KiB/encoder")
			})
		}
	}
}
