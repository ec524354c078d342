package http2

import (
	"errors"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/http/message"
)

// stream is one request, and what is kept of it until its answer has left. Its connection's
// mutex guards it, but for what belongs to the goroutine that serves it.
type stream struct {
	req     message.Request
	trailer message.Fields
	ctx     *streamContext
	body    requestBody
	wake    chan struct{} // something of the state has changed
	shutUp  atomic.Bool   // the far side of a tunnel was closed because the client had ended
	streamState
}

// streamState is what of a stream begins anew with each request.
type streamState struct {
	c  *serverConn
	id uint32

	inline  bool // the goroutine that serves it holds the reader's role; its own
	ender   message.Ender
	outcome message.Outcome

	owned    bool  // a goroutine serves it, and ends it
	closed   bool  // it is not in use on the connection any more
	gone     bool  // reset, or its connection is dead
	cause    error // then: why
	answered bool  // the final head was made

	refusal   *refusal // why it is not given to the Handler
	tunnel    bool     // DATA belongs to a tunnel
	websocket bool     // an extended CONNECT

	// What is sent.
	window   sendWindow
	pending  []byte          // lent, not taken over yet
	final    bool            // nothing comes after pending
	finished bool            // END_STREAM was made
	written  bool            // and has left, or failed with cause
	last     *message.Fields // the trailer section after the last byte
	stalled  int64           // since when the client's window is closed
	waited   int64           // milliseconds that it was closed before
	touched  int64           // when a tunnel moved last; 0 for others
	priority
	queued bool
	level  uint8 // the urgency under which it is queued
	next   *stream
}

// Why answers end early.
var (
	errReset    = errors.New("the client has reset the stream")
	errClosed   = errors.New("the connection has ended")
	errTooLong  = errors.New("the body is longer than its Content-Length")
	errTooShort = errors.New("the body is shorter than its Content-Length")
	errPanic    = errors.New("the answer's body panicked")
	errNoNeed   = errors.New("the body is not needed")
	errStalled  = errors.New("the client takes no data")
	errSilent   = errors.New("the tunnel was silent for too long")
	errFault    = errors.New("the client broke the protocol")
)

// take returns a stream for a new request; c.mu is held.
func (c *serverConn) take(id uint32) *stream {
	s := c.spareStream()
	if s.ctx == nil {
		s.ctx = new(streamContext)
	}
	s.c, s.id = c, id
	s.window = sendWindow(c.peer.initialWindow)
	s.priority = c.priorityOf(id)
	s.owned = true
	c.streams = append(c.streams, s)
	c.active++
	return s
}

// recycle frees a stream that has ended; c.mu is held.
func (c *serverConn) recycle(s *stream) {
	c.active--
	s.body.recycle()
	if !s.ctx.fresh() {
		s.ctx.cancel()
		s.ctx = nil
	}
	if s.tunnel {
		s.shutUp.Store(false)
	}
	s.streamState = streamState{}
	drain(s.wake)
	large := s.req.Size() > maxKept
	s.req.Reset()
	s.trailer.Reset()
	switch {
	case large:
	case c.sheaf != nil && c.sheaf.n < len(c.sheaf.list):
		c.sheaf.list[c.sheaf.n] = s
		c.sheaf.n++
	default:
		c.s.spare.Put(s)
	}
	if c.active == 0 {
		c.busyEnded()
	}
}

// sheaf is streams that are free. The reader takes one with its first request and gives it back
// before it waits, so that the streams of a whole batch cost one visit to the pool.
type sheaf struct {
	n    int
	list [16]*stream
}

// spareStream finds a stream that is free; c.mu is held.
func (c *serverConn) spareStream() *stream {
	if c.sheaf == nil {
		c.sheaf = c.s.sheaves.Get().(*sheaf)
	}
	if n := c.sheaf.n - 1; n >= 0 {
		s := c.sheaf.list[n]
		c.sheaf.list[n], c.sheaf.n = nil, n
		return s
	}
	return c.s.spare.Get().(*stream)
}

// putSheaf gives the free streams back; c.mu is held.
func (c *serverConn) putSheaf() {
	if c.sheaf != nil {
		c.s.sheaves.Put(c.sheaf)
		c.sheaf = nil
	}
}

// drain takes back a notification that nobody waited for.
func drain(wake chan struct{}) {
	if len(wake) == 0 {
		return
	}
	select {
	case <-wake:
	default:
	}
}

// maxKept bounds the arena that is kept from one request to the next.
const maxKept = 64 << 10

// find returns an open stream; nil when there is none. C.mu is held.
func (c *serverConn) find(id uint32) *stream {
	lo, hi := 0, len(c.streams)
	for lo < hi {
		if m := (lo + hi) / 2; c.streams[m].id < id {
			lo = m + 1
		} else {
			hi = m
		}
	}
	if lo < len(c.streams) && c.streams[lo].id == id {
		return c.streams[lo]
	}
	return nil
}

// how a stream was closed.
const (
	closedWhole  = 1 + iota // both sides had ended
	closedByPeer            // by the client's RST_STREAM
	closedByUs              // by ours: frames that were on their way may still come
)

// maxClosed is of how many closed streams we know how they were closed.
const maxClosed = 128

type closedStream struct {
	id  uint32
	how uint8
}

// closed says how a stream that is not open was closed; 0 when it is not known any more.
func (c *serverConn) closed(id uint32) uint8 {
	if e := c.ring[id/2%maxClosed]; e.id == id {
		return e.how
	}
	return 0
}

// remove takes s out of the open streams; c.mu is held.
func (c *serverConn) remove(s *stream, how uint8) {
	s.closed = true
	c.ring[s.id/2%maxClosed] = closedStream{s.id, how}
	for i := len(c.streams) - 1; i >= 0; i-- {
		if c.streams[i] == s {
			copy(c.streams[i:], c.streams[i+1:])
			c.streams[len(c.streams)-1] = nil
			c.streams = c.streams[:len(c.streams)-1]
			break
		}
	}
	c.queue.remove(s)
}

// abandon ends a stream before its answer has left; c.mu is held. Who serves it finds out.
func (c *serverConn) abandon(s *stream, how uint8, cause error) {
	if s.gone || s.closed {
		return
	}
	s.gone, s.cause = true, cause
	c.remove(s, how)
	s.body.fail(message.ErrBodyTruncated)
	s.ctx.cancel()
	s.pending = nil
	s.notify()
	if !s.owned {
		c.ending = append(c.ending, s)
	}
}

// resetStream tells the client that a stream is over; c.mu is held.
func (c *serverConn) resetStream(s *stream, code ErrCode, cause error) {
	if s.gone || s.closed {
		return
	}
	c.begin()
	c.out = appendReset(c.out, s.id, code)
	c.abandon(s, closedByUs, cause)
}

// notify wakes the goroutine that waits for s.
func (s *stream) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
