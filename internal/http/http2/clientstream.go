package http2

import (
	"context"
	"io"
	"time"

	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/message"
)

// clientStream is one exchange. What is not said otherwise is guarded by the connection's mu.
type clientStream struct {
	c    *ClientConn
	wake chan struct{} // for who waits for the answer
	room chan struct{} // for who waits to send more of the body
	body clientBody
	done <-chan struct{} // of RoundTrip's context; set before the stream is known to others

	id       uint32 // 0 until the head was written
	reused   bool   // the connection had served an exchange before
	unsent   bool   // the origin has certainly not acted
	released bool
	connect  bool   // a tunnel was asked for
	upgrade  bool   // by extended CONNECT
	accept   []byte // the Sec-WebSocket-Accept of an upgrade
	method   message.Method
	status   int   // of the final head
	limit    int64 // when the exchange is over; 0 is never
	bodyWait time.Duration
	err      error // why it broke

	resp    *message.Response // the caller's, until the final head is in it
	early   []*clientInterim
	interim int
	head    bool // the final head is there
	cont    bool // 100 came
	ended   bool // END_STREAM came
	length  int64
	got     int64
	trailer message.Fields
	recvWin recvWindow
	queue   []*clientChunk
	lent    *clientChunk

	sendWin   sendWindow
	blocked   bool // the sender waits on room
	localEnd  bool // END_STREAM was sent
	upload    *clientUpload
	uploadErr error // of the request's body
}

// clientInterim is an answer before the final one.
type clientInterim struct {
	status int
	fields message.Fields
}

// clientChunk holds bytes of answers on their way.
type clientChunk struct {
	n int
	b [32 << 10]byte
}

func (c *Client) newStream(cc *ClientConn) *clientStream {
	s, _ := c.streams.Get().(*clientStream)
	if s == nil {
		s = &clientStream{wake: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	}
	s.c, s.length = cc, -1
	s.body.s = s
	return s
}

// recycle gives the memory back. Nobody else knows s any more.
func (s *clientStream) recycle() {
	if s.upload != nil {
		return // its goroutine may know it for a moment longer
	}
	c := s.c.cl
	for _, ch := range [...]chan struct{}{s.wake, s.room} {
		select {
		case <-ch:
		default:
		}
	}
	s.trailer.Reset()
	trailer, queue := s.trailer, s.queue[:0]
	*s = clientStream{wake: s.wake, room: s.room, trailer: trailer, queue: queue}
	c.streams.Put(s)
}

func (c *Client) newChunk() *clientChunk {
	k, _ := c.chunks.Get().(*clientChunk)
	if k == nil {
		k = &clientChunk{}
	}
	k.n = 0
	return k
}

// breakOff ends the exchange with an error. C.mu is held, as for all that follow unless they say
// otherwise.
func (s *clientStream) breakOff(err error) {
	if s.err == nil {
		s.err = err
	}
	s.limit = 0
	clientWake(s.wake)
	clientWake(s.room)
}

// reset ends the exchange and tells the origin.
func (s *clientStream) reset(code ErrCode, err error) {
	s.breakOff(err)
	s.forget(code)
}

// forget takes the stream off the connection; what still comes on it is let pass.
func (s *clientStream) forget(code ErrCode) {
	c := s.c
	if s.id == 0 || c.streams[s.id] != s {
		return
	}
	delete(c.streams, s.id)
	if c.err == nil {
		c.out = appendReset(c.out, s.id, code)
		c.stray += max(0, s.recvWin.avail)
	}
}

// release ends the exchange for the connection, once.
func (s *clientStream) release() {
	if s.released {
		return
	}
	s.released = true
	c := s.c
	code := Cancel
	if s.ended {
		code = NoError // the answer is whole; the rest of the request is of no use
	}
	s.forget(code)
	for _, k := range s.queue {
		c.cl.chunks.Put(k)
	}
	clear(s.queue)
	s.queue = s.queue[:0]
	if s.lent != nil {
		c.cl.chunks.Put(s.lent)
		s.lent = nil
	}
	c.reserved--
	c.changed = true
	c.endIfDone()
}

// clientReset is a RST_STREAM of the origin.
type clientReset struct{ code ErrCode }

// Error implements error.
func (r *clientReset) Error() string { return "the origin reset the stream: " + r.code.String() }

// wait waits for a wake; the error is that of a context. C.mu is not held.
func (s *clientStream) wait(ctx context.Context, ch chan struct{}) error {
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		if err := ctx.Err(); err != nil {
			return err
		}
		return context.Canceled
	}
}

// awaitHead waits for the final head, and hands interim ones on. C.mu is not held.
func (s *clientStream) awaitHead(ctx context.Context, t *http1.Try) error {
	c := s.c
	c.mu.Lock()
	for {
		switch {
		case len(s.early) > 0:
			in := s.early[0]
			s.early = s.early[1:]
			c.mu.Unlock()
			if t.Inform != nil {
				t.Inform.Inform(in.status, &in.fields)
			}
			c.mu.Lock()
			continue
		case s.err != nil:
			err := s.err
			c.mu.Unlock()
			return err
		case s.head:
			s.limit = 0
			c.mu.Unlock()
			return nil
		}
		c.mu.Unlock()
		if err := s.wait(ctx, s.wake); err != nil {
			return err
		}
		c.mu.Lock()
	}
}

// headLimit is the time by which the final head must be there. While a body is still being
// sent only the caller's own limit counts.
func (s *clientStream) headLimit(t *http1.Try, sending bool) int64 {
	c := s.c.cl
	at := int64(0)
	if !sending {
		at = c.clock.Limit(s.headWait(t))
	}
	if !t.Head.IsZero() {
		if own := c.clock.At(t.Head); at == 0 || own < at {
			at = own
		}
	}
	return at
}

// headWait is the time from the end of the request to the final head.
func (s *clientStream) headWait(t *http1.Try) time.Duration {
	if t.Wait > 0 {
		return t.Wait
	}
	return s.c.cl.cfg.HeadTimeout
}

// begin makes resp what its head says. C.mu is not held.
func (s *clientStream) begin(resp *message.Response) error {
	c := s.c
	c.mu.Lock()
	if s.connect && resp.Status/100 == 2 {
		c.unlock()
		return s.open(resp)
	}
	none := message.NoBody(s.method, resp.Status)
	resp.ContentLength = s.length
	if none || s.ended && len(s.queue) == 0 && s.trailer.Len() == 0 {
		if !none || s.method != message.HEAD && resp.Status != 304 {
			resp.ContentLength = 0
		}
		err := s.err
		c.mu.Unlock()
		s.stopUpload()
		if err != nil && !s.ended {
			return s.fail(http1.PhaseBody, err)
		}
		c.mu.Lock()
		s.release()
		c.flushLocked()
		c.unlock()
		s.recycle()
		return nil
	}
	resp.Trailer = &s.trailer
	s.body.open = true
	resp.Body = &s.body
	c.unlock()
	return nil
}

// clientBody is the body of an answer.
type clientBody struct {
	s    *clientStream
	open bool  // whoever pulls it
	err  error // how it ended: io.EOF when whole
}

// Ready implements message.Prompt.
func (b *clientBody) Ready() bool {
	if b.err != nil {
		return true
	}
	s := b.s
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return len(s.queue) > 0 || s.ended || s.err != nil
}

// Next implements message.Body.
func (b *clientBody) Next(ctx context.Context) ([]byte, error) {
	if b.err != nil {
		return nil, b.err
	}
	if !b.open {
		return nil, http1.ErrClosed
	}
	s := b.s
	data, err := s.next(ctx)
	switch {
	case err == nil:
	case err == io.EOF:
		b.err = io.EOF
	default:
		b.err = clientError(http1.PhaseBody, true, s.reused, err)
		err = b.err
	}
	return data, err
}

// next lends what came, or waits for it. C.mu is not held.
func (s *clientStream) next(ctx context.Context) ([]byte, error) {
	c := s.c
	c.mu.Lock()
	s.giveBack()
	for {
		if len(s.queue) > 0 {
			k := s.queue[0]
			s.queue = s.queue[:copy(s.queue, s.queue[1:])]
			s.lent, s.limit = k, 0
			var err error
			if s.ended && len(s.queue) == 0 && s.err == nil {
				err = io.EOF
			}
			c.flushLocked()
			c.unlock()
			return k.b[:k.n], err
		}
		switch {
		case s.ended && s.err == nil:
			c.unlock()
			return nil, io.EOF
		case s.err != nil:
			err := s.err
			if s.uploadErr != nil {
				err = s.uploadErr
			}
			c.unlock()
			return nil, err
		}
		if !s.connect { // a tunnel may be silent
			s.limit = c.cl.clock.Limit(s.bodyWait)
		}
		c.flushLocked()
		c.unlock()
		if err := s.wait(ctx, s.wake); err != nil {
			return nil, err
		}
		c.mu.Lock()
	}
}

// giveBack returns the chunk that was lent, and its bytes to the window.
func (s *clientStream) giveBack() {
	if s.lent == nil {
		return
	}
	n := s.lent.n
	s.c.cl.chunks.Put(s.lent)
	s.lent = nil
	s.grant(n)
}

// grant lets the origin send n more bytes on the stream.
func (s *clientStream) grant(n int) {
	if n := s.recvWin.give(n); n > 0 && !s.ended && s.err == nil && s.c.err == nil {
		s.c.out = appendWindowUpdate(s.c.out, s.id, n)
	}
}

// Close implements message.Body: it ends the exchange, and the sending of the request's body.
func (b *clientBody) Close(error) {
	if !b.open {
		return
	}
	b.open = false
	if b.err == nil {
		b.err = http1.ErrClosed
	}
	s := b.s
	s.stopUpload()
	c := s.c
	c.mu.Lock()
	s.release()
	c.flushLocked()
	c.unlock()
	s.recycle()
}
