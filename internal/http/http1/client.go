package http1

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/http/deadline"
	"github.com/relais-edge/relais/internal/http/message"
)

// ClientConfig bounds what an origin may ask of us. Zero means the default.
type ClientConfig struct {
	Limits       Limits        // of an answer's head; 64 KiB, 256 fields
	HeadTimeout  time.Duration // from the last byte of the request to the final answer's head; 60 s
	BodyTimeout  time.Duration // longest wait for more of an answer's body; 60 s
	WriteTimeout time.Duration // longest time in which nothing can be written (128 KiB at most); 30 s
	ContinueWait time.Duration // wait for 100 before the body is sent without it; 1 s
	Interim      int           // most 1xx answers before a final one; 16
}

func (c *ClientConfig) fill() {
	c.Limits.fill(256)
	orDefault(&c.HeadTimeout, time.Minute)
	orDefault(&c.BodyTimeout, time.Minute)
	orDefault(&c.WriteTimeout, 30*time.Second)
	orDefault(&c.ContinueWait, time.Second)
	orDefault(&c.Interim, 16)
}

// Client holds what its connections share: limits, buffers, and the sweeper.
type Client struct {
	cfg   ClientConfig
	watch deadline.Sweeper[*ClientConn]
	pool  buffers
}

// clientTick is how often limits of time and ends of contexts are looked at.
const clientTick = 50 * time.Millisecond

// NewClient returns a client. Nothing is started: the caller dials and runs Run.
func NewClient(cfg ClientConfig) *Client {
	cfg.fill()
	c := &Client{cfg: cfg}
	c.watch.Init(clientTick, (*ClientConn).sweep, (*ClientConn).place)
	c.pool.init()
	return c
}

// Run keeps limits of time and the ends of contexts, 20 times a second, until ctx ends. It blocks.
func (c *Client) Run(ctx context.Context) error { return c.watch.Run(ctx) }

// Conns is the number of connections that are open.
func (c *Client) Conns() int { return c.watch.Len() }

// NewConn makes a connection to an origin of nc, which may be TLS. Rel is told when
// an exchange has ended; it may be nil.
func (c *Client) NewConn(nc net.Conn, rel Releaser) *ClientConn {
	cc := &ClientConn{cl: c, nc: nc, rel: rel}
	cc.src.init(nc, rawOf(nc), &c.pool)
	cc.tcp, cc.raw = socketOf(nc)
	cc.probe, cc.both = cc.probeStep, cc.bothSteps
	cc.body.c = cc
	c.watch.Add(cc)
	return cc
}

// Releaser is told that an exchange is over: exactly once for each RoundTrip.
type Releaser interface {
	// Release is called when the answer's body was closed (whole or not), when there was
	// none, when RoundTrip failed, or when a tunnel was closed. When reusable is false the
	// connection is closed already. It may be called from within RoundTrip, before it returns.
	Release(c *ClientConn, reusable bool)
}

// Informer takes interim answers; message.Control is one.
type Informer interface {
	Inform(status int, f *message.Fields)
}

// Try says how one request is sent.
type Try struct {
	Inform  Informer      // takes 1xx other than 100 and 101; may be nil
	Head    time.Time     // latest time for the final answer's head, also while the request is sent; zero is none
	Wait    time.Duration // from the last byte of the request to the final answer's head; zero is ClientConfig.HeadTimeout
	Body    time.Duration // longest wait for more of the answer's body; zero is ClientConfig.BodyTimeout
	Upgrade bool          // ask for the protocols of the request's Upgrade field; CONNECT needs none
	Hot     bool          // the connection was in use a moment ago: send a bodyless request without looking whether it is quiet
}

// Phase is where an exchange was when it failed.
type Phase uint8

// The phases.
const (
	PhaseWrite Phase = iota // sending the request
	PhaseHead               // waiting for, or reading, the answer's head
	PhaseBody               // reading the answer's body
)

// String returns the phase as a log shows it.
func (p Phase) String() string { return [...]string{"write", "head", "body"}[p] }

// Error is why an exchange failed. The connection is closed then. The caller decides about
// another try and the status (502, or 504 with Timeout).
type Error struct {
	Phase   Phase
	Sent    bool // some byte of the request left, so that the origin may have acted
	Reused  bool // the connection had served an exchange before
	Timeout bool // a limit of time was over
	Err     error
}

// Error implements error.
func (e *Error) Error() string { return e.Phase.String() + ": " + e.Err.Error() }

// Unwrap returns the cause. A *message.BodyError in it is the client's fault, an error of a context
// the caller's; io.ErrUnexpectedEOF is an origin that ended too soon.
func (e *Error) Unwrap() error { return e.Err }

// Causes of an Error.
var (
	ErrStale      = errors.New("the origin closed the idle connection, or sent what nobody asked for")
	ErrTimeout    = errors.New("the origin took too long")
	ErrInterim    = errors.New("too many interim answers")
	ErrSwitched   = errors.New("101 without being asked")
	ErrWebSocket  = errors.New("101 whose Sec-WebSocket-Accept does not belong to the key (RFC 6455 section 4.2.2)")
	ErrClosed     = errors.New("the connection was closed")
	ErrBodyLength = errors.New("the request's body is not as long as its Content-Length")
	ErrRequest    = errors.New("the request has no method or target, or a control byte in them")
)

// over is why the sweeper has ended an exchange.
type over uint8

const (
	overNot over = iota
	overTime
	overContext
)

// life is what the sweeper knows of an exchange.
type life struct {
	mu    sync.Mutex
	armed bool  // an exchange is under way
	whose ender // its context
	why   over
}

// ender is what the sweeper asks of a context. Done is not among it: a channel costs an allocation
// where a context is made anew for each request, as HTTP/2's are.
type ender interface{ Err() error }

func (c *ClientConn) place() *int { return &c.index }

// sweep ends an exchange whose context has ended or whose time is over.
func (c *ClientConn) sweep(now int64) {
	for _, g := range [...]*deadline.Guard{&c.rg, &c.wg} {
		if p, at, over := g.Look(); p != phaseNone && p != phaseBusy && !over && at < now {
			g.Expire(p, at, func() { c.kick(overTime) })
		}
	}
	c.life.mu.Lock()
	defer c.life.mu.Unlock()
	if c.life.armed && c.life.why == overNot && c.life.whose.Err() != nil {
		c.cut(overContext)
	}
}

// kick ends the waits of the exchange that is under way; between two it does nothing.
func (c *ClientConn) kick(why over) {
	c.life.mu.Lock()
	defer c.life.mu.Unlock()
	if c.life.armed && c.life.why == overNot {
		c.cut(why)
	}
}

// cut is kick where there is something to end; c.life.mu is held.
func (c *ClientConn) cut(why over) {
	c.life.why = why
	_ = c.nc.SetDeadline(past())
}

// arm begins an exchange for the sweeper.
func (c *ClientConn) arm(ctx context.Context) {
	c.life.mu.Lock()
	c.life.armed, c.life.whose, c.life.why = true, ctx, overNot
	c.life.mu.Unlock()
}

// disarm ends it; false when the sweeper had ended it before.
func (c *ClientConn) disarm() bool {
	c.rg.Set(phaseNone, 0)
	c.wg.Set(phaseNone, 0)
	c.life.mu.Lock()
	defer c.life.mu.Unlock()
	c.life.armed, c.life.whose = false, nil
	return c.life.why == overNot
}

func (c *ClientConn) why() over {
	c.life.mu.Lock()
	defer c.life.mu.Unlock()
	return c.life.why
}
