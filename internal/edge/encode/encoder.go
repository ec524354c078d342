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
	gzipLevels   = [levels]int{1, 5, 9}
	brotliLevels = [levels]int{1, 4, 7}
	zstdLevels   = [levels]zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression}
)

const (
	brotliWindow = 18 // 256 KiB
	zstdWindow   = 256 << 10
)

// encoders lends encoders, and bounds how many are in use at once.
type encoders struct {
	idle    [codings][levels]sync.Pool
	open    atomic.Int64
	events  atomic.Int64
	maxOpen int64
}

// take lends an encoder that writes to w; nil when too many are in use. Streams of events,
// which last for hours, get at most half of them.
func (e *encoders) take(c coding, l level, events bool, w io.Writer) encoder {
	if e.open.Add(1) > e.maxOpen {
		e.open.Add(-1)
		return nil
	}
	if events && e.events.Add(1) > e.maxOpen/2 {
		e.events.Add(-1)
		e.open.Add(-1)
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
	e.open.Add(-1)
	if events {
		e.events.Add(-1)
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
