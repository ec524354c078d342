package http1

import (
	"cmp"
	"context"
	"io"
	"strconv"
	"syscall"

	"github.com/relais-edge/relais/internal/http/message"
)

const (
	// maxInline is how large a body may be to be copied behind its head.
	maxInline = 16 << 10
	// maxPiece is how much is written before the limit of writing starts anew.
	maxPiece = 128 << 10
	// maxPend is how many answers may wait to leave together.
	maxPend = 16
)

// framingOf is how an answer's body is delimited.
type framingOf uint8

const (
	frameNone    framingOf = iota // no body, and nothing is said of it
	frameLength                   // Content-Length
	frameChunked                  // chunked
	frameClose                    // by the end of the connection
)

// answer sends resp and ends the exchange.
func (c *serverConn) answer(ctx context.Context, x *exchange, resp *message.Response) {
	x.ender = resp.Ender
	tunnel := resp.Upgrade != nil && (resp.Status == 101 || x.req.Method == message.CONNECT && resp.Status/100 == 2)
	if resp.Status < 200 && !tunnel || resp.Status > 999 {
		resp.Status = 500 // the handler's mistake
	}
	if tunnel {
		c.tunnel(ctx, x, resp)
		return
	}
	if resp.Upgrade != nil {
		_ = resp.Upgrade.Close()
	}
	x.outcome.Status = resp.Status
	frame, length := c.frame(x, resp)
	if !c.keeps(x, resp) || frame == frameClose {
		// A client may have sent more than the request that was answered.
		x.keep, c.last, c.linger = false, true, true
	}
	c.wmu.Lock()
	c.head(x, resp, frame, length)
	if resp.Body == nil {
		c.memory(x, resp, frame)
		return
	}
	c.wmu.Unlock()
	if message.NoBody(x.req.Method, resp.Status) {
		resp.Body.Close(errNoNeed)
		c.finish(x, c.flush())
		return
	}
	x.sending = resp.Body
	err := c.stream(ctx, x, resp, frame, length)
	resp.Body.Close(err)
	x.sending = nil
	c.finish(x, err)
}

// memory sends an answer that is in memory whole; c.wmu is held and released. A small one
// waits for the next, if more requests are here already.
func (c *serverConn) memory(x *exchange, resp *message.Response, frame framingOf) {
	b := resp.Bytes
	if message.NoBody(x.req.Method, resp.Status) {
		b = nil
	}
	x.outcome.Body = int64(len(b))
	if len(b) <= maxInline {
		c.out = append(c.out, b...)
		if !c.last && len(c.pend) < maxPend-1 && len(c.out) < maxInline && !x.body.open && len(c.src.buffered()) > 0 {
			c.wmu.Unlock()
			c.pend = append(c.pend, x)
			c.x = nil
			return
		}
		b = nil
	}
	err := c.write(b, nil)
	c.wmu.Unlock()
	if err != nil {
		x.outcome.Body = 0
	}
	c.finish(x, err)
}

// finish ends the exchange, and those whose answers left before.
func (c *serverConn) finish(x *exchange, err error) {
	if err != nil {
		c.last, c.abort = true, true
		x.outcome.Err = err
		if len(c.pend) == 0 {
			c.out = c.out[:0] // a head alone is of no use
		}
	}
	_ = c.flush()
	c.end(x)
}

// flush writes what waits and ends the exchanges that it answers.
func (c *serverConn) flush() error {
	if len(c.out) == 0 && len(c.pend) == 0 {
		return c.werr
	}
	c.wmu.Lock()
	err := c.write(nil, nil)
	c.wmu.Unlock()
	if err != nil {
		c.last, c.abort = true, true
	}
	for i, x := range c.pend {
		x.outcome.Err = err
		c.pend[i] = nil
		c.end(x)
	}
	c.pend = c.pend[:0]
	return err
}

// keeps says whether the connection goes on after this answer.
func (c *serverConn) keeps(x *exchange, resp *message.Response) bool {
	if !x.keep || c.last || c.s.retiring.Load() {
		return false
	}
	if x.body.open && !x.body.drainable() {
		c.linger = true
		return false
	}
	if resp.Lists(message.Connection, "close") {
		c.linger = c.linger || x.body.open
		return false
	}
	return true
}

// frame chooses the framing of an answer (RFC 9112 section 6.3) and its Content-Length.
func (c *serverConn) frame(x *exchange, resp *message.Response) (framingOf, int64) {
	length := resp.ContentLength
	if resp.Body == nil && (resp.Bytes != nil || x.req.Method != message.HEAD) {
		length = int64(len(resp.Bytes))
	}
	switch {
	case resp.Status == 204 || resp.Status == 304 || x.req.Method == message.CONNECT && resp.Status/100 == 2:
		return frameNone, 0
	case length >= 0:
		return frameLength, length
	case x.req.Method == message.HEAD:
		return frameNone, 0
	case x.req.Proto == message.HTTP10:
		return frameClose, -1
	}
	return frameChunked, -1
}

// head appends an answer's head to c.out; c.wmu is held.
func (c *serverConn) head(x *exchange, resp *message.Response, frame framingOf, length int64) {
	x.answered = true
	b := c.begin()
	from := len(b)
	b = appendStatus(b, resp.Status)
	b = appendFields(b, &resp.Fields)
	if !resp.Has(message.Date) {
		b = append(b, c.s.watch.DateLine()...)
	}
	switch frame {
	case frameLength:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, length, 10)
		b = append(b, "\r\n"...)
	case frameChunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	switch {
	case resp.Status == 101:
		b = append(b, "Connection: Upgrade\r\n"...)
		if v := resp.Get(message.Upgrade); v != nil {
			b = appendLine(b, "Upgrade", v)
		}
	case !x.keep:
		b = append(b, "Connection: close\r\n"...)
	case x.req.Proto == message.HTTP10:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	b = append(b, "\r\n"...)
	x.outcome.Head += int64(len(b) - from)
	c.out = b
}

// begin returns c.out, with memory; c.wmu is held.
func (c *serverConn) begin() []byte {
	if c.obuf == nil {
		c.obuf = c.s.pool.get(sizeMid)
		c.out = c.obuf.b[:0]
	}
	return c.out
}

// giveBack returns c.out's memory while nothing waits in it.
func (c *serverConn) giveBack() {
	if c.obuf != nil {
		c.s.pool.put(c.obuf)
		c.obuf, c.out = nil, nil
	}
}

func appendLine(b []byte, name string, value []byte) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// appendFields appends all lines of f but connection-specific and framing ones.
func appendFields(b []byte, f *message.Fields) []byte {
	for i := range f.Len() {
		id, name, value := f.At(i)
		if id != message.Other && id.PerHop() {
			continue
		}
		b = append(b, name...)
		b = append(b, ": "...)
		b = append(b, value...)
		b = append(b, "\r\n"...)
	}
	return b
}

// stream sends the head in c.out and the body as it comes.
func (c *serverConn) stream(ctx context.Context, x *exchange, resp *message.Response, frame framingOf, length int64) error {
	if p, ok := resp.Body.(message.Prompt); ok && !p.Ready() {
		if err := c.flush(); err != nil {
			return err
		}
	}
	files, _ := resp.Body.(message.FileBody)
	if !x.SendsFiles() || frame == frameChunked {
		files = nil
	}
	for end := false; !end; {
		b, filed, err := c.next(ctx, resp.Body, files)
		switch {
		case err == io.EOF:
			end = true
		case err != nil:
			return err
		}
		if frame == frameLength {
			n := x.outcome.Body + int64(len(b))
			if filed {
				n += int64(len(c.file.Lead)) + c.file.Len
			}
			switch {
			case n > length:
				return errTooLong
			case end && n < length:
				return errTooShort
			}
		}
		if filed {
			err = c.fromFile(x)
		} else {
			err = c.piece(x, resp, frame, b, end)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// next pulls a body: filed says that what comes next is in c.file. Files is nil where the kernel cannot send them.
func (c *serverConn) next(ctx context.Context, body message.Body, files message.FileBody) (b []byte, filed bool, err error) {
	if files != nil {
		if filed, err = files.NextFile(ctx, &c.file.FileRange); filed || err != nil {
			return nil, filed, err
		}
	}
	b, err = body.Next(ctx)
	return b, false, err
}

// piece sends b, in a chunk of its own if the body is chunked, and with the end what ends it.
func (c *serverConn) piece(x *exchange, resp *message.Response, frame framingOf, b []byte, end bool) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.begin()
	var tail []byte
	if frame == frameChunked {
		if len(b) > 0 {
			c.out = strconv.AppendInt(c.out, int64(len(b)), 16)
			c.out = append(c.out, "\r\n"...)
			tail = crlf
		}
		if end {
			tail = c.lastChunk(x, resp, len(b) > 0)
		}
	}
	if len(b) == 0 && len(tail) == 0 && len(c.out) == 0 {
		return c.werr
	}
	if err := c.write(b, tail); err != nil {
		return err
	}
	x.outcome.Body += int64(len(b))
	return nil
}

var (
	crlf      = []byte("\r\n")
	zeroChunk = []byte("0\r\n\r\n")
	dataZero  = []byte("\r\n0\r\n\r\n")
)

// lastChunk returns what ends a chunked body, after the CR LF of the data if there was some.
// Trailers go to clients that asked for them (RFC 9110 section 6.5.1).
func (c *serverConn) lastChunk(x *exchange, resp *message.Response, data bool) []byte {
	t := resp.Trailer
	if t == nil || t.Len() == 0 || !x.req.Lists(message.TE, "trailers") {
		if data {
			return dataZero
		}
		return zeroChunk
	}
	var b []byte
	if data {
		b = append(b, crlf...)
	}
	b = append(b, "0\r\n"...)
	b = appendFields(b, t)
	return append(b, crlf...)
}

// write writes c.out, then b, then tail; c.wmu is held. After an error nothing is written
// any more.
func (c *serverConn) write(b, tail []byte) error {
	if c.werr != nil {
		c.out = c.out[:0]
		return c.werr
	}
	if len(b)+len(tail) <= maxInline {
		c.out = append(append(c.out, b...), tail...)
		b, tail = nil, nil
	}
	if k := min(len(b), maxInline); c.plain == nil && k > 0 {
		// TLS makes a record of each write: the head goes into the first of the body.
		c.out, b = append(c.out, b[:k]...), b[k:]
	}
	for c.werr == nil && len(c.out)+len(b)+len(tail) > 0 {
		n := min(len(b), maxPiece)
		c.wg.Set(phaseWrite, c.s.watch.Limit(c.s.cfg.WriteTimeout))
		last := tail
		if n < len(b) {
			last = nil
		}
		c.werr = c.vector(c.out, b[:n], last)
		c.kept.Sent(c.tcp, len(c.out)+n)
		c.out = c.out[:0]
		if b = b[n:]; len(b) == 0 {
			break
		}
	}
	c.wg.Set(phaseNone, 0)
	if cap(c.out) > sizeMid { // it grew beyond its buffer
		c.out = c.obuf.b[:0]
	}
	return c.werr
}

// vector writes three pieces, in one call where the connection can.
func (c *serverConn) vector(a, b, d []byte) (err error) {
	if len(b)+len(d) == 0 {
		if c.src.raw == nil {
			_, err = c.nc.Write(a)
			return err
		}
		c.sending, c.sendErr = a, nil
		err = c.src.raw.Write(c.sendStep)
		c.sending = nil
		return cmp.Or(err, c.sendErr)
	}
	if t := c.plain; t != nil {
		c.vecs = [3][]byte{a, b, d}
		if rawVectors && c.src.raw != nil {
			c.sendErr = nil
			err = c.src.raw.Write(c.vecStep)
			c.vecs = [3][]byte{}
			return cmp.Or(err, c.sendErr)
		}
		c.vec = c.vecs[:]
		_, err = c.vec.WriteTo(t)
		c.vecs = [3][]byte{}
		return err
	}
	for _, p := range [...][]byte{a, b, d} {
		if len(p) > 0 && err == nil {
			_, err = c.nc.Write(p)
		}
	}
	return err
}

// sendOnce writes what is to be sent to a socket that does not block; false when it must wait.
func (g *gear) sendOnce(fd uintptr) bool {
	for len(g.sending) > 0 {
		n, again, err := writeOnce(fd, g.sending)
		if g.sending = g.sending[n:]; again {
			return false
		}
		if err != nil {
			g.sendErr = err
			return true
		}
	}
	return true
}

// sendVector is sendOnce for three pieces.
func (g *gear) sendVector(fd uintptr) bool {
	for len(g.vecs[0])+len(g.vecs[1])+len(g.vecs[2]) > 0 {
		n, err := g.vector.send(fd, &g.vecs)
		switch err {
		case nil:
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		default:
			g.sendErr = err
			return true
		}
		for i := range g.vecs {
			k := min(n, len(g.vecs[i]))
			g.vecs[i], n = g.vecs[i][k:], n-k
		}
	}
	return true
}

// Inform implements message.Control.
func (x *exchange) Inform(status int, f *message.Fields) {
	c := x.c
	if x.req.Proto == message.HTTP10 || status < 100 || status > 199 || status == 101 {
		return
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if x.answered {
		return
	}
	if status == 100 {
		if !x.body.expect {
			return // nobody waits for it
		}
		x.body.expect = false
	}
	b := appendStatus(c.begin(), status)
	from := len(c.out)
	if f != nil {
		b = appendFields(b, f)
	}
	c.out = append(b, crlf...)
	x.outcome.Head += int64(len(c.out) - from)
	_ = c.write(nil, nil)
}

// MayBlock implements message.Control: answers to earlier requests leave now. It is called
// in the handler's goroutine.
func (x *exchange) MayBlock() { _ = x.c.flush() }
