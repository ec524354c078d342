package http1

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// requestBody is the body of a request, pulled from the client's connection.
type requestBody struct {
	x      *exchange
	open   bool // the request has a body; for the connection's goroutine
	expect bool // the client waits for 100 Continue; guarded by c.wmu

	mu     sync.Mutex // held by Next; the connection's goroutine takes it to end the body
	closed atomic.Bool
	dec    decoder
	total  int64
	full   bool  // the last read filled its buffer
	err    error // how it ended: io.EOF when whole
}

// drainTime and drainBytes bound what is read of a body that nobody wants.
const (
	drainTime  = 2 * time.Second
	drainBytes = 256 << 10
)

func (b *requestBody) start(x *exchange) {
	h := &x.head
	b.x, b.open, b.expect, b.total, b.full, b.err = x, true, h.expect, 0, false, nil
	b.closed.Store(false)
	b.dec = decoder{kind: kindLength, left: h.length, trailer: &x.trailer}
	if h.chunked {
		b.dec.kind = kindChunked
	}
}

// Next implements message.Body. It waits until a limit of time is over, the connection's
// context ends, or ctx does.
func (b *requestBody) Next(ctx context.Context) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return nil, b.err
	}
	c := b.x.c
	if err := b.proceed(c); err != nil {
		return nil, err
	}
	if d := ctx.Done(); d != nil && d != c.done {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		kicked := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			c.kickRead()
			close(kicked)
		})
		defer func() {
			if !stop() {
				<-kicked // a kick that comes later would end another read
				c.unkick()
			}
		}()
	}
	for {
		data, err := b.step(c)
		if err != nil && err != io.EOF && ctx.Err() != nil {
			b.err = nil
			return nil, ctx.Err()
		}
		if len(data) > 0 || err != nil {
			return data, err
		}
	}
}

// step decodes what is buffered, or reads once.
func (b *requestBody) step(c *serverConn) ([]byte, error) {
	data, used, end, flt := b.dec.decode(c.src.buffered())
	if flt != nil {
		b.err = ErrBodyMalformed
		if flt == faultTrailer || flt == faultTrailerLarge {
			b.err = ErrBodyTrailer
		}
		return nil, b.err
	}
	if used > 0 {
		c.src.use(used)
	}
	b.total += int64(len(data))
	if m := c.s.cfg.BodyBytes; m > 0 && b.total > m {
		b.err = ErrBodyTooLarge
		return nil, b.err
	}
	if end {
		b.err = io.EOF
		return data, io.EOF
	}
	if len(data) > 0 {
		return data, nil
	}
	size := sizeMid
	if b.full || b.dec.kind == kindLength && b.dec.left > sizeMid {
		size = sizeLarge
	}
	c.rg.set(phaseBody, c.s.watch.limit(c.s.cfg.BodyTimeout))
	n, err := c.src.fill(size)
	if !c.rg.set(phaseBusy, c.s.watch.now.Load()) {
		c.unkick()
	}
	b.full = n >= sizeMid
	switch {
	case err == nil:
	case b.closed.Load():
		return nil, ErrBodyClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.err = ErrBodySlow
	default:
		b.err = ErrBodyTruncated
	}
	return nil, b.err
}

// proceed asks a client that waits to send its body (RFC 9110 section 10.1.1).
func (b *requestBody) proceed(c *serverConn) error {
	if b.closed.Load() {
		return ErrBodyClosed
	}
	if b.total > 0 {
		return nil
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if !b.expect {
		return nil
	}
	if b.x.answered {
		return ErrBodyClosed // the client was told not to send it
	}
	b.expect = false
	c.out = append(c.begin(), "HTTP/1.1 100 Continue\r\n\r\n"...)
	return c.write(nil, nil)
}

// Close implements message.Body. What was not read is drained, within bounds, after the answer.
func (b *requestBody) Close(error) {}

// drainable says whether the rest of the body may be read to keep the connection.
func (b *requestBody) drainable() bool {
	c := b.x.c
	c.wmu.Lock()
	expect := b.expect
	c.wmu.Unlock()
	if expect {
		return false
	}
	if !b.mu.TryLock() {
		return true // it is being pulled
	}
	defer b.mu.Unlock()
	return b.err == io.EOF || b.err == nil && (b.dec.kind != kindLength || b.dec.left <= drainBytes)
}

// finishBody ends the body of an exchange that was answered: nobody reads it after this. It
// drains a short rest, else the connection must not be used again.
func (c *serverConn) finishBody(x *exchange) {
	b := &x.body
	b.open = false
	b.closed.Store(true)
	if !b.mu.TryLock() {
		c.kickRead()
		b.mu.Lock()
		c.unkick()
	}
	defer b.mu.Unlock()
	if b.err == io.EOF {
		c.src.release()
		return
	}
	if c.last || b.err != nil || b.expect {
		c.last, c.linger = true, true
		return
	}
	c.rg.set(phaseBody, c.s.watch.limit(min(drainTime, c.s.cfg.BodyTimeout)))
	for n := 0; ; {
		data, used, end, flt := b.dec.decode(c.src.buffered())
		if used > 0 {
			c.src.use(used)
		}
		if n += len(data); flt != nil || n > drainBytes {
			break
		}
		if end {
			if c.rg.set(phaseNone, 0) {
				c.src.release()
				return
			}
			break
		}
		if len(data) == 0 {
			if _, err := c.src.fill(sizeMid); err != nil {
				break
			}
		}
	}
	c.last, c.linger = true, true
}
