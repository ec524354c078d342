package http1

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/relais-edge/relais/internal/http/deadline"
	"github.com/relais-edge/relais/internal/http/message"
)

// serverConn is one connection of a client. Its goroutine reads and writes; the sweeper
// only looks at the guards. A request's body may be pulled in another goroutine. While it is
// parked it has no goroutine.
type serverConn struct {
	s      *Server
	nc     net.Conn
	facts  *message.Conn
	cancel context.CancelFunc
	done   <-chan struct{}
	index  int
	*gear                 // nil while the connection is parked, and when it has ended
	rg, wg deadline.Guard // limits of reading and of writing

	keeper Keeper // nil when the connection never parks
	over   <-chan struct{}
	since  int64       // when it was parked
	fd     int         // -1 before it was parked
	asked  atomic.Bool // the wait was ended for parking
	parked atomic.Bool // no goroutine has the connection
	parks  atomic.Bool
	woken  bool // it was parked, and the limit of its wait still stands

	blank  bool // the empty line before a request was passed over
	last   bool // no request is read after this one
	abort  bool // the other side must not take what it has for whole
	linger bool // the client may still be sending
	served int

	tcp    *net.TCPConn    // under nc; nil when there is none
	plain  *net.TCPConn    // nc itself; nil when it is something else
	raw    syscall.RawConn // of plain
	peek   syscall.RawConn // of tcp; nil when nothing is to be learned from it
	peeked int64
	pace   deadline.Watch // of the write under way; the sweeper's
	kept   deadline.Room  // what the kernel may keep

	x    *exchange
	wmu  sync.Mutex // of writing, as interim answers may come from another goroutine
	werr error
}

// exchange is one request and what is kept of it until its answer has left.
type exchange struct {
	c        *serverConn
	req      message.Request
	trailer  message.Fields
	head     requestHead
	body     requestBody
	ender    message.Ender
	sending  message.Body // of the answer, while it is being sent
	outcome  message.Outcome
	answered bool // the final head was made; guarded by c.wmu
	keep     bool
}

// Ends of answers, in an Outcome.
var (
	errTooLong  = errors.New("the body is longer than its Content-Length")
	errTooShort = errors.New("the body is shorter than its Content-Length")
	errPanic    = errors.New("the answer's body panicked")
	errNoNeed   = errors.New("the body is not needed")
	errNotHTTP  = errors.New("the client speaks another protocol")
)

// serve answers requests until the connection is over, or parked.
func (c *serverConn) serve(ctx context.Context) (parked bool) {
	for !c.last {
		switch c.readHead(ctx) {
		case headParked:
			return true
		case headNone:
			_ = c.flush()
			return false
		}
		c.one(ctx)
	}
	_ = c.flush()
	return false
}

// headState is what came of reading a head.
type headState uint8

const (
	headRead   headState = iota
	headNone             // no further request will come
	headParked           // the connection is somebody else's
)

// one answers the request that was read.
func (c *serverConn) one(ctx context.Context) {
	x := c.x
	defer c.rescue(x)
	c.served++
	c.s.requests.Add(1)
	if x.req.Body != nil {
		_ = c.flush()
	}
	resp := c.call(ctx, x)
	if resp == nil {
		c.refuse(ctx, x, faultPanic)
		return
	}
	c.answer(ctx, x, resp)
}

// rescue ends an exchange whose answer panicked while it was being sent.
func (c *serverConn) rescue(x *exchange) {
	if recover() == nil {
		return
	}
	c.s.panics.Add(1)
	c.last, c.abort = true, true
	if c.x != x {
		return // it had ended
	}
	if b := x.sending; b != nil {
		x.sending = nil
		func() {
			defer func() { _ = recover() }()
			b.Close(errPanic)
		}()
	}
	c.finish(x, errPanic)
}

// call asks the handler; nil when it panicked or gave nothing.
func (c *serverConn) call(ctx context.Context, x *exchange) (resp *message.Response) {
	defer func() {
		if recover() != nil {
			c.s.panics.Add(1)
			resp = nil
		}
	}()
	return c.s.handler.Serve(ctx, &x.req)
}

// readHead reads the next request into c.x.
func (c *serverConn) readHead(ctx context.Context) headState {
	c.partial, c.blank = 0, false
	for {
		if b := c.src.buffered(); len(b) > 0 {
			done, flt := c.parse(b)
			if flt != nil {
				c.refuse(ctx, c.take(), flt)
				return headNone
			}
			if done {
				return headRead
			}
		}
		if s := c.more(ctx); s != headRead {
			return s
		}
	}
}

// parse reads a request from b, which is what is buffered.
func (c *serverConn) parse(b []byte) (bool, *fault) {
	if b[0] == '\r' && !c.blank { // RFC 9112 section 2.2
		if len(b) < 2 {
			return false, nil
		}
		if b[1] != '\n' {
			return false, faultBareCR
		}
		c.blank = true
		c.src.use(2)
		if b = b[2:]; len(b) == 0 {
			return false, nil
		}
	}
	lim := &c.s.cfg.Limits
	if c.partial > 0 {
		// A head that drips in is not read anew for each drop.
		tail := b[max(0, min(c.partial, len(b))-2):]
		if len(b) <= lim.HeadBytes && !bytes.Contains(tail, []byte("\n\r\n")) && !bytes.Contains(tail, []byte("\n\n")) {
			c.partial = len(b)
			return false, nil
		}
	}
	x := c.take()
	n, flt := parseRequest(b, lim, &x.req, &x.head)
	if flt != nil {
		return false, flt
	}
	if n == 0 {
		if len(b) > lim.TargetBytes+maxMethod && bytes.IndexByte(b, '\n') < 0 {
			return false, faultTargetLong
		}
		if len(b) >= lim.HeadBytes {
			return false, faultHeadLong
		}
		c.partial = len(b)
		return false, nil
	}
	c.src.use(n)
	return true, c.prepare(x)
}

// prepare makes the request ready for the handler.
func (c *serverConn) prepare(x *exchange) *fault {
	r := &x.req
	r.Secure, r.Conn, r.Control = c.facts.TLS != nil, c.facts, x
	x.keep = x.head.persistent(r.Proto) && (c.s.cfg.Requests <= 0 || c.served+1 < c.s.cfg.Requests)
	x.body.open = false
	if r.ContentLength != 0 {
		if m := c.s.cfg.BodyBytes; m > 0 && r.ContentLength > m {
			return faultBodyLong
		}
		x.body.start(x)
		r.Body, r.Trailer = &x.body, &x.trailer
	} else {
		c.src.release()
	}
	c.enter(phaseBusy, c.s.watch.Now())
	return nil
}

// more reads more of a head.
func (c *serverConn) more(ctx context.Context) headState {
	if c.flush() != nil {
		return headNone
	}
	c.src.release()
	idle := c.src.in == nil
	woken := c.woken
	if !woken {
		c.await(idle)
	}
	c.woken = false
	for {
		err := os.ErrDeadlineExceeded
		if _, _, over := c.rg.Look(); !over {
			_, err = c.src.fill(sizeMid)
		}
		switch {
		case err == nil:
			if woken {
				c.regret()
			}
			return headRead
		case !errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil:
			return headNone
		case c.src.in != nil && len(c.src.buffered()) > 0:
			c.unkick()
			c.refuse(ctx, c.take(), faultSlow)
			return headNone
		case !c.mayGo():
			if idle && c.lastLook() {
				return headRead
			}
			return headNone
		}
		c.unkick()
		if c.park(ctx) {
			return headParked
		}
	}
}

// await enters the phase of the wait for more of a head.
func (c *serverConn) await(idle bool) {
	w, cfg := &c.s.watch, &c.s.cfg
	switch {
	case !idle || c.blank:
		if p, _, _ := c.rg.Look(); p != phaseHead {
			c.enter(phaseHead, w.Limit(cfg.HeaderTimeout))
		}
	case c.served == 0:
		c.giveBack()
		c.rg.Set(phaseFresh, w.Limit(cfg.HeaderTimeout))
	default:
		c.giveBack()
		c.rg.Set(phaseIdle, w.Limit(cfg.IdleTimeout))
	}
	if idle && c.s.draining.Load() {
		c.rg.Set(phaseIdle, 0) // Drain may have missed this phase: do not wait long
	}
}

// enter begins a phase after a wait that the sweeper may have ended.
func (c *serverConn) enter(p deadline.Phase, at int64) {
	if !c.rg.Set(p, at) {
		c.unkick()
	}
}

// lastLook sees whether a request has come while an idle connection was being closed. It is
// answered, so that a client that could not know loses nothing. There is time for it when the
// server drains; where another waits for the place it is short.
func (c *serverConn) lastLook() bool {
	c.unkick()
	c.rg.Set(phaseNone, 0)
	d := 5 * time.Millisecond
	if c.s.retiring.Load() {
		d = 250 * time.Millisecond
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(d))
	_, err := c.src.fill(sizeMid)
	_ = c.nc.SetReadDeadline(time.Time{})
	c.last = true
	if err != nil {
		return false
	}
	c.rg.Set(phaseHead, c.s.watch.Limit(c.s.cfg.HeaderTimeout))
	return true
}

// unkick waits for the sweeper's kick of the read side and undoes it.
func (c *serverConn) unkick() {
	c.rg.Undo(func() {
		c.asked.Store(false)
		_ = c.nc.SetReadDeadline(time.Time{})
	})
}

// take returns the exchange to read into.
func (c *serverConn) take() *exchange {
	if c.x == nil {
		c.x = c.s.spare.Get().(*exchange)
		c.x.c = c
	}
	return c.x
}

// end tells the answer's Ender and frees the exchange.
func (c *serverConn) end(x *exchange) {
	e, o := x.ender, x.outcome
	x.ender, x.outcome = nil, message.Outcome{}
	if o.Err != nil {
		c.s.aborted.Add(1)
	}
	if e != nil {
		c.tell(e, o)
	}
	if x.body.open {
		c.finishBody(x)
	}
	x.answered = false
	x.req.Reset()
	x.trailer.Reset()
	if c.x == x {
		c.x = nil
	}
	c.s.spare.Put(x)
}

func (c *serverConn) tell(e message.Ender, o message.Outcome) {
	defer func() {
		if recover() != nil {
			c.s.panics.Add(1)
		}
	}()
	e.End(o)
}

// refuse answers bytes that are no request, and ends the connection.
func (c *serverConn) refuse(ctx context.Context, x *exchange, f *fault) {
	if f != faultPanic {
		c.s.refused.Add(1)
	}
	c.last, c.linger, x.keep = true, true, false
	var resp *message.Response
	func() {
		defer func() {
			if recover() != nil {
				c.s.panics.Add(1)
			}
		}()
		resp = c.s.handler.Refuse(ctx, c.facts, f.status, f.code, f.detail)
	}()
	if resp == nil {
		resp = &message.Response{Status: f.status}
		resp.AddString(message.ContentType, "text/plain; charset=utf-8")
		resp.SetBytes([]byte(f.code + "\n"))
	}
	if f == faultProtocol && c.s.cfg.Preface && c.served == 0 {
		c.linger = false
		if resp.Body != nil {
			resp.Body.Close(errNotHTTP)
		}
		x.ender, x.outcome.Err = resp.Ender, errNotHTTP
		c.end(x)
		return
	}
	c.answer(ctx, x, resp)
}
