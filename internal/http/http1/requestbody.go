package http1

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
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
	got    int64          // bytes of the connection, framing included
	waited int64          // milliseconds spent waiting for them
	kick   sync.WaitGroup // a context that ended and wakes the read
	full   bool           // the last read filled its buffer
	err    error          // how it ended: io.EOF when whole
}

// drainTime and drainBytes bound what is read of a body that nobody wants.
const (
	drainTime  = 2 * time.Second
	drainBytes = 256 << 10
)

func (b *requestBody) start(x *exchange) {
	h := &x.head
	b.x, b.open, b.expect, b.total, b.full, b.err = x, true, h.expect, 0, false, nil
	b.got, b.waited = 0, 0
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
		b.kick.Add(1)
		stop := context.AfterFunc(ctx, b.kicked)
		defer func() {
			if stop() {
				b.kick.Done()
				return
			}
			b.kick.Wait() // a kick that comes later would hit the next request
			c.unkick()
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

// kicked wakes Next when its context ends.
func (b *requestBody) kicked() {
	defer b.kick.Done()
	b.x.c.kickRead()
}

// step decodes what is buffered, or reads once.
func (b *requestBody) step(c *serverConn) ([]byte, error) {
	data, used, end, flt := b.dec.decode(c.src.buffered())
	if flt != nil {
		b.err = message.ErrBodyMalformed
		if flt == faultTrailer || flt == faultTrailerLarge {
			b.err = message.ErrBodyTrailer
		}
		return nil, b.err
	}
	if used > 0 {
		c.src.use(used)
	}
	b.total += int64(len(data))
	if m := c.s.cfg.BodyBytes; m > 0 && b.total > m {
		b.err = message.ErrBodyTooLarge
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
	from := c.s.watch.Now()
	c.rg.Set(phaseBody, c.s.watch.Limit(b.patience()))
	n, err := c.src.fill(size)
	now := c.s.watch.Now()
	if !c.rg.Set(phaseBusy, now) {
		c.unkick()
	}
	b.got, b.waited = b.got+int64(n), b.waited+now-from
	b.full = n >= sizeMid
	switch {
	case err == nil:
	case b.closed.Load():
		return nil, message.ErrBodyClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.err = message.ErrBodySlow
	default:
		b.err = message.ErrBodyTruncated
	}
	return nil, b.err
}

// patience is how long to wait for more: less than the limit for a client that has been slower
// than the least rate over all the time that was spent waiting for it.
func (b *requestBody) patience() time.Duration {
	cfg := &b.x.c.s.cfg
	if cfg.BodyRate <= 0 {
		return cfg.BodyTimeout
	}
	earned := time.Duration(min(b.got/cfg.BodyRate, maxEarned)) * time.Second
	left := cfg.BodyTimeout + earned - time.Duration(b.waited)*time.Millisecond
	return max(0, min(left, cfg.BodyTimeout))
}

// maxEarned bounds the seconds that a client can earn by speed; only so many can be spent.
const maxEarned = 1 << 30

// proceed asks a client that waits to send its body (RFC 9110 section 10.1.1).
func (b *requestBody) proceed(c *serverConn) error {
	if b.closed.Load() {
		return message.ErrBodyClosed
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
		return message.ErrBodyClosed // the client was told not to send it
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
	c.rg.Set(phaseBody, c.s.watch.Limit(min(drainTime, c.s.cfg.BodyTimeout)))
	for n := 0; ; {
		data, used, end, flt := b.dec.decode(c.src.buffered())
		if used > 0 {
			c.src.use(used)
		}
		if n += len(data); flt != nil || n > drainBytes {
			break
		}
		if end {
			if c.rg.Set(phaseNone, 0) {
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
