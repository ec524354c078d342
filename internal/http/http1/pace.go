package http1

import "github.com/relais-edge/relais/internal/http/deadline"

// pace is how fast a client takes the piece of an answer that is being written. What the
// kernel has taken is not what the client has: its buffer may hold minutes of a slow line. So
// the bytes count that the client has acknowledged.
type pace struct {
	at    int64 // of the phase that is watched
	base  int64 // bytes acknowledged when the watch began
	last  int64 // when it was looked at last,
	moved int64 // the time at which that had grown,
	seen  int64 // and the time of that look
}

// paceTick is how often the pace of a slow client is looked at, in milliseconds.
const paceTick = 1000

// lateWrite says whether a write, or a tunnel's silence, has lasted too long. Milliseconds.
func (c *serverConn) lateWrite(p deadline.Phase, at, now int64) bool {
	rate := c.s.cfg.WriteRate
	if p != phaseWrite || rate <= 0 {
		return at < now
	}
	w := &c.pace
	timeout := c.s.cfg.WriteTimeout.Milliseconds()
	if w.at != at {
		if now-(at-timeout) < min(paceTick, timeout) {
			return false // most writes end at once
		}
		n, ok := c.acknowledged()
		if !ok {
			return at < now
		}
		*w = pace{at: at, base: n, last: n, moved: now, seen: now}
		return false
	}
	if at >= now || now-w.seen < min(paceTick, timeout) {
		return false
	}
	n, ok := c.acknowledged()
	if !ok {
		return true
	}
	w.seen = now
	if n > w.last {
		w.last, w.moved = n, now
	}
	return n-w.base <= rate*(now-at)/1000 || now-w.moved >= timeout
}

// acknowledged is the number of bytes that the client's side has confirmed; false where that
// cannot be known.
func (c *serverConn) acknowledged() (n int64, ok bool) {
	if c.peek == nil {
		return 0, false
	}
	err := c.peek.Control(func(fd uintptr) { n, ok = bytesAcked(fd) })
	return n, ok && err == nil
}

// Shed ends a connection that is in nobody's way: of some that are idle, the one that has been
// for longest; where none is, one that has been slow to send its first head. A request that
// comes at that very moment is answered.
func (s *Server) Shed() deadline.Shed {
	var idle, silent victim
	found := 0
	now := s.watch.Now()
	s.watch.Some(deadline.ShedLook, func(c *serverConn) bool {
		switch p, at, over := c.rg.Look(); {
		case over:
		case p == phaseIdle:
			found++
			idle.older(c, p, at)
		case (p == phaseFresh || p == phaseHead) && now-(at-s.cfg.HeaderTimeout.Milliseconds()) > deadline.ShedYoung.Milliseconds():
			silent.older(c, p, at)
		}
		return found < deadline.ShedFound
	})
	switch {
	case idle.end():
		return deadline.ShedIdle
	case silent.end():
		return deadline.ShedSilent
	}
	return deadline.ShedNothing
}

// victim is the connection whose limit is nearest.
type victim struct {
	c  *serverConn
	p  deadline.Phase
	at int64
}

func (v *victim) older(c *serverConn, p deadline.Phase, at int64) {
	if v.c == nil || at < v.at {
		*v = victim{c, p, at}
	}
}

func (v *victim) end() bool { return v.c != nil && v.c.rg.Expire(v.p, v.at, v.c.kickRead) }
