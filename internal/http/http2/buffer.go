package http2

import "sync"

// Sizes of the pooled buffers.
const (
	sizeSmall = 4 << 10  // what a connection that waits holds
	sizeMid   = 32 << 10 // a whole frame fits
	sizeOut   = 72 << 10 // one write
)

// buffer is pooled memory; b[r:w] is what was read and not used.
type buffer struct {
	b    []byte
	r, w int
	next *buffer
}

// buffers are the pools that the connections of a Server share. A pool's last buffer is
// still in the processor's cache, so sharing few is faster than having own ones.
type buffers struct{ small, mid, out sync.Pool }

func (p *buffers) init() {
	p.small.New = func() any { return &buffer{b: make([]byte, sizeSmall)} }
	p.mid.New = func() any { return &buffer{b: make([]byte, sizeMid)} }
	p.out.New = func() any { return &buffer{b: make([]byte, sizeOut)} }
}

func (p *buffers) pool(size int) *sync.Pool {
	switch size {
	case sizeSmall:
		return &p.small
	case sizeMid:
		return &p.mid
	}
	return &p.out
}

func (p *buffers) get(size int) *buffer { return p.pool(size).Get().(*buffer) }

func (p *buffers) put(b *buffer) {
	b.r, b.w, b.next = 0, 0, nil
	p.pool(len(b.b)).Put(b)
}
