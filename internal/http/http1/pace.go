package http1

import "github.com/relais-edge/relais/internal/http/deadline"

// lateWrite says whether a write, or a tunnel's silence, has lasted too long. Milliseconds.
func (c *serverConn) lateWrite(p deadline.Phase, at, now int64) bool {
	if p != phaseWrite {
		return at < now
	}
	cfg := &c.s.cfg
	pace := deadline.Pace{Limit: cfg.WriteTimeout, Rate: cfg.WriteRate}
	return c.pace.Late(c.peek, pace, at-cfg.WriteTimeout.Milliseconds(), now)
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
