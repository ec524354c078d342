package http2

import (
	"errors"

	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/message"
)

// onHeaders begins a request, or a trailer section.
func (c *serverConn) onHeaders(h frameHead, payload []byte) (*stream, *fault) {
	payload, flt := h.unpad(payload)
	if flt != nil {
		return nil, flt
	}
	payload, dependency, flt := h.cutPriority(payload)
	switch {
	case flt != nil:
		return nil, flt
	case h.has(flagPriority) && dependency == h.stream:
		return nil, faultSelf
	case h.stream%2 == 0:
		return nil, faultParity
	case !h.has(flagEndHeaders):
		c.open, c.parts = h, 0
		c.block = append(c.block[:0], payload...)
		return nil, nil
	}
	return c.onBlock(h, payload)
}

func (c *serverConn) onContinuation(h frameHead, payload []byte) (*stream, *fault) {
	if c.open.stream == 0 {
		return nil, faultNotOpen
	}
	c.parts++
	if c.parts > c.s.calm[AbuseContinuation] || len(c.block)+len(payload) > c.s.cfg.Limits.HeadBytes+minMaxFrame {
		return nil, c.condemn(AbuseContinuation)
	}
	c.block = append(c.block, payload...)
	if !h.has(flagEndHeaders) {
		return nil, nil
	}
	h, c.open = c.open, frameHead{}
	block := c.block
	if cap(c.block) > 2*minMaxFrame {
		c.block = nil
	}
	return c.onBlock(h, block)
}

// ignore decodes a block for the sake of the table.
func (c *serverConn) ignore(block []byte) *fault {
	if broken(c.dec.Decode(block, c.listLimit(), nil)) {
		return faultHPACK
	}
	return nil
}

// broken says that a block could not be decoded, so that the tables do not agree any more.
func broken(err error) bool {
	_, ok := err.(hpack.CompressionError)
	return ok
}

// listLimit is HeadBytes as HPACK counts.
func (c *serverConn) listLimit() int {
	l := &c.s.cfg.Limits
	return l.HeadBytes + (l.Fields+8)*hpack.Overhead
}

// onBlock handles a whole header block.
func (c *serverConn) onBlock(h frameHead, block []byte) (*stream, *fault) {
	if s := c.find(h.stream); s != nil {
		return nil, c.onTrailer(s, h, block)
	}
	if h.stream <= c.maxID {
		switch c.closed(h.stream) {
		case closedByUs:
			return nil, c.ignore(block) // it was on its way
		case 0:
			return nil, faultBackwards
		}
		return nil, faultClosedStream
	}
	c.maxID = h.stream
	if c.drain == drainLast {
		c.ring[h.stream/2%maxClosed] = closedStream{h.stream, closedByUs}
		return nil, c.ignore(block)
	}
	if len(c.streams) >= c.s.cfg.Streams || c.active >= 2*c.s.cfg.Streams {
		c.ring[h.stream/2%maxClosed] = closedStream{h.stream, closedByUs}
		c.begin()
		c.out = appendReset(c.out, h.stream, RefusedStream)
		if flt := c.strike(AbuseRefused); flt != nil {
			return nil, flt
		}
		return nil, c.ignore(block)
	}
	return c.request(h, block)
}

// request makes a request of a block.
func (c *serverConn) request(h frameHead, block []byte) (*stream, *fault) {
	c.credit(AbusePriority, 4)
	s := c.take(h.stream)
	whole := h.has(flagEndStream)
	c.reader.begin(&s.req, &c.s.cfg.Limits)
	err := c.dec.Decode(block, c.listLimit(), &c.reader)
	bad := c.reader.bad
	switch {
	case broken(err):
		s.owned = false
		return nil, faultHPACK
	case errors.Is(err, hpack.ErrTooLarge):
		bad = refuseHeadLong
	case bad == nil:
		bad = c.reader.end(whole)
	}
	c.prepare(s, whole)
	if bad == nil && c.s.cfg.BodyBytes > 0 && s.req.ContentLength > c.s.cfg.BodyBytes {
		bad = refuseBodyLong
	}
	s.refusal, s.inline = bad, true
	switch bad {
	case nil:
		c.content(s, whole)
		return s, nil
	case refuseHeadLong, refuseFields:
		flt := c.strike(AbuseHead)
		s.owned = flt == nil
		return s, flt
	}
	flt := c.strike(AbuseError)
	s.owned = flt == nil
	return s, flt
}

// prepare makes a request ready for the handler.
func (c *serverConn) prepare(s *stream, whole bool) {
	r := &s.req
	r.Proto, r.Secure, r.Conn, r.Control = message.HTTP2, c.facts.TLS != nil, c.facts, s
	if whole {
		s.body.none(s)
	} else {
		s.body.start(s, r.ContentLength, c.reader.expect, c.s.cfg.StreamWindow)
	}
	c.served++
	if p := r.Get(message.Priority); p != nil && c.early[s.id/2%maxEarly].id != s.id {
		s.priority = s.priority.update(p)
	}
}

// content gives a request its body, or its stream to a tunnel.
func (c *serverConn) content(s *stream, whole bool) {
	r := &s.req
	switch {
	case c.reader.websocket && r.Method == message.CONNECT:
		r.UpgradeWebSocket()
		s.websocket, s.tunnel = true, true
	case r.Method == message.CONNECT:
		r.ContentLength, s.tunnel = 0, true
	case !whole:
		r.Body, r.Trailer = &s.body, &s.trailer
		s.body.talks = message.IsGRPC(&r.Fields)
	}
	if s.tunnel {
		s.body.length = -1
	}
}

// onTrailer ends a request's body (RFC 9113 section 8.1).
func (c *serverConn) onTrailer(s *stream, h frameHead, block []byte) *fault {
	if !s.body.open {
		return faultClosedStream
	}
	c.reader.beginTrailer(&s.trailer, &c.s.cfg.Limits)
	err := c.dec.Decode(block, c.listLimit(), trailerReader{&c.reader})
	if broken(err) {
		return faultHPACK
	}
	if err != nil || c.reader.bad != nil || !h.has(flagEndStream) || s.tunnel {
		s.trailer.Reset()
		return c.malformed(s)
	}
	if s.body.finish() != nil {
		return c.malformed(s)
	}
	return nil
}

// malformed resets the stream of a malformed request (RFC 9113 section 8.1.1).
func (c *serverConn) malformed(s *stream) *fault {
	s.body.fail(message.ErrBodyMalformed)
	c.resetStream(s, ProtocolError, errFault)
	return c.strike(AbuseError)
}
