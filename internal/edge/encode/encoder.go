package encode

import (
	"io"
	"sync"
	"sync/atomic"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// encoder is one coding at one level; the libraries' writers are all of this form.
type encoder interface {
	io.WriteCloser
	Flush() error
	Reset(io.Writer)
}

// level is how much work is spent.
type level uint8

const (
	fast level = iota
	balanced
	small
	levels
)

func levelOf(s string) level {
	switch s {
	case "fast":
		return fast
	case "small":
		return small
	}
	return balanced
}

// The levels of the libraries. The windows are kept small, since an encoder holds a few times
// its window while an answer lasts.
var (
	gzipLevels   = [levels]int{1, 6, 9}
	brotliLevels = [levels]int{1, 4, 6}
	zstdLevels   = [levels]zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression}
)

const (
	brotliWindow = 18 // 256 KiB
	zstdWindow   = 256 << 10
)

// cost is what an encoder holds while an answer lasts, in bytes, rounded up; it is measured by
// BenchmarkEncoderMemory.
var cost = [codings][levels]int64{
	zstdCoding: {768 << 10, 1900 << 10, 4800 << 10},
	brCoding:   {1700 << 10, 3000 << 10, 4600 << 10},
	gzipCoding: {850 << 10, 1100 << 10, 1400 << 10},
}

// encoders lends encoders, and bounds the memory, and so the number, of those in use.
type encoders struct {
	idle   [codings][levels]sync.Pool
	open   atomic.Int64 // bytes
	events atomic.Int64 // bytes, of streams of events
	max    int64
}

// take lends an encoder that writes to w; nil when too many are in use. Streams of events,
// which last for hours, get at most half of the memory.
func (e *encoders) take(c coding, l level, events bool, w io.Writer) encoder {
	n := cost[c][l]
	if e.open.Add(n) > e.max {
		e.open.Add(-n)
		return nil
	}
	if events && e.events.Add(n) > e.max/2 {
		e.events.Add(-n)
		e.open.Add(-n)
		return nil
	}
	if enc, ok := e.idle[c][l].Get().(encoder); ok {
		enc.Reset(w)
		return enc
	}
	return newEncoder(c, l, w)
}

// give takes an encoder back.
func (e *encoders) give(enc encoder, c coding, l level, events bool) {
	enc.Reset(io.Discard)
	e.idle[c][l].Put(enc)
	e.open.Add(-cost[c][l])
	if events {
		e.events.Add(-cost[c][l])
	}
}

func newEncoder(c coding, l level, w io.Writer) encoder {
	switch c {
	case zstdCoding:
		// The options are constants, so that there is no error. One goroutine: the caller's.
		enc, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstdLevels[l]),
			zstd.WithWindowSize(zstdWindow), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
		if err != nil {
			panic("encode: " + err.Error())
		}
		return enc
	case brCoding:
		return brotli.NewWriterOptions(w, brotli.WriterOptions{Quality: brotliLevels[l], LGWin: brotliWindow})
	}
	enc, err := gzip.NewWriterLevel(w, gzipLevels[l])
	if err != nil {
		panic("encode: " + err.Error())
	}
	return enc
}
