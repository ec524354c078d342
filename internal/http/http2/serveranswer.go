package http2

import (
	"context"
	"io"
	"strconv"

	"github.com/relais-edge/relais/internal/http/message"
)

// serve has a request answered; false when the reader's role was given away meanwhile.
func (c *serverConn) serve(ctx context.Context, s *stream) (leads bool) {
	s.ctx.Context = ctx
	var resp *message.Response
	if bad := s.refusal; bad != nil {
		resp = c.page(ctx, bad)
		if bad.malformed {
			return c.reject(s, resp)
		}
	} else {
		c.s.requests.Add(1)
		if resp = c.call(s); resp == nil {
			resp = c.page(ctx, refusePanic)
		}
	}
	s.ender = resp.Ender
	if s.websocket {
		resp = c.acceptWebSocket(ctx, s, resp)
	}
	return c.answer(ctx, s, resp)
}

// call asks the handler; nil when it panicked or gave nothing.
func (c *serverConn) call(s *stream) (resp *message.Response) {
	defer func() {
		if recover() != nil {
			c.s.panics.Add(1)
			resp = nil
		}
	}()
	return c.s.handler.Serve(s.ctx, &s.req)
}

// page asks the handler for a page.
func (c *serverConn) page(ctx context.Context, bad *refusal) (resp *message.Response) {
	if bad != refusePanic {
		c.s.refused.Add(1)
	}
	func() {
		defer func() {
			if recover() != nil {
				c.s.panics.Add(1)
			}
		}()
		resp = c.s.handler.Refuse(ctx, c.facts, bad.status, bad.code, bad.detail)
	}()
	if resp == nil {
		resp = &message.Response{Status: bad.status}
		resp.AddString(message.ContentType, "text/plain; charset=utf-8")
		resp.SetBytes([]byte(bad.code + "\n"))
	}
	return resp
}

// reject resets the stream of a malformed request, whose page nobody sees.
func (c *serverConn) reject(s *stream, resp *message.Response) bool {
	if resp.Body != nil {
		resp.Body.Close(errNoNeed)
	}
	s.ender = resp.Ender
	c.mu.Lock()
	defer c.mu.Unlock()
	leads := s.inline
	s.owned = false
	if s.gone {
		s.outcome.Err = s.cause
		c.ending = append(c.ending, s)
	} else {
		c.resetStream(s, ProtocolError, errFault)
	}
	if !leads {
		c.flush()
	}
	return leads
}

func (c *serverConn) acceptWebSocket(ctx context.Context, s *stream, resp *message.Response) *message.Response {
	if message.AcceptWebSocket(&s.req, resp) {
		return resp
	}
	if resp.Upgrade != nil {
		_ = resp.Upgrade.Close()
	}
	if resp.Body != nil {
		c.closeBody(resp.Body, errNoNeed)
	}
	return c.page(ctx, refuseWebSocket)
}

// answer sends resp, and ends the request if its goroutine does that. False when the reader's
// role was given away.
func (c *serverConn) answer(ctx context.Context, s *stream, resp *message.Response) (leads bool) {
	up := resp.Upgrade
	if up != nil && (!s.tunnel || resp.Status/100 != 2) {
		_ = up.Close()
		up = nil
	}
	if resp.Status < 200 || resp.Status > 999 {
		resp.Status = 500 // the handler's mistake
	}
	empty := message.NoBody(s.req.Method, resp.Status)
	switch {
	case up != nil:
		s.MayBlock()
		c.runTunnel(ctx, s, resp, up)
	case resp.Body != nil && empty:
		resp.Body.Close(errNoNeed)
		return c.memory(s, resp, nil)
	case resp.Body != nil:
		s.MayBlock()
		c.stream(s, resp)
	case empty:
		return c.memory(s, resp, nil)
	default:
		return c.memory(s, resp, resp.Bytes)
	}
	return false
}

// maxInline is how large a body may be to leave with its head, whatever its priority.
const maxInline = 16 << 10

// memory sends an answer that is in memory whole. The goroutine is not needed for it.
func (c *serverConn) memory(s *stream, resp *message.Response, body []byte) (leads bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	leads = s.inline
	s.owned = false
	if s.gone {
		s.outcome.Err = s.cause
		c.ending = append(c.ending, s)
		if !leads {
			c.flush()
		}
		return leads
	}
	trailer := resp.Trailer != nil && resp.Trailer.Len() > 0
	c.head(s, resp, len(body) == 0 && !trailer)
	n := len(body)
	switch {
	case n == 0 && !trailer:
		c.finish(s)
	case n > 0 && n <= maxInline && !trailer && len(c.out) < maxOut && s.window.room(n) == n && c.window.room(n) == n &&
		!c.queue.before(s.urgency):
		c.out = appendData(c.out, s.id, body, true)
		s.window -= sendWindow(n)
		c.window -= sendWindow(n)
		s.outcome.Body = int64(n)
		c.finish(s)
	default:
		s.pending, s.final, s.last = body, true, resp.Trailer
		c.queue.add(s)
	}
	if !leads {
		c.flush()
	}
	return leads
}

// head appends the final head of an answer; c.mu is held.
func (c *serverConn) head(s *stream, resp *message.Response, end bool) {
	s.answered = true
	s.outcome.Status = resp.Status
	if p := resp.Get(message.Priority); p != nil {
		s.priority = s.priority.update(p)
	}
	b, at := c.beginBlock(resp.Status)
	b = c.fields(b, &resp.Fields)
	if !resp.Has(message.Date) {
		b = c.enc.Append(b, message.Date, nil, c.s.watch.Date())
	}
	length := resp.ContentLength
	if resp.Body == nil && (resp.Bytes != nil || s.req.Method != message.HEAD) {
		length = int64(len(resp.Bytes))
	}
	if length >= 0 && resp.Status != 204 && resp.Status != 304 && !(s.tunnel && resp.Status/100 == 2) {
		var n [20]byte
		b = c.enc.Append(b, message.ContentLength, nil, strconv.AppendInt(n[:0], length, 10))
	}
	c.endBlock(s, b, at, end)
	c.credit(AbusePing, c.s.calm[AbusePing])
	c.credit(AbuseWindow, 4)
	if resp.Lists(message.Connection, "close") && c.drain == drainNot {
		c.drain, c.drainAt = drainAsked, c.s.watch.Now()
		c.out = appendGoAway(c.out, maxWindow, NoError, "")
		c.out = appendPing(c.out, drainPing, false)
	}
}

// beginBlock begins a HEADERS frame in c.out with a status, or with 0 a trailer section.
func (c *serverConn) beginBlock(status int) (b []byte, at int) {
	c.begin()
	at = len(c.out)
	b = c.enc.Begin(beginHeaders(c.out))
	if status != 0 {
		b = hpackStatus(b, status)
	}
	return b, at
}

// fields appends all lines of f but connection-specific and framing ones.
func (c *serverConn) fields(b []byte, f *message.Fields) []byte {
	for i := range f.Len() {
		id, name, value := f.At(i)
		if id != message.Other && id.PerHop() {
			continue
		}
		b = c.enc.Append(b, id, name, value)
	}
	return b
}

func (c *serverConn) endBlock(s *stream, b []byte, at int, end bool) {
	c.out = endHeaders(b, at, s.id, end, minMaxFrame)
	s.outcome.Head += int64(len(c.out) - at)
}

// interim sends a 1xx; c.mu is held.
func (c *serverConn) interim(s *stream, status int, f *message.Fields) {
	b, at := c.beginBlock(status)
	if f != nil {
		b = c.fields(b, f)
	}
	c.endBlock(s, b, at, false)
	c.flush()
}

// Inform implements message.Control.
func (s *stream) Inform(status int, f *message.Fields) {
	if status < 100 || status > 199 || status == 101 {
		return
	}
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.answered || s.gone {
		return
	}
	if status == 100 {
		if !s.body.expect {
			return // nobody waits for it
		}
		s.body.expect = false
	}
	c.interim(s, status, f)
}

// MayBlock implements message.Control: another worker goes on reading. It is called in the
// handler's goroutine.
func (s *stream) MayBlock() {
	if !s.inline {
		return
	}
	s.inline = false
	c := s.c
	c.mu.Lock()
	c.hire(s.ctx.Context, dutyLead)
	c.mu.Unlock()
}

// stream sends an answer whose body is pulled, and ends the request.
func (c *serverConn) stream(s *stream, resp *message.Response) {
	err := c.pull(s, resp)
	c.closeBody(resp.Body, err)
	c.mu.Lock()
	if err != nil {
		c.resetStream(s, InternalError, err)
	}
	c.mu.Unlock()
	c.end(s, err)
}

func (c *serverConn) closeBody(b message.Body, err error) {
	defer func() {
		if recover() != nil {
			c.s.panics.Add(1)
		}
	}()
	b.Close(err)
}

// pull sends the head, then the body piece by piece.
func (c *serverConn) pull(s *stream, resp *message.Response) (err error) {
	defer func() {
		if recover() != nil {
			c.s.panics.Add(1)
			err = errPanic
		}
	}()
	c.mu.Lock()
	if s.gone {
		c.mu.Unlock()
		return s.cause
	}
	c.head(s, resp, false)
	if p, ok := resp.Body.(message.Prompt); ok && !p.Ready() {
		c.flush()
	}
	c.mu.Unlock()
	for {
		b, err := resp.Body.Next(s.ctx)
		end := err == io.EOF
		if err != nil && !end {
			return err
		}
		if want := resp.ContentLength; want >= 0 {
			switch n := s.outcome.Body + int64(len(b)); {
			case n > want:
				return errTooLong
			case end && n < want:
				return errTooShort
			}
		}
		if err := c.send(s, b, end, resp); err != nil || end {
			return err
		}
	}
}

// send hands b over for sending and waits until it was taken; with the end, until it has left.
func (c *serverConn) send(s *stream, b []byte, end bool, resp *message.Response) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(b) == 0 && !end {
		c.flush()
		return nil
	}
	if s.gone {
		return s.cause
	}
	s.pending, s.final = b, end
	if end && resp != nil && resp.Trailer != nil && resp.Trailer.Len() > 0 {
		s.last = resp.Trailer
	}
	if !s.blocked() {
		c.queue.add(s)
	}
	c.flush()
	for !s.gone && !s.written && (end || len(s.pending) > 0) {
		c.mu.Unlock()
		<-s.wake
		c.mu.Lock()
	}
	if s.gone || s.written && s.cause != nil {
		return s.cause
	}
	return nil
}

// end tells the answer's Ender and frees the stream, which is not open any more.
func (c *serverConn) end(s *stream, err error) {
	s.outcome.Err = err
	c.tell(s)
	c.mu.Lock()
	c.recycle(s)
	c.mu.Unlock()
}

func (c *serverConn) tell(s *stream) {
	if s.outcome.Err != nil {
		c.s.aborted.Add(1)
	}
	e := s.ender
	if e == nil {
		return
	}
	s.ender = nil
	defer func() {
		if recover() != nil {
			c.s.panics.Add(1)
		}
	}()
	e.End(s.outcome)
}
