package origin

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/http2"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// Connections of HTTP/2 are shared: a request takes a place on one, in the order in which they
// were opened, so that those not needed become idle. A new one is opened when all are full.

// perConn is the most requests at once on a connection, and what one that is being opened is
// expected to take.
const perConn = 100

var errNoH2 = errors.New("the origin did not choose h2 in the TLS handshake; write connection.protocol: auto, or http1")

// shares says whether a request goes on a shared connection, as far as is known.
func (e *endpoint) shares(w wish) bool {
	switch p := e.spec.Protocol; {
	case w.http1:
		return false
	case p == v1.OriginAuto:
		spoken := e.spoken.Load()
		return spoken == nil || *spoken == v1.OriginH2
	default:
		return p == v1.OriginH2 || p == v1.OriginH2C
	}
}

// getShared takes a place on a connection, opens one, or waits for one. What it returns is of
// HTTP/1 where the origin chose that.
func (e *endpoint) getShared(ctx context.Context, w wish) (*conn, error) {
	for {
		c, how := e.takeShared(&w)
		switch how {
		case takeIdle:
			return c, nil
		case takePlace:
			if c != nil {
				_ = c.hc.Close()
			}
			return e.dialShared(ctx, w)
		}
		g, err := e.queueShared(ctx, &w)
		switch {
		case err != nil:
			return nil, err
		case g.again:
			if !e.shares(w) {
				return e.get(ctx, w)
			}
		case g.conn == nil:
			return e.dialShared(ctx, w)
		default:
			return g.conn, nil
		}
	}
}

// takeShared takes what can be had at once.
func (e *endpoint) takeShared(w *wish) (*conn, taken) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.reserve(w); c != nil {
		return c, takeIdle
	}
	if n := e.dials(w); n > 0 && e.waiting.n < n*perConn {
		return nil, takeNothing // there will be a place on the one that is being opened
	}
	if c := e.reserve(w); c != nil { // one may have heard just now how many it may carry
		return c, takeIdle
	}
	var victim *conn
	switch {
	case e.open < e.spec.MaxPerOrigin:
		e.open++
		e.stats.open.Add(1)
	case len(e.idle) > 0:
		victim = e.idle[0]
		e.removeIdle(0)
	default:
		e.drainIdle()
		return nil, takeNothing
	}
	e.dialing = append(e.dialing, string(w.host))
	return victim, takePlace
}

// reserve takes a place on a connection that is open. The lock is held.
func (e *endpoint) reserve(w *wish) *conn {
	for _, c := range e.shared {
		if w.now < c.dies && w.fits(c) && c.h2.Reserve() {
			return c
		}
	}
	return nil
}

// dials is the number of connections that fit and are being opened, or were and have not heard
// yet how many requests they may carry. The lock is held.
func (e *endpoint) dials(w *wish) (n int) {
	for _, host := range e.dialing {
		if w.host == nil || string(w.host) == host {
			n++
		}
	}
	for _, c := range e.shared {
		if s := c.h2.State(); w.fits(c) && !s.Settled && !s.Draining {
			n++
		}
	}
	return n
}

// dialed notes that one of them is open, or failed. The lock is held.
func (e *endpoint) dialed(w *wish) {
	if i := slices.Index(e.dialing, string(w.host)); i >= 0 {
		e.dialing = slices.Delete(e.dialing, i, i+1)
	}
}

// drainIdle closes a shared connection that nobody uses, for one that is needed more. The lock
// is held, so another goroutine does it.
func (e *endpoint) drainIdle() {
	for _, c := range e.shared {
		if c.h2.Busy() == 0 {
			go c.h2.Drain()
			return
		}
	}
}

func (e *endpoint) queueShared(ctx context.Context, w *wish) (grant, error) {
	e.mu.Lock()
	if e.waiting.n >= e.maxWaiting() {
		e.mu.Unlock()
		return grant{}, errQueue
	}
	waiter := e.waiting.push(w)
	if e.dials(w) == 0 && e.open < e.spec.MaxPerOrigin || e.roomLocked(w) {
		e.waiting.remove(waiter) // there is one by now
		waiter.got <- grant{again: true}
	}
	e.mu.Unlock()
	e.stats.wait.Inc()
	return e.wait(ctx, waiter, w.deadline)
}

func (e *endpoint) roomLocked(w *wish) bool {
	for _, c := range e.shared {
		if w.fits(c) && c.h2.Room() > 0 && e.h.clock() < c.dies {
			return true
		}
	}
	return false
}

// dialShared opens a connection and takes a place on it; the requests that waited for it get
// theirs, or hear of the failure.
func (e *endpoint) dialShared(ctx context.Context, w wish) (*conn, error) {
	e.stats.dials.Inc()
	nc, p, err := e.connect(ctx, w, e.spec.Protocol)
	if err != nil {
		e.mu.Lock()
		e.dialed(&w)
		if ctx.Err() == nil && e.dials(&w) == 0 && len(e.shared) == 0 {
			same := func(o *waiter) bool { return o.shared != nil && string(o.shared.host) == string(w.host) }
			for other := e.waiting.pop(same); other != nil; other = e.waiting.pop(same) {
				other.got <- grant{err: err}
			}
		}
		e.lostLocked()
		e.mu.Unlock()
		return nil, err
	}
	if e.spec.Protocol == v1.OriginAuto {
		e.spoken.Store(&p)
	}
	c := e.newConn(w)
	if p == v1.OriginHTTP1 {
		c.hc = e.h.client.NewConn(nc, c)
	} else if c, err = e.share(c, nc); err != nil {
		c = nil
	}
	e.mu.Lock()
	e.dialed(&w)
	e.wakeShared()
	e.mu.Unlock()
	return c, err
}

// share makes a connection of HTTP/2 one for all, and takes the first place on it.
func (e *endpoint) share(c *conn, nc net.Conn) (*conn, error) {
	c.h2 = e.h.client2.NewConn(nc, c)
	ok := c.h2.Reserve()
	go func() { _ = c.h2.Run(context.Background()) }() // it ends with the connection, which the endpoint closes
	e.mu.Lock()
	closed := e.closed
	if !c.left && !closed {
		e.shared = append(e.shared, c)
		e.grantLocked(c)
	}
	e.mu.Unlock()
	if closed {
		c.h2.Drain() // once this request is over
	}
	if !ok {
		return nil, http1.ErrClosed
	}
	return c, nil
}

// grantLocked gives the free places of a connection to those who wait.
func (e *endpoint) grantLocked(c *conn) {
	fits := func(w *waiter) bool { return w.shared != nil && w.shared.fits(c) }
	for w := e.waiting.find(fits); w != nil && c.h2.Reserve(); w = e.waiting.find(fits) {
		e.waiting.remove(w)
		w.got <- grant{conn: c}
	}
}

// wakeShared has those who still wait look again where they can have more than they wait for:
// another connection, or one of HTTP/1. The lock is held.
func (e *endpoint) wakeShared() {
	if e.open >= e.spec.MaxPerOrigin && (e.spec.Protocol != v1.OriginAuto || e.shares(wish{})) {
		return
	}
	for w := e.waiting.pop(forHTTP2); w != nil; w = e.waiting.pop(forHTTP2) {
		w.got <- grant{again: true}
	}
}

// Changed implements http2.Owner.
func (c *conn) Changed(h *http2.ClientConn) {
	now := c.e.h.clock()
	s := h.State()
	e := c.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.Busy == 0 {
		c.idleSince = now
	}
	if s.Draining && !c.left {
		c.left = true
		if i := slices.Index(e.shared, c); i >= 0 {
			e.shared = slices.Delete(e.shared, i, i+1)
		}
	}
	if s.Closed && !c.gone {
		c.gone = true
		e.lostLocked()
		e.wakeShared()
	}
	if !c.left && c.h2 != nil {
		e.grantLocked(c)
	}
	if s.Settled && !c.settled {
		c.settled = true
		e.wakeShared() // it may carry less than hoped
	}
}

// roundTrip sends the request on the connection.
func (c *conn) roundTrip(ctx context.Context, x *stage.Exchange, resp *message.Response, t http1.Try) error {
	if c.h2 == nil {
		return c.hc.RoundTrip(ctx, &x.Out, resp, t)
	}
	x.Out.Secure = c.e.tls != nil // :scheme is that of this connection
	return c.h2.RoundTrip(ctx, &x.Out, resp, t)
}

// byHTTP1 says whether a request for an upgrade can go by HTTP/1.1 only: to an origin that does
// not take extended CONNECT, or for another protocol than WebSocket.
func (e *endpoint) byHTTP1(upgrade []byte) bool {
	return e.noConnect.Load() || !message.EqualFold(bytes.TrimSpace(upgrade), "websocket")
}

// otherwise says whether an exchange that failed must go by HTTP/1.1 instead.
func (e *endpoint) otherwise(failed *http1.Error) bool {
	if errors.Is(failed.Err, http2.ErrNoConnect) {
		e.noConnect.Store(true)
		return true
	}
	return errors.Is(failed.Err, http2.ErrHTTP11Required)
}
