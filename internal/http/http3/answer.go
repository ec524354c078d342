package http3

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/qpack"
)

const (
	// maxAtOnce is what the transport takes without a wait: it copies it into one frame. The begin
	// of a body goes with what frames it.
	maxAtOnce = 1400
)

// answer sends resp.
func (x *exchange) answer(ctx context.Context, resp *message.Response) {
	x.ender = resp.Ender
	if x.socket && !message.AcceptWebSocket(&x.req, resp) {
		if resp.Upgrade != nil {
			_ = resp.Upgrade.Close()
		}
		if resp.Body != nil {
			resp.Body.Close(errNoNeed)
		}
		x.socket = false
		resp = x.page(ctx, faultWebSocket)
	}
	tunnel := resp.Upgrade != nil && resp.Status/100 == 2 && (x.socket || x.req.Method == message.CONNECT)
	if resp.Status < 200 || resp.Status > 999 {
		resp.Status = 500 // the handler's mistake
	}
	if v := resp.Get(message.Priority); v != nil { // RFC 9218 section 8
		p := readPriority(v)
		x.str.SetPriority(p.urgency, p.incremental)
	}
	if tunnel {
		x.tunnel(ctx, resp)
		return
	}
	if resp.Upgrade != nil {
		_ = resp.Upgrade.Close()
	}
	x.outcome.Status = resp.Status
	length := x.length(resp)
	x.wmu.Lock()
	x.buildHead(resp, length)
	if resp.Body == nil {
		err := x.memory(resp)
		x.wmu.Unlock()
		x.finish(err)
		return
	}
	x.wmu.Unlock()
	if message.NoBody(x.req.Method, resp.Status) {
		resp.Body.Close(errNoNeed)
		x.wmu.Lock()
		err := x.write(x.out, true)
		x.wmu.Unlock()
		x.finish(err)
		return
	}
	x.handOff()
	x.sending = resp.Body
	err := x.stream(ctx, resp, length)
	resp.Body.Close(err)
	x.sending = nil
	x.finish(err)
}

// length is what Content-Length says; -1 for nothing.
func (x *exchange) length(resp *message.Response) int64 {
	if resp.Status == 204 || resp.Status == 304 || x.req.Method == message.CONNECT && resp.Status/100 == 2 {
		return -1
	}
	if resp.Body == nil && (resp.Bytes != nil || x.req.Method != message.HEAD) {
		return int64(len(resp.Bytes))
	}
	return max(resp.ContentLength, -1)
}

// headRoom is the type of a HEADERS frame and a length of two bytes.
const headRoom = 3

// buildHead makes the HEADERS frame of an answer in x.out; x.wmu is held.
func (x *exchange) buildHead(resp *message.Response, length int64) {
	x.answered = true
	if x.body.open {
		x.begun.Store(true)
		x.body.relax()
	}
	b := append(x.out[:0], frameHeaders, 0, 0)
	b = qpack.AppendPrefix(b)
	b = qpack.AppendStatus(b, resp.Status)
	b = appendFields(b, &resp.Fields)
	if !resp.Has(message.Date) {
		b = qpack.Append(b, message.Date, x.c.s.watch.Date())
	}
	if length >= 0 {
		var n [20]byte
		b = qpack.Append(b, message.ContentLength, strconv.AppendInt(n[:0], length, 10))
	}
	x.out = closeHead(b, 0)
	x.outcome.Head += int64(len(x.out))
}

// closeHead sets the length of the HEADERS frame that begins at b[at] and ends with b.
func closeHead(b []byte, at int) []byte {
	n := len(b) - at - headRoom
	if n < 1<<14 {
		b[at+1], b[at+2] = byte(n>>8)|0x40, byte(n)
		return b
	}
	b = append(b, 0, 0)
	copy(b[at+headRoom+2:], b[at+headRoom:])
	b[at+1], b[at+2], b[at+3], b[at+4] = byte(n>>24)|0x80, byte(n>>16), byte(n>>8), byte(n)
	return b
}

// appendFields appends all lines of f but connection-specific and framing ones.
func appendFields(b []byte, f *message.Fields) []byte {
	for i := range f.Len() {
		id, name, value := f.At(i)
		switch {
		case id == message.Other:
			b = qpack.AppendLine(b, name, value)
		case id.PerHop():
		default:
			b = qpack.Append(b, id, value)
		}
	}
	return b
}

// memory sends the head in x.out and a body that is in memory; x.wmu is held. A small answer
// leaves in one frame, with the stream's end.
func (x *exchange) memory(resp *message.Response) error {
	body := resp.Bytes
	if message.NoBody(x.req.Method, resp.Status) {
		body = nil
	}
	if len(body) > 0 {
		x.out = appendVarint(append(x.out, frameData), uint64(len(body)))
	}
	if len(x.out)+len(body) > maxAtOnce || x.informed {
		x.handOff()
	}
	k := min(len(body), max(0, maxAtOnce-len(x.out)))
	x.out = append(x.out, body[:k]...)
	err := x.write(x.out, k == len(body))
	if err == nil && k < len(body) {
		err = x.write(body[k:], true)
	}
	if err == nil {
		x.outcome.Body = int64(len(body))
	}
	return err
}

// write writes b, and ends the stream with it if last; x.wmu is held.
func (x *exchange) write(b []byte, last bool) error {
	if err := x.put(b); err != nil {
		return err
	}
	if last {
		x.final = true
		return x.str.Close()
	}
	return nil
}

// put writes b, for as long as the client takes some of it in time, and fast enough on average. What
// the transport has put into packets counts as taken: what it puts is what the client has room for.
func (x *exchange) put(b []byte) error {
	if x.leading || len(b) == 0 { // so little does not wait
		_, err := x.str.Write(b)
		return err
	}
	w, cfg, p := &x.c.s.watch, &x.c.s.cfg, &x.taken
	for {
		from := w.Now()
		x.writeBy.Store(w.Limit(p.answerPatience(cfg.WriteTimeout, cfg.WriteRate)))
		n, err := x.str.Write(b)
		over := x.writeBy.Swap(0) < 0
		p.bytes, p.waited = p.bytes+int64(n), p.waited+w.Now()-from
		if !over || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err != nil && (n == 0 || p.answerPatience(cfg.WriteTimeout, cfg.WriteRate) == 0) {
			x.c.late()
			return err
		}
		x.c.kicked()
		_ = x.str.SetWriteDeadline(time.Time{})
		if err == nil {
			return nil
		}
		b = b[n:]
	}
}

// stream sends the head in x.out and the body as it comes. A body of known length is one DATA
// frame, another one for each piece.
func (x *exchange) stream(ctx context.Context, resp *message.Response, length int64) error {
	if length >= 0 {
		x.out = appendVarint(append(x.out, frameData), uint64(length))
	}
	if p, ok := resp.Body.(message.Prompt); ok && !p.Ready() {
		if err := x.flush(); err != nil {
			return err
		}
	}
	for end := false; !end; {
		b, err := resp.Body.Next(ctx)
		switch {
		case err == io.EOF:
			end = true
		case err != nil:
			return err
		}
		if length >= 0 {
			switch n := x.outcome.Body + int64(len(b)); {
			case n > length:
				return errTooLong
			case end && n < length:
				return errTooShort
			}
		}
		if err := x.piece(resp, b, length < 0, end); err != nil {
			return err
		}
	}
	return nil
}

// flush writes what is in x.out.
func (x *exchange) flush() error {
	x.wmu.Lock()
	defer x.wmu.Unlock()
	err := x.write(x.out, false)
	x.out = x.out[:0]
	return err
}

// piece sends b, in a frame of its own if framed, and with the end what ends the body.
func (x *exchange) piece(resp *message.Response, b []byte, framed, end bool) error {
	x.wmu.Lock()
	defer x.wmu.Unlock()
	if framed && len(b) > 0 {
		x.out = appendVarint(append(x.out, frameData), uint64(len(b)))
	}
	k := min(len(b), max(0, maxAtOnce-len(x.out)))
	x.out = append(x.out, b[:k]...)
	trailer := end && resp.Trailer != nil && resp.Trailer.Len() > 0 && wantsTrailers(&x.req.Fields)
	err := x.write(x.out, end && !trailer && k == len(b))
	x.out = x.out[:0]
	if err == nil && k < len(b) {
		err = x.write(b[k:], end && !trailer)
	}
	if err != nil {
		return err
	}
	x.outcome.Body += int64(len(b))
	if !trailer {
		return nil
	}
	out := appendFields(qpack.AppendPrefix(append(x.out, frameHeaders, 0, 0)), resp.Trailer)
	x.out = closeHead(out, 0)
	return x.write(x.out, true)
}

// wantsTrailers says whether TE names trailers (RFC 9110 section 6.5.1); it names nothing else here.
func wantsTrailers(f *message.Fields) bool { return f.Has(message.TE) }

// finish ends an answer.
func (x *exchange) finish(err error) {
	if err != nil {
		x.c.s.aborted.Add(1)
		x.outcome.Err = err
		x.giveUp(codeInternal)
	}
	switch {
	case x.cut.Load() || remote(err):
		x.c.gone()
	case err == nil && !x.refused:
		x.c.done()
	}
	x.tell()
}

// tell tells the Ender how the answer ended, once.
func (x *exchange) tell() {
	e, o := x.ender, x.outcome
	x.ender = nil
	x.c.given.Add(o.Body)
	if e == nil {
		return
	}
	defer func() {
		if recover() != nil {
			x.c.s.panics.Add(1)
		}
	}()
	e.End(o)
}

// remote says whether the client has reset the stream, or wants no more of it.
func remote(err error) bool {
	var se *quic.StreamError
	return errors.As(err, &se) && se.Remote
}

// giveUp ends the stream in both directions, so that nobody takes what it has for whole.
func (x *exchange) giveUp(code quic.StreamErrorCode) {
	x.str.CancelWrite(code)
	x.str.CancelRead(code)
}

// refuse answers what is no acceptable request.
func (x *exchange) refuse(ctx context.Context, f *fault) {
	c := x.c
	switch {
	case f.kill != nil:
		c.kill(f.kill)
		return
	case f == faultCut:
		x.giveUp(codeIncomplete)
		return
	case f == faultGone:
		c.gone()
		x.giveUp(codeRequestCancelled)
		return
	}
	if f != faultPanic {
		x.refused = true
		c.misbehaved()
	}
	resp := x.page(ctx, f)
	x.socket = false
	if !f.malformed {
		x.answer(ctx, resp)
		return
	}
	x.ender = resp.Ender
	if resp.Body != nil {
		resp.Body.Close(errNoNeed)
	}
	x.giveUp(codeMessage) // RFC 9114 section 4.1.2
	x.outcome.Err = errMalformed
	x.tell()
}

// page asks the handler for a page.
func (x *exchange) page(ctx context.Context, f *fault) (resp *message.Response) {
	c := x.c
	if f != faultPanic {
		c.s.refused.Add(1)
	}
	func() {
		defer func() {
			if recover() != nil {
				c.s.panics.Add(1)
			}
		}()
		resp = c.s.handler.Refuse(ctx, c.facts.Load(), f.status, f.code, f.detail)
	}()
	if resp == nil {
		resp = &message.Response{Status: f.status}
		resp.AddString(message.ContentType, "text/plain; charset=utf-8")
		resp.SetBytes([]byte(f.code + "\n"))
	}
	return resp
}

// Inform implements message.Control.
func (x *exchange) Inform(status int, f *message.Fields) {
	if status < 100 || status > 199 || status == 101 {
		return
	}
	x.wmu.Lock()
	defer x.wmu.Unlock()
	if x.answered {
		return
	}
	if status == 100 {
		if !x.body.expect {
			return // nobody waits for it
		}
		x.body.expect = false
	}
	_ = x.interim(status, f)
}

// interim sends an interim answer; x.wmu is held.
func (x *exchange) interim(status int, f *message.Fields) error {
	b := qpack.AppendStatus(qpack.AppendPrefix(append(x.out[:0], frameHeaders, 0, 0)), status)
	if f != nil {
		b = appendFields(b, f)
	}
	x.out = closeHead(b, 0)
	x.informed = true
	x.outcome.Head += int64(len(x.out))
	err := x.write(x.out, false)
	x.out = x.out[:0]
	return err
}
