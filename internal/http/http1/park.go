package http1

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/http/deadline"
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
	// parkSoon is the same while more than parkCrowd connections wait with a goroutine: so many
	// new clients at once would leave their stacks behind for minutes.
	parkSoon  = serverTick
	parkCrowd = 256
	// When more than a quarter of those parked ask again within parkAfter, and more than
	// parkRegrets, they were parked too soon. None is for the time of parkCalm.
	parkRegrets = 64
	parkCalm    = 30 * time.Second
)

// parking is what a Server knows of its parked connections.
type parking struct {
	lot  atomic.Pointer[lot] // nil while no connection can be parked
	need chan struct{}       // told that one may be

	total          atomic.Uint64
	parks, regrets atomic.Int64 // since the last pass, and half of before

	// The sweeper's: the time of its pass, the connections that it saw waiting for a request with
	// a goroutine, how many it saw the last time, and until when none is parked soon.
	pass           int64
	waiting, crowd int
	calm           int64
}

// begin begins a pass over all connections.
func (k *parking) begin(now int64) {
	k.pass, k.crowd, k.waiting = now, k.waiting, 0
	parks, regrets := k.parks.Load(), k.regrets.Load()
	if regrets > parkRegrets && regrets > parks/4 {
		k.calm = now + parkCalm.Milliseconds()
	}
	k.parks.Add(-(parks + 1) / 2)
	k.regrets.Add(-(regrets + 1) / 2)
}

// after is how long a connection must have been quiet to be parked, in milliseconds.
func (k *parking) after() int64 {
	if max(k.crowd, k.waiting) > parkCrowd && k.pass >= k.calm {
		return parkSoon.Milliseconds()
	}
	return parkAfter.Milliseconds()
}

// quiet is told by the sweeper of a connection that waits for a request, and may ask it to park.
func (c *serverConn) quiet(p deadline.Phase, at, now int64) {
	s := c.s
	if s.parking.pass != now {
		s.parking.begin(now)
	}
	s.parking.waiting++
	if !c.parks.Load() || s.parking.lot.Load() == nil {
		return
	}
	limit := s.cfg.IdleTimeout
	if p == phaseFresh {
		limit = s.cfg.HeaderTimeout
	}
	if since := at - (limit + serverTick).Milliseconds(); now-since >= s.parking.after() {
		c.rg.Expire(p, at, c.ask)
	}
}

// ask ends the wait so that the connection parks.
func (c *serverConn) ask() {
	c.asked.Store(true)
	c.kickRead()
}

// mayGo says whether the wait that is over was ended by ask. It waits for who ends it.
func (c *serverConn) mayGo() (asked bool) {
	c.rg.Undo(func() { asked = c.asked.Load() })
	return asked
}

// park gives all back that a waiting connection does not need and has its socket watched. When it
// returns true the connection is somebody else's, and c must not be touched any more.
func (c *serverConn) park(ctx context.Context) bool {
	p, at, _ := c.rg.Look()
	if c.s.draining.Load() {
		at = 0 // Drain has missed it
	}
	c.rg.Set(p, at) // it was over for parking only
	lot := c.s.parking.lot.Load()
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
	c.since = c.s.watch.Now()
	c.s.parking.parks.Add(1)
	c.s.parking.total.Add(1)
	c.parked.Store(true)
	_, _, over := c.rg.Look()
	early := over || c.s.draining.Load() || c.s.parking.lot.Load() != lot || ctx.Err() != nil
	if !early && lot.watch(raw, known) || !c.parked.CompareAndSwap(true, false) {
		return true
	}
	if !early {
		c.parks.Store(false) // the system watches no more sockets
	}
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

// regret counts a request that came soon after the connection was parked.
func (c *serverConn) regret() {
	if c.s.watch.Now()-c.since < parkAfter.Milliseconds() {
		c.s.parking.regrets.Add(1)
	}
}

// leave takes the connection out of the lot before its descriptor is closed.
func (c *serverConn) leave() {
	if lot := c.s.parking.lot.Load(); lot != nil && c.fd >= 0 {
		lot.remove(c.fd, c)
	}
}

// mayPark has the connection parked when it is quiet.
func (c *serverConn) mayPark(k Keeper) {
	c.keeper = k
	if c.raw != nil {
		c.parks.Store(true)
		select {
		case c.s.parking.need <- struct{}{}:
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
	case <-s.parking.need:
	}
	lot, err := newLot()
	if err != nil {
		return // connections keep their goroutines
	}
	s.parking.lot.Store(lot)
	stop := context.AfterFunc(ctx, lot.close)
	lot.run()
	stop()
	lot.close()
	s.parking.lot.Store(nil)
	s.wakeAll()
}

// wakeAll gives each parked connection a goroutine, under one lock so that none is missed: there
// is no sweeper any more that would find it.
func (s *Server) wakeAll() {
	s.watch.Some(math.MaxInt, func(c *serverConn) bool { c.wake(); return true })
}
