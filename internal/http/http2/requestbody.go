package http2

import (
	"context"
	"io"

	"github.com/relais-edge/relais/internal/http/message"
)

// requestBody is the body of a request. What came is kept, up to the windows, until it is
// pulled; the pull opens the windows again. The connection's mutex guards it.
type requestBody struct {
	s      *stream
	open   bool // the client has not ended its side
	expect bool // the client waits for 100 Continue

	first, end *buffer // what came and was not pulled
	lent       *buffer
	held       int // bytes in both, which the windows wait for
	total      int64
	length     int64 // Content-Length; -1 when there is none
	window     recvWindow
	err        error // how it ended: io.EOF when whole
	closed     bool
	since      int64 // when a pull began to wait
	wake       chan struct{}
}

func (b *requestBody) start(s *stream, length int64, expect bool, window int) {
	*b = requestBody{s: s, open: true, expect: expect, length: length, wake: b.wake}
	b.window.init(window)
	select {
	case <-b.wake:
	default:
	}
}

// put takes data that came. It is malformed when it is more than Content-Length says.
func (b *requestBody) put(data []byte) *refusal {
	b.total += int64(len(data))
	if b.length >= 0 && b.total > b.length {
		return refuseLengthNot
	}
	c := b.s.c
	if m := c.s.cfg.BodyBytes; m > 0 && b.total > m && !b.s.tunnel && b.err == nil {
		b.fail(message.ErrBodyTooLarge)
	}
	if b.err != nil || b.closed {
		c.consumed(nil, len(data)) // nobody will pull it
		return nil
	}
	b.held += len(data)
	for len(data) > 0 {
		if b.end == nil || b.end.w == len(b.end.b) {
			size := sizeMid
			if len(data) <= sizeSmall && b.first == nil {
				size = sizeSmall
			}
			n := c.s.pool.get(size)
			if b.end == nil {
				b.first = n
			} else {
				b.end.next = n
			}
			b.end = n
		}
		n := copy(b.end.b[b.end.w:], data)
		b.end.w += n
		data = data[n:]
	}
	b.notify()
	return nil
}

// finish takes the client's end of the stream.
func (b *requestBody) finish() *refusal {
	b.open = false
	if b.length >= 0 && b.total != b.length {
		return refuseLengthNot
	}
	if b.err == nil {
		b.err = io.EOF
	}
	b.notify()
	return nil
}

// fail ends the body badly; what was not pulled is lost.
func (b *requestBody) fail(err error) {
	if b.s == nil {
		return
	}
	if b.err == nil || b.err == io.EOF && b.first != nil {
		b.err = err
	}
	b.discard()
	b.notify()
}

// discard gives back what nobody pulls.
func (b *requestBody) discard() {
	n := 0
	for f := b.first; f != nil; {
		next := f.next
		n += f.w
		b.s.c.s.pool.put(f)
		f = next
	}
	b.first, b.end = nil, nil
	b.held -= n
	b.s.c.consumed(nil, n)
}

// release gives back what was lent.
func (b *requestBody) release() {
	if f := b.lent; f != nil {
		b.lent = nil
		b.held -= f.w
		b.s.c.consumed(b, f.w)
		b.s.c.s.pool.put(f)
	}
}

// drop ends the body when its exchange ends.
func (b *requestBody) drop() {
	if b.s != nil {
		b.release()
		b.discard()
	}
}

func (b *requestBody) notify() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Next implements message.Body. It waits until the limit of time is over, the stream ends,
// or ctx does.
func (b *requestBody) Next(ctx context.Context) ([]byte, error) {
	c := b.s.c
	var done <-chan struct{}
	if s, ok := ctx.(*streamContext); !ok || s != b.s.ctx { // its own wakes it anyway
		done = ctx.Done()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b.release()
	b.proceed()
	for {
		if b.closed {
			return nil, message.ErrBodyClosed
		}
		if f := b.first; f != nil {
			b.first, b.lent, f.next = f.next, f, nil
			if b.first == nil {
				b.end = nil
				if b.err == io.EOF {
					return f.b[:f.w], io.EOF
				}
			}
			c.flush()
			return f.b[:f.w], nil
		}
		if b.err != nil {
			return nil, b.err
		}
		if b.s.inline { // a handler that did not know that it would wait
			b.s.inline = false
			c.hire(b.s.ctx.Context, dutyLead)
		}
		c.flush()
		b.since = c.s.watch.Now()
		c.mu.Unlock()
		var err error
		select {
		case <-b.wake:
		case <-done:
			err = ctx.Err()
		}
		c.mu.Lock()
		b.since = 0
		if err != nil && b.first == nil && b.err == nil {
			return nil, err
		}
	}
}

// proceed asks a client that waits to send its body (RFC 9110 section 10.1.1).
func (b *requestBody) proceed() {
	if !b.expect {
		return
	}
	b.expect = false
	if s := b.s; b.open && b.total == 0 && !s.answered && !s.gone {
		s.c.interim(s, 100, nil)
	}
}

// Close implements message.Body: what still comes is not kept.
func (b *requestBody) Close(error) {
	c := b.s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.closed {
		return
	}
	b.closed = true
	b.discard()
	c.flush()
}
