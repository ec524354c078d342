package http3

import (
	"context"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// Handler answers requests. It may be called for several requests of a connection at once.
type Handler interface {
	// Serve answers req; it never returns nil. What the answer lends is good until its Ender
	// is told, and so are req and its body. Ctx ends with the request's stream: when the
	// client gives the request up, or the connection ends. No other request of the
	// connection is read until Serve returns or calls req.Control.MayBlock.
	//
	// A field "Connection: close" of the answer ends the connection in good order. Other
	// connection-specific and framing fields of the answer are ignored and written anew.
	Serve(ctx context.Context, req *message.Request) *message.Response
	// Refuse gives the page for what is no acceptable request; nil for the plain one. Status
	// is one of 400, 408, 413, 414, 417, 425, 431, 501, 502, or 500 after a panic of Serve. Code is a
	// token for counters, detail is for logs. What is malformed in the sense of RFC 9114
	// section 4.1.2 gets no page but H3_MESSAGE_ERROR; Refuse is told all the same.
	Refuse(ctx context.Context, conn *message.Conn, status int, code, detail string) *message.Response
}

// Limits bound a head, in bytes and lines. Zero means the default.
type Limits struct {
	HeadBytes   int // names and values together, and the field section as it is sent; 64 KiB
	Fields      int // field lines; 128, at most 10,000
	TargetBytes int // path and query; 16 KiB
}

// ServerConfig bounds what a client may ask of a connection. Zero means the default.
type ServerConfig struct {
	Limits Limits
	// BodyBytes is the most that a request body may hold; 0 is no limit here.
	BodyBytes int64
	// Requests is the most requests on one connection, which then ends in good order; 0 is no limit.
	Requests int

	HeaderTimeout time.Duration // from a stream's begin to the end of its head; 15 s
	BodyTimeout   time.Duration // longest wait for more of a body; 30 s
	WriteTimeout  time.Duration // longest time in which the client takes nothing; 30 s
	IdleTimeout   time.Duration // between requests; 75 s
	TunnelTimeout time.Duration // longest silence of both sides of a tunnel; 1 h

	// BodyRate and WriteRate are the bytes a second that a client must send of a body, or take of
	// an answer, on average over the time that is spent waiting for it beyond BodyTimeout or
	// WriteTimeout; 0 is no limit.
	BodyRate, WriteRate int64

	// OnAbuse is told of a connection that is ended because its client broke the protocol or asked for too much of
	// what costs us and brings it nothing, OnSlow of one whose client was too slow for a limit of time, idle ones not
	// counted. Each may be nil and must not block.
	OnAbuse, OnSlow func(conn *message.Conn)
}

func orDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

func (c *ServerConfig) fill() {
	orDefault(&c.Limits.HeadBytes, 64<<10)
	orDefault(&c.Limits.Fields, 128)
	c.Limits.Fields = min(c.Limits.Fields, 10_000)
	orDefault(&c.Limits.TargetBytes, 16<<10)
	c.Limits.TargetBytes = min(c.Limits.TargetBytes, c.Limits.HeadBytes)
	orDefault(&c.HeaderTimeout, 15*time.Second)
	orDefault(&c.BodyTimeout, 30*time.Second)
	orDefault(&c.WriteTimeout, 30*time.Second)
	orDefault(&c.IdleTimeout, 75*time.Second)
	orDefault(&c.TunnelTimeout, time.Hour)
}

// Bounds of what costs us something and brings a client nothing. Who goes over one loses the
// connection with H3_EXCESSIVE_LOAD.
const (
	maxUnknown     = 32       // unknown frames on one request stream
	maxUnknownSize = 64 << 10 // and their bytes; the same for each frame of the control stream
	maxEmptyData   = 100      // DATA frames without data, on one request stream
	maxControl     = 1000     // frames of the control stream beyond four for each request
	maxStrayUni    = 100      // streams of unknown types
	maxDecoder     = 4096     // bytes of the decoder stream beyond sixteen for each request
	maxResets      = 100      // requests given up before their answer, or refused, beyond as many others
)

// Stats are what a Server has counted since it was made.
type Stats struct {
	Requests uint64 // given to Serve
	Refused  uint64 // given to Refuse
	Panics   uint64 // of the Handler, of a Body or of an Ender
	Aborted  uint64 // answers that could not be sent whole
	Slow     uint64 // streams ended because a limit of time was over
	Gone     uint64 // requests that the client gave up before their answer
	Tunnels  uint64
	Early    uint64 // requests served in early data
	Faults   uint64 // connections ended because the client broke the protocol
	Floods   uint64 // connections ended with H3_EXCESSIVE_LOAD
}
