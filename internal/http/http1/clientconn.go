package http1

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/relais-edge/relais/internal/http/deadline"
	"github.com/relais-edge/relais/internal/http/message"
)

// ClientConn is one connection to an origin. One exchange at a time.
type ClientConn struct {
	cl    *Client
	nc    net.Conn
	rel   Releaser
	index int
	src   source
	rg    deadline.Guard
	wg    deadline.Guard
	life  life
	body  responseBody

	tcp   *net.TCPConn
	raw   syscall.RawConn
	probe func(fd uintptr) bool
	fresh bool
	one   [1]byte
	both  func(fd uintptr) bool // bothSteps, made once
	step  uint8
	out   []byte
	wrote int
	early error // of the read that followed the write

	uses     int
	head     head
	proto    message.Proto
	busy     bool // an exchange has begun and was not released
	reusable bool
	sent     bool // a byte of the request has left
	partial  bool // the request was not sent whole
	closed   atomic.Bool
	headWait time.Duration // from the request's end to the final head
	bodyWait time.Duration // longest wait for more of the answer's body
	trailer  message.Fields
	sender   *sender
	vec      net.Buffers
	vecs     [3][]byte
}

// Uses is the number of exchanges begun.
func (c *ClientConn) Uses() int { return c.uses }

// NetConn returns the connection under c, for its addresses and TLS state only.
func (c *ClientConn) NetConn() net.Conn { return c.nc }

// Close closes the connection at once. An exchange that is under way fails.
func (c *ClientConn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.cl.watch.Remove(c)
	return c.nc.Close()
}

// Stale says whether an idle connection must not be used again: the origin closed it or sent
// bytes that nobody asked for. RoundTrip looks itself, so this is for a pool that wants to
// know without a request. It does not block and does not allocate on plain TCP.
func (c *ClientConn) Stale() bool {
	if c.closed.Load() || len(c.src.buffered()) > 0 {
		return true
	}
	if c.src.raw != nil {
		c.fresh = false
		return c.src.raw.Read(c.probe) != nil || !c.fresh
	}
	return c.staleOther()
}

// probeStep reads what must not be there. Any byte makes the connection useless, so that
// losing it is no loss.
func (c *ClientConn) probeStep(fd uintptr) bool {
	c.fresh = nothingToRead(fd, c.one[:])
	return true
}

// staleOther asks a connection that is not plain TCP: under TLS bytes may be there that are
// no data, such as session tickets. A millisecond tells.
func (c *ClientConn) staleOther() bool {
	if c.raw != nil {
		quiet := false
		err := c.raw.Control(func(fd uintptr) { quiet = socketQuiet(fd) })
		if err == nil && quiet {
			return false
		}
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(time.Millisecond))
	n, err := c.nc.Read(c.one[:])
	_ = c.nc.SetReadDeadline(time.Time{})
	return n > 0 || !errors.Is(err, os.ErrDeadlineExceeded)
}

// RoundTrip sends req and reads the head of its answer into resp, which is reset first.
//
// Written are the method, the target in origin-form (authority-form for CONNECT), Host from
// the authority, and all fields but Host, connection-specific and framing ones, which are
// written anew. The caller has removed the fields that Connection names (StripConnection).
// Req.Body is pulled and not closed. Its first bytes leave with the head; an answer that
// comes before the rest was sent is returned at once, and the rest is not sent any more once that
// answer has ended.
//
// A connection that is stale is found before anything is sent and before the body is pulled:
// the error is ErrStale, with Sent false, and the request may go to another connection.
//
// Resp comes without connection-specific fields. Resp.Body must be closed in any case when it
// is not nil; it returns io.EOF only for a whole body. With status 101 (when asked for) or
// a 2xx to CONNECT, resp.Upgrade is the connection.
//
// Ctx counts until resp.Body or resp.Upgrade is closed; that of Body.Next is not looked at. When
// it ends, whatever waits returns within a tick (50 ms) of the Client's sweeper, which costs
// no timer and no allocation. An error is always an *Error, and the connection is
// closed then.
func (c *ClientConn) RoundTrip(ctx context.Context, req *message.Request, resp *message.Response, t Try) error {
	c.uses++
	c.early = nil
	c.busy, c.sent, c.partial = true, false, false
	resp.Reset()
	if c.bodyWait = t.Body; t.Body <= 0 {
		c.bodyWait = c.cl.cfg.BodyTimeout
	}
	if c.headWait = t.Wait; t.Wait <= 0 {
		c.headWait = c.cl.cfg.HeadTimeout
	}
	c.arm(ctx)
	if err := ctx.Err(); err != nil {
		return c.fail(ctx, PhaseWrite, err)
	}
	answered, err := c.send(ctx, req, resp, &t)
	if err != nil {
		// An origin that answered and closed before it had all is heard.
		var w *writeError
		if !c.sent || !errors.As(err, &w) || c.why() != overNot || c.readHead(resp, &t) != nil {
			return c.fail(ctx, PhaseWrite, err)
		}
		c.partial = true
	} else if !answered {
		if err := c.readHead(resp, &t); err != nil {
			if e := c.sendFault(); e != nil {
				return c.fail(ctx, PhaseWrite, e)
			}
			return c.fail(ctx, PhaseHead, err)
		}
	}
	return c.begin(ctx, req, resp, &t)
}

// fail closes the connection and makes the error.
func (c *ClientConn) fail(ctx context.Context, p Phase, err error) error {
	e := &Error{Phase: p, Sent: c.sent, Reused: c.uses > 1, Err: c.cause(ctx, err)}
	e.Timeout = errors.Is(e.Err, ErrTimeout)
	c.release(false)
	return e
}

// cause tells why a wait has ended.
func (c *ClientConn) cause(ctx context.Context, err error) error {
	var b *message.BodyError
	switch {
	case errors.As(err, &b):
		return err
	case c.why() == overTime:
		return ErrTimeout
	case c.why() == overContext && ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, net.ErrClosed) && c.closed.Load():
		return ErrClosed
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

// release ends the exchange and tells the Releaser, once.
func (c *ClientConn) release(reusable bool) {
	if !c.busy {
		return
	}
	c.busy = false
	if c.sender != nil {
		reusable = c.sender.stop(c) && reusable
		c.sender = nil
	}
	if !c.disarm() || c.closed.Load() || len(c.src.buffered()) > 0 {
		reusable = false
	}
	if !reusable {
		_ = c.Close()
	}
	c.src.drop()
	if c.rel != nil {
		c.rel.Release(c, reusable)
	}
}

// headLimit is the time by which the final head must be there when the request was sent now.
func (c *ClientConn) headLimit(t *Try) int64 {
	w := &c.cl.watch
	at := w.Limit(c.headWait)
	if !t.Head.IsZero() {
		at = min(at, w.At(t.Head))
	}
	return at
}

// waitHead sets the limit for the head. While a body is still being sent only the caller's
// own limit counts; the sender starts the other when it is done.
func (c *ClientConn) waitHead(t *Try) {
	if c.sender != nil {
		if t.Head.IsZero() {
			c.rg.Set(phaseBusy, 0)
		} else {
			c.rg.Set(phaseHead, c.cl.watch.At(t.Head))
		}
		if c.sender.state.Load() != sendDone {
			return
		}
	}
	c.rg.Set(phaseHead, c.headLimit(t))
}

// readHead reads heads until the final one.
func (c *ClientConn) readHead(resp *message.Response, t *Try) error {
	c.waitHead(t)
	for interim := 0; ; interim++ {
		if interim > c.cl.cfg.Interim {
			return ErrInterim
		}
		if err := c.oneHead(resp); err != nil {
			return err
		}
		switch s := resp.Status; {
		case s >= 200 || s == 101:
			return nil
		case s == 100:
		case t.Inform != nil:
			StripConnection(&resp.Fields)
			t.Inform.Inform(s, &resp.Fields)
		}
	}
}

// oneHead reads one head.
func (c *ClientConn) oneHead(resp *message.Response) error {
	if err := c.early; err != nil {
		c.early = nil
		return err
	}
	lim := &c.cl.cfg.Limits
	for {
		if b := c.src.buffered(); len(b) > 0 {
			n, proto, flt := parseResponse(b, lim, resp, &c.head)
			if flt != nil {
				return flt
			}
			if n > 0 {
				c.src.use(n)
				c.proto = proto
				return nil
			}
			if len(b) >= lim.HeadBytes {
				return faultHeadLong
			}
		}
		size := sizeLarge
		if c.src.raw == nil {
			size = sizeMid // it waits with the buffer in hand
		}
		if _, err := c.src.fill(size); err != nil {
			return err
		}
	}
}

// begin makes resp what its head says (RFC 9112 section 6.3).
func (c *ClientConn) begin(ctx context.Context, req *message.Request, resp *message.Response, t *Try) error {
	h := &c.head
	upgrade := resp.Status == 101 && t.Upgrade && req.Has(message.Upgrade)
	if resp.Status == 101 && !upgrade {
		return c.fail(ctx, PhaseHead, ErrSwitched)
	}
	if upgrade && message.EqualFold(req.Get(message.Upgrade), "websocket") && !message.WebSocketAgreed(req, resp) {
		return c.fail(ctx, PhaseHead, ErrWebSocket)
	}
	if upgrade || req.Method == message.CONNECT && resp.Status/100 == 2 {
		return c.open(resp)
	}
	c.strip(resp)
	c.rg.Set(phaseNone, 0)
	c.reusable = h.persistent(c.proto) && !c.partial
	resp.ContentLength = h.length
	none := message.NoBody(req.Method, resp.Status)
	switch {
	case none || h.length == 0 && !h.chunked:
		if !none || req.Method != message.HEAD && resp.Status != 304 {
			resp.ContentLength = 0
		}
		c.release(c.reusable)
		return nil
	case h.chunked:
		resp.ContentLength = -1
		resp.Trailer = &c.trailer
		c.trailer.Reset()
		c.body.start(decoder{kind: kindChunked, trailer: &c.trailer})
	case h.length > 0:
		c.body.start(decoder{kind: kindLength, left: h.length})
	default:
		c.reusable = false
		c.body.start(decoder{kind: kindClose})
	}
	resp.Body = &c.body
	return nil
}

// strip removes from an answer what was meant for us.
func (c *ClientConn) strip(resp *message.Response) {
	f := &resp.Fields
	if f.Has(message.Connection) || f.Has(message.TransferEncoding) || f.Has(message.KeepAlive) || f.Has(message.ProxyConnection) ||
		f.Has(message.Upgrade) || f.Has(message.Trailer) || f.Has(message.TE) {
		StripConnection(f)
	}
}

// open makes a tunnel of the connection.
func (c *ClientConn) open(resp *message.Response) error {
	up := resp.Get(message.Upgrade)
	StripConnection(&resp.Fields)
	if up != nil {
		resp.Add(message.Upgrade, append([]byte(nil), up...))
	}
	resp.ContentLength = 0
	c.rg.Set(phaseNone, 0)
	c.wg.Set(phaseNone, 0)
	resp.Upgrade = &tunnelConn{c: c}
	return nil
}
