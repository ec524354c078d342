package http1

import (
	"context"
	"net"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// Server serves HTTP/1 connections.
type Server struct{}

// NewServer returns a server. Nothing is started: the caller accepts connections and runs Run.
func NewServer(cfg ServerConfig, h Handler) *Server { panic("skeleton") }

// Run keeps the limits of time and the clock behind Date until ctx ends. It blocks.
func (s *Server) Run(ctx context.Context) error { panic("skeleton") }

// ServeConn serves nc until it is done, and closes it. When ctx ends the connection is
// closed at once. Facts is kept by reference and must not change.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn, facts *message.Conn) { panic("skeleton") }

// Drain closes idle connections now; busy ones end after their answer, which says so.
func (s *Server) Drain() { panic("skeleton") }

// Conns is the number of connections being served.
func (s *Server) Conns() int { panic("skeleton") }

// Stats returns the counters.
func (s *Server) Stats() Stats { panic("skeleton") }

// StripConnection removes what is meant for one hop only: Connection, the fields it names,
// Keep-Alive, Proxy-Connection, TE, Trailer, Transfer-Encoding and Upgrade (RFC 9110 section
// 7.6.1). Forwarders call it on a copy of the request; answers of RoundTrip come stripped.
func StripConnection(f *message.Fields) { panic("skeleton") }

// ClientConfig bounds what an origin may ask of us. Zero means the default.
type ClientConfig struct {
	Limits       Limits        // of an answer's head; 64 KiB, 256 fields
	HeadTimeout  time.Duration // from the request's last byte to the final answer's head; 60 s
	BodyTimeout  time.Duration // longest wait for more of an answer's body; 60 s
	WriteTimeout time.Duration // longest time in which nothing can be written; 30 s
	ContinueWait time.Duration // wait for 100 before the body is sent without it; 1 s
	Interim      int           // most 1xx answers before a final one; 16
}

// Client holds what its connections share: limits, buffers, and the sweeper.
type Client struct{}

// NewClient returns a client. Nothing is started: the caller dials and runs Run.
func NewClient(cfg ClientConfig) *Client { panic("skeleton") }

// Run keeps limits of time and the ends of contexts, 20 times a second, until ctx ends.
func (c *Client) Run(ctx context.Context) error { panic("skeleton") }

// NewConn makes a connection to an origin of nc, which may be TLS. Rel is told when
// an exchange has ended; it may be nil.
func (c *Client) NewConn(nc net.Conn, rel Releaser) *ClientConn { panic("skeleton") }

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
	Inform  Informer  // takes 1xx other than 100 and 101; may be nil
	Head    time.Time // latest time for the final answer's head; zero is ClientConfig.HeadTimeout only
	Upgrade bool      // ask for the protocols of the request's Upgrade field; CONNECT needs none
}

// ClientConn is one connection to an origin. One exchange at a time.
type ClientConn struct{}

// RoundTrip sends req and reads the head of its answer into resp, which is reset first.
//
// Written are: the method, the target in origin-form (authority-form for CONNECT), Host from the authority, and all fields
// but Host, connection-specific and framing ones, which are written anew. The caller has removed
// the fields that Connection names (StripConnection). Req.Body is pulled; it is not closed. An
// answer that comes before the body was sent is returned at once; then the rest is not sent
// once the answer has ended.
//
// Resp.Body must be closed in any case when it is not nil. It returns io.EOF only for a
// whole body. With status 101 (when asked for) or a 2xx to CONNECT, resp.Upgrade is the connection.
//
// When ctx ends RoundTrip and Body.Next return within a tick (50 ms) of the Client's sweeper. An
// error is always an *Error.
func (c *ClientConn) RoundTrip(ctx context.Context, req *message.Request, resp *message.Response, t Try) error {
	panic("skeleton")
}

// Stale says whether an idle connection must not be used again: the origin closed it or sent
// bytes that nobody asked for. It does not block and does not allocate.
func (c *ClientConn) Stale() bool { panic("skeleton") }

// Uses is the number of exchanges begun.
func (c *ClientConn) Uses() int { panic("skeleton") }

// NetConn returns the connection under c, for its addresses and TLS state only.
func (c *ClientConn) NetConn() net.Conn { panic("skeleton") }

// Close closes the connection at once. An exchange that is under way fails.
func (c *ClientConn) Close() error { panic("skeleton") }

// Phase is where an exchange was when it failed.
type Phase uint8

// The phases.
const (
	PhaseWrite Phase = iota // sending the request
	PhaseHead               // waiting for, or reading, the answer's head
	PhaseBody               // reading the answer's body
)

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
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause. A *BodyError in it is the client's fault, ctx.Err() the caller's.
func (e *Error) Unwrap() error { return e.Err }
