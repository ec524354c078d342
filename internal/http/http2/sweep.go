package http2

import (
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

func (c *serverConn) place() *int { return &c.index }

// late counts a client that was too slow.
func (s *Server) late(conn *message.Conn) {
	if s.slow.Add(1); s.cfg.OnSlow != nil {
		s.cfg.OnSlow(conn)
	}
}

// sweep ends what lasts too long.
func (c *serverConn) sweep(now int64) {
	w, cfg := &c.s.watch, &c.s.cfg
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead != nil {
		return
	}
	if c.wrote != 0 && c.pace.Late(c.peek, cfg.pace(), c.wrote+serverTick.Milliseconds(), now) || c.closing && c.linger != 0 && w.Over(now, c.linger, 4*lingerTime) {
		if !c.closing {
			c.s.late(c.facts)
		}
		reset(c.nc, c.tcp)
		c.kill(errStalled)
		return
	}
	if c.closing || c.doom != nil {
		return
	}
	if s := c.queue.head(); s == nil || len(s.pending) == 0 {
		c.stalled = 0 // who waited is gone
	}
	switch {
	case w.Over(now, c.stalled, c.patience()):
		c.s.late(c.facts)
		c.doom = c.condemn(AbuseStall)
	case c.drain == drainAsked && w.Over(now, c.drainAt, drainWait):
		c.kick()
	case c.waits && (c.partly || !c.first) && w.Over(now, c.since, c.frameTime()):
		c.s.late(c.facts)
		c.doom = faultSlow
	case c.waits && !c.agreed && (w.Over(now, c.heard, cfg.HeaderTimeout) || w.Over(now, c.born, agreeTime)):
		c.s.late(c.facts)
		c.doom = faultNotAgreed
	case c.waits && c.active == 0 && w.Over(now, max(c.since, c.idleAt), cfg.IdleTimeout):
		c.doom = faultIdle
	}
	if c.doom != nil {
		c.kick()
	}
	if c.active == 0 && len(c.parked) > 0 && w.Over(now, c.idleAt, lingerTime) {
		c.dismiss()
	}
	c.sweepStreams(now)
}

// agreeTime is how long the acknowledgement of our SETTINGS may take while other bytes come: on a slow line it
// stands behind a window full of a request's body, 64 KiB at the least rate.
const agreeTime = 5 * time.Minute

// frameTime is how long nothing may come in the middle of a frame. One of a body leaves it to the body's
// own limit, which ends the stream only; the connection ends later, when there is no more to come.
func (c *serverConn) frameTime() time.Duration {
	if c.inData {
		return 2 * c.s.cfg.BodyTimeout
	}
	return c.s.cfg.HeaderTimeout
}

// sweepStreams ends what of single requests lasts too long; c.mu is held.
func (c *serverConn) sweepStreams(now int64) {
	w, cfg := &c.s.watch, &c.s.cfg
	for i := len(c.streams) - 1; i >= 0; i-- {
		s := c.streams[i]
		switch {
		case w.Over(now, s.body.since, s.body.patience()) && !s.tunnel:
			c.s.late(c.facts)
			s.body.slow()
		case w.Over(now, s.stalled, s.patience()) && !s.tunnel:
			c.s.late(c.facts)
			c.resetStream(s, Cancel, errStalled)
			c.kick()
		case w.Over(now, s.touched, cfg.TunnelTimeout):
			c.resetStream(s, Cancel, errSilent)
			c.kick()
		}
	}
}

// The ends that time brings.
var (
	faultSlow = &fault{ProtocolError, false, "a frame or a head did not come in time"}
	faultIdle = &fault{NoError, false, ""}

	faultNotAgreed = &fault{SettingsTimeout, false, "our SETTINGS were not acknowledged in time (section 6.5.3)"}
)

// calm says what a client did too often.
var calm = [numAbuse]fault{
	AbuseReset:        {EnhanceYourCalm, false, "too many streams were reset"},
	AbuseError:        {EnhanceYourCalm, false, "too many streams were in error"},
	AbuseRefused:      {EnhanceYourCalm, false, "too many streams over SETTINGS_MAX_CONCURRENT_STREAMS"},
	AbuseHead:         {EnhanceYourCalm, false, "too many heads over the limit"},
	AbuseContinuation: {EnhanceYourCalm, false, "too many CONTINUATION frames, or a header block over the limit"},
	AbuseSettings:     {EnhanceYourCalm, false, "too many SETTINGS frames"},
	AbusePing:         {EnhanceYourCalm, false, "too many PING frames"},
	AbusePriority:     {EnhanceYourCalm, false, "too many PRIORITY frames"},
	AbuseEmpty:        {EnhanceYourCalm, false, "too many frames without content"},
	AbuseWindow:       {EnhanceYourCalm, false, "too many WINDOW_UPDATE frames"},
	AbuseSmall:        {EnhanceYourCalm, false, "the windows are too small"},
	AbuseStall:        {EnhanceYourCalm, false, "the connection's window stays closed"},
}

// strike counts what a client does too often; not nil when it is over the limit. C.mu is held.
func (c *serverConn) strike(kind Abuse) *fault {
	if now := c.s.watch.Now(); now-c.struckAt > abusePeriod.Milliseconds() {
		c.strikes, c.struckAt = [numAbuse]int32{}, now
	}
	if c.strikes[kind]++; c.strikes[kind] > c.s.calm[kind] {
		return c.condemn(kind)
	}
	return nil
}

// condemn counts a connection that is closed for abuse; c.mu is held.
func (c *serverConn) condemn(kind Abuse) *fault {
	c.s.abuse[kind].Add(1)
	if c.s.cfg.OnAbuse != nil {
		c.s.cfg.OnAbuse(c.facts, kind)
	}
	return &calm[kind]
}

// credit makes up for n strikes; c.mu is held.
func (c *serverConn) credit(kind Abuse, n int32) { c.strikes[kind] = max(0, c.strikes[kind]-n) }

// slow ends a body whose client took too long.
func (b *requestBody) slow() { b.since = 0; b.fail(message.ErrBodySlow) }
