package http2

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/relais-edge/relais/internal/http/deadline"
	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/message"
)

// serverConn is one connection of a client.
//
// Its goroutines are workers. One holds the reader's role: it reads, handles frames and calls
// the Handler. When a handler says that it may block, its goroutine gives the role to another
// worker and keeps the request. Writing is a role too, c.writing: who has something to write
// and finds it taken leaves that to the one who writes.
type serverConn struct {
	s     *Server
	nc    net.Conn
	tcp   *net.TCPConn    // under nc; nil when there is none
	peek  syscall.RawConn // of tcp; nil when nothing is to be learned from it
	pace  deadline.Watch  // of the write under way; the sweeper's
	kept  deadline.Room   // what the kernel may keep; the writer's
	facts *message.Conn
	index int

	// Of the reader.
	in     *buffer
	full   bool // the last read filled its buffer
	began  bool // the preface has come
	first  bool // and a SETTINGS frame
	dec    *hpack.Decoder
	reader headReader
	open   frameHead // HEADERS whose block goes on; no stream when there is none
	block  []byte    // what of it has come
	parts  int32     // CONTINUATION frames of it

	over chan struct{} // closed when the last worker has gone
	room chan struct{} // the writer has made room, or has ended

	mu      sync.Mutex // of what follows
	workers int
	parked  []*worker // that wait
	dead    error     // why nothing is written any more
	closing bool      // nothing is read any more

	peer    settings
	maxID   uint32
	streams []*stream // open ones, by id
	active  int       // requests that have not ended
	served  int
	ring    [maxClosed]closedStream
	early   [maxEarly]earlyPriority // of streams that are not open yet
	recv    recvWindow

	enc     *hpack.Encoder
	window  sendWindow
	queue   queue
	writing bool
	out     []byte    // frames that are not written yet
	obuf    *buffer   // out's memory
	ending  []*stream // whose last frame is in out
	sheaf   *sheaf    // streams that are free; nil between two batches
	spare   []*stream // memory for ending

	kicked   bool     // the reader's wait was cut short
	waits    bool     // the reader waits for bytes
	since    int64    // when it began, or when a head or a frame began to come
	partly   bool     // part of a head or of a frame is there
	wrote    int64    // when the write under way began
	stalled  int64    // since when the client's window is closed while answers wait
	waited   int64    // milliseconds that it was closed before, since an answer waits,
	paid     int64    // and the bytes sent in that time
	back     [2]int64 // bytes sent for which the client has not opened the connection's window, and streams', again
	born     int64
	heard    int64 // when bytes came last
	inData   bool  // the frame that has not come whole is one of DATA, of which the rest is awaited
	agreed   bool  // our SETTINGS were acknowledged
	idleAt   int64 // when the last request ended
	drain    drainStep
	drainAt  int64
	last     uint32 // the last request that is answered, once drain is drainLast
	linger   int64  // until when we wait for the client to close
	doom     *fault // what the sweeper found
	strikes  [numAbuse]int32
	struckAt int64
}

// drainStep is how far the end in good order has come (RFC 9113 section 6.8).
type drainStep uint8

const (
	drainNot   drainStep = iota
	drainAsked           // GOAWAY without a last request, and a PING
	drainLast            // GOAWAY with the last request
)

// duty is what a worker is to do.
type duty uint8

const (
	dutyLead  duty = iota
	dutyWrite      // until nothing is left to write
	dutyHelp       // the same, and nothing after it
	dutyQuit
)

// maxParked is how many workers of a connection may wait for work.
const maxParked = 8

// hello sends our settings.
func (c *serverConn) hello() {
	cfg := &c.s.cfg
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begin()
	c.out = appendSettings(c.out,
		setting{settingMaxStreams, uint32(cfg.Streams)},
		setting{settingInitialWindow, uint32(cfg.StreamWindow)},
		setting{settingMaxHeaderList, uint32(cfg.Limits.HeadBytes)},
		setting{settingConnectProtocol, 1},
		setting{settingNoPriorities, 1},
	)
	if n := cfg.ConnWindow - initialWindow; n > 0 {
		c.out = appendWindowUpdate(c.out, 0, n)
	}
	c.flush()
}

// work does duties until the connection is over or nobody needs another worker.
func (c *serverConn) work(ctx context.Context, d duty, w *worker) {
	for {
		switch d {
		case dutyLead:
			c.lead(ctx)
		case dutyWrite, dutyHelp:
			c.mu.Lock()
			c.writeAll()
			c.mu.Unlock()
		}
		c.mu.Lock()
		if d >= dutyHelp || c.closing || len(c.parked) >= maxParked {
			c.leave()
			c.mu.Unlock()
			return
		}
		c.parked = append(c.parked, w)
		c.mu.Unlock()
		d = (<-w.jobs).d
	}
}

// leave ends a worker; c.mu is held. The last one ends what is left.
func (c *serverConn) leave() {
	if c.workers--; c.workers > 0 {
		return
	}
	for len(c.ending) > 0 {
		c.writeOnce()
	}
	c.putSheaf()
	if c.obuf != nil {
		c.s.pool.put(c.obuf)
		c.obuf, c.out = nil, nil
	}
	close(c.over)
}

// hire has another worker do d; c.mu is held.
func (c *serverConn) hire(ctx context.Context, d duty) {
	if !c.wake(d) {
		c.workers++
		c.s.workers.give(job{c, ctx, d})
	}
}

// wake has a worker of the connection do d, if one waits; c.mu is held.
func (c *serverConn) wake(d duty) bool {
	n := len(c.parked) - 1
	if n < 0 {
		return false
	}
	w := c.parked[n]
	c.parked[n], c.parked = nil, c.parked[:n]
	w.jobs <- job{d: d}
	return true
}

// dismiss sends the workers home that wait; c.mu is held.
func (c *serverConn) dismiss() {
	for _, w := range c.parked {
		w.jobs <- job{d: dutyQuit}
	}
	c.parked = c.parked[:0]
}

// lead reads until the role is given away or the connection is over.
func (c *serverConn) lead(ctx context.Context) {
	c.mu.Lock()
	for {
		s, flt := c.frames()
		switch {
		case flt != nil:
			c.refuseAll(flt)
			c.mu.Unlock()
			c.shut()
			return
		case s != nil:
			c.mu.Unlock()
			if !c.serve(ctx, s) {
				return
			}
		case !c.fill(ctx):
			c.mu.Unlock()
			c.shut()
			return
		}
	}
}

// maxOut is how much may wait to be written before the reader stops reading.
const maxOut = 64 << 10

// fill writes what has come of the last read and reads once more; false when the connection
// is over. C.mu is held, and released meanwhile.
func (c *serverConn) fill(ctx context.Context) bool {
	if !c.settle(ctx) {
		return false
	}
	c.mu.Unlock()
	// Let the others run first: on a busy machine the bytes have come by the time it is our
	// turn again, which saves a read that fails and the way through the poller.
	runtime.Gosched()
	c.makeRoom()
	n, err := c.nc.Read(c.in.b[c.in.w:])
	c.in.w += n
	c.full = c.in.w == len(c.in.b)
	c.mu.Lock()
	c.waits = false
	if n > 0 {
		c.heard = c.s.watch.Now()
	}
	return n > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded)
}

// makeRoom sees to free space behind what is buffered.
func (c *serverConn) makeRoom() {
	b := c.in
	switch {
	case b == nil:
		c.in = c.s.pool.get(sizeSmall)
		return
	case b.r == b.w:
		b.r, b.w = 0, 0
	case b.r > 0:
		b.w = copy(b.b, b.b[b.r:b.w])
		b.r = 0
	}
	if len(b.b) == sizeSmall && (c.full || b.w > 0) {
		c.in = c.s.pool.get(sizeMid)
		c.in.w = copy(c.in.b, b.b[:b.w])
		c.s.pool.put(b)
	}
}

// settle does what is due between two reads; false when the connection is over. C.mu is held,
// and released meanwhile.
func (c *serverConn) settle(ctx context.Context) bool {
	c.attend()
	c.flush()
	for c.writing && len(c.out) > maxOut && c.dead == nil {
		c.mu.Unlock()
		<-c.room
		c.mu.Lock()
		c.attend()
	}
	if c.dead != nil || c.doom != nil && c.doomed() || c.done() || ctx.Err() != nil {
		return false
	}
	c.putSheaf()
	partly := c.in != nil && c.in.r < c.in.w || c.open.stream != 0
	if !partly || !c.partly {
		c.since = c.s.watch.Now()
	}
	c.partly, c.waits = partly, true
	if !partly && c.in != nil && len(c.in.b) > sizeSmall && c.active == 0 && !c.full {
		c.s.pool.put(c.in)
		c.in = nil
	}
	return true
}

// kick has the reader look at what is due; c.mu is held.
func (c *serverConn) kick() {
	if !c.closing {
		c.kicked = true
		_ = c.nc.SetReadDeadline(past())
	}
}

// past is a time at which every wait is over.
func past() time.Time { return time.Unix(1, 0) }

// attend takes back a kick and begins or goes on with the end in good order; c.mu is held.
func (c *serverConn) attend() {
	if c.kicked {
		c.kicked = false
		_ = c.nc.SetReadDeadline(time.Time{})
	}
	now := c.s.watch.Now()
	switch {
	case c.drain == drainNot && (c.s.draining.Load() || c.s.cfg.Requests > 0 && c.served >= c.s.cfg.Requests):
		c.drain, c.drainAt = drainAsked, now
		c.begin()
		c.out = appendGoAway(c.out, maxWindow, NoError, "")
		c.out = appendPing(c.out, drainPing, false)
	case c.drain == drainAsked && c.s.watch.Over(now, c.drainAt, drainWait):
		c.lastCall()
	}
}

// drainPing is the PING whose answer says that the client knows of our GOAWAY, and drainWait
// how long we wait for it.
var drainPing = [8]byte{'r', 'e', 'l', 'a', 'i', 's', 'G', 'A'}

const drainWait = time.Second

// lastCall says which request is the last; c.mu is held.
func (c *serverConn) lastCall() {
	c.drain, c.last = drainLast, c.maxID
	c.begin()
	c.out = appendGoAway(c.out, c.last, NoError, "")
}

// done says whether the end in good order has been reached; c.mu is held.
func (c *serverConn) done() bool {
	return c.drain == drainLast && c.active == 0 && !c.writing && !c.more()
}

// busyEnded is told when no request is left; c.mu is held.
func (c *serverConn) busyEnded() {
	c.idleAt = c.s.watch.Now()
	if c.drain == drainLast {
		c.kick()
	}
}

// doomed ends the connection for what the sweeper found; c.mu is held.
func (c *serverConn) doomed() bool {
	c.refuseAll(c.doom)
	return true
}

// refuseAll gives up all requests and says why; c.mu is held.
func (c *serverConn) refuseAll(f *fault) {
	for len(c.streams) > 0 {
		c.abandon(c.streams[len(c.streams)-1], closedByUs, f)
	}
	c.begin()
	last := c.maxID
	if c.drain == drainLast {
		last = c.last
	}
	c.out = appendGoAway(c.out, last, f.code, f.detail)
	c.closing = true
	c.linger = c.s.watch.Now()
	c.flush()
}

// lingerTime and lingerBytes bound what is read from a client after the end.
const (
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// shut ends a connection from which nothing is read any more.
func (c *serverConn) shut() {
	c.mu.Lock()
	c.closing = true
	c.linger = c.s.watch.Now()
	for len(c.streams) > 0 {
		s := c.streams[len(c.streams)-1]
		c.s.gone.Add(1)
		c.abandon(s, closedByPeer, errClosed)
	}
	c.flush()
	for c.writing && c.dead == nil {
		c.mu.Unlock()
		<-c.room
		c.mu.Lock()
	}
	dead := c.dead != nil
	c.mu.Unlock()
	if !dead {
		c.wait()
	}
	c.mu.Lock()
	c.kill(errClosed)
	c.dismiss()
	c.mu.Unlock()
	if c.in != nil {
		c.s.pool.put(c.in)
		c.in = nil
	}
}

// wait lets a client that is still sending read what we said: closing with unread bytes would
// reset the connection under it.
func (c *serverConn) wait() {
	closeWrite(c.nc, c.tcp)
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime))
	if c.in == nil {
		c.in = c.s.pool.get(sizeSmall)
	}
	for n := 0; n < lingerBytes; {
		m, err := c.nc.Read(c.in.b)
		if n += m; err != nil {
			return
		}
	}
}

// kill ends the connection at once; c.mu is held.
func (c *serverConn) kill(cause error) {
	if c.dead != nil {
		return
	}
	c.dead, c.closing = cause, true
	for len(c.streams) > 0 {
		c.s.gone.Add(1)
		c.abandon(c.streams[len(c.streams)-1], closedByPeer, errClosed)
	}
	_ = c.nc.Close()
	c.signal()
}

// signal wakes the reader that waits for the writer.
func (c *serverConn) signal() {
	select {
	case c.room <- struct{}{}:
	default:
	}
}
