package http1

import (
	"context"
	"io"
	"sync"
)

// responseBody is the body of an answer, pulled from the origin's connection.
type responseBody struct {
	c    *ClientConn
	dec  decoder
	open bool
	err  error // how it ended: io.EOF when whole
}

func (b *responseBody) start(d decoder) {
	b.dec, b.open, b.err = d, true, nil
}

// Ready implements message.Prompt.
func (b *responseBody) Ready() bool { return b.err != nil || len(b.c.src.buffered()) > 0 }

// Next implements message.Body.
func (b *responseBody) Next(ctx context.Context) ([]byte, error) {
	if b.err != nil {
		return nil, b.err
	}
	c := b.c
	for {
		data, used, end, flt := b.dec.decode(c.src.buffered())
		if flt != nil {
			return nil, b.fail(ctx, flt)
		}
		if used > 0 {
			c.src.use(used)
		}
		if end {
			b.err = io.EOF
			return data, io.EOF
		}
		if len(data) > 0 {
			return data, nil
		}
		c.rg.Set(phaseBody, c.cl.watch.Limit(c.bodyWait))
		size := sizeLarge
		if c.src.raw == nil && b.dec.left <= sizeMid {
			size = sizeMid
		}
		_, err := c.src.fill(size)
		c.rg.Set(phaseNone, 0)
		if err == io.EOF && b.dec.kind == kindClose {
			b.err = io.EOF
			return nil, io.EOF
		}
		if err != nil {
			return nil, b.fail(ctx, err)
		}
	}
}

func (b *responseBody) fail(ctx context.Context, err error) error {
	c := b.c
	e := &Error{Phase: PhaseBody, Sent: true, Reused: c.uses > 1, Err: c.cause(ctx, err)}
	e.Timeout = e.Err == ErrTimeout
	b.err = e
	return e
}

// Close implements message.Body: it gives the connection back, or closes it when the body is
// not whole.
func (b *responseBody) Close(error) {
	if !b.open {
		return
	}
	b.open = false
	c := b.c
	whole := b.err == io.EOF
	if b.err == nil {
		b.err = ErrClosed
	}
	c.release(whole && c.reusable)
}

// tunnelConn is the origin's side of a tunnel.
type tunnelConn struct {
	c    *ClientConn
	once sync.Once
	mu   sync.Mutex // of reading
}

// Read implements io.Reader; what came with the head is first.
func (t *tunnelConn) Read(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.c.src
	if b := s.buffered(); len(b) > 0 {
		n := copy(p, b)
		s.use(n)
		return n, nil
	}
	s.drop()
	return t.c.nc.Read(p)
}

// WriteTo implements io.WriterTo; it holds no buffer while it waits.
func (t *tunnelConn) WriteTo(w io.Writer) (n int64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.c.src
	for {
		if b := s.buffered(); len(b) > 0 {
			m, err := w.Write(b)
			if n += int64(m); err != nil {
				return n, err
			}
		}
		s.drop()
		if _, err := s.fill(sizeMid); err != nil {
			if err == io.EOF {
				err = nil
			}
			return n, err
		}
	}
}

// Write implements io.Writer.
func (t *tunnelConn) Write(p []byte) (int, error) { return t.c.nc.Write(p) }

// CloseWrite ends the sending side.
func (t *tunnelConn) CloseWrite() error {
	closeWrite(t.c.nc, t.c.tcp)
	return nil
}

// Close implements io.Closer.
func (t *tunnelConn) Close() error {
	t.once.Do(func() {
		_ = t.c.Close() // who reads it now ends before the buffers are taken away
		t.mu.Lock()
		defer t.mu.Unlock()
		t.c.release(false)
	})
	return nil
}
