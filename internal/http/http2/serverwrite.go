package http2

import (
	"context"

	"github.com/relais-edge/relais/internal/http/hpack"
)

func hpackStatus(b []byte, status int) []byte { return hpack.AppendStatus(b, status) }

// begin sees to memory for c.out; c.mu is held.
func (c *serverConn) begin() {
	if c.obuf == nil {
		c.obuf = c.s.pool.get(sizeOut)
		c.out = c.obuf.b[:0]
	}
}

// blocked says whether nothing of what s has to send may be sent; it then waits for its
// window. C.mu is held.
func (s *stream) blocked() bool {
	if len(s.pending) == 0 || s.window > 0 {
		return false
	}
	if s.stalled == 0 {
		s.stalled = s.c.s.watch.Now()
	}
	return true
}

// opened has a stream go on that waited for its window; c.mu is held.
func (c *serverConn) opened(s *stream) {
	if s.window <= 0 || len(s.pending) == 0 {
		return
	}
	if s.window.room(smallFrame) >= min(smallFrame, len(s.pending)) {
		s.c.ended(&s.stalled, &s.waited) // less is no progress
	}
	if !s.queued {
		c.queue.add(s)
	}
}

// smallFrame is the size under which DATA that a window cut short is counted.
const smallFrame = 256

// compose appends DATA of the streams that may send, in the order of their priorities, until
// one write is full; c.mu is held.
func (c *serverConn) compose() {
	for len(c.out) < maxOut {
		s := c.queue.head()
		if s == nil || len(s.pending) > 0 && c.window <= 0 {
			break
		}
		c.begin()
		n := min(c.window.room(s.window.room(len(s.pending))), minMaxFrame)
		whole := n == len(s.pending)
		end := whole && s.final && (s.last == nil || s.last.Len() == 0)
		if n > 0 || end {
			c.out = appendData(c.out, s.id, s.pending[:n], end)
		}
		c.spend(s, n)
		s.pending = s.pending[n:]
		c.credit(AbuseWindow, 4)
		if !whole && n > 0 && n < smallFrame {
			if flt := c.strike(AbuseSmall); flt != nil && c.doom == nil {
				c.doom = flt
				c.kick()
			}
		}
		if s.touched != 0 {
			s.touched = c.s.watch.Now()
		}
		c.after(s, whole)
	}
	switch s := c.queue.head(); {
	case s == nil:
		c.paid, c.waited = 0, 0
	case len(s.pending) > 0 && c.window <= 0 && c.stalled == 0:
		c.stalled = c.s.watch.Now()
	}
}

// spend takes n bytes of an answer off the windows; c.mu is held.
func (c *serverConn) spend(s *stream, n int) {
	s.window -= sendWindow(n)
	c.window -= sendWindow(n)
	s.outcome.Body += int64(n)
	c.paid += int64(n)
	for i := range c.back {
		c.back[i] = min(c.back[i]+int64(n), maxBack)
	}
}

// maxBack bounds the bytes sent of which the client may still open the windows for nothing.
const maxBack = 4 << 20

// after puts a stream that has sent in its new place; c.mu is held.
func (c *serverConn) after(s *stream, whole bool) {
	switch {
	case whole:
		c.queue.remove(s)
		if !s.final {
			s.notify()
			return
		}
		if s.last != nil && s.last.Len() > 0 {
			b, at := c.beginBlock(0)
			c.endBlock(s, c.fields(b, s.last), at, true)
		}
		c.finish(s)
	case s.blocked():
		c.queue.remove(s)
	case s.incremental && s.next != nil:
		c.queue.remove(s)
		c.queue.add(s)
	}
}

// finish ends a stream whose last frame is in c.out; c.mu is held.
func (c *serverConn) finish(s *stream) {
	s.finished = true
	c.ending = append(c.ending, s)
	how := uint8(closedWhole)
	if s.body.open && s.touched != 0 && s.owned { // a tunnel that was opened, not one refused
		return // the client may still send
	}
	if s.body.open {
		// The rest of the request is of no use (RFC 9113 section 8.1).
		how = closedByUs
		c.out = appendReset(c.out, s.id, NoError)
	}
	c.remove(s, how)
}

// more says whether there is something to write or to end; c.mu is held.
func (c *serverConn) more() bool {
	if len(c.out) > 0 || len(c.ending) > 0 {
		return true
	}
	s := c.queue.head()
	return s != nil && c.dead == nil && (c.window > 0 || len(s.pending) == 0)
}

// flush writes what waits, unless somebody is writing already: who is goes on with it. One
// write is done here; a worker does what is beyond. C.mu is held, and released meanwhile.
func (c *serverConn) flush() {
	if c.writing || !c.more() {
		return
	}
	c.writing = true
	c.writeOnce()
	if c.more() && c.workers > 0 {
		// Whoever called has other things to do.
		c.hireWriter()
		return
	}
	c.wroteAll()
}

// hireWriter has a worker write on; c.mu is held, and so is the writer's role.
func (c *serverConn) hireWriter() {
	if !c.wake(dutyWrite) {
		c.workers++
		c.s.workers.give(job{c, context.Background(), dutyHelp})
	}
}

// writeAll is a worker that writes; c.mu is held, and released meanwhile.
func (c *serverConn) writeAll() {
	for c.more() {
		c.writeOnce()
	}
	c.wroteAll()
}

// wroteAll gives the writer's role up; c.mu is held.
func (c *serverConn) wroteAll() {
	c.writing = false
	if c.obuf != nil && len(c.out) == 0 {
		c.s.pool.put(c.obuf)
		c.obuf, c.out = nil, nil
	}
	c.signal()
	if c.drain == drainLast && c.active == 0 {
		c.kick()
	}
}

// writeOnce writes once, and ends the requests that were answered whole by it. C.mu is held,
// and released meanwhile.
func (c *serverConn) writeOnce() {
	if c.dead == nil {
		c.compose()
	}
	out, buf, ending := c.out, c.obuf, c.ending
	c.out, c.obuf, c.ending, c.spare = nil, nil, c.spare[:0], nil
	err := c.dead
	if err == nil && len(out) > 0 {
		c.wrote = c.s.watch.Now()
	}
	c.mu.Unlock()
	if err == nil && len(out) > 0 {
		_, err = c.nc.Write(out)
		c.kept.Sent(c.tcp, len(out))
	}
	for _, s := range ending {
		if !s.owned {
			if s.outcome.Err = s.cause; s.cause == nil {
				s.outcome.Err = err
			}
			c.tell(s)
		}
	}
	c.mu.Lock()
	c.wrote = 0
	if buf != nil {
		c.s.pool.put(buf)
	}
	for i, s := range ending {
		ending[i] = nil
		if s.owned {
			s.written, s.cause = true, err
			s.notify()
			continue
		}
		c.recycle(s)
	}
	c.spare = ending[:0]
	if err != nil {
		c.kill(err)
	}
	c.signal()
}
