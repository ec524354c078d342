package http2

import (
	"context"
	"errors"
	"io"

	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/message"
)

// The faults of an origin's connection. RFC 9113.
var (
	faultClientSettings = &fault{ProtocolError, false, "the first frame is not SETTINGS (section 3.4)"}
	faultInterleaved    = &fault{ProtocolError, false, "another frame within a header block (section 6.10)"}
	faultContinuation   = &fault{ProtocolError, false, "CONTINUATION without a header block (section 6.10)"}
	faultBlockLong      = &fault{EnhanceYourCalm, false, "a header block is too long"}
	faultFrameFlood     = &fault{EnhanceYourCalm, false, "too many frames that bring nothing"}
	faultOutFlood       = &fault{EnhanceYourCalm, false, "the answers to its frames are not read"}
	faultClientIdle     = &fault{ProtocolError, false, "a frame on a stream that was never opened (section 5.1)"}
	faultWindowOver     = &fault{FlowControlError, false, "a window is over 2^31-1 (section 6.9.1)"}
	faultClientZero     = &fault{ProtocolError, false, "a WINDOW_UPDATE of 0 (section 6.9)"}
	faultConnWindow     = &fault{FlowControlError, false, "more DATA than the connection's window allows (section 6.9)"}
	faultConnEnd        = &fault{ProtocolError, false, "the last stream of a GOAWAY went up (section 6.8)"}
	faultStray          = &fault{StreamClosed, false, "DATA goes on on streams that were reset"}
	faultTable          = &fault{CompressionError, false, "a header block cannot be decoded (section 4.3)"}

	faultAnswerWindow = &fault{FlowControlError, true, "more DATA than the stream's window allows (section 6.9)"}
	faultAfterEnd     = &fault{StreamClosed, true, "a frame after END_STREAM (section 5.1)"}
	faultDataFirst    = &fault{ProtocolError, true, "DATA before the head of the answer (section 8.1)"}
	faultAnswerLength = &fault{ProtocolError, true, "the body is not as long as its Content-Length (section 8.1.1)"}
	faultAnswerBody   = &fault{ProtocolError, true, "a body on an answer that has none"}
	faultInterimEnd   = &fault{ProtocolError, true, "an interim answer ends the stream (section 8.1)"}
	faultTrailerEnd   = &fault{ProtocolError, true, "a trailer that does not end the stream (section 8.1)"}
	faultSwitching    = &fault{ProtocolError, true, "101 does not exist in HTTP/2 (section 8.6)"}
)

// clientReadSize is the memory that a connection reads into: some frames of the usual size.
const clientReadSize = 64 << 10

// Run reads from the connection until it ends, or ctx does, and says why. The error is never nil;
// it is io.ErrUnexpectedEOF when the origin closed it.
func (c *ClientConn) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	buf := make([]byte, clientReadSize)
	r, w := 0, 0
	for {
		n, err := c.nc.Read(buf[w:])
		w += n
		c.mu.Lock()
		c.lastRead, c.pinged = c.cl.clock.Now(), 0
		for c.err == nil {
			h, payload, used, _, flt := nextFrame(buf[r:w], minMaxFrame)
			if used == 0 && flt == nil {
				break
			}
			r += used
			if flt == nil {
				flt = c.frame(h, payload)
			}
			if flt != nil && !flt.stream {
				c.violate(flt)
			}
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF // io.EOF is for what is whole
		}
		if err != nil && c.err == nil {
			c.die(err)
		}
		if c.err == nil && len(c.out) > clientOutMax {
			c.violate(faultOutFlood)
		}
		if err = c.err; err == nil && len(c.out) > 0 && !c.writing {
			go c.flush() // the reader never waits for the origin to read
		}
		c.unlock()
		if err != nil {
			return err
		}
		if r == w {
			r, w = 0, 0
		} else if len(buf)-w < headLen+minMaxFrame {
			w = copy(buf, buf[r:w])
			r = 0
		}
	}
}

// frame deals with one frame. C.mu is held, as for all that follow.
func (c *ClientConn) frame(h frameHead, payload []byte) *fault {
	if !c.hasPeer && h.typ != typeSettings {
		return faultClientSettings
	}
	if c.blocks > 0 && h.typ != typeContinuation {
		return faultInterleaved
	}
	switch h.typ {
	case typeData:
		return c.data(h, payload)
	case typeHeaders:
		return c.headers(h, payload)
	case typeContinuation:
		return c.continuation(h, payload)
	}
	if c.frames++; c.frames > clientFrames {
		return faultFrameFlood
	}
	switch h.typ {
	case typeReset:
		return c.wasReset(h, payload)
	case typeSettings:
		return c.settings(h, payload)
	case typePing:
		if !h.has(flagAck) {
			c.out = appendPing(c.out, [8]byte(payload), true)
			return c.answered()
		}
	case typeGoAway:
		return c.wentAway(payload)
	case typeWindowUpdate:
		return c.windowUpdate(h, payload)
	}
	return nil // PRIORITY and what is unknown
}

// answered counts a frame that had us write another.
func (c *ClientConn) answered() *fault {
	if c.answers++; c.answers > clientAnswers {
		return faultFrameFlood
	}
	return nil
}

// stream finds the stream of a frame; nil for one that is over.
func (c *ClientConn) stream(id uint32) (*clientStream, *fault) {
	if id%2 == 0 || id >= c.next {
		return nil, faultClientIdle
	}
	return c.streams[id], nil
}

// data takes a DATA frame.
func (c *ClientConn) data(h frameHead, payload []byte) *fault {
	if !c.recvWin.take(h.length) {
		return faultConnWindow
	}
	if n := c.recvWin.give(h.length); n > 0 {
		c.out = appendWindowUpdate(c.out, 0, n)
	}
	s, flt := c.stream(h.stream)
	if flt != nil {
		return flt
	}
	body, flt := h.unpad(payload)
	if flt != nil {
		return flt
	}
	if len(body) == 0 {
		if c.frames++; c.frames > clientFrames {
			return faultFrameFlood
		}
	}
	if s == nil {
		if c.stray -= h.length; c.stray < 0 {
			return faultStray
		}
		return nil
	}
	if flt := s.data(h, body); flt != nil {
		s.reset(flt.code, flt)
	}
	return nil
}

// data keeps what came for the stream.
func (s *clientStream) data(h frameHead, body []byte) *fault {
	switch {
	case s.ended:
		return faultAfterEnd
	case !s.recvWin.take(h.length):
		return faultAnswerWindow
	case !s.head:
		return faultDataFirst
	}
	s.grant(h.length - len(body)) // the padding
	s.got += int64(len(body))
	switch end := h.has(flagEndStream); {
	case len(body) > 0 && s.bodiless():
		return faultAnswerBody
	case s.length >= 0 && !s.bodiless() && (s.got > s.length || end && s.got != s.length):
		return faultAnswerLength
	case end:
		s.end()
	}
	for len(body) > 0 {
		var k *clientChunk
		if n := len(s.queue); n > 0 {
			k = s.queue[n-1]
		}
		if k == nil || k.n == len(k.b) {
			k = s.c.cl.newChunk()
			s.queue = append(s.queue, k)
		}
		n := copy(k.b[k.n:], body)
		k.n += n
		body = body[n:]
	}
	s.limit = 0
	clientWake(s.wake)
	return nil
}

// end notes END_STREAM.
func (s *clientStream) end() {
	s.ended, s.limit = true, 0
	if s.localEnd {
		delete(s.c.streams, s.id) // nothing more comes on it
	}
	clientWake(s.wake)
}

// headers takes a HEADERS frame.
func (c *ClientConn) headers(h frameHead, payload []byte) *fault {
	block, flt := h.unpad(payload)
	if flt != nil {
		return flt
	}
	if block, _, flt = h.cutPriority(block); flt != nil {
		return flt
	}
	if _, flt := c.stream(h.stream); flt != nil {
		return flt
	}
	if h.has(flagEndHeaders) {
		return c.fields(h, block)
	}
	c.blockH, c.blocks = h, 1
	c.block = append(c.block[:0], block...)
	return nil
}

func (c *ClientConn) continuation(h frameHead, payload []byte) *fault {
	switch {
	case c.blocks == 0:
		return faultContinuation
	case h.stream != c.blockH.stream:
		return faultInterleaved
	case c.blocks == clientContinuations || len(c.block)+len(payload) > clientBlock:
		return faultBlockLong
	}
	c.blocks++
	c.block = append(c.block, payload...)
	if !h.has(flagEndHeaders) {
		return nil
	}
	c.blocks = 0
	return c.fields(c.blockH, c.block)
}

// fields takes a whole header block. One for a stream that is over is read too, for the sake of
// the table.
func (c *ClientConn) fields(h frameHead, block []byte) *fault {
	s := c.streams[h.stream]
	sink := &c.sink
	sink.begin(s, c.cl.cfg.Fields)
	if err := c.dec.Decode(block, c.cl.cfg.HeadBytes, sink); err != nil {
		return s.undecoded(err)
	}
	if s == nil {
		if c.frames++; c.frames > clientFrames {
			return faultFrameFlood
		}
		return nil
	}
	var flt *fault
	switch {
	case s.ended:
		flt = faultAfterEnd
	case s.head:
		flt = s.trailers(h)
	default:
		flt = s.answer(h, sink)
	}
	if flt != nil {
		s.reset(flt.code, flt)
	}
	return nil
}

// undecoded deals with a block that was not accepted. S may be nil.
func (s *clientStream) undecoded(err error) *fault {
	var broken hpack.CompressionError
	var flt *fault
	switch {
	case errors.As(err, &broken):
		return faultTable
	case s == nil:
	case errors.As(err, &flt):
		s.reset(flt.code, flt)
	default:
		s.reset(Cancel, errHeadLong)
	}
	return nil
}

// answer takes the head of an answer, which the sink has put in its place.
func (s *clientStream) answer(h frameHead, sink *clientSink) *fault {
	if sink.status == 0 {
		return faultNoStatus
	}
	end := h.has(flagEndStream)
	if sink.status < 200 {
		switch {
		case sink.status == 101:
			return faultSwitching
		case end:
			return faultInterimEnd
		}
		if s.interim++; s.interim > s.c.cl.cfg.Interim {
			s.reset(Cancel, http1.ErrInterim)
			return nil
		}
		if sink.status == 100 {
			s.cont = true
		} else {
			in := &clientInterim{status: sink.status}
			in.fields.CopyFrom(&s.resp.Fields)
			s.early = append(s.early, in)
		}
		s.resp.Reset()
		clientWake(s.wake)
		return nil
	}
	s.resp.Status, s.status, s.length, s.head = sink.status, sink.status, sink.length, true
	s.resp, s.limit = nil, 0
	if end {
		if s.length > 0 && !s.bodiless() {
			return faultAnswerLength
		}
		s.end()
	}
	clientWake(s.wake)
	return nil
}

// bodiless says that the answer cannot have a body, whatever its Content-Length.
func (s *clientStream) bodiless() bool { return message.NoBody(s.method, s.status) && !s.connect }

// trailers takes the trailer.
func (s *clientStream) trailers(h frameHead) *fault {
	if !h.has(flagEndStream) {
		return faultTrailerEnd
	}
	if s.length >= 0 && s.got != s.length && !s.bodiless() {
		return faultAnswerLength
	}
	s.end()
	return nil
}

// wasReset takes a RST_STREAM.
func (c *ClientConn) wasReset(h frameHead, payload []byte) *fault {
	s, flt := c.stream(h.stream)
	if s == nil {
		return flt
	}
	delete(c.streams, s.id)
	if s.ended { // the answer is whole, and the rest of the request of no use (RFC 9113 section 8.1)
		s.localEnd = true
		clientWake(s.room)
		return nil
	}
	var err error = &clientReset{code(payload)}
	switch code(payload) {
	case RefusedStream:
		if !s.head {
			s.unsent, err = true, ErrRefused
		}
	case HTTP11Required:
		if !s.head {
			s.unsent, err = true, ErrHTTP11Required
		}
	}
	s.breakOff(err)
	return nil
}

func (c *ClientConn) settings(h frameHead, payload []byte) *fault {
	if h.has(flagAck) {
		return nil
	}
	was := c.peer.initialWindow
	if flt := c.peer.apply(payload); flt != nil {
		return flt
	}
	c.enc.SetPeerSize(c.peer.tableSize)
	if d := int64(c.peer.initialWindow) - int64(was); d != 0 {
		for _, s := range c.streams {
			if !s.sendWin.add(d) {
				return faultWindowOver
			}
			clientWake(s.room)
		}
	}
	if !c.hasPeer {
		c.hasPeer = true
		close(c.settled)
	}
	c.changed = true
	c.out = appendSettingsAck(c.out)
	return c.answered()
}

// wentAway takes a GOAWAY: streams beyond the last one were not dealt with (RFC 9113 section 6.8).
func (c *ClientConn) wentAway(payload []byte) *fault {
	last, _, _ := parseGoAway(payload)
	if last > c.goAway {
		return faultConnEnd
	}
	c.goAway, c.closing, c.changed = last, true, true
	for id, s := range c.streams {
		if id > last {
			s.unsent = true
			delete(c.streams, id)
			s.breakOff(ErrGoAway)
		}
	}
	c.endIfDone()
	return nil
}

func (c *ClientConn) windowUpdate(h frameHead, payload []byte) *fault {
	n := int64(number(payload))
	if h.stream == 0 {
		if n == 0 {
			return faultClientZero
		}
		if !c.sendWin.add(n) {
			return faultWindowOver
		}
		c.wakeSenders()
		return nil
	}
	s, flt := c.stream(h.stream)
	if s == nil {
		return flt
	}
	if n == 0 {
		s.reset(ProtocolError, faultClientZero)
	} else if !s.sendWin.add(n) {
		s.reset(FlowControlError, faultWindowOver)
	} else if s.blocked {
		clientWake(s.room)
	}
	return nil
}
