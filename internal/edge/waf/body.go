package waf

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/http/message"
)

// errMemory says that all bodies together are more than may be kept.
var errMemory = errors.New("no memory for another body")

// maxPooled is the largest buffer that is kept for the next body.
const maxPooled = 1 << 20

// bodies keeps what was read of bodies.
type bodies struct {
	limit int64
	used  atomic.Int64
	pool  sync.Pool // of *[]byte
}

// get returns an empty buffer.
func (b *bodies) get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return (*p)[:0]
	}
	return nil
}

func (b *bodies) put(buf []byte) {
	if cap(buf) > 0 && cap(buf) <= maxPooled {
		b.pool.Put(&buf)
	}
}

// read reads src until its end or until more than limit bytes are there. When the memory for
// bodies is used up it stops with errMemory, unless force is true; the replay is good then too.
// With any other error there is none.
func (b *bodies) read(ctx context.Context, src message.Body, limit int, force bool) (*replay, error) {
	r := &replay{src: src, from: b, prefix: b.get()}
	for len(r.prefix) <= limit {
		chunk, err := src.Next(ctx)
		n := int64(len(chunk))
		r.kept += n
		used := b.used.Add(n)
		r.prefix = append(r.prefix, chunk...)
		if err == io.EOF {
			r.whole = true
			break
		}
		if err != nil {
			r.drop()
			return nil, err
		}
		if used > b.limit && !force {
			return r, errMemory
		}
	}
	return r, nil
}

// replay is a body that gives what was read of it before, then the rest.
type replay struct {
	src    message.Body
	from   *bodies
	prefix []byte
	kept   int64 // bytes that count as used
	done   atomic.Bool
	whole  bool // src has ended
	lent   bool
}

// Next implements message.Body.
func (r *replay) Next(ctx context.Context) ([]byte, error) {
	if !r.lent {
		r.lent = true
		if r.whole {
			return r.prefix, io.EOF
		}
		return r.prefix, nil
	}
	r.drop()
	if r.whole {
		return nil, io.EOF
	}
	return r.src.Next(ctx)
}

// Close implements message.Body.
func (r *replay) Close(cause error) {
	r.lent = true
	r.drop()
	r.src.Close(cause)
}

// End implements message.Ender, for a body that nobody read. Who reads may be at it still, so
// the buffer is left to the collector.
func (r *replay) End(message.Outcome) { r.release() }

// drop gives the buffer back. Only who reads the body may call it.
func (r *replay) drop() {
	r.release()
	r.from.put(r.prefix)
	r.prefix = nil
}

// release takes the bytes from the count, once.
func (r *replay) release() {
	if !r.done.Swap(true) {
		r.from.used.Add(-r.kept)
	}
}

// textless says whether a media type holds no text, so that no rule can say anything of it.
func textless(contentType []byte) bool {
	n := 0
	for n < len(contentType) && contentType[n] != ';' && contentType[n] != ' ' && contentType[n] != '\t' {
		n++
	}
	t := strings.ToLower(string(contentType[:n]))
	kind, sub, _ := strings.Cut(t, "/")
	switch kind {
	case "image":
		return sub != "svg+xml"
	case "video", "audio", "font":
		return true
	case "application":
		switch sub {
		case "octet-stream", "pdf", "zip", "gzip", "x-gzip", "x-tar", "x-7z-compressed", "zstd", "wasm",
			"x-protobuf", "protobuf", "vnd.google.protobuf":
			return true
		}
		return sub == "grpc" || strings.HasPrefix(sub, "grpc+") || strings.HasPrefix(sub, "grpc-web")
	}
	return false
}
