package http2

// The faults of a client's connection. RFC 9113.
var (
	faultPreface      = &fault{ProtocolError, false, "the connection does not begin with the preface (section 3.4)"}
	faultNoSettings   = &fault{ProtocolError, false, "the first frame is not SETTINGS (section 3.4)"}
	faultSplit        = &fault{ProtocolError, false, "a header block is split by another frame (section 4.3)"}
	faultNotOpen      = &fault{ProtocolError, false, "CONTINUATION without a header block (section 6.10)"}
	faultIdleStream   = &fault{ProtocolError, false, "a frame of a stream that was never opened (section 5.1)"}
	faultParity       = &fault{ProtocolError, false, "a client's stream has an even identifier (section 5.1.1)"}
	faultBackwards    = &fault{ProtocolError, false, "a stream's identifier is not above those before (section 5.1.1)"}
	faultClosedStream = &fault{StreamClosed, false, "a frame of a stream that the client had ended (section 5.1)"}
	faultSelf         = &fault{ProtocolError, false, "a stream depends on itself (RFC 7540 section 5.3.1)"}
	faultWindowZero   = &fault{ProtocolError, false, "WINDOW_UPDATE of 0 (section 6.9)"}
	faultWindow       = &fault{FlowControlError, false, "a window over 2^31-1 (section 6.9.1)"}
	faultFlow         = &fault{FlowControlError, false, "more data than the connection's window allows (section 6.9)"}
	faultHPACK        = &fault{CompressionError, false, "a header block cannot be decoded (section 4.3)"}
	faultPriorityID   = &fault{ProtocolError, false, "PRIORITY_UPDATE of stream 0 or of an even one (RFC 9218 section 7.1)"}
)

// frames handles what is buffered until a request can be served, which it returns, or more
// bytes are needed; c.mu is held.
func (c *serverConn) frames() (*stream, *fault) {
	if c.in == nil || c.in.r == c.in.w {
		return nil, nil
	}
	if !c.began {
		if ok, flt := c.preface(); !ok {
			return nil, flt
		}
	}
	for c.in.r < c.in.w {
		if c.closing {
			return nil, nil
		}
		h, payload, n, need, flt := nextFrame(c.in.b[c.in.r:c.in.w], minMaxFrame)
		if flt != nil {
			return nil, flt
		}
		if n == 0 {
			parted, flt := c.part(h)
			c.full = c.full || !parted && c.in.r+need > len(c.in.b)
			return nil, flt
		}
		c.inData = false
		c.in.r += n
		s, flt := c.frame(h, payload)
		if c.open.stream == 0 {
			c.partly = false
		}
		if s != nil || flt != nil {
			return s, flt
		}
	}
	return nil, nil
}

// part takes what is there of a DATA frame whose end has not come: a client may need a minute for one.
// What has not come is a frame of its own, whose head is written over the bytes that were taken.
func (c *serverConn) part(h frameHead) (bool, *fault) {
	b := c.in.b[c.in.r:c.in.w]
	if h.stream == 0 || h.typ != typeData || h.has(flagPadded) || c.open.stream != 0 {
		return false, nil
	}
	if s := c.find(h.stream); s == nil || !s.body.open {
		return false, nil
	}
	if c.inData = true; len(b) == headLen {
		return false, nil
	}
	payload, rest := b[headLen:], h
	h.length, h.flags = len(payload), h.flags&^flagEndStream
	rest.length -= h.length
	if flt := c.onData(h, payload); flt != nil {
		return true, flt
	}
	c.in.r = c.in.w - headLen
	appendHead(c.in.b[c.in.r:c.in.r], rest.length, rest.typ, rest.flags, rest.stream)
	c.partly = false // its time begins anew
	return true, nil
}

// preface passes over the client's preface (RFC 9113 section 3.4).
func (c *serverConn) preface() (bool, *fault) {
	b := c.in.b[c.in.r:c.in.w]
	n := min(len(b), len(preface))
	if string(b[:n]) != preface[:n] {
		return false, faultPreface
	}
	if n < len(preface) {
		return false, nil
	}
	c.in.r += n
	c.began = true
	return true, nil
}

// frame handles one frame; c.mu is held.
func (c *serverConn) frame(h frameHead, payload []byte) (*stream, *fault) {
	if !c.first {
		if h.typ != typeSettings || h.has(flagAck) {
			return nil, faultNoSettings
		}
		c.first = true
	}
	if c.open.stream != 0 && (h.typ != typeContinuation || h.stream != c.open.stream) {
		return nil, faultSplit
	}
	switch h.typ {
	case typeData:
		return nil, c.onData(h, payload)
	case typeHeaders:
		return c.onHeaders(h, payload)
	case typeContinuation:
		return c.onContinuation(h, payload)
	case typePriority:
		if number(payload) == h.stream {
			return nil, faultSelf
		}
		return nil, c.strike(AbusePriority)
	case typeReset:
		return nil, c.onReset(h)
	case typeSettings:
		return nil, c.onSettings(h, payload)
	case typePing:
		return nil, c.onPing(h, payload)
	case typeWindowUpdate:
		return nil, c.onWindowUpdate(h, payload)
	case typePriorityUpdate:
		return nil, c.onPriorityUpdate(payload)
	case typeGoAway:
		return nil, nil // it opens no more streams; those that are open go on
	}
	return nil, c.strike(AbuseEmpty) // of unknown type (section 5.5)
}

func (c *serverConn) onData(h frameHead, payload []byte) *fault {
	if !c.recv.take(h.length) {
		return faultFlow
	}
	data, flt := h.unpad(payload)
	if flt != nil {
		return flt
	}
	c.consumed(nil, h.length-len(data))
	if len(data) == 0 && !h.has(flagEndStream) {
		if flt := c.strike(AbuseEmpty); flt != nil {
			return flt
		}
	}
	s := c.find(h.stream)
	if s == nil {
		c.consumed(nil, len(data))
		return c.strayData(h)
	}
	b := &s.body
	switch {
	case !b.open:
		return faultClosedStream
	case !b.window.take(h.length):
		c.consumed(nil, len(data))
		c.resetStream(s, FlowControlError, errFault)
		return c.strike(AbuseError)
	}
	if pad := h.length - len(data); pad > 0 {
		c.update(b, pad)
	}
	bad := b.put(data)
	if bad != nil {
		c.consumed(nil, len(data))
	}
	if bad == nil && h.has(flagEndStream) {
		bad = b.finish()
	}
	if bad != nil {
		return c.malformed(s)
	}
	if s.finished && !b.open {
		c.remove(s, closedWhole) // the second side of a tunnel
	}
	return nil
}

// strayData is DATA of a stream that is not open.
func (c *serverConn) strayData(h frameHead) *fault {
	if h.stream > c.maxID || h.stream%2 == 0 {
		return faultIdleStream
	}
	switch c.closed(h.stream) {
	case closedByUs:
		return nil // it was on its way
	case closedWhole:
		return faultClosedStream
	}
	c.begin()
	c.out = appendReset(c.out, h.stream, StreamClosed)
	return c.strike(AbuseError)
}

func (c *serverConn) onReset(h frameHead) *fault {
	if h.stream > c.maxID || h.stream%2 == 0 {
		return faultIdleStream
	}
	if s := c.find(h.stream); s != nil {
		c.s.gone.Add(1)
		c.abandon(s, closedByPeer, errReset)
	} else if c.closed(h.stream) == closedByUs {
		return nil // both sides have reset it
	}
	return c.strike(AbuseReset)
}

func (c *serverConn) onSettings(h frameHead, payload []byte) *fault {
	if flt := c.strike(AbuseSettings); flt != nil {
		return flt
	}
	if h.has(flagAck) {
		c.agreed = true
		return nil
	}
	was := c.peer
	if flt := c.peer.apply(payload); flt != nil {
		return flt
	}
	if c.peer.tableSize != was.tableSize {
		c.enc.SetPeerSize(c.peer.tableSize)
	}
	if delta := int64(c.peer.initialWindow) - int64(was.initialWindow); delta != 0 {
		for _, s := range c.streams {
			if !s.window.add(delta) {
				return faultWindow
			}
			c.opened(s)
		}
	}
	c.begin()
	c.out = appendSettingsAck(c.out)
	return nil
}

func (c *serverConn) onPing(h frameHead, payload []byte) *fault {
	data := [8]byte(payload)
	if h.has(flagAck) {
		if c.drain == drainAsked && data == drainPing {
			c.lastCall()
		}
		return nil
	}
	c.begin()
	c.out = appendPing(c.out, data, true)
	return c.strike(AbusePing)
}

func (c *serverConn) onWindowUpdate(h frameHead, payload []byte) *fault {
	n := number(payload)
	if h.stream != 0 && (h.stream > c.maxID || h.stream%2 == 0) {
		return faultIdleStream
	}
	s, back := c.find(h.stream), &c.back[0]
	if h.stream != 0 {
		back = &c.back[1]
	}
	// A client that reads late opens its windows in many fair steps, but by no more than it was
	// sent. What is small, for nobody, or beyond that, is counted.
	switch {
	case n >= smallFrame && int64(n) <= *back && (s != nil || h.stream == 0):
		*back -= int64(n)
	default:
		if flt := c.strike(AbuseWindow); flt != nil {
			return flt
		}
	}
	if h.stream == 0 {
		if n == 0 {
			return faultWindowZero
		}
		if !c.window.add(int64(n)) {
			return faultWindow
		}
		if c.window >= smallFrame {
			c.ended(&c.stalled, &c.waited) // less is no progress
		}
		return nil
	}
	switch {
	case s == nil:
		return nil
	case n == 0:
		c.resetStream(s, ProtocolError, errFault)
		return c.strike(AbuseError)
	case !s.window.add(int64(n)):
		c.resetStream(s, FlowControlError, errFault)
		return c.strike(AbuseError)
	}
	c.opened(s)
	return nil
}

// maxEarly is for how many streams that are not open yet a priority is kept.
const maxEarly = 8

type earlyPriority struct {
	id uint32
	priority
}

// onPriorityUpdate takes a PRIORITY_UPDATE frame (RFC 9218 section 7.1).
func (c *serverConn) onPriorityUpdate(payload []byte) *fault {
	id := number(payload)
	if id%2 == 0 {
		return faultPriorityID
	}
	if flt := c.strike(AbusePriority); flt != nil {
		return flt
	}
	p := defaultPriority.update(payload[4:])
	if s := c.find(id); s != nil {
		if queued := s.queued; queued {
			c.queue.remove(s)
			s.priority = p
			c.queue.add(s)
		} else {
			s.priority = p
		}
	} else if id > c.maxID {
		c.early[id/2%maxEarly] = earlyPriority{id, p}
	}
	return nil
}

func (c *serverConn) priorityOf(id uint32) priority {
	if e := c.early[id/2%maxEarly]; e.id == id {
		return e.priority
	}
	return defaultPriority
}

// consumed counts n bytes of DATA as taken off the connection's window, and off the stream's
// where b is given, and opens them again in time; c.mu is held.
func (c *serverConn) consumed(b *requestBody, n int) {
	if n == 0 {
		return
	}
	if up := c.recv.give(n); up > 0 && c.dead == nil {
		c.begin()
		c.out = appendWindowUpdate(c.out, 0, up)
	}
	if b != nil {
		c.update(b, n)
	}
}

// update opens the window of a request's body; c.mu is held.
func (c *serverConn) update(b *requestBody, n int) {
	if up := b.window.give(n); up > 0 && b.open && !b.s.gone && (!b.s.finished || b.s.touched != 0) { // a half-closed tunnel goes on
		c.begin()
		c.out = appendWindowUpdate(c.out, b.s.id, up)
	}
}
