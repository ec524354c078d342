package http1

import (
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
)

// Sizes of the pooled buffers.
const (
	sizeTiny  = 512
	sizeMid   = 32 << 10
	sizeLarge = 128 << 10
)

// buffer is pooled memory; b[r:w] is what was read and not used.
type buffer struct {
	b    []byte
	r, w int
}

// buffers are the pools that the connections of a Server or a Client share. A pool's last
// buffer is still in the processor's cache, so sharing few is faster than having own ones.
type buffers struct{ tiny, mid, large sync.Pool }

func (p *buffers) init() {
	p.tiny.New = func() any { return &buffer{b: make([]byte, sizeTiny)} }
	p.mid.New = func() any { return &buffer{b: make([]byte, sizeMid)} }
	p.large.New = func() any { return &buffer{b: make([]byte, sizeLarge)} }
}

func (p *buffers) pool(size int) *sync.Pool {
	switch size {
	case sizeTiny:
		return &p.tiny
	case sizeMid:
		return &p.mid
	}
	return &p.large
}

func (p *buffers) get(size int) *buffer { return p.pool(size).Get().(*buffer) }

func (p *buffers) put(b *buffer) {
	b.r, b.w = 0, 0
	p.pool(len(b.b)).Put(b)
}

// source reads a connection into pooled buffers. A TCP connection holds none while it waits:
// the buffer is taken when the socket has something.
type source struct {
	nc   net.Conn
	raw  syscall.RawConn // nil when it is not plain TCP
	pool *buffers
	in   *buffer
	step func(fd uintptr) bool // readStep, made once

	size int // of the buffer that readStep takes
	n    int
	err  error
}

// init has s read nc. Raw is what rawOf said of it.
func (s *source) init(nc net.Conn, raw syscall.RawConn, pool *buffers) {
	s.nc, s.raw, s.pool = nc, raw, pool
	if raw != nil && s.step == nil {
		s.step = s.readStep
	}
}

// rawOf is the socket of a plain TCP connection, nil for any other.
func rawOf(nc net.Conn) syscall.RawConn {
	if t, ok := nc.(*net.TCPConn); ok && rawReads {
		if raw, err := t.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// buffered lends what was read and not used.
func (s *source) buffered() []byte {
	if s.in == nil {
		return nil
	}
	return s.in.b[s.in.r:s.in.w]
}

// use takes n bytes off what is buffered.
func (s *source) use(n int) { s.in.r += n }

// release gives the buffer back if it is empty. What was lent of it is lost.
func (s *source) release() {
	if s.in != nil && s.in.r == s.in.w {
		s.pool.put(s.in)
		s.in = nil
	}
}

// drop gives the buffer back with all that is in it.
func (s *source) drop() {
	if s.in != nil {
		s.pool.put(s.in)
		s.in = nil
	}
}

// fill reads once, after what is buffered, in a buffer of at least size. What was lent may
// move. The error is io.EOF when the other side has ended.
func (s *source) fill(size int) (int, error) {
	// Let the others run first. On a busy machine the bytes have come by the time it is our
	// turn again, which saves a read that fails and the way through the poller; on an idle one
	// this costs next to nothing.
	runtime.Gosched()
	s.room(size)
	if s.in == nil {
		if s.raw != nil {
			s.size, s.n, s.err = size, 0, nil
			if err := s.raw.Read(s.step); err != nil {
				return 0, err
			}
			return s.n, s.err
		}
		if size == sizeMid {
			size = sizeTiny // it waits with the buffer in hand; what TLS has decrypted beyond is read at once
		}
		s.in = s.pool.get(size)
	}
	for range maxEmptyReads {
		n, err := s.nc.Read(s.in.b[s.in.w:])
		s.in.w += n
		if n > 0 {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, io.ErrNoProgress
}

// maxEmptyReads is how often a connection may return neither bytes nor an error.
const maxEmptyReads = 100

// room sees to free space behind what is buffered: by moving it to the front, or to a larger
// buffer. An empty buffer that is too small is given back.
func (s *source) room(size int) {
	b := s.in
	switch {
	case b == nil:
		return
	case b.r == b.w:
		b.r, b.w = 0, 0
		if len(b.b) < size || s.raw != nil {
			s.drop()
		}
		return
	case b.r > 0:
		b.w = copy(b.b, b.b[b.r:b.w])
		b.r = 0
	}
	if b.w == len(b.b) || len(b.b) < size && size == sizeLarge {
		next := sizeMid
		if len(b.b) >= sizeMid || size == sizeLarge {
			next = sizeLarge
		}
		n := s.pool.get(next)
		n.w = copy(n.b, b.b[:b.w])
		s.pool.put(b)
		s.in = n
	}
}
