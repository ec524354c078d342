package http2

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/message"
)

// ClientConn is one connection to an origin, with many exchanges at once. One goroutine reads,
// in Run; requests are written by those who send them, and what gathers while one writes leaves
// with the next write.
type ClientConn struct {
	cl      *Client
	nc      net.Conn
	owner   Owner
	settled chan struct{} // closed when the origin's first SETTINGS came, or the connection ended

	mu       sync.Mutex
	changed  bool // the owner must be told
	err      error
	closing  bool // no new exchanges
	streams  map[uint32]*clientStream
	reserved int // exchanges begun or about to begin
	next     uint32
	uses     int
	goAway   uint32 // the last stream that the origin deals with
	peer     settings
	hasPeer  bool
	enc      *hpack.Encoder
	sendWin  sendWindow
	recvWin  recvWindow
	stray    int
	born     int64
	lastRead int64
	pinged   int64 // when a ping was sent that waits for a sign of life; 0 for none
	frames   int   // of this second that bring no part of an answer
	answers  int   // of them, those that we answer

	out     []byte // what waits to be written
	target  []byte // where a path and its query are joined
	spare   []byte
	writing bool
	writeBy int64

	// The rest is the reader's.
	dec    *hpack.Decoder
	sink   clientSink
	block  []byte // a header block that is not whole
	blocks int    // its frames
	blockH frameHead
}

// NetConn returns the connection under c, for its addresses and TLS state only.
func (c *ClientConn) NetConn() net.Conn { return c.nc }

// Reserve takes a place for one exchange, which RoundTrip must then use; false when the origin or
// we take no more at once on this connection. Until the origin's settings came there is one.
func (c *ClientConn) Reserve() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.room() <= 0 {
		return false
	}
	c.reserved++
	return true
}

// State is how a connection is at a moment.
type State struct {
	Room     int  // exchanges that may begin
	Busy     int  // exchanges under way, or about to begin
	Settled  bool // the origin has said how many it takes
	Draining bool // no new exchanges
	Closed   bool
}

// State returns how the connection is.
func (c *ClientConn) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return State{c.room(), c.reserved, c.hasPeer, c.closing || c.err != nil, c.err != nil}
}

// Room is how many exchanges may begin.
func (c *ClientConn) Room() int { return c.State().Room }

// Busy is the number of exchanges under way, or about to begin.
func (c *ClientConn) Busy() int { return c.State().Busy }

// Draining says that the connection takes no new exchanges.
func (c *ClientConn) Draining() bool { return c.State().Draining }

// Closed says that the connection has ended.
func (c *ClientConn) Closed() bool { return c.State().Closed }

func (c *ClientConn) room() int {
	if c.closing || c.err != nil {
		return 0
	}
	if !c.hasPeer {
		return 1 - c.reserved // the origin has not said yet how many it takes
	}
	return int(min(int64(c.cl.cfg.Streams), int64(c.peer.maxStreams))) - c.reserved
}

// TakesConnect waits until the origin's settings are there and says whether it takes extended
// CONNECT for WebSocket (RFC 8441).
func (c *ClientConn) TakesConnect(ctx context.Context) bool {
	c.flush()
	select {
	case <-c.settled:
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil && c.peer.connectProtocol
}

// Drain has the connection take no new exchanges, and close when the last one has ended.
func (c *ClientConn) Drain() {
	c.mu.Lock()
	c.closing, c.changed = true, true
	c.endIfDone()
	c.unlock()
}

// Close closes the connection at once. Exchanges that are under way fail.
func (c *ClientConn) Close() error {
	c.mu.Lock()
	c.die(http1.ErrClosed)
	c.unlock()
	return nil
}

// endIfDone closes a connection that takes nothing new and has nothing to do. C.mu is held.
func (c *ClientConn) endIfDone() {
	if c.closing && c.reserved == 0 && c.err == nil {
		c.out = appendGoAway(c.out, 0, NoError, "")
		c.flushLocked()
		c.die(http1.ErrClosed)
	}
}

// unlock tells the owner what has changed.
func (c *ClientConn) unlock() {
	changed := c.changed
	c.changed = false
	c.mu.Unlock()
	if changed && c.owner != nil {
		c.owner.Changed(c)
	}
}

// die ends the connection and all exchanges. C.mu is held.
func (c *ClientConn) die(err error) {
	if c.err != nil {
		return
	}
	c.err, c.changed = err, true
	for _, s := range c.streams {
		s.breakOff(err)
	}
	if !c.hasPeer {
		close(c.settled)
	}
	_ = c.nc.Close()
	c.cl.mu.Lock()
	delete(c.cl.conns, c)
	c.cl.mu.Unlock()
}

// violate ends the connection for what the origin did, and tells it so. C.mu is held.
func (c *ClientConn) violate(f *fault) {
	if c.err != nil {
		return
	}
	c.out = appendGoAway(c.out, 0, f.code, f.detail)
	if !c.writing { // a last word, if that needs no wait
		_ = c.nc.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		out := c.out
		c.out = nil
		_, _ = c.nc.Write(out)
	}
	c.die(f)
}

// sweep acts on limits that are over at now.
func (c *ClientConn) sweep(now int64, second bool) {
	c.mu.Lock()
	defer c.unlock()
	if c.err != nil {
		return
	}
	for _, s := range c.streams {
		if s.limit != 0 && s.limit < now {
			s.breakOff(http1.ErrTimeout)
		}
	}
	cfg := &c.cl.cfg
	switch {
	case c.writing && c.writeBy < now:
		c.die(http1.ErrTimeout)
	case !c.hasPeer && len(c.streams) > 0 && now-c.born > cfg.PingTimeout.Milliseconds()+cfg.PingAfter.Milliseconds():
		c.violate(&fault{SettingsTimeout, false, "no SETTINGS came"})
	case c.pinged != 0 && !c.writing && now-c.pinged > cfg.PingTimeout.Milliseconds():
		c.die(errDead)
	case c.pinged == 0 && len(c.streams) > 0 && now-c.lastRead > cfg.PingAfter.Milliseconds():
		c.pinged = now
		c.out = appendPing(c.out, [8]byte{'r', 'e', 'l', 'a', 'i', 's'}, false)
		go c.flush()
	}
	if second {
		c.frames, c.answers = 0, 0
	}
}

// flush writes what waits, unless somebody does already.
func (c *ClientConn) flush() {
	c.mu.Lock()
	c.flushLocked()
	c.unlock()
}

// flushLocked is flush with c.mu held; it is released while bytes are written.
func (c *ClientConn) flushLocked() {
	if c.writing || len(c.out) == 0 || c.err != nil {
		return
	}
	out := c.out
	c.writing, c.out, c.spare = true, c.spare[:0], nil
	c.writeBy = c.cl.clock.Limit(c.cl.cfg.WriteTimeout)
	c.unlock()
	_, err := c.nc.Write(out)
	c.mu.Lock()
	c.writing = false
	if cap(out) <= 2*clientOut {
		c.spare = out[:0]
	}
	if err != nil {
		c.die(err)
		return
	}
	if len(out) >= clientOut {
		c.wakeSenders()
	}
	if len(c.out) > 0 {
		go c.flush() // the goroutine has work of its own
	}
}

// wakeSenders has those who wait for room look again. C.mu is held.
func (c *ClientConn) wakeSenders() {
	for _, s := range c.streams {
		if s.blocked {
			clientWake(s.room)
		}
	}
}

func clientWake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// RoundTrip sends req and reads the head of its answer into resp, which is reset first. It takes
// the place that Reserve gave, and gives it back when the exchange is over.
//
// Written are the pseudo-header fields and all fields but Host, connection-specific and
// framing ones; TE stays when it says trailers. The caller has removed the fields that
// Connection names. Req.Body is pulled and not closed. A body of known length is pulled once
// before the head leaves; any other goes on its way while the answer is awaited and read, until
// that answer has ended. Req.Trailer follows it.
//
// With t.Upgrade a request for WebSocket goes as extended CONNECT (RFC 8441), and its 2xx comes
// back as the 101 that it stands for, with resp.Upgrade. A request for anything else, or to
// an origin that does not announce it, fails with ErrNoConnect and nothing sent.
//
// Resp comes without connection-specific fields. Resp.Body must be closed once when it is not
// nil; it returns io.EOF only for a body that the origin ended (END_STREAM) and that is as long
// as its Content-Length.
//
// Ctx counts until resp.Body or resp.Upgrade is closed. An error is always an *http1.Error. Sent
// is false when the origin has certainly not acted: the stream was refused, or is beyond the
// last one of a GOAWAY. The connection may go on.
func (c *ClientConn) RoundTrip(ctx context.Context, req *message.Request, resp *message.Response, t http1.Try) error {
	resp.Reset()
	s := c.cl.newStream(c)
	s.done = ctx.Done()
	s.bodyWait = t.Body
	if t.Body <= 0 {
		s.bodyWait = c.cl.cfg.BodyTimeout
	}
	if err := ctx.Err(); err != nil {
		return s.fail(http1.PhaseWrite, err)
	}
	if p, err := s.sendRequest(ctx, req, resp, &t); err != nil {
		return s.fail(p, err)
	}
	if err := s.awaitHead(ctx, &t); err != nil {
		return s.fail(http1.PhaseHead, err)
	}
	return s.begin(resp)
}

// fail ends the exchange and makes the error.
func (s *clientStream) fail(p http1.Phase, err error) error {
	s.stopUpload()
	c := s.c
	c.mu.Lock()
	if s.uploadErr != nil {
		p, err = http1.PhaseWrite, s.uploadErr
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	e := clientError(p, s.id != 0 && !s.unsent, s.reused, err)
	s.release()
	c.flushLocked()
	c.unlock()
	s.recycle()
	return e
}
