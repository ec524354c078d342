package http2

import "time"

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
// talk nobody says who is to go on, so that only the single wait is bounded.
func (b *requestBody) patience() time.Duration {
	cfg := &b.s.c.s.cfg
	if b.talks || b.s.answered {
		return cfg.BodyTimeout
	}
	return patience(cfg.BodyTimeout, b.total, cfg.BodyRate, b.waited)
}

// patience is how long the window of an answer may stay closed; c.mu is held.
func (s *stream) patience() time.Duration {
	cfg := &s.c.s.cfg
	return patience(cfg.WriteTimeout, s.outcome.Body, cfg.WriteRate, s.waited)
}

// patience is how long the connection's window may stay closed while answers wait; c.mu is held.
func (c *serverConn) patience() time.Duration {
	cfg := &c.s.cfg
	return patience(cfg.WriteTimeout, c.paid, cfg.WriteRate, c.waited)
}

// ended adds the wait that began at since, which is 0 where there was none, to sum, and ends it.
func (c *serverConn) ended(since, sum *int64) {
	if *since != 0 {
		*sum += c.s.watch.Now() - *since
		*since = 0
	}
}

// Shed is what Server.Shed has ended.
type Shed uint8

// What can be shed, in the order in which it is.
const (
	ShedNothing Shed = iota
	ShedIdle         // a connection between requests
	ShedSilent       // one on which no whole request has come yet
)

// How many connections Shed looks at, and how many that could go are enough to choose from.
const (
	shedLook  = 1024
	shedFound = 32
	// shedYoung spares a connection that is waited for, for so short a time, for its first request.
	shedYoung = time.Second
)

// Shed ends a connection that is in nobody's way: of some that are idle, the one that has been
// for longest; where none is, one that has been slow to send its first request. It goes in good
// order: GOAWAY says that a request that comes at that very moment was not looked at.
func (s *Server) Shed() Shed {
	var idle, silent victim
	found := 0
	now := s.watch.Now()
	s.watch.Some(shedLook, func(c *serverConn) bool {
		switch what, since := c.look(); {
		case what == ShedIdle:
			found++
			idle.older(c, since)
		case what == ShedSilent && now-since > shedYoung.Milliseconds():
			silent.older(c, since)
		}
		return found < shedFound
	})
	switch {
	case idle.end(ShedIdle):
		return ShedIdle
	case silent.end(ShedSilent):
		return ShedSilent
	}
	return ShedNothing
}

// look says what the connection could be shed as, and since when it could.
func (c *serverConn) look() (what Shed, since int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sheddable()
}

// sheddable is look; c.mu is held.
func (c *serverConn) sheddable() (what Shed, since int64) {
	switch {
	case c.dead != nil || c.closing || c.doom != nil || !c.waits || c.active > 0:
		return ShedNothing, 0
	case c.served == 0:
		return ShedSilent, c.born
	case c.partly:
		return ShedNothing, 0
	}
	return ShedIdle, max(c.since, c.idleAt)
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
func (v *victim) end(what Shed) bool {
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
