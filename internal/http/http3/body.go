package http3

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

// requestBody is the body of a request, pulled from its stream.
type requestBody struct {
	x      *exchange
	open   bool // the request has a body; for the exchange's goroutine
	expect bool // the client waits for 100 Continue; guarded by x.wmu
	talks  bool // gRPC: client and origin may take turns

	mu     sync.Mutex // held by Next; the exchange's goroutine takes it to end the body
	closed atomic.Bool
	length int64  // by Content-Length; -1 when it is not known
	left   uint64 // of the DATA frame
	total  int64
	err    error          // how it ended: io.EOF when whole
	mem    *[]byte        // of the pool, under x.in
	small  []byte         // what x.in was before
	kick   sync.WaitGroup // a context that ended and wakes the read
}

func (b *requestBody) start(x *exchange, length int64) {
	b.x, b.open, b.expect, b.talks = x, true, false, false
	b.length, b.left, b.total, b.err = length, 0, 0, nil
	x.sent = pace{bytes: int64(x.w - x.r)}
	b.closed.Store(false)
}

// peek waits until it is known whether there is any body, within the head's limit of time.
func (b *requestBody) peek() (none bool, flt *fault) {
	switch err := b.advance(); {
	case err == io.EOF:
		b.err = io.EOF
		return true, nil
	case errors.Is(err, errMalformed):
		return false, faultTrailer
	case err != nil:
		return false, b.x.headFault(err)
	}
	return false, nil
}

// faultTrailer is a malformed trailer section where there is no body.
var faultTrailer = &fault{400, "trailer_malformed", "a trailer section with a pseudo-header or a malformed field (section 4.3)", true, nil}

// Next implements message.Body. It waits until a limit of time is over, the stream ends, or
// ctx does.
func (b *requestBody) Next(ctx context.Context) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return nil, b.err
	}
	if b.closed.Load() {
		return nil, message.ErrBodyClosed
	}
	x := b.x
	if err := b.proceed(); err != nil {
		return nil, err
	}
	if d := ctx.Done(); d != nil && d != x.str.Context().Done() {
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
			b.kick.Wait() // a kick that comes later would hit the next call
			_ = x.str.SetReadDeadline(time.Time{})
		}()
	}
	w := &x.c.s.watch
	from := w.Now()
	x.readBy.Store(w.Limit(b.patience()))
	b.relax() // the answer may have begun after patience had looked, and before it could see the wait
	data, err := b.step()
	over := x.readBy.Swap(0) < 0
	x.sent.waited += w.Now() - from
	if err == nil || err == io.EOF {
		if over { // the last bytes came as the time was over
			x.c.kicked()
			_ = x.str.SetReadDeadline(time.Time{})
		}
		return data, err
	}
	if ctx.Err() != nil && !over && errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, ctx.Err() // another may go on
	}
	b.err = b.reason(err)
	return nil, b.err
}

// kicked wakes Next when its context ends.
func (b *requestBody) kicked() {
	defer b.kick.Done()
	_ = b.x.str.SetReadDeadline(past())
}

// reason is what a body that broke off says of it.
func (b *requestBody) reason(err error) error {
	var ce *connError
	var known *message.BodyError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &ce):
		b.x.c.kill(ce)
		return message.ErrBodyMalformed
	case errors.Is(err, errMalformed):
		b.x.str.CancelRead(codeMessage)
		return message.ErrBodyTrailer
	case errors.Is(err, errLength):
		b.x.str.CancelRead(codeMessage)
		return message.ErrBodyMalformed
	case b.closed.Load():
		return message.ErrBodyClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return message.ErrBodySlow
	}
	b.x.cut.Store(remote(err))
	return message.ErrBodyTruncated
}

// errLength is a body that is not as long as Content-Length says (RFC 9114 section 4.1.2).
var errLength = errors.New("the body is not as long as its Content-Length")

// step lends the next data.
func (b *requestBody) step() ([]byte, error) {
	x := b.x
	if b.left == 0 {
		if err := b.advance(); err != nil {
			if err == io.EOF {
				b.err = io.EOF
			}
			return nil, err
		}
	}
	if x.r == x.w {
		b.widen()
		if err := x.fill(); err == io.EOF {
			return nil, errFrameCut
		} else if err != nil {
			return nil, err
		}
	}
	n := int(min(b.left, uint64(x.w-x.r)))
	data := x.in[x.r : x.r+n : x.r+n]
	x.r += n
	b.left -= uint64(n)
	b.total += int64(n)
	if b.length >= 0 && b.total > b.length {
		return nil, errLength
	}
	if m := x.c.s.cfg.BodyBytes; m > 0 && b.total > m {
		return nil, message.ErrBodyTooLarge
	}
	if b.left == 0 && x.eof && x.r == x.w {
		if b.length >= 0 && b.total != b.length {
			return nil, errLength
		}
		b.err = io.EOF
		return data, io.EOF
	}
	return data, nil
}

// widen has more memory for a body that comes in more than a packet.
func (b *requestBody) widen() {
	x := b.x
	if b.mem != nil || len(x.in) >= bodyRead || b.length >= 0 && b.length-b.total <= int64(len(x.in)) {
		return
	}
	b.mem, _ = x.c.s.bodies.Get().(*[]byte)
	b.small, x.in = x.in, *b.mem
	x.r, x.w = 0, 0
}

// advance goes to the next data; io.EOF at the end of the body, after its trailers.
func (b *requestBody) advance() error {
	x := b.x
	for {
		kind, length, err := x.frame()
		switch {
		case err == io.EOF:
			if b.length >= 0 && b.total != b.length {
				return errLength
			}
			return io.EOF
		case err != nil:
			return err
		case kind == frameHeaders:
			return b.trailers(length)
		case length > 0:
			b.left = length
			return nil
		}
		if x.empty++; x.empty > maxEmptyData {
			return errFloodEmpty
		}
	}
}

// trailers reads the trailer section, after which nothing that we know may come.
func (b *requestBody) trailers(length uint64) error {
	x := b.x
	if x.socket || x.req.Method == message.CONNECT {
		return errFrameTunnel
	}
	if length > maxTrailer {
		return errMalformed
	}
	block, err := x.payload(int(length))
	if err != nil {
		return err
	}
	ok, ce := x.section.parseTrailer(block, &x.trailer)
	if ce != nil {
		return ce
	}
	if !ok {
		return errMalformed
	}
	if _, _, err := x.frame(); err != io.EOF {
		if err == nil {
			err = errFrameOrder
		}
		return err
	}
	if b.length >= 0 && b.total != b.length {
		return errLength
	}
	return io.EOF
}

// proceed asks a client that waits to send its body (RFC 9110 section 10.1.1).
func (b *requestBody) proceed() error {
	if b.total > 0 {
		return nil
	}
	x := b.x
	x.wmu.Lock()
	defer x.wmu.Unlock()
	if !b.expect {
		return nil
	}
	if x.answered {
		return message.ErrBodyClosed // the client was told not to send it
	}
	b.expect = false
	return x.interim(100, nil)
}

// Close implements message.Body. What was not read is not wanted.
func (b *requestBody) Close(error) {}

// finish ends the body of an exchange that was answered: nobody reads it after this.
func (b *requestBody) finish() {
	b.open = false
	b.closed.Store(true)
	if !b.mu.TryLock() {
		b.x.str.CancelRead(codeNone)
		b.mu.Lock()
	}
	defer b.mu.Unlock()
}
