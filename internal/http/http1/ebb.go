package http1

import (
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/http/deadline"
)

// ebb is the end of idle connections one after another. A client that sends its next request just as
// its connection is closed sees a failure, though nothing was lost; so who was busy lately is given the
// time to send one, whose answer says that the connection ends, and who has been silent for longest goes
// first.
type ebb struct {
	from, until atomic.Int64 // 0 when there is none
}

// Ebb is Drain, but idle connections end one after another within over.
func (s *Server) Ebb(over time.Duration) {
	if over <= 0 {
		s.Drain()
		return
	}
	s.retiring.Store(true)
	now := s.watch.Now()
	s.ebb.until.Store(now + over.Milliseconds())
	s.ebb.from.Store(now)
}

// ebbs says whether it is the turn of a connection that waits for a request until the time at.
func (c *serverConn) ebbs(p deadline.Phase, at, now int64) bool {
	s := c.s
	if s.draining.Load() {
		return true
	}
	from := s.ebb.from.Load()
	if from == 0 {
		return false
	}
	until := s.ebb.until.Load()
	if now >= until {
		return true
	}
	most := s.cfg.IdleTimeout
	if p == phaseFresh {
		most = s.cfg.HeaderTimeout
	}
	// From the idle timeout down to nothing; a fraction by its place keeps those from going
	// together that fell silent together.
	left := (most + serverTick).Milliseconds()
	silent := now - (at - left)
	silent += silent * int64(uint32(c.index)*ebbMix>>24) >> 8
	return silent >= left*(until-now)/(until-from)
}

// ebbMix spreads neighbours (Knuth's multiplicative hash).
const ebbMix = 2654435761
