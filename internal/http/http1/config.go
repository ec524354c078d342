package http1

import (
	"context"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// Handler answers requests. It is called from the connection's goroutine, one request at a time.
type Handler interface {
	// Serve answers req; it never returns nil. What the answer lends is good until its Ender
	// is told, and so are req and its body. Ctx ends with the connection: when it is
	// closed or reset by the client, or when the context given to ServeConn ends. The end of
	// the client's sending side alone does not end it.
	//
	// A field "Connection: close" of the answer ends the connection after it. Other
	// connection-specific and framing fields of the answer are ignored and written anew.
	Serve(ctx context.Context, req *message.Request) *message.Response
	// Refuse gives the page for bytes that are no acceptable request; nil for the plain
	// one. Status is one of 400, 408, 413, 414, 417, 431, 501, 505, or 500 after a
	// panic of Serve. Code is a token for counters, detail is for logs. The connection is closed
	// after the page.
	Refuse(ctx context.Context, conn *message.Conn, status int, code, detail string) *message.Response
}

// Limits bound a head, in bytes and lines. Zero means the default.
type Limits struct {
	HeadBytes   int // start line and fields together; 64 KiB, at most 128 KiB
	Fields      int // field lines; 128, at most 10,000
	TargetBytes int // request target; 16 KiB
}

// ServerConfig bounds what a client may ask of a connection. Zero means the default.
type ServerConfig struct {
	Limits Limits
	// BodyBytes is the most that a request body may hold; 0 is no limit here.
	BodyBytes int64
	// Requests is the most requests on one connection; 0 is no limit.
	Requests int
	// Preface says that HTTP/2 is spoken on the same port, to those who begin with its preface. Who
	// begins with the name of a protocol that is not HTTP is then closed without an answer: an HTTP/2
	// client with a broken preface would take it for frames (RFC 9113 section 3.4).
	Preface bool

	HeaderTimeout time.Duration // from a head's first byte to its last; 15 s
	BodyTimeout   time.Duration // longest wait for more of a body; 30 s
	WriteTimeout  time.Duration // longest time in which no byte is taken; 30 s
	IdleTimeout   time.Duration // between requests; 75 s
	TunnelTimeout time.Duration // longest silence of both sides of a tunnel; 1 h

	// BodyRate and WriteRate are the bytes a second that a client must send of a body, or take of
	// an answer, on average over the time that is spent waiting for it beyond BodyTimeout or
	// WriteTimeout; 0 is no limit. WriteRate needs Linux: elsewhere a piece of 128 KiB must
	// be taken within WriteTimeout.
	BodyRate, WriteRate int64

	// OnSlow is told of a connection whose client was too slow for a limit of time, idle ones not counted; it may be nil
	// and must not block.
	OnSlow func(conn *message.Conn)
}

// maxFields is as many lines as a head may be allowed.
const maxFields = 10_000

func orDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

func (l *Limits) fill(fields int) {
	orDefault(&l.HeadBytes, 64<<10)
	orDefault(&l.Fields, fields)
	orDefault(&l.TargetBytes, 16<<10)
	l.HeadBytes = min(l.HeadBytes, sizeLarge)
	l.Fields = min(l.Fields, maxFields)
	l.TargetBytes = min(l.TargetBytes, l.HeadBytes)
}

func (c *ServerConfig) fill() {
	c.Limits.fill(128)
	orDefault(&c.HeaderTimeout, 15*time.Second)
	orDefault(&c.BodyTimeout, 30*time.Second)
	orDefault(&c.WriteTimeout, 30*time.Second)
	orDefault(&c.IdleTimeout, 75*time.Second)
	orDefault(&c.TunnelTimeout, time.Hour)
}

// Stats are what a Server has counted since it was made.
type Stats struct {
	Requests uint64 // given to Serve
	Refused  uint64 // given to Refuse
	Panics   uint64 // of the Handler, of a Body or of an Ender
	Aborted  uint64 // answers that could not be sent whole
	Slow     uint64 // connections ended because a limit of time was over, idle ones not counted
	Gone     uint64 // connections reset by the client while a request was being answered
	Tunnels  uint64
	Parked   uint64 // times that a connection gave its goroutine up until its next request
	Files    uint64 // pieces of bodies that were in files, and that the kernel sent
}
