package http3

import (
	"time"

	"github.com/relais-edge/relais/internal/http/deadline"
)

// pace is how fast a client is: the bytes that it brought or took, and the milliseconds that were
// spent waiting for them.
type pace struct{ bytes, waited int64 }

// maxEarned bounds the seconds that a client can earn by speed; only so many can be spent.
const maxEarned = 1 << 30

// patience is how long to wait for more: limit at most, and less for a client that has been slower
// than rate, in bytes a second, over all the time that was spent waiting for it; 0 when it has used up
// what it had. A rate of 0 is no limit.
func (p *pace) patience(limit time.Duration, rate int64) time.Duration {
	if rate <= 0 {
		return limit
	}
	earned := time.Duration(min(p.bytes/rate, maxEarned)) * time.Second
	left := limit + earned - time.Duration(p.waited)*time.Millisecond
	return max(0, min(left, limit))
}

// answerPatience is patience for an answer, of which so many bytes have left. A client may open its
// windows again only when it has read half of what they held, which is no more than half of those.
func (p *pace) answerPatience(limit time.Duration, rate int64) time.Duration {
	if rate <= 0 {
		return limit
	}
	earned := time.Duration(min(p.bytes/rate, maxEarned)) * time.Second
	left := limit + earned - time.Duration(p.waited)*time.Millisecond
	return max(0, min(left, deadline.Pace{Limit: limit, Rate: rate}.Silence(p.bytes/2)))
}

// patience is how long the client may send nothing of the body; b.mu is held. Where both sides talk
// nobody says who is to go on, so that only the single wait is bounded: as the silence of a tunnel,
// once the origin has shown with its answer that it talks as well.
func (b *requestBody) patience() time.Duration {
	cfg := &b.x.c.s.cfg
	switch answered := b.x.begun.Load(); {
	case b.talks && answered:
		return cfg.TunnelTimeout
	case b.talks || answered:
		return cfg.BodyTimeout
	}
	return b.x.sent.patience(cfg.BodyTimeout, cfg.BodyRate)
}

// relax gives a wait for the body that is under way the patience that it has since the answer began.
func (b *requestBody) relax() {
	x := b.x
	if !x.begun.Load() {
		return
	}
	limit := x.c.s.cfg.BodyTimeout
	if b.talks {
		limit = x.c.s.cfg.TunnelTimeout
	}
	if by := x.readBy.Load(); by > 0 {
		x.readBy.CompareAndSwap(by, x.c.s.watch.Limit(limit)) // if not, the wait has just ended
	}
}

// shedLinger is between GOAWAY and the end of a connection that is shed.
const shedLinger = 2 * tick

// Shed ends a connection that is in nobody's way: of some that are idle, the one that has been for
// longest; where none is, one that has been slow to send its first head. An idle one is told with
// GOAWAY which requests were not served, so that a client may send them again elsewhere.
func (s *Server) Shed() deadline.Shed {
	var idle, silent *serverConn
	var idleAt, silentAt int64
	found := 0
	now := s.watch.Now()
	s.watch.Some(deadline.ShedLook, func(c *serverConn) bool {
		switch state, at := c.sheddable(now); {
		case state == deadline.ShedIdle:
			if found++; idle == nil || at < idleAt {
				idle, idleAt = c, at
			}
		case state == deadline.ShedSilent && (silent == nil || at < silentAt):
			silent, silentAt = c, at
		}
		return found < deadline.ShedFound
	})
	switch {
	case idle != nil && idle.shed(deadline.ShedIdle):
		return deadline.ShedIdle
	case silent != nil && silent.shed(deadline.ShedSilent):
		return deadline.ShedSilent
	}
	return deadline.ShedNothing
}

// sheddable says whether the connection could go, and since when it is as it is.
func (c *serverConn) sheddable(now int64) (state deadline.Shed, since int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sheddable1(now), c.used.Load()
}

// sheddable1 is sheddable with c.mu held.
func (c *serverConn) sheddable1(now int64) deadline.Shed {
	switch {
	case c.leaving != staying:
	case c.heard.Load():
		if c.quiet() {
			return deadline.ShedIdle
		}
	case now-c.used.Load() > deadline.ShedYoung.Milliseconds():
		return deadline.ShedSilent
	}
	return deadline.ShedNothing
}

// shed ends the connection if it still is in that state.
func (c *serverConn) shed(state deadline.Shed) bool {
	now := c.s.watch.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sheddable1(now) != state {
		return false
	}
	c.leaving, c.since, c.linger = leftNow, now, shedLinger.Milliseconds()
	c.sendGoAway(c.next)
	if state == deadline.ShedSilent {
		go func() { _ = c.qc.CloseWithError(codeNone, "") }() // it waits for the last packet to leave
	}
	return true
}
