package http2

import (
	"context"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// Handler answers requests. It is called from the goroutine that reads a connection, so it
// calls Control.MayBlock before anything that may take long; the requests that follow are then
// served by other goroutines.
type Handler interface {
	// Serve answers req; it never returns nil. What the answer lends is good until its Ender
	// is told, and so are req and its body. Ctx ends with the stream: when the client resets it,
	// when the connection ends, or when the context given to ServeConn ends. The end of the
	// client's sending side alone does not end it.
	//
	// A field "Connection: close" of the answer ends the connection in good order after the
	// streams that are open. Other connection-specific and framing fields of the answer are
	// ignored and written anew.
	Serve(ctx context.Context, req *message.Request) *message.Response
	// Refuse gives the page for what is no acceptable request; nil for the plain one. Status
	// is one of 400, 413, 414, 417, 431, 501, or 500 after a panic of Serve. Code is a token
	// for counters, detail is for logs. A malformed request is told with 400, but the client
	// gets a RST_STREAM and not the page (RFC 9113 section 8.1.1).
	Refuse(ctx context.Context, conn *message.Conn, status int, code, detail string) *message.Response
}

// Limits bound a head, in bytes and lines. Zero means the default.
type Limits struct {
	HeadBytes   int // all fields together, four more bytes for each; 64 KiB, at most 128 KiB
	Fields      int // field lines; 128, at most 10,000
	TargetBytes int // :path; 16 KiB
}

// ServerConfig bounds what a client may ask of a connection. Zero means the default.
type ServerConfig struct {
	Limits Limits
	// BodyBytes is the most that a request body may hold; 0 is no limit here.
	BodyBytes int64
	// Requests is the most requests on one connection; 0 is no limit.
	Requests int
	// Streams is the most requests at once on one connection; 128.
	Streams int
	// StreamWindow and ConnWindow are how much of request bodies may wait in memory for one
	// request and for all of a connection; 256 KiB and 1 MiB, at least 64 KiB.
	StreamWindow, ConnWindow int

	// BodyRate is the least rate of a request's body, and WriteRate that at which an answer is
	// taken, in bytes a second; 0 is no limit. They are averages over the time that was spent
	// waiting for the client, and that beyond BodyTimeout or WriteTimeout.
	BodyRate, WriteRate int64

	HeaderTimeout time.Duration // from a head's first byte to its last, and from the connection's begin to its first and to the acknowledgement of our SETTINGS; 15 s
	BodyTimeout   time.Duration // longest wait for more of a body; 30 s
	WriteTimeout  time.Duration // longest time in which a client takes nothing of what it may get; 30 s
	IdleTimeout   time.Duration // between requests; 75 s
	TunnelTimeout time.Duration // longest silence of both sides of a tunnel; 1 h

	// Abuse bounds what costs us more than the client.
	Abuse AbuseLimits
	// OnAbuse is told of a connection that is closed for abuse; it may be nil and must not block.
	OnAbuse func(conn *message.Conn, kind Abuse)
	// OnSlow is told of a connection whose client was too slow for a limit of time, idle ones not counted; it may be nil
	// and must not block.
	OnSlow func(conn *message.Conn)
}

// Abuse is a kind of behaviour that no honest client shows for long.
type Abuse uint8

// The kinds of abuse.
const (
	AbuseReset        Abuse = iota // streams that the client resets before their end (rapid reset, CVE-2023-44487)
	AbuseError                     // streams that we must reset for the client's fault (MadeYouReset, CVE-2025-8671)
	AbuseRefused                   // streams over the limit
	AbuseHead                      // heads over the limit, HPACK bombs among them
	AbuseContinuation              // CONTINUATION frames of one head (CVE-2024-27316)
	AbuseSettings                  // SETTINGS frames (CVE-2019-9515)
	AbusePing                      // PING frames (CVE-2019-9512)
	AbusePriority                  // PRIORITY and PRIORITY_UPDATE frames (CVE-2019-9513)
	AbuseEmpty                     // DATA frames without data, and frames of unknown type (CVE-2019-9518)
	AbuseWindow                    // WINDOW_UPDATE frames out of proportion to what is sent (CVE-2019-9511)
	AbuseSmall                     // DATA frames that small windows make us send (CVE-2019-9511, CVE-2019-9517)
	AbuseStall                     // a connection's window that stays closed while answers wait (CVE-2019-9517)

	numAbuse = iota
)

// String returns the kind as a metric shows it.
func (a Abuse) String() string {
	return [...]string{
		"reset", "error", "refused", "head", "continuation", "settings", "ping", "priority",
		"empty", "window", "small", "stall",
	}[a]
}

// Abuses are all kinds, for who makes a metric of each.
func Abuses() []Abuse {
	list := make([]Abuse, numAbuse)
	for i := range list {
		list[i] = Abuse(i)
	}
	return list
}

// AbuseLimits are how often a client may do each kind on one connection in ten seconds; more
// ends the connection with ENHANCE_YOUR_CALM. Zero means the default.
type AbuseLimits struct {
	Resets        int // 400
	Errors        int // 100
	Refused       int // 200
	Heads         int // 20
	Continuations int // for one head, whatever the time; 32
	Settings      int // 50
	Pings         int // between two answers; 200
	Priorities    int // besides four for each request; 200
	Empty         int // 200
	Windows       int // besides four for each DATA frame sent; 1,000
	Small         int // 2,000
}

func (a *AbuseLimits) table() (t [numAbuse]int32) {
	for i, v := range [numAbuse]struct{ v, d int }{
		AbuseReset: {a.Resets, 400}, AbuseError: {a.Errors, 100}, AbuseRefused: {a.Refused, 200},
		AbuseHead: {a.Heads, 20}, AbuseContinuation: {a.Continuations, 32}, AbuseSettings: {a.Settings, 50},
		AbusePing: {a.Pings, 200}, AbusePriority: {a.Priorities, 200}, AbuseEmpty: {a.Empty, 200},
		AbuseWindow: {a.Windows, 1000}, AbuseSmall: {a.Small, 2000}, AbuseStall: {0, 0},
	} {
		if v.v <= 0 {
			v.v = v.d
		}
		t[i] = int32(v.v)
	}
	return t
}

// abusePeriod is the time that the limits of abuse are for.
const abusePeriod = 10 * time.Second

func orDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

func (c *ServerConfig) fill() {
	l := &c.Limits
	orDefault(&l.HeadBytes, 64<<10)
	orDefault(&l.Fields, 128)
	orDefault(&l.TargetBytes, 16<<10)
	l.HeadBytes = min(l.HeadBytes, 128<<10)
	l.Fields = min(l.Fields, 10_000)
	l.TargetBytes = min(l.TargetBytes, l.HeadBytes)
	orDefault(&c.Streams, 128)
	orDefault(&c.StreamWindow, 256<<10)
	orDefault(&c.ConnWindow, 1<<20)
	c.StreamWindow = min(max(c.StreamWindow, initialWindow), 16<<20)
	c.ConnWindow = min(max(c.ConnWindow, c.StreamWindow), 64<<20)
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
	Slow     uint64 // streams and connections ended because a limit of time was over, idle ones not counted
	Gone     uint64 // requests reset by the client, or whose connection ended, while they were being answered
	Tunnels  uint64
	// Abuse counts the connections closed for each kind of abuse.
	Abuse [numAbuse]uint64
}
