package http3

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/relais-edge/relais/internal/http/message"
)

// serverConn is one connection of a client. One goroutine at a time accepts streams, and
// serves what it accepted until it must wait; then it hands the accepting over.
type serverConn struct {
	s     *Server
	qc    *quic.Conn
	facts atomic.Pointer[message.Conn]
	index int

	settled atomic.Bool  // the handshake is over
	busy    atomic.Bool  // the goroutine that accepts is serving
	heard   atomic.Bool  // a whole head has come
	used    atomic.Int64 // when a request was last served, or the connection began
	served  atomic.Int64
	dones   atomic.Int64
	resets  atomic.Int64
	updates atomic.Int32 // len(early updates)
	killed  atomic.Bool
	given   atomic.Int64 // bytes of bodies of answers

	work sync.WaitGroup // goroutines that serve it

	mu      sync.Mutex
	active  []*exchange   // those that may wait
	next    quic.StreamID // after the highest that was accepted
	pending []update      // priorities of requests that have not come yet
	control *quic.SendStream
	began   [4]bool // the client's unidirectional streams of the types that there may be one of
	leaving leaving
	since   int64 // when leaving became what it is
	linger  int64 // milliseconds without requests after which one that left ends
	hearing
}

// hearing is what the sweeper knows of a client between its requests: an answer that has left may
// still be under way to it, or wait in its buffers to be read. Its acknowledgements tell the one, the
// room that it makes for more, or its pings, the other.
type hearing struct {
	packets uint64 // that had come when it was looked at last,
	looked  int64  // the time of that look,
	after   int64  // the request after which it was,
	last    int64  // and the time of the look that found more packets than the one before
}

// leaving is how far the end in good order is.
type leaving uint8

const (
	staying leaving = iota
	asked           // GOAWAY with the highest id was sent: the client stops, what is on its way is served
	leftNow         // GOAWAY with the real id was sent
)

// update is a PRIORITY_UPDATE for a request that has not come yet.
type update struct {
	id quic.StreamID
	p  priority
}

const (
	// maxPending bounds the updates that are kept.
	maxPending = 32
	// goAwayGrace is between the two GOAWAYs: more than a round trip (RFC 9114 section 5.2).
	goAwayGrace = 500 * time.Millisecond
	// linger is how long a connection without requests stays open after GOAWAY, so that the
	// last answer arrives.
	linger = time.Second
	// lastRequestID is the highest id of a request stream.
	lastRequestID = maxVarint - 3
)

// ServeConn serves qc until it has ended. When ctx ends the connection is closed at once. Facts
// is kept by reference and must not change: it stays what the handshake has proved, also when
// the client goes on from another address. Before the end of the handshake only safe requests
// are served (RFC 8470); the caller vouches for the client's address then.
func (s *Server) ServeConn(ctx context.Context, qc *quic.Conn, facts *message.Conn) {
	s.newConn(qc, facts).serve(ctx)
}

func (s *Server) newConn(qc *quic.Conn, facts *message.Conn) *serverConn {
	c := &serverConn{s: s, qc: qc, linger: linger.Milliseconds()}
	c.facts.Store(facts)
	c.used.Store(s.watch.Now())
	c.settle(facts.TLS != nil)
	return c
}

// settle says whether the handshake is over. With its end TLS knows more of the client.
func (c *serverConn) settle(learn bool) bool {
	if c.settled.Load() {
		return true
	}
	select {
	case <-c.qc.HandshakeComplete():
	default:
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if learn && !c.settled.Load() {
		facts := *c.facts.Load()
		state := c.qc.ConnectionState().TLS
		facts.TLS = message.NewTLS(&state)
		c.facts.Store(&facts)
	}
	c.settled.Store(true)
	return true
}

func (c *serverConn) serve(ctx context.Context) {
	s, qc := c.s, c.qc
	stop := context.AfterFunc(ctx, func() { _ = qc.CloseWithError(codeNone, "") })
	defer stop()
	if err := c.open(); err != nil {
		c.kill(errNoControlWrite)
		return
	}
	s.watch.Add(c)
	defer s.watch.Remove(c)
	if s.draining.Load() {
		c.goAway()
	}
	s.crew.lead(c)
	c.acceptUni()
	<-qc.Context().Done()
	c.work.Wait()
}

// lead accepts and serves streams, until another goroutine does or the connection has ended.
func (c *serverConn) lead() {
	ctx := c.qc.Context()
	for {
		str, err := c.qc.AcceptStream(ctx)
		if err != nil {
			return
		}
		c.busy.Store(true)
		if x := c.take(str); x != nil && !x.serve() {
			return
		}
		c.used.Store(c.s.watch.Now())
		c.busy.Store(false)
	}
}

// promote has another goroutine accept.
func (c *serverConn) promote() {
	c.busy.Store(false)
	c.s.crew.lead(c)
}

// take makes an exchange of a stream; nil when the stream was rejected.
func (c *serverConn) take(str *quic.Stream) *exchange {
	id := str.StreamID()
	c.mu.Lock()
	left := c.leaving == leftNow
	if !left {
		c.next = id + 4
	}
	c.mu.Unlock()
	if left { // RFC 9114 section 5.2: the client may try it again elsewhere
		str.CancelRead(codeRequestRejected)
		str.CancelWrite(codeRequestRejected)
		str.ReleaseStreamCredit()
		return nil
	}
	if c.served.Add(1) == int64(c.s.cfg.Requests) {
		c.goAway()
	}
	x := c.s.spare.Get().(*exchange)
	x.c, x.str, x.src, x.id, x.leading, x.listed = c, str, str, id, true, false
	x.r, x.w, x.eof, x.unknown, x.skipped, x.empty = 0, 0, false, 0, 0, 0
	x.final, x.socket, x.refused, x.answered, x.informed, x.early = false, false, false, false, false, false
	x.cut.Store(false)
	x.halfway.Store(false)
	x.sent, x.taken = pace{}, pace{}
	if x.in == nil {
		x.in = make([]byte, firstRead)
	}
	x.early = !c.settle(true)
	return x
}

// enlist has the sweeper look after an exchange that may wait.
func (c *serverConn) enlist(x *exchange) {
	x.listed = true
	c.mu.Lock()
	x.index = len(c.active)
	c.active = append(c.active, x)
	c.mu.Unlock()
}

func (c *serverConn) delist(x *exchange) {
	c.mu.Lock()
	last := len(c.active) - 1
	c.active[x.index] = c.active[last]
	c.active[x.index].index = x.index
	c.active[last] = nil
	c.active = c.active[:last]
	c.mu.Unlock()
	c.used.Store(c.s.watch.Now())
}

// gone counts a request that the client gave up. Many of them, or of those that must be refused, and
// few others are an attack that makes us work for nothing (rapid reset).
func (c *serverConn) gone() {
	if c.qc.Context().Err() != nil {
		return
	}
	c.s.gone.Add(1)
	c.misbehaved()
}

// misbehaved counts a request that brought the client nothing: given up, or refused.
func (c *serverConn) misbehaved() {
	if c.resets.Add(1) > maxResets+c.dones.Load() {
		c.kill(errFloodReset)
	}
}

func (c *serverConn) done() { c.dones.Add(1) }

// kill ends the connection because of what the client did.
func (c *serverConn) kill(e *connError) {
	if c.killed.Swap(true) {
		return
	}
	if e.code == codeExcessiveLoad {
		c.s.floods.Add(1)
	} else {
		c.s.faults.Add(1)
	}
	if c.s.cfg.OnAbuse != nil {
		c.s.cfg.OnAbuse(c.facts.Load())
	}
	_ = c.qc.CloseWithError(e.code, e.text)
}

// late counts a client that was too slow.
func (c *serverConn) late() {
	if c.s.slow.Add(1); c.s.cfg.OnSlow != nil {
		c.s.cfg.OnSlow(c.facts.Load())
	}
}

// reprioritised applies an update that came before its request, and says whether there was one.
func (c *serverConn) reprioritised(x *exchange) bool {
	if c.updates.Load() == 0 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, u := range c.pending {
		if u.id == x.id {
			c.pending = append(c.pending[:i], c.pending[i+1:]...)
			c.updates.Store(int32(len(c.pending)))
			x.str.SetPriority(u.p.urgency, u.p.incremental)
			return true
		}
	}
	return false
}

// reprioritise takes a PRIORITY_UPDATE (RFC 9218 section 7.2). One for a request that has ended
// is passed over; of those for requests to come the oldest are forgotten first.
func (c *serverConn) reprioritise(id quic.StreamID, p priority) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.active {
		if x.id == id {
			x.str.SetPriority(p.urgency, p.incremental)
			return
		}
	}
	if id < c.next {
		return
	}
	for i := range c.pending {
		if c.pending[i].id == id {
			c.pending[i].p = p
			return
		}
	}
	if len(c.pending) == maxPending {
		c.pending = append(c.pending[:0], c.pending[1:]...)
	}
	c.pending = append(c.pending, update{id, p})
	c.updates.Store(int32(len(c.pending)))
}

// goAway begins the end in good order (RFC 9114 section 5.2): requests that are on their way are
// served; the sweeper does the rest.
func (c *serverConn) goAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving != staying {
		return
	}
	c.leaving, c.since = asked, c.s.watch.Now()
	if c.control != nil {
		c.sendGoAway(lastRequestID)
	}
}

// sendGoAway sends GOAWAY; c.mu is held. It never waits: the frame is small.
func (c *serverConn) sendGoAway(id quic.StreamID) {
	var b [16]byte
	f := append(b[:0], frameGoAway, 0)
	f = appendVarint(f, uint64(id))
	f[1] = byte(len(f) - 2)
	_, _ = c.control.Write(f)
}

func (c *serverConn) place() *int { return &c.index }

// sweep acts on limits of time that are over.
func (c *serverConn) sweep(now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.active {
		if by := x.readBy.Load(); by > 0 && by < now && x.readBy.CompareAndSwap(by, -1) {
			c.late()
			_ = x.str.SetReadDeadline(past())
		}
		if by := x.writeBy.Load(); by > 0 && by < now && x.writeBy.CompareAndSwap(by, -1) {
			_ = x.str.SetWriteDeadline(past())
		}
	}
	quiet := c.quiet()
	switch {
	case c.leaving == staying && quiet && c.idle(now):
		c.leaving, c.since = asked, now
		c.sendGoAway(lastRequestID)
	case c.leaving == asked && now-c.since >= goAwayGrace.Milliseconds():
		c.leaving, c.since = leftNow, now
		c.sendGoAway(c.next)
	case c.leaving == leftNow && quiet && now-max(c.since, c.used.Load()) >= c.linger:
		go func() { _ = c.qc.CloseWithError(codeNone, "") }() // it waits for the last packet to leave
	}
}

// idle says whether nothing has been heard of a quiet client for too long. What is heard counts for
// as long as who reads at the least rate may need for all that was sent, and not longer than silence
// may last in a tunnel: pings alone keep no connection. C.mu is held.
func (c *serverConn) idle(now int64) bool {
	cfg, h, used := &c.s.cfg, &c.hearing, c.used.Load()
	limit := cfg.IdleTimeout.Milliseconds()
	switch {
	case h.after != used:
		*h = hearing{packets: c.qc.ConnectionStats().PacketsReceived, looked: now, after: used, last: used}
	case now-h.looked >= limit/hearings:
		h.looked = now
		if n := c.qc.ConnectionStats().PacketsReceived; n != h.packets {
			h.packets, h.last = n, now
		}
	}
	owed := cfg.TunnelTimeout.Milliseconds()
	if cfg.WriteRate > 0 {
		owed = min(owed, c.given.Load()*1000/cfg.WriteRate)
	}
	return now-min(h.last, used+owed) > limit
}

// hearings is how often in an idle timeout a quiet client is listened to.
const hearings = 16

// quiet says whether no request is under way; c.mu is held.
func (c *serverConn) quiet() bool { return len(c.active) == 0 && !c.busy.Load() }

// kicked waits until the sweeper has done what it does to a stream whose limit it found over.
func (c *serverConn) kicked() {
	c.mu.Lock()
	defer c.mu.Unlock()
}
