package http2

import (
	"time"

	"github.com/relais-edge/relais/internal/http/deadline"
)

// patience is how long a client may be waited for now: limit, and less when all the waits before
// have taken longer than limit and n bytes at rate a second. Waited is in milliseconds.
func patience(limit time.Duration, n, rate, waited int64) time.Duration {
	if rate <= 0 {
		return limit
	}
	earned := time.Duration(min(n/rate, maxEarned)) * time.Second
	return max(0, min(limit, limit+earned-time.Duration(waited)*time.Millisecond))
}

// maxEarned bounds the seconds that a client can earn by speed; only so many can be spent.
const maxEarned = 1 << 30

// patience is how long the client may send nothing of the body; c.mu is held. Where both sides
// talk nobody says who is to go on, so that only the single wait is bounded: as the silence of a
// tunnel, once the origin has shown with its answer that it talks as well.
func (b *requestBody) patience() time.Duration {
	cfg := &b.s.c.s.cfg
	switch {
	case b.talks && b.s.answered:
		return cfg.TunnelTimeout
	case b.talks || b.s.answered:
		return cfg.BodyTimeout
	}
	return patience(cfg.BodyTimeout, b.total, cfg.BodyRate, b.waited)
}

// patience is how long the window of an answer may stay closed; c.mu is held.
func (s *stream) patience() time.Duration { return s.c.s.cfg.windowPatience(s.outcome.Body, s.waited) }

// patience is how long the connection's window may stay closed while answers wait; c.mu is held.
func (c *serverConn) patience() time.Duration { return c.s.cfg.windowPatience(c.paid, c.waited) }

// windowPatience is patience for a window that let n bytes through. A client may open it again only
// when it has read half of it, which is no more than half of those.
func (cfg *ServerConfig) windowPatience(n, waited int64) time.Duration {
	if cfg.WriteRate <= 0 {
		return cfg.WriteTimeout
	}
	earned := time.Duration(min(n/cfg.WriteRate, maxEarned)) * time.Second
	left := cfg.WriteTimeout + earned - time.Duration(waited)*time.Millisecond
	return max(0, min(left, cfg.pace().Silence(n/2)))
}

// pace is the least speed at which answers are taken.
func (cfg *ServerConfig) pace() deadline.Pace {
	return deadline.Pace{Limit: cfg.WriteTimeout, Rate: cfg.WriteRate}
}

// ended adds the wait that began at since, which is 0 where there was none, to sum, and ends it.
func (c *serverConn) ended(since, sum *int64) {
	if *since != 0 {
		*sum += c.s.watch.Now() - *since
		*since = 0
	}
}

// Shed ends a connection that is in nobody's way: of some that are idle, the one that has been
// for longest; where none is, one that has been slow to send its first request. It goes in good
// order: GOAWAY says that a request that comes at that very moment was not looked at.
func (s *Server) Shed() deadline.Shed {
	var idle, silent victim
	found := 0
	now := s.watch.Now()
	s.watch.Some(deadline.ShedLook, func(c *serverConn) bool {
		switch what, since := c.look(); {
		case what == deadline.ShedIdle:
			found++
			idle.older(c, since)
		case what == deadline.ShedSilent && now-since > deadline.ShedYoung.Milliseconds():
			silent.older(c, since)
		}
		return found < deadline.ShedFound
	})
	switch {
	case idle.end(deadline.ShedIdle):
		return deadline.ShedIdle
	case silent.end(deadline.ShedSilent):
		return deadline.ShedSilent
	}
	return deadline.ShedNothing
}

// look says what the connection could be shed as, and since when it could.
func (c *serverConn) look() (what deadline.Shed, since int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sheddable()
}

// sheddable is look; c.mu is held.
func (c *serverConn) sheddable() (what deadline.Shed, since int64) {
	switch {
	case c.dead != nil || c.closing || c.doom != nil || !c.waits || c.active > 0:
		return deadline.ShedNothing, 0
	case c.served == 0:
		return deadline.ShedSilent, c.born
	case c.partly:
		return deadline.ShedNothing, 0
	}
	return deadline.ShedIdle, max(c.since, c.idleAt)
}

// victim is the connection that has been idle for longest.
type victim struct {
	c     *serverConn
	since int64
}

func (v *victim) older(c *serverConn, since int64) {
	if v.c == nil || since < v.since {
		*v = victim{c, since}
	}
}

// end ends the connection, if it is still what it was.
func (v *victim) end(what deadline.Shed) bool {
	if v.c == nil {
		return false
	}
	c := v.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if now, _ := c.sheddable(); now != what {
		return false
	}
	c.doom = faultIdle
	c.kick()
	return true
}
