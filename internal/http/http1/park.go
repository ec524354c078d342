package http1

import (
	"context"
	"time"
)

// Keeper is who accepted a connection, and keeps its place while it has no goroutine.
type Keeper interface {
	// Resume has serve run in a goroutine of its own, with the context that the connection was
	// given to Serve with. It is told when a parked connection is needed again; it must not
	// wait, nor call the Server.
	Resume(serve func(context.Context))
	// Closed is told once, when the connection has ended.
	Closed()
}

// A connection that waits for its next request holds a goroutine, and its stack is most of what
// it costs. So one that is quiet is parked: its goroutine ends, the kernel watches its socket
// (lot), and whoever needs the connection again wakes it: its client, a limit of time, Drain,
// Shed, or the end of its context.
//
// The way there: the sweeper ends the wait, as for a limit of time that is over, but with
// serverConn.asked set; the goroutine then sets serverConn.parked, which hands the connection
// to whoever takes parked away, looks again whether somebody came too early to see that, and
// has the socket watched. What has come until then makes the socket ready at once.
const (
	// parkAfter is how long a connection has been quiet when it is parked.
	parkAfter = time.Second
	// parkSoon is the same while more than parkCrowd connections wait with a goroutine.
	parkSoon  = 2 * serverTick
	parkCrowd = 1024
)

// quiet is told by the sweeper of a connection that waits for a request, and may ask it to park.
func (c *serverConn) quiet(p phase, at, now int64) {
	s := c.s
	if s.pass != now {
		s.pass, s.crowd, s.waiting = now, s.waiting, 0
	}
	s.waiting++
	if !c.parks || s.lot.Load() == nil {
		return
	}
	after, limit := parkAfter, s.cfg.IdleTimeout
	if s.crowd > parkCrowd {
		after = parkSoon
	}
	if p == phaseFresh {
		limit = s.cfg.HeaderTimeout
	}
	if since := at - (limit + serverTick).Milliseconds(); now-since >= after.Milliseconds() {
		c.rg.expire(p, at, c.ask)
	}
}

// ask ends the wait so that the connection parks.
func (c *serverConn) ask() {
	c.asked.Store(true)
	c.kickRead()
}

// park gives all back that a waiting connection does not need and has its socket watched. When it
// returns true the connection is somebody else's, and c must not be touched any more.
func (c *serverConn) park(ctx context.Context) bool {
	p, at, _ := c.rg.look()
	if c.s.draining.Load() {
		at = 0 // Drain has missed it
	}
	c.rg.set(p, at) // it was over for parking only
	lot := c.s.lot.Load()
	if lot == nil {
		return false
	}
	fd, known := c.fd, c.fd >= 0
	if !known {
		if c.raw.Control(func(n uintptr) { fd = int(n) }) != nil {
			return false
		}
		c.fd = fd
	}
	raw := c.raw
	lot.put(fd, c)
	cancel, done := c.cancel, c.done
	c.cancel, c.done = nil, nil
	c.gearDown()
	c.parked.Store(true)
	_, _, over := c.rg.look()
	early := over || c.s.draining.Load() || c.s.lot.Load() != lot || ctx.Err() != nil
	if !early && lot.watch(raw, known) || !c.parked.CompareAndSwap(true, false) {
		return true
	}
	c.parks = early // else the system watches no more sockets
	c.cancel, c.done = cancel, done
	c.gearUp()
	return false
}

// wake gives a parked connection a goroutine; false when it has one.
func (c *serverConn) wake() bool {
	if !c.parked.CompareAndSwap(true, false) {
		return false
	}
	c.keeper.Resume(c.resume)
	return true
}

// resume goes on where park has ended.
func (c *serverConn) resume(ctx context.Context) {
	c.woken = true
	c.run(ctx)
}

// leave takes the connection out of the lot before its descriptor is closed.
func (c *serverConn) leave() {
	if lot := c.s.lot.Load(); lot != nil && c.fd >= 0 {
		lot.remove(c.fd, c)
	}
}

// mayPark has the connection parked when it is quiet.
func (c *serverConn) mayPark(k Keeper) {
	c.keeper, c.parks = k, c.raw != nil
	if c.parks {
		select {
		case c.s.parking <- struct{}{}:
		default: // it was said before
		}
	}
}

// ended says whether the context of a parked connection is over.
func (c *serverConn) ended() bool {
	select {
	case <-c.over:
		return true
	default:
		return false
	}
}

// watchParked wakes parked connections that have something to read until ctx ends, and then
// all. It begins with the first connection that may park.
func (s *Server) watchParked(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-s.parking:
	}
	lot, err := newLot()
	if err != nil {
		return // connections keep their goroutines
	}
	s.lot.Store(lot)
	stop := context.AfterFunc(ctx, lot.close)
	lot.run()
	stop()
	lot.close()
	s.lot.Store(nil)
	s.wakeAll()
}

// wakeAll gives each parked connection a goroutine, under one lock so that none is missed: there
// is no sweeper any more that would find it.
func (s *Server) wakeAll() {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	for _, e := range s.watch.list {
		e.(*serverConn).wake()
	}
}
