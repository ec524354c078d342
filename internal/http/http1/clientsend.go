package http1

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
)

// writeError is a failure to write to the origin, as opposed to one of the request's body.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

// send writes the request: the head and the first bytes of the body together, the rest in
// another goroutine. Answered says that the final head is in resp already.
func (c *ClientConn) send(ctx context.Context, req *message.Request, resp *message.Response, t *Try) (answered bool, err error) {
	buf := c.cl.pool.get(sizeMid)
	defer c.cl.pool.put(buf)
	out, ok := appendRequest(buf.b[:0], req, t)
	if !ok {
		return false, ErrRequest
	}
	if req.Body == nil && c.src.raw != nil {
		return false, c.writeAndWait(out, t)
	}
	if c.uses > 1 && !(t.Hot && req.Body == nil) && c.Stale() {
		return false, ErrStale // before the body is touched
	}
	if req.Body == nil {
		return false, c.write(out, nil, nil)
	}
	if req.Has(message.Expect) {
		if err := c.write(out, nil, nil); err != nil {
			return false, err
		}
		out = out[:0]
		if answered, err := c.awaitContinue(resp, t); answered || err != nil {
			c.partial = true
			return answered, err
		}
	}
	up := upload{c: c, body: req.Body, length: req.ContentLength, out: out}
	end, err := up.next(ctx)
	if err != nil || end {
		return false, err
	}
	c.startSender(ctx, up)
	return false, nil
}

// awaitContinue waits for 100 Continue, the final answer, or a second (RFC 9110 section 10.1.1).
func (c *ClientConn) awaitContinue(resp *message.Response, t *Try) (answered bool, err error) {
	_ = c.nc.SetReadDeadline(time.Now().Add(c.cl.cfg.ContinueWait))
	defer func() {
		_ = c.nc.SetReadDeadline(time.Time{})
		if c.why() != overNot {
			_ = c.nc.SetReadDeadline(past()) // the sweeper's kick was undone
		}
	}()
	for range c.cl.cfg.Interim {
		err := c.oneHead(resp)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && c.why() == overNot:
			return false, nil
		case err != nil:
			return false, err
		case resp.Status >= 200 || resp.Status == 101:
			return true, nil
		case resp.Status == 100:
			return false, nil
		case t.Inform != nil:
			StripConnection(&resp.Fields)
			t.Inform.Inform(resp.Status, &resp.Fields)
		}
	}
	return false, ErrInterim
}

// The steps of writeAndWait.
const (
	stepProbe uint8 = iota
	stepWrite       // without looking first
	stepStale
	stepPartial // of the request some was written, or none
	stepFailed
	stepWait // for the answer
)

// writeAndWait looks whether the connection is quiet, writes a whole request and reads the
// beginning of the answer, in one wait of the poller: three system calls where five would be
// needed. The look comes after the poller was reset, so nothing that comes later is missed.
func (c *ClientConn) writeAndWait(out []byte, t *Try) error {
	c.waitHead(t)
	s := &c.src
	s.size, s.n, s.err = sizeLarge, 0, nil
	if c.step, c.out, c.wrote = stepProbe, out, 0; t.Hot {
		c.step = stepWrite
	}
	err := s.raw.Read(c.both)
	c.out = nil
	c.sent = c.wrote > 0
	switch c.step {
	case stepStale:
		return ErrStale
	case stepPartial:
		c.rg.Set(phaseNone, 0)
		return c.write(out[c.wrote:], nil, nil)
	case stepWait:
		if err == nil {
			err = s.err
		}
		c.early = err // readHead returns it
		return nil
	}
	if err == nil {
		err = s.err
	}
	return &writeError{err}
}

// bothSteps does the system calls of writeAndWait.
func (c *ClientConn) bothSteps(fd uintptr) bool {
	if c.step == stepWait {
		return c.src.readStep(fd)
	}
	if c.step == stepProbe && !nothingToRead(fd, c.one[:]) {
		c.step = stepStale
		return true
	}
	n, again, err := writeOnce(fd, c.out)
	c.wrote = n
	switch {
	case err != nil:
		c.step, c.src.err = stepFailed, err
	case again || n < len(c.out):
		c.step = stepPartial
	default:
		c.step = stepWait
		runtime.Gosched() // see fill: the answer may be there when it is our turn again
		return c.src.readStep(fd)
	}
	return true
}

// write writes up to three pieces in one call.
func (c *ClientConn) write(a, b, d []byte) error {
	c.wg.Set(phaseWrite, c.cl.watch.Limit(c.cl.cfg.WriteTimeout))
	var n int64
	var err error
	switch t, ok := c.nc.(*net.TCPConn); {
	case len(b)+len(d) == 0:
		var m int
		m, err = c.nc.Write(a)
		n = int64(m)
	case ok:
		c.vecs = [3][]byte{a, b, d}
		c.vec = c.vecs[:]
		n, err = c.vec.WriteTo(t)
		c.vecs = [3][]byte{}
	default:
		for _, p := range [...][]byte{a, b, d} {
			if len(p) > 0 && err == nil {
				var m int
				m, err = c.nc.Write(p)
				n += int64(m)
			}
		}
	}
	c.wg.Set(phaseNone, 0)
	if n > 0 && !c.sent { // a sender finds it true
		c.sent = true
	}
	if err != nil {
		return &writeError{err}
	}
	return nil
}

// upload is a request's body on its way.
type upload struct {
	c      *ClientConn
	body   message.Body
	length int64 // -1 when it is sent in chunks
	done   int64
	out    []byte // what leaves before the next bytes
}

// next pulls once and writes what came; end says that the body is whole.
func (u *upload) next(ctx context.Context) (end bool, err error) {
	b, err := u.body.Next(ctx)
	if err != nil && err != io.EOF {
		return false, err
	}
	end = err == io.EOF
	u.done += int64(len(b))
	var tail []byte
	if u.length >= 0 {
		if u.done > u.length || end && u.done < u.length {
			return false, ErrBodyLength
		}
		end = u.done == u.length
	} else {
		if len(b) > 0 {
			u.out = strconv.AppendInt(u.out, int64(len(b)), 16)
			u.out = append(u.out, "\r\n"...)
			tail = crlf
		}
		switch {
		case end && len(b) > 0:
			tail = dataZero
		case end:
			tail = zeroChunk
		}
	}
	if end && u.c.sender != nil {
		u.c.sender.state.Store(sendLast)
	}
	if len(u.out)+len(b)+len(tail) == 0 {
		return end, nil
	}
	if len(b)+len(tail) <= maxInline && len(u.out)+len(b)+len(tail) <= cap(u.out) {
		u.out = append(append(u.out, b...), tail...)
		b, tail = nil, nil
	}
	for len(b) > maxPiece {
		if err := u.c.write(u.out, b[:maxPiece], nil); err != nil {
			return false, err
		}
		u.out, b = u.out[:0], b[maxPiece:]
	}
	err = u.c.write(u.out, b, tail)
	u.out = u.out[:0]
	return end, err
}

// The states of a sender.
const (
	sendMore int32 = iota
	sendLast       // the last bytes are being written
	sendDone
	sendFailed
)

// sender sends the rest of a request's body while the answer is awaited.
type sender struct {
	cancel context.CancelFunc
	state  atomic.Int32
	ended  chan struct{}
	err    error // good when ended is closed
}

func (c *ClientConn) startSender(ctx context.Context, u upload) {
	// A context of its own, so that the pull from the client can be ended alone.
	ctx, cancel := context.WithCancel(ctx)
	s := &sender{cancel: cancel, ended: make(chan struct{})}
	c.sender = s
	go func() {
		defer close(s.ended)
		defer func() {
			if recover() != nil {
				s.fail(c, ErrClosed)
			}
		}()
		buf := c.cl.pool.get(sizeMid)
		defer c.cl.pool.put(buf)
		u.out = buf.b[:0]
		for end := false; !end; {
			var err error
			if end, err = u.next(ctx); err != nil {
				s.fail(c, err)
				return
			}
		}
		s.state.Store(sendDone)
		// From here the origin has to answer.
		c.rg.Follow(phaseBusy, phaseHead, c.cl.watch.Limit(c.headWait))
	}()
}

// fail ends the sending. When it is the body's fault the wait for the answer ends too: the
// origin would wait for the rest. When the origin does not take more, its answer may be there.
func (s *sender) fail(c *ClientConn, err error) {
	s.err = err
	s.state.Store(sendFailed)
	var w *writeError
	if !errors.As(err, &w) {
		_ = c.nc.SetReadDeadline(past())
		return
	}
	c.rg.Follow(phaseBusy, phaseHead, c.cl.watch.Limit(c.headWait))
}

// sendFault returns what ended the sending, if it was the request's body.
func (c *ClientConn) sendFault() error {
	s := c.sender
	if s == nil || s.state.Load() != sendFailed {
		return nil
	}
	<-s.ended
	var w *writeError
	if errors.As(s.err, &w) {
		return nil
	}
	return s.err
}

// stop ends the sending and waits for its goroutine; true when all had been sent.
func (s *sender) stop(c *ClientConn) bool {
	if s.state.Load() == sendLast {
		// The origin has answered, so the last bytes have most probably left.
		t := time.NewTimer(5 * time.Millisecond)
		select {
		case <-s.ended:
		case <-t.C:
		}
		t.Stop()
	}
	defer s.cancel()
	select {
	case <-s.ended:
		return s.state.Load() == sendDone
	default:
		s.cancel()
		_ = c.nc.SetWriteDeadline(past())
		<-s.ended
		return false
	}
}

// appendRequest appends the head of a request; false when its parts cannot be sent.
func appendRequest(b []byte, req *message.Request, t *Try) ([]byte, bool) {
	method, auth, path := req.MethodName(), req.Authority(), req.Path()
	if !syntax.IsToken(method) || !syntax.All(path, syntax.Target) || !syntax.All(req.Query(), syntax.Target) || !syntax.All(auth, syntax.Target) {
		return b, false
	}
	b = append(b, method...)
	b = append(b, ' ')
	switch {
	case req.Method == message.CONNECT:
		b = append(b, auth...)
	case len(path) == 0:
		b = append(b, '/')
	default:
		b = append(b, path...)
	}
	if req.HasQuery() {
		b = append(b, '?')
		b = append(b, req.Query()...)
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, auth...)
	b = append(b, "\r\n"...)
	for i := range req.Len() {
		id, name, value := req.At(i)
		if id != message.Other && (id == message.Host || id.PerHop() || id == message.Expect && req.Body == nil) {
			continue
		}
		if !syntax.Plain(value) || len(name) == 0 {
			return b, false
		}
		b = append(b, name...)
		b = append(b, ": "...)
		b = append(b, value...)
		b = append(b, "\r\n"...)
	}
	return appendOwn(b, req, t), true
}

// appendOwn appends the framing, what Connection has to say, and the empty line.
func appendOwn(b []byte, req *message.Request, t *Try) []byte {
	switch {
	case req.Body != nil && req.ContentLength < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case req.Body != nil:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, req.ContentLength, 10)
		b = append(b, "\r\n"...)
	case req.Method == message.POST || req.Method == message.PUT || req.Method == message.PATCH:
		b = append(b, "Content-Length: 0\r\n"...)
	}
	up := req.Get(message.Upgrade)
	trailers := req.Has(message.TE) && req.Lists(message.TE, "trailers")
	switch {
	case t.Upgrade && up != nil:
		b = append(b, "Connection: Upgrade\r\n"...)
		b = appendLine(b, "Upgrade", up)
	case trailers:
		b = append(b, "Connection: TE\r\nTE: trailers\r\n"...)
	}
	return append(b, "\r\n"...)
}
